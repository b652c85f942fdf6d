//! R13: a pool of one server. The record may say that one partner has the session for itself: it
//! serves by its own vote, needs no lease and no acceptance, and hears nobody.
//!
//! Only the serving principal writes that, and only once its exposure has been accepted (R3): from
//! then on no other member can be elected, so nobody needs to be asked any more.

use crate::message::{Body, Message};
use crate::mutant::Mutant;
use crate::output::{Answer, Cause, Rejection, Why};
use crate::principal::Step;
use crate::record::{Members, Protection};
use crate::session::{Session, Turn};
use crate::term::{Member, Partner};

impl Session {
    /// This partner has the session for itself.
    pub(crate) fn is_sole(&self) -> bool {
        self.sole_by_record().is_some_and(|sole| Some(sole) == self.me_partner())
    }

    /// The other partner has it.
    pub(crate) fn was_removed(&self) -> bool {
        let me = self.me_partner();
        self.sole_by_record().is_some_and(|sole| me.is_some() && Some(sole) != me)
    }

    fn sole_by_record(&self) -> Option<Partner> {
        self.durable.record.and_then(|record| record.members.sole())
    }

    fn serves_fully(&self) -> bool {
        self.reign().is_some_and(|reign| reign.step == Step::Serve && !reign.handing_over)
    }

    pub(crate) fn asked_to_remove_mirror(&mut self, turn: &mut Turn) -> Answer {
        if !self.serves_fully() {
            return Answer::Refused(Why::NotPrincipal);
        }
        if self.is_sole() {
            return Answer::Refused(Why::NoSuchChange);
        }
        if let Some(reign) = self.reign_mut() {
            reign.removes_mirror = true;
        }
        self.abort_protection(turn);
        self.expose(turn, Cause::OperatorAsked);
        Answer::Begun
    }

    /// The last step, once another member has accepted that this principal is exposed. The former
    /// members are told; what the other partner was, is over: it comes back as a new one.
    pub(crate) fn advance_removal(&mut self, turn: &mut Turn) {
        let (Some(me), Some(record)) = (self.me_partner(), self.durable.record) else { return };
        let due = self.reign().is_some_and(|reign| {
            reign.removes_mirror
                && (reign.exposure_accepted || self.breaks(Mutant::SoleBeforeAcceptance))
        });
        if !due || !self.serves_fully() || record.protection != Protection::Exposed {
            return;
        }
        let former = self.others();
        let partner = Member::Partner(me.other());
        let entry = self.keep().others.entry(partner).or_default();
        entry.dropped.extend(entry.identity.take());
        entry.shown.record = None;
        if let Some(reign) = self.reign_mut() {
            reign.removes_mirror = false;
        }
        let next = record.revised(|next| next.members = Members::Sole(me));
        self.write_record(turn, next, Cause::MirrorRemoved);
        for member in former {
            self.send(turn, member, Body::Proposed);
        }
    }

    pub(crate) fn asked_to_add_mirror(&mut self, turn: &mut Turn) -> Answer {
        let (true, Some(record)) = (self.serves_fully(), self.durable.record) else {
            return Answer::Refused(Why::NotPrincipal);
        };
        if let Some(reign) = self.reign_mut()
            && core::mem::take(&mut reign.removes_mirror)
        {
            return Answer::Done;
        }
        if !self.is_sole() {
            return Answer::Refused(Why::NoSuchChange);
        }
        // Nobody has a vote until this is on disk: the new partner is heard from then on.
        let next = record.revised(|next| next.members = Members::Settled(None));
        self.write_record(turn, next, Cause::MirrorAdded);
        Answer::Begun
    }

    /// A sole partner hears nobody, but tells whoever knows less that it is one.
    pub(crate) fn turn_away(&mut self, turn: &mut Turn, message: &Message) {
        if let (Member::Partner(_), Some(side)) = (message.from, self.side.as_mut()) {
            side.knocked = Some(turn.now);
        }
        let knows_less =
            message.record.is_some_and(|record| Some(record.id) < self.durable.record_id());
        if knows_less {
            self.send(turn, message.from, Body::Proposed);
        }
        self.reject(turn, Rejection::NotAMember);
    }
}
