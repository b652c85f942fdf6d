//! All that a session can order. Outputs are performed in order, and `Persist` must be durable
//! before anything after it happens. One exception: `Order::Stop` may be performed at once, because
//! stopping early is always safe.

use alloc::boxed::Box;

use crate::durable::Durable;
use crate::message::Message;
use crate::record::{Promotion, RecordId};
use crate::role::Role;
use crate::term::{Lsn, Member, Partner, Position, Term, Timeline};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    Persist(Box<Durable>),
    Send(Message),
    Postgres(Order),
    /// The answer to the operator's request of this number.
    Answer {
        request: u64,
        answer: Answer,
    },
    /// Something happened that the history of the session keeps.
    Tell(Event),
    /// The input came too late or from nowhere; nothing changed.
    Rejected(Rejection),
}

/// What a partner's PostgreSQL is to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Run as a hot standby without upstream and without clients. Ends in `Fact::Started`.
    /// `reachable` says whether it is likely to be promoted next, and so listens on its port.
    RunAlone {
        reachable: bool,
    },
    /// Stream from `upstream`, which serves `term` on `timeline`; rewind or copy if need be,
    /// but only after `Order::Touch`. Ends in `Fact::Streaming`, again after each loss.
    /// `own` is this partner's newest own promotion.
    Follow {
        term: Term,
        upstream: Partner,
        timeline: Timeline,
        own: Option<Promotion>,
    },
    /// This copy no longer counts as valid: it may be rewound or replaced now.
    Touch {
        term: Term,
    },
    /// Steps 1 to 3 of a promotion. Ends in `Fact::PromotionPrepared`.
    PreparePromotion {
        term: Term,
    },
    /// Promote to exactly `timeline`. Ends in `Fact::Promoted`.
    Promote {
        term: Term,
        timeline: Timeline,
        fork: Position,
    },
    /// Commit the barrier of the term (3.4, 6). Ends in `Fact::BarrierCommitted`.
    CommitBarrier {
        promotion: Promotion,
    },
    /// The term is established: let clients in, and `CHECKPOINT` in the background.
    AdmitClients {
        term: Term,
    },
    /// Ends in `Fact::GuardOpened`, or `Fact::GuardLost`.
    OpenGuard,
    CloseGuard,
    /// Ends in `Fact::PositionRead` with the same number, of a standby in `Fact::PositionSeen`.
    ReadPosition {
        number: u32,
    },
    /// Guard first, then immediate shutdown. Ends in `Fact::Stopped`.
    Stop,
    /// Clean shutdown with a deadline, then immediate. Ends in `Fact::ShutDown` or
    /// `Fact::ShutDownLate`.
    ShutDown {
        deadline: core::time::Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// It has begun; the history tells how it ends.
    Begun,
    Done,
    Refused(Why),
}

/// Why the operator's request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    NotPrincipal,
    AlreadyPrincipal,
    NotMirrored,
    MirrorNotStreaming,
    MirrorNotLevel,
    PrincipalServes,
    Suspended,
    NotSuspended,
    Busy,
    NoData,
    NoSuchChange,
    NotAmnesiac,
    HasWitness,
    NotAPartner,
    /// The other partner must be there, and level with the record, for this change.
    PartnerAway,
    /// The principal serves alone: there is no mirror (R13).
    NoMirror,
    /// This partner was removed from the session (R13).
    Removed,
}

/// What the history keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    RoleChanged {
        from: Role,
        to: Role,
        term: Term,
        cause: Cause,
    },
    /// A record of this member took effect: its own, or one that it learnt.
    RecordChanged {
        id: RecordId,
        cause: Cause,
    },
    /// A phase of a failover ended.
    Reached {
        phase: Phase,
        term: Term,
    },
    Alarm(Alarm),
}

/// The phases of a failover, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    Detected,
    Elected,
    /// The receiver is gone and all WAL is replayed.
    Prepared,
    Promoted,
    /// The barrier is committed: the first write.
    Established,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    Created,
    Restarted,
    PrincipalSilent,
    PrincipalResigned,
    PostgresExited,
    PostgresUnhealthy,
    LeaseLost,
    HigherPromise,
    NewerRecord,
    /// It has begun to stream from the principal.
    Streams,
    MirrorLost,
    MirrorLevel,
    OperatorAsked,
    ForcedService,
    WonElection,
    PromotionFailed,
    HandoverFailed,
    WitnessChanged,
    MirrorRemoved,
    MirrorAdded,
    StateLost,
    StateLearnt,
}

/// Someone must look.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alarm {
    /// Automatic failover will not happen until the witness is back.
    WitnessLost,
    WitnessBack,
    /// Two records of one term and revision differ.
    RecordsDiffer {
        id: RecordId,
        from: Member,
    },
    /// This side lost against forced service and waits for the operator's choice.
    SideSuspended,
    /// This copy ends before the position that was last written down.
    DataBehind {
        found: Position,
        expected: Position,
    },
    /// This member shows less than others remember of it: its state was restored from a copy.
    StateRestored {
        from: Member,
    },
    /// The fork of a promotion was not where it had been announced.
    ForkMoved {
        announced: Lsn,
        found: Lsn,
    },
    StorageFailing,
    ServingForced,
}

/// Why an input changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rejection {
    NotForMe,
    NotAMember,
    /// The sender speaks with an identity that it has lost, or not yet shown.
    UnknownIdentity,
    Stale,
    RecordsDiffer,
    /// This member has lost its state and may not do that.
    Amnesiac,
    OutOfPlace,
}
