//! What every message brings, whatever it says (R5): its sender's identity, promise and record.
//! Whoever speaks with an identity that it has lost is not heard.

use crate::message::{Body, Message};
use crate::mutant::Mutant;
use crate::output::{Alarm, Cause, Event, Rejection};
use crate::record::Record;
use crate::session::{Session, Turn};
use crate::term::{Member, Partner};

impl Session {
    pub(crate) fn receive(&mut self, turn: &mut Turn, message: Message) {
        if message.to != self.config.me || message.from == self.config.me {
            return self.reject(turn, Rejection::NotForMe);
        }
        if self.is_sole() {
            return self.turn_away(turn, &message);
        }
        if !self.listens_to(&message) {
            return self.reject(turn, Rejection::NotAMember);
        }
        if !self.knows_identity(turn, &message) {
            self.tell_identity_lost(turn, &message);
            return self.reject(turn, Rejection::UnknownIdentity);
        }
        self.note_header(turn, &message);
        self.ask_if_unshaken(turn, message.from);
        if let Some(record) = message.record
            && !self.learn(turn, message.from, &record)
        {
            return self.reject(turn, Rejection::RecordsDiffer);
        }
        self.stop_if_outranked(turn);
        self.note_acceptance(turn, &message);
        self.dispatch(turn, message);
    }

    /// A member hears the members of its record, and whoever a newer record of a partner names.
    /// One that lost its state hears everybody: it answers questions and asks its own.
    fn listens_to(&self, message: &Message) -> bool {
        self.is_amnesiac()
            || self.members().contains(message.from)
            || message.record.is_some_and(|record| record.members.contains(message.from))
    }

    /// A question may show a new identity, which ends the old one for ever (R10).
    fn knows_identity(&mut self, turn: &mut Turn, message: &Message) -> bool {
        let other = self.durable.others.get(&message.from);
        let known = other.and_then(|other| other.identity);
        if known == Some(message.identity) {
            return true;
        }
        let dropped = other.is_some_and(|other| other.dropped.contains(&message.identity));
        let asks = matches!(message.body, Body::StateAsked { .. });
        if self.breaks(Mutant::OldVoteSurvivesLoss) {
            return true;
        }
        if dropped || (known.is_some() && !asks) {
            return false;
        }
        let entry = self.keep().others.entry(message.from).or_default();
        entry.dropped.extend(known);
        entry.identity = Some(message.identity);
        // What the lost state had promised still binds; which record it had, nobody can ask again.
        entry.shown.record = None;
        self.forget_votes_of(message.from);
        if known.is_some() && matches!(message.from, Member::Partner(_)) {
            self.lose_mirror(turn);
        }
        true
    }

    fn note_header(&mut self, turn: &mut Turn, message: &Message) {
        self.live(message.from).heard = Some(turn.now);
        self.known_promise = self.known_promise.max(message.promise);
        let shown = crate::record::Shown {
            promise: message.promise,
            record: message.record.map(|record| record.id),
        };
        let remembered = self.durable.others.get(&message.from).map(|other| other.shown);
        let raises =
            remembered.is_none_or(|old| shown.promise > old.promise || shown.record > old.record);
        if raises {
            self.keep().others.entry(message.from).or_default().shown.raise(shown);
        }
    }

    /// Adopts a newer record. False if it differs from this member's own of the same revision.
    fn learn(&mut self, turn: &mut Turn, from: Member, record: &Record) -> bool {
        let Some(own) = self.durable.record else {
            if self.breaks(Mutant::AmnesiacLearnsInPassing) {
                self.adopt(turn, record);
            }
            return true;
        };
        if own.id == record.id && own != *record {
            let alarm = Alarm::RecordsDiffer { id: record.id, from };
            self.tell(turn, Event::Alarm(alarm));
            return false;
        }
        if Some(record.principal) == self.me_partner() && record.term() > self.durable.promise {
            // It stood for that term in a state that it has no more.
            self.state_was_restored(turn, from);
            return true;
        }
        if record.id > own.id && !self.reigns() && !self.is_own_victory(record) {
            self.adopt(turn, record);
        }
        true
    }

    /// Makes `record` this member's own. Ends a candidacy, and tells a partner whose data does
    /// not descend into a forced record that it is suspended (R11).
    pub(crate) fn adopt(&mut self, turn: &mut Turn, record: &Record) {
        let suspension = self.judge(record);
        let new_term = self.durable.record.is_none_or(|own| own.term() < record.term());
        let other = Some(record.principal) != self.me_partner();
        if let (true, true, Some(side)) = (new_term, other, self.side.as_mut()) {
            // A new principal is not silent before it has had the time to speak, and the pauses of
            // former candidacies were for former principals.
            side.listen_since = turn.now;
            side.stand_after = turn.now;
            side.refusals = 0;
            side.force_pending = false;
        }
        let keep = self.keep();
        keep.promise = keep.promise.max(record.term());
        keep.record = Some(*record);
        self.known_promise = self.known_promise.max(record.term());
        self.suspend(turn, suspension);
        if self.breaks(Mutant::InvalidOnLearning) {
            self.give_up_copy_on_learning(record);
        }
        if !self.breaks(Mutant::CandidacySurvivesAdoption) {
            self.end_candidacy(turn);
        }
        self.tell(turn, Event::RecordChanged { id: record.id, cause: Cause::NewerRecord });
    }

    fn dispatch(&mut self, turn: &mut Turn, message: Message) {
        let from = message.from;
        match message.body {
            Body::Heartbeat { stamp, report } => {
                self.heartbeat_heard(turn, from, message.record, stamp, report);
            }
            Body::HeartbeatAnswered { stamp, report } => {
                let header = (message.promise, message.record);
                self.heartbeat_answered(turn, from, header, stamp, report);
            }
            Body::Proposed => self.proposed(turn, from, message.record),
            Body::Accepted { .. } => {}
            Body::ProposalRefused { .. } => {}
            Body::PreVoteAsked { term, reach, .. } => {
                self.pre_vote_asked(turn, from, term, reach, message.record);
            }
            Body::PreVoteAnswered { term, verdict } => {
                self.pre_vote_answered(turn, from, term, verdict);
            }
            Body::VoteAsked { term, reach, .. } => {
                self.vote_asked(turn, from, term, reach, message.record, message.identity);
            }
            Body::VoteAnswered { term, verdict, asked_by } => {
                self.vote_answered(turn, from, term, verdict, asked_by);
            }
            Body::Resigned { term, handover } => self.resigned(turn, from, term, handover),
            Body::LevelAsked { id, position } => self.level_asked(turn, from, id, position),
            Body::LevelAnswered { id, position, level } => {
                self.level_answered(turn, from, id, position, level);
            }
            Body::StateAsked { nonce } => self.state_asked(turn, from, nonce),
            Body::IdentityLost { identity } => self.identity_lost(turn, from, identity),
            Body::StateAnswered { nonce, remembered, promotions } => {
                let answer = message.record.map(|record| (message.promise, record));
                self.state_answered(turn, from, nonce, remembered, &promotions, answer);
            }
        }
    }

    /// A record is proposed. The header has been learnt already, so all that is left is to say
    /// whether exactly this record is now this member's own (R5).
    fn proposed(&mut self, turn: &mut Turn, from: Member, record: Option<Record>) {
        let Some(record) = record else { return self.reject(turn, Rejection::OutOfPlace) };
        if self.is_amnesiac() {
            return self.reject(turn, Rejection::Amnesiac);
        }
        let accepted = self.durable.record == Some(record) && self.durable.promise <= record.term();
        let body = if accepted {
            Body::Accepted { id: record.id }
        } else {
            Body::ProposalRefused { id: record.id }
        };
        self.send(turn, from, body);
    }

    /// A partner resigned: no lease is left to wait for, and its mirror may stand (R9).
    fn resigned(
        &mut self,
        turn: &mut Turn,
        from: Member,
        term: crate::term::Term,
        handover: Option<crate::term::Position>,
    ) {
        let Member::Partner(partner) = from else {
            return self.reject(turn, Rejection::OutOfPlace);
        };
        let live = self.live(from);
        live.resigned = live.resigned.max(Some(term));
        if handover.is_none() {
            live.served = None;
        }
        self.principal_resigned(turn, partner, term, handover);
    }

    /// The partner that `record` names as principal.
    pub(crate) fn principal_of(record: &Record) -> Member {
        Member::Partner(record.principal)
    }

    pub(crate) fn other_partner(&self) -> Option<Partner> {
        self.me_partner().map(Partner::other)
    }
}
