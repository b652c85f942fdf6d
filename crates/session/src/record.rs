//! What a member knows of the session, and who must agree to a change of it.
//!
//! A record is ordered by (term, revision). Two records of the same term and revision with
//! different content are a fault: the second one is refused and never adopted.

use crate::term::{Lsn, Member, Partner, Position, Term, Timeline, WitnessId, Xid};

/// Term and revision of a record: its place in the order.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId {
    pub term: Term,
    pub revision: u32,
}

/// Where the commits are that were acknowledged.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protection {
    /// Every commit ever acknowledged is on both partners' disks.
    Mirrored,
    /// Every commit ever acknowledged is on the principal's disk.
    Exposed,
}

/// Whether the operator lets the mirror follow.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mirroring {
    Active,
    /// The operator has suspended it. Never together with `Protection::Mirrored`.
    Suspended,
}

/// Who has a vote in a session (R12, R13).
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Members {
    Settled(Option<WitnessId>),
    /// Every quorum must hold in the old set and in the new one.
    Changing {
        old: Option<WitnessId>,
        new: Option<WitnessId>,
    },
    /// This partner alone: there is no other one, and nobody else has a vote (R13).
    Sole(Partner),
}

impl Members {
    /// The sets in which every quorum must hold, each given by its witness. A sole partner needs
    /// nobody, and has none.
    pub fn sets(self) -> impl Iterator<Item = Option<WitnessId>> {
        let (first, second) = match self {
            Members::Settled(witness) => (Some(witness), None),
            Members::Changing { old, new } => (Some(old), Some(new)),
            Members::Sole(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// The partner that has the session for itself.
    pub fn sole(self) -> Option<Partner> {
        match self {
            Members::Settled(_) | Members::Changing { .. } => None,
            Members::Sole(partner) => Some(partner),
        }
    }

    /// All witnesses that are named, each once.
    pub fn witnesses(self) -> impl Iterator<Item = WitnessId> {
        let (first, second) = match self {
            Members::Settled(witness) => (witness, None),
            Members::Changing { old, new } => (old, if new == old { None } else { new }),
            Members::Sole(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    pub fn has_witness(self) -> bool {
        self.witnesses().next().is_some()
    }

    pub fn contains(self, member: Member) -> bool {
        match member {
            Member::Partner(partner) => self.sole().is_none_or(|sole| sole == partner),
            Member::Witness(id) => self.witnesses().any(|witness| witness == id),
        }
    }

    /// Every member but `this`.
    pub fn others(self, this: Member) -> impl Iterator<Item = Member> {
        [Member::FIRST, Member::SECOND]
            .into_iter()
            .chain(self.witnesses().map(Member::Witness))
            .filter(move |member| *member != this && self.contains(*member))
    }

    /// Whether `has` holds for one member besides `partner` in every set that has a witness.
    /// A set of two partners asks for nobody: R3, R8 and R9 say what holds without a witness.
    pub fn another_in_each_witnessed_set(
        self,
        partner: Partner,
        has: impl Fn(Member) -> bool,
    ) -> bool {
        self.sets()
            .flatten()
            .all(|witness| has(Member::Partner(partner.other())) || has(Member::Witness(witness)))
    }
}

/// The record that the operator forced a partner to start from (R11).
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Forced {
    /// The term that was taken by force.
    pub term: Term,
    /// The forced partner's record before.
    pub parent: RecordId,
    pub parent_protection: Protection,
    /// Where the forced partner's data ended: the fork.
    pub fork: Position,
}

#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    pub id: RecordId,
    pub principal: Partner,
    pub protection: Protection,
    pub mirroring: Mirroring,
    pub members: Members,
    /// Inherited by votes until a record says `Mirrored`.
    pub forced: Option<Forced>,
}

impl Record {
    /// The record that a new session starts from, before anybody has served.
    pub fn genesis(principal: Partner, witness: Option<WitnessId>) -> Record {
        Record {
            id: RecordId::default(),
            principal,
            protection: Protection::Exposed,
            mirroring: Mirroring::Active,
            members: Members::Settled(witness),
            forced: None,
        }
    }

    /// That of a session of one partner (R13).
    pub fn genesis_of_one(principal: Partner) -> Record {
        Record { members: Members::Sole(principal), ..Record::genesis(principal, None) }
    }

    pub fn term(&self) -> Term {
        self.id.term
    }

    /// The same record one revision later, with `change` applied.
    #[must_use]
    pub fn revised(&self, change: impl FnOnce(&mut Record)) -> Record {
        let mut next = *self;
        next.id.revision += 1;
        change(&mut next);
        if next.protection == Protection::Mirrored {
            next.forced = None;
        }
        next
    }

    /// What a voter writes down for a candidate, and a winner for itself: protection, members and
    /// the forced mark are inherited from the record that came with the request (R7, R8, R11).
    #[must_use]
    pub fn elected(&self, term: Term, candidate: Partner) -> Record {
        Record { id: RecordId { term, revision: 0 }, principal: candidate, ..*self }
    }

    /// Whether `partner` may be voted for under this record (R6).
    pub fn makes_eligible(&self, partner: Partner) -> bool {
        self.principal == partner || self.protection == Protection::Mirrored
    }
}

/// The first transaction id that the promoted server had not seen completed.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Boundary {
    Known(Xid),
    Unknown,
}

/// One promotion, written down before it happens (3.4).
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Promotion {
    pub term: Term,
    pub timeline: Timeline,
    /// Where the new timeline leaves the old one.
    pub fork: Position,
    pub boundary: Boundary,
    /// The barrier of the term has been committed.
    pub established: bool,
}

impl Promotion {
    /// What is known when `self` and `other` tell of the same promotion. Later knowledge wins:
    /// an established promotion is final, and a boundary once unknown stays so.
    #[must_use]
    pub fn merged(self, other: Promotion) -> Promotion {
        debug_assert_eq!(self.term, other.term);
        if self.established {
            return self;
        }
        if other.established || other.boundary == Boundary::Unknown { other } else { self }
    }
}

/// The highest promise and record that a member has shown.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Shown {
    pub promise: Term,
    pub record: Option<RecordId>,
}

impl Shown {
    /// Whether this shows less than `remembered` in promise or record.
    pub fn is_less_than(self, remembered: Shown) -> bool {
        self.promise < remembered.promise || self.record < remembered.record
    }

    pub fn raise(&mut self, other: Shown) {
        self.promise = self.promise.max(other.promise);
        self.record = self.record.max(other.record);
    }
}

/// Which run of PostgreSQL: no two have the same start time and timeline.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Incarnation {
    /// `pg_postmaster_start_time()`, microseconds since 1970.
    pub started: u64,
    pub timeline: Timeline,
}

/// The position up to which both partners are known to hold the WAL.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Protected {
    /// The term whose WAL it is.
    pub term: Term,
    pub lsn: Lsn,
}
