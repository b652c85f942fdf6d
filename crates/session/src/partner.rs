//! A data server's part of the session: its PostgreSQL, as far as the session knows, and what it
//! does about the term. `server` is progress, `stance` is what is decided: two types, on purpose.
//!
//! This file takes in what PostgreSQL shows and keeps a partner that neither stands nor reigns on
//! its way: alone, or following the principal of its record.

use crate::candidate::Bid;
use crate::durable::{Data, Suspension};
use crate::input::{Ailment, Fact, Found, Touch};
use crate::output::{Alarm, Cause, Event, Order, Rejection, Why};
use crate::principal::Reign;
use crate::record::{Incarnation, Members, Promotion, Protected, Protection, Record, RecordId};
use crate::session::{Session, Turn};
use crate::term::{Member, Position, Term, Timeline};
use crate::time::Instant;

/// What a partner has besides its votes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Side {
    pub server: Server,
    pub stance: Stance,
    /// Where this copy ends, as last shown; `None` if that is not known, as of a primary.
    pub position: Option<Position>,
    /// A volume does not take writes.
    pub storage_fails: bool,
    /// Since when PostgreSQL has not answered.
    pub unresponsive_since: Option<Instant>,
    /// Candidacies in a row that came to nothing.
    pub refusals: u32,
    pub stand_after: Instant,
    /// Nobody is accused before this member has listened for one detection time from here.
    pub listen_since: Instant,
    /// PostgreSQL is not started again before this.
    pub off_until: Instant,
    /// A stopped PostgreSQL waits until then for a principal that it could follow.
    pub alone_after: Instant,
    pub next_beat: Instant,
    /// This run of the agent has served; nothing happened to its votes since.
    pub lived_through: bool,
    /// The operator said that this partner may serve without having heard the other one.
    pub word: bool,
    /// The other partner's resignation, and where its WAL ended if it was shut down cleanly.
    pub resigned_seen: Option<(Term, Option<Position>)>,
    /// Where this partner's own WAL ended when it handed over.
    pub handed_over: Option<Position>,
    pub force_pending: bool,
    pub level_wanted: Option<(Member, RecordId, Position)>,
    pub witness_silent: bool,
    /// The members that are watched, and since when.
    pub watched: Option<(Members, Instant)>,
    /// When the other partner last spoke to this one, which is sole and does not hear it.
    pub knocked: Option<Instant>,
    /// The next attempt at what the configuration wants comes not before this.
    pub converge_after: Instant,
    /// Why the last one was refused.
    pub converge_refused: Option<Why>,
}

/// What PostgreSQL does, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Server {
    /// Nothing has been found out yet.
    Unknown,
    /// There is no data.
    Absent,
    Off,
    Starting,
    /// A hot standby that answers, with or without an upstream left over from before.
    Alone,
    Following(Following),
    Primary,
    Stopping,
}

/// The way to the principal of `term`, or the stream from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Following {
    pub term: Term,
    pub stream: Stream,
    /// What the data need before they can follow, and what has not been permitted yet.
    pub touch: Option<Touch>,
}

impl Following {
    /// Not yet where it could be promoted from.
    pub fn waits(&self) -> bool {
        self.stream == Stream::NotYet || self.touch.is_some()
    }
}

impl Server {
    pub fn following(&self) -> Option<&Following> {
        match self {
            Server::Following(following) => Some(following),
            Server::Unknown
            | Server::Absent
            | Server::Off
            | Server::Starting
            | Server::Alone
            | Server::Primary
            | Server::Stopping => None,
        }
    }

    /// The follower of `term`, if this is one.
    fn follower_of(&mut self, term: Term) -> Option<&mut Following> {
        match self {
            Server::Following(following) if following.term == term => Some(following),
            Server::Following(_)
            | Server::Unknown
            | Server::Absent
            | Server::Off
            | Server::Starting
            | Server::Alone
            | Server::Primary
            | Server::Stopping => None,
        }
    }
}

/// How far a follower has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stream {
    NotYet,
    Live,
    /// It was live, and is broken now.
    Broken,
}

/// What a partner does about the term.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stance {
    Idle,
    PreVoting(Bid),
    Standing(Bid),
    Reigning(Reign),
    /// PostgreSQL is being stopped; until that is done this partner counts as serving.
    Leaving {
        term: Term,
        resigns: Resigns,
    },
}

/// Whether a principal that leaves will not serve its term again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Resigns {
    Yes,
    No,
}

impl Side {
    pub fn unknown(now: Instant) -> Side {
        Side {
            server: Server::Unknown,
            stance: Stance::Idle,
            position: None,
            storage_fails: false,
            unresponsive_since: None,
            refusals: 0,
            stand_after: now,
            listen_since: now,
            off_until: now,
            alone_after: now,
            next_beat: now,
            lived_through: false,
            word: false,
            resigned_seen: None,
            handed_over: None,
            force_pending: false,
            level_wanted: None,
            witness_silent: false,
            watched: None,
            knocked: None,
            converge_after: now,
            converge_refused: None,
        }
    }

    pub fn principal(&self) -> Option<&Reign> {
        match &self.stance {
            Stance::Reigning(reign) => Some(reign),
            Stance::Idle | Stance::PreVoting(_) | Stance::Standing(_) | Stance::Leaving { .. } => {
                None
            }
        }
    }

    /// PostgreSQL runs as a standby that could be promoted now.
    pub fn can_be_promoted(&self) -> bool {
        let follows = self.server.following();
        self.server == Server::Alone || follows.is_some_and(|following| !following.waits())
    }
}

impl Session {
    pub(crate) fn postgres_showed(&mut self, turn: &mut Turn, fact: Fact) {
        if self.side.is_none() {
            return self.reject(turn, Rejection::OutOfPlace);
        }
        match fact {
            Fact::Found(found) => self.found(turn, found),
            Fact::Started { position, .. } => self.started(turn, position),
            Fact::Exited => self.exited(turn),
            Fact::Stopped => self.stopped(turn),
            Fact::ShutDown { position } => self.shut_down(turn, Some(position)),
            Fact::ShutDownLate => self.shut_down(turn, None),
            Fact::TouchNeeded { term, touch } => self.touch_needed(turn, term, touch),
            Fact::Streaming { term, position } => self.streaming(turn, term, position),
            Fact::StreamLost { term } => self.stream_lost(turn, term),
            Fact::PromotionPrepared { term, position, boundary, newest } => {
                self.promotion_prepared(turn, term, position, boundary, newest);
            }
            Fact::Promoted { term, incarnation, fork } => {
                self.promoted(turn, term, incarnation, fork);
            }
            Fact::PromotionFailed { term } => self.promotion_failed(turn, term),
            Fact::BarrierCommitted { term } => self.barrier_committed(turn, term),
            Fact::Checkpointed { term } => self.checkpointed(turn, term),
            Fact::GuardOpened => self.guard_opened(turn),
            Fact::GuardClosed => self.guard_closed(turn),
            Fact::GuardLost => self.guard_lost(turn),
            Fact::PositionRead { number, position } => self.position_read(turn, number, position),
            Fact::MirrorSeen(seen) => self.mirror_seen(turn, seen),
            Fact::PositionSeen { position } => self.position_seen(turn, position),
            Fact::Unhealthy(ailment) => self.unhealthy(turn, ailment),
            Fact::Healthy => {
                let side = self.side_mut();
                side.storage_fails = false;
                side.unresponsive_since = None;
            }
        }
    }

    /// The partner's own part. Only called where `side` has been found to be there.
    pub(crate) fn side_mut(&mut self) -> &mut Side {
        self.side.as_mut().expect("a partner has a side: witnesses are turned away before")
    }

    fn found(&mut self, turn: &mut Turn, found: Found) {
        if self.durable.data.is_none() {
            self.keep().data = Some(Data::default());
        }
        match found {
            // What is not there now may come back: a volume that was mounted late.
            Found::Nothing => {
                self.side_mut().server = Server::Absent;
                if self.data().suspension == Suspension::Unjudged {
                    self.keep_data(|data| data.suspension = Suspension::No);
                }
            }
            Found::Stopped => self.side_mut().server = Server::Off,
            Found::Standby { position, .. } => {
                self.side_mut().server = Server::Alone;
                self.note_position(turn, position);
            }
            Found::Primary { incarnation, .. } => {
                if self.may_adopt(incarnation) {
                    self.adopt_running_primary(turn);
                } else {
                    let term = self.durable.record.map(|record| record.term());
                    self.stop_server(turn, term.unwrap_or_default(), Resigns::No);
                }
            }
        }
        turn.cause(Cause::Restarted);
    }

    /// Whether a primary that runs already was promoted for the term this partner serves (R1).
    fn may_adopt(&self, incarnation: Incarnation) -> bool {
        let Some(record) = self.durable.record else { return false };
        let term = record.term();
        let established = self.durable.promotions.get(&term).is_some_and(|known| known.established);
        Some(record.principal) == self.me_partner()
            && self.known_promise <= term
            && self.durable.resigned != Some(term)
            && self.data().promoted == Some((term, incarnation))
            && established
    }

    fn started(&mut self, turn: &mut Turn, position: Position) {
        if self.reigns() {
            return self.reject(turn, Rejection::Stale);
        }
        self.side_mut().server = Server::Alone;
        self.note_position(turn, position);
        self.side_mut().unresponsive_since = None;
        if core::mem::take(&mut self.side_mut().force_pending) {
            self.force_pending_now(turn);
        }
    }

    /// Where this copy ends; less than what was written down once means that it was restored.
    fn note_position(&mut self, turn: &mut Turn, position: Position) {
        self.side_mut().position = Some(position);
        let expected = self.data().flushed;
        let behind = expected != Position::default() && self.is_behind(position, expected);
        self.judge_late(turn, position);
        if behind && self.data().valid {
            self.keep_data(|data| data.valid = false);
            let alarm = Alarm::DataBehind { found: position, expected };
            self.tell(turn, Event::Alarm(alarm));
        }
    }

    /// Whether `found` lies before `expected`, in the order of the terms that wrote them. Data on a
    /// timeline that nobody knows are not what was written down.
    fn is_behind(&self, found: Position, expected: Position) -> bool {
        if found.timeline == expected.timeline {
            return found.lsn < expected.lsn;
        }
        match (self.term_of(found.timeline), self.term_of(expected.timeline)) {
            (Some(found), Some(expected)) => found < expected,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// The term whose promotion began `timeline`.
    fn term_of(&self, timeline: Timeline) -> Option<Term> {
        if timeline == Timeline::INITIAL {
            return Some(Term(0));
        }
        let began = |promotion: &&Promotion| promotion.timeline == timeline;
        self.durable.promotions.values().find(began).map(|promotion| promotion.term)
    }

    fn exited(&mut self, turn: &mut Turn) {
        self.side_mut().unresponsive_since = None;
        match self.side_mut().stance {
            Stance::Reigning(_) => self.crashed_while_reigning(turn),
            Stance::Leaving { .. } => {}
            Stance::Idle | Stance::PreVoting(_) | Stance::Standing(_) => {
                self.end_candidacy(turn);
                let pause = self.config.timing.heartbeat;
                let side = self.side_mut();
                side.server = Server::Off;
                side.off_until = turn.now.after(pause);
            }
        }
    }

    fn stopped(&mut self, turn: &mut Turn) {
        let Stance::Leaving { term, resigns } = self.side_mut().stance else {
            return self.reject(turn, Rejection::OutOfPlace);
        };
        let side = self.side_mut();
        side.stance = Stance::Idle;
        side.server = Server::Off;
        side.unresponsive_since = None;
        side.alone_after = turn.now;
        match resigns {
            Resigns::Yes => self.resign(turn, term, None),
            Resigns::No => {}
        }
    }

    /// Orders an immediate stop; until it is done this partner counts as serving (R2, 3.6).
    pub(crate) fn stop_server(&mut self, turn: &mut Turn, term: Term, resigns: Resigns) {
        let side = self.side_mut();
        side.server = Server::Stopping;
        side.stance = Stance::Leaving { term, resigns };
        self.order(turn, Order::Stop);
    }

    fn touch_needed(&mut self, turn: &mut Turn, asked: Term, needed: Touch) {
        match self.side_mut().server.follower_of(asked) {
            Some(following) => following.touch = Some(needed),
            None => self.reject(turn, Rejection::Stale),
        }
    }

    fn streaming(&mut self, turn: &mut Turn, of: Term, position: Position) {
        let Some(following) = self.side_mut().server.follower_of(of) else {
            return self.reject(turn, Rejection::Stale);
        };
        *following = Following { term: of, stream: Stream::Live, touch: None };
        let side = self.side_mut();
        side.position = Some(position);
        side.handed_over = None;
        if !self.data().valid || self.data().touched {
            self.keep_data(|data| {
                data.valid = true;
                data.touched = false;
            });
        }
        turn.cause(Cause::Streams);
    }

    fn stream_lost(&mut self, turn: &mut Turn, of: Term) {
        match self.side_mut().server.follower_of(of) {
            Some(following) if following.stream == Stream::Live => {
                following.stream = Stream::Broken;
            }
            Some(_) => {}
            None => self.reject(turn, Rejection::Stale),
        }
    }

    fn position_seen(&mut self, turn: &mut Turn, position: Position) {
        if self.reigns() {
            return self.reject(turn, Rejection::Stale);
        }
        self.side_mut().position = Some(position);
        self.judge_late(turn, position);
        if let Some((from, id, wanted)) = self.side_mut().level_wanted {
            self.answer_level(turn, from, id, wanted);
        }
    }

    fn unhealthy(&mut self, turn: &mut Turn, ailment: Ailment) {
        let side = self.side_mut();
        match ailment {
            Ailment::Storage => {
                let first = !core::mem::replace(&mut side.storage_fails, true);
                if first {
                    self.tell(turn, Event::Alarm(Alarm::StorageFailing));
                }
            }
            Ailment::Unresponsive => {
                side.unresponsive_since.get_or_insert(turn.now);
            }
        }
    }

    /// A volume fails, or PostgreSQL has been silent for the detection time. One late answer is
    /// not enough: a slow server is not a dead one.
    pub(crate) fn ails(&self, now: Instant) -> bool {
        let patience = self.config.timing.detection;
        self.side.as_ref().is_some_and(|side| {
            let mute = side.unresponsive_since.is_some_and(|since| now >= since.after(patience));
            side.storage_fails || mute
        })
    }

    // What others ask of a side.

    pub(crate) fn data(&self) -> Data {
        self.durable.data.unwrap_or_default()
    }

    pub(crate) fn keep_data(&mut self, change: impl FnOnce(&mut Data)) {
        change(self.keep().data.get_or_insert_default());
    }

    /// Serves, is about to, or has not yet stopped.
    pub(crate) fn reigns(&self) -> bool {
        self.side.as_ref().is_some_and(|side| match side.stance {
            Stance::Reigning(_) | Stance::Leaving { .. } => true,
            Stance::Idle | Stance::PreVoting(_) | Stance::Standing(_) => false,
        })
    }

    pub(crate) fn newest_own_promotion(&self) -> Option<Promotion> {
        let me = self.me_partner()?;
        let own = |promotion: &&Promotion| promotion.term.owner() == me;
        self.durable.promotions.values().rev().find(own).copied()
    }

    /// How far this copy reaches, in the order in which voters compare (R7).
    pub(crate) fn reach(&self) -> Option<Protected> {
        let position = self.side.as_ref()?.position?;
        let term = self.term_of(position.timeline).unwrap_or_default();
        Some(Protected { term, lsn: position.lsn })
    }

    pub(crate) fn give_up_copy_on_learning(&mut self, record: &Record) {
        if self.side.is_some() && Some(record.principal) != self.me_partner() {
            self.keep_data(|data| data.valid = false);
        }
    }

    /// Whether the mirror could take over from this partner right away.
    pub(crate) fn mirror_could_take_over(&self, now: Instant) -> bool {
        let mirrored =
            self.durable.record.is_some_and(|record| record.protection == Protection::Mirrored);
        let other = self.other_partner().map(Member::Partner);
        let silence = other.and_then(|other| self.silence(other, now));
        mirrored && silence.is_some_and(|silence| silence < self.config.timing.partner_timeout)
    }
}
