//! Clients and the gateway: commits, their acknowledgement, and the outcome of those in doubt.
//!
//! A commit is acknowledged when the primary that it was made on is released up to it. A commit of
//! an earlier run that was never acknowledged is in doubt; the gateway asks the principal and
//! tells the client by the rule G3. What was told must be true and stay true.

use session::{Boundary, Partner, Promotion, Term, Timeline, Xid};

use crate::ledger::Commit;
use crate::seat::{Seat, side};
use crate::wal::What;
use crate::world::{Invariant, Mischief, Violation, World};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Committed,
    Lost,
    Unknown,
}

impl World {
    /// A client commits on this partner's primary.
    pub(crate) fn insert(&mut self, partner: Partner) {
        let server = &mut self.servers[side(partner)];
        let xid = server.next_xid;
        server.next_xid += 1;
        self.commit(partner, xid);
    }

    /// A client is given a transaction id and does not commit yet.
    pub(crate) fn begin(&mut self, partner: Partner) {
        let server = &mut self.servers[side(partner)];
        server.open_xid = Some(server.next_xid);
        server.next_xid += 1;
    }

    /// The client of `begin` commits.
    pub(crate) fn finish(&mut self, partner: Partner) {
        if let Some(xid) = self.servers[side(partner)].open_xid.take() {
            self.commit(partner, xid);
            self.flush(partner);
        }
    }

    fn commit(&mut self, partner: Partner, xid: u16) {
        let server = &mut self.servers[side(partner)];
        let Some(data) = server.data.as_mut().filter(|_| server.clients) else { return };
        let timeline = data.timeline();
        let commit = Commit { xid, timeline, term: server.term, started: server.started };
        if let Some(id) = self.ledger.commit(commit) {
            data.insert(What::Commit { id, xid });
        }
    }

    pub(crate) fn flush(&mut self, partner: Partner) {
        if let Some(data) = &mut self.servers[side(partner)].data {
            data.flush();
        }
    }

    /// All WAL before `end` is confirmed: waiting commits and the barrier return.
    pub(crate) fn release(&mut self, partner: Partner, end: u32) {
        let server = &mut self.servers[side(partner)];
        let Some(data) = &server.data else { return };
        let end = end.min(data.flushed);
        let begin = server.released;
        if end <= begin {
            return;
        }
        server.released = end;
        for record in &data.wal[begin as usize..end as usize] {
            if let What::Commit { id, .. } = record.what
                && self.ledger.commits[usize::from(id)].started == server.started
            {
                self.ledger.acknowledge(id, server.term);
            }
        }
    }

    /// The gateway asks this partner, which it holds for the principal, for all commits in doubt.
    pub(crate) fn tell(&mut self, partner: Partner) -> Result<(), Violation> {
        let server = &self.servers[side(partner)];
        let Some(data) = &server.data else { return Ok(()) };
        let lineage = self.ledger.lineage_of(server.term);
        let mut told = (0u128, 0u128);
        for (id, commit) in self.ledger.commits.iter().enumerate() {
            let bit = 1u128 << id;
            // A gateway that was told of a later term does not ask an earlier one's principal.
            let asked = commit.term < server.term && commit.started != server.started;
            if self.ledger.acknowledged & bit != 0 || !asked {
                continue;
            }
            let really = data.commits & bit != 0;
            let outcome = self.outcome(partner, commit);
            let agrees = match outcome {
                Outcome::Committed => really,
                Outcome::Lost => !really,
                Outcome::Unknown => true,
            };
            if !agrees {
                return Err(Violation::new(
                    Invariant::ToldOutcomeNeverChanges,
                    format!("{partner} calls {commit:?} {outcome:?}, which is not so"),
                ));
            }
            match outcome {
                Outcome::Committed => told.0 |= bit,
                Outcome::Lost => told.1 |= bit,
                Outcome::Unknown => {}
            }
        }
        let known = self.ledger.lineage_mut(lineage);
        known.told_committed |= told.0;
        known.told_lost |= told.1;
        if known.told_committed & known.told_lost != 0 {
            let detail = format!("{partner} told two outcomes of one commit");
            return Err(Violation::new(Invariant::ToldOutcomeNeverChanges, detail));
        }
        Ok(())
    }

    /// The rule G3, from what this partner's agent has on its disk.
    fn outcome(&self, partner: Partner, commit: &Commit) -> Outcome {
        let Some(data) = &self.servers[side(partner)].data else { return Outcome::Unknown };
        let disk = &self.hosts[Seat::of_partner(partner).index()].disk;
        let promotions = disk.saved.promotions.values();
        let Some(own) = data.history.iter().position(|(line, _)| *line == commit.timeline) else {
            return Outcome::Lost;
        };
        let promotion_of = |timeline: Timeline| -> Option<&Promotion> {
            promotions.clone().find(|promotion| promotion.timeline == timeline)
        };
        let mut smallest: Option<Xid> = None;
        for (timeline, _) in &data.history[own + 1..] {
            let Some(promotion) = promotion_of(*timeline) else { return Outcome::Unknown };
            let Boundary::Known(boundary) = promotion.boundary else { return Outcome::Unknown };
            smallest = Some(smallest.map_or(boundary, |known| known.min(boundary)));
        }
        if self.setup.mischief == Some(Mischief::FirstLaterBoundary) {
            let first = promotions.clone().find(|promotion| promotion.term > commit.term);
            smallest = first.and_then(|promotion| match promotion.boundary {
                Boundary::Known(boundary) => Some(boundary),
                Boundary::Unknown => None,
            });
        }
        if smallest.is_some_and(|boundary| u64::from(commit.xid) >= boundary.0) {
            return Outcome::Lost;
        }
        let shown = data
            .wal
            .iter()
            .any(|record| matches!(record.what, What::Commit { xid, .. } if xid == commit.xid));
        if shown { Outcome::Committed } else { Outcome::Lost }
    }

    /// The gateway may ask: this primary lets clients in (or, mischief, is about to).
    pub(crate) fn can_tell(&self, partner: Partner) -> bool {
        let server = &self.servers[side(partner)];
        let early = self.setup.mischief == Some(Mischief::AnsweredBeforeBarrier);
        let agent = self.hosts[side(partner)].session.is_some();
        agent && server.is_primary() && (server.clients || early) && server.term > Term(0)
    }
}
