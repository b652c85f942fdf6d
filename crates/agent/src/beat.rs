//! A dead man's switch for the sessions' loop.
//!
//! The loop beats with every turn. Nothing but this notices a loop that hangs: it holds no lease
//! any more, while PostgreSQL and the exposure guard, which live in the other runtime, would go on
//! acknowledging. Silence counts only while the one who listens is awake: after the machine or the
//! process was frozen, the loop gets its turn first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use session::Instant;
use tokio::time::sleep;

use crate::clock;

/// How long the loop may rest between two turns.
pub(crate) const LONGEST_REST: Duration = Duration::from_millis(100);
/// Between two looks at the beat.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A longer time between two looks was not spent listening.
const LONGEST_LOOK: Duration = Duration::from_millis(200);

/// When the loop has begun its last turn: microseconds of the boot-time clock, 0 before the first.
#[derive(Debug, Default)]
pub(crate) struct Beat(AtomicU64);

impl Beat {
    pub(crate) fn beat(&self) {
        self.0.store(clock::now().as_micros(), Ordering::Release);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Listens to the beat.
#[derive(Debug)]
pub(crate) struct Watchdog {
    beat: Arc<Beat>,
    /// `None`: there is nothing here that a lease protects.
    limit: Option<Duration>,
    heard: u64,
    looked: Instant,
    silent: Duration,
}

impl Watchdog {
    pub(crate) fn new(beat: Arc<Beat>, limit: Option<Duration>) -> Watchdog {
        Watchdog { beat, limit, heard: 0, looked: clock::now(), silent: Duration::ZERO }
    }

    pub(crate) fn limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// Ends when the loop is silent for longer than the limit. May be dropped at any moment.
    pub(crate) async fn silence(&mut self) {
        let Some(limit) = self.limit else { return std::future::pending().await };
        while self.look(clock::now()) <= limit {
            sleep(LOOK_EVERY).await;
        }
    }

    /// How long the loop is silent.
    fn look(&mut self, now: Instant) -> Duration {
        let span = now.since(self.looked).min(LONGEST_LOOK);
        self.looked = now;
        let last = self.beat.last();
        if last == 0 || last != self.heard {
            self.heard = last;
            self.silent = Duration::ZERO;
        } else {
            self.silent += span;
        }
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_beat_and_not_while_nobody_listens() {
        let beat = Arc::new(Beat::default());
        let mut dog = Watchdog::new(Arc::clone(&beat), None);
        let mut now = clock::now();
        let mut after = |ms| {
            now = now.after(Duration::from_millis(ms));
            now
        };
        assert_eq!(dog.look(after(5_000)), Duration::ZERO, "not begun");
        beat.beat();
        assert_eq!(dog.look(after(100)), Duration::ZERO);
        assert_eq!(dog.look(after(100)), Duration::from_millis(100));
        assert_eq!(dog.look(after(60_000)), Duration::from_millis(300), "frozen");
        beat.0.fetch_add(1, Ordering::Release);
        assert_eq!(dog.look(after(100)), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_loop_that_hangs_is_noticed() {
        let beat = Arc::new(Beat::default());
        beat.beat();
        Watchdog::new(beat, Some(Duration::ZERO)).silence().await;
    }
}
