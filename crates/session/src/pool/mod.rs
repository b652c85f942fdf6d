//! A pool in the smallest form: real sessions, a network that delivers at once unless it is cut,
//! and a PostgreSQL that obeys at once. Deep faults belong to `sim`; here each rule of the protocol
//! is shown once, where the code of the rule can be read beside it.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::*;

mod bad_days;
mod days;
mod one;

const WITNESS: WitnessId = WitnessId(7);
const W: Member = Member::Witness(WITNESS);
const A: Member = Member::FIRST;
const B: Member = Member::SECOND;

/// One member with its modelled PostgreSQL.
struct Place {
    session: Option<Session>,
    disk: Durable,
    position: Position,
    started: u64,
    primary: bool,
    runs: bool,
    guard: bool,
    barrier: Option<Term>,
    follows: Option<Term>,
    upstream: Timeline,
}

struct Pool {
    now: Instant,
    members: Vec<(Member, Place)>,
    cuts: Vec<(Member, Member)>,
    wires: VecDeque<Message>,
    answers: Vec<Answer>,
    events: Vec<(Member, Event)>,
    runs: u64,
    /// Positions are asked for and never told.
    hold_positions: bool,
    asked_positions: Vec<u32>,
    /// PostgreSQL takes for ever to start.
    slow_start: bool,
}

impl Pool {
    fn new(witness: bool) -> Pool {
        let witness = witness.then_some(WITNESS);
        let record = Record::genesis(Partner::First, witness);
        let mut members = vec![A, B];
        members.extend(witness.map(Member::Witness));
        let place = |member: Member| {
            let data = match member {
                A => Some(Data { valid: true, ..Data::default() }),
                B => Some(Data::default()),
                Member::Witness(_) => None,
            };
            let identity = Identity(match member {
                A => 1,
                B => 2,
                Member::Witness(_) => 3,
            });
            Place {
                session: None,
                disk: Durable::created(identity, record, data),
                position: Position { timeline: Timeline::INITIAL, lsn: Lsn(1000) },
                started: 0,
                primary: false,
                runs: false,
                guard: false,
                barrier: None,
                follows: None,
                upstream: Timeline::INITIAL,
            }
        };
        let mut pool = Pool {
            now: Instant::from_micros(1_000_000),
            members: members.iter().map(|member| (*member, place(*member))).collect(),
            cuts: Vec::new(),
            wires: VecDeque::new(),
            answers: Vec::new(),
            events: Vec::new(),
            runs: 100,
            hold_positions: false,
            asked_positions: Vec::new(),
            slow_start: false,
        };
        for member in members {
            pool.start(member);
        }
        pool.run(10_000);
        pool
    }

    fn place(&mut self, member: Member) -> &mut Place {
        let place = self.members.iter_mut().find(|(name, _)| *name == member);
        &mut place.expect("a member of the test").1
    }

    fn start(&mut self, member: Member) {
        self.runs += 1;
        let config = Config {
            me: member,
            witness: Some(WITNESS).filter(|_| self.members.len() == 3),
            wanted: None,
            timing: Timing::STANDARD,
            seed: 1,
            run: self.runs,
        };
        let now = self.now;
        let place = self.place(member);
        let (session, out) = Session::start(now, config, place.disk.clone());
        place.session = Some(session);
        let (runs, primary, position) = (place.runs, place.primary, place.position);
        let incarnation = Incarnation { started: place.started, timeline: position.timeline };
        self.perform(member, out);
        if let Member::Partner(_) = member {
            let found = match (runs, primary) {
                (false, _) if member == B && position.lsn == Lsn(0) => Found::Nothing,
                (false, _) => Found::Stopped,
                (true, true) => Found::Primary { incarnation, position },
                (true, false) => Found::Standby { incarnation, position },
            };
            self.fact(member, Fact::Found(found));
        }
    }

    fn step(&mut self, member: Member, input: Input) {
        let now = self.now;
        let Some(session) = self.place(member).session.as_mut() else { return };
        let out = session.step(now, input);
        self.perform(member, out);
    }

    fn fact(&mut self, member: Member, fact: Fact) {
        self.step(member, Input::Postgres(fact));
    }

    fn perform(&mut self, member: Member, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Persist(durable) => self.place(member).disk = *durable,
                Output::Send(message) => self.wires.push_back(message),
                Output::Postgres(order) => self.obey(member, order),
                Output::Answer { answer, .. } => self.answers.push(answer),
                Output::Tell(event) => self.events.push((member, event)),
                Output::Rejected(_) => {}
            }
        }
    }

    fn obey(&mut self, member: Member, order: Order) {
        self.runs += 1;
        let (runs, slow_start) = (self.runs, self.slow_start);
        if let (true, Order::ReadPosition { number }) = (self.hold_positions, order) {
            return self.asked_positions.push(number);
        }
        let place = self.place(member);
        let mut position = place.position;
        match order {
            Order::RunAlone { .. } if slow_start => {}
            Order::RunAlone { .. } => {
                (place.runs, place.primary, place.follows) = (true, false, None);
                place.started = runs;
                let incarnation = Incarnation { started: runs, timeline: position.timeline };
                self.fact(member, Fact::Started { incarnation, position });
            }
            Order::Follow { term, timeline, .. } => {
                (place.runs, place.primary, place.follows) = (true, false, Some(term));
                place.upstream = timeline;
                self.stream(member);
                self.show_mirrors();
            }
            Order::Touch { .. } => {}
            Order::PreparePromotion { term } => {
                let boundary = Boundary::Known(Xid(500 + term.0));
                let newest = position.timeline;
                self.fact(member, Fact::PromotionPrepared { term, position, boundary, newest });
            }
            Order::Promote { term, timeline, fork } => {
                position.timeline = timeline;
                place.position = position;
                place.primary = true;
                place.follows = None;
                let incarnation = Incarnation { started: place.started, timeline };
                self.fact(member, Fact::Promoted { term, incarnation, fork });
            }
            Order::CommitBarrier { promotion } => {
                place.barrier = Some(promotion.term);
                self.commit_barrier(member);
            }
            Order::AdmitClients { term } => {
                self.fact(member, Fact::Checkpointed { term });
                self.show_mirrors();
            }
            Order::OpenGuard => {
                place.guard = true;
                self.fact(member, Fact::GuardOpened);
                self.commit_barrier(member);
            }
            Order::CloseGuard => {
                place.guard = false;
                self.fact(member, Fact::GuardClosed);
            }
            Order::ReadPosition { number } if place.primary => {
                self.fact(member, Fact::PositionRead { number, position });
            }
            Order::ReadPosition { .. } => self.fact(member, Fact::PositionSeen { position }),
            Order::Stop => {
                (place.runs, place.primary, place.guard) = (false, false, false);
                (place.follows, place.barrier) = (None, None);
                self.fact(member, Fact::Stopped);
            }
            Order::ShutDown { .. } => {
                (place.runs, place.primary) = (false, false);
                self.fact(member, Fact::ShutDown { position });
            }
        }
    }

    /// Lets a follower stream, if its upstream runs and can be reached.
    fn stream(&mut self, member: Member) {
        let upstream = if member == A { B } else { A };
        let up = self.place(upstream).primary && !self.is_cut(member, upstream);
        let place = self.place(member);
        if let (true, Some(term)) = (up, place.follows) {
            let lsn = Lsn(place.position.lsn.0.max(2000));
            place.position = Position { timeline: place.upstream, lsn };
            let position = place.position;
            self.fact(member, Fact::Streaming { term, position });
        }
    }

    fn commit_barrier(&mut self, member: Member) {
        let place = self.place(member);
        if let (true, Some(term)) = (place.guard, place.barrier) {
            place.barrier = None;
            self.fact(member, Fact::BarrierCommitted { term });
        }
    }

    /// Tells each primary what it sees of its mirror.
    fn show_mirrors(&mut self) {
        for (me, other) in [(A, B), (B, A)] {
            self.stream(other);
            if !self.place(me).primary {
                continue;
            }
            let end = self.place(me).position.lsn;
            let streams = self.place(other).runs && self.place(other).follows.is_some();
            let seen = match streams && !self.is_cut(me, other) {
                true => MirrorSeen::Streaming { flushed: Lsn(end.0.max(2000)), end },
                false => MirrorSeen::Away,
            };
            self.fact(me, Fact::MirrorSeen(seen));
        }
    }

    fn is_cut(&self, one: Member, other: Member) -> bool {
        self.cuts.iter().any(|cut| *cut == (one, other) || *cut == (other, one))
    }

    fn deliver(&mut self) {
        let mut budget = 20_000;
        while let Some(message) = self.wires.pop_front() {
            budget -= 1;
            assert!(budget > 0, "members talk for ever");
            if !self.is_cut(message.from, message.to) {
                self.step(message.to, Input::Received(message));
            }
        }
    }

    /// Lets `millis` pass, one deadline after the other.
    fn run(&mut self, millis: u64) {
        let end = self.now.after(Duration::from_millis(millis));
        let mut last = (self.now, 0);
        loop {
            self.deliver();
            let deadlines = self.members.iter().filter_map(|(name, place)| {
                place.session.as_ref()?.deadline().map(|due| (due, *name))
            });
            let Some((due, member)) = deadlines.min() else { break };
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            last = if last.0 == self.now { (self.now, last.1 + 1) } else { (self.now, 0) };
            assert!(last.1 < 50, "a deadline of {member:?} does not move on");
            self.step(member, Input::TimePassed);
        }
        self.now = end;
    }

    fn crash_host(&mut self, member: Member) {
        let place = self.place(member);
        place.session = None;
        (place.runs, place.primary, place.guard) = (false, false, false);
        (place.follows, place.barrier) = (None, None);
        self.show_mirrors();
    }

    fn ask(&mut self, member: Member, what: Request) -> Answer {
        self.step(member, Input::Asked { request: 1, what });
        let answer = self.answers.pop().expect("every request is answered");
        self.deliver();
        answer
    }

    fn role(&mut self, member: Member) -> Option<Role> {
        self.place(member).session.as_ref().map(Session::role)
    }

    fn record(&mut self, member: Member) -> Record {
        self.place(member).disk.record.expect("a record")
    }

    #[track_caller]
    fn expect_roles(&mut self, first: Role, second: Role) {
        assert_eq!((self.role(A), self.role(B)), (Some(first), Some(second)));
    }

    #[track_caller]
    fn expect_mirrored(&mut self) {
        let roles = (self.role(A), self.role(B));
        let principal = if roles.0 == Some(Role::Principal) { A } else { B };
        assert_eq!(self.record(principal).protection, Protection::Mirrored, "{roles:?}");
        let now = self.now;
        let view = self.place(principal).session.as_ref().map(|session| session.view(now));
        let expected = if self.members.len() == 3 { vec![] } else { vec![Obstacle::NoWitness] };
        assert_eq!(view.map(|view| view.obstacles), Some(expected));
    }
}
