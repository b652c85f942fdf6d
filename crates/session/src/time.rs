//! Time as the session sees it: a number that somebody else has read from a clock.
//!
//! The session reads no clock. Shells pass the boot-time clock in, so that a machine that was
//! suspended knows that it slept. An `Instant` can be printed, hashed and written to a trace.

use core::time::Duration;

/// A point on the boot-time clock of one host, in microseconds.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(u64);

impl Instant {
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    #[must_use]
    pub fn after(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(span.as_micros() as u64))
    }

    #[must_use]
    pub fn before(self, span: Duration) -> Instant {
        Instant(self.0.saturating_sub(span.as_micros() as u64))
    }
}

/// All the session's waits. The profiles are those of `docs/protocol.md`, section 7.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    pub heartbeat: Duration,
    /// How long an answered heartbeat lets its sender serve, from its sending.
    pub lease: Duration,
    /// Silence of the principal after which its mirror stands.
    pub detection: Duration,
    /// Silence, or a flushed position that stands still, after which the mirror counts as lost.
    pub partner_timeout: Duration,
    /// A principal stops this long before the end of its lease, so that it has stopped by then.
    pub stop_margin: Duration,
    /// How long a candidate waits for answers before it asks again.
    pub vote_timeout: Duration,
    /// How long commits may wait for the mirror in the change to `Mirrored`.
    pub protect_timeout: Duration,
    /// How long the clean shutdown of a manual failover may take.
    pub shutdown_timeout: Duration,
    /// How long the old principal waits for its mirror to take over in a manual failover.
    pub handover_timeout: Duration,
}

impl Timing {
    pub const FAST: Timing = Timing::profile(100, 700, 800, 500, 150);
    pub const STANDARD: Timing = Timing::profile(250, 1_800, 2_000, 1_000, 250);
    pub const TOLERANT: Timing = Timing::profile(1_000, 9_000, 10_000, 5_000, 500);

    const fn profile(heartbeat: u64, lease: u64, detection: u64, partner: u64, stop: u64) -> Self {
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            lease: Duration::from_millis(lease),
            detection: Duration::from_millis(detection),
            partner_timeout: Duration::from_millis(partner),
            stop_margin: Duration::from_millis(stop),
            vote_timeout: Duration::from_millis(heartbeat * 2),
            protect_timeout: Duration::from_millis(partner),
            shutdown_timeout: Duration::from_millis(lease + detection),
            handover_timeout: Duration::from_millis(lease + detection),
        }
    }

    /// How long a voter holds a lease that it gave: 10 % longer than its holder counts.
    pub fn lease_given(&self) -> Duration {
        self.lease + self.lease / 10
    }

    /// How often the witness hears from partners while all is well.
    pub fn witness_interval(&self) -> Duration {
        core::cmp::max(self.lease / 3, self.heartbeat)
    }

    /// The first relation between the times that does not hold, as a sentence.
    pub fn fault(&self) -> Option<&'static str> {
        if self.heartbeat.is_zero() {
            Some("the heartbeat interval must be above zero")
        } else if self.heartbeat * 3 > self.lease {
            Some("the lease must span at least three heartbeats")
        } else if self.lease_given() > self.detection {
            Some("the detection time must be at least the lease and 10 % more")
        } else if self.stop_margin + self.heartbeat * 2 > self.lease {
            Some("the stop margin leaves too little of the lease")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_keeps_the_lease_rule() {
        for timing in [Timing::FAST, Timing::STANDARD, Timing::TOLERANT] {
            assert_eq!(timing.fault(), None);
        }
        let broken = Timing { detection: Timing::STANDARD.lease, ..Timing::STANDARD };
        assert!(broken.fault().is_some());
    }
}
