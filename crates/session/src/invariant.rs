//! What must hold of one member after every step, asserted always; and what must hold of any set
//! of members, for the model check and the simulation. The properties bear the names of section 8.

use crate::durable::Durable;
use crate::partner::{Server, Stance};
use crate::principal::{Guard, Step};
use crate::record::{Mirroring, Protection};
use crate::session::Session;
use crate::term::Partner;

impl Session {
    /// Local invariants. A member that breaks one must not go on.
    pub(crate) fn check(&self) {
        check_durable(&self.durable);
        let Some(side) = &self.side else {
            assert!(self.durable.data.is_none(), "a witness has no data");
            return;
        };
        let Stance::Reigning(reign) = &side.stance else { return };
        let record = self.durable.record.expect("a principal has a record");
        assert_eq!(record.term(), reign.term, "a principal's record is of its own term");
        assert_eq!(Some(record.principal), self.me_partner(), "a principal's record names it");
        assert_eq!(self.durable.promise, reign.term, "a principal has promised nothing higher");
        assert_ne!(self.durable.resigned, Some(reign.term), "a resigned term is not served");
        assert_eq!(
            reign.step >= Step::Barrier,
            side.server == Server::Primary,
            "from the barrier on PostgreSQL is a primary"
        );
        let may_open = record.protection == Protection::Exposed && reign.exposure_accepted;
        let mutated = cfg!(feature = "mutants");
        assert!(
            may_open || reign.guard == Guard::Closed || reign.guard == Guard::Closing || mutated,
            "the guard is open only under an accepted exposure"
        );
    }

    /// Serves: established, and not on its way out (section 1). The lease is the caller's clock's.
    pub fn is_serving(&self) -> bool {
        self.reign().is_some_and(|reign| reign.step == Step::Serve)
    }

    /// Has ordered its guard open and not yet closed.
    pub fn guard_may_be_open(&self) -> bool {
        self.reign().is_some_and(|reign| reign.guard != Guard::Closed)
    }

    /// The record that this principal serves under has been accepted by a quorum, as far as it
    /// knows (`exposed_needs_a_quorum`).
    pub fn exposure_is_accepted(&self) -> bool {
        self.reign().is_some_and(|reign| reign.exposure_accepted)
    }

    /// Serves without quorum and lease, by force (R11).
    pub fn serves_by_force(&self) -> bool {
        self.reign().is_some_and(|reign| reign.unconfirmed)
    }

    pub fn partner(&self) -> Option<Partner> {
        self.me_partner()
    }
}

/// What must hold of a member's durable state, whenever it is written or read.
pub fn check_durable(durable: &Durable) {
    if let Some(record) = &durable.record {
        assert!(durable.promise >= record.term(), "the promise covers the record's term");
        assert!(
            record.protection == Protection::Exposed || record.mirroring == Mirroring::Active,
            "a suspended session is never mirrored"
        );
        assert!(
            record.protection == Protection::Exposed || record.forced.is_none(),
            "the forced mark ends with the first `Mirrored`"
        );
        assert!(
            record.members.sole().is_none_or(|sole| {
                record.protection == Protection::Exposed && record.principal == sole
            }),
            "a sole partner is the principal, and exposed"
        );
    }
    for (term, promotion) in &durable.promotions {
        assert_eq!(*term, promotion.term, "promotions are kept by their terms");
    }
}
