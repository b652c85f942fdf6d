//! The only place of the gateway that reads a clock.
//!
//! Leases are counted on the boot-time clock, which goes on while the machine is suspended and
//! which nobody can set: a gateway that slept must not take an old lease for a valid one. The wall
//! clock is for people, and for the times of certificates.

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment of the boot-time clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Moment {
    nanos: u64,
}

impl Moment {
    pub fn from_nanos(nanos: u64) -> Moment {
        Moment { nanos }
    }

    pub fn nanos(self) -> u64 {
        self.nanos
    }

    /// Nothing, if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Moment { nanos: self.nanos.saturating_add(span) }
    }
}

/// The boot-time clock.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment { nanos: time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs() }
}

/// The wall clock, in milliseconds since 1970, for display.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    ms(since)
}

pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, by which certificates have their times.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let before = now();
        let after = now();
        assert!(after >= before);
        assert_eq!(before.since(after + Duration::from_secs(1)), Duration::ZERO);
        assert!(wall_ms() > 1_600_000_000_000);
    }
}
