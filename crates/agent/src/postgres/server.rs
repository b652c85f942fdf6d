//! The local PostgreSQL as a thing that can be started, asked, reloaded and stopped.
//!
//! It knows nothing of the session. Its connections are opened as soon as it runs, spares
//! included, because a commit that waits can hold a lock that stops every log-in. Every method may
//! be dropped at any moment: `stop` then cleans up whatever state was reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use session::{Incarnation, Lsn, Position, Timeline};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::access::{self, Access};
use super::control::Control;
use super::create::{self, DataDir};
use super::error::Error;
use super::instance::Instance;
use super::pidfd::ProcessHandle;
use super::process::{self, Postmaster};
use super::replication::parse_lsn;
use super::settings::{self, Listen, Upstream};
use super::sql::{Commits, Connection};
use super::startup::{self, Stillness};
use super::timelines;
use super::version::Version;

/// The rest between two looks at something that PostgreSQL does not announce.
pub const TICK: Duration = Duration::from_millis(2);
/// How long an adopted server has to let us in.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(3);
/// A commit that waits can hold a lock that stops every log-in.
const SPARE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the receiver may take to end: its own network timeout at most.
pub const RECEIVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients that were told to go are waited for.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// How a server is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    pub listen: Listen,
    pub access: Access,
    pub upstream: Option<Upstream>,
}

impl Mode {
    /// A hot standby without upstream and without clients.
    pub fn alone(listen: Listen) -> Mode {
        Mode { listen, access: Access::Closed, upstream: None }
    }
}

/// A running server, as far as it is ours.
#[derive(Debug)]
struct Running {
    postmaster: Postmaster,
    /// Where in the log file its own lines begin.
    log_begin: u64,
    mode: Mode,
    /// Set before we end it ourselves, so that its end is no news.
    expected: Arc<AtomicBool>,
    lines: Option<Lines>,
    /// It lets nobody in, and was seen to have nothing left to do. A start that was dropped has no
    /// connections either, and is no such thing.
    mute: bool,
}

/// Our connections.
#[derive(Debug)]
struct Lines {
    control: Arc<Connection>,
    /// Logged in ahead of time for the barrier and the checkpoint.
    barrier: Option<Connection>,
    spare: Option<Connection>,
}

#[derive(Debug)]
pub struct Server {
    instance: Arc<Instance>,
    version: Version,
    running: Option<Running>,
    /// Told when the server ends and nobody had ordered it.
    exits: mpsc::Sender<u32>,
    /// Process id of the server while it runs and answers.
    life: watch::Sender<Option<u32>>,
    /// Whether clients are kept out, for the probe.
    closed: Arc<AtomicBool>,
    /// Whether clients reach it over the network and are let in.
    open: watch::Sender<bool>,
}

impl Server {
    /// Checks the programs, the settings and the data directory; starts nothing.
    pub fn new(instance: Arc<Instance>, exits: mpsc::Sender<u32>) -> Result<Server, Error> {
        let version = Version::of_programs(&instance.bin_dir)?.check()?;
        settings::check(&instance)?;
        create::look(&instance, version)?;
        process::become_subreaper();
        let (life, closed) = (watch::Sender::new(None), Arc::new(AtomicBool::new(false)));
        let open = watch::Sender::new(false);
        Ok(Server { instance, version, running: None, exits, life, closed, open })
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn data(&self) -> Result<DataDir, Error> {
        create::look(&self.instance, self.version)
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.postmaster.pid())
    }

    /// Follows the server through its starts and stops: the process id while it answers.
    pub fn life(&self) -> watch::Receiver<Option<u32>> {
        self.life.subscribe()
    }

    /// Whether clients are kept out at this moment.
    pub fn closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }

    /// Whether clients reach it over the network and are let in, through its starts and stops.
    pub fn open(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    fn note(&self, access: Access) {
        self.closed.store(access == Access::Closed, Ordering::SeqCst);
    }

    pub fn mode(&self) -> Option<&Mode> {
        self.running.as_ref().map(|running| &running.mode)
    }

    /// Starts it as a hot standby and returns when it takes connections.
    pub async fn start(&mut self, mode: Mode) -> Result<(), Error> {
        self.stop().await;
        if self.data()? == DataDir::Nothing {
            return Err(Error::refused(
                format!("there is no data in {}", self.instance.data_dir.display()),
                "create the pool, or let this server copy the principal's data",
            ));
        }
        let instance = Arc::clone(&self.instance);
        let control = Control::read(&instance)?;
        timelines::remove_unused_skips(&instance, control.timeline())?;
        timelines::complete_segment(&instance, &control)?;
        create::prepare_files(&instance, mode.access, mode.upstream.as_ref())?;
        remove_stale_locks(&instance);
        if mode.listen == Listen::Port {
            startup::check_port(&instance)?;
        }
        let log_begin = startup::log_length(&instance);
        let given = settings::command_line(&instance, mode.listen);
        self.note(mode.access);
        let postmaster = Postmaster::spawn(&instance, &given)?;
        let expected = Arc::new(AtomicBool::new(true));
        self.running =
            Some(Running { postmaster, log_begin, mode, expected, lines: None, mute: false });
        if let Err(error) = self.connect(instance.start_timeout, "starting").await {
            self.stop().await;
            return Err(error);
        }
        // At once: if this is dropped now, its end must still be news.
        self.watch();
        self.open_spares().await
    }

    /// Takes a server over that runs already. `Ok(false)`: none runs, or it did not let us in and
    /// was stopped.
    pub async fn adopt(&mut self) -> Result<bool, Error> {
        let Some(postmaster) = Postmaster::adopt(&self.instance) else {
            self.stop().await;
            return Ok(false);
        };
        let instance = Arc::clone(&self.instance);
        let program = std::fs::canonicalize(instance.program("postgres")).ok();
        if postmaster.program() != program {
            return Err(Error::refused(
                format!("another PostgreSQL runs on {}", instance.data_dir.display()),
                "stop it, and disable whatever starts it",
            ));
        }
        let lines = std::fs::read_to_string(instance.data_dir.join("postmaster.pid"));
        let listens = lines.unwrap_or_default().lines().nth(5).is_some_and(|line| !line.is_empty());
        let listen = if listens { Listen::Port } else { Listen::SocketOnly };
        let upstream = settings::read_upstream(&instance);
        let mode = Mode { listen, access: access::read(&instance), upstream };
        self.note(mode.access);
        let log_begin = startup::log_length(&instance);
        let expected = Arc::new(AtomicBool::new(true));
        self.running =
            Some(Running { postmaster, log_begin, mode, expected, lines: None, mute: false });
        match self.connect(ADOPT_TIMEOUT, "taking it over").await {
            Ok(()) => {
                // The former agent may have died between a file and its reload.
                self.signal(Signal::HUP);
                self.watch();
                if let Err(error) = self.open_spares().await {
                    // Whoever needs one opens it then.
                    tracing::warn!(%error, "a spare connection is missing");
                }
                Ok(true)
            }
            Err(error @ Error::Refused { .. }) => {
                self.running = None;
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%error, "the running PostgreSQL does not answer and is stopped");
                self.stop().await;
                Ok(false)
            }
        }
    }

    async fn connect(&mut self, patience: Duration, doing: &'static str) -> Result<(), Error> {
        let instance = Arc::clone(&self.instance);
        let running = self.running.as_mut().ok_or(Error::Late { doing })?;
        let begun = Instant::now();
        let mut stillness = Stillness::of(running.postmaster.pid());
        let control = loop {
            let attempt = async {
                // PostgreSQL writes down when it takes connections: asking costs it a process.
                if startup::takes_connections(&instance, running.postmaster.pid()) {
                    timeout(patience, Connection::open(&instance, Commits::Local)).await.ok()
                } else {
                    sleep(TICK).await;
                    None
                }
            };
            let opened = tokio::select! {
                biased;
                () = running.postmaster.exited() => {
                    let log = startup::log_since(&instance, running.log_begin);
                    return Err(Error::Exited { doing, log });
                }
                opened = attempt => opened,
            };
            match opened {
                Some(Ok(connection)) => break connection,
                Some(Err(_)) => sleep(TICK).await,
                None if running.mode.upstream.is_none() && stillness.is_still() => {
                    tracing::warn!("the standby has replayed everything and lets nobody in");
                    running.mute = true;
                    return Ok(());
                }
                None => {}
            }
            if begun.elapsed() > patience {
                return Err(Error::Late { doing });
            }
        };
        settings::read_back(&instance, running.mode.listen, &control).await?;
        running.lines = Some(Lines { control: Arc::new(control), barrier: None, spare: None });
        running.mute = false;
        Ok(())
    }

    /// From here on its end is news. Also opens the spare connections.
    fn watch(&mut self) {
        let Some(running) = &self.running else { return };
        running.expected.store(false, Ordering::SeqCst);
        let pid = running.postmaster.pid();
        self.watch_life();
        let (expected, exits) = (Arc::clone(&running.expected), self.exits.clone());
        let handle = ProcessHandle::open(pid);
        tokio::spawn(async move {
            if let Ok(handle) = handle {
                handle.gone().await;
            }
            if !expected.load(Ordering::SeqCst) {
                let _ = exits.send(pid).await;
            }
        });
    }

    fn watch_life(&self) {
        let life = self.pid().filter(|_| !self.is_mute());
        self.life.send_if_modified(|known| std::mem::replace(known, life) != life);
        self.watch_open();
    }

    fn watch_open(&self) {
        let open = self.life.borrow().is_some()
            && self
                .mode()
                .is_some_and(|mode| mode.listen == Listen::Port && mode.access == Access::Open);
        self.open.send_if_modified(|known| std::mem::replace(known, open) != open);
    }

    fn watch_end(&self) {
        self.life.send_replace(None);
        self.watch_open();
    }

    /// Opens what is missing of the spare connections.
    pub async fn open_spares(&mut self) -> Result<(), Error> {
        const DOING: &str = "opening a spare connection";
        let instance = Arc::clone(&self.instance);
        let open = async |commits| {
            let opened = timeout(SPARE_TIMEOUT, Connection::open(&instance, commits)).await;
            opened.map_err(|_| Error::Late { doing: DOING })?.map(Some).map_err(Error::sql(DOING))
        };
        let Some(lines) = self.running.as_mut().and_then(|running| running.lines.as_mut()) else {
            return Ok(());
        };
        if lines.barrier.as_ref().is_none_or(Connection::is_closed) {
            lines.barrier = open(Commits::Wait).await?;
        }
        if lines.spare.as_ref().is_none_or(Connection::is_closed) {
            lines.spare = open(Commits::Local).await?;
        }
        Ok(())
    }

    /// The connection for the barrier; whoever takes it keeps it.
    pub fn take_barrier(&mut self) -> Option<Connection> {
        self.running.as_mut()?.lines.as_mut()?.barrier.take()
    }

    /// A connection for something that takes long.
    pub fn take_spare(&mut self) -> Option<Connection> {
        self.running.as_mut()?.lines.as_mut()?.spare.take()
    }

    pub fn sql(&self) -> Result<&Arc<Connection>, Error> {
        self.running
            .as_ref()
            .and_then(|running| running.lines.as_ref())
            .map(|lines| &lines.control)
            .ok_or_else(|| Error::unexpected("asking PostgreSQL", "it does not run"))
    }

    /// Immediate shutdown, of leftovers too: returns when no process of it is left (3.6).
    pub async fn stop(&mut self) {
        if let Some(running) = &self.running {
            running.expected.store(true, Ordering::SeqCst);
        }
        self.watch_end();
        if let Some(running) = &mut self.running {
            // Kept in place until it is gone: this future may be dropped.
            running.lines = None;
            process::stop_at_once(&self.instance, Some(&running.postmaster)).await;
        } else {
            process::stop_at_once(&self.instance, None).await;
        }
        self.running = None;
        // A killed server leaves it behind, and its number may be another process's by now.
        remove_stale_locks(&self.instance);
        process::reap_orphans();
    }

    /// Clean shutdown. `Ok(None)`: the deadline passed and it was ended immediately.
    pub async fn shut_down(&mut self, deadline: Duration) -> Result<Option<Control>, Error> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        running.expected.store(true, Ordering::SeqCst);
        self.life.send_replace(None);
        self.open.send_replace(false);
        running.lines = None;
        running.postmaster.signal(Signal::INT);
        let clean = timeout(deadline, running.postmaster.exited()).await.is_ok();
        self.stop().await;
        if !clean {
            return Ok(None);
        }
        let control = Control::read(&self.instance)?;
        let down = control.is_shut_down() || control.state == "shut down in recovery";
        Ok(down.then_some(control))
    }

    /// What is given about the server has changed. What a running one can take over is in force
    /// soon after; the rest at its next start.
    pub fn configure(&mut self, instance: Arc<Instance>) -> Result<(), Error> {
        settings::check(&instance)?;
        self.instance = instance;
        let Some(running) = &self.running else { return Ok(()) };
        settings::write(&self.instance)?;
        access::write(&self.instance, running.mode.access)?;
        running.postmaster.signal(Signal::HUP);
        Ok(())
    }

    /// Changes the upstream of a running standby; in force soon after.
    pub fn set_upstream(&mut self, upstream: Option<Upstream>) -> Result<(), Error> {
        settings::write_upstream(&self.instance, upstream.as_ref())?;
        if let Some(running) = &mut self.running {
            running.mode.upstream = upstream;
            running.postmaster.signal(Signal::HUP);
        }
        Ok(())
    }

    /// Changes who may connect. Those who are connected stay; in force soon after.
    pub fn set_access(&mut self, access: Access) -> Result<(), Error> {
        self.note(access);
        access::write(&self.instance, access)?;
        if let Some(running) = &mut self.running {
            running.mode.access = access;
            running.postmaster.signal(Signal::HUP);
        }
        self.watch_open();
        Ok(())
    }

    /// Whether PostgreSQL has said that its upstream does not keep the WAL any more that it needs.
    pub fn lacks_wal(&self) -> bool {
        self.running
            .as_ref()
            .map(|running| startup::log_since(&self.instance, running.log_begin))
            .is_some_and(|log| log.contains("has already been removed"))
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.postmaster.signal(signal);
        }
    }

    /// Ends every client's connection, and waits a little until they are gone.
    pub async fn end_clients(&self) -> Result<(), Error> {
        const DOING: &str = "ending client connections";
        let sql = self.sql()?;
        let statement = access::end_clients();
        let begun = Instant::now();
        loop {
            let left = sql.one(&statement).await.map_err(Error::sql(DOING))?;
            if left.as_deref() == Some("0") {
                return Ok(());
            }
            if begun.elapsed() > CLIENTS_TIMEOUT {
                return Err(Error::Late { doing: DOING });
            }
            sleep(TICK).await;
        }
    }

    /// Whether it runs as a standby that has replayed everything and takes no connections, ours
    /// included: transactions of the time before had too many subtransactions.
    pub fn is_mute(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.mute)
    }

    /// Ends a server whose start was dropped before it let us in: it can be asked nothing.
    pub async fn end_dropped_start(&mut self) {
        let dropped = |running: &Running| running.lines.is_none() && !running.mute;
        if self.running.as_ref().is_some_and(dropped) {
            self.stop().await;
        }
    }

    /// Waits until a server that was mute takes connections.
    pub async fn unmute(&mut self) -> Result<(), Error> {
        while self.is_mute() {
            self.connect(self.instance.start_timeout, "promoting").await?;
        }
        self.watch_life();
        self.open_spares().await
    }

    /// Makes a running standby one without upstream and without clients. Returns when its receiver
    /// is gone, so that it confirms nothing any more.
    pub async fn isolate(&mut self) -> Result<(), Error> {
        const DOING: &str = "ending the receiver";
        settings::write_upstream(&self.instance, None)?;
        access::write(&self.instance, Access::Closed)?;
        self.note(Access::Closed);
        if let Some(running) = &mut self.running {
            running.mode.upstream = None;
            running.mode.access = Access::Closed;
            running.postmaster.signal(Signal::HUP);
        }
        self.watch_open();
        if self.is_mute() {
            return Ok(());
        }
        self.end_clients().await?;
        let begun = Instant::now();
        loop {
            let conninfo = self.sql()?.one("SHOW primary_conninfo").await;
            let conninfo = conninfo.map_err(Error::sql(DOING))?;
            if conninfo.as_deref() == Some("") && !self.has_receiver().await? {
                return Ok(());
            }
            if begun.elapsed() > RECEIVER_TIMEOUT {
                return Err(Error::Late { doing: DOING });
            }
            sleep(TICK).await;
        }
    }

    /// Whether a receiver runs, streaming or not.
    pub async fn has_receiver(&self) -> Result<bool, Error> {
        // The view is empty before the receiver has connected, so its process counts too.
        let found = self
            .sql()?
            .one(
                "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver) OR EXISTS \
                 (SELECT FROM pg_stat_get_activity(NULL) WHERE backend_type = 'walreceiver')",
            )
            .await
            .map_err(Error::sql("looking for the receiver"))?;
        Ok(found.as_deref() == Some("t"))
    }

    /// When the server was started, and on which timeline it is.
    pub async fn incarnation(&self, timeline: Timeline) -> Result<Incarnation, Error> {
        if self.is_mute() {
            // Nobody can be told apart from another run by this before it is promoted.
            return Ok(Incarnation { started: 0, timeline });
        }
        let started = self
            .sql()?
            .one(
                "SELECT (extract(epoch FROM pg_postmaster_start_time())::numeric \
                 * 1000000)::bigint",
            )
            .await
            .map_err(Error::sql("reading the start time"))?
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::unexpected("reading the start time", "no number came"))?;
        Ok(Incarnation { started, timeline })
    }

    /// Whether it is a standby, and where its data ends: flushed, not only replayed.
    pub async fn state(&self) -> Result<(InRecovery, Position), Error> {
        const DOING: &str = "reading the position";
        if self.is_mute() {
            let instance = Arc::clone(&self.instance);
            let end = tokio::task::spawn_blocking(move || startup::end_of_wal(&instance));
            let end = end.await.map_err(|error| Error::unexpected(DOING, error.to_string()))?;
            return Ok((InRecovery::Standby, end?));
        }
        let row = self.sql()?.row(STATE).await.map_err(Error::sql(DOING))?;
        let column = |i: usize| row.get(i).and_then(Option::as_deref);
        let wrong = || Error::unexpected(DOING, format!("{row:?}"));
        let recovery =
            if column(0) == Some("t") { InRecovery::Standby } else { InRecovery::Primary };
        let lsn: Lsn = column(1).and_then(parse_lsn).ok_or_else(wrong)?;
        let radix = match recovery {
            InRecovery::Standby => 10,
            InRecovery::Primary => 16,
        };
        let timeline = column(2).and_then(|text| u32::from_str_radix(text, radix).ok());
        let told = Timeline(timeline.ok_or_else(wrong)?);
        let timeline = match recovery {
            InRecovery::Standby => timelines::at(&self.instance, lsn, told),
            InRecovery::Primary => told,
        };
        Ok((recovery, Position { timeline, lsn }))
    }

    /// Whether it runs, answers, and is a standby.
    pub async fn is_standby(&self) -> bool {
        matches!(self.state().await, Ok((InRecovery::Standby, _)))
    }
}

/// What PostgreSQL reports of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InRecovery {
    Standby,
    Primary,
}

/// The timeline of a primary is in the name of the segment that it writes, in base 16.
const STATE: &str = "SELECT pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() \
      THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
      ELSE pg_current_wal_flush_lsn() END, \
    CASE WHEN pg_is_in_recovery() \
      THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver), \
        (SELECT timeline_id FROM pg_control_checkpoint()), \
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::text \
      ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

/// Lock files of a server that is gone: its process ids may belong to others by now. Called when
/// no process of the data directory is left.
fn remove_stale_locks(instance: &Instance) {
    let lock = instance.data_dir.join("postmaster.pid");
    let _ = std::fs::remove_file(lock);
}
