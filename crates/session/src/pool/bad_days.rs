//! Bad days: lost disks and old copies, force, restarts in the middle, answers that come too late.

use super::*;

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

#[test]
fn forced_service_waits_for_a_server_that_is_starting() {
    let mut pool = Pool::new(true);
    for member in [A, B, W] {
        pool.crash_host(member);
    }
    pool.slow_start = true;
    pool.start(B);
    pool.run(5_000);
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    let incarnation = Incarnation { started: 1, timeline: Timeline(2) };
    let position = Position { timeline: Timeline(2), lsn: Lsn(2_000) };
    pool.slow_start = false;
    pool.fact(B, Fact::Started { incarnation, position });
    pool.run(1_000);
    assert_eq!(pool.role(B), Some(Role::Principal));
}

/// What becomes of A's copy, which ends on timeline 2, when A has lost its state and learns that B
/// serves a timeline that left `fork`.
fn relearnt(fork: Timeline) -> Suspension {
    let now = Instant::from_micros(1_000_000);
    let config = Config {
        me: A,
        witness: Some(WITNESS),
        wanted: None,
        timing: Timing::STANDARD,
        seed: 1,
        run: 1,
    };
    let (mut session, out) = Session::start(now, config, Durable::lost(Identity(1)));
    let nonce = out.iter().find_map(|output| match output {
        Output::Send(Message { body: Body::StateAsked { nonce }, .. }) => Some(*nonce),
        _ => None,
    });
    let position = Position { timeline: Timeline(2), lsn: Lsn(5_000) };
    let incarnation = Incarnation { started: 1, timeline: Timeline(2) };
    session.step(now, Input::Postgres(Fact::Found(Found::Standby { incarnation, position })));
    let promotion = |term, timeline, left| Promotion {
        term: Term(term),
        timeline: Timeline(timeline),
        fork: Position { timeline: left, lsn: Lsn(1_000) },
        boundary: Boundary::Unknown,
        established: true,
    };
    let promotions = vec![promotion(2, 2, Timeline::INITIAL), promotion(5, 5, fork)];
    let record = Record::genesis(Partner::First, Some(WITNESS)).elected(Term(5), Partner::Second);
    for (from, identity) in [(B, Identity(2)), (W, Identity(3))] {
        let body = Body::StateAnswered {
            nonce: nonce.unwrap(),
            remembered: Shown::default(),
            promotions: promotions.clone(),
        };
        let promise = Term(5);
        let message = Message { from, to: A, identity, promise, record: Some(record), body };
        session.step(now, Input::Received(message));
    }
    assert_eq!(session.durable().record, Some(record));
    session.durable().data.unwrap().suspension
}

#[test]
fn a_lost_state_gives_up_no_data_that_the_principal_never_had() {
    assert_eq!(relearnt(Timeline(2)), Suspension::No, "it is rewound or follows");
    assert_eq!(relearnt(Timeline::INITIAL), Suspension::Suspended, "a side that lost by force");
}
