//! A member's durable state as bytes: one byte of version, then the postcard of that version.
//! Version 2 has records of one partner (R13). It is written only where there is such a record, so
//! that a program from before can be gone back to as long as it can understand the state; one that
//! cannot is told so by the number.
//! What is read is checked against the invariants that held when it was written.

use session::{Identity, Term};

use super::Malformed;
use crate::v1;

const FIRST: u8 = 1;
const WITH_SOLE: u8 = 2;

/// The stored form of `durable`.
pub fn durable_to_bytes(durable: &session::Durable) -> Vec<u8> {
    let told = v1::Durable::from(durable);
    let sole = durable.record.is_some_and(|record| record.members.sole().is_some());
    postcard::to_extend(&told, vec![if sole { WITH_SOLE } else { FIRST }])
        .expect("writing to memory does not fail")
}

/// # Errors
/// The bytes are no state that a member would have written.
pub fn durable_from_bytes(bytes: &[u8]) -> Result<session::Durable, Malformed> {
    let (version, rest) = bytes.split_first().ok_or(Malformed::Undecodable)?;
    if !(FIRST..=WITH_SOLE).contains(version) {
        return Err(Malformed::UnknownVersion(*version));
    }
    let (told, rest) =
        postcard::take_from_bytes::<v1::Durable>(rest).map_err(|_| Malformed::Undecodable)?;
    if !rest.is_empty() {
        return Err(Malformed::TooLong);
    }
    told.try_into()
}

impl From<&session::Durable> for v1::Durable {
    fn from(own: &session::Durable) -> Self {
        v1::Durable {
            identity: own.identity.0,
            promise: own.promise.0,
            record: own.record.map(Into::into),
            resigned: own.resigned.map(|term| term.0),
            promotions: own.promotions.values().copied().map(Into::into).collect(),
            others: own
                .others
                .iter()
                .map(|(member, other)| ((*member).into(), other.into()))
                .collect(),
            data: own.data.map(Into::into),
        }
    }
}

impl TryFrom<v1::Durable> for session::Durable {
    type Error = Malformed;

    fn try_from(told: v1::Durable) -> Result<Self, Malformed> {
        let record: Option<session::Record> = told.record.map(TryInto::try_into).transpose()?;
        if record.is_some_and(|record| told.promise < record.id.term.0) {
            return Err(Malformed::PromiseBelowRecord);
        }
        if !told.promotions.is_sorted_by(|one, next| one.term < next.term)
            || !told.others.is_sorted_by(|one, next| one.0 < next.0)
        {
            return Err(Malformed::OutOfOrder);
        }
        let mut others = std::collections::BTreeMap::new();
        for (member, other) in told.others {
            others.insert(member.into(), other.try_into()?);
        }
        Ok(session::Durable {
            identity: Identity(told.identity),
            promise: Term(told.promise),
            record,
            resigned: told.resigned.map(Term),
            promotions: told
                .promotions
                .into_iter()
                .map(|promotion| (Term(promotion.term), promotion.into()))
                .collect(),
            others,
            data: told.data.map(Into::into),
        })
    }
}

impl From<&session::Other> for v1::Other {
    fn from(own: &session::Other) -> Self {
        v1::Other {
            identity: own.identity.map(|identity| identity.0),
            dropped: own.dropped.iter().map(|identity| identity.0).collect(),
            shown: own.shown.into(),
        }
    }
}

impl TryFrom<v1::Other> for session::Other {
    type Error = Malformed;

    fn try_from(told: v1::Other) -> Result<Self, Malformed> {
        if !told.dropped.is_sorted_by(|one, next| one < next) {
            return Err(Malformed::OutOfOrder);
        }
        Ok(session::Other {
            identity: told.identity.map(Identity),
            dropped: told.dropped.into_iter().map(Identity).collect(),
            shown: told.shown.into(),
        })
    }
}

impl From<session::Data> for v1::Data {
    fn from(own: session::Data) -> Self {
        v1::Data {
            valid: own.valid,
            promoted: own.promoted.map(|(term, incarnation)| (term.0, incarnation.into())),
            flushed: own.flushed.into(),
            touched: own.touched,
            suspension: match own.suspension {
                session::Suspension::No => v1::Suspension::No,
                session::Suspension::Unjudged => v1::Suspension::Unjudged,
                session::Suspension::Suspended => v1::Suspension::Suspended,
            },
        }
    }
}

impl From<v1::Data> for session::Data {
    fn from(told: v1::Data) -> Self {
        session::Data {
            valid: told.valid,
            promoted: told.promoted.map(|(term, incarnation)| (Term(term), incarnation.into())),
            flushed: told.flushed.into(),
            touched: told.touched,
            suspension: match told.suspension {
                v1::Suspension::No => session::Suspension::No,
                v1::Suspension::Unjudged => session::Suspension::Unjudged,
                v1::Suspension::Suspended => session::Suspension::Suspended,
            },
        }
    }
}
