//! A pool of one server (R13), and what the configuration wants (`converge`).

use super::*;

impl Pool {
    fn configure(&mut self, member: Member, wanted: Wanted) {
        let witness = Some(WITNESS).filter(|_| self.members.len() == 3);
        let timing = Timing::STANDARD;
        self.step(member, Input::Configured { witness, wanted: Some(wanted), timing });
        self.deliver();
    }

    fn unmet(&mut self, member: Member) -> Option<Unmet> {
        let now = self.now;
        self.place(member).session.as_ref()?.view(now).unmet
    }
}

#[test]
fn the_mirror_is_removed_while_it_is_dead_and_the_principal_restarts_alone() {
    for witness in [true, false] {
        let mut pool = Pool::new(witness);
        pool.crash_host(B);
        pool.run(2_000);
        pool.configure(A, Wanted::Alone);
        pool.run(1_000);
        assert_eq!(pool.record(A).members, Members::Sole(Partner::First), "witness: {witness}");
        assert_eq!(pool.unmet(A), None);
        if witness {
            pool.crash_host(W);
        }
        pool.crash_host(A);
        pool.start(A);
        pool.run(5_000);
        assert_eq!(pool.role(A), Some(Role::Principal), "witness: {witness}");
    }
}

#[test]
fn a_lone_principal_that_nobody_answers_is_not_made_sole() {
    let mut pool = Pool::new(true);
    pool.configure(A, Wanted::Alone);
    let sole = pool.record(A).members.sole();
    assert_eq!(sole, Some(Partner::First), "both others have accepted its exposure");

    let mut pool = Pool::new(true);
    pool.cuts = vec![(A, B), (A, W)];
    pool.show_mirrors();
    pool.configure(A, Wanted::Alone);
    pool.run(500);
    assert_eq!(pool.record(A).members, Members::Settled(Some(WITNESS)));
    pool.run(10_000);
    assert_eq!(pool.role(B), Some(Role::Principal), "the others have elected another one");
}

#[test]
fn a_mirror_is_wanted_again_and_taken_in_only_once_it_is_there() {
    let mut pool = Pool::new(true);
    pool.configure(A, Wanted::Alone);
    pool.run(1_000);
    pool.crash_host(B);
    pool.run(5_000);
    let pair = Wanted::Pair { witness: Some(WITNESS) };
    pool.configure(A, pair);
    pool.run(5_000);
    assert_eq!(pool.unmet(A), Some(Unmet { wanted: pair, why: Some(Why::PartnerAway) }));
    assert_eq!(pool.record(A).members, Members::Sole(Partner::First));
    pool.start(B);
    pool.run(20_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
    assert_eq!(pool.record(A).members, Members::Settled(Some(WITNESS)));
    assert_eq!(pool.unmet(A), None);
}

#[test]
fn a_removed_mirror_neither_stands_nor_is_forced() {
    let mut pool = Pool::new(true);
    pool.configure(A, Wanted::Alone);
    pool.run(1_000);
    pool.crash_host(A);
    pool.run(20_000);
    assert_eq!(pool.role(B), Some(Role::Waiting));
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Refused(Why::Removed));
}

#[test]
fn a_wanted_witness_is_waited_for_and_then_made_the_record() {
    let mut pool = Pool::new(true);
    let none = Wanted::Pair { witness: None };
    pool.cuts = vec![(A, B)];
    pool.show_mirrors();
    pool.run(3_000);
    pool.configure(A, none);
    pool.run(1_000);
    assert_eq!(pool.unmet(A), Some(Unmet { wanted: none, why: Some(Why::PartnerAway) }));
    pool.cuts.clear();
    pool.show_mirrors();
    pool.run(5_000);
    assert_eq!(pool.record(A).members, Members::Settled(None));
    assert_eq!((pool.record(B).members, pool.unmet(A)), (Members::Settled(None), None));
}

#[test]
fn who_serves_never_counts_longer_than_a_voter_grants_while_times_change() {
    let mut pool = Pool::new(true);
    for (timing, kept) in [(Timing::TOLERANT, Timing::STANDARD), (Timing::FAST, Timing::FAST)] {
        let configured = Input::Configured { witness: Some(WITNESS), wanted: None, timing };
        pool.step(A, configured.clone());
        pool.step(W, configured);
        let session = pool.place(A).session.as_ref().unwrap();
        assert_eq!(session.timing().lease, kept.lease);
        assert_eq!(session.timing().fault(), None);
    }
    let now = pool.now;
    let longest = Timing::TOLERANT.lease_given();
    let given = pool.place(W).session.as_mut().unwrap().lease_presumed_given(now);
    assert_eq!(given.map(|given| given.until), Some(now.after(longest)));
}

#[test]
fn a_new_witness_learns_from_both_partners_alone() {
    let mut pool = Pool::new(true);
    let other = WitnessId(8);
    let new = Member::Witness(other);
    let place = Place {
        session: None,
        disk: Durable::lost(Identity(9)),
        position: Position::default(),
        started: 0,
        primary: false,
        runs: false,
        guard: false,
        barrier: None,
        follows: None,
        upstream: Timeline::INITIAL,
    };
    pool.members.push((new, place));
    pool.cuts = vec![(W, new)];
    pool.start(new);
    pool.configure(A, Wanted::Pair { witness: Some(other) });
    pool.run(3_000);
    for member in [A, B, new] {
        assert_eq!(pool.record(member).members, Members::Settled(Some(other)), "{member:?}");
    }
    assert!(!pool.events.contains(&(A, Event::Alarm(Alarm::WitnessLost))));
    let now = pool.now;
    let former = pool.place(W).session.as_ref().unwrap();
    assert_eq!(former.may_leave(now), Leave::Now, "it was told that it is no member any more");
}

#[test]
fn whoever_serves_or_is_counted_on_may_not_leave() {
    let mut pool = Pool::new(true);
    let now = pool.now;
    let mut may = |member| pool.place(member).session.as_ref().unwrap().may_leave(now);
    assert_eq!((may(A), may(B), may(W)), (Leave::HandOverFirst, Leave::Later, Leave::Later));
    pool.crash_host(A);
    pool.crash_host(W);
    pool.run(20_000);
    let now = pool.now;
    let mirror = pool.place(B).session.as_ref().unwrap();
    assert_eq!(mirror.may_leave(now), Leave::Now, "nobody is left who could miss it");
}

#[test]
fn a_pending_forced_service_ends_when_the_partner_learns_that_it_was_removed() {
    let mut pool = Pool::new(true);
    pool.cuts = vec![(A, B), (W, B)];
    pool.show_mirrors();
    pool.run(3_000);
    pool.slow_start = true;
    pool.crash_host(B);
    pool.start(B);
    pool.run(3_000);
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    pool.configure(A, Wanted::Alone);
    pool.cuts.clear();
    pool.run(1_000);
    assert_eq!(pool.record(B).members, Members::Sole(Partner::First));
    let position = pool.place(B).position;
    let incarnation = Incarnation { started: 9_999, timeline: position.timeline };
    pool.fact(B, Fact::Started { incarnation, position });
    pool.run(1_000);
    pool.expect_roles(Role::Principal, Role::Waiting);
    assert_eq!(pool.record(B), pool.record(A));
}

#[test]
fn shorter_times_cost_no_outage() {
    for late in 0..20 {
        let mut pool = Pool::new(true);
        for member in [A, B, W] {
            let place = pool.place(member);
            let session = place.session.as_mut().unwrap();
            session.config.timing = Timing::TOLERANT;
            session.longest_given = Timing::TOLERANT.lease_given();
        }
        pool.run(20_000 + late * 100);
        pool.events.clear();
        for member in [A, B, W] {
            let timing = Timing::FAST;
            let wanted = Some(Wanted::Pair { witness: Some(WITNESS) });
            pool.step(member, Input::Configured { witness: Some(WITNESS), wanted, timing });
        }
        pool.run(20_000);
        let changed = |(member, event): &(Member, Event)| {
            *member == A && matches!(event, Event::RoleChanged { .. })
        };
        assert_eq!(pool.events.iter().find(|event| changed(event)), None, "{late}");
    }
}

#[test]
fn a_new_mirror_learns_also_from_a_witness_that_only_the_record_names() {
    let mut pool = Pool::new(true);
    pool.crash_host(B);
    let place = pool.place(B);
    place.disk = Durable::lost(Identity(9));
    place.position = Position::default();
    pool.run(3_000);
    // It is told of another witness than the one that the session still has.
    pool.runs += 1;
    let (now, run, timing) = (pool.now, pool.runs, Timing::STANDARD);
    let witness = Some(WitnessId(8));
    let wanted = Some(Wanted::Pair { witness });
    pool.cuts = vec![(B, Member::Witness(WitnessId(8)))];
    let config = Config { me: B, witness, wanted, timing, seed: 1, run };
    let disk = pool.place(B).disk.clone();
    let (session, out) = Session::start(now, config, disk);
    pool.place(B).session = Some(session);
    pool.perform(B, out);
    pool.fact(B, Fact::Found(Found::Nothing));
    pool.run(10_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
}

#[test]
fn a_half_made_copy_is_finished_when_its_mirror_is_removed_and_wanted_again() {
    let mut pool = Pool::new(true);
    pool.cuts = vec![(A, B), (W, B)];
    pool.show_mirrors();
    pool.run(3_000);
    pool.place(B).follows = None;
    let session = pool.place(B).session.as_mut().unwrap();
    session.keep_data(|data| (data.touched, data.valid) = (true, false));
    // PostgreSQL does not start on such a copy.
    pool.slow_start = true;
    pool.configure(A, Wanted::Alone);
    pool.cuts.clear();
    pool.run(1_000);
    assert_eq!(pool.record(B).members, Members::Sole(Partner::First));
    pool.configure(A, Wanted::Pair { witness: Some(WITNESS) });
    pool.run(3_000);
    // The copy is complete.
    let term = pool.record(A).term();
    pool.place(B).follows = Some(term);
    pool.show_mirrors();
    pool.run(10_000);
    pool.expect_roles(Role::Principal, Role::Mirror);
    pool.expect_mirrored();
}

#[test]
fn a_mirror_that_shows_a_new_identity_is_lost_though_something_streams() {
    let mut pool = Pool::new(true);
    let term = pool.record(A).term();
    pool.expect_mirrored();
    // Another process bears its name; the old one's PostgreSQL streams on.
    let mut disk = Durable::lost(Identity(9));
    core::mem::swap(&mut disk, &mut pool.place(B).disk);
    pool.place(B).session = None;
    pool.runs += 1;
    let (now, run, timing) = (pool.now, pool.runs, Timing::STANDARD);
    let config = Config { me: B, witness: Some(WITNESS), wanted: None, timing, seed: 1, run };
    let lost = pool.place(B).disk.clone();
    let (session, out) = Session::start(now, config, lost);
    pool.place(B).session = Some(session);
    pool.perform(B, out);
    pool.run(400);
    let record = pool.record(A);
    assert_eq!((record.term(), record.protection), (term, Protection::Exposed));
    assert_eq!(pool.role(A), Some(Role::Principal));
}

/// The forced side's machine is given up for a new one; the witness that had accepted the force
/// comes back later, and remembers what the new machine's partner never was.
#[test]
fn a_record_from_a_lost_past_makes_nobody_principal() {
    let mut pool = Pool::new(true);
    pool.cuts = vec![(A, B), (W, B)];
    pool.show_mirrors();
    pool.run(3_000);
    pool.configure(A, Wanted::Alone);
    pool.run(500);
    assert_eq!(pool.ask(B, Request::ForceService), Answer::Begun);
    pool.cuts = vec![(A, B), (A, W)];
    pool.run(3_000);
    assert_eq!(pool.record(W).principal, Partner::Second);

    pool.crash_host(B);
    let place = pool.place(B);
    (place.disk, place.position) = (Durable::lost(Identity(9)), Position::default());
    pool.cuts = vec![(A, W), (B, W)];
    pool.start(B);
    pool.configure(A, Wanted::Pair { witness: None });
    pool.run(10_000);
    assert_eq!(pool.record(A).protection, Protection::Mirrored);
    assert_eq!(pool.ask(A, Request::Suspend), Answer::Done);
    pool.run(1_000);
    // What is committed now is on the principal's disk alone.
    pool.cuts = vec![(A, W)];
    pool.configure(A, Wanted::Pair { witness: Some(WITNESS) });
    pool.run(20_000);
    let served = |(member, event): &(Member, Event)| {
        let becomes = matches!(event, Event::RoleChanged { to: Role::Becoming, term, .. }
            if *term > Term(3));
        *member == B && becomes
    };
    assert!(!pool.events.iter().any(served), "{:?}", pool.events);
}
