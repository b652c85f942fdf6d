//! R10: a member that lost its disk learns the session anew, by a question with a fresh nonce that
//! both other members answer. Every member asks at its start, because a state that was restored
//! from an old copy does not know that it is old: the others tell it.

use core::time::Duration;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::durable::{Durable, Suspension};
use crate::message::{Body, Message};
use crate::mutant::Mutant;
use crate::output::{Alarm, Answer, Cause, Event, Rejection, Why};
use crate::partner::Server;
use crate::record::{Promotion, Record, Shown};
use crate::session::{Session, Turn};
use crate::term::{Identity, Member, Term};

/// The least time between two questions to one member.
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);

impl Session {
    /// Asks every other member that has not yet answered this run's question.
    pub(crate) fn ask_unshaken(&mut self, turn: &mut Turn) {
        for other in self.to_ask() {
            self.ask_if_unshaken(turn, other);
        }
    }

    /// The other members. One that lost its state has them from its configuration, which may be
    /// ahead of the session: it asks those, too, whom the records name that it was told of.
    fn to_ask(&self) -> BTreeSet<Member> {
        let mut others: BTreeSet<Member> = self.others().into_iter().collect();
        if self.is_amnesiac() {
            let told = self.live.values().filter_map(|live| live.answer);
            others.extend(told.flat_map(|(_, record)| record.members.others(self.config.me)));
        }
        others
    }

    pub(crate) fn ask_if_unshaken(&mut self, turn: &mut Turn, other: Member) {
        let interval = QUESTION_INTERVAL.min(self.config.timing.heartbeat);
        let live = self.live(other);
        let waits = live.last_question.is_some_and(|asked| turn.now < asked.after(interval));
        if live.shaken || waits {
            return;
        }
        live.last_question = Some(turn.now);
        let nonce = self.nonce();
        self.send(turn, other, Body::StateAsked { nonce });
    }

    pub(crate) fn state_asked(&mut self, turn: &mut Turn, from: Member, nonce: u64) {
        let remembered = self.durable.others.get(&from).map(|other| other.shown);
        let promotions: Vec<Promotion> = self.durable.promotions.values().copied().collect();
        let remembered = remembered.unwrap_or_default();
        self.send(turn, from, Body::StateAnswered { nonce, remembered, promotions });
    }

    pub(crate) fn state_answered(
        &mut self,
        turn: &mut Turn,
        from: Member,
        nonce: u64,
        remembered: Shown,
        promotions: &[Promotion],
        answer: Option<(Term, Record)>,
    ) {
        if nonce != self.nonce() {
            return self.reject(turn, Rejection::Stale);
        }
        let amnesiac = self.is_amnesiac();
        let live = self.live(from);
        // One that lost its state itself has nothing to teach: it is asked again.
        live.shaken = !amnesiac || answer.is_some();
        live.answer = answer;
        self.known_promise = self.known_promise.max(remembered.promise);
        if !self.is_amnesiac() {
            self.merge_promotions(promotions);
            if self.durable.shown().is_less_than(remembered) {
                self.state_was_restored(turn, from);
            }
            return;
        }
        self.merge_promotions(promotions);
        self.relearn(turn);
    }

    /// The nonce of this state's questions: fresh with every run and with every identity.
    fn nonce(&self) -> u64 {
        self.config.run ^ self.durable.identity.0.rotate_left(32)
    }

    /// Whoever still speaks with an identity that counts as lost is told so.
    pub(crate) fn tell_identity_lost(&mut self, turn: &mut Turn, message: &Message) {
        let other = self.durable.others.get(&message.from);
        let lost = other.is_some_and(|other| other.dropped.contains(&message.identity));
        if lost && !matches!(message.body, Body::IdentityLost { .. }) {
            let identity = message.identity;
            self.send(turn, message.from, Body::IdentityLost { identity });
        }
    }

    /// `from` counts this member's identity as lost: its state is an old one, or was overtaken.
    pub(crate) fn identity_lost(&mut self, turn: &mut Turn, from: Member, identity: Identity) {
        if identity != self.durable.identity {
            return self.reject(turn, Rejection::Stale);
        }
        self.state_was_restored(turn, from);
    }

    /// This member shows less than `from` remembers of it: its disk went back in time.
    pub(crate) fn state_was_restored(&mut self, turn: &mut Turn, from: Member) {
        self.tell(turn, Event::Alarm(Alarm::StateRestored { from }));
        self.abandon_reign(turn, Cause::StateLost);
        self.end_candidacy(turn);
        let old = self.durable.identity;
        let anew = Identity(old.0.rotate_left(17) ^ self.config.run ^ 0x9e37_79b9_7f4a_7c15);
        let mut data = self.durable.data;
        if let Some(data) = &mut data {
            data.valid = false;
            // What was acknowledged by force is not given up because the state was.
            if self.durable.record.is_some_and(|record| record.forced.is_some()) {
                data.suspension = Suspension::Suspended;
            }
        }
        let promotions = self.durable.promotions.clone();
        *self.keep() = Durable { data, promotions, ..Durable::lost(anew) };
        for live in self.live.values_mut() {
            live.shaken = false;
            live.answer = None;
            live.last_question = None;
        }
        self.ask_unshaken(turn);
    }

    /// Ends the amnesia once both other members have answered, or the serving principal alone if
    /// the operator said so.
    pub(crate) fn relearn(&mut self, turn: &mut Turn) {
        let answers: Vec<(Member, Term, Record)> = self
            .live
            .iter()
            .filter_map(|(member, live)| live.answer.map(|(term, record)| (*member, term, record)))
            .collect();
        let Some(newest) = answers.iter().map(|(_, _, record)| *record).max_by_key(|r| r.id) else {
            return;
        };
        let answered = |member: Member| answers.iter().any(|(from, ..)| *from == member);
        // Whatever a witness had voted for or accepted was asked of it by a partner, who holds it.
        let asks = |member: &Member| match (self.config.me, member) {
            (Member::Witness(_), Member::Witness(_)) => false,
            (Member::Witness(_) | Member::Partner(_), _) => true,
        };
        let all = newest.members.others(self.config.me).filter(asks).all(answered);
        let principal = Session::principal_of(&newest);
        let ordered = self.learn_from_principal
            && answered(principal)
            && self.live.get(&principal).is_some_and(|live| live.report.serving);
        if !all && !ordered {
            return self.ask_unshaken(turn);
        }
        let answered = answers.iter().map(|(_, promise, _)| *promise).max().unwrap_or_default();
        let promise = answered.max(self.known_promise);
        let me = self.config.me;
        // A copy that a rewind had touched is no whole copy of anything: there is nothing to keep.
        let has_data = !self.data().touched
            && self.side.as_ref().is_some_and(|side| side.server != Server::Absent);
        let keep = self.keep();
        keep.record = Some(newest);
        keep.promise = promise.max(newest.term());
        if principal == me {
            keep.resigned = Some(newest.term());
        }
        if let Member::Partner(_) = me {
            let known = keep.data.unwrap_or_default();
            keep.data = Some(crate::durable::Data {
                valid: false,
                // Whether this data descends into a forced record, nobody knows any more: nothing
                // is overwritten until the operator has chosen (R11). The mark may be gone again:
                // then the timeline of the data tells.
                suspension: match (newest.forced, known.suspension) {
                    (Some(_), _) if principal != me => Suspension::Suspended,
                    (None, Suspension::No) if principal != me && has_data => Suspension::Unjudged,
                    (Some(_) | None, standing) => standing,
                },
                ..known
            });
            if let Some(end) = self.side.as_ref().and_then(|side| side.position) {
                self.judge_late(turn, end);
            }
        }
        self.learn_from_principal = false;
        self.given = self.lease_presumed_given(turn.now);
        self.tell(turn, Event::RecordChanged { id: newest.id, cause: Cause::StateLearnt });
    }

    pub(crate) fn asked_to_learn(&mut self, turn: &mut Turn) -> Answer {
        if !self.is_amnesiac() {
            return Answer::Refused(Why::NotAmnesiac);
        }
        self.learn_from_principal = true;
        self.relearn(turn);
        Answer::Begun
    }

    /// Whether this member may vote or accept: it has its state.
    pub(crate) fn may_vote(&self) -> bool {
        !self.is_amnesiac() || self.breaks(Mutant::AmnesiacVotes)
    }

    fn merge_promotions(&mut self, told: &[Promotion]) {
        for promotion in told {
            let known = self.durable.promotions.get(&promotion.term).copied();
            let merged = known.map_or(*promotion, |known| known.merged(*promotion));
            if known != Some(merged) {
                self.keep().promotions.insert(promotion.term, merged);
            }
        }
    }

    /// Takes over the promotions that another member's report tells.
    pub(crate) fn learn_promotions(&mut self, told: &[Promotion]) {
        if !self.is_amnesiac() {
            self.merge_promotions(told);
        }
    }
}
