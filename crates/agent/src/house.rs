//! What a server and a witness have in common: how the loop's thread is started and watched.
//!
//! The loop runs on a thread with a runtime of its own and, where permitted, a raised priority.
//! If it ends by a panic or because the ledger failed, if it is silent for too long (`beat`), or
//! if a room ends, nothing can be promised any more: every local PostgreSQL is stopped, and the
//! process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::MemberKind;
use protocol::handshake::Introduction;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::beat::{Beat, Watchdog};
use crate::clock;
use crate::config::{Change, Process};
use crate::error::Error;
use crate::history::Scribe;
use crate::ledger::{Found, Ledger, Opened};
use crate::parts::Parts;
use crate::peers::{Desks, Peers, Security};
use crate::room::{Door, Told};
use crate::rooms::{Done, Errand, Rooms};
use crate::rounds::{End, Inlets, Rounds};
use crate::route::{Board, Routes};
use crate::topology::Desk;

/// Messages that the loop has not taken in yet: thousands of sessions may speak at one moment.
const MESSAGES: usize = 32_768;
const REQUESTS: usize = 64;
const ERRANDS: usize = 256;
/// Niceness of the loop's thread: ahead of PostgreSQL's work.
const PRIORITY: i32 = -10;
/// Entries of each history that stay in memory, where one takes about half a kilobyte.
const SERVER_HISTORY: usize = 500;
const WITNESS_HISTORY: usize = 10;
/// What was logged last gets so long to be written before the process aborts.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A process before its loop starts: everything that can fail has been done.
#[derive(Debug)]
pub(crate) struct House {
    process: Process,
    kind: MemberKind,
    begin: Change,
    doors: Vec<Option<Door>>,
    opened: Opened,
    listener: TcpListener,
    scribe: Scribe,
    security: Option<Security>,
    board: Board,
    desk: Desk,
}

impl House {
    /// Takes the state directory and the port, and opens the rooms of the first parts.
    pub(crate) fn open(
        process: &Process,
        kind: MemberKind,
        begin: Change,
        rooms: &mut Rooms,
        desk: Desk,
    ) -> Result<House, Error> {
        let security = Security::of(process, kind)?;
        let opened = Ledger::open(&process.state_dir)?;
        if let Found::Damaged { how, kept } = &opened.found {
            let kept = kept.display();
            tracing::error!(how, %kept, "the state is lost; it will be learnt from the others");
        }
        for (session, malformed) in &opened.senseless {
            tracing::error!(session, %malformed, "the state of a session is lost");
        }
        let address = process.listen;
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| Error::Listen { address, error })?;
        let scribe = Scribe::start(&process.state_dir.join("history"))
            .map_err(|error| Error::Io { doing: "write the history", error })?;
        let doors = rooms.open_all(&begin.wanted)?;
        let process = process.clone();
        let board = Board::default();
        Ok(House { process, kind, begin, doors, opened, listener, scribe, security, board, desk })
    }

    pub(crate) fn routes(&self) -> Routes {
        self.board.routes()
    }

    /// Certificates, if this process has them.
    pub(crate) fn security(&self) -> Option<Security> {
        self.security.clone()
    }

    /// Runs the loop until `shutdown`, or until somebody asks for the end.
    ///
    /// # Errors
    /// The ledger failed. PostgreSQL has been stopped.
    pub(crate) async fn run(
        self,
        rooms: &mut Rooms,
        facts: mpsc::Receiver<Told>,
        changes: mpsc::Receiver<Change>,
        shutdown: impl Future<Output = End>,
    ) -> Result<End, Error> {
        let (to_end, end) = oneshot::channel();
        let (to_outcome, mut outcome) = oneshot::channel();
        let (errands, mut asked) = mpsc::channel(ERRANDS);
        let (to_loop, done) = mpsc::channel(ERRANDS);
        let beat = Arc::new(Beat::default());
        let mut watchdog = Watchdog::new(Arc::clone(&beat), rooms.longest_silence());
        let posts = Posts { facts, changes, done, errands, end, beat };
        std::thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || {
                raise_priority();
                self.go_round(posts, to_outcome);
            })
            .map_err(|error| Error::Io { doing: "start the loop's thread", error })?;
        let mut to_end = Some(to_end);
        tokio::pin!(shutdown);
        let failure = loop {
            tokio::select! {
                ended = &mut outcome => match ended {
                    Ok(Ok(end)) => return Ok(end),
                    Ok(Err(error)) => {
                        tracing::error!(%error, "PostgreSQL is stopped, the process ends");
                        rooms.fence().await;
                        return Err(error);
                    }
                    // The sender is gone: the loop's thread has panicked.
                    Err(_) => break "an assertion failed",
                },
                wanted = &mut shutdown, if to_end.is_some() => {
                    let _ = to_end.take().map(|to_end| to_end.send(wanted));
                }
                Some(errand) = asked.recv() => {
                    rooms.run_errand(errand);
                    watchdog.limit(rooms.longest_silence());
                }
                done = rooms.next() => match done {
                    Ok(done) => {
                        watchdog.limit(rooms.longest_silence());
                        // As many as there are errands fit in.
                        let _ = to_loop.try_send(done);
                    }
                    Err(_) => break "a room of PostgreSQL ended",
                },
                () = watchdog.silence() => break "the loop hangs",
            }
        };
        tracing::error!(failure, "PostgreSQL is stopped, the process ends");
        rooms.fence().await;
        sleep(LAST_WORDS).await;
        std::process::abort();
    }

    /// The body of the loop's thread. How it ends is told before anything else is cleared away;
    /// after a panic nothing is told, and `outcome` is dropped.
    fn go_round(self, posts: Posts, outcome: oneshot::Sender<Result<End, Error>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let error = Error::Io { doing: "start the loop's runtime", error };
                let _ = outcome.send(Err(error));
                return;
            }
        };
        runtime.block_on(async move {
            match self.furnish(posts) {
                Ok((mut rounds, inlets)) => {
                    // Dropped before the rounds are, if they panic.
                    let outcome = outcome;
                    let _ = outcome.send(rounds.run(inlets).await);
                }
                Err(error) => drop(outcome.send(Err(error))),
            }
        });
        // A name that is being looked up must not hold up the end.
        runtime.shutdown_background();
    }

    fn furnish(self, posts: Posts) -> Result<(Rounds, Inlets), Error> {
        let Posts { facts, changes, done, errands, end, beat } = posts;
        let House { process, kind, begin, doors, opened, listener, scribe, security, board, desk } =
            self;
        let me = Introduction {
            deployment: process.deployment.clone(),
            host: process.name.clone(),
            run: random()?,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| Error::Listen { address: process.listen, error })?;
        let (to_loop, received) = mpsc::channel(MESSAGES);
        let (to_ask, requests) = mpsc::channel(REQUESTS);
        let desks = Desks { requests: to_ask, routes: board.routes(), topology: Some(desk) };
        let peers = Peers::start_with(&me, listener, Vec::new(), &to_loop, desks, security);
        let keep = match kind {
            MemberKind::Server => SERVER_HISTORY,
            MemberKind::Witness => WITNESS_HISTORY,
        };
        let history = process.state_dir.join("history");
        let mut rounds = Rounds {
            me,
            kind,
            state_dir: process.state_dir.clone(),
            started: clock::now(),
            seats: BTreeMap::new(),
            by_name: BTreeMap::new(),
            peers,
            board,
            ledger: opened.ledger,
            deadlines: BTreeSet::new(),
            next_request: 0,
            stepped: BTreeSet::new(),
            parts: Parts::new(begin.clone(), opened.states, errands, history, keep, scribe),
            beat,
        };
        for (part, door) in begin.wanted.into_iter().zip(doors) {
            let number = rounds.reserve_seat();
            rounds.take_seat(number, part, door)?;
        }
        rounds.arrange();
        let outcomes = opened.outcomes;
        Ok((rounds, Inlets { received, facts, outcomes, requests, changes, done, end }))
    }
}

/// What the loop shares with the rest of the process.
struct Posts {
    facts: mpsc::Receiver<Told>,
    changes: mpsc::Receiver<Change>,
    done: mpsc::Receiver<Done>,
    errands: mpsc::Sender<Errand>,
    end: oneshot::Receiver<End>,
    beat: Arc<Beat>,
}

/// Heartbeats go before PostgreSQL's work. Not permitted to everybody, and then left.
fn raise_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        tracing::debug!(%error, "the loop runs with ordinary priority");
    }
}

pub(crate) fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Error::Io { doing: "draw a random number", error: error.into() });
            }
        }
    }
    Ok(u64::from_le_bytes(bytes))
}
