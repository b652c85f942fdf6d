//! R11: forced service. Only the operator orders it, and what it may cost is written into the
//! record, so that a side with other data is never overwritten before the operator has chosen.

use crate::mutant::Mutant;
use crate::output::{Alarm, Answer, Cause, Event, Order, Why};
use crate::partner::{Server, Stance};
use crate::principal::{Reign, Step};
use crate::record::{Forced, Mirroring, Protection, Record, RecordId};
use crate::session::{Session, Turn};
use crate::term::{Member, Position, Term};

impl Session {
    pub(crate) fn asked_to_force(&mut self, turn: &mut Turn) -> Answer {
        if self.reigns() {
            return Answer::Refused(Why::AlreadyPrincipal);
        }
        if self.sees_serving_principal(turn) {
            return Answer::Refused(Why::PrincipalServes);
        }
        let usable = self.data().valid || self.is_amnesiac() || self.data().suspended;
        let Some(side) = self.side.as_mut() else { return Answer::Refused(Why::NotAPartner) };
        match side.server {
            Server::Unknown | Server::Starting | Server::Primary | Server::Stopping => {
                return Answer::Refused(Why::Busy);
            }
            Server::Absent => return Answer::Refused(Why::NoData),
            Server::Off | Server::Alone | Server::Following { .. } => {}
        }
        if !usable {
            return Answer::Refused(Why::NoData);
        }
        self.end_candidacy(turn);
        let side = self.side_mut();
        if side.can_be_promoted() && side.position.is_some() {
            self.force_now(turn);
        } else {
            side.force_pending = true;
            side.server = Server::Starting;
            self.order(turn, Order::RunAlone { reachable: true });
        }
        Answer::Begun
    }

    fn sees_serving_principal(&self, turn: &Turn) -> bool {
        let Some(other) = self.other_partner().map(Member::Partner) else { return false };
        let served = self.live.get(&other).and_then(|live| live.served);
        served.is_some_and(|at| turn.now.since(at) < self.config.timing.detection)
    }

    /// Takes the next owned term without a vote. Without state: above all that its data shows.
    pub(crate) fn force_now(&mut self, turn: &mut Turn) {
        let (Some(me), Some(fork)) = (self.me_partner(), self.side_mut().position) else { return };
        self.side_mut().force_pending = false;
        let term = self.term_above_all(fork).next_owned_by(me);
        let own = self.durable.record;
        let record = Record {
            id: RecordId { term, revision: 0 },
            principal: me,
            protection: Protection::Exposed,
            mirroring: Mirroring::Active,
            members: self.members(),
            forced: Some(Forced {
                term,
                parent: own.map(|record| record.id).unwrap_or_default(),
                parent_protection: own.map_or(Protection::Exposed, |record| record.protection),
                fork,
            }),
        };
        let keep = self.keep();
        keep.promise = term;
        keep.record = Some(record);
        self.keep_data(|data| {
            data.valid = true;
            data.suspended = false;
        });
        self.known_promise = self.known_promise.max(term);
        let mut reign = Reign::new(term, turn.now, Step::Prepare, turn.now);
        reign.unconfirmed = true;
        for live in self.live.values_mut() {
            live.answered = None;
        }
        let side = self.side_mut();
        side.stance = Stance::Reigning(reign);
        side.next_beat = turn.now;
        turn.cause(Cause::ForcedService);
        self.tell(turn, Event::Alarm(Alarm::ServingForced));
        self.order(turn, Order::PreparePromotion { term });
        self.propose(turn);
    }

    fn term_above_all(&self, fork: Position) -> Term {
        let timelines = self.durable.promotions.values().map(|known| known.timeline);
        let newest = timelines.max().unwrap_or_default().max(fork.timeline);
        let terms = self.durable.promotions.keys().next_back().copied().unwrap_or_default();
        let seen = self.durable.record.map(|record| record.term()).unwrap_or_default();
        self.durable
            .promise
            .max(self.known_promise)
            .max(seen)
            .max(terms)
            .max(Term(u64::from(newest.0)))
    }

    /// Whether this partner's data may not be overwritten by what `record` stands for. A forced record
    /// is followed only by data that descends into it; the principal of a forced lineage follows
    /// nothing outside it.
    pub(crate) fn must_not_follow(&self, record: &Record) -> bool {
        let (Some(me), Some(own)) = (self.me_partner(), self.durable.record) else { return false };
        if record.principal == me {
            return false;
        }
        match (record.forced, own.forced) {
            (Some(theirs), Some(mine)) if theirs.term == mine.term => false,
            (Some(theirs), Some(_) | None) => !self.descends_into(&own, &theirs),
            (None, Some(_)) => own.principal == me,
            (None, None) => false,
        }
    }

    fn descends_into(&self, own: &Record, forced: &Forced) -> bool {
        let ends_before_fork =
            self.side.as_ref().and_then(|side| side.position).is_some_and(|end| {
                end.timeline == forced.fork.timeline && end.lsn <= forced.fork.lsn
            });
        let by_records = own.id <= forced.parent;
        if self.breaks(Mutant::DescentByRecordsAlone) {
            return by_records;
        }
        by_records && (forced.parent_protection == Protection::Mirrored || ends_before_fork)
    }

    pub(crate) fn asked_to_discard(&mut self, turn: &mut Turn) -> Answer {
        if !self.data().suspended {
            return Answer::Refused(Why::NotSuspended);
        }
        self.keep_data(|data| data.suspended = false);
        turn.cause(Cause::OperatorAsked);
        Answer::Done
    }
}
