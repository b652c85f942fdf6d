//! What an administrator's command asks a member, and what the member answers.
//!
//! One request and one response at a time on a connection that introduced itself as an
//! administrator; both are JSON in a frame of their own kind. New fields are optional, new variants
//! are appended, and a member that does not know a request answers with code `unknown_request`.
//! Every refusal carries a stable code for programs, a sentence for people and, where one exists, a
//! hint; the sentences live in `words`.

mod audit;
mod front_end;
mod history;
mod preflight;
mod route;
mod show;
mod status;
mod topology;
pub mod words;

use serde::{Deserialize, Serialize};

pub use audit::{AuditEntry, AuditTrail};
pub use front_end::{
    ClientSessionCounts, FrontEndAffected, FrontEndCounters, FrontEndMode, FrontEndPrincipal,
    FrontEndServer, FrontEndStandby, FrontEndStatus, ServerConnectionCounts, SessionsEnded,
};
pub use history::{HistoryEntry, HistoryKind, PhaseTime};
pub use preflight::{
    PreflightData, PreflightPart, PreflightPartSeen, PreflightPort, PreflightSeen,
};
pub use route::{PostgresState, Route, RoutePostgres, RoutePromotion};
pub use show::at_text;
pub use status::{
    Alarm, AutomaticFailover, CopyProgress, DatumShown, ForcedShown, MemberKind, MemberStatus,
    Members, MirrorStatus, Mirroring, MirroringState, Obstacle, OtherStatus, PortStatus,
    PositionShown, PostgresStatus, PromotionShown, Protection, RecordShown, Role, SessionStatus,
};
pub use topology::{
    COMMENT_LIMIT, DOCUMENT_LIMIT, TopologyAnswer, TopologyCopy, TopologyFinding, TopologyHeader,
    TopologyHolder, TopologyKind, TopologyReplication, TopologyRequest, TopologyShown,
    TopologySource, TopologyStanding,
};
pub use words::Code;

/// What an administrator asks of one member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make this member's part of a new session: the first set-up of a pool. Ask every member. The
    /// designated principal (the pool's first partner) initialises its data; the other partner
    /// copies them later by itself. Refused where the session exists already.
    CreateSession { pool: String },
    /// Of one pool, or of all that this process has a part in.
    Status {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<String>,
    },
    /// Manual failover, asked of the principal. With `dry_run` nothing happens, and the answer is
    /// a `Response::Plan`. Otherwise `Response::Begun`: the status and the history tell the end.
    Failover {
        pool: String,
        /// The name of the server that is to serve; the mirror if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        #[serde(default)]
        dry_run: bool,
    },
    /// Forced service, asked of the partner that is to serve. Without `accept_data_loss` nothing
    /// happens, and the answer is a `Response::Preview` of this member's data.
    ForceService {
        pool: String,
        #[serde(default)]
        accept_data_loss: bool,
    },
    /// Suspend mirroring, asked of the principal: it goes on exposed.
    Suspend { pool: String },
    /// Resume mirroring, asked of the principal. With `discard_this_side`, asked of a partner that
    /// is suspended after forced service: its data are given up, and it follows the other side.
    Resume {
        pool: String,
        #[serde(default)]
        discard_this_side: bool,
    },
    /// The newest entries, oldest first; with `after`, those with a greater number.
    History {
        pool: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// At most so many; a member may send fewer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Add, replace (`to`: its name) or remove (`to` absent) the witness, asked of the principal.
    /// All members must have the new witness in their configuration.
    ChangeWitness {
        pool: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Let a principal that restarted without a witness serve while its mirror is away.
    ServeAlone { pool: String },
    /// Let a member that lost its state learn the session from the serving principal alone.
    Learn { pool: String },
    /// Be told who serves the pool, until the connection ends: a `Response::Route` at once and
    /// after each change. Asked again with each heartbeat: `stamp` comes back as `echo`, so the
    /// follower knows that a route is younger than its question.
    Follow { pool: String, stamp: u64 },
    /// A follower's word that it has no transaction open on the principal of `term`, and begins
    /// none until it has heard more. There is no answer.
    Drained { pool: String, term: u64 },
    /// End this process in good order. `stop_postgres`: shut its PostgreSQL servers down too;
    /// otherwise they keep running and are adopted at the next start.
    Shutdown {
        #[serde(default)]
        stop_postgres: bool,
    },
    /// About the published document.
    Topology(TopologyRequest),
    /// Whether this machine is ready for these parts: `Response::Preflight`.
    Preflight { parts: Vec<PreflightPart> },
    /// The newest entries of this process's audit trail, oldest first: `Response::Audit`.
    Audit {
        /// Only what is not older.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
        /// At most so many; a member may send fewer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
}

/// What somebody must be permitted to ask something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Nothing changes.
    Look,
    /// To see who changed what.
    Inspect,
    /// To be told who serves, and to answer for the Front End's transactions.
    Follow,
    Change,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum Response {
    Done {
        sentence: String,
    },
    /// It has begun. `term` is the term before; `history` the number of the newest entry before.
    Begun {
        sentence: String,
        term: u64,
        history: u64,
    },
    Status(MemberStatus),
    Plan(FailoverPlan),
    Preview(ForcePreview),
    History {
        entries: Vec<HistoryEntry>,
        /// The number of the newest entry that the member has; 0 if it has none.
        newest: u64,
    },
    Refused(Refusal),
    Route(Route),
    /// The status of a Front End.
    FrontEnd(FrontEndStatus),
    Topology(TopologyAnswer),
    Preflight(PreflightSeen),
    Audit(AuditTrail),
}

/// Why something was not done, or would not be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a manual failover would meet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailoverPlan {
    pub pool: String,
    /// The server that serves now, and the one that would.
    pub from: String,
    pub to: String,
    /// It would begin.
    pub possible: bool,
    pub checks: Vec<Check>,
}

/// One condition of a manual failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    pub code: String,
    pub met: bool,
    pub sentence: String,
}

/// What is known about this member's data before forced service. A command asks both partners, and
/// shows what each has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForcePreview {
    pub pool: String,
    pub server: String,
    /// The data that would serve.
    pub own: DatumShown,
    /// What this member last knew of the other partner's data.
    pub other: DatumShown,
    /// The position up to which both partners are known to hold the WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<PositionShown>,
    /// The record says `Mirrored`: all that was ever acknowledged should be here.
    pub nothing_should_be_lost: bool,
    /// Forced service would be refused now, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// All of it in words.
    pub sentence: String,
}

impl Request {
    /// The pool that it is about; `None`: the process as a whole.
    pub fn pool(&self) -> Option<&str> {
        match self {
            Request::CreateSession { pool }
            | Request::Failover { pool, .. }
            | Request::ForceService { pool, .. }
            | Request::Suspend { pool }
            | Request::Resume { pool, .. }
            | Request::History { pool, .. }
            | Request::ChangeWitness { pool, .. }
            | Request::ServeAlone { pool }
            | Request::Learn { pool }
            | Request::Follow { pool, .. }
            | Request::Drained { pool, .. } => Some(pool),
            Request::Status { pool } => pool.as_deref(),
            Request::Shutdown { .. }
            | Request::Topology(_)
            | Request::Preflight { .. }
            | Request::Audit { .. } => None,
        }
    }

    /// Whether it only reads.
    pub fn is_read(&self) -> bool {
        match self {
            Request::Status { .. }
            | Request::History { .. }
            | Request::Follow { .. }
            | Request::Preflight { .. }
            | Request::Audit { .. } => true,
            Request::Failover { dry_run, .. } => *dry_run,
            Request::ForceService { accept_data_loss, .. } => !accept_data_loss,
            Request::Topology(request) => request.is_read(),
            Request::CreateSession { .. }
            | Request::Suspend { .. }
            | Request::Resume { .. }
            | Request::ChangeWitness { .. }
            | Request::ServeAlone { .. }
            | Request::Learn { .. }
            | Request::Drained { .. }
            | Request::Shutdown { .. } => false,
        }
    }

    /// What it takes to ask it.
    pub fn right(&self) -> Right {
        match self {
            Request::Follow { .. } | Request::Drained { .. } => Right::Follow,
            Request::Audit { .. } => Right::Inspect,
            Request::Status { .. }
            | Request::History { .. }
            | Request::Preflight { .. }
            | Request::Failover { dry_run: true, .. }
            | Request::ForceService { accept_data_loss: false, .. } => Right::Look,
            Request::Topology(request) if request.is_read() => Right::Look,
            Request::CreateSession { .. }
            | Request::Topology(_)
            | Request::Failover { dry_run: false, .. }
            | Request::ForceService { accept_data_loss: true, .. }
            | Request::Suspend { .. }
            | Request::Resume { .. }
            | Request::ChangeWitness { .. }
            | Request::ServeAlone { .. }
            | Request::Learn { .. }
            | Request::Shutdown { .. } => Right::Change,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a request has string keys only")
    }

    /// The request in `bytes`, or the refusal to send back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Request, Refusal> {
        serde_json::from_slice(bytes)
            .map_err(|error| Code::UnknownRequest.refusal(Some(error.to_string())))
    }
}

impl Response {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a response has string keys only")
    }

    /// # Errors
    /// The bytes are no response that this version knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Response, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        Response::Refused(refusal)
    }
}
