//! What a statement does, as far as a failover asks.
//!
//! One pass over the text, without a parser and without allocation: enough to say whether a
//! statement may be repeated, whether its outcome can be looked up, and what it leaves behind that
//! another server would not know. Where the text alone cannot tell, the answer is the careful one:
//! `Write` rather than `Read`, `Opaque` rather than `Write`. No bytes make it panic.
//!
//! Only the text is seen: what a view, a trigger, an operator or somebody's function does is not.

mod functions;
mod lexer;
mod reader;
mod settings;
mod start_up;
mod statement;
mod watch;
mod words;

pub use settings::Settings;
pub use start_up::{StartUpOptions, start_up_options};
pub use watch::{hides_notices, lowers_commit};
pub use words::Verb;

/// How many statements a text holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// None: white space, comments and semicolons only.
    Empty,
    One,
    /// Several, or it is not certain that it is only one.
    Many,
}

/// What may be done with a statement that a failover cuts off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing to do.
    Empty,
    /// Reads (SELECT, VALUES, TABLE, SHOW, EXPLAIN, FETCH, MOVE, COPY … TO STDOUT): it may be
    /// repeated, if `calls` is false or what it calls only reads.
    Read,
    /// A SELECT that locks rows (FOR UPDATE and its like) and calls nothing unknown: it has a
    /// transaction id, but changes nothing, and may be repeated outside of a transaction.
    LockRead,
    /// Changes something and can run in a transaction: the hidden question for the transaction id
    /// may precede it within the same implicit transaction.
    Write,
    /// COPY … FROM STDIN: a write whose data follow.
    CopyIn,
    /// Changes the client session only: SET, RESET, LISTEN, PREPARE, DECLARE and their like; or
    /// several statements of which some do that, the others read, and none calls anything unknown.
    Session,
    /// BEGIN or START TRANSACTION, and what is written there.
    Begin { read_only: bool, serializable: bool },
    /// COMMIT or END; with `chain` a new transaction begins at once.
    Commit { chain: bool },
    /// ROLLBACK or ABORT; with `chain` a new transaction begins at once.
    Rollback { chain: bool },
    /// Changes the current transaction only: SAVEPOINT, RELEASE, ROLLBACK TO, SET TRANSACTION,
    /// SET LOCAL, SET CONSTRAINTS.
    Savepoint,
    /// A step of a prepared transaction; its outcome is found by its `gid`.
    TwoPhase(TwoPhase),
    /// Nothing may be put before it, and its outcome cannot be looked up: VACUUM, CREATE DATABASE,
    /// … CONCURRENTLY, CALL, DO, ALTER SYSTEM; several statements that are not all reads; a text
    /// that is not understood.
    Opaque,
}

/// A step of a prepared transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TwoPhase {
    Prepare,
    Commit,
    Rollback,
}

/// What a text touches that a new server connection would not have, or that needs care.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Touches(u16);

impl Touches {
    pub const NONE: Touches = Touches(0);
    /// SET and RESET (not SET LOCAL), `set_config`, DISCARD ALL, an UPDATE of `pg_settings`.
    pub const SETTING: Touches = Touches(1);
    /// Makes a temporary table, view, sequence or function, or lets names land in `pg_temp`.
    pub const TEMP: Touches = Touches(1 << 1);
    /// Takes an advisory lock that outlives its transaction.
    pub const ADVISORY: Touches = Touches(1 << 2);
    /// DECLARE … WITH HOLD.
    pub const HOLD: Touches = Touches(1 << 3);
    /// LISTEN, UNLISTEN, DISCARD ALL.
    pub const LISTEN: Touches = Touches(1 << 4);
    /// PREPARE, EXECUTE, DEALLOCATE, DISCARD ALL.
    pub const PREPARED: Touches = Touches(1 << 5);
    /// NOTIFY and `pg_notify`: the transaction has no id before its commit.
    pub const NOTIFY: Touches = Touches(1 << 6);
    /// A large object, by its server-side functions.
    pub const LARGE_OBJECT: Touches = Touches(1 << 7);
    /// CALL, DO: a body that may do anything.
    pub const BODY: Touches = Touches(1 << 8);
    /// `nextval` and its like. What `currval` and `lastval` remember is lost with the connection.
    pub const SEQUENCE: Touches = Touches(1 << 9);
    /// RESET ALL, DISCARD ALL: every setting is back at what the log-in gave.
    pub const RESETS: Touches = Touches(1 << 10);
    /// DISCARD ALL: nothing is left that could not be restored.
    pub const DISCARDS: Touches = Touches(1 << 11);

    pub const fn and(self, other: Touches) -> Touches {
        Touches(self.0 | other.0)
    }

    /// Whether it has one of these.
    pub const fn any(self, of: Touches) -> bool {
        self.0 & of.0 != 0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl core::ops::BitOr for Touches {
    type Output = Touches;

    fn bitor(self, other: Touches) -> Touches {
        self.and(other)
    }
}

impl core::ops::BitOrAssign for Touches {
    fn bitor_assign(&mut self, other: Touches) {
        *self = self.and(other);
    }
}

/// What a text does.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    text: &'a [u8],
    conforming: bool,
    pub count: Count,
    pub kind: Kind,
    /// The first word of the first statement, if it is one that begins statements.
    pub first: Option<Verb>,
    /// It calls a function that is not one of PostgreSQL's well-known ones that only read.
    /// Told with care for statements that read; for others it may be true without a call.
    pub calls: bool,
    pub touches: Touches,
    /// It may set `synchronous_commit` below `on`, for this client session or for others.
    pub lowers_commit: bool,
    /// It may set `client_min_messages` above `warning`, for this client session or for others.
    pub hides_notices: bool,
    /// It sets something whose name the text does not plainly say (`set_config($1, …)`): whoever
    /// must be certain asks the server afterwards. `lowers_commit` is not raised by this alone.
    pub sets_unnamed: bool,
    /// It asks for the isolation level SERIALIZABLE, for this transaction or for those to come.
    pub serializable: bool,
    /// The name of the prepared transaction of `Kind::TwoPhase`, if it is plainly written.
    pub gid: Option<&'a [u8]>,
}

impl<'a> Summary<'a> {
    /// The names of the settings that the text sets for the client session, as they are written.
    /// Their values are best asked of the server. What `sets_unnamed` tells of is missing.
    pub fn settings(&self) -> Settings<'a> {
        Settings::new(self.text, self.conforming, self.touches.any(Touches::SETTING))
    }
}

/// What `text` does. `conforming` is the server's `standard_conforming_strings`, which it reports.
///
/// The text is read byte by byte: see `is_readable`.
#[must_use]
pub fn summary(text: &[u8], conforming: bool) -> Summary<'_> {
    let mut reader = reader::Reader::new();
    let mut lexer = lexer::Lexer::new(text, conforming);
    for token in lexer.by_ref() {
        reader.take(token);
    }
    let found = reader.finish(lexer.broken());
    Summary {
        text,
        conforming,
        count: found.count,
        kind: found.kind,
        first: found.first,
        calls: found.calls,
        touches: found.touches,
        lowers_commit: found.mentions_commit && watch::sets(text, conforming, &watch::COMMIT),
        hides_notices: found.mentions_messages && watch::sets(text, conforming, &watch::MESSAGES),
        sets_unnamed: found.sets_unnamed,
        serializable: found.serializable,
        gid: found.gid,
    }
}

/// Whether text in this `client_encoding` can be read byte by byte. In the others a byte of ASCII
/// (a backslash, say) may be half of a letter: a text in them that has any byte above ASCII must be
/// taken for `Opaque`.
#[must_use]
pub fn is_readable(client_encoding: &[u8]) -> bool {
    const UNREADABLE: [&str; 7] =
        ["BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"];
    !UNREADABLE.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(client_encoding))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
