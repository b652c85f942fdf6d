//! Deliberate faults for the model check: each one breaks a rule that the protocol needs, and a
//! test in `sim` shows that the check notices. Switched on only with the feature `mutants`.

/// A rule to break. The numbers are those of `docs/protocol.md`, section 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// 1: the guard opens before another member has accepted `Exposed`.
    GuardBeforeAcceptance,
    /// 2: `Mirrored` is recorded while the guard is still open.
    MirroredWithGuardOpen,
    /// 2: `Mirrored` is recorded before the mirror has flushed the position.
    MirroredBeforeFlush,
    /// 3: a winner starts exposed without asking.
    WinnerExposesItself,
    /// 4: a voter grants a vote to a candidate with an older record.
    VoteForOlderRecord,
    /// 5: a winner's record says `Mirrored` whatever it inherited.
    ProtectionNotInherited,
    /// 6: a member that lost its state votes.
    AmnesiacVotes,
    /// 6: a member that lost its state learns from any message.
    AmnesiacLearnsInPassing,
    /// 7: a copy under rewind counts as valid.
    RewindCountsAsValid,
    /// 7: a copy is given up on learning of a new principal, before its data is touched.
    InvalidOnLearning,
    /// 8: messages leave before the state that they depend on is on disk.
    SendBeforePersist,
    /// 9: the acceptance of an older revision opens the guard.
    LateAcceptanceCounts,
    /// 10: any partner may take any term.
    TermsNotOwned,
    /// 10: any partner may take any timeline.
    TimelinesNotOwned,
    /// 11: a restarted voter forgets the lease it gave.
    RestartForgetsLease,
    /// 11: a candidate's own vote ignores the lease it gave.
    OwnVoteIgnoresLease,
    /// 12: candidates ask in earnest at once.
    NoPreVote,
    /// 14: a change of witness in one phase.
    WitnessChangedAtOnce,
    /// 18: a principal is sole before another member has accepted that it is exposed.
    SoleBeforeAcceptance,
    /// 15: a candidacy survives the adoption of another record.
    CandidacySurvivesAdoption,
    /// 15: a vote reaches a state that was made anew after the request.
    OldVoteSurvivesLoss,
    /// 16: a promotion is written down after the signal.
    PromotionRecordedLate,
    /// 16: a timeline id that was used before is taken again.
    UsedTimelineTaken,
    /// 17: the forced mark is lost at the next election.
    ForcedMarkLost,
    /// 17: descent is judged by records alone.
    DescentByRecordsAlone,
}
