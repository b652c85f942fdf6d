//! A client, a conversation, and one server after the other, with bytes that come in pieces, and
//! cuts in between.

use super::super::{Conversation, Cut, FAILED, Heard, Out, ServerSide, Stop};
use super::client::{Client, Group, Statement, Told};
use super::model::{Committed, Model};
use crate::in_doubt::Outcome;
use crate::refusal;

/// Choices of what happens next, gone through again and again.
pub struct Chance {
    choices: Vec<u8>,
    at: usize,
}

impl Chance {
    pub fn new(choices: Vec<u8>) -> Chance {
        Chance { choices, at: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        let choice = self.choices[self.at % self.choices.len()];
        // The second time round differs from the first.
        let round = self.at / self.choices.len();
        self.at += 1;
        (usize::from(choice) + round * 7) % limit
    }
}

pub struct World {
    pub talk: Conversation,
    pub client: Client,
    model: Option<Model>,
    /// What is durable on the servers that are gone.
    past: Vec<Committed>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    pending: Vec<u8>,
    unread: Vec<u8>,
    stop: Stop,
    chance: Chance,
    cuts_left: usize,
    serial: u64,
    /// An answer 08007 is right.
    may_be_unknown: bool,
    may_be_refused: bool,
    lasting: bool,
}

impl World {
    pub fn new(script: Vec<Group>, choices: Vec<u8>, cuts: usize) -> World {
        let has = |wanted: Statement| script.iter().any(|group| group.statements.contains(&wanted));
        let ends = |statement: &&Statement| {
            use Statement::{Chain, Commit, Rollback};
            matches!(statement, Commit | Rollback | Chain)
        };
        // Several transactions in one batch, or statements whose outcome cannot be looked up.
        let mixed = script.iter().any(|group| {
            let end = group.statements.iter().filter(ends).count();
            end > 0 && group.statements.len() > 1 || group.simple && group.statements.len() > 1
        });
        let large = script.iter().any(|group| group.large);
        let may_be_unknown = mixed
            || large
            || has(Statement::Calls)
            || has(Statement::Procedure)
            || has(Statement::Deallocate);
        World {
            talk: Conversation::new(4096, true),
            lasting: large
                || has(Statement::Set)
                || has(Statement::Deallocate)
                || has(Statement::Procedure),
            client: Client::new(script),
            model: None,
            past: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            pending: Vec::new(),
            unread: Vec::new(),
            stop: Stop::More,
            chance: Chance::new(choices),
            cuts_left: cuts,
            serial: 0,
            may_be_unknown,
            may_be_refused: false,
        }
    }

    pub fn refusing(mut self) -> World {
        self.may_be_refused = true;
        self
    }

    /// Runs until nothing is left to do, and looks at what the client was told.
    pub fn run(mut self) {
        for _step in 0..200_000 {
            self.client.go_on();
            if self.client.is_done() && self.to_client.is_empty() {
                return self.judge();
            }
            if !self.step() {
                panic!(
                    "nothing moves: {:?} {:?}\n{:?}\n{:?}",
                    self.stop, self.pending, self.client, self.talk
                );
            }
        }
        panic!("no end: {:?}", self.client);
    }

    fn step(&mut self) -> bool {
        let busy = self.model.is_some();
        if busy && self.cuts_left > 0 && self.chance.below(16) == 0 {
            self.cuts_left -= 1;
            self.cut();
            return true;
        }
        if busy && self.chance.below(64) == 1 && !self.talk.hold {
            self.talk.hold = true;
        }
        let first = self.chance.below(4);
        (0..4).any(|turn| match (first + turn) % 4 {
            0 => self.client_sends(),
            1 => self.server_reads(),
            2 => self.server_sends(),
            _ => self.client_reads(),
        })
    }

    fn piece(&mut self, whole: usize) -> usize {
        match self.chance.below(3) {
            0 => whole,
            1 => 1 + self.chance.below(whole),
            _ => 1 + self.chance.below(whole.min(7)),
        }
    }

    fn client_sends(&mut self) -> bool {
        if self.stop == Stop::Wait {
            return false;
        }
        let whole = self.client.outgoing.len();
        if whole > 0 {
            let count = if self.client.in_one_piece { whole } else { self.piece(whole) };
            self.pending.extend(self.client.outgoing.drain(..count));
        }
        let before = self.pending.len();
        self.walk();
        whole > 0 || self.pending.len() != before || self.stop == Stop::Wait
    }

    fn walk(&mut self) {
        loop {
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            let (taken, stop) = self.talk.hear_client(&self.pending, &mut out);
            self.pending.drain(..taken);
            self.stop = stop;
            match stop {
                Stop::More | Stop::Wait => return,
                Stop::NeedServer { .. } => self.find_server(),
                Stop::Terminate | Stop::Broken => panic!("{stop:?}"),
            }
        }
    }

    fn find_server(&mut self) {
        self.stop = Stop::More;
        if let Some(model) = self.model.take() {
            // The principal has handed over. Nothing is under way, so nothing is lost.
            self.to_server.clear();
            assert!(self.unread.is_empty() && !model.has_output());
            assert_ne!(model.status, FAILED);
            self.past.extend(model.log);
            self.talk.server = None;
            self.talk.hold = false;
        }
        if self.may_be_refused && self.chance.below(8) == 0 {
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            let taken = self.talk.refuse_next(&self.pending, &refusal::NO_PRINCIPAL, &mut out);
            self.pending.drain(..taken);
            return;
        }
        self.serial += 1;
        let mut model = Model::new(1000 * self.serial);
        if self.talk.needs_failed_transaction() {
            model.status = FAILED;
            self.talk.has_failed_transaction();
        }
        model.read_only = self.talk.needs_guard();
        self.talk.server = Some(ServerSide {
            serial: self.serial,
            term: self.serial,
            timeline: 1,
            standby: false,
            ids_prepared: false,
            shared: None,
        });
        self.model = Some(model);
    }

    fn server_reads(&mut self) -> bool {
        let whole = self.to_server.len();
        if whole == 0 {
            return false;
        }
        let count = self.piece(whole);
        let bytes: Vec<u8> = self.to_server.drain(..count).collect();
        self.model.as_mut().expect("a server").hear(&bytes);
        true
    }

    fn server_sends(&mut self) -> bool {
        if !self.model.as_ref().is_some_and(Model::has_output) {
            return false;
        }
        let count = self.piece(200);
        let Some(model) = &mut self.model else { return false };
        self.unread.extend(model.take(count));
        if self.stop == Stop::Wait {
            self.stop = Stop::More;
        }
        loop {
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            let (taken, heard) = self.talk.hear_server(&self.unread, &mut out);
            self.unread.drain(..taken);
            match heard {
                Heard::LookAtSession => {
                    if self.talk.guard_ended()
                        && let Some(model) = &mut self.model
                    {
                        model.read_only = false;
                    }
                    if self.cuts_left > 0 && self.chance.below(16) == 0 {
                        self.cuts_left -= 1;
                        self.cut();
                        return true;
                    }
                    self.talk.release(&mut self.to_client);
                }
                Heard::Idle if taken > 0 => {}
                Heard::More | Heard::Idle => {
                    self.walk();
                    return true;
                }
                Heard::ServerEnds | Heard::SessionEnds | Heard::Broken => panic!("{heard:?}"),
            }
        }
    }

    fn client_reads(&mut self) -> bool {
        let whole = self.to_client.len();
        if whole == 0 {
            return false;
        }
        let count = self.piece(whole);
        let bytes: Vec<u8> = self.to_client.drain(..count).collect();
        self.client.hear(&bytes);
        true
    }

    /// The server is gone, with a part of what was on its way; and with it what nobody had been
    /// told of, if it so happens.
    fn cut(&mut self) {
        let Some(mut model) = self.model.take() else { return };
        if !self.to_server.is_empty() {
            let count = self.chance.below(self.to_server.len() + 1);
            let bytes: Vec<u8> = self.to_server.drain(..count).collect();
            model.hear(&bytes);
        }
        let known = model.log.partition_point(|commit| commit.before < model.taken);
        let kept = known + self.chance.below(model.log.len() - known + 1);
        model.log.truncate(kept);
        self.past.append(&mut model.log);
        self.to_server.clear();
        self.unread.clear();
        self.stop = Stop::More;
        self.talk.hold = false;
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let mut cut = self.talk.cut_off(&mut self.pending, &mut out);
        if let Cut::Doubt(doubt) = cut {
            assert_eq!(doubt.term, self.serial);
            let outcome = match self.past.iter().any(|commit| commit.id == Some(doubt.xid)) {
                _ if self.chance.below(12) == 0 => {
                    self.may_be_unknown = true;
                    Outcome::Unknown
                }
                true => Outcome::Committed,
                false => Outcome::NotCommitted,
            };
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            cut = self.talk.judged(outcome, &mut self.pending, &mut out);
        }
        assert!(self.to_server.is_empty());
        match cut {
            Cut::Settled => {}
            Cut::End(refused) => {
                assert!(self.lasting, "the client session ended: {}", refused.message);
                refused.push(&mut self.to_client);
                self.finish();
            }
            Cut::Doubt(_) | Cut::Close => panic!("{cut:?}"),
        }
    }

    /// The gateway has said its last word.
    fn finish(&mut self) {
        let last = std::mem::take(&mut self.to_client);
        self.client.hear(&last);
        assert!(self.client.over);
    }

    fn judge(mut self) {
        let quiet =
            self.client.over || self.talk.is_quiet() || self.talk.status != super::super::IDLE;
        assert!(quiet || self.talk.needs_failed_transaction(), "{:?}", self.talk);
        if !self.client.over {
            assert_eq!(self.client.ends, self.client.groups, "an answer for each");
        }
        if let Some(model) = self.model.take() {
            self.past.extend(model.log);
        }
        if !self.may_be_unknown {
            assert!(!self.client.codes.iter().any(|code| code == "08007"), "{:?}", self.client);
        }
        for row in &self.client.made {
            let found = self.past.iter().flat_map(|commit| &commit.rows).filter(|it| *it == row);
            let count = found.count();
            match self.client.told.get(row) {
                Some(Told::Committed) => assert_eq!(count, 1, "row {row} was acknowledged"),
                Some(Told::NotCommitted) => assert_eq!(count, 0, "row {row} was reported failed"),
                Some(Told::Unknown) | None => {
                    assert!(count <= 1, "row {row} is there {count} times")
                }
            }
        }
    }
}
