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
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::beat::{Beat, Watchdog};
use crate::config::{Address, Part, Process};
use crate::error::Error;
use crate::history::{History, Scribe};
use crate::ledger::{Found, Ledger, Opened};
use crate::peers::{Peers, Security};
use crate::room::{Door, Told};
use crate::rounds::{End, Inlets, Rounds, when};
use crate::route::{Board, Post};
use crate::seat::{Chance, Seat};
use crate::{clock, rounds};

/// Messages and facts that the loop has not taken in yet.
const QUEUE: usize = 4_096;
const REQUESTS: usize = 64;
/// Niceness of the loop's thread: ahead of PostgreSQL's work.
const PRIORITY: i32 = -10;
/// Entries of each history that stay in memory.
const SERVER_HISTORY: usize = 500;
const WITNESS_HISTORY: usize = 30;
/// A loop that is silent for less may merely be starved.
const LEAST_SILENCE: Duration = Duration::from_secs(3);
/// What was logged last gets so long to be written before the process aborts.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A process before its loop starts: everything that can fail has been done.
#[derive(Debug)]
pub(crate) struct House {
    process: Process,
    kind: MemberKind,
    parts: Vec<Part>,
    opened: Opened,
    listener: TcpListener,
    scribe: Scribe,
    security: Option<Security>,
}

impl House {
    /// Takes the state directory and the port.
    pub(crate) fn open(
        process: &Process,
        kind: MemberKind,
        parts: Vec<Part>,
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
        let process = process.clone();
        Ok(House { process, kind, parts, opened, listener, scribe, security })
    }

    /// For a process without PostgreSQL.
    pub(crate) fn no_doors(&self) -> Vec<Option<Door>> {
        vec![None; self.parts.len()]
    }

    /// Runs the loop until `shutdown`, or until somebody asks for the end. `doors`: each seat's
    /// PostgreSQL; `rooms`: their tasks, none of which may end.
    ///
    /// # Errors
    /// The ledger failed. PostgreSQL has been stopped.
    pub(crate) async fn run(
        self,
        doors: Vec<Option<Door>>,
        rooms: &mut JoinSet<()>,
        facts: mpsc::Receiver<Told>,
        shutdown: impl Future<Output = End>,
    ) -> Result<End, Error> {
        let (to_end, end) = oneshot::channel();
        let (to_outcome, mut outcome) = oneshot::channel();
        let beat = Arc::new(Beat::default());
        let mut watchdog = Watchdog::new(Arc::clone(&beat), self.longest_silence(&doors));
        let posts = Posts { doors: doors.clone(), facts, end, beat };
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
                        fence(doors).await;
                        return Err(error);
                    }
                    // The sender is gone: the loop's thread has panicked.
                    Err(_) => break "an assertion failed",
                },
                wanted = &mut shutdown, if to_end.is_some() => {
                    let _ = to_end.take().map(|to_end| to_end.send(wanted));
                }
                Some(_) = rooms.join_next() => break "a room of PostgreSQL ended",
                () = watchdog.silence() => break "the loop hangs",
            }
        };
        tracing::error!(failure, "PostgreSQL is stopped, the process ends");
        fence(doors).await;
        sleep(LAST_WORDS).await;
        std::process::abort();
    }

    /// How long the loop may be silent while it has PostgreSQL servers: the smallest lease of their
    /// sessions, but long enough not to take a starved machine for a hung one. A loop that comes
    /// back in between finds by itself that its lease is over.
    fn longest_silence(&self, doors: &[Option<Door>]) -> Option<Duration> {
        let here = self.parts.iter().zip(doors).filter(|(_, door)| door.is_some());
        here.map(|(part, _)| part.timing.lease.max(LEAST_SILENCE)).min()
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
        let Posts { doors, facts, end, beat } = posts;
        let House { process, kind, parts, mut opened, listener, scribe, security } = self;
        let me = Introduction {
            deployment: process.deployment.clone(),
            host: process.name.clone(),
            run: random()?,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| Error::Listen { address: process.listen, error })?;
        let (to_loop, received) = mpsc::channel(QUEUE);
        let (to_ask, requests) = mpsc::channel(REQUESTS);
        let mut board = Board::default();
        let posts: Vec<Option<Post>> =
            parts.iter().zip(&doors).map(|(part, door)| board.add(part, door.as_ref())).collect();
        let hosts = hosts(&process, &parts);
        let routes = board.routes();
        let peers = Peers::start(&me, listener, hosts, &to_loop, to_ask, routes, security);
        let mut rounds = Rounds {
            me,
            kind,
            state_dir: process.state_dir.clone(),
            started: clock::now(),
            seats: Vec::new(),
            by_name: BTreeMap::new(),
            peers,
            board,
            ledger: opened.ledger,
            deadlines: BTreeSet::new(),
            next_request: 0,
            stepped: BTreeSet::new(),
            beat,
        };
        let keep = match kind {
            MemberKind::Server => SERVER_HISTORY,
            MemberKind::Witness => WITNESS_HISTORY,
        };
        let dir = process.state_dir.join("history");
        for ((part, door), post) in parts.into_iter().zip(doors).zip(posts) {
            let stored = opened.states.remove(&part.pool);
            let mut history = History::open(&dir, &part.pool, &process.name, keep, scribe.clone());
            let term = stored.as_ref().and_then(session::Durable::record_id).unwrap_or_default();
            history.process(when(), term.term, "the process started");
            let chance = Chance { seed: random()?, identity: random()?, run: rounds.me.run };
            let number = rounds.seats.len();
            rounds.by_name.insert(part.pool.clone(), number);
            let (mut seat, taken) =
                Seat::start(part, stored, history, door, chance, rounds::when());
            seat.post = post;
            rounds.seats.push(seat);
            rounds.taken(number, taken);
        }
        let outcomes = opened.outcomes;
        Ok((rounds, Inlets { received, facts, outcomes, requests, end }))
    }
}

/// Every other process that has a part in a session here.
fn hosts(process: &Process, parts: &[Part]) -> Vec<Address> {
    let mut hosts = BTreeMap::new();
    for address in parts.iter().flat_map(|part| part.members.values()) {
        if address.name != process.name {
            hosts.insert(address.name.clone(), address.clone());
        }
    }
    hosts.into_values().collect()
}

/// What the loop shares with the rest of the process.
struct Posts {
    doors: Vec<Option<Door>>,
    facts: mpsc::Receiver<Told>,
    end: oneshot::Receiver<End>,
    beat: Arc<Beat>,
}

/// Stops all PostgreSQL servers side by side.
async fn fence(doors: Vec<Option<Door>>) {
    let mut fences: JoinSet<()> = doors.into_iter().flatten().map(Door::fence).collect();
    while fences.join_next().await.is_some() {}
}

/// Heartbeats go before PostgreSQL's work. Not permitted to everybody, and then left.
fn raise_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        tracing::debug!(%error, "the loop runs with ordinary priority");
    }
}

fn random() -> Result<u64, Error> {
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
