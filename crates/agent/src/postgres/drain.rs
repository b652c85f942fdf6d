//! The drain before a manual failover: Front Ends that follow are told that it is about to begin,
//! and it waits until each of them has no transaction open, or until its patience is over.
//!
//! Who follows is written on a roll that the followers' connections keep, on a thread of their
//! own. Whoever goes away is struck off and waited for no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use session::Term;
use tokio::sync::watch;
use tokio::time::timeout;

/// The followers that are connected.
#[derive(Clone, Debug)]
pub struct Roll(watch::Sender<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// Each with the term that it has drained.
    present: BTreeMap<u64, Option<Term>>,
}

impl Default for Roll {
    fn default() -> Roll {
        Roll(watch::Sender::new(Entries::default()))
    }
}

impl Roll {
    /// A follower has come; it is present until the value is dropped.
    pub fn enter(&self) -> Present {
        let mut number = 0;
        self.0.send_modify(|entries| {
            number = entries.next;
            entries.next += 1;
            entries.present.insert(number, None);
        });
        Present { roll: self.clone(), number }
    }
}

/// A follower's line on the roll.
#[derive(Debug)]
pub struct Present {
    roll: Roll,
    number: u64,
}

impl Present {
    /// It has no transaction open on the principal of `term`.
    pub fn drained(&self, term: Term) {
        self.roll.0.send_modify(|entries| {
            entries.present.insert(self.number, Some(term));
        });
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.roll.0.send_modify(|entries| {
            entries.present.remove(&self.number);
        });
    }
}

/// How a pool drains.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    pub roll: Roll,
    /// Zero: nobody is told, and nobody is waited for.
    pub patience: Duration,
}

impl Drain {
    pub const DEFAULT_PATIENCE: Duration = Duration::from_millis(1_000);

    /// There is somebody to wait for. What they said before this is no answer.
    pub fn begin(&self) -> bool {
        if self.patience.is_zero() {
            return false;
        }
        self.roll.0.send_modify(|entries| {
            entries.present.values_mut().for_each(|drained| *drained = None);
        });
        !self.roll.0.borrow().present.is_empty()
    }

    /// Returns when all that are present have drained `term`: `true`; or after the patience.
    pub async fn wait(&self, term: Term) -> bool {
        let mut entries = self.roll.0.subscribe();
        let all = entries
            .wait_for(|entries| entries.present.values().all(|drained| *drained == Some(term)));
        timeout(self.patience, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(patience: Duration) -> Drain {
        Drain { roll: Roll::default(), patience }
    }

    #[tokio::test]
    async fn every_follower_that_is_present_is_waited_for() {
        let drain = drain(Duration::from_secs(60));
        assert!(!drain.begin(), "nobody follows");
        let (one, two) = (drain.roll.enter(), drain.roll.enter());
        assert!(drain.begin());
        let waiting = drain.wait(Term(4));
        tokio::pin!(waiting);
        one.drained(Term(4));
        two.drained(Term(2));
        assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        drop(two);
        assert!(waiting.await);
    }

    #[tokio::test]
    async fn a_follower_that_says_nothing_is_waited_for_within_the_patience() {
        let drain = drain(Duration::from_millis(20));
        let one = drain.roll.enter();
        one.drained(Term(4));
        assert!(drain.begin());
        assert!(!drain.wait(Term(4)).await, "an answer from before the question counted");
    }

    #[test]
    fn without_patience_nobody_is_told() {
        let drain = drain(Duration::ZERO);
        let _one = drain.roll.enter();
        assert!(!drain.begin());
    }
}
