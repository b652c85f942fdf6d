//! What the server sends: matched with what was asked, hidden, held, or passed on.

use wire::frame::{Frame, HEADER};
use wire::message::{Fields, field};
use wire::sql::{Touches, is_readable};

use super::from_client::Out;
use super::{Awaited, Conversation, Heard, IDLE, LASTING, Progress, WHOLE};
use crate::refusal;

/// The largest message that is held as a whole.
const LARGEST: usize = 16 * 1024 * 1024;

/// The function of the server that warns of a cancelled wait for the mirror.
pub const WAIT: &str = "SyncRepWaitForLSN";

/// What is done with a message of the server's.
enum Fate {
    /// It is the gateway's own.
    Hidden,
    Shown,
    End(Heard),
}

impl Conversation {
    /// Walks `input`; how much of it was taken, and what it amounted to.
    pub fn hear_server(&mut self, input: &[u8], out: &mut Out<'_>) -> (usize, Heard) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if self.passing_out > 0 {
                let count = rest.len().min(self.passing_out);
                self.passing_out -= count;
                if !self.passing_hidden {
                    self.show(&rest[..count], out);
                }
                at += count;
                if self.passing_out > 0 {
                    return (at, Heard::More);
                }
                continue;
            }
            let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
                return (at, Heard::More);
            };
            let [tag, length @ ..] = *header;
            let Some(length) = (u32::from_be_bytes(length) as usize).checked_sub(HEADER - 1) else {
                return (at, Heard::Broken);
            };
            if body.len() < length {
                let streams = matches!(tag, b'D' | b'd' | b'V') && length > WHOLE;
                if !streams && length <= LARGEST {
                    return (at, Heard::More);
                }
                if !streams || body.len() < 16 {
                    return (at, if streams { Heard::More } else { Heard::Broken });
                }
                self.passing_out = length - body.len();
                self.passing_hidden = self.expected.front().is_some_and(|front| front.hidden);
                if !self.passing_hidden {
                    self.show(rest, out);
                }
                return (input.len(), Heard::More);
            }
            let whole = &rest[..HEADER + length];
            let frame = Frame { tag, body: &body[..length] };
            at += whole.len();
            match self.heard(frame, out) {
                Fate::Hidden => {}
                Fate::Shown => self.show(whole, out),
                Fate::End(heard) => return (at, heard),
            }
        }
    }

    /// Bytes of a reply on their way to the client.
    fn show(&mut self, bytes: &[u8], out: &mut Out<'_>) {
        let limit = self.kept_limit;
        let Some(batch) = self.batches.front_mut() else {
            out.client.extend_from_slice(bytes);
            return;
        };
        if batch.failed && batch.cancelled_wait {
            return;
        }
        if batch.held && self.reply.len() + bytes.len() <= limit {
            self.reply.extend_from_slice(bytes);
            return;
        }
        batch.held = false;
        batch.visible = true;
        if !self.reply.is_empty() {
            out.client.append(&mut self.reply);
        }
        out.client.extend_from_slice(bytes);
    }

    fn heard(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Fate {
        match frame.tag {
            b'N' => self.notice(frame, out),
            b'A' => {
                out.client.push(frame.tag);
                refusal::body(out.client, frame.body);
                Fate::Hidden
            }
            b'S' => self.parameter(frame, out),
            b'E' => self.error(frame, out),
            b'Z' => self.ready(frame.body, out),
            _reply => self.reply_to_front(frame, out),
        }
    }

    fn notice(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Fate {
        let fields = Fields::of(frame.body);
        if fields.routine() == WAIT {
            if let Some(batch) = self.batches.front_mut() {
                batch.cancelled_wait = true;
            }
            return Fate::Hidden;
        }
        if self.quiet {
            return Fate::Hidden;
        }
        out.client.push(frame.tag);
        refusal::body(out.client, frame.body);
        Fate::Hidden
    }

    fn parameter(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Fate {
        let mut parts = frame.body.split(|byte| *byte == 0);
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        if name == b"standard_conforming_strings" {
            self.conforming = value == b"on";
        }
        if name == b"client_encoding" {
            self.readable = is_readable(value);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.parameters.push((text(name), text(value)));
        out.client.push(frame.tag);
        refusal::body(out.client, frame.body);
        Fate::Hidden
    }

    fn reply_to_front(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Fate {
        let Some(front) = self.expected.front() else {
            return Fate::End(Heard::Broken);
        };
        let (what, hidden, gate) = (front.what, front.hidden, front.gate);
        let done = match (what, frame.tag) {
            (Awaited::Parse, b'1') | (Awaited::Bind, b'2') | (Awaited::Close, b'3') => true,
            (Awaited::DescribeStatement, b't') => false,
            (Awaited::Describe | Awaited::DescribeStatement, b'T' | b'n') => true,
            (Awaited::Execute, b'C' | b'I' | b's') => true,
            (Awaited::Execute, b'D' | b'd' | b'c' | b'H' | b'G') => false,
            (Awaited::Query, b'C' | b'I' | b'T' | b'D' | b'd' | b'c' | b'H' | b'G' | b'V') => false,
            _other => return Fate::End(Heard::Broken),
        };
        if frame.tag == b'D' && gate {
            self.read_id(frame.body);
        }
        if frame.tag == b'G' {
            self.begin_copy(what);
        }
        let mut fate = if hidden { Fate::Hidden } else { Fate::Shown };
        if frame.tag == b'C' && !hidden {
            fate = self.completed(frame.body, out);
        }
        if what == Awaited::Describe
            && frame.tag == b'n'
            && self.batches.front().is_some_and(|batch| batch.rewritten)
        {
            fate = Fate::Hidden;
        }
        if done {
            self.answered(out);
        }
        fate
    }

    /// The server asks for data.
    fn begin_copy(&mut self, what: Awaited) {
        self.copy_in = true;
        let Some(batch) = self.batches.front_mut() else {
            return;
        };
        batch.copies = false;
        batch.held = false;
        if what == Awaited::Execute && batch.ended && !batch.rewritten {
            // It was not seen to be a COPY: the server passes over the Sync behind it.
            batch.ended = false;
            if let Some(index) = self.expected.iter().position(|one| one.ends) {
                self.expected.remove(index);
            }
        }
    }

    /// The front of what is expected has come as a whole.
    fn answered(&mut self, out: &mut Out<'_>) {
        let Some(front) = self.expected.pop_front() else {
            return;
        };
        if front.what == Awaited::Parse && !front.hidden {
            self.statements.confirm(front.name.as_deref().unwrap_or_default(), front.number);
        }
        if front.gate
            && let Some(gate) = &mut self.gate
        {
            gate.left -= 1;
            if gate.left == 0 {
                self.open_gate(out.server);
            }
        }
    }

    /// What a command's tag tells of the client session.
    fn completed(&mut self, body: &[u8], out: &mut Out<'_>) -> Fate {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.statements.clear();
            if let Some(side) = &mut self.server {
                side.ids_prepared = false;
                if let Some(shared) = &side.shared {
                    shared.borrow_mut().clear();
                }
            }
        }
        let Some(batch) = self.batches.front_mut() else {
            return Fate::Shown;
        };
        if batch.failed {
            // What the gateway itself has rolled back.
            return Fate::Hidden;
        }
        batch.answered |= tag == b"COMMIT";
        if batch.cancelled_wait && !batch.held {
            let mut error = Vec::new();
            refusal::WAIT_CANCELLED.push(&mut error);
            self.show(&error, out);
            if let Some(batch) = self.batches.front_mut() {
                batch.failed = true;
            }
            return Fate::Hidden;
        }
        Fate::Shown
    }

    fn error(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Fate {
        let fields = Fields::of(frame.body);
        if matches!(fields.get(field::SEVERITY), Some("FATAL" | "PANIC")) {
            if matches!(fields.sqlstate(), "57P01" | "57P02" | "57P03") {
                return Fate::End(Heard::ServerEnds);
            }
            // What is held might pass for the answer to a commit.
            self.reply.clear();
            out.client.push(frame.tag);
            refusal::body(out.client, frame.body);
            return Fate::End(Heard::SessionEnds);
        }
        let Some(front) = self.expected.front() else {
            return Fate::End(Heard::Broken);
        };
        let (what, gate) = (front.what, front.gate);
        let guarded = self.guarded > 0 && fields.sqlstate() == "25006";
        self.copy_in = false;
        if let Some(batch) = self.batches.front_mut() {
            batch.failed = true;
            batch.copies = false;
        }
        if gate && let Some(side) = &mut self.server {
            // They may not be there.
            side.ids_prepared = false;
        }
        if what != Awaited::Query && what != Awaited::Sync {
            self.pass_over();
            self.fail_gate(out.server);
        }
        if guarded {
            let mut error = Vec::new();
            refusal::UNKNOWN.push(&mut error);
            self.show(&error, out);
            return Fate::Hidden;
        }
        Fate::Shown
    }

    /// The server passes over what it has got, until a Sync.
    fn pass_over(&mut self) {
        while let Some(front) = self.expected.front() {
            if front.what == Awaited::Sync {
                self.skipping = false;
                return;
            }
            let Some(front) = self.expected.pop_front() else {
                break;
            };
            if front.ends
                && let Some(batch) = self.batches.front_mut()
            {
                // A simple query inside an extended batch, which the server has passed over.
                batch.ended = false;
            }
            match (front.what, front.name, front.hidden, front.gate) {
                (Awaited::Parse, Some(name), false, _) => {
                    self.statements.refuse(&name, front.number);
                    self.forget_shared(&name);
                }
                (Awaited::Parse, Some(name), true, _) => {
                    self.forget_shared(&name);
                    if let Some(found) = self.statements.get_mut(&name) {
                        found.on = 0;
                    }
                }
                (Awaited::Parse, None, true, true) => {
                    if let Some(side) = &mut self.server {
                        side.ids_prepared = false;
                    }
                }
                (Awaited::Parse, None, false, _) => self.statements.refuse(b"", front.number),
                (Awaited::Parse, None, true, false) => {
                    if let Some(found) = self.statements.get_mut(b"") {
                        found.on = 0;
                    }
                }
                _other => {}
            }
        }
        self.skipping = true;
    }

    fn ready(&mut self, body: &[u8], out: &mut Out<'_>) -> Fate {
        let (Some(front), &[status]) = (self.expected.pop_front(), body) else {
            return Fate::End(Heard::Broken);
        };
        if !matches!(front.what, Awaited::Sync | Awaited::Query) {
            return Fate::End(Heard::Broken);
        }
        self.status = status;
        self.copy_in = false;
        if front.hidden {
            return Fate::Hidden;
        }
        let Some(batch) = self.batches.pop_front() else {
            return Fate::End(Heard::Broken);
        };
        self.kept.drain(..batch.bytes);
        if batch.cancelled_wait && !batch.failed {
            self.reply.clear();
            refusal::WAIT_CANCELLED.push(out.client);
        }
        out.client.append(&mut self.reply);
        if matches!(batch.progress, Progress::Committing { .. }) {
            self.commits += 1;
        }
        self.in_a_row = 0;
        let guard_ends = self.guarded == 1;
        self.guarded = self.guarded.saturating_sub(1);
        let last = self.batches.is_empty();
        if status == IDLE && last {
            self.tx_writes = false;
            self.tx_notifies = false;
            self.loose_end = false;
            self.guard_ended = guard_ends;
            if self.passing_in > 0 {
                // Nothing can be asked in the middle of a message: the next batch's end will do.
                refusal::ready(out.client, status);
                return Fate::Hidden;
            }
            if guard_ends || self.touched.any(LASTING) {
                self.ready = Some(status);
                return Fate::End(Heard::LookAtSession);
            }
            self.touched = Touches::NONE;
        }
        refusal::ready(out.client, status);
        if last && status == IDLE { Fate::End(Heard::Idle) } else { Fate::Hidden }
    }

    /// The repeated batches are over: transactions may write again.
    pub fn guard_ended(&self) -> bool {
        self.guard_ended
    }

    /// What the batches may have changed must be looked at.
    pub fn wants_look(&self) -> bool {
        self.touched.any(LASTING)
    }

    /// The client session has been looked at: the client is told that its batch has ended.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.touched = Touches::NONE;
        self.guard_ended = false;
        if let Some(status) = self.ready.take() {
            refusal::ready(out, status);
        }
    }
}
