//! What really happened, which no member knows: every commit, who was told what, every promotion,
//! every record. The invariants are judged by it.
//!
//! Forced service is outside the guarantee: it begins a new *lineage*. What a lineage promises is
//! what its first copy held, and what was acknowledged in it since.

use std::collections::BTreeMap;

use session::{Partner, Protection, Record, RecordId, Term, Timeline};

use crate::seat::Seat;
use crate::world::{Invariant, Violation};

/// How many commits a world has room for: sets of them are bit masks.
pub const COMMITS: usize = 120;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Commit {
    pub xid: u16,
    pub timeline: Timeline,
    /// The term of the primary that it was made on.
    pub term: Term,
    /// That primary's run.
    pub started: u64,
}

/// One promotion as it really happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Branch {
    pub partner: Partner,
    pub timeline: Timeline,
    pub lineage: Term,
    pub established: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lineage {
    /// The commits that its first copy held.
    pub base: u128,
    pub acknowledged: u128,
    pub told_committed: u128,
    pub told_lost: u128,
    /// The highest term that was established in it.
    pub established: Term,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Held {
    record: Record,
    /// The members whose disks have held it.
    by: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ledger {
    pub commits: Vec<Commit>,
    pub branches: BTreeMap<Term, Branch>,
    pub lineages: BTreeMap<Term, Lineage>,
    /// Acknowledged in any lineage.
    pub acknowledged: u128,
    records: BTreeMap<RecordId, Held>,
}

impl Ledger {
    /// A member's disk holds `record` now.
    pub fn note_record(&mut self, seat: Seat, record: Record) -> Result<(), Violation> {
        let held = self.records.entry(record.id).or_insert(Held { record, by: 0 });
        if held.record != record {
            return Err(Violation::new(
                Invariant::OnePrincipalPerTerm,
                format!("{seat} holds {record:?}, another member {:?}", held.record),
            ));
        }
        held.by |= 1 << seat.index();
        Ok(())
    }

    pub fn newest_record(&self) -> Option<Record> {
        self.records.last_key_value().map(|(_, held)| held.record)
    }

    /// Whether the exposure of `record`'s term has been accepted by another member in each set of
    /// members: by an Exposed record of this term with no Mirrored one after it.
    pub fn exposure_is_accepted(&self, record: Record) -> bool {
        let first = RecordId { term: record.id.term, revision: 0 };
        let principal = record.principal;
        for held in self.records.range(first..=record.id).rev().map(|(_, held)| held) {
            if held.record.protection == Protection::Mirrored {
                return false;
            }
            let has = |seat: Seat| held.by & (1 << seat.index()) != 0;
            let accepted = held.record.members.another_in_each_witnessed_set(principal, |member| {
                Seat::of(member).is_some_and(has)
            });
            if accepted {
                return true;
            }
        }
        false
    }

    /// Room for one more commit, or `None`.
    pub fn commit(&mut self, commit: Commit) -> Option<u8> {
        if self.commits.len() == COMMITS {
            return None;
        }
        self.commits.push(commit);
        Some(self.commits.len() as u8 - 1)
    }

    pub fn lineage_of(&self, term: Term) -> Term {
        self.branches.get(&term).map_or(Term(0), |branch| branch.lineage)
    }

    /// The lineage that a timeline belongs to.
    pub fn lineage_of_timeline(&self, timeline: Timeline) -> Term {
        let mut branches = self.branches.values();
        branches.find(|branch| branch.timeline == timeline).map_or(Term(0), |branch| branch.lineage)
    }

    pub fn lineage_mut(&mut self, lineage: Term) -> &mut Lineage {
        self.lineages.entry(lineage).or_default()
    }

    /// The commits that whoever serves in `lineage` must have.
    pub fn required(&self, lineage: Term) -> u128 {
        let Some(known) = self.lineages.get(&lineage) else { return 0 };
        let inherited = known.base & self.acknowledged;
        inherited | known.acknowledged | known.told_committed
    }

    pub fn acknowledge(&mut self, id: u8, term: Term) {
        let lineage = self.lineage_of(term);
        self.acknowledged |= 1 << id;
        self.lineage_mut(lineage).acknowledged |= 1 << id;
    }

    /// A promotion happens. `held` are the commits of the promoted copy, `forced` the term of the
    /// forced mark of the winner's record.
    pub fn promote(
        &mut self,
        term: Term,
        partner: Partner,
        timelines: (Timeline, Timeline),
        held: u128,
        forced: Option<Term>,
    ) -> Result<(), Violation> {
        let (old, new) = timelines;
        if let Some(earlier) = self.branches.get(&term) {
            return Err(Violation::new(
                Invariant::OnePrincipalPerTerm,
                format!("term {term} was won by {} and now by {partner}", earlier.partner),
            ));
        }
        if self.branches.values().any(|branch| branch.timeline == new) {
            return Err(Violation::new(
                Invariant::OnePromotionPerTimeline,
                format!("timeline {new} is used again, by {partner} for term {term}"),
            ));
        }
        let inherited = self.lineage_of_timeline(old);
        let lineage = forced.map_or(inherited, |forced| forced.max(inherited));
        if lineage != inherited && !self.lineages.contains_key(&lineage) {
            self.lineage_mut(lineage).base = held;
        }
        self.branches.insert(term, Branch { partner, timeline: new, lineage, established: false });
        Ok(())
    }

    pub fn establish(&mut self, term: Term) {
        let Some(branch) = self.branches.get_mut(&term) else { return };
        branch.established = true;
        let lineage = branch.lineage;
        let known = self.lineage_mut(lineage);
        known.established = known.established.max(term);
    }
}
