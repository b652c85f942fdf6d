//! Leases (R1, R2, R7): a principal's own, counted from the sending of the heartbeat that was
//! answered; and the one a voter gave, counted from its answer and held 10 % longer.

use crate::mutant::Mutant;
use crate::record::Record;
use crate::session::{Session, Turn};
use crate::term::{Member, Partner, Term, WitnessId};
use crate::time::Instant;

/// A lease as its giver sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Given {
    pub holder: Partner,
    pub term: Term,
    pub until: Instant,
}

impl Session {
    /// A member that starts counts as having just given a full lease (R7).
    pub(crate) fn lease_presumed_given(&self, now: Instant) -> Option<Given> {
        if self.breaks(Mutant::RestartForgetsLease) {
            return None;
        }
        let record = self.durable.record?;
        let until = now.after(self.longest_given);
        Some(Given { holder: record.principal, term: record.term(), until })
    }

    /// A heartbeat of a serving principal is being answered: that is a lease.
    pub(crate) fn give_lease(&mut self, turn: &Turn, holder: Partner, record: &Record) {
        if record.term() < self.durable.promise || record.principal != holder {
            return;
        }
        let until = turn.now.after(self.longest_given);
        self.given = Some(Given { holder, term: record.term(), until });
    }

    /// Until when the lease that this member gave keeps it from voting for `candidate`.
    /// A candidate that holds the lease itself has given it up by asking: it never serves a term
    /// below one that it stood for.
    pub(crate) fn lease_bars(&self, candidate: Partner, now: Instant) -> Option<Instant> {
        let given = self.given?;
        let resigned = self.live.get(&Member::Partner(given.holder)).and_then(|live| live.resigned);
        let over = now >= given.until
            || given.holder == candidate
            || resigned.is_some_and(|term| term >= given.term);
        (!over).then_some(given.until)
    }

    /// The end of this principal's lease. `None`: it needs none, because no set of members has a
    /// witness.
    pub(crate) fn lease_end(&self) -> Option<Instant> {
        let me = self.me_partner()?;
        let ends = self.members().sets().flatten().map(|witness| self.lease_end_in(me, witness));
        ends.min()
    }

    fn lease_end_in(&self, me: Partner, witness: WitnessId) -> Instant {
        let answered = |member: Member| self.live.get(&member).and_then(|live| live.answered);
        let latest = answered(Member::Partner(me.other())).max(answered(Member::Witness(witness)));
        latest.map_or(Instant::default(), |sent| sent.after(self.config.timing.lease))
    }

    /// When this principal must begin to stop, so that it has stopped when its lease ends (R2).
    pub(crate) fn must_stop_at(&self) -> Option<Instant> {
        let end = self.lease_end()?;
        let stop = end.before(self.config.timing.stop_margin);
        let grace = self.side.as_ref()?.principal()?.adopted_until;
        Some(grace.map_or(stop, |grace| grace.max(stop)))
    }
}
