//! From tokens to statements, and from statements to what the text does.
//!
//! Every token is looked at once, with the three before it. A word that could change something sets
//! its mark wherever it is not plainly a name, so that a mistake makes a read a write and never a
//! write a read.

use super::functions::{Call, call};
use super::lexer::{Lexeme, Token};
use super::statement::{Marks, Statement};
use super::watch::{COMMIT, MESSAGES};
use super::words::{Verb, Word, is_verb, word};
use super::{Count, Kind, Touches};

/// A token with what it means as a word.
#[derive(Clone, Copy)]
struct Seen<'a> {
    token: Token<'a>,
    word: Word,
}

impl Seen<'_> {
    const NONE: Seen<'static> = Seen { token: Token::NONE, word: Word::Other };
}

/// What the arguments of `set_config` were seen to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Config {
    None,
    Opened,
    Named,
}

/// What was found in a text.
pub(super) struct Found<'a> {
    pub count: Count,
    pub kind: Kind,
    pub first: Option<Verb>,
    pub calls: bool,
    pub touches: Touches,
    pub sets_unnamed: bool,
    pub serializable: bool,
    pub gid: Option<&'a [u8]>,
    pub mentions_commit: bool,
    pub mentions_messages: bool,
}

/// Takes the tokens of a text, one after another.
pub(super) struct Reader<'a> {
    found: Found<'a>,
    statement: Statement<'a>,
    /// The last three tokens, the newest first.
    seen: [Seen<'a>; 3],
    config: Config,
    /// Something is called that may change something.
    runs_unknown: bool,
    /// It is not certain where statements end.
    doubt: bool,
}

impl<'a> Reader<'a> {
    pub fn new() -> Reader<'a> {
        Reader {
            found: Found {
                count: Count::Empty,
                kind: Kind::Empty,
                first: None,
                calls: false,
                touches: Touches::NONE,
                sets_unnamed: false,
                serializable: false,
                gid: None,
                mentions_commit: false,
                mentions_messages: false,
            },
            statement: Statement::NEW,
            seen: [Seen::NONE; 3],
            config: Config::None,
            runs_unknown: false,
            doubt: false,
        }
    }

    pub fn take(&mut self, token: Token<'a>) {
        if self.config != Config::None {
            self.take_argument(&token);
        }
        let mut seen = Seen { token, word: Word::Other };
        match token.lexeme {
            Lexeme::Word => {
                seen.word = self.take_word(&token);
                self.take_name(&token);
            }
            Lexeme::Quoted => {
                self.add_to_head(Word::Other);
                self.take_name(&token);
            }
            Lexeme::Encoded => {
                self.add_to_head(Word::Other);
                self.found.sets_unnamed |= self.statement.is(Verb::Set);
                self.statement.any = true;
            }
            Lexeme::Literal | Lexeme::Composed => self.take_literal(&token),
            Lexeme::Number | Lexeme::Parameter => self.statement.any = true,
            Lexeme::Mark(b';') if self.statement.depth == 0 && self.statement.atomic == 0 => {
                self.end_statement();
                self.seen = [Seen::NONE; 3];
                return;
            }
            Lexeme::Mark(mark) => self.take_mark(mark),
        }
        self.seen = [seen, self.seen[0], self.seen[1]];
    }

    fn add_to_head(&mut self, word: Word) {
        let statement = &mut self.statement;
        if let Some(place) = statement.head.get_mut(statement.words) {
            *place = word;
        }
        statement.words += 1;
        statement.any = true;
    }

    /// The word that this token is, which is `Other` where it is plainly a name.
    fn take_word(&mut self, token: &Token<'a>) -> Word {
        let last = self.seen[0];
        let mut word = word(token.text);
        if last.token.is(b'.') || (last.word == Word::As && !self.is_statement_after_as(word)) {
            word = Word::Other;
        }
        self.add_to_head(word);
        self.mark_word(word);
        word
    }

    /// After AS stands a name, or the statement of PREPARE, EXPLAIN, CREATE TABLE or CREATE RULE.
    fn is_statement_after_as(&self, word: Word) -> bool {
        let holds = [Verb::Create, Verb::Prepare, Verb::Explain];
        matches!(word, Word::Verb(_)) && holds.iter().any(|&verb| self.statement.is(verb))
    }

    fn mark_word(&mut self, word: Word) {
        let [last, before, _] = self.seen;
        let copies = self.statement.depth == 0 && self.statement.is(Verb::Copy);
        let marks = &mut self.statement.marks;
        match word {
            Word::Verb(verb) => self.mark_verb(verb),
            Word::Share => marks.set_if(matches!(last.word, Word::For | Word::Key), Marks::LOCKS),
            Word::Into => {
                let of_verb = is_verb(last.word, Verb::Insert) || is_verb(last.word, Verb::Merge);
                marks.set_if(!of_verb, Marks::INTO);
            }
            Word::Temp => {
                let local = matches!(last.word, Word::Local | Word::Global);
                let into = last.word == Word::Into || local && before.word == Word::Into;
                marks.set_if(into && marks.has(Marks::INTO), Marks::INTO_TEMP);
            }
            Word::From => marks.set_if(copies && !marks.has(Marks::COPY_TO), Marks::COPY_FROM),
            Word::To => marks.set_if(copies && !marks.has(Marks::COPY_FROM), Marks::COPY_TO),
            Word::Program => {
                let outside = copies && matches!(last.word, Word::From | Word::To);
                marks.set_if(outside, Marks::COPY_OUTSIDE);
            }
            Word::Concurrently => marks.set(Marks::CONCURRENTLY),
            Word::Tablespace => marks.set(Marks::TABLESPACE),
            Word::Serializable => marks.set(Marks::SERIALIZABLE),
            Word::Only => marks.set_if(last.word == Word::Read, Marks::READ_ONLY),
            Word::Chain => marks.set_if(last.word != Word::No, Marks::CHAIN),
            Word::Hold => marks.set_if(is_verb(last.word, Verb::With), Marks::HOLD),
            Word::Function | Word::Procedure => marks.set(Marks::ROUTINE),
            Word::Atomic if is_verb(last.word, Verb::Begin) => self.begin_body(),
            Word::Case if self.statement.atomic > 0 => self.statement.atomic += 1,
            Word::Other
            | Word::Keyword
            | Word::All
            | Word::As
            | Word::Atomic
            | Word::Authorization
            | Word::Case
            | Word::Characteristics
            | Word::Constraints
            | Word::Database
            | Word::Default
            | Word::For
            | Word::Global
            | Word::Key
            | Word::Local
            | Word::Names
            | Word::No
            | Word::Or
            | Word::Prepared
            | Word::Read
            | Word::Schema
            | Word::Session
            | Word::Subscription
            | Word::System
            | Word::Time
            | Word::Transaction
            | Word::Write
            | Word::Xml => {}
        }
    }

    fn mark_verb(&mut self, verb: Verb) {
        let last = self.seen[0].word;
        let marks = &mut self.statement.marks;
        if verb == Verb::Update && matches!(last, Word::For | Word::Key) {
            marks.set(Marks::LOCKS);
        } else if matches!(verb, Verb::Insert | Verb::Update | Verb::Delete | Verb::Merge) {
            marks.set(Marks::CHANGES);
        } else if verb == Verb::With {
            marks.set(Marks::WITH);
        } else if verb == Verb::Analyze {
            marks.set(Marks::ANALYZE);
        } else if matches!(verb, Verb::Execute | Verb::Create | Verb::Refresh | Verb::Declare) {
            marks.set(Marks::OTHER_WORK);
        } else if verb == Verb::End && self.statement.atomic > 0 {
            self.statement.atomic -= 1;
        }
    }

    fn begin_body(&mut self) {
        let statement = &mut self.statement;
        let routine = statement.is(Verb::Create) && statement.marks.has(Marks::ROUTINE);
        if routine && statement.depth == 0 && statement.atomic == 0 {
            statement.atomic = 1;
        }
    }

    /// A name, quoted or not, that is of interest itself.
    fn take_name(&mut self, token: &Token<'a>) {
        match token.text.len() {
            7 if self.seen[0].token.is(b'=') || self.seen[0].word == Word::To => {
                self.take_first_schema(token.text);
            }
            11 if token.text.eq_ignore_ascii_case(b"pg_settings") => {
                self.statement.marks.set(Marks::PG_SETTINGS);
            }
            18 => self.found.mentions_commit |= COMMIT.is_named(token.text),
            19 => self.found.mentions_messages |= MESSAGES.is_named(token.text),
            _ => {}
        }
    }

    /// SET search_path = pg_temp: what is made without a schema is temporary.
    fn take_first_schema(&mut self, schema: &[u8]) {
        let sets = self.statement.is(Verb::Set) || self.statement.marks.has(Marks::SET_CONFIG);
        if sets && starts_with(schema, b"pg_temp") {
            self.found.touches |= Touches::TEMP;
        }
    }

    fn take_literal(&mut self, token: &Token<'a>) {
        self.take_name(token);
        let statement = &mut self.statement;
        statement.any = true;
        let last = &self.seen[0];
        if statement.words == 2 {
            statement.marks.set(Marks::GID);
            statement.gid = (token.lexeme == Lexeme::Literal).then_some(token.text);
        }
        if statement.depth == 0
            && statement.is(Verb::Copy)
            && matches!(last.word, Word::From | Word::To)
        {
            statement.marks.set(Marks::COPY_OUTSIDE);
        }
        if token.text.eq_ignore_ascii_case(b"serializable") {
            statement.marks.set(Marks::SERIALIZABLE);
        }
        // The body of a function, now or later.
        if statement.is(Verb::Do) || statement.marks.has(Marks::ROUTINE) {
            self.found.mentions_commit |= COMMIT.is_mentioned(token.text);
            self.found.mentions_messages |= MESSAGES.is_mentioned(token.text);
        }
        // set_config('search_path', 'pg_temp, …', …), and SET search_path = 'pg_temp'.
        let marks = self.statement.marks;
        if marks.has(Marks::SET_CONFIG) || last.token.is(b'=') || last.word == Word::To {
            self.take_first_schema(token.text);
        }
    }

    fn take_mark(&mut self, mark: u8) {
        let last = self.seen[0];
        self.statement.any = true;
        match mark {
            b'(' => {
                self.statement.depth += 1;
                if last.token.is_name() {
                    self.take_call();
                }
            }
            b')' => self.statement.depth = self.statement.depth.saturating_sub(1),
            b';' if self.statement.atomic > 1 => self.doubt = true,
            b'.' if last.token.is_name() => {
                // What a dot follows is a name, whatever word it may be.
                let index = self.statement.words.wrapping_sub(1);
                if index > 0
                    && let Some(place) = self.statement.head.get_mut(index)
                {
                    *place = Word::Other;
                }
                if starts_with(last.token.text, b"pg_temp") {
                    self.statement.marks.set(Marks::PG_TEMP);
                }
                self.found.sets_unnamed |=
                    self.statement.is(Verb::Set) && last.token.lexeme == Lexeme::Quoted;
            }
            _ => {}
        }
    }

    /// A name that a parenthesis follows.
    fn take_call(&mut self) {
        let [name, before, schema] = self.seen;
        let qualified = before.token.is(b'.');
        let is_type = before.token.is(b':') || before.word == Word::As;
        let is_verb = self.statement.words == 1 && self.statement.verb().is_some();
        let syntax = name.token.lexeme == Lexeme::Word && name.word.is_syntax();
        if is_type || !qualified && (is_verb || syntax) {
            return;
        }
        let known = !qualified || schema.token.text.eq_ignore_ascii_case(b"pg_catalog");
        match call(name.token.text) {
            Call::Reads => {
                self.found.calls |= !known;
                self.statement.marks.set_if(!known, Marks::CALLS);
            }
            Call::Unknown => {
                self.found.calls = true;
                self.statement.marks.set(Marks::CALLS);
            }
            Call::Touches(touches) => {
                self.found.calls = true;
                self.found.touches |= touches;
                self.statement.marks.set(Marks::CALLS);
            }
            Call::SetConfig => {
                self.found.calls = true;
                self.found.touches |= Touches::SETTING;
                self.statement.marks.set(Marks::SET_CONFIG);
                self.config = Config::Opened;
            }
            Call::Slot => {
                self.found.calls = true;
                self.statement.marks.set(Marks::SLOT);
            }
        }
    }

    fn take_argument(&mut self, token: &Token<'a>) {
        let plain = token.lexeme == Lexeme::Literal;
        self.config = match self.config {
            Config::Opened if plain => Config::Named,
            Config::Named if token.is(b',') => Config::None,
            Config::None => Config::None,
            Config::Opened | Config::Named => {
                self.found.sets_unnamed = true;
                Config::None
            }
        };
    }

    fn end_statement(&mut self) {
        let statement = core::mem::replace(&mut self.statement, Statement::NEW);
        self.config = Config::None;
        if !statement.any {
            return;
        }
        let kind = statement.kind();
        self.runs_unknown |= statement.marks.has(Marks::CALLS);
        self.found.touches |= statement.touches(kind);
        self.found.sets_unnamed |= statement.updates_settings();
        self.found.serializable |= statement.asks_for_serializable();
        match self.found.count {
            Count::Empty => {
                self.found.count = Count::One;
                self.found.kind = kind;
                self.found.first = statement.verb();
                self.found.gid = statement.gid.filter(|_| matches!(kind, Kind::TwoPhase(_)));
            }
            Count::One | Count::Many => {
                self.found.count = Count::Many;
                self.found.kind = together(self.found.kind, kind, self.runs_unknown);
                self.found.gid = None;
            }
        }
    }

    pub fn finish(mut self, broken: bool) -> Found<'a> {
        self.doubt |= self.statement.atomic > 0;
        let doubt = self.doubt;
        self.end_statement();
        if doubt {
            self.found.count = Count::Many;
        }
        if doubt || broken {
            self.found.kind = Kind::Opaque;
        }
        self.found
    }
}

/// What two statements in one text do. Reads keep their own flag for what they call.
fn together(one: Kind, other: Kind, runs_unknown: bool) -> Kind {
    let is_light = |kind| matches!(kind, Kind::Read | Kind::Session);
    if one == Kind::Read && other == Kind::Read {
        Kind::Read
    } else if is_light(one) && is_light(other) && !runs_unknown {
        Kind::Session
    } else {
        Kind::Opaque
    }
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}
