//! The only place that reads a clock.
//!
//! The session's time is the boot-time clock, which goes on while the machine is suspended and
//! which nobody can set. The wall clock is for people only: no decision depends on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use session::Instant;

/// The boot-time clock.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let micros = time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000;
    Instant::from_micros(micros)
}

/// The wall clock, in milliseconds since 1970, for display.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock: certificates have their times by it.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let before = now();
        assert!(now() >= before);
        assert!(wall_ms() > 1_600_000_000_000);
    }
}
