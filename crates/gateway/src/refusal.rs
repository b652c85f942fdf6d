//! What the gateway itself says to a client when something is refused or lost.
//!
//! Each says whose fault it is, whether it may be tried again, and what has happened to the data.

use wire::frame::push;

use crate::restore::literal;

/// An error as PostgreSQL would send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub severity: &'static str,
    pub sqlstate: &'static str,
    pub message: &'static str,
    pub detail: &'static str,
    pub hint: &'static str,
}

const fn error(
    sqlstate: &'static str,
    message: &'static str,
    detail: &'static str,
    hint: &'static str,
) -> Refusal {
    Refusal { severity: "ERROR", sqlstate, message, detail, hint }
}

const fn fatal(
    sqlstate: &'static str,
    message: &'static str,
    detail: &'static str,
    hint: &'static str,
) -> Refusal {
    Refusal { severity: "FATAL", sqlstate, message, detail, hint }
}

pub const TRANSACTION_CUT_OFF: Refusal = error(
    "40001",
    "the transaction was cut off by a failover before its commit",
    "Nothing of it was committed: the server that served it no longer serves the pool.",
    "Repeat the transaction.",
);
pub const NOT_COMMITTED: Refusal = error(
    "40001",
    "the transaction was not committed: a failover cut it off",
    "The new principal knows that it did not happen.",
    "Repeat the transaction.",
);
pub const ANSWER_CUT_OFF: Refusal = error(
    "40001",
    "the answer was cut off by a failover",
    "A part of it had been delivered already. Nothing was committed by this statement.",
    "Repeat the statement.",
);
pub const REPEATED_IN_VAIN: Refusal = error(
    "40001",
    "the statement was cut off again and again",
    "It was repeated, and each server that ran it was lost. Nothing of it was committed.",
    "See whether the statement itself ends the servers before it is repeated.",
);
pub const ANSWER_LOST: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: its statement was too large to be repeated",
    "",
    "Connect again, and look at the data before it is repeated.",
);
pub const UNKNOWN: Refusal = error(
    "08007",
    "a failover cut the statement off, and whether it was committed is not known",
    "What it does cannot be judged from outside, or the server's word about it did not arrive.",
    "Look at the data before it is repeated.",
);
pub const COMMITTED_WITHOUT_ROWS: Refusal = error(
    "08007",
    "the statement was committed, but a part of its answer was lost in a failover",
    "",
    "Do not repeat it: it has been done.",
);
pub const WAIT_CANCELLED: Refusal = error(
    "08007",
    "the wait for the mirror was cancelled: whether the commit outlives a failover is not known",
    "The transaction is committed on the principal, and may not have reached its mirror.",
    "Look at the data before it is repeated.",
);
pub const NO_PRINCIPAL: Refusal = error(
    "57P03",
    "no server has served the pool in time",
    "The statement was not sent to any server: nothing of it was done.",
    "Try it again later.",
);
pub const TOO_MANY_HELD: Refusal = error(
    "57P03",
    "too many client sessions wait for a server of the pool",
    "The statement was not sent to any server: nothing of it was done.",
    "Try it again later.",
);
pub const RESILIENCY: Refusal = error(
    "25006",
    "the pool is in Resiliency mode: nothing persistent can be changed",
    "No server has served the pool for long. Statements that only read go on, if a copy is there.",
    "Try it again when the pool is served.",
);
pub const RESILIENCY_NO_COPY: Refusal = error(
    "57P03",
    "the pool is in Resiliency mode, and no copy of its data can be read",
    "No server has served the pool for long, and none is open to readers.",
    "Try it again when the pool is served.",
);
pub const LOWERED_COMMIT: Refusal = error(
    "0A000",
    "synchronous_commit cannot be set below on here",
    "A commit that does not wait for the mirror would be acknowledged and could be lost.",
    "Leave it as it is, or ask the administrator of the Front End.",
);
pub const LOWERED_AT_LOG_IN: Refusal = fatal(
    "0A000",
    "synchronous_commit cannot be set below on here",
    "A commit that does not wait for the mirror would be acknowledged and could be lost.",
    "Leave it out of the connection's options.",
);
pub const LOG_IN_NO_PRINCIPAL: Refusal =
    fatal("57P03", "no server has served the pool in time", "", "Try it again later.");
pub const NOT_LET_IN: Refusal = fatal(
    "08004",
    "the server does not let the Front End in for this user",
    "Its own way of logging in for this user cannot be passed on.",
    "Use SCRAM-SHA-256 for the user, or ask the administrator: the Front End's log says more.",
);
pub const CANCELLED: Refusal = error(
    "57014",
    "canceling statement due to user request",
    "It was waiting for a server, and was not sent to any.",
    "",
);
pub const TOO_MANY_CLIENTS: Refusal = fatal(
    "53300",
    "the Front End has as many client sessions as it may have",
    "",
    "Try it again later, or ask the administrator to raise limits.clients.",
);
pub const TOO_MANY_OF_USER: Refusal = fatal(
    "53300",
    "the user has as many client sessions as a user may have on this Front End",
    "",
    "Try it again later, or ask the administrator to raise limits.clients_per_user.",
);
pub const BROKEN: Refusal = fatal("08P01", "the client does not keep to the protocol", "", "");
pub const ENDING: Refusal = fatal(
    "57P01",
    "the Front End is being shut down",
    "",
    "Connect again: another Front End of the pool may be there.",
);
pub const TEMPORARY_TABLES: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: it had temporary tables",
    "They were on the server that no longer serves, and cannot be made again.",
    "Connect again.",
);
pub const HELD_CURSORS: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: it had cursors declared WITH HOLD",
    "They were on the server that no longer serves, and cannot be made again.",
    "Connect again.",
);
pub const ADVISORY_LOCKS: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: it had advisory locks",
    "They were on the server that no longer serves; somebody else may have them now.",
    "Connect again.",
);
pub const REPLICATION: Refusal = fatal(
    "0A000",
    "the Front End passes no replication connections on",
    "",
    "Connect to the principal itself, or set replication = \"pass\" on the Front End.",
);
pub const PHYSICAL_REPLICATION: Refusal = fatal(
    "0A000",
    "the pool's servers take physical replication from each other alone",
    "Somebody else could acknowledge commits in the mirror's place.",
    "Logical replication is passed on. Back up by pg_backup_start and a copy of the files.",
);
pub const RESERVED_NAME: Refusal = fatal(
    "0A000",
    "the name of a replication connection must not begin with backstay_",
    "It could acknowledge commits in the mirror's place.",
    "Choose another application_name.",
);
pub const LOWERED_WARNING: Refusal = Refusal {
    severity: "WARNING",
    sqlstate: "01000",
    message: "synchronous_commit below on: what is acknowledged can be lost in a failover",
    detail: "",
    hint: "",
};
pub const COMMIT_RAISED: Refusal = Refusal {
    severity: "WARNING",
    sqlstate: "01000",
    message: "synchronous_commit has been set back to on",
    detail: "A commit that does not wait for the mirror would be acknowledged and could be lost.",
    hint: "",
};
pub const NOTIFICATIONS_LOST: Refusal = Refusal {
    severity: "NOTICE",
    sqlstate: "01000",
    message: "notifications may have been lost in a failover",
    detail: "The client session listens again, on the new principal.",
    hint: "",
};
pub const TOO_MANY_STATEMENTS: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: its prepared statements were too large to be kept",
    "",
    "Connect again.",
);
pub const STATE_UNKNOWN: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: its settings were just being changed",
    "Whether the change took effect is not known.",
    "Connect again.",
);
pub const NOT_RESTORED: Refusal = fatal(
    "57P01",
    "the client session ends with a failover: the new server did not take its settings",
    "",
    "Connect again.",
);

impl Refusal {
    /// Appends it as an ErrorResponse.
    pub fn push(&self, out: &mut Vec<u8>) {
        self.push_as(out, b'E');
    }

    /// Appends it as a NoticeResponse.
    pub fn push_notice(&self, out: &mut Vec<u8>) {
        self.push_as(out, b'N');
    }

    fn push_as(&self, out: &mut Vec<u8>, tag: u8) {
        push(out, tag, |body| {
            let fields = [
                (b'S', self.severity),
                (b'V', self.severity),
                (b'C', self.sqlstate),
                (b'M', self.message),
                (b'D', self.detail),
                (b'H', self.hint),
            ];
            for (code, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                body.push(code);
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
            body.push(0);
        });
    }

    /// The same, and the end of the connection.
    pub fn is_fatal(&self) -> bool {
        self.severity == "FATAL"
    }
}

/// Appends a message's length and body; its tag has been appended.
pub fn body(out: &mut Vec<u8>, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends ReadyForQuery.
pub fn ready(out: &mut Vec<u8>, status: u8) {
    push(out, b'Z', |body| body.push(status));
}

/// Appends CommandComplete.
pub fn complete(out: &mut Vec<u8>, tag: &str) {
    push(out, b'C', |body| {
        body.extend_from_slice(tag.as_bytes());
        body.push(0);
    });
}

/// A statement that fails with this error on the server, so that the server's own view of the
/// transaction stays the true one.
pub fn raise(refusal: &Refusal) -> String {
    format!(
        "DO $backstay$ BEGIN RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = {}, DETAIL = {}, \
         HINT = {}; END $backstay$",
        literal(refusal.sqlstate),
        literal(refusal.message),
        literal(refusal.detail),
        literal(refusal.hint),
    )
}

/// Appends a simple query.
pub fn push_query(out: &mut Vec<u8>, text: &str) {
    wire::message::push_query(out, text);
}
