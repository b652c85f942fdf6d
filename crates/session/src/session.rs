//! `Session`: the one door to the core. `step` takes in what happened, hands it to the part that
//! it concerns, lets the member settle, and checks its own invariants.
//!
//! Durable state is written ahead by construction: whoever changes it goes through `keep`, and
//! the next output of any kind is preceded by a `Persist` of the whole state.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::durable::Durable;
use crate::input::{Input, Request, Wanted};
use crate::lease::Given;
use crate::message::{Body, Message, Report};
use crate::mutant::Mutant;
use crate::output::{Answer, Cause, Event, Order, Output, Rejection, Why};
use crate::partner::Side;
use crate::record::{Members, Protected, Record};
use crate::role::Role;
use crate::term::{Member, Partner, Term, WitnessId};
use crate::time::{Instant, Timing};

/// What a session is told when it starts. `Input::Configured` changes some of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    pub me: Member,
    /// The witness that the configuration names. Used only by a member that lost its state; the
    /// record says who the witness really is.
    pub witness: Option<WitnessId>,
    /// What the session is to become when it is served here; `None`: what it is.
    pub wanted: Option<Wanted>,
    pub timing: Timing,
    /// Seeds the delays between candidacies.
    pub seed: u64,
    /// Tells this process from every other run of it. Also the nonce of its questions (R10).
    pub run: u64,
}

/// One member's part in one session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    pub(crate) config: Config,
    pub(crate) durable: Durable,
    /// `durable` has changed since the last `Persist`. Always false between steps.
    dirty: bool,
    /// The highest promise seen anywhere, so that a candidate asks for a term that can be granted.
    pub(crate) known_promise: Term,
    /// Boxed: a map has room for many more members than there are, and a witness many sessions.
    pub(crate) live: BTreeMap<Member, Box<Live>>,
    /// The lease that this member gave last.
    pub(crate) given: Option<Given>,
    pub(crate) started: Instant,
    /// How long a lease that is given is held: never less than any that this run was told of.
    pub(crate) longest_given: core::time::Duration,
    /// The furthest position that a principal has told to be on both disks.
    pub(crate) protected: Option<Protected>,
    /// The operator allowed this member to learn from the serving principal alone.
    pub(crate) learn_from_principal: bool,
    /// A partner's copy of the data and what it does about the term; `None` in a witness.
    pub(crate) side: Option<Side>,
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

/// What this run has heard from another member.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Live {
    pub heard: Option<Instant>,
    /// The sending time of the latest heartbeat that it answered.
    pub answered: Option<Instant>,
    pub last_beat: Option<Instant>,
    /// It has answered this run's question (R10).
    pub shaken: bool,
    pub last_question: Option<Instant>,
    /// The highest term that it said it had resigned.
    pub resigned: Option<Term>,
    /// When it last said that it was serving.
    pub served: Option<Instant>,
    pub report: Report,
    /// Its answer to the question of a member that lost its state.
    pub answer: Option<(Term, Record)>,
}

/// One step on its way: the time it happens at and the outputs gathered so far.
#[derive(Debug)]
pub(crate) struct Turn {
    pub now: Instant,
    pub out: Vec<Output>,
    /// Why the role changes in this step, if it does.
    cause: Cause,
}

impl Turn {
    fn at(now: Instant) -> Turn {
        Turn { now, out: Vec::new(), cause: Cause::NewerRecord }
    }

    pub fn cause(&mut self, cause: Cause) {
        self.cause = cause;
    }
}

impl Session {
    /// A member that starts with the state it found on its disk, and what it does first.
    pub fn start(now: Instant, config: Config, durable: Durable) -> (Session, Vec<Output>) {
        let side = match config.me {
            Member::Partner(_) => Some(Side::unknown(now)),
            Member::Witness(_) => None,
        };
        let mut session = Session {
            config,
            dirty: false,
            known_promise: durable
                .others
                .values()
                .map(|other| other.shown.promise)
                .fold(durable.promise, Term::max),
            live: BTreeMap::new(),
            given: None,
            started: now,
            longest_given: config.timing.lease_given(),
            protected: None,
            learn_from_principal: false,
            side,
            durable,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        session.given = session.lease_presumed_given(now);
        let mut turn = Turn::at(now);
        session.check();
        session.ask_unshaken(&mut turn);
        let out = session.finish(turn);
        (session, out)
    }

    /// Takes in what happened and orders what follows from it.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Output> {
        let mut turn = Turn::at(now);
        let before = self.role();
        self.notice_stall(&mut turn);
        match input {
            Input::TimePassed => self.time_passed(&mut turn),
            Input::Received(message) => self.receive(&mut turn, message),
            Input::Postgres(fact) => self.postgres_showed(&mut turn, fact),
            Input::Asked { request, what } => self.asked(&mut turn, request, what),
            Input::Configured { witness, wanted, timing } => {
                self.configured(now, witness, wanted, timing);
            }
        }
        self.settle(&mut turn);
        self.tell_role_change(&mut turn, before);
        self.finish(turn)
    }

    fn tell_role_change(&mut self, turn: &mut Turn, from: Role) {
        let to = self.role();
        if from != to {
            let record = self.durable.record.map(|record| record.term()).unwrap_or_default();
            let term = if to == Role::Candidate { self.durable.promise } else { record };
            let cause = turn.cause;
            self.tell(turn, Event::RoleChanged { from, to, term, cause });
        }
    }

    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Breaks a rule from now on, to see whether the checks notice.
    #[cfg(feature = "mutants")]
    pub fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
        if mutant == Mutant::RestartForgetsLease {
            self.given = None;
        }
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[cfg(not(feature = "mutants"))]
    pub(crate) fn breaks(&self, _: Mutant) -> bool {
        false
    }

    fn finish(&mut self, mut turn: Turn) -> Vec<Output> {
        if self.dirty {
            self.push_persist(&mut turn);
        }
        if self.breaks(Mutant::SendBeforePersist) {
            turn.out.sort_by_key(|output| matches!(output, Output::Persist(_)));
        }
        self.check();
        turn.out
    }

    fn asked(&mut self, turn: &mut Turn, request: u64, what: Request) {
        let answer = match what {
            Request::LearnFromPrincipal => self.asked_to_learn(turn),
            Request::Failover { .. }
            | Request::ForceService
            | Request::Suspend
            | Request::Resume
            | Request::DiscardThisSide
            | Request::ChangeWitness { .. }
            | Request::ServeAlone
            | Request::RemoveMirror
            | Request::AddMirror => match self.me_partner() {
                Some(_) => self.asked_as_partner(turn, what),
                None => Answer::Refused(Why::NotAPartner),
            },
        };
        self.push(turn, Output::Answer { request, answer });
    }

    fn time_passed(&mut self, turn: &mut Turn) {
        if self.side.is_some() {
            self.beat_if_due(turn);
        }
        self.ask_unshaken(turn);
    }

    // What every part needs.

    /// The durable state, to change. What changes is written before the next output.
    pub(crate) fn keep(&mut self) -> &mut Durable {
        self.dirty = true;
        &mut self.durable
    }

    pub(crate) fn push(&mut self, turn: &mut Turn, output: Output) {
        if self.dirty {
            self.push_persist(turn);
        }
        turn.out.push(output);
    }

    fn push_persist(&mut self, turn: &mut Turn) {
        self.dirty = false;
        turn.out.push(Output::Persist(Box::new(self.durable.clone())));
    }

    pub(crate) fn send(&mut self, turn: &mut Turn, to: Member, body: Body) {
        let message = Message {
            from: self.config.me,
            to,
            identity: self.durable.identity,
            promise: self.durable.promise,
            record: self.durable.record,
            body,
        };
        self.push(turn, Output::Send(message));
    }

    pub(crate) fn send_to_others(&mut self, turn: &mut Turn, body: &Body) {
        for other in self.others() {
            self.send(turn, other, body.clone());
        }
    }

    pub(crate) fn order(&mut self, turn: &mut Turn, order: Order) {
        self.push(turn, Output::Postgres(order));
    }

    pub(crate) fn tell(&mut self, turn: &mut Turn, event: Event) {
        self.push(turn, Output::Tell(event));
    }

    pub(crate) fn reject(&mut self, turn: &mut Turn, why: Rejection) {
        self.push(turn, Output::Rejected(why));
    }

    pub(crate) fn me_partner(&self) -> Option<Partner> {
        match self.config.me {
            Member::Partner(partner) => Some(partner),
            Member::Witness(_) => None,
        }
    }

    /// Whether this member has lost its state and not yet learnt it again (R10).
    pub(crate) fn is_amnesiac(&self) -> bool {
        self.durable.record.is_none()
    }

    /// The members as far as this one knows them.
    pub(crate) fn members(&self) -> Members {
        match (self.durable.record, self.config.wanted, self.me_partner()) {
            (Some(record), _, _) => record.members,
            (None, Some(Wanted::Alone), Some(me)) => Members::Sole(me),
            (None, _, _) => Members::Settled(self.config.witness),
        }
    }

    pub(crate) fn others(&self) -> Vec<Member> {
        self.members().others(self.config.me).collect()
    }

    pub(crate) fn live(&mut self, member: Member) -> &mut Live {
        self.live.entry(member).or_default()
    }

    /// How long ago `member` was heard, if ever.
    pub(crate) fn silence(&self, member: Member, now: Instant) -> Option<core::time::Duration> {
        self.live.get(&member)?.heard.map(|heard| now.since(heard))
    }
}
