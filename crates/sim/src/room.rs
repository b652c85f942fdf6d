//! The agent's hands on PostgreSQL: it performs orders one after the other, each as one or more
//! steps that anything can come between, and reports facts. It dies with the agent.
//!
//! `Order::Stop` overtakes all other orders. Following is not an order that ends but something the
//! agent goes on doing until another order ends it.

use std::collections::VecDeque;

use session::{Boundary, Fact, Order, Partner, Position, Promotion, Term, Timeline, Touch, Xid};

use crate::postgres::{Guard, Run};
use crate::seat::side;
use crate::wal::{DataCopy, What};
use crate::world::{Mischief, Seen, Violation, World};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Follow {
    pub term: Term,
    pub upstream: Partner,
    pub timeline: Timeline,
    /// The permission to touch this copy has come.
    pub permitted: bool,
    /// What was last asked for.
    pub asked: Option<Touch>,
    /// A rewind or a copy is under way.
    pub touching: Option<Touch>,
    /// This copy streams, or will, without further help.
    pub settled: bool,
    /// `Fact::Streaming` was reported.
    pub reported: bool,
    pub rewound: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Room {
    pub orders: VecDeque<Order>,
    /// The clean shutdown in hand has begun.
    pub shutting_down: bool,
    /// With exact clocks: when the order in hand is done.
    pub due: u64,
    /// With exact clocks: when the clean shutdown in hand is ended.
    pub late: u64,
    pub follow: Option<Follow>,
    pub follow_due: u64,
    /// The barrier that waits, and where its record ends.
    pub barrier: Option<(Term, u32)>,
    pub checkpoint: Option<(Term, u64)>,
    pub facts: VecDeque<(Fact, u64)>,
    /// With exact clocks: when the next probe is due.
    pub probe_due: u64,
}

impl World {
    pub(crate) fn report(&mut self, partner: Partner, fact: Fact) {
        if self.hosts[side(partner)].session.is_some() {
            let due = self.now + self.pace().fact;
            self.rooms[side(partner)].facts.push_back((fact, due));
        }
    }

    /// What a probe shows has changed.
    pub(crate) fn probe_soon(&mut self, partner: Partner) {
        self.rooms[side(partner)].probe_due = self.now;
    }

    pub(crate) fn stream_is_lost(&mut self, partner: Partner) {
        let Some(follow) = &mut self.rooms[side(partner)].follow else { return };
        let (term, reported) = (follow.term, follow.reported);
        follow.reported = false;
        follow.settled = false;
        if reported {
            self.report(partner, Fact::StreamLost { term });
        }
    }

    /// The session orders something.
    pub(crate) fn order(&mut self, partner: Partner, order: Order) {
        let now = self.now;
        let room = &mut self.rooms[side(partner)];
        if let Order::Touch { term } = order {
            // Permission for what is under way; it waits for no other order.
            if let Some(follow) = room.follow.as_mut().filter(|follow| follow.term == term) {
                follow.permitted = true;
                room.follow_due = now;
            }
            return;
        }
        if order == Order::Stop {
            room.orders.clear();
            room.shutting_down = false;
            room.follow = None;
            room.barrier = None;
        }
        room.orders.push_back(order);
        if room.orders.len() == 1 {
            self.begin_order(partner);
        }
    }

    fn begin_order(&mut self, partner: Partner) {
        let Some(order) = self.rooms[side(partner)].orders.front().copied() else { return };
        let room_due = self.now + self.pace().order(order, self.servers[side(partner)].run);
        let mut late = 0;
        if let Order::ShutDown { deadline } = order
            && self.is_exact()
        {
            late = self.now + deadline.as_micros() as u64;
        }
        let room = &mut self.rooms[side(partner)];
        room.due = room_due;
        room.late = late;
    }

    fn end_order(&mut self, partner: Partner) {
        let room = &mut self.rooms[side(partner)];
        room.orders.pop_front();
        room.shutting_down = false;
        self.begin_order(partner);
    }

    /// Whether the order in hand can make a step.
    pub(crate) fn can_work(&self, partner: Partner) -> bool {
        let room = &self.rooms[side(partner)];
        if room.orders.is_empty() {
            return false;
        }
        let server = &self.servers[side(partner)];
        // A clean shutdown waits for its walsender.
        !room.shutting_down || server.sender.is_none_or(|it| it.confirmed >= server.flushed())
    }

    pub(crate) fn work(&mut self, partner: Partner) -> Result<(), Violation> {
        let Some(order) = self.rooms[side(partner)].orders.front().copied() else { return Ok(()) };
        match order {
            Order::RunAlone { .. } => self.run_alone(partner),
            Order::Follow { term, upstream, timeline, .. } => {
                self.follow(partner, term, upstream, timeline);
            }
            Order::Touch { .. } => {}
            Order::PreparePromotion { term } => self.prepare_promotion(partner, term),
            Order::Promote { term, timeline, fork } => {
                self.promote(partner, term, timeline, fork)?;
            }
            Order::CommitBarrier { promotion } => self.commit_barrier(partner, promotion),
            Order::AdmitClients { term } => self.admit_clients(partner, term)?,
            Order::OpenGuard => self.open_guard(partner)?,
            Order::CloseGuard => self.close_guard(partner),
            Order::ReadPosition { number } => self.read_position(partner, number),
            Order::Stop => {
                self.servers[side(partner)].kill();
                self.rooms[side(partner)].checkpoint = None;
                self.report(partner, Fact::Stopped);
            }
            Order::ShutDown { .. } => {
                if !self.shut_down(partner) {
                    return Ok(());
                }
            }
        }
        self.end_order(partner);
        Ok(())
    }

    fn read_position(&mut self, partner: Partner, number: u32) {
        let server = &self.servers[side(partner)];
        let Some(data) = &server.data else { return };
        match server.run {
            Run::Off => {}
            Run::Primary => {
                let position = data.inserted();
                self.report(partner, Fact::PositionRead { number, position });
            }
            Run::Standby => {
                let position = data.position();
                self.report(partner, Fact::PositionSeen { position });
            }
        }
    }

    fn start_server(&mut self, partner: Partner) {
        self.runs += 1;
        let started = self.runs;
        self.servers[side(partner)].start(started);
    }

    fn run_alone(&mut self, partner: Partner) {
        self.rooms[side(partner)].follow = None;
        let server = &mut self.servers[side(partner)];
        if server.data.as_ref().is_none_or(|data| data.unusable) {
            return;
        }
        if server.run == Run::Standby {
            server.leave_upstream();
        } else {
            self.start_server(partner);
        }
        let server = &self.servers[side(partner)];
        let (incarnation, position) = (server.incarnation(), server.position());
        self.report(partner, Fact::Started { incarnation, position });
    }

    fn follow(&mut self, partner: Partner, term: Term, upstream: Partner, timeline: Timeline) {
        let now = self.now;
        let server = &mut self.servers[side(partner)];
        if server.is_primary() {
            server.kill();
        }
        let room = &mut self.rooms[side(partner)];
        room.follow_due = now;
        room.follow = Some(Follow {
            term,
            upstream,
            timeline,
            permitted: false,
            asked: None,
            touching: None,
            settled: false,
            reported: false,
            rewound: false,
        });
    }

    fn prepare_promotion(&mut self, partner: Partner, term: Term) {
        self.rooms[side(partner)].follow = None;
        let server = &mut self.servers[side(partner)];
        server.leave_upstream();
        let usable = server.data.as_ref().filter(|data| data.is_consistent());
        let fact = match usable.filter(|_| server.run == Run::Standby) {
            Some(data) => Fact::PromotionPrepared {
                term,
                position: data.position(),
                boundary: Boundary::Known(Xid(u64::from(data.next_xid()))),
                newest: data.newest,
            },
            None => Fact::PromotionFailed { term },
        };
        self.report(partner, fact);
    }

    fn promote(
        &mut self,
        partner: Partner,
        term: Term,
        timeline: Timeline,
        fork: Position,
    ) -> Result<(), Violation> {
        let mut timeline = timeline;
        let server = &self.servers[side(partner)];
        let ready = server.data.as_ref().filter(|data| {
            server.run == Run::Standby && data.position() == fork && data.newest < timeline
        });
        let Some(data) = ready else {
            self.report(partner, Fact::PromotionFailed { term });
            return Ok(());
        };
        if self.setup.mischief == Some(Mischief::UsedTimelineNotSkipped) {
            timeline = Timeline(data.newest.0 + 1);
        }
        self.promote_server(partner, term, timeline)?;
        let incarnation = self.servers[side(partner)].incarnation();
        self.report(partner, Fact::Promoted { term, incarnation, fork });
        Ok(())
    }

    fn commit_barrier(&mut self, partner: Partner, promotion: Promotion) {
        let server = &mut self.servers[side(partner)];
        let Some(data) = server.data.as_mut().filter(|_| server.run == Run::Primary) else {
            return;
        };
        data.insert(What::Barrier { term: promotion.term.0 as u32 });
        data.flush();
        self.rooms[side(partner)].barrier = Some((promotion.term, data.flushed));
    }

    pub(crate) fn barrier_can_return(&self, partner: Partner) -> bool {
        let released = self.servers[side(partner)].released;
        self.rooms[side(partner)].barrier.is_some_and(|(_, end)| released >= end)
    }

    pub(crate) fn return_barrier(&mut self, partner: Partner) {
        let Some((term, _)) = self.rooms[side(partner)].barrier.take() else { return };
        self.ledger.establish(self.servers[side(partner)].term);
        self.report(partner, Fact::BarrierCommitted { term });
    }

    fn admit_clients(&mut self, partner: Partner, term: Term) -> Result<(), Violation> {
        let due = self.now + self.pace().checkpoint;
        let server = &mut self.servers[side(partner)];
        if server.is_primary() {
            server.clients = true;
            self.rooms[side(partner)].checkpoint = Some((term, due));
            self.check_admission(partner)?;
        }
        Ok(())
    }

    fn open_guard(&mut self, partner: Partner) -> Result<(), Violation> {
        let server = &mut self.servers[side(partner)];
        if !server.is_primary() {
            self.report(partner, Fact::GuardLost);
            return Ok(());
        }
        server.guard = Guard::Open;
        self.report(partner, Fact::GuardOpened);
        self.seen(Seen::Exposure);
        self.check_guard(partner)
    }

    fn close_guard(&mut self, partner: Partner) {
        let server = &mut self.servers[side(partner)];
        match server.guard {
            Guard::Closed => self.report(partner, Fact::GuardClosed),
            Guard::Open => {
                server.guard = Guard::Closing { confirmed: server.flushed(), asked: true };
                self.rooms[side(partner)].probe_due = self.now;
            }
            Guard::Closing { confirmed, .. } => {
                server.guard = Guard::Closing { confirmed, asked: true };
            }
        }
    }

    pub(crate) fn end_guard(&mut self, partner: Partner) {
        let server = &mut self.servers[side(partner)];
        let asked = matches!(server.guard, Guard::Closing { asked: true, .. });
        server.guard = Guard::Closed;
        if asked {
            self.report(partner, Fact::GuardClosed);
        }
    }

    /// One step of a clean shutdown; whether it is over.
    fn shut_down(&mut self, partner: Partner) -> bool {
        let room = &mut self.rooms[side(partner)];
        let server = &mut self.servers[side(partner)];
        let begun = std::mem::replace(&mut room.shutting_down, true);
        let Some(data) = server.data.as_mut().filter(|_| server.run == Run::Primary) else {
            self.report(partner, Fact::ShutDownLate);
            return true;
        };
        if !begun {
            server.clients = false;
            server.guard = Guard::Closed;
            data.insert(What::ShutdownCheckpoint);
            data.flush();
            return false;
        }
        let position = data.position();
        server.kill();
        self.report(partner, Fact::ShutDown { position });
        true
    }

    pub(crate) fn end_shut_down(&mut self, partner: Partner) {
        self.servers[side(partner)].kill();
        self.report(partner, Fact::ShutDownLate);
        self.end_order(partner);
    }

    /// Whether the agent can go on with making this copy follow.
    pub(crate) fn can_rejoin(&self, partner: Partner) -> bool {
        let room = &self.rooms[side(partner)];
        let Some(follow) = room.follow.filter(|follow| !follow.settled) else { return false };
        let up = &self.servers[side(follow.upstream)];
        let Some(source) = up.data.as_ref().filter(|data| {
            up.is_primary() && data.timeline() == follow.timeline && self.stream_link()
        }) else {
            return false;
        };
        let own = self.servers[side(partner)].data.as_ref();
        match (follow.touching, self.touch_needed(partner, source)) {
            (Some(_), _) | (None, None) => own.is_some() || follow.touching.is_some(),
            (None, Some(touch)) if follow.permitted => {
                touch == Touch::Copy || source.checkpointed == source.timeline()
            }
            (None, Some(touch)) => follow.asked != Some(touch),
        }
    }

    fn touch_needed(&self, partner: Partner, source: &DataCopy) -> Option<Touch> {
        match self.servers[side(partner)].data.as_ref().filter(|data| !data.unusable) {
            None => Some(Touch::Copy),
            Some(data) if data.can_follow(source) => None,
            Some(_) => Some(Touch::Rewind),
        }
    }

    pub(crate) fn rejoin(&mut self, partner: Partner) -> Result<(), Violation> {
        let Some(mut follow) = self.rooms[side(partner)].follow else { return Ok(()) };
        let Some(source) = self.servers[side(follow.upstream)].data.clone() else { return Ok(()) };
        let needed = self.touch_needed(partner, &source);
        let mut wait = 0;
        match (follow.touching, needed) {
            (Some(touch), _) => {
                let server = &mut self.servers[side(partner)];
                match (touch, &mut server.data) {
                    (Touch::Rewind, Some(data)) => data.rewind(&source),
                    (Touch::Rewind | Touch::Copy, _) => {
                        server.data = Some(DataCopy::copied_from(&source));
                    }
                }
                follow.touching = None;
                follow.rewound |= touch == Touch::Rewind;
            }
            (None, Some(touch)) if follow.permitted => {
                self.check_overwriting(partner, &source)?;
                let server = &mut self.servers[side(partner)];
                server.kill();
                if let Some(data) = &mut server.data {
                    data.unusable = true;
                }
                follow.touching = Some(touch);
                wait = self.pace().touch;
            }
            (None, Some(touch)) => {
                follow.asked = Some(touch);
                self.report(partner, Fact::TouchNeeded { term: follow.term, touch });
            }
            (None, None) => {
                if self.servers[side(partner)].run == Run::Off {
                    self.start_server(partner);
                }
                self.servers[side(partner)].upstream = Some(follow.upstream);
                follow.settled = true;
            }
        }
        let room = &mut self.rooms[side(partner)];
        room.follow = Some(follow);
        room.follow_due = self.now + wait;
        Ok(())
    }

    /// Whether the agent can report that this copy follows.
    pub(crate) fn can_report_following(&self, partner: Partner) -> bool {
        let server = &self.servers[side(partner)];
        let Some(data) = &server.data else { return false };
        self.rooms[side(partner)].follow.is_some_and(|follow| {
            follow.settled && !follow.reported && data.timeline() == follow.timeline
        }) && self.streams(partner)
            && data.is_consistent()
    }

    pub(crate) fn report_following(&mut self, partner: Partner) {
        let position = self.servers[side(partner)].position();
        let Some(follow) = &mut self.rooms[side(partner)].follow else { return };
        follow.reported = true;
        let (term, rewound) = (follow.term, follow.rewound);
        if rewound {
            self.seen(Seen::RejoinByRewind);
        }
        self.report(partner, Fact::Streaming { term, position });
    }
}
