//! R4: from exposed back to mirrored. Each step waits for the one before: guard closed and its
//! sender process gone, position read, position flushed by the mirror, mirror's agent asked. Only
//! on its yes does the record say `Mirrored`.

use crate::input::MirrorSeen;
use crate::message::{Body, Level};
use crate::mutant::Mutant;
use crate::output::{Cause, Order, Rejection};
use crate::principal::{Guard, Step};
use crate::record::{Mirroring, Protected, Protection, RecordId};
use crate::session::{Session, Turn};
use crate::term::{Lsn, Member, Position};
use crate::time::Instant;

/// How far behind a mirror may be when commits begin to wait for it, in bytes of WAL.
const NEARLY_LEVEL: u64 = 4 << 20;

/// The way to `Mirrored`, and since when this step of it has taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Protect {
    No,
    Closing {
        since: Instant,
    },
    Reading {
        since: Instant,
    },
    /// The mirror has yet to flush `target`.
    Reaching {
        target: Position,
        since: Instant,
    },
    /// The mirror's agent has been asked.
    Asking {
        target: Position,
        since: Instant,
    },
}

impl Protect {
    fn since(self) -> Option<Instant> {
        match self {
            Protect::No => None,
            Protect::Closing { since }
            | Protect::Reading { since }
            | Protect::Reaching { since, .. }
            | Protect::Asking { since, .. } => Some(since),
        }
    }
}

impl Session {
    pub(crate) fn settle_protection(&mut self, turn: &mut Turn) {
        let Some(protect) = self.reign().map(|reign| reign.protect) else { return };
        match protect {
            Protect::No => {
                if self.could_protect(turn.now) {
                    self.begin_protection(turn);
                }
                return;
            }
            Protect::Reaching { target, since } => self.ask_if_reached(turn, target, since),
            Protect::Closing { .. } | Protect::Reading { .. } | Protect::Asking { .. } => {}
        }
        let timeout = self.config.timing.protect_timeout;
        let late = protect.since().is_some_and(|since| turn.now >= since.after(timeout));
        let away = self.reign().is_some_and(|reign| reign.mirror == MirrorSeen::Away);
        if late || away {
            self.abort_protection(turn);
        }
    }

    /// The mirror streams, is nearly level, can be asked, and could be promoted.
    fn could_protect(&self, now: Instant) -> bool {
        let (Some(reign), Some(record)) = (self.reign(), self.durable.record) else { return false };
        let Some(partner) = self.other_partner() else { return false };
        let level = match reign.mirror {
            MirrorSeen::Away => false,
            MirrorSeen::Streaming { flushed, end } => {
                end.0.saturating_sub(flushed.0) <= NEARLY_LEVEL
            }
        };
        let partner = Member::Partner(partner);
        let fresh = self
            .silence(partner, now)
            .is_some_and(|silence| silence < self.config.timing.partner_timeout);
        let valid = self.live.get(&partner).is_some_and(|live| live.report.position.is_some());
        reign.step == Step::Serve
            && !reign.handing_over
            && !reign.removes_mirror
            && record.members.sole().is_none()
            && record.protection == Protection::Exposed
            && record.mirroring == Mirroring::Active
            && now >= reign.protect_after
            && reign.accepted.contains(&partner)
            && level
            && fresh
            && valid
    }

    fn begin_protection(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let skip_guard = self.breaks(Mutant::MirroredWithGuardOpen);
        let Some(reign) = self.reign_mut() else { return };
        match reign.guard {
            Guard::Open | Guard::Opening if !skip_guard => {
                reign.guard = Guard::Closing;
                reign.protect = Protect::Closing { since: now };
                self.order(turn, Order::CloseGuard);
            }
            Guard::Open | Guard::Opening | Guard::Closed => {
                self.read_position(turn);
            }
            Guard::Closing => reign.protect = Protect::Closing { since: now },
        }
    }

    /// The guard's sender process is gone: from now on commits wait for the mirror alone.
    pub(crate) fn guard_closed(&mut self, turn: &mut Turn) {
        let Some(reign) = self.reign_mut() else {
            return self.reject(turn, Rejection::Stale);
        };
        if reign.guard != Guard::Closing {
            return self.reject(turn, Rejection::Stale);
        }
        reign.guard = Guard::Closed;
        if let Protect::Closing { .. } = reign.protect {
            self.read_position(turn);
        }
    }

    /// Asks for a position under a number of its own: the answer to a question from before the
    /// guard was last open would be too low.
    fn read_position(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let Some(reign) = self.reign_mut() else { return };
        reign.reads += 1;
        reign.protect = Protect::Reading { since: now };
        let number = reign.reads;
        self.order(turn, Order::ReadPosition { number });
    }

    pub(crate) fn position_read(&mut self, turn: &mut Turn, number: u32, position: Position) {
        let now = turn.now;
        match self.reign_mut() {
            Some(reign) if reign.reads == number => {
                if let Protect::Reading { .. } = reign.protect {
                    reign.protect = Protect::Reaching { target: position, since: now };
                }
            }
            Some(_) | None => self.reject(turn, Rejection::Stale),
        }
    }

    fn ask_if_reached(&mut self, turn: &mut Turn, target: Position, since: Instant) {
        let (Some(partner), Some(id)) = (self.other_partner(), self.durable.record_id()) else {
            return;
        };
        let early = self.breaks(Mutant::MirroredBeforeFlush);
        let Some(reign) = self.reign_mut() else { return };
        let flushed = match reign.mirror {
            MirrorSeen::Away => Lsn(0),
            MirrorSeen::Streaming { flushed, .. } => flushed,
        };
        if early {
            return self.record_mirrored(turn, target);
        }
        if flushed >= target.lsn {
            reign.protect = Protect::Asking { target, since };
            let body = Body::LevelAsked { id, position: target };
            self.send(turn, Member::Partner(partner), body);
        }
    }

    pub(crate) fn level_answered(
        &mut self,
        turn: &mut Turn,
        from: Member,
        id: RecordId,
        position: Position,
        level: Level,
    ) {
        let partner = self.other_partner().map(Member::Partner);
        let asked = self.reign().is_some_and(|reign| match reign.protect {
            Protect::Asking { target, .. } => target == position,
            Protect::No
            | Protect::Closing { .. }
            | Protect::Reading { .. }
            | Protect::Reaching { .. } => false,
        });
        if !asked || self.durable.record_id() != Some(id) || partner != Some(from) {
            return self.reject(turn, Rejection::Stale);
        }
        match level {
            Level::Reached => self.record_mirrored(turn, position),
            Level::NotReached => self.abort_protection(turn),
        }
    }

    fn record_mirrored(&mut self, turn: &mut Turn, reached: Position) {
        let Some(record) = self.durable.record else { return };
        let now = turn.now;
        if let Some(reign) = self.reign_mut() {
            reign.protect = Protect::No;
            reign.protect_failures = 0;
            reign.protected = Some(Protected { term: reign.term, lsn: reached.lsn });
            reign.mirror_moved = now;
        }
        self.protected = self.reign().and_then(|reign| reign.protected);
        self.keep_data(|data| data.flushed = reached);
        let mirrored = record.revised(|next| next.protection = Protection::Mirrored);
        self.write_record(turn, mirrored, Cause::MirrorLevel);
    }

    /// Too slow, or the mirror is gone again: the record still says `Exposed`, so the guard opens
    /// again at the next settling.
    pub(crate) fn abort_protection(&mut self, turn: &mut Turn) {
        let pause = self.config.timing.partner_timeout;
        let Some(reign) = self.reign_mut() else { return };
        if reign.protect != Protect::No {
            reign.protect = Protect::No;
            reign.protect_failures += 1;
            // A mirror that is never level must not hold commits up again and again.
            let pause = pause * (1 << reign.protect_failures.min(6)) / 2;
            reign.protect_after = turn.now.after(pause);
        }
    }

    pub(crate) fn protection_ends_at(&self) -> Option<Instant> {
        let since = self.reign()?.protect.since()?;
        Some(since.after(self.config.timing.protect_timeout))
    }
}
