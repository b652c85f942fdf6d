//! From the election to the first write (3.4): what PostgreSQL reports of each step, and what is
//! written down before the next.

use crate::mutant::Mutant;
use crate::output::{Alarm, Cause, Event, Order, Phase, Rejection};
use crate::partner::{Resigns, Server};
use crate::principal::{Reign, Step};
use crate::record::{Boundary, Incarnation, Promotion};
use crate::session::{Session, Turn};
use crate::term::{Partner, Position, Term, Timeline};

impl Session {
    fn reign_at(&mut self, term: Term, step: Step) -> Option<&mut Reign> {
        self.reign_mut().filter(|reign| reign.term == term && reign.step == step)
    }

    /// Steps 1 to 3 are done. The promotion is written down before the signal; meanwhile the
    /// exposure that the barrier will need is proposed, since no mirror streams from this partner.
    pub(crate) fn promotion_prepared(
        &mut self,
        turn: &mut Turn,
        term: Term,
        position: Position,
        boundary: Boundary,
        newest: Timeline,
    ) {
        let Some(me) = self.me_partner() else { return };
        if self.reign_at(term, Step::Prepare).is_none() {
            return self.reject(turn, Rejection::Stale);
        }
        let timeline = self.next_timeline(me, position, newest);
        let promotion = Promotion { term, timeline, fork: position, boundary, established: false };
        self.side_mut().position = Some(position);
        if let Some(reign) = self.reign_mut() {
            reign.step = Step::Promote;
        }
        self.tell(turn, Event::Reached { phase: Phase::Prepared, term });
        if !self.breaks(Mutant::PromotionRecordedLate) {
            self.keep().promotions.insert(term, promotion);
        }
        self.order(turn, Order::Promote { term, timeline, fork: position });
        if self.breaks(Mutant::PromotionRecordedLate) {
            self.keep().promotions.insert(term, promotion);
        }
        self.expose(turn, Cause::MirrorLost);
    }

    /// The least timeline that this partner owns above every one that is known to have been used.
    fn next_timeline(&self, me: Partner, position: Position, newest: Timeline) -> Timeline {
        let recorded = self.durable.promotions.values().map(|known| known.timeline).max();
        let used = match self.breaks(Mutant::UsedTimelineTaken) {
            true => position.timeline,
            false => position.timeline.max(newest).max(recorded.unwrap_or_default()),
        };
        match self.breaks(Mutant::TimelinesNotOwned) {
            true => Timeline(used.0 + 1),
            false => used.next_owned_by(me),
        }
    }

    pub(crate) fn promoted(
        &mut self,
        turn: &mut Turn,
        term: Term,
        incarnation: Incarnation,
        fork: Position,
    ) {
        if self.reign_at(term, Step::Promote).is_none() {
            return self.reject(turn, Rejection::Stale);
        }
        let Some(mut promotion) = self.durable.promotions.get(&term).copied() else { return };
        let (announced, found) = (promotion.fork.lsn, fork.lsn);
        promotion.fork = fork;
        if announced != found {
            // Below a position there is one history only: the timeline that the history file
            // names for it is the truth, and the position is what the boundary was read at.
            promotion.boundary = Boundary::Unknown;
            self.tell(turn, Event::Alarm(Alarm::ForkMoved { announced, found }));
        }
        self.keep().promotions.insert(term, promotion);
        self.keep_data(|data| data.promoted = Some((term, incarnation)));
        let side = self.side_mut();
        side.server = Server::Primary;
        // Where a primary's WAL ends is not known before it has stopped and tells it.
        side.position = None;
        if let Some(reign) = self.reign_mut() {
            reign.step = Step::Barrier;
        }
        // The other partner cannot follow before it has heard of this promotion.
        self.side_mut().next_beat = turn.now;
        self.tell(turn, Event::Reached { phase: Phase::Promoted, term });
        self.order(turn, Order::CommitBarrier { promotion });
    }

    pub(crate) fn promotion_failed(&mut self, turn: &mut Turn, term: Term) {
        if self.reign().is_none_or(|reign| reign.term != term) {
            return self.reject(turn, Rejection::Stale);
        }
        let pause = self.config.timing.detection;
        self.side_mut().stand_after = turn.now.after(pause);
        self.leave(turn, Cause::PromotionFailed, Resigns::No);
    }

    /// The term is established: this is the first write, and clients may come in.
    pub(crate) fn barrier_committed(&mut self, turn: &mut Turn, term: Term) {
        if self.reign_at(term, Step::Barrier).is_none() {
            return self.reject(turn, Rejection::Stale);
        }
        if let Some(promotion) = self.keep().promotions.get_mut(&term) {
            promotion.established = true;
        }
        if let Some(reign) = self.reign_mut() {
            reign.step = Step::Serve;
            reign.mirror_moved = turn.now;
        }
        turn.cause(Cause::WonElection);
        let side = self.side_mut();
        // The other partner follows from now on, as soon as it hears of this.
        side.next_beat = turn.now;
        side.lived_through = true;
        side.word = false;
        side.resigned_seen = None;
        side.handed_over = None;
        self.order(turn, Order::AdmitClients { term });
        self.tell(turn, Event::Reached { phase: Phase::Established, term });
    }

    pub(crate) fn checkpointed(&mut self, turn: &mut Turn, term: Term) {
        match self.reign_at(term, Step::Serve) {
            Some(reign) => reign.checkpointed = true,
            None => return self.reject(turn, Rejection::Stale),
        }
        // A partner that has to rewind waits for just this.
        self.side_mut().next_beat = turn.now;
    }
}
