//! What one statement does, judged at its end.
//!
//! By its first words, and by marks that were set on the way to its end. Every verb is named in
//! `kind`: a verb that is new here has to be judged before it compiles.

use super::words::{Verb, Word};
use super::{Kind, Touches, TwoPhase};

/// What was seen in a statement, as a set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks(u32);

impl Marks {
    /// INSERT, UPDATE, DELETE or MERGE.
    pub const CHANGES: u32 = 1;
    pub const WITH: u32 = 1 << 1;
    /// INTO that is not of INSERT or MERGE.
    pub const INTO: u32 = 1 << 2;
    pub const INTO_TEMP: u32 = 1 << 3;
    pub const LOCKS: u32 = 1 << 4;
    pub const ANALYZE: u32 = 1 << 5;
    /// EXECUTE, CREATE, REFRESH or DECLARE.
    pub const OTHER_WORK: u32 = 1 << 6;
    pub const CONCURRENTLY: u32 = 1 << 7;
    pub const TABLESPACE: u32 = 1 << 8;
    pub const SLOT: u32 = 1 << 9;
    pub const SERIALIZABLE: u32 = 1 << 10;
    pub const READ_ONLY: u32 = 1 << 11;
    pub const CHAIN: u32 = 1 << 12;
    pub const HOLD: u32 = 1 << 13;
    pub const PG_TEMP: u32 = 1 << 14;
    pub const COPY_FROM: u32 = 1 << 15;
    pub const COPY_TO: u32 = 1 << 16;
    /// COPY from or to a file or a program of the server.
    pub const COPY_OUTSIDE: u32 = 1 << 17;
    pub const ROUTINE: u32 = 1 << 18;
    pub const PG_SETTINGS: u32 = 1 << 19;
    pub const SET_CONFIG: u32 = 1 << 20;
    /// A literal stands right after the first two words.
    pub const GID: u32 = 1 << 21;
    /// A call of something that may change something.
    pub const CALLS: u32 = 1 << 22;

    pub fn set(&mut self, mark: u32) {
        self.0 |= mark;
    }

    pub fn set_if(&mut self, condition: bool, mark: u32) {
        if condition {
            self.set(mark);
        }
    }

    pub fn has(self, mark: u32) -> bool {
        self.0 & mark != 0
    }
}

/// What a statement touches by its verb alone.
const OWN: &[(Verb, Touches)] = &[
    (Verb::Call, Touches::BODY),
    (Verb::Deallocate, Touches::PREPARED),
    (Verb::Do, Touches::BODY),
    (Verb::Execute, Touches::PREPARED),
    (Verb::Listen, Touches::LISTEN),
    (Verb::Notify, Touches::NOTIFY),
    (Verb::Unlisten, Touches::LISTEN),
];

const DISCARD_ALL: Touches = Touches::SETTING
    .and(Touches::LISTEN)
    .and(Touches::PREPARED)
    .and(Touches::RESETS)
    .and(Touches::DISCARDS);

/// How many of a statement's first words are kept.
const HEAD: usize = 6;

/// The statement that is being read.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    pub any: bool,
    pub head: [Word; HEAD],
    pub words: usize,
    pub marks: Marks,
    pub depth: usize,
    /// How many ENDs the body of BEGIN ATOMIC still needs; 0 outside of one.
    pub atomic: usize,
    pub gid: Option<&'a [u8]>,
}

impl Statement<'_> {
    pub const NEW: Statement<'static> = Statement {
        any: false,
        head: [Word::Other; HEAD],
        words: 0,
        marks: Marks(0),
        depth: 0,
        atomic: 0,
        gid: None,
    };

    pub fn verb(&self) -> Option<Verb> {
        if let Word::Verb(verb) = self.head[0] { Some(verb) } else { None }
    }

    pub fn is(&self, verb: Verb) -> bool {
        self.verb() == Some(verb)
    }

    /// The word at `index`, which is `Other` beyond the last.
    fn word(&self, index: usize) -> Word {
        if index < self.words {
            self.head.get(index).copied().unwrap_or(Word::Other)
        } else {
            Word::Other
        }
    }

    pub fn kind(&self) -> Kind {
        let Some(verb) = self.verb() else { return Kind::Opaque };
        match verb {
            Verb::Select | Verb::Values | Verb::Table | Verb::With => self.kind_of_query(),
            Verb::Show | Verb::Fetch | Verb::Move => Kind::Read,
            Verb::Explain => self.kind_of_explain(),
            Verb::Copy => self.kind_of_copy(),
            Verb::Insert
            | Verb::Update
            | Verb::Delete
            | Verb::Merge
            | Verb::Execute
            | Verb::Truncate
            | Verb::Notify
            | Verb::Grant
            | Verb::Revoke
            | Verb::Comment
            | Verb::Lock
            | Verb::Refresh
            | Verb::Import
            | Verb::Reassign
            | Verb::Security
            | Verb::Analyze => Kind::Write,
            Verb::Create | Verb::Alter | Verb::Drop => self.kind_of_definition(),
            Verb::Set if is_for_the_transaction(self.word(1)) => Kind::Savepoint,
            // With HOLD the query runs to its end when the cursor's transaction commits.
            Verb::Declare if self.marks.has(Marks::HOLD) && self.marks.has(Marks::CALLS) => {
                Kind::Write
            }
            Verb::Set
            | Verb::Reset
            | Verb::Listen
            | Verb::Unlisten
            | Verb::Deallocate
            | Verb::Discard
            | Verb::Declare
            | Verb::Close
            | Verb::Load => Kind::Session,
            Verb::Prepare if self.word(1) == Word::Transaction && self.marks.has(Marks::GID) => {
                Kind::TwoPhase(TwoPhase::Prepare)
            }
            Verb::Prepare => Kind::Session,
            Verb::Begin => self.begins(),
            Verb::Start if self.word(1) == Word::Transaction => self.begins(),
            Verb::Commit if self.word(1) == Word::Prepared => Kind::TwoPhase(TwoPhase::Commit),
            Verb::Commit | Verb::End => Kind::Commit { chain: self.marks.has(Marks::CHAIN) },
            Verb::Rollback if self.word(1) == Word::Prepared => Kind::TwoPhase(TwoPhase::Rollback),
            Verb::Rollback | Verb::Abort
                if self.word(1) == Word::To || self.word(2) == Word::To =>
            {
                Kind::Savepoint
            }
            Verb::Rollback | Verb::Abort => Kind::Rollback { chain: self.marks.has(Marks::CHAIN) },
            Verb::Savepoint | Verb::Release => Kind::Savepoint,
            Verb::Start
            | Verb::Vacuum
            | Verb::Call
            | Verb::Do
            | Verb::Checkpoint
            | Verb::Reindex
            | Verb::Cluster => Kind::Opaque,
        }
    }

    fn kind_of_query(&self) -> Kind {
        let marks = self.marks;
        if marks.has(Marks::SLOT) {
            Kind::Opaque
        } else if marks.has(Marks::INTO) || marks.has(Marks::WITH) && marks.has(Marks::CHANGES) {
            Kind::Write
        } else if marks.has(Marks::LOCKS) && marks.has(Marks::CALLS) {
            // It takes a transaction id in any case, by which its outcome can be looked up.
            Kind::Write
        } else if marks.has(Marks::LOCKS) {
            Kind::LockRead
        } else {
            Kind::Read
        }
    }

    /// Without ANALYZE nothing is executed. With it, in whatever spelling, all of it is.
    fn kind_of_explain(&self) -> Kind {
        let marks = self.marks;
        if !marks.has(Marks::ANALYZE) {
            Kind::Read
        } else if marks.has(Marks::CHANGES) || marks.has(Marks::OTHER_WORK) {
            Kind::Write
        } else {
            self.kind_of_query()
        }
    }

    fn kind_of_copy(&self) -> Kind {
        let marks = self.marks;
        if marks.has(Marks::COPY_OUTSIDE) {
            Kind::Write
        } else if marks.has(Marks::COPY_FROM) {
            Kind::CopyIn
        } else if !marks.has(Marks::COPY_TO) {
            Kind::Opaque
        } else if marks.has(Marks::CHANGES) {
            Kind::Write
        } else {
            self.kind_of_query()
        }
    }

    fn kind_of_definition(&self) -> Kind {
        let what = self.word(1);
        let database =
            what == Word::Database && (!self.is(Verb::Alter) || self.marks.has(Marks::TABLESPACE));
        let tablespace = what == Word::Tablespace && !self.is(Verb::Alter);
        let alone = database
            || tablespace
            || matches!(what, Word::Subscription | Word::System)
            || self.marks.has(Marks::CONCURRENTLY)
            || self.marks.has(Marks::SLOT);
        if alone { Kind::Opaque } else { Kind::Write }
    }

    fn begins(&self) -> Kind {
        Kind::Begin {
            read_only: self.marks.has(Marks::READ_ONLY),
            serializable: self.marks.has(Marks::SERIALIZABLE),
        }
    }

    /// What it touches by itself, beside the functions that it calls.
    pub fn touches(&self, kind: Kind) -> Touches {
        let temp = self.marks.has(Marks::INTO_TEMP)
            || self.makes_temp()
            || self.marks.has(Marks::PG_TEMP) && !matches!(kind, Kind::Read | Kind::LockRead);
        let mut touches = if temp { Touches::TEMP } else { Touches::NONE };
        if self.updates_settings() {
            touches |= Touches::SETTING;
        }
        let Some(verb) = self.verb() else { return touches };
        if let Some((_, own)) = OWN.iter().find(|(own, _)| *own == verb) {
            touches |= *own;
        }
        let all = self.word(1) == Word::All;
        if kind == Kind::Session && matches!(verb, Verb::Set | Verb::Reset) {
            let one = !is_for_the_transaction(self.word(1));
            touches |= if one { Touches::SETTING } else { Touches::NONE };
            touches |= if all { Touches::RESETS } else { Touches::NONE };
        } else if verb == Verb::Discard && all {
            touches |= DISCARD_ALL;
        } else if verb == Verb::Declare && self.marks.has(Marks::HOLD) {
            touches |= Touches::HOLD;
        } else if verb == Verb::Prepare && kind == Kind::Session {
            touches |= Touches::PREPARED;
        }
        touches
    }

    /// CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP.
    fn makes_temp(&self) -> bool {
        let after_or = if self.word(1) == Word::Or { 3 } else { 1 };
        let scoped = matches!(self.word(after_or), Word::Global | Word::Local);
        self.is(Verb::Create) && self.word(after_or + usize::from(scoped)) == Word::Temp
    }

    /// An UPDATE of the view `pg_settings` is a SET in disguise.
    pub fn updates_settings(&self) -> bool {
        self.marks.has(Marks::PG_SETTINGS) && self.marks.has(Marks::CHANGES)
    }

    pub fn asks_for_serializable(&self) -> bool {
        let verbs = [Verb::Set, Verb::Begin, Verb::Start];
        let asks = verbs.iter().any(|&verb| self.is(verb)) || self.marks.has(Marks::SET_CONFIG);
        asks && self.marks.has(Marks::SERIALIZABLE)
    }
}

/// Words after SET that make it one of the transaction alone.
fn is_for_the_transaction(word: Word) -> bool {
    matches!(word, Word::Transaction | Word::Constraints | Word::Local)
}
