//! The named properties of `docs/protocol.md`, section 8, checked after every event.

use core::fmt;

use session::{Mirroring, Partner, Protection};

use crate::postgres::Guard;
use crate::seat::{Seat, side};
use crate::wal::DataCopy;
use crate::world::World;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    AcknowledgedIsNeverLost,
    OnePrincipalPerTerm,
    MirroredMeansBoth,
    ExposedNeedsAQuorum,
    ServingNeedsALease,
    ToldOutcomeNeverChanges,
    OnePromotionPerTimeline,
    ThePoolComesBack,
    AHealedLinkCostsNoOutage,
    /// An assertion of the core failed, or it asks to be woken for ever.
    TheCoreIsSound,
}

impl Invariant {
    pub fn name(self) -> &'static str {
        match self {
            Invariant::AcknowledgedIsNeverLost => "acknowledged_is_never_lost",
            Invariant::OnePrincipalPerTerm => "one_principal_per_term",
            Invariant::MirroredMeansBoth => "mirrored_means_both",
            Invariant::ExposedNeedsAQuorum => "exposed_needs_a_quorum",
            Invariant::ServingNeedsALease => "serving_needs_a_lease",
            Invariant::ToldOutcomeNeverChanges => "told_outcome_never_changes",
            Invariant::OnePromotionPerTimeline => "one_promotion_per_timeline",
            Invariant::ThePoolComesBack => "the_pool_comes_back",
            Invariant::AHealedLinkCostsNoOutage => "a_healed_link_costs_no_outage",
            Invariant::TheCoreIsSound => "the_core_is_sound",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub detail: String,
}

impl Violation {
    pub fn new(invariant: Invariant, detail: String) -> Violation {
        Violation { invariant, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

impl World {
    /// All invariants that can be judged at any moment.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        for partner in [Partner::First, Partner::Second] {
            self.check_serving(partner)?;
        }
        self.check_mirrored()?;
        if self.is_exact() {
            self.check_one_serves()?;
        }
        Ok(())
    }

    /// Whoever serves the newest term of its lineage has all that was promised there.
    fn check_serving(&self, partner: Partner) -> Result<(), Violation> {
        let server = &self.servers[side(partner)];
        let Some(data) = server.data.as_ref().filter(|_| server.is_primary()) else {
            return Ok(());
        };
        let Some(branch) = self.ledger.branches.get(&server.term).filter(|it| it.established)
        else {
            return Ok(());
        };
        let Some(lineage) = self.ledger.lineages.get(&branch.lineage) else { return Ok(()) };
        if server.term < lineage.established {
            return Ok(());
        }
        let lost = self.ledger.required(branch.lineage) & !data.commits;
        if lost != 0 {
            return Err(Violation::new(
                Invariant::AcknowledgedIsNeverLost,
                format!("{partner} serves term {} without {}", server.term, self.ids(lost)),
            ));
        }
        if data.commits & lineage.told_lost != 0 {
            return Err(Violation::new(
                Invariant::ToldOutcomeNeverChanges,
                format!(
                    "{partner} has {}, called lost",
                    self.ids(data.commits & lineage.told_lost)
                ),
            ));
        }
        Ok(())
    }

    fn ids(&self, mask: u128) -> String {
        let ids = (0..self.ledger.commits.len()).filter(|id| mask & (1 << id) != 0);
        let texts = ids.map(|id| format!("commit {id} {:?}", self.ledger.commits[id]));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// While the newest record says Mirrored, each copy that counts as valid has every commit that
    /// was acknowledged.
    fn check_mirrored(&self) -> Result<(), Violation> {
        for partner in [Partner::First, Partner::Second] {
            let unusable = self.servers[side(partner)].data.as_ref().is_some_and(|it| it.unusable);
            if unusable && self.counts_as_valid(partner) {
                let detail = format!("the copy of {partner} is being touched and counts as valid");
                return Err(Violation::new(Invariant::MirroredMeansBoth, detail));
            }
        }
        let Some(record) = self.ledger.newest_record() else { return Ok(()) };
        if record.protection != Protection::Mirrored {
            return Ok(());
        }
        if record.mirroring == Mirroring::Suspended {
            return Err(Violation::new(
                Invariant::MirroredMeansBoth,
                format!("{record:?} says both Mirrored and Suspended"),
            ));
        }
        let Some(principal) = &self.servers[side(record.principal)].data else { return Ok(()) };
        let lineage = match self.ledger.branches.get(&record.term()) {
            Some(branch) => branch.lineage,
            None => self.ledger.lineage_of_timeline(principal.timeline()),
        };
        let required = self.ledger.required(lineage);
        for partner in [Partner::First, Partner::Second] {
            let copy = self.servers[side(partner)].data.as_ref();
            let Some(copy) = copy.filter(|_| self.counts_as_valid(partner)) else { continue };
            let missing = required & !copy.commits;
            if missing != 0 {
                return Err(Violation::new(
                    Invariant::MirroredMeansBoth,
                    format!("{partner} lacks {} under {record:?}", self.ids(missing)),
                ));
            }
        }
        Ok(())
    }

    fn counts_as_valid(&self, partner: Partner) -> bool {
        self.saved(Seat::of_partner(partner)).data.is_some_and(|data| data.valid)
    }

    /// With exact clocks at most one partner serves.
    fn check_one_serves(&self) -> Result<(), Violation> {
        let both = [Partner::First, Partner::Second].into_iter().all(|it| self.serves(it));
        // A forced side may serve beside the old one until they meet.
        let forced = self.ledger.lineages.len() > 1;
        if both && !forced {
            return Err(Violation::new(
                Invariant::ServingNeedsALease,
                "both partners serve at once".into(),
            ));
        }
        Ok(())
    }

    /// This partner's PostgreSQL is let serve by a living agent that believes in its lease.
    pub fn serves(&self, partner: Partner) -> bool {
        let server = &self.servers[side(partner)];
        let host = &self.hosts[side(partner)];
        if !server.is_primary() || !server.clients || host.frozen {
            return false;
        }
        let Some(session) = &host.session else { return false };
        let view = session.view(self.clock(Seat::of_partner(partner)));
        view.serving && view.lease_left.is_none_or(|left| !left.is_zero())
    }

    /// At the opening of a guard: another member has accepted exactly this exposure, or nobody
    /// needs to.
    pub(crate) fn check_guard(&self, partner: Partner) -> Result<(), Violation> {
        let server = &self.servers[side(partner)];
        if server.guard != Guard::Open {
            return Ok(());
        }
        let record = self.saved(Seat::of_partner(partner)).record;
        let sound = record.is_some_and(|record| {
            let excused = !record.members.has_witness() || record.forced.is_some();
            let own = record.principal == partner && record.term() == server.term;
            own && record.protection == Protection::Exposed
                && (excused || self.ledger.exposure_is_accepted(record))
        });
        if sound {
            return Ok(());
        }
        Err(Violation::new(
            Invariant::ExposedNeedsAQuorum,
            format!("{partner} opens its guard in term {} under {record:?}", server.term),
        ))
    }

    /// What was acknowledged is not overwritten unless the operator has given that side up (R11).
    pub(crate) fn check_overwriting(
        &self,
        partner: Partner,
        source: &DataCopy,
    ) -> Result<(), Violation> {
        let Some(own) = &self.servers[side(partner)].data else { return Ok(()) };
        let only_here = own.commits & self.ledger.acknowledged & !source.commits;
        if only_here == 0 || self.discarded[side(partner)] || own.unusable {
            return Ok(());
        }
        Err(Violation::new(
            Invariant::AcknowledgedIsNeverLost,
            format!("{partner} is about to overwrite {}", self.ids(only_here)),
        ))
    }

    /// Clients are let in only after the barrier of the term.
    pub(crate) fn check_admission(&self, partner: Partner) -> Result<(), Violation> {
        let server = &self.servers[side(partner)];
        let branch = self.ledger.branches.get(&server.term);
        if branch.is_some_and(|branch| branch.established) {
            return Ok(());
        }
        Err(Violation::new(
            Invariant::ToldOutcomeNeverChanges,
            format!("{partner} lets clients in before the barrier of term {}", server.term),
        ))
    }
}
