//! All that can happen to a session: facts, in the past tense. Every input is legal in every
//! state; one that comes too late is answered with `Output::Rejected`.

use crate::message::Message;
use crate::record::{Boundary, Incarnation};
use crate::term::{Lsn, Partner, Position, Term, Timeline, WitnessId};
use crate::time::Timing;

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// The session's deadline, or some other moment, has come.
    TimePassed,
    Received(Message),
    Postgres(Fact),
    /// The operator asked for something. The answer bears the same number.
    Asked {
        request: u64,
        what: Request,
    },
    /// The configuration has changed.
    Configured {
        witness: Option<WitnessId>,
        wanted: Option<Wanted>,
        timing: Timing,
    },
}

/// What a session is to become. Whoever serves it makes it so, one change after the other.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wanted {
    /// One server without a mirror (R13).
    Alone,
    Pair {
        witness: Option<WitnessId>,
    },
}

/// What the partner's own PostgreSQL did or showed.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fact {
    /// What the agent found when it started. Comes once, before all other facts.
    Found(Found),
    /// It runs as a hot standby without upstream and without clients (3.3).
    Started {
        incarnation: Incarnation,
        position: Position,
    },
    /// It exited, and nobody had ordered that.
    Exited,
    /// `Order::Stop` is done: no process of it is left.
    Stopped,
    /// `Order::ShutDown` ended cleanly; `position` is the end of the shutdown checkpoint.
    ShutDown {
        position: Position,
    },
    /// `Order::ShutDown` passed its deadline and was ended immediately.
    ShutDownLate,
    /// `Order::Follow` for `term` needs to rewind or replace this copy of the data first (3.5).
    TouchNeeded {
        term: Term,
        touch: Touch,
    },
    /// It is consistent, streams from the principal of `term`, and is past the fork.
    Streaming {
        term: Term,
        position: Position,
    },
    /// It no longer streams. The agent goes on trying.
    StreamLost {
        term: Term,
    },
    /// Steps 1 to 3 of a promotion are done: receiver gone, WAL replayed, boundary read.
    PromotionPrepared {
        term: Term,
        position: Position,
        boundary: Boundary,
        newest: Timeline,
    },
    /// It is a primary; `fork` is where its history file says that the timeline begins.
    Promoted {
        term: Term,
        incarnation: Incarnation,
        fork: Position,
    },
    /// A step of a promotion failed. PostgreSQL may be in any state.
    PromotionFailed {
        term: Term,
    },
    BarrierCommitted {
        term: Term,
    },
    /// The `CHECKPOINT` after the promotion for `term` is complete.
    Checkpointed {
        term: Term,
    },
    GuardOpened,
    /// `Order::CloseGuard` is done and the guard's sender process is gone.
    GuardClosed,
    /// The guard broke, and nobody had ordered that.
    GuardLost,
    /// A primary's current WAL position, as `Order::ReadPosition` of this number asked for.
    PositionRead {
        number: u32,
        position: Position,
    },
    /// What a primary sees of its mirror. Comes with each probe, and at each change.
    MirrorSeen(MirrorSeen),
    /// The flushed position of this copy. Comes with each probe of a standby.
    PositionSeen {
        position: Position,
    },
    /// A volume does not take writes, or PostgreSQL does not answer.
    Unhealthy(Ailment),
    /// All ailments are over.
    Healthy,
}

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Found {
    /// There is no data directory, or an empty or unfinished one.
    Nothing,
    /// There is a data directory, and no PostgreSQL runs on it.
    Stopped,
    Standby {
        incarnation: Incarnation,
        position: Position,
    },
    Primary {
        incarnation: Incarnation,
        position: Position,
    },
}

/// What has to be done to a copy of the data before it can follow.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Touch {
    Rewind,
    /// Replaced by a fresh copy.
    Copy,
}

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MirrorSeen {
    /// No walsender named `backstay_mirror` is in state `streaming`.
    Away,
    /// `flushed` is what the mirror has confirmed, `end` the principal's own flushed position.
    Streaming { flushed: Lsn, end: Lsn },
}

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ailment {
    /// A write to the data or WAL volume failed or did not end in time.
    Storage,
    /// The probe query did not end in time.
    Unresponsive,
}

/// What an operator can ask of a partner.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Manual failover, asked of the principal.
    Failover {
        to: Option<Partner>,
    },
    /// Forced service, asked of the partner that is to serve. The operator has accepted the loss.
    ForceService,
    Suspend,
    Resume,
    /// Asked of a suspended partner: give up this copy and follow the other side (R11).
    DiscardThisSide,
    /// Add, replace or remove the witness, asked of the principal (R12).
    ChangeWitness {
        to: Option<WitnessId>,
    },
    /// Asked of a principal that restarted without a witness while the mirror is away (R8).
    ServeAlone,
    /// Serve without a mirror from now on, asked of the principal (R13).
    RemoveMirror,
    /// Take the other partner in as a mirror, asked of a sole principal (R13).
    AddMirror,
    /// Asked of a member that lost its state: learn from the serving principal alone (R10).
    LearnFromPrincipal,
}
