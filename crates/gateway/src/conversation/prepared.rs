//! The extended protocol's statements: made, bound, described, closed, and made again on a server
//! that does not have them.

use std::rc::Rc;

use wire::frame::{HEADER, push};
use wire::sql::{Kind, Touches};

use super::from_client::{Course, Head, Out, note_settings, until_zero};
use super::statements::Statement;
use super::{Awaited, Class, Conversation, Expected, IDLE, Stop, Then};
use crate::refusal;

impl Conversation {
    pub(super) fn parse(&mut self, head: &Head<'_>, begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(if self.status == IDLE { Class::Read } else { Class::Inside });
        }
        let (name, rest) = until_zero(head.body);
        let (text, _) = until_zero(rest);
        let told = self.summary(text);
        note_settings(&mut self.custom, &told);
        let whole = head.length == head.body.len();
        let lowers = whole && told.lowers_commit && self.refuse_lowered;
        let mut parse = Vec::new();
        if lowers {
            let text = refusal::raise(&refusal::LOWERED_COMMIT);
            push(&mut parse, b'P', |body| {
                body.extend_from_slice(name);
                body.push(0);
                body.extend_from_slice(text.as_bytes());
                body.extend_from_slice(&[0, 0, 0]);
            });
        } else if whole {
            parse.reserve(HEADER + head.body.len());
            push(&mut parse, b'P', |body| body.extend_from_slice(head.body));
        }
        let kind = match (whole, lowers) {
            (true, false) => told.kind,
            (true, true) => Kind::Session,
            (false, _) => Kind::Opaque,
        };
        let on = self.server.as_ref().map_or(0, |server| server.serial);
        let (touches, calls) = (told.touches, told.calls);
        let parse: Rc<[u8]> = parse.into();
        if !self.skipping && self.statements.get(name).is_none() {
            self.make_room(name, &parse, out.server);
        }
        if lowers {
            out.server.extend_from_slice(&parse);
        }
        let statement = Statement { parse, kind, touches, calls, on, prior: None };
        self.statements.put(name, statement);
        if !self.skipping {
            let name = (!name.is_empty()).then(|| Rc::from(name));
            let expected =
                Expected { what: Awaited::Parse, hidden: false, ends: false, gate: false, name };
            self.expected.push_back(expected);
        }
        if lowers { Course::Taken } else { Course::Pass }
    }

    pub(super) fn bind(&mut self, head: &Head<'_>, begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(if self.status == IDLE { Class::Read } else { Class::Inside });
        }
        let (_portal, rest) = until_zero(head.body);
        let (name, _) = until_zero(rest);
        let Some(statement) = self.statements.get(name) else {
            return self.bound(Kind::Opaque, Touches::NONE, true, head, out);
        };
        let (kind, touches, calls) = (statement.kind, statement.touches, statement.calls);
        self.restore_statement(name, out.server);
        self.bound(kind, touches, calls, head, out)
    }

    /// A statement is about to be executed in this batch.
    pub(super) fn bound(
        &mut self,
        kind: Kind,
        touches: Touches,
        calls: bool,
        head: &Head<'_>,
        out: &mut Out<'_>,
    ) -> Course {
        let class = self.class(kind);
        let own = self.batches.back().map_or(Class::Read, |batch| batch.class);
        let class = match (own, class) {
            // A second commit in one batch has an id of its own.
            (Class::Commit, Class::Write | Class::Commit) => Class::Opaque,
            (own, class) => class.max(own),
        };
        if class != own || class > Class::Inside {
            if !self.may_follow(class, 1) {
                return Course::Stay(Stop::Wait);
            }
            if let Some(batch) = self.batch() {
                batch.class = class;
                batch.held |= !batch.visible && !matches!(class, Class::Inside | Class::Opaque);
            }
        }
        self.note(kind, touches, calls);
        let ends_transaction = matches!(kind, Kind::Commit { .. }) && class == Class::Commit;
        let whole = head.length == head.body.len();
        if ends_transaction && !self.skipping && whole {
            if self.tx_writes {
                let mut bind = Vec::with_capacity(HEADER + head.body.len());
                push(&mut bind, b'B', |body| body.extend_from_slice(head.body));
                self.ask_id(out.server);
                self.set_then(Then::Bind(bind));
                return Course::Taken;
            }
            self.committing(None, false);
        }
        if !self.skipping {
            self.expect(Awaited::Bind, false);
        }
        Course::Pass
    }

    pub(super) fn describe(&mut self, body: &[u8], begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(if self.status == IDLE { Class::Read } else { Class::Inside });
        }
        if let Some((b'S', name)) = body.split_first() {
            self.restore_statement(until_zero(name).0, out.server);
        }
        self.step(Awaited::Describe, false)
    }

    pub(super) fn close(&mut self, body: &[u8], begins: bool) -> Course {
        if let Some((b'S', name)) = body.split_first() {
            let name = until_zero(name).0;
            self.statements.remove(name);
            self.forget_shared(name);
        }
        self.step(Awaited::Close, begins)
    }

    /// Makes a prepared statement on a server that does not have it yet.
    pub(super) fn restore_statement(&mut self, name: &[u8], server: &mut Vec<u8>) {
        let serial = self.server.as_ref().map_or(0, |server| server.serial);
        let Some(statement) = self.statements.get_mut(name).filter(|found| found.on != serial)
        else {
            return;
        };
        statement.on = serial;
        let parse = Rc::clone(&statement.parse);
        if self.skipping || self.shares(name, &parse) {
            return;
        }
        self.make_room(name, &parse, server);
        if let Some(statement) = self.statements.get(name) {
            server.extend_from_slice(&statement.parse);
            self.expect(Awaited::Parse, true);
            if let Some(last) = self.expected.back_mut().filter(|_| !name.is_empty()) {
                last.name = Some(Rc::from(name));
            }
        }
    }

    /// The connection has this statement, from an earlier client session.
    pub(super) fn shares(&self, name: &[u8], parse: &[u8]) -> bool {
        let shared = self.server.as_ref().and_then(|side| side.shared.as_ref());
        shared.is_some_and(|shared| shared.borrow().get(name).is_some_and(|had| **had == *parse))
    }

    /// On a connection that others use too, the name may mean something else.
    pub(super) fn make_room(&mut self, name: &[u8], parse: &Rc<[u8]>, server: &mut Vec<u8>) {
        let Some(shared) = self.server.as_ref().and_then(|side| side.shared.clone()) else {
            return;
        };
        if name.is_empty() {
            return;
        }
        push(server, b'C', |body| {
            body.push(b'S');
            body.extend_from_slice(name);
            body.push(0);
        });
        self.expect(Awaited::Close, true);
        shared.borrow_mut().insert(name.into(), Rc::clone(parse));
    }

    pub(super) fn forget_shared(&mut self, name: &[u8]) {
        if let Some(shared) = self.server.as_ref().and_then(|side| side.shared.as_ref()) {
            shared.borrow_mut().remove(name);
        }
    }
}
