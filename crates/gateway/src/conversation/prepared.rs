//! The extended protocol's statements: made, bound, described, closed, and made again on a server
//! that does not have them.

use std::rc::Rc;

use wire::frame::{HEADER, push};
use wire::sql::{Count, Kind, Touches};

use super::from_client::{Course, Head, Out, note_settings, until_zero};
use super::gate::push_close;
use super::statements::Statement;
use super::{Awaited, Class, Conversation, Expected, LASTING, Stop, Then};
use crate::refusal;

/// What is known of a statement that is bound.
pub(super) struct Executed {
    kind: Kind,
    touches: Touches,
    calls: bool,
    unread: bool,
}

impl Conversation {
    pub(super) fn parse(&mut self, head: &Head<'_>, begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        self.go_beyond_end();
        let (name, rest) = until_zero(head.body);
        let (text, _) = until_zero(rest);
        let whole = head.length == head.body.len();
        let told = self.summary(text, whole);
        note_settings(&mut self.custom, &told);
        self.serializable |= told.serializable;
        if told.lowers_commit && !self.refuse_lowered {
            self.warn(out.client);
        }
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
        let kind = if lowers { Kind::Session } else { told.kind };
        let on = self.server.as_ref().map_or(0, |server| server.serial);
        let (touches, calls) = (told.touches, told.calls);
        let parse: Rc<[u8]> = parse.into();
        if self.statements.get(name).is_none() {
            self.make_room(name, &parse, out.server);
        }
        if lowers {
            out.server.extend_from_slice(&parse);
        }
        let unread = told.count == Count::Many && !lowers;
        let statement =
            Statement { parse, kind, touches, calls, unread, on, taken: false, number: 0 };
        let number = self.statements.put(name, statement);
        let name = (!name.is_empty()).then(|| Rc::from(name));
        let expected = Expected {
            what: Awaited::Parse,
            hidden: false,
            ends: false,
            gate: false,
            name,
            number,
        };
        self.expected.push_back(expected);
        if lowers { Course::Taken } else { Course::Pass }
    }

    pub(super) fn bind(&mut self, head: &Head<'_>, begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        let (_portal, rest) = until_zero(head.body);
        let (name, _) = until_zero(rest);
        let Some(statement) = self.statements.get(name) else {
            let unknown =
                Executed { kind: Kind::Opaque, touches: LASTING, calls: true, unread: true };
            return self.bound(unknown, head, out);
        };
        let &Statement { kind, touches, calls, unread, .. } = statement;
        self.restore_statement(name, out.server);
        self.bound(Executed { kind, touches, calls, unread }, head, out)
    }

    /// A statement is about to be executed in this batch.
    pub(super) fn bound(
        &mut self,
        executed: Executed,
        head: &Head<'_>,
        out: &mut Out<'_>,
    ) -> Course {
        let Executed { kind, touches, calls, unread } = executed;
        let whole = head.length == head.body.len();
        let (class, own) = self.class_in_batch(kind, unread, whole);
        if class != own || class > Class::Inside {
            if !self.may_follow(class, 1) {
                return Course::Stay(Stop::Wait);
            }
            if let Some(batch) = self.batch() {
                batch.class = class;
                batch.held |= !batch.visible
                    && !batch.prompt
                    && !matches!(class, Class::Inside | Class::Opaque);
            }
        }
        self.note(kind, touches, calls);
        self.loose_end |=
            matches!(kind, Kind::Commit { .. } | Kind::Rollback { .. } | Kind::TwoPhase(_));
        if let Some(batch) = self.batch() {
            batch.bound = true;
            batch.binds_copy = kind == Kind::CopyIn;
        }
        if matches!(kind, Kind::Commit { .. }) && class == Class::Commit {
            if self.needs_id() {
                let mut bind = Vec::with_capacity(HEADER + head.body.len());
                push(&mut bind, b'B', |body| body.extend_from_slice(head.body));
                self.ask_id(out.server);
                self.set_then(Then::Bind(bind));
                return Course::Taken;
            }
            self.committing(None, false);
        }
        self.expect(Awaited::Bind, false);
        Course::Pass
    }

    /// What stands behind the end of a transaction cannot be repeated apart from it.
    fn go_beyond_end(&mut self) {
        if self.batches.back().is_some_and(|batch| batch.over) {
            self.become_opaque();
        }
    }

    /// The class of the last batch once it executes `kind`, too; and what it was.
    fn class_in_batch(&self, kind: Kind, unread: bool, whole: bool) -> (Class, Class) {
        let class = self.class(kind);
        let Some(batch) = self.batches.back() else {
            return (class, Class::Read);
        };
        let ends = matches!(kind, Kind::Commit { .. });
        // What stands behind the end of a transaction is in another one, with an id of its own. A
        // COMMIT outside of any commits what stands before it.
        let apart = batch.over || ends && batch.class == Class::Write || ends && !whole;
        let class = if apart || unread {
            Class::Opaque
        } else if batch.bound {
            class.max(batch.class)
        } else {
            class
        };
        (class, batch.class)
    }

    pub(super) fn execute(&mut self, begins: bool) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        let bound = self.batches.back().is_some_and(|batch| batch.bound);
        if self.loose_end && !bound {
            // The end of the transaction may have been bound in an earlier batch.
            if !self.may_follow(Class::Opaque, 1) {
                return Course::Stay(Stop::Wait);
            }
            self.become_opaque();
        }
        self.loose_end &= !bound;
        if let Some(batch) = self.batch() {
            batch.copies |= batch.binds_copy;
            batch.executed = batch.over;
        }
        self.expect(Awaited::Execute, false);
        Course::Pass
    }

    pub(super) fn describe(&mut self, body: &[u8], begins: bool, out: &mut Out<'_>) -> Course {
        if begins {
            self.start_batch(self.class_at_start());
        }
        if let Some((b'S', name)) = body.split_first() {
            self.go_beyond_end();
            self.restore_statement(until_zero(name).0, out.server);
            return self.step(Awaited::DescribeStatement, false);
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
        if self.shares(name, &parse) {
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
        push_close(server, name);
        self.expect(Awaited::Close, true);
        shared.borrow_mut().insert(name.into(), Rc::clone(parse));
    }

    pub(super) fn forget_shared(&mut self, name: &[u8]) {
        if let Some(shared) = self.server.as_ref().and_then(|side| side.shared.as_ref()) {
            shared.borrow_mut().remove(name);
        }
    }
}
