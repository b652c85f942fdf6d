//! The exposure guard: the replication connection that lets a lone principal acknowledge commits.
//!
//! While it is open it confirms all WAL that it has received as written, flushed and applied, and
//! never more: it starts at the local flushed position and PostgreSQL sends only flushed WAL. If
//! the agent dies, it dies, and nothing is acknowledged any more: the fence is in the data path.
//!
//! - A spare connection is always logged in beforehand, also while the guard is open, because a
//!   waiting commit can hold a lock that stops every log-in.
//! - It counts as closed only when its walsender process is gone: answers that still lie in its
//!   socket count until then.
//! - Nothing here blocks the caller, however PostgreSQL hangs. WAL is thrown away as it comes.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::instance::{GUARD_NAME, Instance, ROLE};
use super::pidfd::ProcessHandle;
use super::replication::{Connection, Endpoint, Login, ReplicationError, Streamed};

/// How long an order to open waits for a spare that is not logged in yet.
const SPARE_WAIT: Duration = Duration::from_secs(1);
/// The rest between two attempts to log in, which doubles up to the second one.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// A walsender whose client is gone and that lives longer than this is told to end.
const PATIENCE: Duration = Duration::from_millis(250);
/// The first rest between confirmations that repeat the last one; it doubles up to the second.
const FIRST_NUDGE: Duration = Duration::from_millis(1);
const LONGEST_NUDGE: Duration = Duration::from_millis(500);
const LOGIN_DEADLINE: Duration = Duration::from_secs(5);
const QUEUE: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardEvent {
    /// PostgreSQL has taken its first confirmation.
    Opened,
    /// It was ordered closed, and its walsender process is gone.
    Closed,
    /// It broke, or could not be opened.
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Command {
    Open,
    Close,
}

/// Owns the guard and its spare for as long as the local PostgreSQL runs. Dropping it ends both.
#[derive(Debug)]
pub struct Guard {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<GuardEvent>,
    ready: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Guard {
    /// Begins to log in the spare at once. Call it when PostgreSQL has started.
    pub fn spawn(instance: &Instance) -> Guard {
        let login = Login {
            endpoint: Endpoint::Socket {
                directory: instance.socket_dir.clone(),
                port: instance.port,
            },
            role: ROLE.to_owned(),
            secret: None,
            tls: None,
            application_name: GUARD_NAME.to_owned(),
            deadline: LOGIN_DEADLINE,
        };
        let (commands, orders) = mpsc::channel(QUEUE);
        let (teller, events) = mpsc::channel(QUEUE);
        let (ready_teller, ready) = watch::channel(false);
        let keeper = Keeper {
            spare: Spare::Opening(log_in(login.clone(), Duration::ZERO)),
            login,
            rest: FIRST_REST,
            open: None,
            wanted_until: None,
            leaving: VecDeque::new(),
            closing: false,
            events: teller,
            ready: ready_teller,
        };
        Guard { commands, events, ready, task: tokio::spawn(keeper.run(orders)) }
    }

    /// Ends in `Opened` or `Lost`. Returns at once.
    pub fn open(&self) {
        self.order(Command::Open);
    }

    /// Ends in `Closed`. Returns at once. Closing a guard that is not open is fine.
    pub fn close(&self) {
        self.order(Command::Close);
    }

    /// The next event. Safe to drop at any moment.
    pub async fn event(&mut self) -> GuardEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only when this handle is dropped.
            None => pending().await,
        }
    }

    /// Whether the spare is logged in.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until the spare is logged in.
    pub async fn ready(&mut self) {
        if self.ready.wait_for(|ready| *ready).await.is_err() {
            pending::<()>().await;
        }
    }

    fn order(&self, command: Command) {
        // The task takes commands at any moment, so the queue never fills.
        if self.commands.try_send(command).is_err() {
            tracing::error!(?command, "the exposure guard takes no orders");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type LoggedIn = Result<(Connection, ProcessHandle), ReplicationError>;

enum Spare {
    Opening(Boxed<LoggedIn>),
    Ready(Connection, ProcessHandle),
}

impl Spare {
    /// Ends when its log-in ends, or when a spare that was logged in is of no use any more.
    async fn changed(&mut self) -> LoggedIn {
        match self {
            Spare::Opening(login) => login.await,
            Spare::Ready(connection, _) => loop {
                // What an idle walsender says (a parameter that was reloaded, say) is of no
                // interest: only its end is.
                connection.fill().await?;
                connection.streamed()?;
            },
        }
    }
}

struct Open {
    stream: Boxed<ReplicationError>,
    walsender: ProcessHandle,
}

struct Keeper {
    login: Login,
    spare: Spare,
    rest: Duration,
    open: Option<Open>,
    /// The guard is to open when a spare is there, at the latest then.
    wanted_until: Option<Instant>,
    /// Walsenders that are not known to be gone.
    leaving: VecDeque<ProcessHandle>,
    /// `Closed` is to be told when all of them are gone.
    closing: bool,
    events: mpsc::Sender<GuardEvent>,
    ready: watch::Sender<bool>,
}

impl Keeper {
    async fn run(mut self, mut orders: mpsc::Receiver<Command>) {
        loop {
            let wanted_until = self.wanted_until;
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Command::Open) => self.open(),
                    Some(Command::Close) => self.close(),
                    None => return,
                },
                error = streaming(&mut self.open) => self.lost(&error),
                spare = self.spare.changed() => self.spare_changed(spare),
                () = gone(&mut self.leaving) => self.told_gone(),
                () = until(wanted_until) => {
                    self.wanted_until = None;
                    tracing::info!("the exposure guard cannot open: no spare is logged in");
                    self.tell(GuardEvent::Lost);
                }
            }
        }
    }

    fn open(&mut self) {
        self.closing = false;
        if self.open.is_some() {
            self.tell(GuardEvent::Opened);
            return;
        }
        let opening = Spare::Opening(log_in(self.login.clone(), Duration::ZERO));
        match std::mem::replace(&mut self.spare, opening) {
            Spare::Ready(connection, walsender) => {
                self.ready.send_replace(false);
                self.start(connection, walsender);
            }
            opening @ Spare::Opening(_) => {
                self.spare = opening;
                self.wanted_until = Some(Instant::now() + SPARE_WAIT);
            }
        }
    }

    fn start(&mut self, connection: Connection, walsender: ProcessHandle) {
        self.wanted_until = None;
        let stream = Box::pin(confirm_all(connection, self.events.clone()));
        self.open = Some(Open { stream, walsender });
    }

    fn close(&mut self) {
        self.wanted_until = None;
        if let Some(open) = self.open.take() {
            // Dropping the stream closes the connection.
            self.leaving.push_back(open.walsender);
        }
        self.closing = true;
        self.told_gone();
    }

    fn told_gone(&mut self) {
        if self.closing && self.leaving.is_empty() {
            self.closing = false;
            self.tell(GuardEvent::Closed);
        }
    }

    fn lost(&mut self, error: &ReplicationError) {
        tracing::info!(%error, "the exposure guard broke");
        if let Some(open) = self.open.take() {
            self.leaving.push_back(open.walsender);
        }
        self.tell(GuardEvent::Lost);
    }

    fn spare_changed(&mut self, spare: LoggedIn) {
        match spare {
            Ok((connection, walsender)) => {
                self.rest = FIRST_REST;
                if self.wanted_until.is_some() {
                    self.start(connection, walsender);
                    self.spare = Spare::Opening(log_in(self.login.clone(), Duration::ZERO));
                } else {
                    self.spare = Spare::Ready(connection, walsender);
                    self.ready.send_replace(true);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the guard's spare connection is not logged in");
                self.ready.send_replace(false);
                self.spare = Spare::Opening(log_in(self.login.clone(), self.rest));
                self.rest = LONGEST_REST.min(self.rest * 2);
            }
        }
    }

    fn tell(&self, event: GuardEvent) {
        tell(&self.events, event);
    }
}

/// Commands are bounded, and each leads to two events at most, so a caller that reads them
/// never finds one missing.
fn tell(events: &mpsc::Sender<GuardEvent>, event: GuardEvent) {
    if events.try_send(event).is_err() {
        tracing::error!(?event, "nobody reads what the exposure guard tells");
    }
}

fn log_in(login: Login, rest: Duration) -> Boxed<LoggedIn> {
    Box::pin(async move {
        sleep(rest).await;
        let mut connection = Connection::log_in(&login).await?;
        let walsender = walsender_of(&connection)?;
        // An answer after the handle was taken proves that the handle is the walsender's.
        connection.identify_system().await?;
        Ok((connection, walsender))
    })
}

async fn streaming(open: &mut Option<Open>) -> ReplicationError {
    match open {
        Some(open) => open.stream.as_mut().await,
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Ends when the first of them is gone, and takes it off.
async fn gone(leaving: &mut VecDeque<ProcessHandle>) {
    match leaving.front() {
        Some(walsender) => ended(walsender).await,
        None => pending().await,
    }
    leaving.pop_front();
}

/// Opens the guard on a connection that is logged in, and confirms WAL until it breaks.
async fn confirm_all(
    mut connection: Connection,
    events: mpsc::Sender<GuardEvent>,
) -> ReplicationError {
    match confirm(&mut connection, &events).await {
        Ok(()) => ReplicationError::Closed,
        Err(error) => error,
    }
}

async fn confirm(
    connection: &mut Connection,
    events: &mpsc::Sender<GuardEvent>,
) -> Result<(), ReplicationError> {
    let start = connection.identify_system().await?.position;
    connection.start_replication(start).await?;
    let mut received = start.lsn;
    let mut told = false;
    // PostgreSQL ignores confirmations until it has put the walsender into state `streaming`,
    // which it does not tell, so the last one is repeated, in quick succession at first.
    let mut nudge = FIRST_NUDGE;
    let mut nudge_at = Instant::now();
    loop {
        let mut confirm = false;
        while let Some(streamed) = connection.streamed()? {
            match streamed {
                Streamed::Wal { end } => {
                    received = received.max(end);
                    confirm = true;
                }
                Streamed::Keepalive { answer_now } => {
                    if !told {
                        told = true;
                        tell(events, GuardEvent::Opened);
                    }
                    confirm |= answer_now;
                }
                Streamed::Ended => return Ok(()),
            }
        }
        if confirm {
            connection.confirm(received, false).await?;
        }
        tokio::select! {
            biased;
            filled = connection.fill() => filled?,
            () = sleep_until(nudge_at) => {
                connection.confirm(received, !told).await?;
                nudge_at = Instant::now() + nudge;
                nudge = LONGEST_NUDGE.min(nudge * 2);
            }
        }
    }
}

fn walsender_of(connection: &Connection) -> Result<ProcessHandle, ReplicationError> {
    ProcessHandle::open(connection.process()).map_err(ReplicationError::Broken)
}

/// Ends when the process has. One that lives on although its client is gone is told to end.
async fn ended(walsender: &ProcessHandle) {
    while tokio::time::timeout(PATIENCE, walsender.gone()).await.is_err() {
        tracing::info!("a walsender outlives its connection and is told to end");
        if let Err(error) = walsender.signal(Signal::TERM) {
            tracing::warn!(%error, "a walsender that outlives its connection takes no signal");
        }
    }
}
