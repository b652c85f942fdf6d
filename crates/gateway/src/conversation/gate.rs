//! The gate before a commit: the transaction's id is asked for, and what commits is sent when it is
//! known. An error on the way opens the gate as well: nothing can be committed then.

use wire::frame::push;
use wire::message::DataRow;
use wire::sql::Touches;

use super::{
    ASK_ID, ASK_ID_TEXT, Awaited, Conversation, Gate, MAKE_ID, MAKE_ID_TEXT, Progress, Then,
    WAIT_TEXT,
};

impl Conversation {
    /// Asks for the transaction's id, and lets nothing pass until it is here.
    pub(super) fn ask_id(&mut self, server: &mut Vec<u8>) {
        let make = self.tx_notifies;
        // The batch may have deallocated them, which is not known before its replies are here.
        let touched = self.batch().is_some_and(|batch| batch.touches.any(Touches::PREPARED));
        let prepared = !touched && self.server.as_ref().is_some_and(|side| side.ids_prepared);
        if !prepared {
            for name in [ASK_ID, MAKE_ID] {
                push_close(server, name.as_bytes());
                self.expect_at_gate(Awaited::Close);
            }
            push_ids(server, self.refuse_lowered);
            for _ in 0..2 {
                self.expect_at_gate(Awaited::Parse);
            }
            if let Some(side) = &mut self.server {
                side.ids_prepared = true;
            }
        }
        let name = if make { MAKE_ID } else { ASK_ID };
        push(server, b'B', |body| {
            body.push(0);
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0; 7]);
        });
        push(server, b'E', |body| body.extend_from_slice(&[0; 5]));
        push(server, b'H', |_| {});
        self.expect_at_gate(Awaited::Bind);
        self.expect_at_gate(Awaited::Execute);
        let left = if prepared { 2 } else { 6 };
        self.gate = Some(Gate { left, then: Then::Sync, id: None, serializable: false });
    }

    /// The transaction may have an id, or its commit may fail although it has none.
    pub(super) fn needs_id(&self) -> bool {
        self.tx_writes || self.serializable
    }

    pub(super) fn expect_at_gate(&mut self, what: Awaited) {
        self.expect(what, true);
        if let Some(last) = self.expected.back_mut() {
            last.gate = true;
        }
    }

    pub(super) fn set_then(&mut self, then: Then) {
        if let Some(gate) = &mut self.gate {
            gate.then = then;
        }
    }

    pub(super) fn committing(&mut self, id: Option<u64>, serializable: bool) {
        if let Some(batch) = self.batches.back_mut() {
            batch.progress = Progress::Committing { id, serializable };
        }
    }

    pub(super) fn read_id(&mut self, body: &[u8]) {
        let Some(gate) = &mut self.gate else {
            return;
        };
        let row = DataRow::of(body);
        gate.id = row.text(0).and_then(|text| text.parse().ok());
        gate.serializable = row.text(1) == Some("serializable");
    }

    /// The id is here, or the transaction has failed: what commits is sent.
    pub(super) fn open_gate(&mut self, server: &mut Vec<u8>) {
        let Some(Gate { then, id, serializable, .. }) = self.gate.take() else {
            return;
        };
        self.held_back = Some((then, id, serializable));
        self.let_commit(server);
    }

    /// Sends what the gate held, unless a cancel is still on its way to the server.
    pub fn let_commit(&mut self, server: &mut Vec<u8>) {
        if self.cancels > 0 {
            return;
        }
        let Some((then, id, serializable)) = self.held_back.take() else {
            return;
        };
        self.committing(id, serializable);
        match then {
            Then::Sync => {
                push(server, b'S', |_| {});
                self.expect(Awaited::Sync, false);
            }
            Then::Query(bytes) => {
                server.extend_from_slice(&bytes);
                self.expect(Awaited::Query, false);
            }
            Then::Bind(bytes) => {
                server.extend_from_slice(&bytes);
                self.expect(Awaited::Bind, false);
            }
        }
    }

    /// An error came before the transaction's id.
    pub(super) fn fail_gate(&mut self, server: &mut Vec<u8>) {
        let rewritten = self.batches.front().is_some_and(|batch| batch.rewritten);
        match self.gate.take().map(|gate| gate.then) {
            None if rewritten => {}
            None => return,
            Some(Then::Sync) => {}
            Some(Then::Query(_)) => {
                // As if the COMMIT had failed. An answer "ROLLBACK" might pass for a success.
                push(server, b'S', |_| {});
                self.expect(Awaited::Sync, true);
                wire::message::push_query(server, "ROLLBACK");
                self.expect(Awaited::Query, false);
                self.skipping = false;
                return;
            }
            Some(Then::Bind(_)) => return,
        }
        if self.passing_in > 0 {
            // Its bytes would be taken for a part of the message that is on its way.
            self.owes_sync = true;
            return;
        }
        self.push_own_sync(server);
    }

    /// Ends a batch that the client does not know to be an extended one.
    pub(super) fn push_own_sync(&mut self, server: &mut Vec<u8>) {
        self.owes_sync = false;
        push(server, b'S', |_| {});
        self.expect(Awaited::Sync, false);
        self.skipping = false;
    }
}

/// Appends a message that closes a prepared statement.
pub(super) fn push_close(server: &mut Vec<u8>, name: &[u8]) {
    push(server, b'C', |body| {
        body.push(b'S');
        body.extend_from_slice(name);
        body.push(0);
    });
}

/// Appends the Parse messages of the statements that ask for ids.
/// `raise`: they also see to it that the commit waits.
pub fn push_ids(server: &mut Vec<u8>, raise: bool) {
    for (name, text) in [(ASK_ID, ASK_ID_TEXT), (MAKE_ID, MAKE_ID_TEXT)] {
        push(server, b'P', |body| {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(text.as_bytes());
            if raise {
                body.extend_from_slice(WAIT_TEXT.as_bytes());
            }
            body.extend_from_slice(&[0, 0, 0]);
        });
    }
}
