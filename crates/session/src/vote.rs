//! R7: what a voter considers. The pre-vote asks the same question and changes nothing.

use crate::message::{Body, Reach, Refusal, Verdict};
use crate::mutant::Mutant;
use crate::output::{Alarm, Event};
use crate::record::Record;
use crate::session::{Session, Turn};
use crate::term::{Identity, Member, Partner, Term};

/// What a candidate asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VoteRequest {
    pub candidate: Partner,
    pub term: Term,
    /// The candidate's record before the election.
    pub record: Record,
    pub reach: Reach,
}

impl Session {
    pub(crate) fn pre_vote_asked(
        &mut self,
        turn: &mut Turn,
        from: Member,
        term: Term,
        reach: Reach,
        record: Option<Record>,
    ) {
        let verdict = match self.request(from, term, reach, record) {
            Ok(asked) => self.consider(turn, &asked),
            Err(refusal) => Verdict::Refused(refusal),
        };
        self.send(turn, from, Body::PreVoteAnswered { term, verdict });
    }

    pub(crate) fn vote_asked(
        &mut self,
        turn: &mut Turn,
        from: Member,
        term: Term,
        reach: Reach,
        record: Option<Record>,
        asked_by: Identity,
    ) {
        let verdict = match self.request(from, term, reach, record) {
            Ok(asked) => {
                let verdict = self.consider(turn, &asked);
                if verdict == Verdict::Granted {
                    self.grant(turn, &asked);
                }
                verdict
            }
            Err(refusal) => Verdict::Refused(refusal),
        };
        self.send(turn, from, Body::VoteAnswered { term, verdict, asked_by });
    }

    fn request(
        &self,
        from: Member,
        term: Term,
        reach: Reach,
        record: Option<Record>,
    ) -> Result<VoteRequest, Refusal> {
        let Member::Partner(candidate) = from else { return Err(Refusal::NotYours) };
        let owned = term.owner() == candidate || self.breaks(Mutant::TermsNotOwned);
        match record {
            Some(record) if owned => Ok(VoteRequest { candidate, term, record, reach }),
            Some(_) => Err(Refusal::NotYours),
            None => Err(Refusal::RecordIsOlder),
        }
    }

    fn consider(&mut self, turn: &mut Turn, asked: &VoteRequest) -> Verdict {
        let from = Member::Partner(asked.candidate);
        let shaken = self.live.get(&from).is_some_and(|live| live.shaken);
        if !self.may_vote() || !shaken {
            self.ask_if_unshaken(turn, from);
            return Verdict::Refused(Refusal::VoterUnsure);
        }
        match self.objection(turn, asked) {
            Some(refusal) => Verdict::Refused(refusal),
            None => Verdict::Granted,
        }
    }

    fn objection(&mut self, turn: &mut Turn, asked: &VoteRequest) -> Option<Refusal> {
        if self.reigns() {
            return Some(Refusal::VoterServes);
        }
        if asked.term <= self.durable.promise {
            return Some(Refusal::TermNotNew);
        }
        if let Some(own) = self.durable.record {
            if asked.record.id < own.id && !self.breaks(Mutant::VoteForOlderRecord) {
                return Some(Refusal::RecordIsOlder);
            }
            if asked.record.id == own.id && asked.record != own {
                let from = Member::Partner(asked.candidate);
                let alarm = Alarm::RecordsDiffer { id: own.id, from };
                self.tell(turn, Event::Alarm(alarm));
                return Some(Refusal::RecordIsOlder);
            }
        }
        if !asked.record.makes_eligible(asked.candidate) {
            return Some(Refusal::NotEligible);
        }
        if self.protected.is_some_and(|protected| asked.reach.0 < protected) {
            return Some(Refusal::BehindProtected);
        }
        self.lease_bars(asked.candidate, turn.now).map(|_| Refusal::LeaseRuns)
    }

    /// The vote: the promise and the candidate's record in its new term, with everything that is
    /// inherited. Ends an own candidacy. The winner's lease starts here for this voter.
    fn grant(&mut self, turn: &mut Turn, asked: &VoteRequest) {
        let record = self.elected_record(&asked.record, asked.term, asked.candidate);
        self.adopt(turn, &record);
        self.give_lease(turn, asked.candidate, &record);
    }

    /// The record of a new term (R7, R8).
    pub(crate) fn elected_record(&self, from: &Record, term: Term, candidate: Partner) -> Record {
        let mut record = from.elected(term, candidate);
        if self.breaks(Mutant::ProtectionNotInherited) {
            record.protection = crate::record::Protection::Mirrored;
            record.forced = None;
        }
        if self.breaks(Mutant::ForcedMarkLost) {
            record.forced = None;
        }
        record
    }
}
