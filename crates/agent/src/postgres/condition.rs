//! What the local PostgreSQL is doing, for people and for Front Ends: shown, never decided upon.

use session::{Lsn, Term, Timeline};

use super::error::Error;
use super::version::Version;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Stopped,
    /// There was no data when the agent started.
    Absent,
    Starting,
    Standby,
    Primary,
    /// It runs, but a probe was not answered in time.
    Unresponsive,
}

/// Bytes of a copy of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// Zero while it is not known.
    pub total: u64,
}

/// A primary that lets clients in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// That it serves.
    pub term: Term,
    /// Of its history, oldest first, its own one at the end; empty if they could not be read.
    pub timelines: Vec<Timeline>,
}

/// Something that a person should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub text: String,
    pub hint: Option<String>,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Problem {
        Problem { text: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

/// A volume that does not take writes, or is nearly full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub ails: StorageAils,
    pub problem: Problem,
    /// On the wall clock, for display.
    pub since_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageAils {
    Failing,
    Full,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub version: Option<Version>,
    /// The postmaster.
    pub pid: Option<u32>,
    pub state: State,
    pub timeline: Option<Timeline>,
    /// Clients reach it over the network, and it lets them in.
    pub open: bool,
    pub admitted: Option<Admitted>,
    /// A manual failover waits for the Front Ends' transactions to end.
    pub handing_over: bool,
    /// Flushed here.
    pub flushed: Option<Lsn>,
    /// Replayed here; a standby only.
    pub replayed: Option<Lsn>,
    /// What a primary sees of its mirror.
    pub mirror_flushed: Option<Lsn>,
    pub mirror_replayed: Option<Lsn>,
    /// What is being done right now, such as `copying the principal's data`; empty: nothing.
    pub doing: String,
    pub progress: Option<Progress>,
    pub problem: Option<Problem>,
    /// Settings that have changed and wait for the end of the server with this process id.
    pub waiting: Option<(u32, Vec<String>)>,
    pub storage: Option<Storage>,
}

impl Condition {
    /// From now on no client is to be sent here; what else is known stays.
    pub fn close(&mut self) {
        self.open = false;
        self.admitted = None;
        self.handing_over = false;
    }
}
