//! The rooms of a process's PostgreSQL servers, in the runtime in which their drivers live: opened
//! and closed as the loop asks, watched, and stopped all together when the loop fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use session::Member;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use crate::config::{Part, Server};
use crate::error::Error;
use crate::room::{Door, Room, Told, Wanted};

/// A clean shutdown may take so long.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// A loop that is silent for less may merely be starved.
const LEAST_SILENCE: Duration = Duration::from_secs(3);
const FACTS: usize = 1_024;

/// What the loop asks for.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A room for the part that is to be at `seat`.
    Open { seat: usize, part: Box<Part> },
    /// The seat's PostgreSQL is shut down, and its room let go.
    Close { seat: usize },
}

/// An errand is done.
#[derive(Debug)]
pub(crate) enum Done {
    Opened { seat: usize, part: Box<Part>, door: Result<Option<Door>, Error> },
    Closed,
}

type Opening = (usize, Box<Part>, Result<Option<(Room, Door)>, Error>);

#[derive(Debug)]
pub(crate) struct Rooms {
    /// `None`: a witness, which has no PostgreSQL.
    server: Option<Arc<Server>>,
    facts: mpsc::Sender<Told>,
    doors: BTreeMap<usize, Door>,
    leases: BTreeMap<usize, Duration>,
    /// Each returns its seat. None may end before its door is gone.
    tasks: JoinSet<usize>,
    opening: JoinSet<Opening>,
    closing: JoinSet<()>,
}

impl Rooms {
    pub(crate) fn new(server: Option<Server>) -> (Rooms, mpsc::Receiver<Told>) {
        let (facts, told) = mpsc::channel(FACTS);
        let rooms = Rooms {
            server: server.map(Arc::new),
            facts,
            doors: BTreeMap::new(),
            leases: BTreeMap::new(),
            tasks: JoinSet::new(),
            opening: JoinSet::new(),
            closing: JoinSet::new(),
        };
        (rooms, told)
    }

    /// Opens the rooms that a process starts with; the seats are numbered as the parts are.
    ///
    /// # Errors
    /// One of them cannot be opened. Nothing of PostgreSQL has been touched.
    pub(crate) fn open_all(&mut self, parts: &[Part]) -> Result<Vec<Option<Door>>, Error> {
        let mut opened = Vec::new();
        for (seat, part) in parts.iter().enumerate() {
            opened.push(open(seat, part, self.server.as_deref(), &self.facts)?);
        }
        let doors = parts.iter().zip(opened).enumerate();
        Ok(doors.map(|(seat, (part, opened))| self.take(seat, part, opened)).collect())
    }

    pub(crate) fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Open { seat, part } => {
                let (server, facts) = (self.server.clone(), self.facts.clone());
                // Looks up names, and looks for programs.
                self.opening.spawn_blocking(move || {
                    let opened = open(seat, &part, server.as_deref(), &facts);
                    (seat, part, opened)
                });
            }
            Errand::Close { seat } => {
                self.leases.remove(&seat);
                if let Some(door) = self.doors.remove(&seat) {
                    self.closing.spawn(shut_down(door));
                }
            }
        }
    }

    /// The next errand that is done.
    ///
    /// # Errors
    /// A room has ended that should not have.
    pub(crate) async fn next(&mut self) -> Result<Done, RoomEnded> {
        loop {
            tokio::select! {
                Some(opened) = self.opening.join_next() => {
                    let Ok((seat, part, opened)) = opened else { continue };
                    let door = opened.map(|opened| self.take(seat, &part, opened));
                    return Ok(Done::Opened { seat, part, door });
                }
                Some(_) = self.closing.join_next() => return Ok(Done::Closed),
                Some(ended) = self.tasks.join_next() => if self.is_missed(ended) {
                    return Err(RoomEnded);
                },
                else => std::future::pending().await,
            }
        }
    }

    fn is_missed(&self, ended: Result<usize, JoinError>) -> bool {
        ended.map_or(true, |seat| self.doors.contains_key(&seat))
    }

    fn take(&mut self, seat: usize, part: &Part, opened: Option<(Room, Door)>) -> Option<Door> {
        let (room, door) = opened?;
        self.tasks.spawn(async move {
            room.run().await;
            seat
        });
        self.leases.insert(seat, part.timing.lease.max(LEAST_SILENCE));
        self.doors.insert(seat, door.clone());
        Some(door)
    }

    /// How long the loop may be silent while there are PostgreSQL servers here: the smallest lease
    /// of their sessions, but long enough not to take a starved machine for a hung one. A loop that
    /// comes back in between finds by itself that its lease is over.
    pub(crate) fn longest_silence(&self) -> Option<Duration> {
        self.leases.values().min().copied()
    }

    /// Stops all PostgreSQL servers side by side.
    pub(crate) async fn fence(&mut self) {
        let doors = std::mem::take(&mut self.doors).into_values();
        let mut fences: JoinSet<()> = doors.map(Door::fence).collect();
        while fences.join_next().await.is_some() {}
        while self.closing.join_next().await.is_some() {}
    }

    /// Shuts all PostgreSQL servers down side by side.
    pub(crate) async fn shut_down(&mut self) {
        let doors = std::mem::take(&mut self.doors).into_values();
        let mut tasks: JoinSet<()> = doors.map(shut_down).collect();
        while tasks.join_next().await.is_some() {}
        while self.closing.join_next().await.is_some() {}
    }
}

/// A room ended, and nobody had closed it.
#[derive(Debug)]
pub(crate) struct RoomEnded;

fn open(
    seat: usize,
    part: &Part,
    server: Option<&Server>,
    facts: &mpsc::Sender<Told>,
) -> Result<Option<(Room, Door)>, Error> {
    match (part.me, server) {
        (Member::Partner(owner), Some(server)) => {
            Room::new(seat, owner, part, server, facts.clone()).map(Some)
        }
        (Member::Partner(_), None) | (Member::Witness(_), _) => Ok(None),
    }
}

/// In good order; if nobody can do that any more, at once.
async fn shut_down(door: Door) {
    let (done, ended) = oneshot::channel();
    let wanted = Wanted::ShutDown { deadline: SHUTDOWN, done };
    if door.wanted.send(wanted).await.is_err() || ended.await.is_err() {
        tracing::error!("PostgreSQL's room has ended: PostgreSQL is stopped at once");
        door.fence().await;
    }
}
