//! What a session shows to people: derived on demand, never stored.

use alloc::vec::Vec;
use core::time::Duration;

use crate::durable::{Data, Suspension};
use crate::input::{MirrorSeen, Wanted};
use crate::output::Why;
use crate::partner::{Server, Side, Stance, Stream};
use crate::principal::{Guard, Step};
use crate::record::{Mirroring, Promotion, Protected, Protection, Record};
use crate::role::{MirroringState, Role};
use crate::session::Session;
use crate::term::{Member, Position, Term, WitnessId};
use crate::time::Instant;

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
    /// What the configuration wants of the session and what it is not yet.
    pub unmet: Option<Unmet>,
}

/// A change that the configuration wants and that has not been made yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmet {
    pub wanted: Wanted,
    /// Why the last attempt was refused; `None`: it is under way, or whoever serves makes it.
    pub why: Option<Why>,
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
    /// The pool has one server (R13).
    NoMirror,
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

impl Side {
    /// Neither stands nor is on its way into or out of a reign.
    pub(crate) fn stance_is_calm(&self) -> bool {
        match &self.stance {
            Stance::Idle => true,
            Stance::PreVoting(_) | Stance::Standing(_) | Stance::Leaving { .. } => false,
            Stance::Reigning(reign) => reign.step == Step::Serve,
        }
    }
}

impl Session {
    pub fn role(&self) -> Role {
        if self.is_amnesiac() {
            return Role::Amnesiac;
        }
        let Some(side) = &self.side else { return Role::Witness };
        match &side.stance {
            Stance::Reigning(reign) if reign.step == Step::Serve => Role::Principal,
            Stance::Reigning(_) => Role::Becoming,
            Stance::Standing(_) => Role::Candidate,
            Stance::Leaving { .. } => Role::Waiting,
            Stance::Idle | Stance::PreVoting(_)
                if self.data().suspension == Suspension::Suspended =>
            {
                Role::Suspended
            }

            Stance::Idle | Stance::PreVoting(_) => match side.server.following() {
                Some(following) if following.stream != Stream::NotYet => Role::Mirror,
                Some(_) | None => Role::Waiting,
            },
        }
    }

    pub fn view(&self, now: Instant) -> View {
        let reign = self.reign();
        let lease_left = reign
            .filter(|reign| !reign.unconfirmed)
            .and_then(|_| self.lease_end())
            .map(|end| end.since(now));
        View {
            role: self.role(),
            serving: self.is_serving(),
            promise: self.durable.promise,
            record: self.durable.record,
            mirroring: self.mirroring_state(),
            lease_left,
            others: self.others().into_iter().map(|other| self.other_seen(other, now)).collect(),
            mirror: reign.map(|reign| reign.mirror),
            protected: reign.and_then(|reign| reign.protected),
            position: self.side.as_ref().and_then(|side| side.position),
            data: self.durable.data,
            promotion: self.durable.promotions.values().next_back().copied(),
            guard_open: reign.is_some_and(|reign| reign.guard == Guard::Open),
            obstacles: self.obstacles(now),
            unmet: self.unmet(),
        }
    }

    fn other_seen(&self, member: Member, now: Instant) -> OtherSeen {
        let heard = self.silence(member, now);
        let timing = &self.config.timing;
        let limit = match member {
            Member::Partner(_) => timing.partner_timeout,
            Member::Witness(_) => timing.lease,
        };
        OtherSeen { member, heard, connected: heard.is_some_and(|heard| heard < limit) }
    }

    fn mirroring_state(&self) -> MirroringState {
        let Some(record) = self.durable.record else { return MirroringState::Disconnected };
        if record.mirroring == Mirroring::Suspended || self.data().suspension != Suspension::No {
            return MirroringState::Suspended;
        }
        if record.members.sole().is_some() {
            return MirroringState::NotMirrored;
        }
        if record.protection == Protection::Mirrored {
            return MirroringState::Synchronized;
        }
        let streams = match (self.reign(), self.side.as_ref().map(|side| side.server)) {
            (Some(reign), _) => reign.mirror != MirrorSeen::Away,
            (None, Some(Server::Following(_))) => true,
            (None, Some(_) | None) => false,
        };
        match (streams, self.reign()) {
            (true, _) => MirroringState::Synchronizing,
            (false, Some(_)) => MirroringState::Exposed,
            (false, None) => MirroringState::Disconnected,
        }
    }

    fn obstacles(&self, now: Instant) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let (Some(record), Some(reign)) = (self.durable.record, self.reign()) else {
            return alloc::vec![Obstacle::AskThePrincipal];
        };
        if reign.step < Step::Serve {
            found.push(Obstacle::NotServed);
        }
        if record.members.sole().is_some() {
            found.push(Obstacle::NoMirror);
            return found;
        }
        if record.mirroring == Mirroring::Suspended {
            found.push(Obstacle::Suspended);
        } else if record.protection == Protection::Exposed {
            found.push(Obstacle::Exposed);
        }
        if reign.mirror == MirrorSeen::Away {
            found.push(Obstacle::MirrorNotStreaming);
        }
        let connected = |member| self.other_seen(member, now).connected;
        let witnesses: Vec<WitnessId> = record.members.witnesses().collect();
        if witnesses.is_empty() {
            found.push(Obstacle::NoWitness);
        }
        if witnesses.iter().any(|id| !connected(Member::Witness(*id))) {
            found.push(Obstacle::WitnessSilent);
        }
        if let Some(mirror) = self.other_partner().map(Member::Partner) {
            let report = self.live.get(&mirror).map(|live| &live.report);
            if !connected(mirror) {
                found.push(Obstacle::MirrorSilent);
            } else if report.is_some_and(|report| report.position.is_none()) {
                found.push(Obstacle::MirrorDataInvalid);
            } else if !witnesses.is_empty() && report.is_some_and(|report| !report.sees_witness) {
                found.push(Obstacle::MirrorCannotSeeWitness);
            }
        }
        found
    }
}
