//! The audit trail of a process: who asked it to change something, and what became of it.

use serde::{Deserialize, Serialize};

/// One line of the trail. A change has two: when it is asked, and its outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// By the clock of the process, as text (RFC 3339, UTC).
    pub at: String,
    pub at_ms: u64,
    /// The name in the certificate.
    pub who: String,
    /// The role in the certificate.
    pub role: String,
    /// The request; of a long one what it is and what it is about.
    pub what: serde_json::Value,
    /// `asked`, then one of `done`, `begun`, `published`, `handed`, `outdated`, `faulty`, or the
    /// code of the refusal.
    pub outcome: String,
}

/// A part of the trail.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AuditTrail {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// There are older ones that were asked for, and are not in this answer.
    pub more: bool,
}
