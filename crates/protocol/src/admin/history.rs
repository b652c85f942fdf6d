//! What the history of a session keeps: one entry for each change of role, record or alarm, and
//! one for each failover with the times of its phases.

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Grows by one with each entry of this member.
    pub number: u64,
    /// Wall-clock time of this member, milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// The same as text, RFC 3339.
    pub at: String,
    /// The member that tells it.
    pub member: String,
    pub kind: HistoryKind,
    pub term: u64,
    /// Stable code of the cause, such as `principal_silent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// A role, a phase or a record before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// All of it in words.
    pub sentence: String,
    /// Of a failover: its phases in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
    /// Of a failover: from the first phase to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    RoleChanged,
    RecordChanged,
    /// A phase of a promotion ended.
    Phase,
    /// A promotion has been completed: `phases` tells how long each step took.
    Failover,
    Alarm,
    /// The process started or stopped.
    Process,
}

/// `detected`, `elected`, `prepared` (the receiver is gone and all WAL is replayed), `promoted`,
/// `established` (the first write).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PhaseTime {
    pub phase: String,
    /// Since the phase before; for the first one, since the principal was last heard if known.
    pub ms: u64,
    /// The same in microseconds.
    pub us: u64,
}
