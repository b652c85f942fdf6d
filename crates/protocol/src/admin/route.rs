//! What a Front End must know of a pool: who serves, until when for sure, where its PostgreSQL is,
//! and what decides about commits in doubt (G3).
//!
//! A follower asks with each heartbeat (`Request::Follow`), and the member answers with a `Route`
//! at once, and sends another after each change. What a route says was true when it was sent, which
//! was after the question whose stamp it echoes: so `lease_left_ms` may be counted from there.

use serde::{Deserialize, Serialize};

/// One partner's part in a pool, as its Front Ends see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    pub pool: String,
    /// This member's name.
    pub member: String,
    /// The stamp of the newest question on this connection.
    #[serde(default)]
    pub echo: u64,
    /// The newest term that this member has promised or knows of.
    pub promise: u64,
    /// Of its record; 0 if there is none.
    pub term: u64,
    /// This member is the principal of `term`, the term is established, and clients are let in.
    pub serving: bool,
    /// What is left of the principal's lease; absent where it serves without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_left_ms: Option<u64>,
    /// A manual failover is about to begin: begin no transaction, let the open ones end, and answer
    /// with `Request::Drained`.
    #[serde(default)]
    pub handing_over: bool,
    /// Absent: its PostgreSQL is not reached by clients now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<RoutePostgres>,
    /// The timelines of its PostgreSQL's history, oldest first, its own one at the end. Only from a
    /// member that serves.
    #[serde(default)]
    pub timelines: Vec<u32>,
    /// The promotions that it knows, oldest first. Only from a member that serves.
    #[serde(default)]
    pub promotions: Vec<RoutePromotion>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoutePostgres {
    pub host: String,
    pub port: u16,
    /// What PostgreSQL itself reports: `primary` or `standby`.
    pub state: PostgresState,
    pub timeline: u32,
    /// A standby only: the record says that it has every acknowledged commit.
    #[serde(default)]
    pub complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresState {
    Primary,
    Standby,
}

/// A promotion, as far as it decides about commits in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoutePromotion {
    pub term: u64,
    pub timeline: u32,
    /// The first transaction id that the new timeline could have assigned; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<u64>,
    pub established: bool,
}
