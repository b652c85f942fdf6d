//! What a member keeps on disk (section 2 of the protocol). It is written and flushed before
//! any message or order that depends on it leaves the member: see `Output::Persist`.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::record::{Incarnation, Promotion, Record, RecordId, Shown};
use crate::term::{Identity, Member, Position, Term};

/// A member's whole durable state for one session.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Durable {
    pub identity: Identity,
    pub promise: Term,
    /// `None` in a member that has lost its state and has not learnt the session again (R10).
    pub record: Option<Record>,
    /// A term that this member will not serve again.
    pub resigned: Option<Term>,
    /// Promotions known, its own and its partner's, by term.
    pub promotions: BTreeMap<Term, Promotion>,
    pub others: BTreeMap<Member, Other>,
    /// A partner's own part; `None` in a witness.
    pub data: Option<Data>,
}

/// What a member remembers of another one.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Other {
    pub identity: Option<Identity>,
    /// Identities that the member has lost for ever.
    pub dropped: BTreeSet<Identity>,
    pub shown: Shown,
}

/// What a partner knows of its own data.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Data {
    /// Whether this copy could be promoted: false from before a rewind or a fresh copy touches it
    /// until it is consistent and streaming again.
    pub valid: bool,
    /// The run of PostgreSQL that was promoted, and for which term.
    pub promoted: Option<(Term, Incarnation)>,
    /// The highest flushed position that this copy has had; a rewind resets it.
    pub flushed: Position,
    /// It has been rewound or replaced, or may have been: it is no whole copy of anything.
    pub touched: bool,
    pub suspension: Suspension,
}

/// Whether this copy may be overwritten by what its record stands for (R11).
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum Suspension {
    #[default]
    No,
    /// The records allow it; whether the data do is known when PostgreSQL tells where they end.
    Unjudged,
    /// It descends from a side that lost against forced service: the operator must choose.
    Suspended,
}

impl Durable {
    /// The state of a member of a session that has just been created.
    pub fn created(identity: Identity, record: Record, data: Option<Data>) -> Durable {
        Durable { record: Some(record), data, ..Durable::lost(identity) }
    }

    /// The state of a member that has none: it must learn the session from the others (R10).
    pub fn lost(identity: Identity) -> Durable {
        Durable {
            identity,
            promise: Term(0),
            record: None,
            resigned: None,
            promotions: BTreeMap::new(),
            others: BTreeMap::new(),
            data: None,
        }
    }

    pub fn record_id(&self) -> Option<RecordId> {
        self.record.map(|record| record.id)
    }

    /// What this member shows of itself in every message.
    pub fn shown(&self) -> Shown {
        Shown { promise: self.promise, record: self.record_id() }
    }
}
