//! What the configuration wants of the session, and the next change towards it. Whoever serves
//! makes the changes, by the same rules as an operator's; what is refused is tried again.

use crate::input::Wanted;
use crate::output::{Answer, Why};
use crate::principal::Step;
use crate::record::Members;
use crate::session::{Session, Turn};
use crate::term::WitnessId;
use crate::time::{Instant, Timing};
use crate::view::Unmet;

/// The next change towards what is wanted.
enum Change {
    RemoveMirror,
    AddMirror,
    Witness(Option<WitnessId>),
    /// It has begun, and goes on by itself.
    UnderWay,
}

impl Session {
    /// Takes over a changed configuration. A member that runs already never holds a lease that it
    /// gave for less long than before, and never counts its own for longer: whatever the others
    /// have been told by now, nobody serves beyond what a voter grants (section 7).
    pub(crate) fn configured(
        &mut self,
        now: Instant,
        witness: Option<WitnessId>,
        wanted: Option<Wanted>,
        timing: Timing,
    ) {
        self.config.witness = witness;
        self.config.wanted = wanted;
        self.longest_given = self.longest_given.max(timing.lease_given());
        let before = self.config.timing;
        let careful = Timing {
            lease: before.lease.min(timing.lease),
            detection: before.detection.max(timing.detection),
            ..timing
        };
        if careful.fault().is_none() && careful != before {
            self.change_times(now, careful);
        }
        if let Some(side) = self.side.as_mut() {
            side.converge_after = Instant::default();
            side.converge_refused = None;
        }
    }

    /// Nobody has spoken at the new pace yet, so nobody is accused of silence. A lease that runs
    /// goes on, but no longer than a new one would: the heartbeats so far were too rare for it.
    fn change_times(&mut self, now: Instant, timing: Timing) {
        let stops = self.must_stop_at();
        self.config.timing = timing;
        if let Some(reign) = self.reign_mut() {
            reign.adopted_until = stops.map(|at| at.min(now.after(timing.lease)));
        }
        if let Some(side) = self.side.as_mut() {
            side.listen_since = now;
            side.next_beat = now;
        }
    }

    /// The times that hold now.
    pub fn timing(&self) -> Timing {
        self.config.timing
    }

    pub(crate) fn converge(&mut self, turn: &mut Turn) {
        let serves =
            self.reign().is_some_and(|reign| reign.step == Step::Serve && !reign.handing_over);
        let due = self.side.as_ref().is_some_and(|side| turn.now >= side.converge_after);
        if !serves || !due {
            return;
        }
        let answer = match self.next_change() {
            None => {
                self.side_mut().converge_refused = None;
                return;
            }
            Some(Change::UnderWay) => return,
            Some(Change::RemoveMirror) => self.asked_to_remove_mirror(turn),
            Some(Change::AddMirror) if !self.partner_knocks(turn.now) => {
                Answer::Refused(Why::PartnerAway)
            }
            Some(Change::AddMirror) => self.asked_to_add_mirror(turn),
            Some(Change::Witness(to)) => self.asked_to_change_witness(turn, to),
        };
        let pause = self.config.timing.heartbeat;
        let side = self.side_mut();
        side.converge_after = turn.now.after(pause);
        side.converge_refused = match answer {
            Answer::Refused(why) => Some(why),
            Answer::Begun | Answer::Done => None,
        };
    }

    fn next_change(&self) -> Option<Change> {
        let (wanted, members) = (self.config.wanted?, self.durable.record?.members);
        let removes = self.reign().is_some_and(|reign| reign.removes_mirror);
        match (members, wanted) {
            (Members::Sole(_), Wanted::Alone) => None,
            (Members::Sole(_), Wanted::Pair { .. }) => Some(Change::AddMirror),
            (_, Wanted::Alone) if removes => Some(Change::UnderWay),
            (_, Wanted::Alone) => Some(Change::RemoveMirror),
            (_, Wanted::Pair { .. }) if removes => Some(Change::AddMirror),
            (Members::Settled(witness), Wanted::Pair { witness: to }) => {
                (witness != to).then_some(Change::Witness(to))
            }
            (Members::Changing { new, .. }, Wanted::Pair { witness: to }) if new == to => {
                Some(Change::UnderWay)
            }
            // By way of the old one: every quorum of the two sets contains one of the old set.
            (Members::Changing { old, .. }, Wanted::Pair { .. }) => Some(Change::Witness(old)),
        }
    }

    /// A sole principal that took in a mirror which is not there would need it at its next start.
    fn partner_knocks(&self, now: Instant) -> bool {
        let cancels = self.reign().is_some_and(|reign| reign.removes_mirror);
        let lately = self.config.timing.partner_timeout;
        let knocked = self.side.as_ref().and_then(|side| side.knocked);
        cancels || knocked.is_some_and(|at| now.since(at) < lately)
    }

    pub(crate) fn unmet(&self) -> Option<Unmet> {
        let wanted = self.config.wanted?;
        self.next_change()?;
        let why = self.side.as_ref().and_then(|side| side.converge_refused);
        Some(Unmet { wanted, why })
    }
}
