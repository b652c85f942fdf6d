//! What becomes of statements while nobody serves: they wait, then those that only read are served
//! by a standby, and after a long time the others are refused at once (Resiliency mode).
//!
//! The mode is a function of the view of the pool and the time, so nothing has to be switched back:
//! when a principal serves, everything is normal.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::clock::{self, Moment};
use crate::config::Times;
use crate::route::{Pool, Snapshot};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A principal serves.
    Normal,
    /// Nobody serves: statements wait.
    WithoutPrincipal { since: Moment },
    /// Nobody serves: statements that only read are served by the standby, the others wait.
    StandbyReads { since: Moment },
    /// Nobody has served for long: statements that only read are served by the standby if there is
    /// one; the others are refused at once, and nothing waits.
    Resiliency { since: Moment },
}

impl Mode {
    /// `since` is when the mode began by the clock alone: a standby may have come later.
    pub fn at(snapshot: &Snapshot, times: &Times, now: Moment) -> Mode {
        let Some(alone) = snapshot.without_principal_since else { return Mode::Normal };
        let reads = alone + times.standby_reads_after();
        let resiliency = alone + times.resiliency_after();
        if now >= resiliency {
            Mode::Resiliency { since: resiliency }
        } else if now >= reads && snapshot.standby.is_some() {
            Mode::StandbyReads { since: reads }
        } else {
            Mode::WithoutPrincipal { since: alone }
        }
    }

    /// How long until the mode changes if the view does not.
    pub fn lasts(snapshot: &Snapshot, times: &Times, now: Moment) -> Option<Duration> {
        let alone = snapshot.without_principal_since?;
        [alone + times.standby_reads_after(), alone + times.resiliency_after()]
            .into_iter()
            .filter(|change| *change > now)
            .min()
            .map(|change| change.since(now))
    }
}

/// The mode as the client sessions see it; clones share it.
#[derive(Clone, Debug)]
pub struct Modes {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    /// When the present mode was first seen, by both clocks.
    seen: std::cell::Cell<(Moment, u64)>,
}

impl Modes {
    /// Follows the view of `pool` as long as the runtime lives, and logs each change.
    pub fn follow(pool: &Pool, times: &Times) -> Modes {
        let now = clock::now();
        let mode = Mode::at(&pool.current(), times, now);
        let seen = std::cell::Cell::new((now, clock::wall_ms()));
        let modes = Modes { shared: Rc::new(Shared { mode: watch::Sender::new(mode), seen }) };
        spawn_local(watch_mode(modes.clone(), pool.clone(), times.clone()));
        modes
    }

    pub fn current(&self) -> Mode {
        *self.shared.mode.borrow()
    }

    /// To wait for the next change: `changed` ends at each one after the call of this.
    pub fn subscribe(&self) -> watch::Receiver<Mode> {
        self.shared.mode.subscribe()
    }

    /// For how long the present mode has lasted, and its begin as wall time in milliseconds.
    pub fn lasted(&self) -> (Duration, u64) {
        let (moment, wall_ms) = self.shared.seen.get();
        (clock::now().since(moment), wall_ms)
    }

    fn set(&self, mode: Mode) {
        let changed = self.shared.mode.send_if_modified(|current| {
            let changed = *current != mode;
            *current = mode;
            changed
        });
        if changed {
            self.shared.seen.set((clock::now(), clock::wall_ms()));
            log(mode);
        }
    }
}

async fn watch_mode(modes: Modes, pool: Pool, times: Times) {
    loop {
        let changed = pool.changed();
        let (snapshot, now) = (pool.current(), clock::now());
        modes.set(Mode::at(&snapshot, &times, now));
        match Mode::lasts(&snapshot, &times, now) {
            None => changed.await,
            Some(lasts) => tokio::select! {
                () = changed => {}
                () = sleep(lasts) => {}
            },
        }
    }
}

fn log(mode: Mode) {
    match mode {
        Mode::Normal => tracing::info!("normal mode: a principal serves"),
        Mode::WithoutPrincipal { .. } => tracing::warn!("nobody serves: statements wait"),
        Mode::StandbyReads { .. } => {
            tracing::warn!("nobody serves: a standby serves statements that only read");
        }
        Mode::Resiliency { .. } => tracing::error!(
            "Resiliency mode: nobody has served for long; what would write is refused at once"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Standby;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn snapshot(without: Option<u64>, standby: bool) -> Snapshot {
        let standby = standby.then(|| Standby {
            member: "be2".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 5432,
            complete: true,
        });
        Snapshot {
            generation: 1,
            principal: None,
            standby,
            highest_term: 3,
            without_principal_since: without.map(at),
        }
    }

    #[test]
    fn the_mode_follows_from_the_time_without_a_principal() {
        let times = Times::default();
        let alone = |since| Mode::WithoutPrincipal { since: at(since) };
        for (without, standby, now, expected) in [
            (None, true, 5_000, Mode::Normal),
            (Some(100), true, 100, alone(100)),
            (Some(100), true, 109, alone(100)),
            (Some(100), true, 110, Mode::StandbyReads { since: at(110) }),
            (Some(100), false, 110, alone(100)),
            (Some(100), true, 1_899, Mode::StandbyReads { since: at(110) }),
            (Some(100), true, 1_900, Mode::Resiliency { since: at(1_900) }),
            (Some(100), false, 1_900, Mode::Resiliency { since: at(1_900) }),
            (Some(100), false, 9_000, Mode::Resiliency { since: at(1_900) }),
        ] {
            let seen = Mode::at(&snapshot(without, standby), &times, at(now));
            assert_eq!(seen, expected, "{without:?} {standby} {now}");
        }
    }

    #[test]
    fn it_is_known_how_long_a_mode_lasts() {
        let times = Times::default();
        let lasts = |without, now| Mode::lasts(&snapshot(without, true), &times, at(now));
        assert_eq!(lasts(None, 5), None);
        assert_eq!(lasts(Some(100), 104), Some(Duration::from_secs(6)));
        assert_eq!(lasts(Some(100), 110), Some(Duration::from_secs(1_790)));
        assert_eq!(lasts(Some(100), 1_900), None);
    }

    #[test]
    fn the_mode_changes_by_the_clock_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.unwrap(), async {
            let address = |name: &str| (name.to_owned(), "127.0.0.1:1".to_owned());
            let pool = Pool::unfollowed([address("be1"), address("be2")]);
            let times = Times { resiliency_after_ms: 30, ..Times::default() };
            let modes = Modes::follow(&pool, &times);
            let mut changes = modes.subscribe();
            assert!(matches!(modes.current(), Mode::WithoutPrincipal { .. }));
            let resiliency = changes.wait_for(|mode| matches!(mode, Mode::Resiliency { .. }));
            let waited = tokio::time::timeout(Duration::from_secs(10), resiliency).await;
            assert!(waited.unwrap().is_ok());
        });
    }
}
