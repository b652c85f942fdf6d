//! A partner between reigns: it runs alone or follows the principal of its record, tells the
//! principal how far it holds the WAL, and stands when its time has come.
//!
//! Nothing here touches the data before it is permitted: until then this copy may be the only one.

use crate::durable::Suspension;
use crate::input::Touch;
use crate::message::{Body, Level};
use crate::mutant::Mutant;
use crate::output::{Cause, Order};
use crate::partner::{Following, Server, Stream};
use crate::record::{Mirroring, Record, RecordId};
use crate::session::{Session, Turn};
use crate::term::{Member, Partner, Position, Term, Timeline};
use crate::time::Instant;

/// What an idle partner's PostgreSQL should be doing.
enum Want {
    AsItIs,
    Alone { reachable: bool },
    Follow { term: Term, upstream: Partner, timeline: Timeline },
}

impl Session {
    /// The principal asks whether its WAL up to `position` is on this disk (R4).
    pub(crate) fn level_asked(
        &mut self,
        turn: &mut Turn,
        from: Member,
        id: RecordId,
        position: Position,
    ) {
        let asked_by_principal =
            self.durable.record.is_some_and(|own| own.id == id && Self::principal_of(&own) == from);
        if self.side.is_none() || !asked_by_principal || self.reigns() {
            let level = Level::NotReached;
            return self.send(turn, from, Body::LevelAnswered { id, position, level });
        }
        self.answer_level(turn, from, id, position);
    }

    /// Yes if the WAL is there; else the position is read anew, and the next one is looked at.
    pub(crate) fn answer_level(
        &mut self,
        turn: &mut Turn,
        from: Member,
        id: RecordId,
        wanted: Position,
    ) {
        let side = self.side_mut();
        let follows = side.server.following();
        let live = follows.is_some_and(|following| following.stream == Stream::Live);
        let reached = side.position.is_some_and(|position| {
            position.timeline == wanted.timeline && position.lsn >= wanted.lsn
        });
        let current = self.durable.record.is_some_and(|own| own.id == id);
        if !(live && current && self.data().valid) {
            self.side_mut().level_wanted = None;
            let level = Level::NotReached;
            return self.send(turn, from, Body::LevelAnswered { id, position: wanted, level });
        }
        if !reached {
            let first = self.side_mut().level_wanted.is_none();
            self.side_mut().level_wanted = Some((from, id, wanted));
            if first {
                self.order(turn, Order::ReadPosition { number: 0 });
            }
            return;
        }
        self.side_mut().level_wanted = None;
        self.keep_data(|data| data.flushed = wanted);
        let level = Level::Reached;
        self.send(turn, from, Body::LevelAnswered { id, position: wanted, level });
    }

    /// The other partner resigned. If it shut down cleanly, this copy must first hold all of it.
    pub(crate) fn principal_resigned(
        &mut self,
        turn: &mut Turn,
        partner: Partner,
        term: Term,
        handover: Option<Position>,
    ) {
        let concerns = self
            .durable
            .record
            .is_some_and(|record| record.principal == partner && term >= record.term());
        let (true, Some(side)) = (concerns, self.side.as_mut()) else { return };
        let first = side.resigned_seen != Some((term, handover));
        side.resigned_seen = Some((term, handover));
        turn.cause(Cause::PrincipalResigned);
        if first && handover.is_some() && !self.reigns() {
            self.order(turn, Order::ReadPosition { number: 0 });
        }
    }

    /// What a partner does that neither stands nor reigns.
    pub(crate) fn settle_idle(&mut self, turn: &mut Turn) {
        self.permit_touch(turn);
        let side = self.side_mut();
        let held_off = side.server == Server::Off && turn.now < side.off_until;
        if !held_off {
            match self.wanted(turn.now) {
                Want::AsItIs => {}
                Want::Alone { reachable } => {
                    self.side_mut().server = Server::Starting;
                    self.order(turn, Order::RunAlone { reachable });
                }
                Want::Follow { term, upstream, timeline } => {
                    self.follow(turn, term, upstream, timeline);
                }
            }
        }
        if self.stand_at().is_some_and(|at| at <= turn.now) {
            self.stand(turn);
        }
    }

    fn follow(&mut self, turn: &mut Turn, term: Term, upstream: Partner, timeline: Timeline) {
        let stream = Stream::NotYet;
        self.side_mut().server = Server::Following(Following { term, stream, touch: None });
        let own = self.newest_own_promotion();
        self.order(turn, Order::Follow { term, upstream, timeline, own });
    }

    fn wanted(&self, now: Instant) -> Want {
        let Some(side) = &self.side else { return Want::AsItIs };
        let (off, following) = match side.server {
            Server::Unknown | Server::Starting | Server::Primary | Server::Stopping => {
                return Want::AsItIs;
            }
            Server::Absent | Server::Alone => (false, None),
            Server::Off => (true, None),
            Server::Following(following) => (false, Some(following.term)),
        };
        let waits = side.server.following().is_some_and(Following::waits);
        // PostgreSQL does not run on a copy that is no whole one: whatever has begun to make it one
        // goes on, and nobody waits for a start that never comes.
        let whole = !self.data().touched;
        let detached = |reachable| match whole && (off || following.is_some()) {
            true => Want::Alone { reachable },
            false => Want::AsItIs,
        };
        let Some(record) = self.durable.record else { return detached(false) };
        if Some(record.principal) == self.me_partner() {
            return detached(true);
        }
        let apart = self.data().suspension != Suspension::No || record.members.sole().is_some();
        if apart || record.mirroring == Mirroring::Suspended {
            return detached(false);
        }
        if self.data().valid && self.principal_is_silent(&record, now) {
            // It may have to stand, so it must be a standby that could be promoted.
            return if off || waits { Want::Alone { reachable: false } } else { Want::AsItIs };
        }
        match self.durable.promotions.get(&record.term()) {
            Some(_) if following == Some(record.term()) => Want::AsItIs,
            // Before its barrier a promotion may still be corrected.
            Some(promotion) if promotion.established => Want::Follow {
                term: record.term(),
                upstream: record.principal,
                timeline: promotion.timeline,
            },
            Some(_) | None if now >= side.alone_after && off && whole => {
                Want::Alone { reachable: false }
            }
            Some(_) | None => Want::AsItIs,
        }
    }

    /// Nothing has been heard of a serving principal for the detection time.
    fn principal_is_silent(&self, record: &Record, now: Instant) -> bool {
        let Some(side) = &self.side else { return false };
        let served = self.live.get(&Self::principal_of(record)).and_then(|live| live.served);
        let since = served.unwrap_or(side.listen_since).max(side.listen_since);
        now.since(since) >= self.config.timing.detection
    }

    /// Lets this copy be rewound or replaced, once the principal's checkpoint is complete. Now,
    /// and not before, it stops counting as valid (3.5).
    fn permit_touch(&mut self, turn: &mut Turn) {
        let Some(following) = self.side_mut().server.following().copied() else { return };
        let Some(touch) = following.touch else { return };
        let term = following.term;
        let Some(record) = self.durable.record else { return };
        let Some(upstream) = self.live.get(&Self::principal_of(&record)) else { return };
        let lately = |at: Instant| turn.now.since(at) < self.config.timing.partner_timeout;
        let serves = upstream.report.serving && upstream.served.is_some_and(lately);
        let ready = match touch {
            Touch::Rewind => upstream.report.checkpointed,
            Touch::Copy => true,
        };
        let wanted = term == record.term()
            && self.data().suspension == Suspension::No
            && record.mirroring == Mirroring::Active;
        if !(serves && ready && wanted) {
            return;
        }
        self.side_mut().server = Server::Following(Following { touch: None, ..following });
        if !self.breaks(Mutant::RewindCountsAsValid) {
            self.keep_data(|data| {
                data.valid = false;
                data.touched = true;
                data.flushed = Position::default();
            });
        }
        self.order(turn, Order::Touch { term });
    }
}
