//! What a session shows to people: derived on demand, never stored.

use alloc::vec::Vec;
use core::time::Duration;

use crate::durable::Data;
use crate::input::MirrorSeen;
use crate::record::{Promotion, Protected, Record};
use crate::role::{MirroringState, Role};
use crate::term::{Member, Position, Term};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub role: Role,
    pub serving: bool,
    pub promise: Term,
    pub record: Option<Record>,
    pub mirroring: MirroringState,
    /// What is left of the principal's lease; `None` if it serves without one or does not serve.
    pub lease_left: Option<Duration>,
    pub others: Vec<OtherSeen>,
    /// What a principal sees of its mirror.
    pub mirror: Option<MirrorSeen>,
    pub protected: Option<Protected>,
    pub position: Option<Position>,
    pub data: Option<Data>,
    /// The newest promotion that this member knows.
    pub promotion: Option<Promotion>,
    /// The guard is open: a lone principal acknowledges commits.
    pub guard_open: bool,
    /// Why automatic failover would not work right now. Empty: it would.
    pub obstacles: Vec<Obstacle>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OtherSeen {
    pub member: Member,
    /// How long ago it was heard; `None`: never since this process started.
    pub heard: Option<Duration>,
    /// It was heard within the time in which it should have been.
    pub connected: bool,
}

/// What stands between a pool and an automatic failover.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Obstacle {
    NotServed,
    NoWitness,
    WitnessSilent,
    MirrorSilent,
    /// The mirror does not hear the witness, so it could not be elected.
    MirrorCannotSeeWitness,
    MirrorNotStreaming,
    Exposed,
    Suspended,
    MirrorDataInvalid,
    /// This member is not the principal and knows no more.
    AskThePrincipal,
}
