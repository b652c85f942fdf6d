//! Heartbeats: partners show that they live and ask for leases; every member answers. A witness
//! speaks only when it is spoken to, so that one of them is cheap for thousands of pairs.

use alloc::vec::Vec;

use crate::durable::Suspension;
use crate::input::MirrorSeen;
use crate::message::{Body, Report, Stamp};
use crate::output::{Alarm, Event, Rejection};
use crate::partner::Stance;
use crate::principal::Step;
use crate::record::{Boundary, Promotion, Protection, Record};
use crate::session::{Session, Turn};
use crate::term::{Member, Term};
use crate::time::Instant;

impl Session {
    pub(crate) fn beat_if_due(&mut self, turn: &mut Turn) {
        let heartbeat = self.config.timing.heartbeat;
        if turn.now < self.side_mut().next_beat {
            return;
        }
        self.side_mut().next_beat = turn.now.after(heartbeat);
        for other in self.others() {
            if self.is_beat_due(other, turn.now) {
                self.beat(turn, other);
            }
        }
        self.repeat_resignation(turn);
        self.watch_witness(turn);
    }

    fn beat(&mut self, turn: &mut Turn, to: Member) {
        self.live(to).last_beat = Some(turn.now);
        let stamp = Stamp { run: self.config.run, sent: turn.now };
        let report = self.report_for(to);
        self.send(turn, to, Body::Heartbeat { stamp, report });
    }

    /// The other partner hears every heartbeat; the witness fewer while all is well, but at the
    /// full rate from the mirror's first late answer on (section 7).
    fn is_beat_due(&self, other: Member, now: Instant) -> bool {
        let Member::Witness(_) = other else { return true };
        let timing = &self.config.timing;
        let last = self.live.get(&other).and_then(|live| live.last_beat);
        let interval =
            if self.all_is_well(now) { timing.witness_interval() } else { timing.heartbeat };
        // Due if the next heartbeat's moment would be too late.
        last.is_none_or(|last| now.after(timing.heartbeat) > last.after(interval))
    }

    fn all_is_well(&self, now: Instant) -> bool {
        let Some(partner) = self.other_partner().map(Member::Partner) else { return true };
        let timing = &self.config.timing;
        let fresh = self
            .silence(partner, now)
            .is_some_and(|silence| silence < timing.heartbeat + timing.heartbeat / 2);
        let mirrored =
            self.durable.record.is_some_and(|record| record.protection == Protection::Mirrored);
        fresh && mirrored && self.side.as_ref().is_some_and(|side| side.stance_is_calm())
    }

    /// A resignation that nobody heard would cost a whole lease.
    fn repeat_resignation(&mut self, turn: &mut Turn) {
        let (Some(record), Some(term)) = (self.durable.record, self.durable.resigned) else {
            return;
        };
        let concerns = record.term() == term && Some(record.principal) == self.me_partner();
        if concerns && !self.reigns() {
            let handover = self.side_mut().handed_over;
            self.send_to_others(turn, &Body::Resigned { term, handover });
        }
    }

    pub(crate) fn heartbeat_heard(
        &mut self,
        turn: &mut Turn,
        from: Member,
        record: Option<Record>,
        stamp: Stamp,
        report: Report,
    ) {
        if let (Member::Partner(holder), Some(record), true) = (from, record, report.serving) {
            self.live(from).served = Some(turn.now);
            self.protected = self.protected.max(report.protected);
            self.give_lease(turn, holder, &record);
        }
        self.take_report(turn, from, report);
        let report = self.report_for(from);
        self.send(turn, from, Body::HeartbeatAnswered { stamp, report });
    }

    /// An answer is a lease only if it answers a heartbeat of this reign.
    pub(crate) fn heartbeat_answered(
        &mut self,
        turn: &mut Turn,
        from: Member,
        header: (Term, Option<Record>),
        stamp: Stamp,
        report: Report,
    ) {
        let (promise, record) = header;
        // A partner without its state may not be the one that the others mean (R10).
        let leases = record.is_some() || matches!(from, Member::Witness(_));
        if stamp.run != self.config.run {
            return self.reject(turn, Rejection::Stale);
        }
        if let Some((since, term)) = self.reign().map(|reign| (reign.since, reign.term))
            && stamp.sent >= since
            && promise <= term
            && leases
        {
            let live = self.live(from);
            live.answered = live.answered.max(Some(stamp.sent));
        }
        self.take_report(turn, from, report);
    }

    fn take_report(&mut self, turn: &mut Turn, from: Member, mut report: Report) {
        let promotions = core::mem::take(&mut report.promotions);
        self.learn_promotions(&promotions);
        self.live(from).report = report;
        if self.learn_from_principal && self.is_amnesiac() {
            self.relearn(turn);
        }
    }

    pub(crate) fn report_for(&self, to: Member) -> Report {
        let lineage = self.lineage();
        let knows = self.live.get(&to).is_some_and(|live| live.report.lineage == lineage);
        let side = self.side.as_ref();
        let usable =
            self.durable.data.is_some_and(|data| data.valid && data.suspension == Suspension::No);
        let promotions: Vec<Promotion> = match knows {
            true => Vec::new(),
            false => self.durable.promotions.values().copied().collect(),
        };
        Report {
            serving: self.reign().is_some(),
            can_vote: !self.is_amnesiac(),
            sees_witness: self.side.as_ref().is_some_and(|side| !side.witness_silent),
            position: side.and_then(|side| side.position).filter(|_| usable),
            protected: self.reign().and_then(|reign| reign.protected),
            checkpointed: self.reign().is_some_and(|reign| reign.checkpointed),
            lineage,
            promotions,
        }
    }

    /// A digest of all promotions that this member knows (FNV-1a over their numbers).
    fn lineage(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mix = |number: u64| hash = (hash ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        for known in self.durable.promotions.values() {
            mix(known.term.0);
            mix(u64::from(known.timeline.0));
            mix(known.fork.lsn.0);
            mix(u64::from(known.fork.timeline.0));
            mix(match known.boundary {
                Boundary::Known(xid) => xid.0,
                Boundary::Unknown => u64::MAX,
            });
            mix(u64::from(known.established));
        }
        hash
    }

    /// Says at once when the witness falls silent: nothing stops, but protection is gone.
    fn watch_witness(&mut self, turn: &mut Turn) {
        let lease = self.config.timing.lease;
        let since = self.side_mut().listen_since;
        let members = self.members();
        let side = self.side_mut();
        if side.watched.is_none_or(|(watched, _)| watched != members) {
            side.watched = Some((members, turn.now));
        }
        // A new witness is not silent before it has had the time to speak.
        let named = side.watched.map_or(since, |(_, named)| named.max(since));
        let silent = members.witnesses().any(|witness| {
            let heard = self.live.get(&Member::Witness(witness)).and_then(|live| live.heard);
            turn.now.since(heard.unwrap_or(named).max(since)) >= lease
        });
        if silent != self.side_mut().witness_silent {
            self.side_mut().witness_silent = silent;
            let alarm = if silent { Alarm::WitnessLost } else { Alarm::WitnessBack };
            self.tell(turn, Event::Alarm(alarm));
        }
    }

    /// An agent whose own loop stood still accuses nobody until it has listened for one full
    /// detection time. Its own lease needs no extra care: it counts from the sending of what was
    /// answered, on a clock that went on while the loop did not.
    pub(crate) fn notice_stall(&mut self, turn: &mut Turn) {
        let heartbeat = self.config.timing.heartbeat;
        let late = self.deadline().is_some_and(|due| turn.now > due.after(heartbeat));
        if let (true, Some(side)) = (late, self.side.as_mut()) {
            side.listen_since = turn.now;
        }
    }

    /// When `Input::TimePassed` is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let side = self.side.as_ref()?;
        let reigning = self.reign().map(|reign| {
            let mirrored =
                self.durable.record.is_some_and(|record| record.protection == Protection::Mirrored);
            let watches = mirrored
                && reign.step == Step::Serve
                && !reign.handing_over
                && reign.mirror != MirrorSeen::Away;
            let stop = self.must_stop_at().filter(|_| !reign.unconfirmed);
            let lost = self.mirror_lost_at().filter(|_| watches);
            [stop, lost, self.protection_ends_at()].into_iter().flatten().min()
        });
        [Some(side.next_beat), self.stand_at(), self.bid_ends_at(), reigning.flatten()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets a member that has taken something in do what follows from where it stands now.
    pub(crate) fn settle(&mut self, turn: &mut Turn) {
        match self.side.as_ref().map(|side| &side.stance) {
            None | Some(Stance::Leaving { .. }) => {}
            Some(Stance::Idle) => self.settle_idle(turn),
            Some(Stance::PreVoting(_) | Stance::Standing(_)) => self.settle_candidate(turn),
            Some(Stance::Reigning(_)) => {}
        }
        if self.reign().is_some() {
            self.settle_principal(turn);
            self.beat_if_due(turn);
        }
    }
}
