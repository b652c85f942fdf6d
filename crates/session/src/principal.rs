//! A partner that has been elected: its reign from the election to its end. This file says when
//! it must stop (R2), when it exposes itself (R3) and what others have accepted; `promotion.rs`
//! brings it to its first write, `protect.rs` back to a mirror, `handover.rs` to its successor.

use alloc::collections::BTreeSet;

use crate::input::MirrorSeen;
use crate::message::{Body, Message};
use crate::mutant::Mutant;
use crate::output::{Cause, Event, Order, Rejection};
use crate::partner::{Resigns, Server, Stance};
use crate::protect::Protect;
use crate::record::{Mirroring, Protected, Protection, Record};
use crate::session::{Session, Turn};
use crate::term::{Lsn, Member, Position, Term};
use crate::time::Instant;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reign {
    pub term: Term,
    /// Only heartbeats sent since then count for the lease: earlier ones gave none.
    pub since: Instant,
    pub step: Step,
    /// Until then it may go on without a lease of its own: its agent has restarted (R1), or its
    /// times have become shorter (R14).
    pub adopted_until: Option<Instant>,
    /// The members whose record is exactly this principal's own.
    pub accepted: BTreeSet<Member>,
    /// A quorum has accepted an `Exposed` record of this term, and none has said `Mirrored` since.
    pub exposure_accepted: bool,
    pub guard: Guard,
    pub protect: Protect,
    pub protect_after: Instant,
    /// Attempts at protection in a row that failed.
    pub protect_failures: u32,
    /// The number of the last position that was asked for.
    pub reads: u32,
    /// The guard is not opened again before this.
    pub guard_after: Instant,
    pub mirror: MirrorSeen,
    /// When the mirror's flushed position last moved, or nothing was waiting for it.
    pub mirror_moved: Instant,
    /// The operator asked for a manual failover: PostgreSQL is being shut down cleanly.
    pub handing_over: bool,
    pub checkpointed: bool,
    pub protected: Option<Protected>,
    /// Forced, and no quorum has accepted a record of this term: no lease is needed yet (R11).
    pub unconfirmed: bool,
    /// The mirror is to be removed: the record will say so once its exposure is accepted (R13).
    pub removes_mirror: bool,
}

/// How far a reign has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Step {
    /// The receiver is being stopped, the WAL replayed and the boundary read.
    Prepare,
    Promote,
    /// A primary already; the barrier of the term has not been committed.
    Barrier,
    /// An established primary that a restarted agent found, and that has no lease yet.
    Adopted,
    Serve,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Guard {
    Closed,
    Opening,
    Open,
    Closing,
}

impl Reign {
    pub fn new(term: Term, since: Instant, step: Step, now: Instant) -> Reign {
        Reign {
            term,
            since,
            step,
            adopted_until: None,
            accepted: BTreeSet::new(),
            exposure_accepted: false,
            guard: Guard::Closed,
            protect: Protect::No,
            protect_after: now,
            protect_failures: 0,
            reads: 0,
            guard_after: now,
            mirror: MirrorSeen::Away,
            mirror_moved: now,
            handing_over: false,
            checkpointed: false,
            protected: None,
            unconfirmed: false,
            removes_mirror: false,
        }
    }
}

impl Session {
    pub(crate) fn reign(&self) -> Option<&Reign> {
        self.side.as_ref()?.principal()
    }

    pub(crate) fn reign_mut(&mut self) -> Option<&mut Reign> {
        match self.side.as_mut().map(|side| &mut side.stance) {
            Some(Stance::Reigning(reign)) => Some(reign),
            Some(
                Stance::Idle | Stance::PreVoting(_) | Stance::Standing(_) | Stance::Leaving { .. },
            )
            | None => None,
        }
    }

    /// Elected: whoever voted has accepted the record of the new term and given a lease.
    pub(crate) fn begin_reign(
        &mut self,
        turn: &mut Turn,
        term: Term,
        granted: &BTreeSet<Member>,
        asked: Instant,
    ) {
        let mut reign = Reign::new(term, turn.now, Step::Prepare, turn.now);
        reign.accepted = granted.clone();
        reign.exposure_accepted = self.breaks(Mutant::WinnerExposesItself);
        for (member, live) in &mut self.live {
            live.answered = granted.contains(member).then_some(asked);
        }
        let side = self.side_mut();
        side.stance = Stance::Reigning(reign);
        side.refusals = 0;
        side.level_wanted = None;
        side.next_beat = turn.now;
        self.order(turn, Order::PreparePromotion { term });
    }

    /// A restarted agent goes on where it was, once it has a lease again; its guard opens only
    /// after its `Exposed` record has been accepted again (R1).
    pub(crate) fn adopt_running_primary(&mut self, turn: &mut Turn) {
        let Some(record) = self.durable.record else { return };
        let mut reign = Reign::new(record.term(), turn.now, Step::Adopted, turn.now);
        reign.adopted_until = Some(turn.now.after(self.config.timing.lease / 2));
        reign.unconfirmed = record.forced.is_some_and(|forced| forced.term == record.term())
            && !self.was_accepted_elsewhere(&record);
        // Not `Away` before the first probe has looked.
        reign.mirror = MirrorSeen::Streaming { flushed: Lsn(0), end: Lsn(0) };
        let side = self.side_mut();
        side.server = Server::Primary;
        side.position = None;
        side.stance = Stance::Reigning(reign);
        side.next_beat = turn.now;
        self.propose(turn);
    }

    /// Another member has shown a record of this one's term.
    fn was_accepted_elsewhere(&self, record: &Record) -> bool {
        self.durable
            .others
            .values()
            .any(|other| other.shown.record.is_some_and(|shown| shown.term >= record.term()))
    }

    /// An adopted primary serves from its first lease on (R1).
    fn serve_adopted(&mut self, turn: &mut Turn) {
        let Some(reign) = self.reign() else { return };
        let (term, forced) = (reign.term, reign.unconfirmed);
        let leased = self.lease_end().is_none_or(|end| turn.now < end);
        if reign.step != Step::Adopted || !(leased || forced) {
            return;
        }
        if let Some(reign) = self.reign_mut() {
            reign.step = Step::Serve;
            reign.adopted_until = None;
        }
        self.side_mut().lived_through = true;
        turn.cause(Cause::Restarted);
        self.order(turn, Order::AdmitClients { term });
    }

    pub(crate) fn settle_principal(&mut self, turn: &mut Turn) {
        self.confirm_force(turn);
        let needs_lease = self.reign().is_some_and(|reign| !reign.unconfirmed);
        if needs_lease && self.must_stop_at().is_some_and(|at| turn.now >= at) {
            return self.leave(turn, Cause::LeaseLost, Resigns::No);
        }
        self.serve_adopted(turn);
        self.leave_if_ailing(turn);
        if self.reign().is_none() {
            return;
        }
        self.advance_membership(turn);
        if self.mirror_is_lost(turn.now) {
            self.expose(turn, Cause::MirrorLost);
        }
        self.note_exposure_accepted();
        self.converge(turn);
        self.advance_removal(turn);
        self.settle_protection(turn);
        self.open_guard_if_due(turn);
    }

    // What ends a reign.

    pub(crate) fn stop_if_outranked(&mut self, turn: &mut Turn) {
        if self.reign().is_some_and(|reign| self.known_promise > reign.term) {
            self.leave(turn, Cause::HigherPromise, Resigns::No);
        }
    }

    pub(crate) fn abandon_reign(&mut self, turn: &mut Turn, cause: Cause) {
        if self.reign().is_some() {
            self.leave(turn, cause, Resigns::No);
        }
    }

    pub(crate) fn leave(&mut self, turn: &mut Turn, cause: Cause, resigns: Resigns) {
        let Some(term) = self.reign().map(|reign| reign.term) else { return };
        turn.cause(cause);
        self.stop_server(turn, term, resigns);
    }

    /// Its PostgreSQL died: the term is over, and the others hear it at once (R9).
    pub(crate) fn crashed_while_reigning(&mut self, turn: &mut Turn) {
        let Some(term) = self.reign().map(|reign| reign.term) else { return };
        turn.cause(Cause::PostgresExited);
        let side = self.side_mut();
        side.stance = Stance::Idle;
        side.server = Server::Off;
        self.resign(turn, term, None);
    }

    /// This partner will not serve `term` again. If its mirror could take over, that one gets the
    /// time for it; else this partner stands again as soon as its PostgreSQL runs.
    pub(crate) fn resign(&mut self, turn: &mut Turn, term: Term, handover: Option<Position>) {
        self.keep().resigned = Some(term);
        let wait = match handover {
            Some(_) => self.config.timing.handover_timeout,
            None => self.config.timing.detection,
        };
        let until = match self.mirror_could_take_over(turn.now) {
            true => turn.now.after(wait),
            false => turn.now,
        };
        let side = self.side_mut();
        side.handed_over = handover;
        side.alone_after = until;
        side.stand_after = until;
        self.send_to_others(turn, &Body::Resigned { term, handover });
    }

    /// A principal whose volume or server fails leaves while its mirror can take over. Alone it
    /// goes on: it is the only one that has everything.
    pub(crate) fn leave_if_ailing(&mut self, turn: &mut Turn) {
        let streams = self
            .reign()
            .is_some_and(|reign| reign.step == Step::Serve && reign.mirror != MirrorSeen::Away);
        if self.ails(turn.now) && streams && self.mirror_could_take_over(turn.now) {
            self.leave(turn, Cause::PostgresUnhealthy, Resigns::Yes);
        }
    }

    // R3: exposure.

    pub(crate) fn mirror_seen(&mut self, turn: &mut Turn, seen: MirrorSeen) {
        let Some(reign) = self.reign_mut() else {
            return self.reject(turn, Rejection::OutOfPlace);
        };
        let moved = match (reign.mirror, seen) {
            (MirrorSeen::Away, _) | (_, MirrorSeen::Away) => true,
            (
                MirrorSeen::Streaming { flushed: before, .. },
                MirrorSeen::Streaming { flushed, end },
            ) => flushed > before || flushed >= end,
        };
        if moved {
            reign.mirror_moved = turn.now;
        }
        reign.mirror = seen;
    }

    /// Whether a principal that is `Mirrored` can no longer count on its mirror.
    fn mirror_is_lost(&self, now: Instant) -> bool {
        let Some(reign) = self.reign() else { return false };
        let mirrored =
            self.durable.record.is_some_and(|record| record.protection == Protection::Mirrored);
        if !mirrored || reign.handing_over || reign.step < Step::Serve {
            return false;
        }
        match reign.mirror {
            MirrorSeen::Away => true,
            MirrorSeen::Streaming { .. } => self.mirror_lost_at().is_some_and(|at| now >= at),
        }
    }

    /// The mirror shows a new identity. Whoever streams may be another process that bears its name:
    /// what that one flushes is not on this partner's disk before its agent has said so (R4).
    pub(crate) fn lose_mirror(&mut self, turn: &mut Turn) {
        if self.reign().is_some_and(|reign| !reign.handing_over) {
            self.expose(turn, Cause::MirrorLost);
        }
    }

    /// When the mirror will count as lost if nothing is heard from it and nothing moves.
    pub(crate) fn mirror_lost_at(&self) -> Option<Instant> {
        let reign = self.reign()?;
        let timeout = self.config.timing.partner_timeout;
        let partner = Member::Partner(self.other_partner()?);
        let heard = self.live.get(&partner).and_then(|live| live.heard).unwrap_or(reign.since);
        let listens = self.side.as_ref()?.listen_since;
        let link = heard.max(reign.since).max(listens).after(timeout);
        match reign.mirror {
            MirrorSeen::Away => Some(reign.mirror_moved),
            MirrorSeen::Streaming { flushed, end } if end > flushed => {
                Some(link.min(reign.mirror_moved.after(timeout)))
            }
            MirrorSeen::Streaming { .. } => Some(link),
        }
    }

    /// Writes down and proposes that commits are on this disk alone. The guard opens only when
    /// another member has accepted exactly this record.
    pub(crate) fn expose(&mut self, turn: &mut Turn, cause: Cause) {
        let Some(record) = self.durable.record else { return };
        if record.protection == Protection::Exposed {
            return;
        }
        let exposed = record.revised(|next| next.protection = Protection::Exposed);
        self.write_record(turn, exposed, cause);
    }

    /// Makes `record` this principal's own and proposes it. What the others had accepted before
    /// was another record.
    pub(crate) fn write_record(&mut self, turn: &mut Turn, record: Record, cause: Cause) {
        let before = self.durable.record.map(|record| record.protection);
        self.keep().record = Some(record);
        let mutant = self.breaks(Mutant::GuardBeforeAcceptance);
        if let Some(reign) = self.reign_mut() {
            reign.accepted.clear();
            if before != Some(record.protection) {
                reign.exposure_accepted = mutant;
            }
        }
        self.tell(turn, Event::RecordChanged { id: record.id, cause });
        self.propose(turn);
    }

    pub(crate) fn propose(&mut self, turn: &mut Turn) {
        self.send_to_others(turn, &Body::Proposed);
    }

    /// Any message whose record is exactly this principal's own shows that its sender has
    /// accepted it, unless the sender has promised a higher term since.
    pub(crate) fn note_acceptance(&mut self, turn: &mut Turn, message: &Message) {
        let _ = turn;
        let (own, late) = (self.durable.record, self.breaks(Mutant::LateAcceptanceCounts));
        let Some(reign) = self.reign_mut() else { return };
        let exact = own.is_some() && message.record == own && message.promise <= reign.term;
        let any_revision = match &message.body {
            Body::Accepted { id } => late && id.term == reign.term,
            _ => false,
        };
        if exact || any_revision {
            reign.accepted.insert(message.from);
        }
    }

    fn note_exposure_accepted(&mut self) {
        let (Some(me), Some(record)) = (self.me_partner(), self.durable.record) else { return };
        let Some(reign) = self.reign_mut() else { return };
        let quorum =
            record.members.another_in_each_witnessed_set(me, |m| reign.accepted.contains(&m));
        if record.protection == Protection::Exposed && (quorum || reign.unconfirmed) {
            reign.exposure_accepted = true;
        }
    }

    /// A forced principal is an ordinary one from the moment a quorum accepts its record (R11).
    fn confirm_force(&mut self, turn: &mut Turn) {
        let (Some(me), Some(record)) = (self.me_partner(), self.durable.record) else { return };
        let grace = turn.now.after(self.config.timing.lease);
        let Some(reign) = self.reign_mut() else { return };
        let other = reign.accepted.contains(&Member::Partner(me.other()));
        let quorum = match record.members.has_witness() {
            true => {
                record.members.another_in_each_witnessed_set(me, |m| reign.accepted.contains(&m))
            }
            false => other || record.members.sole() == Some(me),
        };
        if reign.unconfirmed && quorum {
            reign.unconfirmed = false;
            reign.adopted_until = Some(grace);
        }
    }

    // The guard.

    fn open_guard_if_due(&mut self, turn: &mut Turn) {
        let exposed =
            self.durable.record.is_some_and(|record| record.protection == Protection::Exposed);
        let now = turn.now;
        let Some(reign) = self.reign_mut() else { return };
        let due = exposed
            && now >= reign.guard_after
            && reign.exposure_accepted
            && reign.step >= Step::Barrier
            && reign.guard == Guard::Closed
            && reign.protect == Protect::No
            && !reign.handing_over;
        if due {
            reign.guard = Guard::Opening;
            self.order(turn, Order::OpenGuard);
        }
    }

    pub(crate) fn guard_opened(&mut self, turn: &mut Turn) {
        match self.reign_mut() {
            Some(reign) if reign.guard == Guard::Opening => reign.guard = Guard::Open,
            Some(_) | None => self.reject(turn, Rejection::Stale),
        }
    }

    /// The guard broke; it opens again at the next settling, unless it was to close anyway.
    pub(crate) fn guard_lost(&mut self, turn: &mut Turn) {
        let again = turn.now.after(self.config.timing.heartbeat / 4);
        match self.reign_mut().map(|reign| reign.guard) {
            Some(Guard::Opening | Guard::Open) => {
                if let Some(reign) = self.reign_mut() {
                    reign.guard = Guard::Closed;
                    reign.guard_after = again;
                }
            }
            Some(Guard::Closing) => self.guard_closed(turn),
            Some(Guard::Closed) | None => self.reject(turn, Rejection::Stale),
        }
    }

    pub(crate) fn asked_to_suspend(&mut self, turn: &mut Turn, mirroring: Mirroring) {
        let Some(record) = self.durable.record else { return };
        let next = record.revised(|next| {
            next.mirroring = mirroring;
            next.protection = Protection::Exposed;
        });
        self.abort_protection(turn);
        self.write_record(turn, next, Cause::OperatorAsked);
    }
}
