//! What members say to each other. Every message carries its sender's identity, promise and
//! record, all of them durable before it leaves (R5).

use alloc::vec::Vec;

use crate::record::{Promotion, Protected, Record, RecordId, Shown};
use crate::term::{Identity, Member, Position, Term};
use crate::time::Instant;

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    pub from: Member,
    pub to: Member,
    pub identity: Identity,
    pub promise: Term,
    /// `None` from a member that has lost its state.
    pub record: Option<Record>,
    pub body: Body,
}

/// When a heartbeat was sent, by its sender's own clock. Only its sender reads it again: the run
/// tells a heartbeat of this process from one of the process before it.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    pub run: u64,
    pub sent: Instant,
}

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// A partner shows that it lives. From a serving principal it asks for a lease.
    Heartbeat {
        stamp: Stamp,
        report: Report,
    },
    HeartbeatAnswered {
        stamp: Stamp,
        report: Report,
    },
    /// The record of this message is proposed to the receiver (R3, R4, R12).
    Proposed,
    /// The sender has accepted exactly the record of this message, which is now its own.
    Accepted {
        id: RecordId,
    },
    ProposalRefused {
        id: RecordId,
    },
    /// Would you vote for me? Changes nothing anywhere (R6).
    PreVoteAsked {
        term: Term,
        position: Position,
        reach: Reach,
    },
    PreVoteAnswered {
        term: Term,
        verdict: Verdict,
    },
    /// The record of this message is the candidate's before the election.
    VoteAsked {
        term: Term,
        position: Position,
        reach: Reach,
    },
    /// `asked_by` is the identity of the request: a vote never reaches a state made anew.
    VoteAnswered {
        term: Term,
        verdict: Verdict,
        asked_by: Identity,
    },
    /// The sender will not serve `term` again. In a manual failover `handover` is where its WAL
    /// ended in a clean shutdown: the mirror stands once it holds all of it.
    Resigned {
        term: Term,
        handover: Option<Position>,
    },
    /// Is the WAL up to `position` on your disk? (R4)
    LevelAsked {
        id: RecordId,
        position: Position,
    },
    LevelAnswered {
        id: RecordId,
        position: Position,
        level: Level,
    },
    /// Asked at every start, and by a member that lost its state (R10).
    StateAsked {
        nonce: u64,
    },
    /// `remembered` is the most that the sender has seen of the asking member.
    StateAnswered {
        nonce: u64,
        remembered: Shown,
        promotions: Vec<Promotion>,
    },
    /// The receiver speaks with an identity that counts as lost for ever: it must take a new one.
    IdentityLost {
        identity: Identity,
    },
}

/// The term whose WAL a candidate's data ends in: positions compare within one term only.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reach(pub Protected);

/// A voter's answer.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Granted,
    Refused(Refusal),
}

/// Why a vote was refused (R7).
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The term is not above the voter's promise.
    TermNotNew,
    VoterServes,
    RecordIsOlder,
    NotEligible,
    BehindProtected,
    LeaseRuns,
    /// The voter has lost its state, or has not yet shaken hands with the candidate.
    VoterUnsure,
    /// The term belongs to the other partner, or the candidate is no member.
    NotYours,
}

/// Whether a mirror holds what it is asked for.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Level {
    Reached,
    NotReached,
}

/// What a member tells of itself with its heartbeats.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Report {
    pub serving: bool,
    /// The sender could vote: it has its state.
    pub can_vote: bool,
    /// The sender has lately heard from every witness of the session.
    pub sees_witness: bool,
    /// Where the sender's copy of the data ends, if it has one that could be promoted.
    pub position: Option<Position>,
    /// From a principal: the position up to which both partners hold the WAL.
    pub protected: Option<Protected>,
    /// From a principal: its `CHECKPOINT` after the promotion of its term is complete (3.4, 7).
    pub checkpointed: bool,
    /// A digest of all promotions that the sender knows.
    pub lineage: u64,
    /// All promotions that the sender knows, if the receiver's digest differs.
    pub promotions: Vec<Promotion>,
}
