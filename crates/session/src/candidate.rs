//! R6 and R8: when a partner stands, how it asks, and what makes it win.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::durable::Suspension;
use crate::message::{Body, Reach, Refusal, Verdict};
use crate::mutant::Mutant;
use crate::output::{Cause, Event, Phase, Rejection};
use crate::partner::Stance;
use crate::record::{Members, Protected, Record};
use crate::session::{Session, Turn};
use crate::term::{Identity, Member, Position, Term};
use crate::time::Instant;

/// A candidacy. It ends when this member adopts another record (R5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Bid {
    pub term: Term,
    pub since: Instant,
    /// The record that goes with the request; the new term's record inherits from it.
    pub record: Record,
    pub granted: BTreeSet<Member>,
    pub refused: BTreeSet<Member>,
}

impl Session {
    /// When this partner may stand, if it may at all (R6).
    pub(crate) fn stand_at(&self) -> Option<Instant> {
        let side = self.side.as_ref()?;
        let (me, record) = (self.me_partner()?, self.durable.record?);
        let data = self.data();
        let able = side.can_be_promoted() && side.position.is_some() && !side.storage_fails;
        let allowed = data.valid && data.suspension == Suspension::No && record.makes_eligible(me);
        if side.stance != Stance::Idle || !able || !allowed {
            return None;
        }
        let base = if record.principal == me {
            Some(side.stand_after)
        } else {
            self.mirror_stands_at(&record)
        };
        let bars = |at: Instant| match self.lease_bars(me, at) {
            Some(until) if !self.breaks(Mutant::OwnVoteIgnoresLease) => until.max(at),
            Some(_) | None => at,
        };
        base.map(bars)
    }

    /// The mirror stands when the principal resigned, or was silent for the detection time.
    fn mirror_stands_at(&self, record: &Record) -> Option<Instant> {
        let side = self.side.as_ref()?;
        if let Some((term, handover)) = side.resigned_seen {
            let holds_all = handover.is_none_or(|end| {
                side.position.is_some_and(|own| own.timeline == end.timeline && own.lsn >= end.lsn)
            });
            if term >= record.term() && holds_all {
                return Some(side.stand_after);
            }
        }
        let principal = Self::principal_of(record);
        let served = self.live.get(&principal).and_then(|live| live.served);
        let silent_since = served.unwrap_or(side.listen_since).max(side.listen_since);
        Some(silent_since.after(self.config.timing.detection).max(side.stand_after))
    }

    /// Begins a candidacy, with a pre-vote that persists nothing anywhere.
    pub(crate) fn stand(&mut self, turn: &mut Turn) {
        let (Some(me), Some(record)) = (self.me_partner(), self.durable.record) else { return };
        let floor = self.durable.promise.max(self.known_promise);
        let term = match self.breaks(Mutant::TermsNotOwned) {
            true => Term(floor.0 + 1),
            false => floor.next_owned_by(me),
        };
        let bid = Bid {
            term,
            since: turn.now,
            record,
            granted: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        if self.has_votes(&record.members, &record, &bid.granted) {
            self.keep().promise = term;
            self.tell(turn, Event::Reached { phase: Phase::Detected, term });
            return self.win(turn, bid);
        }
        let Some((position, reach)) = self.ends_at() else { return };
        if self.breaks(Mutant::NoPreVote) {
            return self.ask_in_earnest(turn, bid);
        }
        self.side_mut().stance = Stance::PreVoting(bid);
        self.send_to_others(turn, &Body::PreVoteAsked { term, position, reach });
    }

    fn ends_at(&self) -> Option<(Position, Reach)> {
        let position = self.side.as_ref()?.position?;
        self.reach().map(|reach: Protected| (position, Reach(reach)))
    }

    pub(crate) fn pre_vote_answered(
        &mut self,
        turn: &mut Turn,
        from: Member,
        term: Term,
        verdict: Verdict,
    ) {
        let Some(Stance::PreVoting(bid)) = self.side.as_ref().map(|side| &side.stance) else {
            return self.reject(turn, Rejection::Stale);
        };
        if bid.term != term || !bid.record.members.contains(from) {
            return self.reject(turn, Rejection::Stale);
        }
        match verdict {
            Verdict::Granted => {
                let mut bid = bid.clone();
                bid.granted.insert(from);
                if self.has_votes(&bid.record.members, &bid.record, &bid.granted) {
                    return self.ask_in_earnest(turn, bid);
                }
                self.side_mut().stance = Stance::PreVoting(bid);
            }
            Verdict::Refused(refusal) => self.refused(turn, from, refusal),
        }
    }

    fn ask_in_earnest(&mut self, turn: &mut Turn, bid: Bid) {
        let Some((position, reach)) = self.ends_at() else { return };
        let barred = self.me_partner().and_then(|me| self.lease_bars(me, turn.now)).is_some();
        if barred && !self.breaks(Mutant::OwnVoteIgnoresLease) {
            // The principal has been heard since the pre-vote, and holds a lease again.
            return self.give_up_bid(turn, Pause::Short);
        }
        let term = bid.term;
        turn.cause(self.reason_to_stand(&bid.record));
        self.keep().promise = term;
        self.known_promise = self.known_promise.max(term);
        let bid =
            Bid { since: turn.now, granted: BTreeSet::new(), refused: BTreeSet::new(), ..bid };
        self.side_mut().stance = Stance::Standing(bid);
        self.tell(turn, Event::Reached { phase: Phase::Detected, term });
        self.send_to_others(turn, &Body::VoteAsked { term, position, reach });
    }

    fn reason_to_stand(&self, record: &Record) -> Cause {
        let resigned = self.side.as_ref().and_then(|side| side.resigned_seen);
        match resigned {
            _ if Some(record.principal) == self.me_partner() => Cause::Restarted,
            Some((term, _)) if term >= record.term() => Cause::PrincipalResigned,
            Some(_) | None => Cause::PrincipalSilent,
        }
    }

    pub(crate) fn vote_answered(
        &mut self,
        turn: &mut Turn,
        from: Member,
        term: Term,
        verdict: Verdict,
        asked_by: Identity,
    ) {
        let mine = asked_by == self.durable.identity || self.breaks(Mutant::OldVoteSurvivesLoss);
        let promise = self.durable.promise;
        let Some(Stance::Standing(bid)) = self.side.as_mut().map(|side| &mut side.stance) else {
            return self.reject(turn, Rejection::Stale);
        };
        if bid.term != term || promise != term || !mine || !bid.record.members.contains(from) {
            return self.reject(turn, Rejection::Stale);
        }
        match verdict {
            Verdict::Granted => {
                bid.granted.insert(from);
                let bid = bid.clone();
                if self.has_votes(&bid.record.members, &bid.record, &bid.granted) {
                    self.win(turn, bid);
                }
            }
            Verdict::Refused(refusal) => self.refused(turn, from, refusal),
        }
    }

    /// Whether `granted`, with the own vote, is a quorum in every set of members (R8, R12).
    fn has_votes(&self, members: &Members, record: &Record, granted: &BTreeSet<Member>) -> bool {
        let (Some(me), Some(side)) = (self.me_partner(), self.side.as_ref()) else { return false };
        if let Some(sole) = members.sole() {
            return sole == me && record.principal == me;
        }
        let other = granted.contains(&Member::Partner(me.other()));
        let alone = record.principal == me && (side.lived_through || side.word);
        members.sets().all(|witness| match witness {
            Some(witness) => other || granted.contains(&Member::Witness(witness)),
            None => other || alone,
        })
    }

    fn refused(&mut self, turn: &mut Turn, from: Member, refusal: Refusal) {
        let reachable = self.reachable_others(turn.now);
        let side = self.side_mut();
        let bid = match &mut side.stance {
            Stance::PreVoting(bid) | Stance::Standing(bid) => bid,
            Stance::Idle | Stance::Reigning(_) | Stance::Leaving { .. } => return,
        };
        bid.refused.insert(from);
        if !reachable.iter().all(|other| bid.refused.contains(other)) {
            return;
        }
        let soon = matches!(refusal, Refusal::LeaseRuns | Refusal::VoterUnsure);
        self.give_up_bid(turn, if soon { Pause::Short } else { Pause::Growing });
    }

    /// The others that have been heard lately: no answer is to be expected from the rest.
    fn reachable_others(&self, now: Instant) -> Vec<Member> {
        let lately = self.config.timing.partner_timeout;
        let heard = |other: &Member| self.silence(*other, now).is_some_and(|gap| gap < lately);
        self.others().into_iter().filter(heard).collect()
    }

    /// A candidacy that came to nothing; the next one comes after a pause.
    fn give_up_bid(&mut self, turn: &Turn, pause: Pause) {
        let heartbeat = self.config.timing.heartbeat;
        let (seed, promise) = (self.config.seed, self.known_promise);
        let side = self.side_mut();
        side.stance = Stance::Idle;
        side.refusals = side.refusals.saturating_add(1);
        let wait = match pause {
            Pause::Short => heartbeat / 8 * (1 << side.refusals.min(4)),
            Pause::Growing => {
                let steps = side.refusals.min(8);
                let jitter = scatter(seed ^ promise.0 ^ u64::from(side.refusals)) % 1_000;
                heartbeat * steps + heartbeat * jitter as u32 / 1_000
            }
        };
        side.stand_after = turn.now.after(wait);
    }

    /// Ends an own candidacy, because this member adopted a record or lost what it needs.
    pub(crate) fn end_candidacy(&mut self, turn: &Turn) {
        let stands = self.side.as_ref().is_some_and(|side| match side.stance {
            Stance::PreVoting(_) | Stance::Standing(_) => true,
            Stance::Idle | Stance::Reigning(_) | Stance::Leaving { .. } => false,
        });
        if stands {
            self.give_up_bid(turn, Pause::Growing);
        }
    }

    /// Whether `record` only says that this candidate has been elected: that is no other's record.
    pub(crate) fn is_own_victory(&self, record: &Record) -> bool {
        let standing = match self.side.as_ref().map(|side| &side.stance) {
            Some(Stance::Standing(bid)) => bid.term,
            Some(
                Stance::Idle | Stance::PreVoting(_) | Stance::Reigning(_) | Stance::Leaving { .. },
            )
            | None => return false,
        };
        record.id.term == standing
            && record.id.revision == 0
            && Some(record.principal) == self.me_partner()
    }

    /// Votes given by a state that has been lost count no longer.
    pub(crate) fn forget_votes_of(&mut self, member: Member) {
        if self.breaks(Mutant::OldVoteSurvivesLoss) {
            return;
        }
        match self.side.as_mut().map(|side| &mut side.stance) {
            Some(Stance::PreVoting(bid) | Stance::Standing(bid)) => {
                bid.granted.remove(&member);
            }
            Some(Stance::Reigning(reign)) => {
                reign.accepted.remove(&member);
            }
            Some(Stance::Idle | Stance::Leaving { .. }) | None => {}
        }
    }

    pub(crate) fn settle_candidate(&mut self, turn: &mut Turn) {
        let timeout = self.config.timing.vote_timeout;
        let late = match &self.side_mut().stance {
            Stance::PreVoting(bid) | Stance::Standing(bid) => turn.now >= bid.since.after(timeout),
            Stance::Idle | Stance::Reigning(_) | Stance::Leaving { .. } => false,
        };
        if late {
            self.give_up_bid(turn, Pause::Growing);
        }
    }

    fn win(&mut self, turn: &mut Turn, bid: Bid) {
        let Some(me) = self.me_partner() else { return };
        let mut record = self.elected_record(&bid.record, bid.term, me);
        if self.breaks(Mutant::WinnerExposesItself) {
            record.protection = crate::record::Protection::Exposed;
        }
        self.keep().record = Some(record);
        turn.cause(Cause::WonElection);
        self.tell(turn, Event::Reached { phase: Phase::Elected, term: bid.term });
        self.begin_reign(turn, bid.term, &bid.granted, bid.since);
    }
}

/// How long to wait before the next candidacy.
enum Pause {
    Short,
    Growing,
}

/// A number that looks random, made from `seed` (splitmix64).
fn scatter(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Session {
    /// The moment at which a candidacy is given up.
    pub(crate) fn bid_ends_at(&self) -> Option<Instant> {
        let timeout: Duration = self.config.timing.vote_timeout;
        match self.side.as_ref().map(|side| &side.stance) {
            Some(Stance::PreVoting(bid) | Stance::Standing(bid)) => Some(bid.since.after(timeout)),
            Some(Stance::Idle | Stance::Reigning(_) | Stance::Leaving { .. }) | None => None,
        }
    }
}
