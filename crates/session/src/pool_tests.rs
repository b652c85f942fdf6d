//! A pool in the smallest form: real sessions, a network that delivers at once unless it is cut,
//! and a PostgreSQL that obeys at once. Deep faults belong to `sim`; here each rule of the protocol
//! is shown once, where the code of the rule can be read beside it.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::*;

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

#[test]
fn a_new_pool_becomes_mirrored_by_itself() {
    let mut pool = Pool::new(true);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
    assert_eq!(pool.record(A).term(), Term(2));
}

#[test]
fn a_new_pool_without_witness_becomes_mirrored_too() {
    let mut pool = Pool::new(false);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
}

#[test]
fn mirror_and_witness_replace_a_lost_principal() {
    let mut pool = Pool::new(true);
    pool.crash_host(A);
    pool.run(1_700);
    assert_eq!(pool.role(B), Some(Role::Mirror), "not before the lease has run out");
    pool.run(700);
    assert_eq!(pool.role(B), Some(Role::Principal));
    assert_eq!(pool.record(B).protection, Protection::Exposed);
    pool.start(A);
    pool.run(5_000);
    pool.expect_roles(Role::Mirror, Role::Principal);
    pool.expect_mirrored();
}

#[test]
fn a_crashed_postgres_costs_no_lease() {
    let mut pool = Pool::new(true);
    let place = pool.place(A);
    (place.runs, place.primary) = (false, false);
    pool.fact(A, Fact::Exited);
    pool.deliver();
    assert_eq!(pool.role(B), Some(Role::Principal));
    pool.run(5_000);
    pool.expect_roles(Role::Mirror, Role::Principal);
    pool.expect_mirrored();
}

#[test]
fn manual_failover_hands_over_at_once_and_back() {
    for witness in [true, false] {
        let mut pool = Pool::new(witness);
        assert_eq!(pool.ask(A, Request::Failover { to: None }), Answer::Begun);
        assert_eq!(pool.role(B), Some(Role::Principal), "witness: {witness}");
        pool.run(5_000);
        pool.expect_mirrored();
        assert_eq!(pool.ask(B, Request::Failover { to: Some(Partner::First) }), Answer::Begun);
        pool.run(5_000);
        pool.expect_roles(Role::Principal, Role::Mirror);
        pool.expect_mirrored();
    }
}

#[test]
fn a_principal_without_its_mirror_is_exposed_and_goes_on() {
    for witness in [true, false] {
        let mut pool = Pool::new(witness);
        pool.crash_host(B);
        pool.run(1_500);
        assert_eq!(pool.role(A), Some(Role::Principal));
        assert!(pool.place(A).guard);
        pool.start(B);
        pool.run(5_000);
        pool.expect_mirrored();
        assert!(!pool.place(A).guard);
    }
}

#[test]
fn a_principal_that_is_alone_stops() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.crash_host(W);
    pool.run(3_000);
    assert_eq!(pool.role(A), Some(Role::Waiting));
    assert!(!pool.place(A).primary);
    pool.start(W);
    pool.run(5_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
}

#[test]
fn losing_the_witness_changes_nothing_but_an_alarm() {
    let mut pool = Pool::new(true);
    let term = pool.record(A).term();
    pool.crash_host(W);
    pool.run(20_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    assert_eq!(pool.record(A).term(), term);
    assert!(pool.events.contains(&(A, Event::Alarm(Alarm::WitnessLost))));
    pool.start(W);
    pool.run(5_000);
    pool.expect_mirrored();
}

#[test]
fn a_cut_between_the_partners_is_no_failover_also_when_it_heals() {
    let mut pool = Pool::new(true);
    let term = pool.record(A).term();
    pool.cuts.push((A, B));
    pool.show_mirrors();
    pool.run(30_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
    assert_eq!(pool.record(A).protection, Protection::Exposed);
    pool.cuts.clear();
    pool.show_mirrors();
    pool.run(10_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    assert_eq!(pool.record(A).term(), term);
    pool.expect_mirrored();
}

#[test]
fn after_a_power_cut_the_principal_stands_first() {
    let mut pool = Pool::new(true);
    for member in [A, B, W] {
        pool.crash_host(member);
    }
    for member in [B, W, A] {
        pool.start(member);
    }
    pool.run(10_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
}

#[test]
fn a_witness_that_lost_its_disk_learns_before_it_votes() {
    let mut pool = Pool::new(true);
    pool.crash_host(W);
    pool.place(W).disk = Durable::lost(Identity(99));
    pool.start(W);
    assert_eq!(pool.role(W), Some(Role::Amnesiac));
    pool.run(3_000);
    assert_eq!(pool.role(W), Some(Role::Witness));
    assert_eq!(pool.record(W), pool.record(A));
    pool.crash_host(A);
    pool.run(3_000);
    assert_eq!(pool.role(B), Some(Role::Principal));
}

#[test]
fn a_witness_that_lost_its_disk_while_a_partner_is_away_does_not_vote() {
    let mut pool = Pool::new(true);
    pool.crash_host(A);
    pool.crash_host(W);
    pool.place(W).disk = Durable::lost(Identity(99));
    pool.start(W);
    pool.run(30_000);
    assert_eq!(pool.role(W), Some(Role::Amnesiac));
    assert_ne!(pool.role(B), Some(Role::Principal));
}

#[test]
fn forced_service_suspends_the_side_that_would_lose() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.run(3_000);
    pool.crash_host(A);
    pool.place(A).position.lsn = Lsn(9_000);
    pool.start(B);
    pool.run(10_000);
    assert_eq!(pool.role(B), Some(Role::Waiting), "an exposed principal's mirror waits");
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.role(B), Some(Role::Principal));
    pool.start(A);
    pool.run(5_000);
    pool.expect_roles(Role::Suspended, Role::Principal);
    assert_eq!(pool.place(A).position.lsn, Lsn(9_000), "nothing is overwritten");
    assert_eq!(pool.ask(A, Request::DiscardThisSide), Answer::Done);
    pool.run(5_000);
    pool.expect_roles(Role::Mirror, Role::Principal);
    pool.expect_mirrored();
    assert_eq!(pool.record(B).forced, None, "the mark ends with the first `Mirrored`");
}

#[test]
fn suspended_mirroring_stays_so_until_it_is_resumed() {
    let mut pool = Pool::new(true);
    assert_eq!(pool.ask(A, Request::Suspend), Answer::Done);
    pool.run(5_000);
    assert_eq!(pool.record(A).protection, Protection::Exposed);
    pool.expect_roles(Role::Principal, Role::Waiting);
    assert_eq!(pool.ask(A, Request::Failover { to: None }), Answer::Refused(Why::Suspended));
    assert_eq!(pool.ask(A, Request::Resume), Answer::Done);
    pool.run(5_000);
    pool.expect_mirrored();
}

#[test]
fn the_witness_is_removed_and_added_while_the_pool_serves() {
    let mut pool = Pool::new(true);
    let term = pool.record(A).term();
    assert_eq!(pool.ask(A, Request::ChangeWitness { to: None }), Answer::Begun);
    pool.run(2_000);
    assert_eq!(pool.record(A).members, Members::Settled(None));
    assert_eq!(pool.ask(A, Request::ChangeWitness { to: Some(WITNESS) }), Answer::Begun);
    pool.run(2_000);
    assert_eq!(pool.record(B).members, Members::Settled(Some(WITNESS)));
    assert_eq!(pool.record(A).term(), term);
    pool.run(3_000);
    pool.expect_mirrored();
}

#[test]
fn a_restarted_agent_goes_on_serving_its_term() {
    let mut pool = Pool::new(true);
    let term = pool.record(A).term();
    pool.place(A).session = None;
    pool.place(A).guard = false;
    pool.run(100);
    pool.start(A);
    pool.run(3_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    assert_eq!(pool.record(A).term(), term);
}

#[test]
fn an_exposed_principal_that_crashes_is_elected_again() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.run(2_000);
    pool.crash_host(A);
    pool.start(A);
    pool.run(3_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
    assert_eq!(pool.record(A).protection, Protection::Exposed);
    pool.start(B);
    pool.run(5_000);
    pool.expect_mirrored();
}

#[test]
fn without_a_witness_a_lost_principal_waits_for_the_operator() {
    let mut pool = Pool::new(false);
    pool.crash_host(A);
    pool.run(30_000);
    assert_eq!(pool.role(B), Some(Role::Mirror));
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.role(B), Some(Role::Principal));
}

#[test]
fn without_a_witness_a_restarted_principal_needs_its_mirror_or_the_operator() {
    let mut pool = Pool::new(false);
    pool.crash_host(B);
    pool.crash_host(A);
    pool.start(A);
    pool.run(10_000);
    assert_eq!(pool.role(A), Some(Role::Waiting));
    assert_eq!(pool.ask(A, Request::ServeAlone), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
}

#[test]
fn a_request_from_before_a_lost_disk_is_never_granted() {
    let mut pool = Pool::new(true);
    let record = pool.record(B);
    let old = Message {
        from: B,
        to: W,
        identity: pool.place(B).disk.identity,
        promise: Term(3),
        record: Some(record),
        body: Body::VoteAsked {
            term: Term(3),
            position: Position { timeline: Timeline(2), lsn: Lsn(9_999) },
            reach: Reach(Protected { term: Term(2), lsn: Lsn(9_999) }),
        },
    };
    pool.crash_host(B);
    pool.place(B).disk = Durable::lost(Identity(77));
    pool.start(B);
    pool.run(3_000);
    pool.cuts.push((B, W));
    pool.crash_host(A);
    pool.run(2_500);
    pool.step(W, Input::Received(old));
    assert_eq!(pool.place(W).disk.promise, Term(2), "the lost state's request counts for nothing");
}

#[test]
fn a_vote_for_a_lost_state_does_not_count_for_the_new_one() {
    let mut pool = Pool::new(true);
    let (record, identity) = (pool.record(W), pool.place(W).disk.identity);
    pool.crash_host(A);
    pool.cuts.push((B, W));
    pool.run(2_100);
    pool.wires.clear();
    let vote = Message {
        from: W,
        to: B,
        identity,
        promise: Term(3),
        record: Some(record.elected(Term(3), Partner::Second)),
        body: Body::VoteAnswered {
            term: Term(3),
            verdict: Verdict::Granted,
            asked_by: Identity(12_345),
        },
    };
    pool.step(B, Input::Received(vote));
    assert_ne!(pool.role(B), Some(Role::Becoming));
}

#[test]
fn an_old_answer_about_the_position_never_makes_a_pool_mirrored() {
    let mut pool = Pool::new(true);
    pool.hold_positions = true;
    pool.crash_host(B);
    pool.run(2_000);
    pool.start(B);
    pool.run(600);
    let first = pool.asked_positions.first().copied().expect("a position was asked for");
    pool.run(6_000);
    assert!(pool.asked_positions.len() > 1, "the first attempt was given up");
    let position = Position { timeline: Timeline(2), lsn: Lsn(1_000) };
    pool.fact(A, Fact::PositionRead { number: first, position });
    pool.deliver();
    assert_eq!(pool.record(A).protection, Protection::Exposed);
}

#[test]
fn a_restarted_agent_does_not_serve_before_it_has_a_lease() {
    let mut pool = Pool::new(true);
    pool.place(A).session = None;
    pool.cuts.extend([(A, B), (A, W)]);
    pool.run(5_000);
    assert_eq!(pool.role(B), Some(Role::Principal));
    pool.start(A);
    pool.run(100);
    assert_eq!(pool.role(A), Some(Role::Becoming), "it has no lease");
    pool.run(1_000);
    assert!(!pool.place(A).primary, "and stops when it gets none");
}

#[test]
fn a_promise_that_others_have_shown_keeps_a_restarted_agent_from_serving() {
    let mut pool = Pool::new(true);
    pool.place(A).session = None;
    let shown = &mut pool.place(A).disk.others.get_mut(&B).expect("B is known").shown;
    shown.promise = Term(3);
    pool.start(A);
    assert!(!pool.place(A).primary, "it has learnt of term 3");
}

#[test]
fn a_pending_forced_service_does_not_depose_who_serves_by_now() {
    let mut pool = Pool::new(true);
    for member in [A, B, W] {
        pool.crash_host(member);
    }
    pool.slow_start = true;
    pool.start(B);
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    pool.run(3_000);
    pool.slow_start = false;
    pool.start(W);
    pool.start(A);
    pool.run(6_000);
    let (principal, term) = (pool.role(A), pool.record(A).term());
    pool.fact(
        B,
        Fact::Started {
            incarnation: Incarnation { started: 1, timeline: Timeline(2) },
            position: Position { timeline: Timeline(2), lsn: Lsn(2_000) },
        },
    );
    pool.run(1_000);
    assert_eq!(principal, Some(Role::Principal));
    assert_eq!(pool.record(A).term(), term);
}

#[test]
fn data_from_an_older_timeline_are_not_valid() {
    let mut pool = Pool::new(true);
    for member in [A, B, W] {
        pool.crash_host(member);
    }
    pool.place(B).position = Position { timeline: Timeline::INITIAL, lsn: Lsn(900) };
    pool.start(B);
    pool.start(W);
    pool.run(10_000);
    assert_ne!(pool.role(B), Some(Role::Principal));
    assert!(pool.events.iter().any(|(member, event)| {
        *member == B && matches!(event, Event::Alarm(Alarm::DataBehind { .. }))
    }));
}

#[test]
fn without_a_witness_a_mirror_replaces_a_principal_that_lost_its_data() {
    let mut pool = Pool::new(false);
    pool.crash_host(A);
    pool.place(A).position = Position { timeline: Timeline::INITIAL, lsn: Lsn(900) };
    pool.start(A);
    pool.run(10_000);
    assert_eq!(pool.role(B), Some(Role::Principal), "A is there to vote for it");
}

#[test]
fn a_lost_state_over_whole_data_can_be_forced() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.run(3_000);
    pool.crash_host(A);
    pool.place(A).disk = Durable::lost(Identity(55));
    pool.start(A);
    pool.start(B);
    pool.run(5_000);
    assert_eq!(pool.ask(A, Request::ForceService), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
}

#[test]
fn data_that_end_before_a_fork_follow_without_the_operator() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.run(3_000);
    pool.crash_host(W);
    pool.crash_host(A);
    pool.place(A).position.lsn = Lsn(9_000);
    pool.start(A);
    pool.run(500);
    assert_eq!(pool.ask(A, Request::ForceService), Answer::Begun);
    pool.run(1_000);
    pool.start(W);
    pool.start(B);
    pool.run(6_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
}

#[test]
fn the_witness_is_not_changed_while_the_mirror_is_away() {
    let mut pool = Pool::new(false);
    pool.crash_host(B);
    pool.run(3_000);
    let asked = pool.ask(A, Request::ChangeWitness { to: Some(WITNESS) });
    assert_eq!(asked, Answer::Refused(Why::PartnerAway));
    pool.run(3_000);
    assert_eq!(pool.role(A), Some(Role::Principal), "the pool goes on");
}

#[test]
fn a_witness_restored_from_an_old_copy_is_told_and_learns_again() {
    let mut pool = Pool::new(true);
    let old = pool.place(W).disk.clone();
    pool.crash_host(W);
    pool.place(W).disk = Durable::lost(Identity(99));
    pool.start(W);
    pool.run(3_000);
    pool.crash_host(W);
    pool.place(W).disk = old;
    pool.start(W);
    pool.run(3_000);
    assert_eq!(pool.role(W), Some(Role::Witness));
    assert_ne!(pool.place(W).disk.identity, Identity(3), "the old identity is lost for ever");
    pool.crash_host(B);
    pool.run(5_000);
    assert_eq!(pool.role(A), Some(Role::Principal), "its answers are leases again");
}

#[test]
fn failing_back_at_once_waits_for_nothing() {
    let mut pool = Pool::new(true);
    assert_eq!(pool.ask(A, Request::Failover { to: None }), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.ask(B, Request::Failover { to: None }), Answer::Begun);
    assert_eq!(pool.role(A), Some(Role::Principal));
}

#[test]
fn a_mirror_that_lacks_the_shutdown_position_does_not_stand_at_once() {
    let mut pool = Pool::new(true);
    let body = Body::Resigned {
        term: Term(2),
        handover: Some(Position { timeline: Timeline(2), lsn: Lsn(5_000) }),
    };
    let (identity, record) = (pool.place(A).disk.identity, pool.record(A));
    pool.place(A).session = None;
    let resigned =
        Message { from: A, to: B, identity, promise: Term(2), record: Some(record), body };
    pool.step(B, Input::Received(resigned));
    pool.deliver();
    assert_eq!(pool.role(B), Some(Role::Mirror), "it ends at 2,000");
}

#[test]
fn a_slow_server_is_not_a_dead_one() {
    let mut pool = Pool::new(true);
    pool.fact(A, Fact::Unhealthy(Ailment::Unresponsive));
    pool.run(1_500);
    pool.fact(A, Fact::Healthy);
    pool.run(3_000);
    assert_eq!(pool.role(A), Some(Role::Principal));
    pool.fact(A, Fact::Unhealthy(Ailment::Unresponsive));
    pool.run(3_000);
    assert_eq!(pool.role(B), Some(Role::Principal), "silent for the detection time");
}

#[test]
fn a_side_forced_without_state_is_never_overwritten_without_the_operator() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    pool.crash_host(W);
    pool.crash_host(A);
    pool.place(A).disk = Durable::lost(Identity(55));
    // What B remembers of A is above all that A can find in its data.
    pool.place(B).disk.others.get_mut(&A).expect("A is known").shown.promise = Term(40);
    pool.start(A);
    pool.run(500);
    assert_eq!(pool.ask(A, Request::ForceService), Answer::Begun);
    pool.run(1_000);
    pool.place(A).position.lsn = Lsn(9_000);
    pool.start(B);
    pool.start(W);
    pool.run(20_000);
    assert_eq!(pool.place(A).position.lsn, Lsn(9_000));
    assert_ne!(pool.role(A), Some(Role::Mirror));
}

/// Mutant 15 of the protocol's list: random search cannot reach it, because the relearnt promise
/// masks it nearly always.
#[cfg(feature = "mutants")]
#[test]
fn a_member_that_hears_lost_identities_grants_what_it_must_not() {
    let mut pool = Pool::new(true);
    let record = pool.record(B);
    let reach = Protected { term: Term(2), lsn: Lsn(9_999) };
    let position = Position { timeline: Timeline(2), lsn: Lsn(9_999) };
    let body = Body::VoteAsked { term: Term(3), position, reach: Reach(reach) };
    let identity = pool.place(B).disk.identity;
    let old = Message { from: B, to: W, identity, promise: Term(3), record: Some(record), body };
    pool.crash_host(B);
    pool.place(B).disk = Durable::lost(Identity(77));
    pool.start(B);
    pool.run(3_000);
    pool.cuts.push((B, W));
    pool.crash_host(A);
    pool.run(2_500);
    let witness = pool.place(W).session.as_mut().expect("it runs");
    witness.mutate(crate::Mutant::OldVoteSurvivesLoss);
    let current = pool.record(W);
    pool.step(W, Input::Received(Message { record: Some(current), ..old }));
    assert_eq!(pool.place(W).disk.promise, Term(3), "the mutant votes for a state that is lost");
}
