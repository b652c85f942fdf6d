//! Version 1 of what members say to each other, and of a member's durable state.
//!
//! These types are a promise: their bytes (postcard) are read by other versions. So they are only
//! ever appended to: no variant moves, no struct of a published version changes; `convert` maps
//! them to the session's own types, which are free to change. Each message is a byte string of its
//! own within a batch, so that one that is not understood costs no other.

use serde::{Deserialize, Serialize};

/// Messages of many sessions from one host to another, in one frame.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    pub items: Vec<Item>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The session's name, which is its pool's.
    pub session: String,
    /// A `Message`.
    pub message: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    pub from: Member,
    pub to: Member,
    pub identity: u64,
    pub promise: u64,
    pub record: Option<Record>,
    pub body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Partner {
    First,
    Second,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Member {
    Partner(Partner),
    Witness(u64),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    Heartbeat { stamp: Stamp, report: Report },
    HeartbeatAnswered { stamp: Stamp, report: Report },
    Proposed,
    Accepted { id: RecordId },
    ProposalRefused { id: RecordId },
    PreVoteAsked { term: u64, position: Position, reach: Protected },
    PreVoteAnswered { term: u64, verdict: Verdict },
    VoteAsked { term: u64, position: Position, reach: Protected },
    VoteAnswered { term: u64, verdict: Verdict, asked_by: u64 },
    Resigned { term: u64, handover: Option<Position> },
    LevelAsked { id: RecordId, position: Position },
    LevelAnswered { id: RecordId, position: Position, level: Level },
    StateAsked { nonce: u64 },
    StateAnswered { nonce: u64, remembered: Shown, promotions: Vec<Promotion> },
    IdentityLost { identity: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stamp {
    pub run: u64,
    pub sent_us: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    pub serving: bool,
    pub can_vote: bool,
    pub sees_witness: bool,
    pub position: Option<Position>,
    pub protected: Option<Protected>,
    pub checkpointed: bool,
    pub lineage: u64,
    pub promotions: Vec<Promotion>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    Granted,
    Refused(Refusal),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    TermNotNew,
    VoterServes,
    RecordIsOlder,
    NotEligible,
    BehindProtected,
    LeaseRuns,
    VoterUnsure,
    NotYours,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Level {
    Reached,
    NotReached,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordId {
    pub term: u64,
    pub revision: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Protection {
    Mirrored,
    Exposed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mirroring {
    Active,
    Suspended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Members {
    Settled(Option<u64>),
    Changing { old: Option<u64>, new: Option<u64> },
    Sole(Partner),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forced {
    pub term: u64,
    pub parent: RecordId,
    pub parent_protection: Protection,
    pub fork: Position,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    pub principal: Partner,
    pub protection: Protection,
    pub mirroring: Mirroring,
    pub members: Members,
    pub forced: Option<Forced>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    pub timeline: u32,
    pub lsn: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Protected {
    pub term: u64,
    pub lsn: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Boundary {
    Known(u64),
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promotion {
    pub term: u64,
    pub timeline: u32,
    pub fork: Position,
    pub boundary: Boundary,
    pub established: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shown {
    pub promise: u64,
    pub record: Option<RecordId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incarnation {
    pub started_us: u64,
    pub timeline: u32,
}

/// A member's durable state for one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Durable {
    pub identity: u64,
    pub promise: u64,
    pub record: Option<Record>,
    pub resigned: Option<u64>,
    /// By term, ascending.
    pub promotions: Vec<Promotion>,
    /// By member, ascending.
    pub others: Vec<(Member, Other)>,
    pub data: Option<Data>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Other {
    pub identity: Option<u64>,
    /// Ascending.
    pub dropped: Vec<u64>,
    pub shown: Shown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Suspension {
    No,
    Unjudged,
    Suspended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Data {
    pub valid: bool,
    pub promoted: Option<(u64, Incarnation)>,
    pub flushed: Position,
    pub touched: bool,
    pub suspension: Suspension,
}
