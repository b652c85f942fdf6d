//! Role, mirroring state and progress as people see them: separate types.

/// What a member is, decided by the session. Never what PostgreSQL reports of itself.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    Witness,
    /// Neither serves nor streams.
    Waiting,
    Mirror,
    /// Asks for votes.
    Candidate,
    /// Has been elected and is being promoted, or is being adopted after a restart.
    Becoming,
    Principal,
    /// Has lost its state and may not vote (R10).
    Amnesiac,
    /// A side that lost against forced service (R11).
    Suspended,
}

/// SQL Server's words for what a person sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MirroringState {
    Synchronizing,
    Synchronized,
    Suspended,
    Disconnected,
    /// Running exposed: no mirror protects the commits.
    Exposed,
    /// There is no mirror, and none is wanted (R13).
    NotMirrored,
}
