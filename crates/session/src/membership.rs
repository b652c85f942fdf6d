//! R12: the witness is added, replaced or removed while the session runs, by two records of the
//! serving principal. Between them every quorum must hold in the old set and in the new one.

use crate::message::Body;
use crate::mutant::Mutant;
use crate::output::{Answer, Cause, Why};
use crate::principal::Step;
use crate::record::Members;
use crate::session::{Session, Turn};
use crate::term::{Member, WitnessId};

impl Session {
    pub(crate) fn asked_to_change_witness(
        &mut self,
        turn: &mut Turn,
        to: Option<WitnessId>,
    ) -> Answer {
        let serves =
            self.reign().is_some_and(|reign| reign.step == Step::Serve && !reign.handing_over);
        let (true, Some(record)) = (serves, self.durable.record) else {
            return Answer::Refused(Why::NotPrincipal);
        };
        let partner = self.other_partner().map(Member::Partner);
        let there = partner.is_some_and(|partner| {
            let gap = self.silence(partner, turn.now);
            gap.is_some_and(|gap| gap < self.config.timing.partner_timeout)
                && self.reign().is_some_and(|reign| reign.accepted.contains(&partner))
        });
        let members = match record.members {
            Members::Settled(current) if current == to => {
                return Answer::Refused(Why::NoSuchChange);
            }
            // The quorums of a change need the other partner: without it the pool would stop.
            Members::Settled(_) if !there => return Answer::Refused(Why::PartnerAway),
            Members::Settled(_) if self.breaks(Mutant::WitnessChangedAtOnce) => {
                Members::Settled(to)
            }
            Members::Settled(current) => Members::Changing { old: current, new: to },
            Members::Changing { old, .. } if old == to => Members::Settled(old),
            Members::Changing { .. } => return Answer::Refused(Why::Busy),
            Members::Sole(_) => return Answer::Refused(Why::NoMirror),
        };
        let next = record.revised(|next| next.members = members);
        self.write_record(turn, next, Cause::OperatorAsked);
        Answer::Begun
    }

    /// The second record, once both partners and the new witness have accepted the first.
    pub(crate) fn advance_membership(&mut self, turn: &mut Turn) {
        let (Some(record), Some(reign)) = (self.durable.record, self.reign()) else { return };
        let Members::Changing { new, .. } = record.members else { return };
        let Some(partner) = self.other_partner().map(Member::Partner) else { return };
        let witness = new.is_none_or(|id| reign.accepted.contains(&Member::Witness(id)));
        if witness && reign.accepted.contains(&partner) {
            let former = self.others();
            let next = record.revised(|next| next.members = Members::Settled(new));
            self.write_record(turn, next, Cause::WitnessChanged);
            for member in former.into_iter().filter(|member| !next.members.contains(*member)) {
                self.send(turn, member, Body::Proposed);
            }
        }
    }
}
