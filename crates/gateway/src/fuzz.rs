//! The conversation of one client session, driven by bytes that somebody made up.
//!
//! A case is a script: what the client sends, when the server answers, what it says that it should
//! not, and when it is lost. The server is a small model that answers every message as PostgreSQL
//! would; so the hidden questions and their gates are reached, too. Nothing may panic, ask for a
//! server that is there, or tell the client more ends of batches than it asked for.

use crate::conversation::{Conversation, Cut, Heard, IDLE, Out, ServerSide, Stop};
use crate::in_doubt::Outcome;
use wire::frame::{HEADER, push, split};

/// Enough for every statement of a case, and little enough that large ones are cut.
const KEPT: usize = 512;
const LARGEST: usize = 1 << 20;

/// The beginnings of a script's steps; the byte behind most of them is a length.
pub const CLIENT: u8 = 0;
pub const ANSWER: u8 = 1;
pub const LOST: u8 = 2;

struct Play<'a> {
    script: &'a [u8],
    talk: Conversation,
    pending: Vec<u8>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    /// From the server, not taken yet.
    unread: Vec<u8>,
    server: Model,
    serial: u64,
    standby: bool,
    /// The server said what no server says: what the client is told cannot be counted.
    hostile: bool,
    sent: Vec<u8>,
    told: Vec<u8>,
    over: bool,
}

/// Plays one case.
///
/// # Panics
/// If the conversation does, or breaks a promise.
pub fn conversation(script: &[u8]) {
    let mut play = Play {
        script,
        talk: Conversation::new(KEPT, true),
        pending: Vec::new(),
        to_client: Vec::new(),
        to_server: Vec::new(),
        unread: Vec::new(),
        server: Model::default(),
        serial: 0,
        standby: false,
        hostile: false,
        sent: Vec::new(),
        told: Vec::new(),
        over: false,
    };
    while !play.over
        && let Some(step) = play.byte()
    {
        play.step(step);
        play.told.append(&mut play.to_client);
    }
    if !play.hostile {
        let (asked, ended) = (count(&play.sent, b"QFS"), count(&play.told, b"Z"));
        assert!(ended <= asked, "{ended} batches ended, and {asked} were asked for");
    }
}

/// Messages with one of these tags, also one that is cut short.
fn count(mut bytes: &[u8], tags: &[u8]) -> usize {
    let mut found = 0;
    while let Some(([tag, length @ ..], body)) = bytes.split_first_chunk::<HEADER>() {
        found += usize::from(tags.contains(tag));
        let length = (u32::from_be_bytes(*length) as usize).saturating_sub(HEADER - 1);
        bytes = body.get(length..).unwrap_or_default();
    }
    found
}

impl Play<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.script.split_first()?;
        self.script = rest;
        Some(*byte)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.script.len());
        let (bytes, rest) = self.script.split_at(length);
        self.script = rest;
        bytes.to_vec()
    }

    fn step(&mut self, step: u8) {
        match step % 12 {
            CLIENT => {
                let bytes = self.bytes();
                self.sent.extend_from_slice(&bytes);
                self.pending.extend_from_slice(&bytes);
            }
            ANSWER => self.answer(usize::MAX),
            LOST => self.lost(),
            3 => self.answer(1),
            4 => {
                self.server.fails = true;
                self.answer(1);
            }
            5 => {
                self.hostile = true;
                let bytes = self.bytes();
                self.unread.extend_from_slice(&bytes);
                self.hear();
            }
            6 => {
                self.talk.cancels = 1 - self.talk.cancels.min(1);
                self.talk.let_commit(&mut self.to_server);
            }
            7 => self.talk.hold = !self.talk.hold,
            8 => self.standby = !self.standby,
            9 => self.server.notices = true,
            // A part of an answer, so that the next step finds the rest of it.
            10 => {
                self.serve(1);
                let cut = usize::from(self.byte().unwrap_or(0)).min(self.unread.len());
                let rest = self.unread.split_off(cut);
                self.hear();
                self.unread.extend_from_slice(&rest);
            }
            _rest if self.talk.is_quiet() => self.talk.rest(),
            _busy => {}
        }
        self.walk();
    }

    /// As `Client::read_client` does.
    fn walk(&mut self) {
        let mut fruitless = 0;
        while !self.over {
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            let (taken, stop) = self.talk.hear_client(&self.pending, &mut out);
            self.pending.drain(..taken);
            fruitless = if taken == 0 { fruitless + 1 } else { 0 };
            match stop {
                Stop::More | Stop::Wait => return,
                Stop::Terminate | Stop::Broken => self.over = true,
                Stop::NeedServer { reads } => {
                    assert!(fruitless < 4, "asks again and again for a server");
                    self.attach(reads);
                }
            }
        }
    }

    fn attach(&mut self, reads: bool) {
        self.serial += 1;
        self.to_server.clear();
        self.unread.clear();
        self.server = Model::default();
        self.talk.hold = false;
        self.talk.server = Some(ServerSide {
            serial: self.serial,
            term: self.serial,
            timeline: 1,
            standby: self.standby && reads,
            ids_prepared: false,
            shared: None,
        });
        if self.talk.needs_failed_transaction() {
            self.server.status = b'E';
            self.talk.has_failed_transaction();
        }
    }

    fn answer(&mut self, messages: usize) {
        self.serve(messages);
        self.hear();
    }

    /// The server takes messages and answers them.
    fn serve(&mut self, messages: usize) {
        for _ in 0..messages {
            let Ok(Some(frame)) = split(&self.to_server, LARGEST) else {
                return;
            };
            self.server.answer(frame.tag, frame.body, &mut self.unread);
            let size = frame.size();
            self.to_server.drain(..size);
        }
    }

    /// As `Client::read_server` does.
    fn hear(&mut self) {
        while self.talk.server.is_some() && !self.over {
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            let (taken, heard) = self.talk.hear_server(&self.unread, &mut out);
            self.unread.drain(..taken);
            self.talk.parameters.clear();
            match heard {
                Heard::More => return,
                Heard::Idle => {}
                Heard::LookAtSession => self.talk.release(&mut self.to_client),
                Heard::SessionEnds => self.over = true,
                Heard::ServerEnds => self.lost(),
                Heard::Broken => {
                    assert!(self.hostile, "the server did nothing wrong");
                    self.lost();
                }
            }
        }
    }

    fn lost(&mut self) {
        if self.talk.server.is_none() {
            return;
        }
        self.to_server.clear();
        self.unread.clear();
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let mut cut = self.talk.cut_off(&mut self.pending, &mut out);
        if let Cut::Doubt(_) = cut {
            let outcome = match self.byte().unwrap_or(0) % 3 {
                0 => Outcome::Committed,
                1 => Outcome::NotCommitted,
                _other => Outcome::Unknown,
            };
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            cut = self.talk.judged(outcome, &mut self.pending, &mut out);
        }
        self.over |= matches!(cut, Cut::End(_) | Cut::Close);
    }
}

/// PostgreSQL, as far as its replies go.
struct Model {
    status: u8,
    skips: bool,
    copies: bool,
    simple: bool,
    /// The next request fails.
    fails: bool,
    notices: bool,
    /// The statement that was bound last asks for an id.
    asks: bool,
    ends: u8,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            status: IDLE,
            skips: false,
            copies: false,
            simple: false,
            fails: false,
            notices: false,
            asks: false,
            ends: IDLE,
        }
    }
}

impl Model {
    fn answer(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.notices) {
            push(out, b'N', |out| out.extend_from_slice(b"VNOTICE\0C00000\0Mhear\0\0"));
        }
        if self.copies {
            return self.copy(tag, out);
        }
        if self.skips && tag != b'S' {
            return;
        }
        // What is left of a COPY that has failed is passed over.
        let can_fail = matches!(tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'F');
        if can_fail && std::mem::take(&mut self.fails) {
            return self.fail(tag, out);
        }
        match tag {
            b'Q' => self.query(body, out),
            b'P' => {
                push(out, b'1', |_| {});
                self.ends = self.after(body.split(|byte| *byte == 0).nth(1).unwrap_or_default());
                self.asks = false;
            }
            b'B' => {
                self.asks = body.windows(8).any(|part| part == b"backstay");
                push(out, b'2', |_| {});
            }
            b'C' => push(out, b'3', |_| {}),
            b'D' => {
                if body.first() == Some(&b'S') {
                    push(out, b't', |out| out.extend_from_slice(&[0, 0]));
                }
                push(out, b'n', |_| {});
            }
            b'E' => self.execute(out),
            b'S' => {
                self.skips = false;
                self.ready(out);
            }
            b'F' => {
                push(out, b'V', |out| out.extend_from_slice(&[0xff; 4]));
                self.ready(out);
            }
            _nothing => {}
        }
    }

    fn query(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if text.starts_with(b"copy") || text.starts_with(b"COPY") {
            (self.copies, self.simple) = (true, true);
            return push(out, b'G', |out| out.extend_from_slice(&[0; 3]));
        }
        self.status = self.after(text);
        push(out, b'C', |out| out.extend_from_slice(b"DONE\0"));
        self.ready(out);
    }

    fn execute(&mut self, out: &mut Vec<u8>) {
        if self.asks {
            push(out, b'D', |out| {
                out.extend_from_slice(b"\0\x02\0\0\0\x0277\0\0\0\x0eread committed");
            });
        } else {
            self.status = self.ends;
        }
        push(out, b'C', |out| out.extend_from_slice(b"DONE\0"));
    }

    /// The status after a statement, by its first word.
    fn after(&self, text: &[u8]) -> u8 {
        let word: Vec<u8> = text.iter().take(6).map(u8::to_ascii_lowercase).collect();
        match word.as_slice() {
            [b'b', b'e', b'g', b'i', b'n', ..] => b'T',
            b"commit" | b"rollba" => IDLE,
            _other => self.status,
        }
    }

    fn copy(&mut self, tag: u8, out: &mut Vec<u8>) {
        match tag {
            b'c' => push(out, b'C', |out| out.extend_from_slice(b"COPY 1\0")),
            b'f' => return self.fail(if self.simple { b'Q' } else { b'E' }, out),
            _data => return,
        }
        self.copies = false;
        if self.simple {
            self.ready(out);
        }
    }

    fn fail(&mut self, tag: u8, out: &mut Vec<u8>) {
        self.copies = false;
        self.status = if self.status == IDLE { IDLE } else { b'E' };
        push(out, b'E', |out| out.extend_from_slice(b"VERROR\0C22000\0Mno\0\0"));
        if matches!(tag, b'Q' | b'F') {
            self.ready(out);
        } else {
            self.skips = true;
        }
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        let status = self.status;
        push(out, b'Z', |out| out.push(status));
    }
}
