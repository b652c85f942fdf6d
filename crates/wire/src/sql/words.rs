//! The words of SQL that say what a statement does.
//!
//! A table made while compiling: a word is packed into a number, and the number found by its hash,
//! so that looking at every word of a statement costs little. Words that are only kept from being
//! taken for a function's name are `Keyword`; everything else is `Other`.

/// The first word of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Abort,
    Alter,
    Analyze,
    Begin,
    Call,
    Checkpoint,
    Close,
    Cluster,
    Comment,
    Commit,
    Copy,
    Create,
    Deallocate,
    Declare,
    Delete,
    Discard,
    Do,
    Drop,
    End,
    Execute,
    Explain,
    Fetch,
    Grant,
    Import,
    Insert,
    Listen,
    Load,
    Lock,
    Merge,
    Move,
    Notify,
    Prepare,
    Reassign,
    Refresh,
    Reindex,
    Release,
    Reset,
    Revoke,
    Rollback,
    Savepoint,
    Security,
    Select,
    Set,
    Show,
    Start,
    Table,
    Truncate,
    Unlisten,
    Update,
    Vacuum,
    Values,
    With,
}

/// A word, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// A name, or a word that changes nothing.
    Other,
    /// No function can bear this name, or none does.
    Keyword,
    Verb(Verb),
    All,
    As,
    Atomic,
    Authorization,
    Case,
    Chain,
    Characteristics,
    Concurrently,
    Constraints,
    Database,
    Default,
    For,
    From,
    Function,
    Global,
    Hold,
    Into,
    Key,
    Local,
    Names,
    No,
    Only,
    Or,
    Prepared,
    Procedure,
    Program,
    Read,
    Schema,
    Serializable,
    Session,
    Share,
    Subscription,
    System,
    Tablespace,
    Temp,
    Time,
    To,
    Transaction,
    Write,
    Xml,
}

impl Word {
    /// Before a parenthesis this is syntax, and not the name of a function.
    pub fn is_syntax(self) -> bool {
        match self {
            Word::Verb(verb) => matches!(
                verb,
                Verb::Analyze
                    | Verb::Create
                    | Verb::Do
                    | Verb::End
                    | Verb::Fetch
                    | Verb::Grant
                    | Verb::Select
                    | Verb::Table
                    | Verb::Values
                    | Verb::With
            ),
            Word::Keyword
            | Word::All
            | Word::As
            | Word::Case
            | Word::Concurrently
            | Word::Default
            | Word::For
            | Word::From
            | Word::Into
            | Word::Only
            | Word::Or
            | Word::Time
            | Word::To => true,
            Word::Other
            | Word::Atomic
            | Word::Authorization
            | Word::Chain
            | Word::Characteristics
            | Word::Constraints
            | Word::Database
            | Word::Function
            | Word::Global
            | Word::Hold
            | Word::Key
            | Word::Local
            | Word::Names
            | Word::No
            | Word::Prepared
            | Word::Procedure
            | Word::Program
            | Word::Read
            | Word::Schema
            | Word::Serializable
            | Word::Session
            | Word::Share
            | Word::Subscription
            | Word::System
            | Word::Tablespace
            | Word::Temp
            | Word::Transaction
            | Word::Write
            | Word::Xml => false,
        }
    }
}

const VERBS: &[(&str, Verb)] = &[
    ("abort", Verb::Abort),
    ("alter", Verb::Alter),
    ("analyse", Verb::Analyze),
    ("analyze", Verb::Analyze),
    ("begin", Verb::Begin),
    ("call", Verb::Call),
    ("checkpoint", Verb::Checkpoint),
    ("close", Verb::Close),
    ("cluster", Verb::Cluster),
    ("comment", Verb::Comment),
    ("commit", Verb::Commit),
    ("copy", Verb::Copy),
    ("create", Verb::Create),
    ("deallocate", Verb::Deallocate),
    ("declare", Verb::Declare),
    ("delete", Verb::Delete),
    ("discard", Verb::Discard),
    ("do", Verb::Do),
    ("drop", Verb::Drop),
    ("end", Verb::End),
    ("execute", Verb::Execute),
    ("explain", Verb::Explain),
    ("fetch", Verb::Fetch),
    ("grant", Verb::Grant),
    ("import", Verb::Import),
    ("insert", Verb::Insert),
    ("listen", Verb::Listen),
    ("load", Verb::Load),
    ("lock", Verb::Lock),
    ("merge", Verb::Merge),
    ("move", Verb::Move),
    ("notify", Verb::Notify),
    ("prepare", Verb::Prepare),
    ("reassign", Verb::Reassign),
    ("refresh", Verb::Refresh),
    ("reindex", Verb::Reindex),
    ("release", Verb::Release),
    ("reset", Verb::Reset),
    ("revoke", Verb::Revoke),
    ("rollback", Verb::Rollback),
    ("savepoint", Verb::Savepoint),
    ("security", Verb::Security),
    ("select", Verb::Select),
    ("set", Verb::Set),
    ("show", Verb::Show),
    ("start", Verb::Start),
    ("table", Verb::Table),
    ("truncate", Verb::Truncate),
    ("unlisten", Verb::Unlisten),
    ("update", Verb::Update),
    ("vacuum", Verb::Vacuum),
    ("values", Verb::Values),
    ("with", Verb::With),
];

const WORDS: &[(&str, Word)] = &[
    ("all", Word::All),
    ("as", Word::As),
    ("atomic", Word::Atomic),
    ("authorization", Word::Authorization),
    ("case", Word::Case),
    ("chain", Word::Chain),
    ("characteristics", Word::Characteristics),
    ("concurrently", Word::Concurrently),
    ("constraints", Word::Constraints),
    ("database", Word::Database),
    ("default", Word::Default),
    ("for", Word::For),
    ("from", Word::From),
    ("function", Word::Function),
    ("global", Word::Global),
    ("hold", Word::Hold),
    ("into", Word::Into),
    ("key", Word::Key),
    ("local", Word::Local),
    ("names", Word::Names),
    ("no", Word::No),
    ("only", Word::Only),
    ("or", Word::Or),
    ("prepared", Word::Prepared),
    ("procedure", Word::Procedure),
    ("program", Word::Program),
    ("read", Word::Read),
    ("schema", Word::Schema),
    ("serializable", Word::Serializable),
    ("session", Word::Session),
    ("share", Word::Share),
    ("subscription", Word::Subscription),
    ("system", Word::System),
    ("tablespace", Word::Tablespace),
    ("temp", Word::Temp),
    ("temporary", Word::Temp),
    ("time", Word::Time),
    ("to", Word::To),
    ("transaction", Word::Transaction),
    ("write", Word::Write),
    ("xml", Word::Xml),
];

/// Reserved words, words of types and expressions, and the few others that stand before
/// parentheses all the time.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "and", "any", "array", "asc", "asymmetric", "between", "bigint", "bit", "boolean", "both",
    "by", "cast", "char", "character", "check", "coalesce", "collate", "column", "constraint",
    "cross", "cube", "current_date", "current_role", "current_time", "current_user", "dec",
    "decimal", "deferrable", "desc", "distinct", "else", "escape", "except", "exists", "extract",
    "false", "filter", "float", "foreign", "full", "greatest", "group", "grouping", "having",
    "ilike", "in", "inner", "inout", "int", "integer", "intersect", "interval", "is", "isnull",
    "join", "lateral", "leading", "least", "like", "limit", "localtime", "localtimestamp",
    "materialized", "national", "natural", "nchar", "none", "normalize", "not", "notnull", "null",
    "nullif", "numeric", "offset", "on", "order", "out", "outer", "over", "overlaps", "overlay",
    "placing", "position", "precision", "primary", "real", "references", "returning", "rollup",
    "row", "session_user", "setof", "sets", "similar", "smallint", "some", "substring",
    "symmetric", "then", "timestamp", "trailing", "treat", "trim", "true", "union", "unique",
    "user", "using", "varchar", "variadic", "when", "where", "window", "within",
];

const COUNT: usize = VERBS.len() + WORDS.len() + KEYWORDS.len();
const SLOTS: usize = 1024;
const LONGEST: usize = 16;

const fn pack(word: &[u8]) -> u128 {
    let mut key = 0;
    let mut at = 0;
    while at < word.len() {
        key = key << 8 | word[at].to_ascii_lowercase() as u128;
        at += 1;
    }
    key
}

const fn slot(key: u128) -> usize {
    let folded = (key ^ (key >> 64)) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}

struct Table {
    entries: [(u128, Word); COUNT],
    /// Per slot the entry's number plus one; 0 is an empty slot.
    slots: [u8; SLOTS],
}

static TABLE: Table = {
    let mut table = Table { entries: [(0, Word::Other); COUNT], slots: [0; SLOTS] };
    let mut number = 0;
    while number < COUNT {
        let (text, word) = if number < VERBS.len() {
            (VERBS[number].0, Word::Verb(VERBS[number].1))
        } else if number < VERBS.len() + WORDS.len() {
            WORDS[number - VERBS.len()]
        } else {
            (KEYWORDS[number - VERBS.len() - WORDS.len()], Word::Keyword)
        };
        assert!(text.len() <= LONGEST && number < 255, "the table's words do not fit");
        let key = pack(text.as_bytes());
        table.entries[number] = (key, word);
        let mut at = slot(key);
        while table.slots[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        table.slots[at] = number as u8 + 1;
        number += 1;
    }
    table
};

/// The word that `text`, a token without NUL bytes, is in any case.
pub(super) fn word(text: &[u8]) -> Word {
    if text.len() > LONGEST {
        return Word::Other;
    }
    let key = pack(text);
    let mut at = slot(key);
    loop {
        let number = TABLE.slots[at];
        if number == 0 {
            return Word::Other;
        }
        let (other, word) = TABLE.entries[usize::from(number) - 1];
        if other == key {
            return word;
        }
        at = (at + 1) % SLOTS;
    }
}

pub(super) fn is_verb(word: Word, verb: Verb) -> bool {
    word == Word::Verb(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_case() {
        for (text, verb) in VERBS {
            assert_eq!(word(text.as_bytes()), Word::Verb(*verb));
            assert_eq!(word(text.to_uppercase().as_bytes()), Word::Verb(*verb));
        }
        for (text, expected) in WORDS {
            assert_eq!(word(text.as_bytes()), *expected);
        }
        for text in KEYWORDS {
            assert_eq!(word(text.as_bytes()), Word::Keyword, "{text}");
        }
    }

    #[test]
    fn names_are_no_words() {
        for text in ["", "selec", "selects", "t", "a_very_long_name_indeed", "größe"] {
            assert_eq!(word(text.as_bytes()), Word::Other, "{text}");
        }
    }
}
