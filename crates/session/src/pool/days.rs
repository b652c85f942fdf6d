//! A pool's ordinary life: elections, failovers, exposure, cuts, the witness's coming and going.

use super::*;

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
fn failing_back_at_once_waits_for_nothing() {
    let mut pool = Pool::new(true);
    assert_eq!(pool.ask(A, Request::Failover { to: None }), Answer::Begun);
    pool.run(1_000);
    assert_eq!(pool.ask(B, Request::Failover { to: None }), Answer::Begun);
    assert_eq!(pool.role(A), Some(Role::Principal));
}
