//! The only place of the command line that reads a clock.
//!
//! Spans are measured on the monotonic clock; wall time is for people to read, and for
//! the times of certificates.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, by which certificates have their times.
pub fn wall() -> SystemTime {
    SystemTime::now()
}
