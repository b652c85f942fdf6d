//! The parts of messages: positions, records, promotions. See the parent module.

use session::{Lsn, Term, Timeline, WitnessId, Xid};

use super::Malformed;
use crate::v1;

impl From<session::Partner> for v1::Partner {
    fn from(own: session::Partner) -> Self {
        match own {
            session::Partner::First => v1::Partner::First,
            session::Partner::Second => v1::Partner::Second,
        }
    }
}

impl From<v1::Partner> for session::Partner {
    fn from(told: v1::Partner) -> Self {
        match told {
            v1::Partner::First => session::Partner::First,
            v1::Partner::Second => session::Partner::Second,
        }
    }
}

impl From<session::Refusal> for v1::Refusal {
    fn from(own: session::Refusal) -> Self {
        match own {
            session::Refusal::TermNotNew => v1::Refusal::TermNotNew,
            session::Refusal::VoterServes => v1::Refusal::VoterServes,
            session::Refusal::RecordIsOlder => v1::Refusal::RecordIsOlder,
            session::Refusal::NotEligible => v1::Refusal::NotEligible,
            session::Refusal::BehindProtected => v1::Refusal::BehindProtected,
            session::Refusal::LeaseRuns => v1::Refusal::LeaseRuns,
            session::Refusal::VoterUnsure => v1::Refusal::VoterUnsure,
            session::Refusal::NotYours => v1::Refusal::NotYours,
        }
    }
}

impl From<v1::Refusal> for session::Refusal {
    fn from(told: v1::Refusal) -> Self {
        match told {
            v1::Refusal::TermNotNew => session::Refusal::TermNotNew,
            v1::Refusal::VoterServes => session::Refusal::VoterServes,
            v1::Refusal::RecordIsOlder => session::Refusal::RecordIsOlder,
            v1::Refusal::NotEligible => session::Refusal::NotEligible,
            v1::Refusal::BehindProtected => session::Refusal::BehindProtected,
            v1::Refusal::LeaseRuns => session::Refusal::LeaseRuns,
            v1::Refusal::VoterUnsure => session::Refusal::VoterUnsure,
            v1::Refusal::NotYours => session::Refusal::NotYours,
        }
    }
}

impl From<session::Level> for v1::Level {
    fn from(own: session::Level) -> Self {
        match own {
            session::Level::Reached => v1::Level::Reached,
            session::Level::NotReached => v1::Level::NotReached,
        }
    }
}

impl From<v1::Level> for session::Level {
    fn from(told: v1::Level) -> Self {
        match told {
            v1::Level::Reached => session::Level::Reached,
            v1::Level::NotReached => session::Level::NotReached,
        }
    }
}

impl From<session::Protection> for v1::Protection {
    fn from(own: session::Protection) -> Self {
        match own {
            session::Protection::Mirrored => v1::Protection::Mirrored,
            session::Protection::Exposed => v1::Protection::Exposed,
        }
    }
}

impl From<v1::Protection> for session::Protection {
    fn from(told: v1::Protection) -> Self {
        match told {
            v1::Protection::Mirrored => session::Protection::Mirrored,
            v1::Protection::Exposed => session::Protection::Exposed,
        }
    }
}

impl From<session::Mirroring> for v1::Mirroring {
    fn from(own: session::Mirroring) -> Self {
        match own {
            session::Mirroring::Active => v1::Mirroring::Active,
            session::Mirroring::Suspended => v1::Mirroring::Suspended,
        }
    }
}

impl From<v1::Mirroring> for session::Mirroring {
    fn from(told: v1::Mirroring) -> Self {
        match told {
            v1::Mirroring::Active => session::Mirroring::Active,
            v1::Mirroring::Suspended => session::Mirroring::Suspended,
        }
    }
}

impl From<session::Member> for v1::Member {
    fn from(own: session::Member) -> Self {
        match own {
            session::Member::Partner(partner) => v1::Member::Partner(partner.into()),
            session::Member::Witness(WitnessId(id)) => v1::Member::Witness(id),
        }
    }
}

impl From<v1::Member> for session::Member {
    fn from(told: v1::Member) -> Self {
        match told {
            v1::Member::Partner(partner) => session::Member::Partner(partner.into()),
            v1::Member::Witness(id) => session::Member::Witness(WitnessId(id)),
        }
    }
}

impl From<session::Verdict> for v1::Verdict {
    fn from(own: session::Verdict) -> Self {
        match own {
            session::Verdict::Granted => v1::Verdict::Granted,
            session::Verdict::Refused(why) => v1::Verdict::Refused(why.into()),
        }
    }
}

impl From<v1::Verdict> for session::Verdict {
    fn from(told: v1::Verdict) -> Self {
        match told {
            v1::Verdict::Granted => session::Verdict::Granted,
            v1::Verdict::Refused(why) => session::Verdict::Refused(why.into()),
        }
    }
}

impl From<session::RecordId> for v1::RecordId {
    fn from(own: session::RecordId) -> Self {
        v1::RecordId { term: own.term.0, revision: own.revision }
    }
}

impl From<v1::RecordId> for session::RecordId {
    fn from(told: v1::RecordId) -> Self {
        session::RecordId { term: Term(told.term), revision: told.revision }
    }
}

impl From<session::Position> for v1::Position {
    fn from(own: session::Position) -> Self {
        v1::Position { timeline: own.timeline.0, lsn: own.lsn.0 }
    }
}

impl From<v1::Position> for session::Position {
    fn from(told: v1::Position) -> Self {
        session::Position { timeline: Timeline(told.timeline), lsn: Lsn(told.lsn) }
    }
}

impl From<session::Protected> for v1::Protected {
    fn from(own: session::Protected) -> Self {
        v1::Protected { term: own.term.0, lsn: own.lsn.0 }
    }
}

impl From<v1::Protected> for session::Protected {
    fn from(told: v1::Protected) -> Self {
        session::Protected { term: Term(told.term), lsn: Lsn(told.lsn) }
    }
}

impl From<session::Members> for v1::Members {
    fn from(own: session::Members) -> Self {
        let id = |witness: Option<WitnessId>| witness.map(|WitnessId(id)| id);
        match own {
            session::Members::Settled(witness) => v1::Members::Settled(id(witness)),
            session::Members::Changing { old, new } => {
                v1::Members::Changing { old: id(old), new: id(new) }
            }
            session::Members::Sole(partner) => v1::Members::Sole(partner.into()),
        }
    }
}

impl From<v1::Members> for session::Members {
    fn from(told: v1::Members) -> Self {
        let witness = |id: Option<u64>| id.map(WitnessId);
        match told {
            v1::Members::Settled(id) => session::Members::Settled(witness(id)),
            v1::Members::Changing { old, new } => {
                session::Members::Changing { old: witness(old), new: witness(new) }
            }
            v1::Members::Sole(partner) => session::Members::Sole(partner.into()),
        }
    }
}

impl From<session::Forced> for v1::Forced {
    fn from(own: session::Forced) -> Self {
        v1::Forced {
            term: own.term.0,
            parent: own.parent.into(),
            parent_protection: own.parent_protection.into(),
            fork: own.fork.into(),
        }
    }
}

impl From<v1::Forced> for session::Forced {
    fn from(told: v1::Forced) -> Self {
        session::Forced {
            term: Term(told.term),
            parent: told.parent.into(),
            parent_protection: told.parent_protection.into(),
            fork: told.fork.into(),
        }
    }
}

impl From<session::Record> for v1::Record {
    fn from(own: session::Record) -> Self {
        v1::Record {
            id: own.id.into(),
            principal: own.principal.into(),
            protection: own.protection.into(),
            mirroring: own.mirroring.into(),
            members: own.members.into(),
            forced: own.forced.map(Into::into),
        }
    }
}

impl TryFrom<v1::Record> for session::Record {
    type Error = Malformed;

    fn try_from(told: v1::Record) -> Result<Self, Malformed> {
        let mirrored = told.protection == v1::Protection::Mirrored;
        if mirrored && told.forced.is_some() {
            return Err(Malformed::MirroredAndForced);
        }
        if mirrored && told.mirroring == v1::Mirroring::Suspended {
            return Err(Malformed::MirroredAndSuspended);
        }
        if let v1::Members::Sole(sole) = told.members
            && (mirrored || sole != told.principal)
        {
            return Err(Malformed::SoleAndNotItsOwn);
        }
        Ok(session::Record {
            id: told.id.into(),
            principal: told.principal.into(),
            protection: told.protection.into(),
            mirroring: told.mirroring.into(),
            members: told.members.into(),
            forced: told.forced.map(Into::into),
        })
    }
}

impl From<session::Boundary> for v1::Boundary {
    fn from(own: session::Boundary) -> Self {
        match own {
            session::Boundary::Known(Xid(xid)) => v1::Boundary::Known(xid),
            session::Boundary::Unknown => v1::Boundary::Unknown,
        }
    }
}

impl From<v1::Boundary> for session::Boundary {
    fn from(told: v1::Boundary) -> Self {
        match told {
            v1::Boundary::Known(xid) => session::Boundary::Known(Xid(xid)),
            v1::Boundary::Unknown => session::Boundary::Unknown,
        }
    }
}

impl From<session::Promotion> for v1::Promotion {
    fn from(own: session::Promotion) -> Self {
        v1::Promotion {
            term: own.term.0,
            timeline: own.timeline.0,
            fork: own.fork.into(),
            boundary: own.boundary.into(),
            established: own.established,
        }
    }
}

impl From<v1::Promotion> for session::Promotion {
    fn from(told: v1::Promotion) -> Self {
        session::Promotion {
            term: Term(told.term),
            timeline: Timeline(told.timeline),
            fork: told.fork.into(),
            boundary: told.boundary.into(),
            established: told.established,
        }
    }
}

impl From<session::Shown> for v1::Shown {
    fn from(own: session::Shown) -> Self {
        v1::Shown { promise: own.promise.0, record: own.record.map(Into::into) }
    }
}

impl From<v1::Shown> for session::Shown {
    fn from(told: v1::Shown) -> Self {
        session::Shown { promise: Term(told.promise), record: told.record.map(Into::into) }
    }
}

impl From<session::Incarnation> for v1::Incarnation {
    fn from(own: session::Incarnation) -> Self {
        v1::Incarnation { started_us: own.started, timeline: own.timeline.0 }
    }
}

impl From<v1::Incarnation> for session::Incarnation {
    fn from(told: v1::Incarnation) -> Self {
        session::Incarnation { started: told.started_us, timeline: Timeline(told.timeline) }
    }
}
