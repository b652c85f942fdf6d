//! What a Front End shows of itself: who it believes serves, what its mode is, and whom that
//! affects. Names carry their units; what is counted is counted since the start of the process.

use serde::{Deserialize, Serialize};

/// A Front End and its part in its pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontEndStatus {
    /// The name that the configuration gives to it.
    pub name: String,
    pub deployment: String,
    pub pool: String,
    pub version: String,
    pub pid: u32,
    pub uptime_ms: u64,
    /// Where clients connect.
    pub listen: String,
    pub mode: FrontEndMode,
    /// Since when it is in this mode, in milliseconds since 1970, UTC.
    pub mode_since_ms: u64,
    /// The same as text, RFC 3339.
    pub mode_since: String,
    /// For how long it has been in this mode.
    pub mode_for_ms: u64,
    /// For how long nobody has served the pool; absent while somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_principal_ms: Option<u64>,
    /// The mode in words, and whom it affects.
    pub sentence: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<FrontEndPrincipal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<FrontEndStandby>,
    /// The highest term that any member has shown; 0: none has.
    pub highest_term: u64,
    /// The pool's servers, as far as they are heard.
    pub servers: Vec<FrontEndServer>,
    pub client_sessions: ClientSessionCounts,
    /// Whose client sessions wait for a server and, while nobody serves, whose will: those with the
    /// most first, and not all if they are many.
    #[serde(default)]
    pub affected: Vec<FrontEndAffected>,
    /// How many there are in all, with those that are not listed.
    #[serde(default)]
    pub affected_count: u64,
    pub server_connections: ServerConnectionCounts,
    pub counters: FrontEndCounters,
}

/// What becomes of statements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontEndMode {
    /// A principal serves.
    Normal,
    /// Nobody serves: statements wait.
    WithoutPrincipal,
    /// Nobody serves: statements that only read are served by a standby, the others wait.
    StandbyReads,
    /// Nobody has served for long: statements that only read are served by a standby if there is
    /// one, the others are refused at once.
    Resiliency,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontEndPrincipal {
    pub server: String,
    /// Where its PostgreSQL listens, host:port.
    pub address: String,
    pub term: u64,
    pub timeline: u32,
    /// A manual failover is about to begin.
    pub handing_over: bool,
    /// For how long its answers may be passed on if nothing more is heard of it.
    pub lease_left_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontEndStandby {
    pub server: String,
    /// Where its PostgreSQL listens, host:port.
    pub address: String,
    /// It has every acknowledged commit.
    pub complete: bool,
}

/// One of the pool's servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontEndServer {
    pub name: String,
    /// Where its agent listens.
    pub address: String,
    pub connected: bool,
    /// Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// Why it is not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Client sessions at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ClientSessionCounts {
    pub all: u64,
    /// A statement of theirs runs or waits.
    pub active: u64,
    /// They wait for a server.
    pub held: u64,
    /// They have a server connection.
    pub with_server: u64,
}

/// The client sessions of one user in one database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontEndAffected {
    pub user: String,
    pub database: String,
    pub client_sessions: u64,
    /// A statement or a log-in of theirs waits for a server.
    pub held: u64,
}

/// Server connections at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ServerConnectionCounts {
    /// A client session has them.
    pub used: u64,
    /// They are kept for the next client.
    pub idle: u64,
    pub opening: u64,
}

/// Since the start of the process.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FrontEndCounters {
    pub log_ins: u64,
    pub refused_log_ins: u64,
    /// Statements and log-ins that had to wait for a server.
    pub held: u64,
    /// Those that waited in vain.
    pub held_in_vain: u64,
    pub longest_hold_ms: u64,
    /// Commits whose answer was cut off, and what was found out about them.
    pub in_doubt_committed: u64,
    pub in_doubt_not_committed: u64,
    pub in_doubt_unknown: u64,
    /// Statements that only read and were silently repeated.
    pub repeated: u64,
    /// Transactions that were cut off before their commit was sent.
    pub cut_off: u64,
    /// Statements that were refused because nobody serves.
    pub refused_writes: u64,
    /// Statements that a standby answered because nobody serves.
    pub standby_reads: u64,
    /// Client sessions that live on with another server connection.
    pub sessions_restored: u64,
    pub sessions_ended: SessionsEnded,
}

/// Client sessions that ended, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SessionsEnded {
    /// The client said good-bye.
    pub left: u64,
    /// The client's connection broke.
    pub lost: u64,
    /// The client sent what PostgreSQL's protocol does not allow.
    pub malformed: u64,
    /// The client left its answers unread for too long.
    pub slow: u64,
    /// What it had on its server cannot be made again on another one.
    pub unrestorable: u64,
    /// It waited in vain for a server.
    pub held_in_vain: u64,
    /// Its server ended it.
    pub by_server: u64,
    /// The Front End ended.
    pub shutdown: u64,
    /// A fault of the Front End itself.
    pub fault: u64,
}
