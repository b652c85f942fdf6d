//! What a member shows of itself. Names carry their units; positions are spelled as PostgreSQL
//! spells them, with the number of bytes beside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A process and its part in each of its sessions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The name that the configuration gives to this process.
    pub process: String,
    pub kind: MemberKind,
    pub version: String,
    pub pid: u32,
    pub uptime_ms: u64,
    pub deployment: String,
    /// Of where others connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortStatus>,
    pub sessions: Vec<SessionStatus>,
}

/// Where members, Front Ends and commands connect.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PortStatus {
    /// Every connection is TLS with certificates on both sides.
    pub certificates: bool,
    /// Of this process's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_days_left: Option<u64>,
    /// Connections and requests that were refused since the start, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    Server,
    Witness,
}

/// A member's part in one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    pub pool: String,
    /// This member's name.
    pub member: String,
    pub role: Role,
    /// The principal's PostgreSQL takes writes.
    pub serving: bool,
    /// Of the record; 0 if there is none.
    pub term: u64,
    pub promise: u64,
    /// `None`: no session has been created, or this member has lost its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordShown>,
    pub mirroring: MirroringState,
    /// What is left of the principal's lease; absent where it serves without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_left_ms: Option<u64>,
    /// A lone principal acknowledges commits.
    pub guard_open: bool,
    pub others: Vec<OtherStatus>,
    /// From a principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,
    /// From a partner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresStatus>,
    /// Why automatic failover would not work right now.
    pub obstacles: Vec<Obstacle>,
    pub automatic_failover: AutomaticFailover,
    pub alarms: Vec<Alarm>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Witness,
    Waiting,
    Mirror,
    Candidate,
    Becoming,
    Principal,
    Amnesiac,
    Suspended,
    /// This member is configured for the pool, but no session has been created on it.
    NotCreated,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirroringState {
    Synchronizing,
    Synchronized,
    Suspended,
    Disconnected,
    Exposed,
    /// The pool has one server, and no mirror is wanted.
    NotMirrored,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    Mirrored,
    Exposed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mirroring {
    Active,
    Suspended,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordShown {
    pub term: u64,
    pub revision: u32,
    /// The principal's server name.
    pub principal: String,
    pub protection: Protection,
    pub mirroring: Mirroring,
    pub members: Members,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<ForcedShown>,
}

/// The session's members by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Members {
    pub first: String,
    pub second: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
    /// A change of witness is going on, to `next_witness` (absent: to none).
    pub changing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_witness: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForcedShown {
    pub term: u64,
    pub parent_term: u64,
    pub parent_revision: u32,
    pub fork: PositionShown,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PositionShown {
    /// Such as `0/3000060`.
    pub lsn: String,
    pub bytes: u64,
    pub timeline: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OtherStatus {
    pub name: String,
    /// How long ago it was heard; absent: never since this process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    pub connected: bool,
}

/// What a principal sees of its mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MirrorStatus {
    pub streaming: bool,
    /// WAL of the principal that is not on the mirror's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_flushed_bytes: Option<u64>,
    /// WAL that the mirror has not replayed, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_replayed_bytes: Option<u64>,
}

/// The partner's own PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PostgresStatus {
    /// The postmaster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What PostgreSQL itself reports: `absent`, `stopped`, `starting`, `standby`, `primary`,
    /// `stopping`.
    pub state: String,
    pub host: String,
    pub port: u16,
    pub data_dir: String,
    pub socket_dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Flushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionShown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<PositionShown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// Its data could be promoted.
    #[serde(default)]
    pub data_valid: bool,
    /// What the agent is doing with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<CopyProgress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyProgress {
    pub done_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// A copy of the data, as far as known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DatumShown {
    pub server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionShown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The data could be promoted; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// How long ago that was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms_ago: Option<u64>,
    /// Terms and timelines of the promotions known, oldest first.
    #[serde(default)]
    pub promotions: Vec<PromotionShown>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PromotionShown {
    pub term: u64,
    pub timeline: u32,
    pub fork: PositionShown,
    pub established: bool,
}

/// One thing that stands between the pool and an automatic failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Obstacle {
    /// Stable, for programs.
    pub code: String,
    pub sentence: String,
}

/// Whether the pool would fail over by itself right now. Only the principal knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AutomaticFailover {
    pub armed: bool,
    pub sentence: String,
    /// How long writes would be held up if the principal's host were lost now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
}

/// Someone must look.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable, for programs.
    pub code: String,
    pub sentence: String,
    /// Since when, in milliseconds since 1970, UTC.
    pub since_ms: u64,
}
