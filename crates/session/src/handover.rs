//! R9: the manual failover. The principal shuts down cleanly, resigns, and votes for its mirror,
//! which stands as soon as it holds all of the WAL. It needs no witness.

use crate::input::MirrorSeen;
use crate::output::{Answer, Cause, Order, Rejection, Why};
use crate::partner::{Server, Stance};
use crate::principal::Step;
use crate::record::{Mirroring, Protection};
use crate::session::{Session, Turn};
use crate::term::{Member, Partner, Position};

impl Session {
    pub(crate) fn asked_to_fail_over(&mut self, turn: &mut Turn, to: Option<Partner>) -> Answer {
        if let Some(why) = self.failover_obstacle(turn, to) {
            return Answer::Refused(why);
        }
        let deadline = self.config.timing.shutdown_timeout;
        if let Some(reign) = self.reign_mut() {
            reign.handing_over = true;
        }
        turn.cause(Cause::OperatorAsked);
        self.order(turn, Order::ShutDown { deadline });
        Answer::Begun
    }

    /// Asked before the mirror is level, a rival that accepts loses rows. This one refuses.
    fn failover_obstacle(&self, turn: &Turn, to: Option<Partner>) -> Option<Why> {
        let (Some(record), Some(reign)) = (self.durable.record, self.reign()) else {
            return Some(Why::NotPrincipal);
        };
        if to.is_some() && to == self.me_partner() {
            return Some(Why::AlreadyPrincipal);
        }
        if reign.step < Step::Serve || reign.handing_over {
            return Some(Why::Busy);
        }
        if record.mirroring == Mirroring::Suspended {
            return Some(Why::Suspended);
        }
        if record.members.sole().is_some() {
            return Some(Why::NoMirror);
        }
        if record.protection == Protection::Exposed {
            return Some(Why::NotMirrored);
        }
        if reign.mirror == MirrorSeen::Away || !self.mirror_could_take_over(turn.now) {
            return Some(Why::MirrorNotStreaming);
        }
        let mirror = self.other_partner().map(Member::Partner);
        let accepted = mirror.is_some_and(|mirror| reign.accepted.contains(&mirror));
        let valid = mirror
            .and_then(|mirror| self.live.get(&mirror))
            .is_some_and(|live| live.report.position.is_some());
        (!accepted || !valid).then_some(Why::MirrorNotLevel)
    }

    /// The clean shutdown ended, or was ended. Either way this term is over; the mirror has every
    /// acknowledged commit, because the record says `Mirrored` and the guard is closed.
    pub(crate) fn shut_down(&mut self, turn: &mut Turn, position: Option<Position>) {
        let handing_over = self.reign().is_some_and(|reign| reign.handing_over);
        let Some(term) = self.reign().map(|reign| reign.term).filter(|_| handing_over) else {
            return self.reject(turn, Rejection::OutOfPlace);
        };
        turn.cause(match position {
            Some(_) => Cause::OperatorAsked,
            None => Cause::HandoverFailed,
        });
        let side = self.side_mut();
        side.stance = Stance::Idle;
        side.server = Server::Off;
        if let Some(position) = position {
            side.position = Some(position);
        }
        self.resign(turn, term, position);
    }
}
