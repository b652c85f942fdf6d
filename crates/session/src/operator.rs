//! What the operator may ask of a partner, and why it may be refused.

use crate::input::Request;
use crate::output::{Answer, Why};
use crate::principal::Step;
use crate::record::Mirroring;
use crate::session::{Session, Turn};

impl Session {
    pub(crate) fn asked_as_partner(&mut self, turn: &mut Turn, what: Request) -> Answer {
        match what {
            Request::Failover { to } => self.asked_to_fail_over(turn, to),
            Request::ForceService => self.asked_to_force(turn),
            Request::Suspend => self.asked_to_set(turn, Mirroring::Suspended),
            Request::Resume => self.asked_to_set(turn, Mirroring::Active),
            Request::DiscardThisSide => self.asked_to_discard(turn),
            Request::ChangeWitness { to } => self.asked_to_change_witness(turn, to),
            Request::ServeAlone => self.asked_to_serve_alone(turn),
            Request::RemoveMirror => self.asked_to_remove_mirror(turn),
            Request::AddMirror => self.asked_to_add_mirror(turn),
            Request::LearnFromPrincipal => self.asked_to_learn(turn),
        }
    }

    fn asked_to_set(&mut self, turn: &mut Turn, mirroring: Mirroring) -> Answer {
        let serves =
            self.reign().is_some_and(|reign| reign.step == Step::Serve && !reign.handing_over);
        match self.durable.record {
            Some(_) if !serves => Answer::Refused(Why::NotPrincipal),
            Some(record) if record.members.sole().is_some() => Answer::Refused(Why::NoMirror),
            Some(record) if record.mirroring == mirroring => Answer::Refused(match mirroring {
                Mirroring::Active => Why::NotSuspended,
                Mirroring::Suspended => Why::Suspended,
            }),
            Some(_) => {
                self.asked_to_suspend(turn, mirroring);
                Answer::Done
            }
            None => Answer::Refused(Why::NotPrincipal),
        }
    }

    /// The operator's word that the mirror, which is away, has not been forced into service (R8).
    fn asked_to_serve_alone(&mut self, turn: &mut Turn) -> Answer {
        let Some(record) = self.durable.record else { return Answer::Refused(Why::NoData) };
        if record.members.has_witness() {
            return Answer::Refused(Why::HasWitness);
        }
        if Some(record.principal) != self.me_partner() {
            return Answer::Refused(Why::NotPrincipal);
        }
        if self.reigns() {
            return Answer::Refused(Why::AlreadyPrincipal);
        }
        self.end_candidacy(turn);
        let side = self.side_mut();
        side.word = true;
        side.stand_after = turn.now;
        Answer::Begun
    }
}
