//! Each mutant breaks one rule of `docs/protocol.md`, section 8, and the check must notice. Where
//! random walks would take long, a directed scenario leads to the spot; the unharmed core must pass
//! the same scenario.

use std::time::Duration;

use session::Mutant;
use sim::{Fault, Invariant, Mischief, Report, Setup, Swarm, model, scenario};

fn mutated(mutant: Mutant) -> impl Fn(Setup) -> Setup {
    move |setup| Setup { mutant: Some(mutant), ..setup }
}

fn mischievous(mischief: Mischief) -> impl Fn(Setup) -> Setup {
    move |setup| Setup { mischief: Some(mischief), ..setup }
}

fn assert_found(report: &Report, expected: &[Invariant]) {
    let found = report.found.as_ref().map(|(_, violation)| violation.invariant);
    assert!(found.is_some_and(|found| expected.contains(&found)), "{expected:?}: {report}");
}

/// Random walks with all faults, or with these alone, find it.
fn walks_kill(adjust: impl Fn(Setup) -> Setup, faults: &[Fault], expected: &[Invariant]) {
    let limit = |swarm: Swarm| match faults {
        [] => swarm,
        faults => swarm.only(faults, 3),
    };
    assert_found(&model::walks(7, 40_000, 800, &adjust, &limit), expected);
}

fn simulations_kill(adjust: impl Fn(Setup) -> Setup, expected: &[Invariant]) {
    assert_found(&model::simulations(7, 400, &adjust), expected);
}

/// The scenario, with each of `moments` (in milliseconds) for `{}`, finds it.
fn scenario_kills(
    adjust: impl Fn(Setup) -> Setup,
    script: &str,
    moments: std::ops::RangeInclusive<u64>,
    expected: Invariant,
) {
    for moment in moments {
        let text = script.replace("{}", &moment.to_string());
        let (played, violation) = scenario::play_in(&text, &|setup| setup);
        let played = played.expect("the scenario can be played");
        assert_eq!(violation, None, "the unharmed core, at {moment} ms:\n{played}");
        let (played, violation) = scenario::play_in(&text, &adjust);
        if let Some(violation) = violation {
            let played = played.expect("the scenario can be played");
            assert_eq!(violation.invariant, expected, "at {moment} ms:\n{played}");
            return;
        }
    }
    panic!("the mutant survives at every moment");
}

/// The witness alone knows of the exposure, and loses its disk while the principal is away.
const WITNESS_FORGETS: &str = "create witness
run 4s
write
isolate be2
cut-stream
run 4s
write
run 1s
crash wit1
lose-state wit1
crash be1
heal be1 be2
heal be2 wit1
restart wit1
run 10s
";

/// A principal is promoted again, alone, and is lost before anybody hears of its timeline. The
/// other partner takes over; later the first one is rewound and takes over again.
const TIMELINE_RETURNS: &str = "create witness
run 4s
write
run 1s
crash be2
crash be1
run 1s
restart be1
run {}ms
cut be1 wit1
run 300ms
crash be1
heal
restart be2
run 8s
write
restart be1
run 10s
operator be2 failover
run 5s
write
run 1s
";

/// The same, but what is lost is the write to the state disk.
const PROMOTION_IS_FORGOTTEN: &str = "create witness
run 4s
write
run 1s
crash be2
crash be1
run 1s
restart be1
run {}ms
stall be1
run 100ms
crash be1
restart be2
run 8s
write
restart be1
run 10s
operator be2 failover
run 5s
write
run 1s
";

/// Two promotions from one fork, each by another partner.
const TWO_FROM_ONE_FORK: &str = "create witness
run 4s
operator be1 failover
run 5s
write
run 1s
crash be2
run {}ms
cut be1 wit1
run 300ms
crash be1
heal
restart be2
run 8s
restart be1
run 10s
";

/// A commit that only the old principal has is in doubt; its transaction id is handed out again.
const ID_IS_HANDED_OUT_AGAIN: &str = "create witness
run 4s
write
run 1s
cut-stream
write
crash be2
crash be1
run 1s
restart be1
run {}ms
cut be1 wit1
run 300ms
crash be1
heal
restart be2
run 8s
write
run 1s
restart be1
run 8s
tell
";

#[test]
fn m01_guard_before_acceptance() {
    let expected = [Invariant::ExposedNeedsAQuorum];
    walks_kill(mutated(Mutant::GuardBeforeAcceptance), &[], &expected);
}

#[test]
fn m02_mirrored_with_the_guard_open() {
    walks_kill(mutated(Mutant::MirroredWithGuardOpen), &[], &[Invariant::MirroredMeansBoth]);
}

#[test]
fn m02_mirrored_before_the_flush() {
    walks_kill(mutated(Mutant::MirroredBeforeFlush), &[], &[Invariant::MirroredMeansBoth]);
}

#[test]
fn m03_winner_exposes_itself() {
    let expected = [Invariant::OnePrincipalPerTerm, Invariant::ExposedNeedsAQuorum];
    walks_kill(mutated(Mutant::WinnerExposesItself), &[], &expected);
}

#[test]
fn m04_vote_for_an_older_record() {
    let faults = [Fault::Cut, Fault::CutStream, Fault::CrashHost, Fault::Stray];
    let expected = [Invariant::MirroredMeansBoth, Invariant::AcknowledgedIsNeverLost];
    walks_kill(mutated(Mutant::VoteForOlderRecord), &faults, &expected);
}

#[test]
fn m05_protection_not_inherited() {
    let faults = [Fault::CrashHost, Fault::Exit, Fault::Cut];
    let expected = [Invariant::MirroredMeansBoth];
    walks_kill(mutated(Mutant::ProtectionNotInherited), &faults, &expected);
}

#[test]
fn m06_amnesiac_votes() {
    let adjust = mutated(Mutant::AmnesiacVotes);
    scenario_kills(adjust, WITNESS_FORGETS, 0..=0, Invariant::MirroredMeansBoth);
}

#[test]
fn m06_amnesiac_learns_in_passing() {
    let adjust = mutated(Mutant::AmnesiacLearnsInPassing);
    scenario_kills(adjust, WITNESS_FORGETS, 0..=0, Invariant::MirroredMeansBoth);
}

#[test]
fn m07_rewind_counts_as_valid() {
    walks_kill(mutated(Mutant::RewindCountsAsValid), &[], &[Invariant::MirroredMeansBoth]);
}

#[test]
fn m07_invalid_on_learning() {
    simulations_kill(mutated(Mutant::InvalidOnLearning), &[Invariant::ThePoolComesBack]);
}

#[test]
fn m08_send_before_persist() {
    let faults = [Fault::Stall, Fault::CrashAgent, Fault::Cut];
    let expected = [
        Invariant::ExposedNeedsAQuorum,
        Invariant::OnePrincipalPerTerm,
        Invariant::AcknowledgedIsNeverLost,
        Invariant::MirroredMeansBoth,
    ];
    walks_kill(mutated(Mutant::SendBeforePersist), &faults, &expected);
}

#[test]
fn m09_late_acceptance_counts() {
    let faults = [Fault::Stray, Fault::Repeat, Fault::CutStream, Fault::Cut];
    let expected = [Invariant::ExposedNeedsAQuorum];
    walks_kill(mutated(Mutant::LateAcceptanceCounts), &faults, &expected);
}

#[test]
fn m10_terms_not_owned() {
    let faults = [Fault::ForceService, Fault::CrashHost, Fault::Cut];
    walks_kill(mutated(Mutant::TermsNotOwned), &faults, &[Invariant::OnePrincipalPerTerm]);
}

#[test]
fn m10_timelines_not_owned() {
    let adjust = mutated(Mutant::TimelinesNotOwned);
    scenario_kills(adjust, TWO_FROM_ONE_FORK, 1_700..=2_400, Invariant::OnePromotionPerTimeline);
}

#[test]
fn m11_restart_forgets_the_lease() {
    let script = "create witness
run 4s
cut be1 be2
run {}ms
cut be1 wit1
crash wit1
restart wit1
run 4s
";
    let adjust = mutated(Mutant::RestartForgetsLease);
    scenario_kills(adjust, script, 400..=800, Invariant::ServingNeedsALease);
}

/// A detection time above the lease hides this rule: here it is shorter.
#[test]
fn m11_own_vote_ignores_the_lease() {
    let script = "create witness
run 4s
cut be1 wit1
run {}ms
cut be1 be2
run 4s
";
    let hasty = |setup: Setup| {
        let detection = Duration::from_secs(1);
        let timing = session::Timing { detection, ..setup.timing };
        Setup { timing, mutant: Some(Mutant::OwnVoteIgnoresLease), ..setup }
    };
    scenario_kills(hasty, script, 0..=1_000, Invariant::ServingNeedsALease);
}

#[test]
fn m12_no_pre_vote() {
    simulations_kill(mutated(Mutant::NoPreVote), &[Invariant::AHealedLinkCostsNoOutage]);
}

#[test]
fn m13_answered_before_the_barrier() {
    let adjust = mischievous(Mischief::AnsweredBeforeBarrier);
    walks_kill(adjust, &[Fault::CrashHost, Fault::Exit], &[Invariant::ToldOutcomeNeverChanges]);
}

#[test]
fn m13_boundary_of_the_first_later_term() {
    let adjust = mischievous(Mischief::FirstLaterBoundary);
    let expected = Invariant::ToldOutcomeNeverChanges;
    scenario_kills(adjust, ID_IS_HANDED_OUT_AGAIN, 235..=290, expected);
}

#[test]
fn m14_witness_changed_at_once() {
    let faults = [Fault::ChangeWitness, Fault::Cut, Fault::CutStream, Fault::Stray];
    let expected = [Invariant::MirroredMeansBoth, Invariant::AcknowledgedIsNeverLost];
    walks_kill(mutated(Mutant::WitnessChangedAtOnce), &faults, &expected);
}

/// The core's own assertion that a candidate's promise is its term notices first.
#[test]
fn m15_candidacy_survives_adoption() {
    let expected = [Invariant::TheCoreIsSound, Invariant::OnePrincipalPerTerm];
    walks_kill(mutated(Mutant::CandidacySurvivesAdoption), &[], &expected);
}

#[test]
fn m16_promotion_recorded_late() {
    let adjust = mutated(Mutant::PromotionRecordedLate);
    let expected = Invariant::OnePromotionPerTimeline;
    scenario_kills(adjust, PROMOTION_IS_FORGOTTEN, 235..=290, expected);
}

#[test]
fn m16_used_timeline_taken() {
    let adjust = mutated(Mutant::UsedTimelineTaken);
    scenario_kills(adjust, TIMELINE_RETURNS, 235..=290, Invariant::OnePromotionPerTimeline);
}

#[test]
fn m16_used_timeline_not_skipped() {
    let adjust = mischievous(Mischief::UsedTimelineNotSkipped);
    scenario_kills(adjust, TIMELINE_RETURNS, 235..=290, Invariant::OnePromotionPerTimeline);
}

#[test]
fn m17_forced_mark_lost() {
    let faults = [Fault::ForceService, Fault::CrashHost, Fault::Exit, Fault::Cut];
    let expected = [Invariant::AcknowledgedIsNeverLost, Invariant::MirroredMeansBoth];
    walks_kill(mutated(Mutant::ForcedMarkLost), &faults, &expected);
}

#[test]
fn m17_descent_by_records_alone() {
    let faults = [Fault::ForceService, Fault::CrashHost, Fault::Exit, Fault::Cut];
    let expected = [Invariant::AcknowledgedIsNeverLost];
    walks_kill(mutated(Mutant::DescentByRecordsAlone), &faults, &expected);
}

#[test]
fn m18_sole_before_acceptance() {
    let faults = [Fault::ChangeMirror, Fault::Cut, Fault::CrashHost];
    let expected = [Invariant::AcknowledgedIsNeverLost, Invariant::MirroredMeansBoth];
    walks_kill(mutated(Mutant::SoleBeforeAcceptance), &faults, &expected);
}
