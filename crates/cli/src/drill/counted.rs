//! What the Front Ends have counted, before a fault and after it.

use protocol::admin::{FrontEndCounters, FrontEndStatus, SessionsEnded};
use serde::Serialize;

/// What all Front Ends of a pool have counted since they were started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counted {
    /// A Front End that was started again counts anew.
    pids: Vec<u32>,
    sum: Difference,
}

/// The published form: see docs/json.md.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Statements and log-ins that waited for a server.
    pub held: u64,
    /// Statements that only read and were silently repeated.
    pub repeated: u64,
    /// Transactions that were cut off before their commit was sent.
    pub cut_off: u64,
    pub in_doubt: InDoubt,
    pub sessions_restored: u64,
    /// Client sessions that did not end by their clients' will.
    pub sessions_ended: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct InDoubt {
    pub committed: u64,
    pub not_committed: u64,
    pub unknown: u64,
}

impl Counted {
    /// `None` if there is no Front End, or one of them said nothing.
    pub fn of(
        answers: impl IntoIterator<Item = Result<FrontEndStatus, String>>,
    ) -> Option<Counted> {
        let mut counted = Counted { pids: Vec::new(), sum: Difference::default() };
        for answer in answers {
            let status = answer.ok()?;
            counted.pids.push(status.pid);
            counted.sum = combine(counted.sum, shown(&status.counters), u64::saturating_add);
        }
        (!counted.pids.is_empty()).then_some(counted)
    }

    /// What was counted since `before`; `None` if a Front End was started again meanwhile.
    pub fn since(&self, before: &Counted) -> Option<Difference> {
        let same = self.pids == before.pids;
        same.then(|| combine(self.sum, before.sum, u64::saturating_sub))
    }
}

fn shown(counters: &FrontEndCounters) -> Difference {
    Difference {
        held: counters.held,
        repeated: counters.repeated,
        cut_off: counters.cut_off,
        in_doubt: InDoubt {
            committed: counters.in_doubt_committed,
            not_committed: counters.in_doubt_not_committed,
            unknown: counters.in_doubt_unknown,
        },
        sessions_restored: counters.sessions_restored,
        sessions_ended: against_their_will(counters.sessions_ended),
    }
}

fn against_their_will(ended: SessionsEnded) -> u64 {
    let SessionsEnded {
        left: _,
        lost: _,
        malformed,
        slow,
        unrestorable,
        held_in_vain,
        by_server,
        shutdown,
        fault,
    } = ended;
    malformed + slow + unrestorable + held_in_vain + by_server + shutdown + fault
}

fn combine(one: Difference, other: Difference, both: fn(u64, u64) -> u64) -> Difference {
    Difference {
        held: both(one.held, other.held),
        repeated: both(one.repeated, other.repeated),
        cut_off: both(one.cut_off, other.cut_off),
        in_doubt: InDoubt {
            committed: both(one.in_doubt.committed, other.in_doubt.committed),
            not_committed: both(one.in_doubt.not_committed, other.in_doubt.not_committed),
            unknown: both(one.in_doubt.unknown, other.in_doubt.unknown),
        },
        sessions_restored: both(one.sessions_restored, other.sessions_restored),
        sessions_ended: both(one.sessions_ended, other.sessions_ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pid: u32, restored: u64) -> Counted {
        let counters = FrontEndCounters {
            sessions_restored: restored,
            in_doubt_committed: 2 * restored,
            sessions_ended: SessionsEnded { left: 9, fault: 1, ..SessionsEnded::default() },
            ..FrontEndCounters::default()
        };
        Counted { pids: vec![pid], sum: shown(&counters) }
    }

    #[test]
    fn only_what_was_counted_meanwhile_is_shown() {
        let found = counted(7, 5).since(&counted(7, 3)).unwrap();
        assert_eq!((found.sessions_restored, found.in_doubt.committed), (2, 4));
        assert_eq!(found.sessions_ended, 0);
        assert_eq!(counted(7, 5).sum.sessions_ended, 1, "those that left do not count");
    }

    #[test]
    fn a_front_end_that_was_started_again_has_forgotten() {
        assert_eq!(counted(8, 1).since(&counted(7, 3)), None);
        assert_eq!(Counted::of([]), None);
        assert_eq!(Counted::of([Err("silent".to_owned())]), None);
    }
}
