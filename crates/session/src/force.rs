//! R11: forced service. Only the operator orders it, and what it may cost is written into the
//! record, so that a side with other data is never overwritten before the operator has chosen.

use crate::durable::Suspension;
use crate::mutant::Mutant;
use crate::output::{Alarm, Answer, Cause, Event, Order, Why};
use crate::partner::{Server, Stance};
use crate::principal::{Reign, Step};
use crate::record::{Forced, Mirroring, Promotion, Protection, Record, RecordId};
use crate::session::{Session, Turn};
use crate::term::{Member, Position, Term, Timeline};

impl Session {
    pub(crate) fn asked_to_force(&mut self, turn: &mut Turn) -> Answer {
        if self.reigns() {
            return Answer::Refused(Why::AlreadyPrincipal);
        }
        if self.sees_serving_principal(turn) {
            return Answer::Refused(Why::PrincipalServes);
        }
        if self.was_removed() {
            // Whoever serves alone does not speak to this one: silence proves nothing.
            return Answer::Refused(Why::Removed);
        }
        // A copy whose worth is unsure may be forced, with open eyes; one that was touched is none.
        let usable = !self.data().touched;
        let Some(side) = self.side.as_mut() else { return Answer::Refused(Why::NotAPartner) };
        match side.server {
            Server::Unknown | Server::Primary | Server::Stopping => {
                return Answer::Refused(Why::Busy);
            }
            Server::Absent => return Answer::Refused(Why::NoData),
            Server::Starting | Server::Off | Server::Alone | Server::Following(_) => {}
        }
        if !usable {
            return Answer::Refused(Why::NoData);
        }
        self.end_candidacy(turn);
        let side = self.side_mut();
        if side.can_be_promoted() && side.position.is_some() {
            self.force_now(turn);
        } else {
            let starts = side.server == Server::Starting;
            side.force_pending = true;
            side.server = Server::Starting;
            if !starts {
                self.order(turn, Order::RunAlone { reachable: true });
            }
        }
        Answer::Begun
    }

    /// PostgreSQL runs as the forced service needs it. Whoever serves by now is not deposed by a
    /// word that was given for another situation.
    pub(crate) fn force_pending_now(&mut self, turn: &mut Turn) {
        let overtaken = self.sees_serving_principal(turn) || self.was_removed();
        if !overtaken && !self.data().touched {
            self.force_now(turn);
        }
    }

    fn sees_serving_principal(&self, turn: &Turn) -> bool {
        let Some(other) = self.other_partner().map(Member::Partner) else { return false };
        let served = self.live.get(&other).and_then(|live| live.served);
        served.is_some_and(|at| turn.now.since(at) < self.config.timing.detection)
    }

    /// Takes the next owned term without a vote. Without state: above all that its data shows.
    pub(crate) fn force_now(&mut self, turn: &mut Turn) {
        let (Some(me), Some(fork)) = (self.me_partner(), self.side_mut().position) else { return };
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
            data.touched = false;
            data.suspension = Suspension::No;
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

    /// Whether this partner's data may be overwritten by what `record` stands for. A forced record
    /// is followed only by data that descends into it; the principal of a forced lineage follows
    /// nothing outside it.
    pub(crate) fn judge(&self, record: &Record) -> Suspension {
        let (Some(me), Some(own)) = (self.me_partner(), self.durable.record) else {
            return Suspension::No;
        };
        let standing = self.data().suspension;
        if record.principal == me {
            return standing;
        }
        match (record.forced, own.forced) {
            (Some(theirs), Some(mine)) if theirs.term == mine.term => standing,
            (Some(theirs), Some(_) | None) => self.judge_descent(&own, &theirs),
            (None, Some(_)) if own.principal == me => Suspension::Suspended,
            (None, Some(_) | None) => standing,
        }
    }

    /// Descending means: the own record is not newer than the parent, and the parent says
    /// `Mirrored` or the own WAL ends at or before the fork.
    fn judge_descent(&self, own: &Record, forced: &Forced) -> Suspension {
        let by_records = own.id <= forced.parent;
        let certain = forced.parent_protection == Protection::Mirrored
            || self.breaks(Mutant::DescentByRecordsAlone);
        let end = self.side.as_ref().and_then(|side| side.position);
        match (by_records, end) {
            (false, _) => Suspension::Suspended,
            (true, _) if certain => Suspension::No,
            (true, None) => Suspension::Unjudged,
            (true, Some(end)) if self.ends_within(end, forced.fork) => Suspension::No,
            (true, Some(_)) => Suspension::Suspended,
        }
    }

    /// Whether data that end at `end` are part of the history that leads to `fork`.
    fn ends_within(&self, end: Position, fork: Position) -> bool {
        let mut limit = fork;
        loop {
            if end.timeline == limit.timeline {
                return end.lsn <= limit.lsn;
            }
            let began = |known: &&Promotion| known.timeline == limit.timeline;
            match self.durable.promotions.values().find(began) {
                Some(known) if known.fork.timeline < limit.timeline => limit = known.fork,
                Some(_) | None => return false,
            }
        }
    }

    /// Whether `timeline` is part of the history of what was promoted for `term`, or of the newest
    /// promotion before it. Data on any other one stem from a side that lost.
    fn leads_to(&self, timeline: Timeline, term: Term) -> bool {
        let newest = self.durable.promotions.range(..=term).next_back();
        let mut at = newest.map_or(Timeline::INITIAL, |(_, promotion)| promotion.timeline);
        while at != timeline {
            let began = |known: &&Promotion| known.timeline == at;
            match self.durable.promotions.values().find(began) {
                Some(known) if known.fork.timeline < at => at = known.fork.timeline,
                Some(_) | None => return false,
            }
        }
        true
    }

    /// PostgreSQL has told where this copy ends: what could not be judged before can be now.
    pub(crate) fn judge_late(&mut self, turn: &mut Turn, end: Position) {
        if self.data().suspension != Suspension::Unjudged {
            return;
        }
        let Some(record) = self.durable.record else { return };
        let descends = match record.forced {
            Some(forced) => self.ends_within(end, forced.fork),
            None => self.leads_to(end.timeline, record.term()),
        };
        let judged = if descends { Suspension::No } else { Suspension::Suspended };
        self.suspend(turn, judged);
    }

    pub(crate) fn suspend(&mut self, turn: &mut Turn, judged: Suspension) {
        if self.side.is_none() || self.data().suspension == judged {
            return;
        }
        self.keep_data(|data| data.suspension = judged);
        if judged == Suspension::Suspended {
            self.tell(turn, Event::Alarm(Alarm::SideSuspended));
        }
    }

    pub(crate) fn asked_to_discard(&mut self, turn: &mut Turn) -> Answer {
        if self.data().suspension == Suspension::No {
            return Answer::Refused(Why::NotSuspended);
        }
        self.keep_data(|data| data.suspension = Suspension::No);
        turn.cause(Cause::OperatorAsked);
        Answer::Done
    }
}
