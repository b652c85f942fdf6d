//! Between the session's own types and the published ones of `v1`, in both directions.
//!
//! To `v1` every value can be converted. From `v1` a value is checked: what breaks an invariant of
//! the session's types never reaches the session. No wildcard arms: a new variant must be given its
//! place in `v1` first.

mod durable;
mod parts;

use session::{Identity, Instant, Term};

use crate::v1;

/// Bytes that a member would never have sent, or state that it would never have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the bytes are no message of this version")]
    Undecodable,
    #[error("bytes follow after the end")]
    TooLong,
    #[error("a record says mirrored and bears a forced mark")]
    MirroredAndForced,
    #[error("a record says mirrored while mirroring is suspended")]
    MirroredAndSuspended,
    #[error("a record says that one partner is alone, and is not that partner's own")]
    SoleAndNotItsOwn,
    #[error("the sender is its own receiver")]
    ToItself,
    #[error("entries are out of order or doubled")]
    OutOfOrder,
    #[error("the promise is below the term of the record")]
    PromiseBelowRecord,
    #[error("the form of the stored state is of version {0}, which this program does not know")]
    UnknownVersion(u8),
}

/// The bytes of one message.
pub fn message_to_bytes(message: &session::Message) -> Vec<u8> {
    let told = v1::Message::from(message);
    postcard::to_allocvec(&told).expect("writing to memory does not fail")
}

/// # Errors
/// The bytes are no message that a member would send.
pub fn message_from_bytes(bytes: &[u8]) -> Result<session::Message, Malformed> {
    let (told, rest) =
        postcard::take_from_bytes::<v1::Message>(bytes).map_err(|_| Malformed::Undecodable)?;
    if !rest.is_empty() {
        return Err(Malformed::TooLong);
    }
    told.try_into()
}

pub use durable::{durable_from_bytes, durable_to_bytes};

impl From<&session::Message> for v1::Message {
    fn from(own: &session::Message) -> Self {
        v1::Message {
            from: own.from.into(),
            to: own.to.into(),
            identity: own.identity.0,
            promise: own.promise.0,
            record: own.record.map(Into::into),
            body: (&own.body).into(),
        }
    }
}

impl TryFrom<v1::Message> for session::Message {
    type Error = Malformed;

    fn try_from(told: v1::Message) -> Result<Self, Malformed> {
        if told.from == told.to {
            return Err(Malformed::ToItself);
        }
        Ok(session::Message {
            from: told.from.into(),
            to: told.to.into(),
            identity: Identity(told.identity),
            promise: Term(told.promise),
            record: told.record.map(TryInto::try_into).transpose()?,
            body: told.body.into(),
        })
    }
}

impl From<session::Stamp> for v1::Stamp {
    fn from(own: session::Stamp) -> Self {
        v1::Stamp { run: own.run, sent_us: own.sent.as_micros() }
    }
}

impl From<v1::Stamp> for session::Stamp {
    fn from(told: v1::Stamp) -> Self {
        session::Stamp { run: told.run, sent: Instant::from_micros(told.sent_us) }
    }
}

impl From<&session::Report> for v1::Report {
    fn from(own: &session::Report) -> Self {
        v1::Report {
            serving: own.serving,
            can_vote: own.can_vote,
            sees_witness: own.sees_witness,
            position: own.position.map(Into::into),
            protected: own.protected.map(Into::into),
            checkpointed: own.checkpointed,
            lineage: own.lineage,
            promotions: own.promotions.iter().copied().map(Into::into).collect(),
        }
    }
}

impl From<v1::Report> for session::Report {
    fn from(told: v1::Report) -> Self {
        session::Report {
            serving: told.serving,
            can_vote: told.can_vote,
            sees_witness: told.sees_witness,
            position: told.position.map(Into::into),
            protected: told.protected.map(Into::into),
            checkpointed: told.checkpointed,
            lineage: told.lineage,
            promotions: told.promotions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&session::Body> for v1::Body {
    fn from(own: &session::Body) -> Self {
        use session::Body;
        match own {
            Body::Heartbeat { stamp, report } => {
                v1::Body::Heartbeat { stamp: (*stamp).into(), report: report.into() }
            }
            Body::HeartbeatAnswered { stamp, report } => {
                v1::Body::HeartbeatAnswered { stamp: (*stamp).into(), report: report.into() }
            }
            Body::Proposed => v1::Body::Proposed,
            Body::Accepted { id } => v1::Body::Accepted { id: (*id).into() },
            Body::ProposalRefused { id } => v1::Body::ProposalRefused { id: (*id).into() },
            Body::PreVoteAsked { term, position, reach } => v1::Body::PreVoteAsked {
                term: term.0,
                position: (*position).into(),
                reach: reach.0.into(),
            },
            Body::PreVoteAnswered { term, verdict } => {
                v1::Body::PreVoteAnswered { term: term.0, verdict: (*verdict).into() }
            }
            Body::VoteAsked { term, position, reach } => v1::Body::VoteAsked {
                term: term.0,
                position: (*position).into(),
                reach: reach.0.into(),
            },
            Body::VoteAnswered { term, verdict, asked_by } => v1::Body::VoteAnswered {
                term: term.0,
                verdict: (*verdict).into(),
                asked_by: asked_by.0,
            },
            Body::Resigned { term, handover } => {
                v1::Body::Resigned { term: term.0, handover: handover.map(Into::into) }
            }
            Body::LevelAsked { id, position } => {
                v1::Body::LevelAsked { id: (*id).into(), position: (*position).into() }
            }
            Body::LevelAnswered { id, position, level } => v1::Body::LevelAnswered {
                id: (*id).into(),
                position: (*position).into(),
                level: (*level).into(),
            },
            Body::StateAsked { nonce } => v1::Body::StateAsked { nonce: *nonce },
            Body::IdentityLost { identity } => v1::Body::IdentityLost { identity: identity.0 },
            Body::StateAnswered { nonce, remembered, promotions } => v1::Body::StateAnswered {
                nonce: *nonce,
                remembered: (*remembered).into(),
                promotions: promotions.iter().copied().map(Into::into).collect(),
            },
        }
    }
}

impl From<v1::Body> for session::Body {
    fn from(told: v1::Body) -> Self {
        use session::{Body, Reach};
        match told {
            v1::Body::Heartbeat { stamp, report } => {
                Body::Heartbeat { stamp: stamp.into(), report: report.into() }
            }
            v1::Body::HeartbeatAnswered { stamp, report } => {
                Body::HeartbeatAnswered { stamp: stamp.into(), report: report.into() }
            }
            v1::Body::Proposed => Body::Proposed,
            v1::Body::Accepted { id } => Body::Accepted { id: id.into() },
            v1::Body::ProposalRefused { id } => Body::ProposalRefused { id: id.into() },
            v1::Body::PreVoteAsked { term, position, reach } => Body::PreVoteAsked {
                term: Term(term),
                position: position.into(),
                reach: Reach(reach.into()),
            },
            v1::Body::PreVoteAnswered { term, verdict } => {
                Body::PreVoteAnswered { term: Term(term), verdict: verdict.into() }
            }
            v1::Body::VoteAsked { term, position, reach } => Body::VoteAsked {
                term: Term(term),
                position: position.into(),
                reach: Reach(reach.into()),
            },
            v1::Body::VoteAnswered { term, verdict, asked_by } => Body::VoteAnswered {
                term: Term(term),
                verdict: verdict.into(),
                asked_by: Identity(asked_by),
            },
            v1::Body::Resigned { term, handover } => {
                Body::Resigned { term: Term(term), handover: handover.map(Into::into) }
            }
            v1::Body::LevelAsked { id, position } => {
                Body::LevelAsked { id: id.into(), position: position.into() }
            }
            v1::Body::LevelAnswered { id, position, level } => Body::LevelAnswered {
                id: id.into(),
                position: position.into(),
                level: level.into(),
            },
            v1::Body::StateAsked { nonce } => Body::StateAsked { nonce },
            v1::Body::IdentityLost { identity } => {
                Body::IdentityLost { identity: session::Identity(identity) }
            }
            v1::Body::StateAnswered { nonce, remembered, promotions } => Body::StateAnswered {
                nonce,
                remembered: remembered.into(),
                promotions: promotions.into_iter().map(Into::into).collect(),
            },
        }
    }
}
