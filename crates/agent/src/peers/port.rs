//! What the members' port has refused, by reason: counted all, logged now and then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::channel::ChannelError;
use crate::clock;

/// Between two lines in the log, in microseconds.
const LOG_EVERY: u64 = 1_000_000;

/// Why somebody was not let in, or a request not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// No certificate, one of another authority, an outdated one, or no TLS at all.
    Handshake,
    /// The introduction does not agree with the certificate, or with this process.
    Introduction,
    Revoked,
    /// Bytes that are no frames, or frames that have no place there.
    Senseless,
    Silent,
    TooMany,
    /// A request that the role does not permit.
    NotPermitted,
}

const ALL: [(Refusal, &str); 7] = [
    (Refusal::Handshake, "handshake"),
    (Refusal::Introduction, "introduction"),
    (Refusal::Revoked, "revoked"),
    (Refusal::Senseless, "senseless"),
    (Refusal::Silent, "silent"),
    (Refusal::TooMany, "too_many"),
    (Refusal::NotPermitted, "not_permitted"),
];

#[derive(Debug, Default)]
pub(super) struct Port {
    counts: [AtomicU64; ALL.len()],
    logged: AtomicU64,
}

impl Port {
    pub fn count(&self, refusal: Refusal) {
        let place = ALL.iter().position(|(known, _)| *known == refusal);
        if let Some(count) = place.and_then(|place| self.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts, and tells the log unless it was told a moment ago.
    pub fn refuse(&self, refusal: Refusal, from: Option<SocketAddr>, error: &ChannelError) {
        self.count(refusal);
        let now = clock::now().as_micros();
        let logged = self.logged.load(Ordering::Relaxed);
        if logged != 0 && now.saturating_sub(logged) < LOG_EVERY {
            return;
        }
        self.logged.store(now, Ordering::Relaxed);
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        tracing::warn!(from, ?refusal, %error, "a connection is refused");
    }

    pub fn refused(&self) -> BTreeMap<String, u64> {
        let counts = ALL.iter().zip(&self.counts);
        counts
            .map(|((_, name), count)| ((*name).to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
