//! What the client sends: cut into batches, looked at, kept, gated, and passed on.

use wire::frame::{HEADER, push};
use wire::sql::{Count, Kind, Summary, Touches, summary};

use super::{Awaited, Class, Conversation, FAILED, IDLE, Owed, Progress, Stop, Then, WHOLE};
use crate::refusal::{self, Refusal};

/// The borders of one message, as far as its bytes are here.
pub(super) struct Head<'a> {
    pub tag: u8,
    /// Of the body, as the message says.
    pub length: usize,
    /// The body, or its beginning.
    pub body: &'a [u8],
}

/// What is done with a message.
pub(super) enum Course {
    /// Pass it on as it is.
    Pass,
    /// Something else has been sent in its place.
    Taken,
    /// Pass it on, and do not keep it: data of a COPY.
    Data,
    /// It stays where it is.
    Stay(Stop),
}

/// Where the walk puts bytes.
pub struct Out<'a> {
    pub server: &'a mut Vec<u8>,
    pub client: &'a mut Vec<u8>,
}

impl Conversation {
    /// Walks `input`; how much of it was taken, and why the walk ended.
    pub fn hear_client(&mut self, input: &[u8], out: &mut Out<'_>) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if self.passing_in > 0 {
                let count = rest.len().min(self.passing_in);
                out.server.extend_from_slice(&rest[..count]);
                self.passing_in -= count;
                at += count;
                if self.passing_in > 0 {
                    return (at, Stop::More);
                }
                if self.owes_sync {
                    self.push_own_sync(out.server);
                }
                continue;
            }
            if self.dropping_in > 0 {
                let count = rest.len().min(self.dropping_in);
                self.dropping_in -= count;
                at += count;
                if self.dropping_in > 0 {
                    return (at, Stop::More);
                }
                continue;
            }
            if self.gate.is_some() || self.held_back.is_some() || self.ready.is_some() {
                return (at, Stop::Wait);
            }
            let head = match self.head(rest) {
                Ok(Some(head)) => head,
                Ok(None) => return (at, Stop::More),
                Err(stop) => return (at, stop),
            };
            let here = HEADER + head.body.len();
            let missing = head.length - head.body.len();
            match self.message(&head, out) {
                Course::Stay(stop) => return (at, stop),
                Course::Pass => {
                    out.server.extend_from_slice(&rest[..here]);
                    self.passing_in = missing;
                    self.keep(&rest[..here], missing > 0);
                }
                Course::Taken => {
                    self.dropping_in = missing;
                    self.keep(&rest[..here], missing > 0);
                }
                Course::Data => {
                    out.server.extend_from_slice(&rest[..here]);
                    self.passing_in = missing;
                }
            }
            at += here;
        }
    }

    /// The next message, or the beginning of one that is too large to be held.
    fn head<'a>(&self, rest: &'a [u8]) -> Result<Option<Head<'a>>, Stop> {
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let counted = u32::from_be_bytes(length) as usize;
        let length = counted.checked_sub(HEADER - 1).ok_or(Stop::Broken)?;
        if length > (1 << 30) + 1024 {
            return Err(Stop::Broken);
        }
        if body.len() >= length {
            return Ok(Some(Head { tag, length, body: &body[..length] }));
        }
        // Data may be passed on in parts; a text is needed as a whole if it can be kept at all.
        let needed = match tag {
            b'd' => 0,
            b'Q' | b'P' => self.kept_limit,
            _large => WHOLE,
        };
        if length <= needed || body.len() < needed.min(length) {
            return Ok(None);
        }
        Ok(Some(Head { tag, length, body }))
    }

    /// Keeps the client's bytes of the batch that they belong to.
    fn keep(&mut self, bytes: &[u8], partial: bool) {
        let (limit, kept) = (self.kept_limit, self.kept.len());
        let Some(batch) = self.batches.back_mut() else {
            return;
        };
        if !batch.whole {
            return;
        }
        if partial || kept + bytes.len() > limit {
            batch.whole = false;
            self.kept.truncate(kept - batch.bytes);
            batch.bytes = 0;
            return;
        }
        batch.bytes += bytes.len();
        self.kept.extend_from_slice(bytes);
    }

    fn message(&mut self, head: &Head<'_>, out: &mut Out<'_>) -> Course {
        if let Some(status) = self.discarding {
            return self.discard(head.tag, status, out);
        }
        match head.tag {
            b'd' | b'c' | b'f' => self.copy(head, out),
            // A server does what it was asked before the good-bye.
            b'X' if !self.copy_in && self.batches.front().is_some_and(|batch| batch.ended) => {
                Course::Stay(Stop::Wait)
            }
            b'X' => Course::Stay(Stop::Terminate),
            b'H' | b'S' if self.copy_in => Course::Taken,
            b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'H' | b'S' | b'F' => {
                if head.length > head.body.len() && !matches!(head.tag, b'Q' | b'P' | b'B' | b'F') {
                    return Course::Stay(Stop::Broken);
                }
                if self.copy_in {
                    return Course::Stay(Stop::Broken);
                }
                self.request(head, out)
            }
            _unknown => Course::Stay(Stop::Broken),
        }
    }

    /// Passes over messages until a Sync, as a server does after an error.
    fn discard(&mut self, tag: u8, status: u8, out: &mut Out<'_>) -> Course {
        match tag {
            b'S' => {
                self.discarding = None;
                refusal::ready(out.client, status);
            }
            b'X' => return Course::Stay(Stop::Terminate),
            _passed_over => {}
        }
        Course::Taken
    }

    /// Data of a COPY, and its end.
    fn copy(&mut self, head: &Head<'_>, out: &mut Out<'_>) -> Course {
        if self.server.is_none() {
            return Course::Taken;
        }
        if !self.copy_in && self.awaits_copy(out.server) {
            return Course::Stay(Stop::Wait);
        }
        if head.tag == b'd' || !self.copy_in {
            return Course::Data;
        }
        self.copy_in = false;
        let Some(batch) = self.batch().filter(|batch| batch.rewritten) else {
            return Course::Data;
        };
        // A simple COPY is told to be complete only once it is committed.
        batch.held = true;
        // A simple COPY that runs as an extended one: its Sync is the gateway's.
        push(out.server, head.tag, |body| {
            body.extend_from_slice(head.body);
            if head.length > head.body.len() {
                body.push(0);
            }
        });
        self.ask_id(out.server);
        Course::Taken
    }

    /// Whether it is still open if the server asks for data. It answers one way or the other: it is
    /// made to, if it could keep its answer back.
    fn awaits_copy(&mut self, server: &mut Vec<u8>) -> bool {
        let nothing_to_come = self.expected.is_empty();
        let Some(batch) = self.batches.back_mut().filter(|batch| batch.copies) else {
            return false;
        };
        if nothing_to_come {
            batch.copies = false;
            return false;
        }
        if !batch.ended && !batch.flushed {
            batch.flushed = true;
            push(server, b'H', |_| {});
        }
        true
    }

    fn request(&mut self, head: &Head<'_>, out: &mut Out<'_>) -> Course {
        let begins = self.batches.back().is_none_or(|batch| batch.ended);
        if head.tag == b'H' {
            return self.flush(begins, out);
        }
        if begins {
            if let Some(course) = self.begin(head, out) {
                return course;
            }
        } else if self.skipping && head.tag != b'S' {
            return Course::Pass;
        }
        match head.tag {
            b'Q' => self.query(head, begins, out),
            b'P' => self.parse(head, begins, out),
            b'B' => self.bind(head, begins, out),
            b'S' => self.sync(begins, out),
            b'F' => self.function_call(begins),
            b'E' => self.execute(begins),
            b'D' => self.describe(head.body, begins, out),
            _close => self.close(head.body, begins),
        }
    }

    /// The client wants the replies to what it has sent.
    fn flush(&mut self, begins: bool, out: &mut Out<'_>) -> Course {
        if self.server.is_none() {
            return Course::Taken;
        }
        let front = self.batches.len() == 1;
        if let Some(batch) = self.batches.back_mut().filter(|_| !begins) {
            batch.prompt = true;
            batch.held = false;
            if front && !self.reply.is_empty() {
                batch.visible = true;
                out.client.append(&mut self.reply);
            }
        }
        Course::Pass
    }

    /// Whether a batch may begin; the course if it may not.
    fn begin(&mut self, head: &Head<'_>, out: &mut Out<'_>) -> Option<Course> {
        if self.owed == Owed::CutTransaction {
            return self.tell_cut_transaction(head, out);
        }
        let outside = self.status == IDLE && self.batches.is_empty();
        let held = self.hold && self.status == IDLE && self.owed == Owed::Nothing;
        if self.server.is_none() || held && outside {
            let reads = self.reads(head);
            return Some(Course::Stay(Stop::NeedServer { reads }));
        }
        // What stands before may change what this is: nothing is known of it before that has ended.
        let extended = !matches!(head.tag, b'Q' | b'F');
        if held || extended && !self.may_follow(self.class_at_start(), 0) {
            return Some(Course::Stay(Stop::Wait));
        }
        if outside && self.server.as_ref().is_some_and(|server| server.standby) && !self.reads(head)
        {
            return Some(Course::Stay(Stop::NeedServer { reads: false }));
        }
        None
    }

    /// What a text does. Of a part of one, or of one that cannot be read, nothing is known.
    pub(super) fn summary<'a>(&self, text: &'a [u8], whole: bool) -> Summary<'a> {
        let mut told = summary(text, self.conforming);
        if !whole || !self.readable && !text.is_ascii() {
            told.kind = Kind::Opaque;
            told.count = Count::Many;
            told.touches |= Touches::BODY;
        }
        told
    }

    /// The kind of the statement that a message brings or uses.
    fn kind(&self, head: &Head<'_>) -> Kind {
        let whole = head.length == head.body.len();
        match head.tag {
            b'Q' => self.summary(until_zero(head.body).0, whole).kind,
            b'P' => {
                let (_name, rest) = until_zero(head.body);
                self.summary(until_zero(rest).0, whole).kind
            }
            b'B' => {
                let (_portal, rest) = until_zero(head.body);
                self.statements.get(until_zero(rest).0).map_or(Kind::Opaque, |found| found.kind)
            }
            _other => Kind::Empty,
        }
    }

    /// What begins here only reads, as far as it can be told.
    fn reads(&self, head: &Head<'_>) -> bool {
        match self.kind(head) {
            Kind::Empty
            | Kind::Read
            | Kind::Session
            | Kind::Begin { .. }
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::Savepoint => true,
            Kind::LockRead | Kind::Write | Kind::CopyIn | Kind::TwoPhase(_) | Kind::Opaque => false,
        }
    }

    /// The transaction was cut off while the client was not asking for anything.
    fn tell_cut_transaction(&mut self, head: &Head<'_>, out: &mut Out<'_>) -> Option<Course> {
        let kind = self.kind(head);
        if matches!(kind, Kind::Rollback { .. }) {
            self.owed = Owed::FailedTransaction;
            return Some(Course::Stay(Stop::NeedServer { reads: true }));
        }
        let status = if matches!(kind, Kind::Commit { .. }) { IDLE } else { FAILED };
        self.owed = if status == IDLE { Owed::Nothing } else { Owed::FailedTransaction };
        self.status = status;
        self.refuse(head.tag, &refusal::TRANSACTION_CUT_OFF, status, out);
        Some(Course::Taken)
    }

    /// Answers what begins here with an error, and passes over the rest of its batch.
    fn refuse(&mut self, tag: u8, refused: &Refusal, status: u8, out: &mut Out<'_>) {
        self.refusals += 1;
        refused.push(out.client);
        if matches!(tag, b'Q' | b'F' | b'S') {
            refusal::ready(out.client, status);
        } else {
            self.discarding = Some(status);
        }
    }

    /// Answers the batch that begins `input` with an error; how much of it was taken.
    pub fn refuse_next(&mut self, input: &[u8], refused: &Refusal, out: &mut Out<'_>) -> usize {
        let Ok(Some(head)) = self.head(input) else {
            return 0;
        };
        self.dropping_in = head.length - head.body.len();
        let status = if self.owed == Owed::FailedTransaction { FAILED } else { self.status };
        // A repeated batch may have done something where it was sent first.
        let refused = if self.guarded > 0 { &refusal::UNKNOWN } else { refused };
        self.guarded = self.guarded.saturating_sub(1);
        self.refuse(head.tag, refused, status, out);
        HEADER + head.body.len()
    }

    fn query(&mut self, head: &Head<'_>, begins: bool, out: &mut Out<'_>) -> Course {
        if !begins {
            // A simple query inside an unfinished extended batch: the server takes it, and so does
            // its commit. Nobody does this; it is passed on as what cannot be known.
            if self.batches.len() > 1 {
                return Course::Stay(Stop::Wait);
            }
            self.become_opaque();
            self.end_batch();
            self.expect(Awaited::Query, false);
            return Course::Pass;
        }
        let (text, _) = until_zero(head.body);
        let told = self.summary(text, head.length == head.body.len());
        let mut class = self.class(told.kind);
        let many = told.count == Count::Many;
        if many && (class == Class::Commit || told.kind == Kind::Opaque) {
            class = Class::Opaque;
        }
        if !self.may_follow(class, 0) {
            return Course::Stay(Stop::Wait);
        }
        self.statements.forget_unnamed();
        self.start_batch(class);
        note_settings(&mut self.custom, &told);
        self.note(told.kind, told.touches, told.calls);
        self.serializable |= told.serializable;
        if let Some(batch) = self.batch() {
            batch.copies = told.kind == Kind::CopyIn;
        }
        self.end_batch();
        if told.lowers_commit && !self.refuse_lowered {
            self.warn(out.client);
        }
        if self.refuse_lowered && told.lowers_commit && self.status != FAILED {
            refusal::push_query(out.server, &refusal::raise(&refusal::LOWERED_COMMIT));
            self.expect(Awaited::Query, false);
            return Course::Taken;
        }
        match class {
            Class::Write if told.count == Count::One => {
                self.rewrite(text, told.kind == Kind::CopyIn, out.server);
                Course::Taken
            }
            Class::Commit if self.needs_id() => {
                let mut query = Vec::with_capacity(HEADER + head.body.len());
                push(&mut query, b'Q', |body| body.extend_from_slice(head.body));
                self.ask_id(out.server);
                self.set_then(Then::Query(query));
                Course::Taken
            }
            Class::Commit => {
                self.committing(None, false);
                self.expect(Awaited::Query, false);
                Course::Pass
            }
            Class::Write | Class::Opaque => {
                self.become_opaque();
                self.expect(Awaited::Query, false);
                Course::Pass
            }
            Class::Read | Class::Session | Class::Inside => {
                self.expect(Awaited::Query, false);
                Course::Pass
            }
        }
    }

    /// Sends one statement of a simple query as an extended batch, so that all its replies come
    /// before its commit begins.
    fn rewrite(&mut self, text: &[u8], copy: bool, server: &mut Vec<u8>) {
        push(server, b'P', |body| {
            body.push(0);
            body.extend_from_slice(text);
            body.extend_from_slice(&[0, 0, 0]);
        });
        push(server, b'B', |body| body.extend_from_slice(&[0; 8]));
        push(server, b'D', |body| body.extend_from_slice(b"P\0"));
        push(server, b'E', |body| body.extend_from_slice(&[0; 5]));
        self.expect(Awaited::Parse, true);
        self.expect(Awaited::Bind, true);
        // Its description is seen if there is one: see `from_server`.
        self.expect(Awaited::Describe, false);
        self.expect(Awaited::Execute, false);
        if let Some(batch) = self.batch() {
            batch.rewritten = true;
        }
        if copy {
            push(server, b'H', |_| {});
        } else {
            self.ask_id(server);
        }
    }

    pub(super) fn step(&mut self, what: Awaited, begins: bool) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        self.expect(what, false);
        Course::Pass
    }

    fn function_call(&mut self, begins: bool) -> Course {
        let class = if self.status == IDLE { Class::Opaque } else { Class::Inside };
        if begins {
            if !self.may_follow(class, 0) {
                return Course::Stay(Stop::Wait);
            }
            self.start_batch(class);
        } else if self.batches.len() > 1 {
            return Course::Stay(Stop::Wait);
        } else {
            self.become_opaque();
        }
        self.note(Kind::Opaque, Touches::NONE, true);
        self.end_batch();
        self.expect(Awaited::Query, false);
        Course::Pass
    }

    fn sync(&mut self, begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        // The server would pass over this Sync if it takes data, and needs it if it does not.
        if !self.skipping && self.awaits_copy(out.server) {
            return Course::Stay(Stop::Wait);
        }
        self.end_batch();
        let gated = self
            .batches
            .back()
            .is_some_and(|batch| batch.class == Class::Write && batch.progress == Progress::Open);
        if gated && !self.skipping {
            self.ask_id(out.server);
            return Course::Taken;
        }
        self.skipping = false;
        self.expect(Awaited::Sync, false);
        Course::Pass
    }
}

/// Remembers the names of settings that no catalogue lists.
pub(super) fn note_settings(custom: &mut Vec<String>, told: &Summary<'_>) {
    const MOST: usize = 200;
    const LONGEST: usize = 128;
    if !told.touches.any(Touches::SETTING) {
        return;
    }
    let listed = |name: &&[u8]| name.contains(&b'.') && name.len() <= LONGEST;
    for name in told.settings().filter(listed) {
        let name = String::from_utf8_lossy(name).into_owned();
        if custom.len() < MOST && !custom.contains(&name) {
            custom.push(name);
        }
    }
}

/// The bytes before the first zero byte, and those behind it.
pub(super) fn until_zero(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}
