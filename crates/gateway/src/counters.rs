//! What the gateway counts, for its status: moments (`Gauge`) and events (`Count`).
//!
//! Everything is on one thread, so counting is an addition and needs no lock. A gauge goes down by
//! itself when its guard is dropped, however a task ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use protocol::admin::{
    ClientSessionCounts, FrontEndCounters, ServerConnectionCounts, SessionsEnded,
};

use crate::clock;
use crate::in_doubt::Outcome;

/// Something that happened so many times since the start.
#[derive(Default, Debug)]
pub struct Count(Cell<u64>);

impl Count {
    pub fn add(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// So many are there at this moment.
#[derive(Default, Debug)]
pub struct Gauge {
    now: Rc<Cell<u64>>,
    entered: Count,
}

impl Gauge {
    /// One more, until what is returned is dropped.
    pub fn enter(&self) -> Inside {
        self.entered.add();
        self.now.set(self.now.get() + 1);
        Inside(Rc::clone(&self.now))
    }

    pub fn get(&self) -> u64 {
        self.now.get()
    }

    /// So many have gone since the start.
    fn gone(&self) -> u64 {
        self.entered.get() - self.now.get()
    }
}

/// One of those that a gauge counts.
#[must_use = "the gauge goes down when this is dropped"]
#[derive(Debug)]
pub struct Inside(Rc<Cell<u64>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Why a client session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client said good-bye.
    Left,
    /// The client's connection broke.
    Lost,
    /// The client sent what the protocol does not allow.
    Malformed,
    /// The client left its answers unread for too long.
    Slow,
    /// What it had on its server cannot be made again on another one.
    Unrestorable,
    /// It waited in vain for a server.
    HeldInVain,
    /// Its server ended it.
    ByServer,
    /// The Front End ends.
    Shutdown,
}

#[derive(Default, Debug)]
pub struct Counters {
    /// Client sessions: all, those with a statement that runs or waits, those that wait for a
    /// server, those that have a server connection.
    pub sessions: Gauge,
    pub active: Gauge,
    pub waiting: Gauge,
    pub with_server: Gauge,
    /// Server connections: lent to a client session, kept for the next one, being opened.
    pub servers_used: Gauge,
    pub servers_idle: Gauge,
    pub servers_opening: Gauge,

    pub log_ins: Count,
    pub refused_log_ins: Count,
    /// Statements that only read and were silently repeated.
    pub repeated: Count,
    /// Transactions that were cut off before their commit was sent.
    pub cut_off: Count,
    /// Statements that were refused because nobody serves.
    pub refused_writes: Count,
    /// Statements that a standby answered because nobody serves.
    pub standby_reads: Count,
    pub sessions_restored: Count,
    held: Count,
    held_in_vain: Count,
    longest_hold: Cell<Duration>,
    committed: Count,
    not_committed: Count,
    unknown: Count,
    ended: Ended,
}

#[derive(Default, Debug)]
struct Ended {
    left: Count,
    lost: Count,
    malformed: Count,
    slow: Count,
    unrestorable: Count,
    held_in_vain: Count,
    by_server: Count,
    shutdown: Count,
    /// Sessions that are gone and for which nobody named a reason: their task has failed.
    fault: Cell<u64>,
}

impl Ended {
    fn with_a_reason(&self) -> u64 {
        let Ended { left, lost, malformed, slow, unrestorable, .. } = self;
        let Ended { held_in_vain, by_server, shutdown, .. } = self;
        [left, lost, malformed, slow, unrestorable, held_in_vain, by_server, shutdown]
            .map(Count::get)
            .iter()
            .sum()
    }
}

impl Counters {
    /// A statement or a log-in waited for a server, and got one.
    pub fn held(&self, span: Duration) {
        self.held.add();
        self.longest_hold.set(self.longest_hold.get().max(span));
    }

    /// A statement or a log-in waited for a server, and was given up.
    pub fn held_in_vain(&self, span: Duration) {
        self.held(span);
        self.held_in_vain.add();
    }

    pub fn in_doubt(&self, outcome: Outcome) {
        match outcome {
            Outcome::Committed => self.committed.add(),
            Outcome::NotCommitted => self.not_committed.add(),
            Outcome::Unknown => self.unknown.add(),
        }
    }

    pub fn ended(&self, end: End) {
        let ended = &self.ended;
        match end {
            End::Left => ended.left.add(),
            End::Lost => ended.lost.add(),
            End::Malformed => ended.malformed.add(),
            End::Slow => ended.slow.add(),
            End::Unrestorable => ended.unrestorable.add(),
            End::HeldInVain => ended.held_in_vain.add(),
            End::ByServer => ended.by_server.add(),
            End::Shutdown => ended.shutdown.add(),
        }
    }

    pub fn client_sessions(&self) -> ClientSessionCounts {
        ClientSessionCounts {
            all: self.sessions.get(),
            active: self.active.get(),
            held: self.waiting.get(),
            with_server: self.with_server.get(),
        }
    }

    pub fn server_connections(&self) -> ServerConnectionCounts {
        ServerConnectionCounts {
            used: self.servers_used.get(),
            idle: self.servers_idle.get(),
            opening: self.servers_opening.get(),
        }
    }

    pub fn shown(&self) -> FrontEndCounters {
        let ended = &self.ended;
        // A session names its reason while it is still counted as being there.
        let unnamed = self.sessions.gone().saturating_sub(ended.with_a_reason());
        ended.fault.set(ended.fault.get().max(unnamed));
        FrontEndCounters {
            log_ins: self.log_ins.get(),
            refused_log_ins: self.refused_log_ins.get(),
            held: self.held.get(),
            held_in_vain: self.held_in_vain.get(),
            longest_hold_ms: clock::ms(self.longest_hold.get()),
            in_doubt_committed: self.committed.get(),
            in_doubt_not_committed: self.not_committed.get(),
            in_doubt_unknown: self.unknown.get(),
            repeated: self.repeated.get(),
            cut_off: self.cut_off.get(),
            refused_writes: self.refused_writes.get(),
            standby_reads: self.standby_reads.get(),
            sessions_restored: self.sessions_restored.get(),
            sessions_ended: SessionsEnded {
                left: ended.left.get(),
                lost: ended.lost.get(),
                malformed: ended.malformed.get(),
                slow: ended.slow.get(),
                unrestorable: ended.unrestorable.get(),
                held_in_vain: ended.held_in_vain.get(),
                by_server: ended.by_server.get(),
                shutdown: ended.shutdown.get(),
                fault: ended.fault.get(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_goes_down_by_itself() {
        let counters = Counters::default();
        let one = counters.sessions.enter();
        let two = counters.sessions.enter();
        assert_eq!(counters.client_sessions().all, 2);
        drop(one);
        assert_eq!(counters.client_sessions().all, 1);
        drop(two);
        assert_eq!(counters.client_sessions().all, 0);
    }

    #[test]
    fn the_longest_hold_is_kept() {
        let counters = Counters::default();
        counters.held(Duration::from_millis(40));
        counters.held_in_vain(Duration::from_millis(70));
        counters.held(Duration::from_millis(5));
        let shown = counters.shown();
        assert_eq!((shown.held, shown.held_in_vain, shown.longest_hold_ms), (3, 1, 70));
    }

    #[test]
    fn a_session_that_ends_without_a_reason_is_a_fault() {
        let counters = Counters::default();
        drop(counters.sessions.enter());
        assert_eq!(counters.shown().sessions_ended.fault, 1);
        let session = counters.sessions.enter();
        counters.ended(End::Left);
        assert_eq!(counters.shown().sessions_ended.fault, 1);
        drop(session);
        assert_eq!(counters.shown().sessions_ended.fault, 1);
    }

    #[test]
    fn ends_are_counted_by_reason() {
        let counters = Counters::default();
        counters.ended(End::Left);
        counters.ended(End::Unrestorable);
        counters.ended(End::Left);
        counters.in_doubt(Outcome::Committed);
        let shown = counters.shown();
        assert_eq!((shown.sessions_ended.left, shown.sessions_ended.unrestorable), (2, 1));
        assert_eq!((shown.in_doubt_committed, shown.in_doubt_unknown), (1, 0));
    }
}
