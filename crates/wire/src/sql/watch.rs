//! The two settings that no client may change without being noticed.
//!
//! `synchronous_commit` below `on` acknowledges commits that only one server has, and
//! `client_min_messages` above `warning` hides the notice that a wait for the mirror was cancelled.
//! Looked at only in texts that name them. A mention that is not understood counts as a change.

use super::lexer::{Lexeme, Lexer, Token};
use super::words::{Verb, Word, word};

/// A setting, and the values that do no harm.
pub(super) struct Watched {
    pub name: &'static [u8],
    harmless: &'static [&'static [u8]],
}

pub(super) static COMMIT: Watched = Watched {
    name: b"synchronous_commit",
    harmless: &[b"on", b"true", b"yes", b"1", b"remote_apply", b"default"],
};

pub(super) static MESSAGES: Watched = Watched {
    name: b"client_min_messages",
    harmless: &[
        b"debug", b"debug1", b"debug2", b"debug3", b"debug4", b"debug5", b"log", b"info",
        b"notice", b"warning", b"default",
    ],
};

/// Whether this setting, with this value, lets commits be acknowledged that one server has alone.
#[must_use]
pub fn lowers_commit(name: &[u8], value: &[u8]) -> bool {
    COMMIT.is_named(name) && !COMMIT.is_harmless(value)
}

/// Whether this setting, with this value, hides the warning that tells of a cancelled wait.
#[must_use]
pub fn hides_notices(name: &[u8], value: &[u8]) -> bool {
    MESSAGES.is_named(name) && !MESSAGES.is_harmless(value)
}

impl Watched {
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.len() == name.len() && self.name.eq_ignore_ascii_case(name)
    }

    fn is_harmless(&self, value: &[u8]) -> bool {
        self.harmless.iter().any(|harmless| harmless.eq_ignore_ascii_case(value))
    }

    /// Whether a body of a function speaks of it.
    pub fn is_mentioned(&self, body: &[u8]) -> bool {
        self.mention(body, 0).is_some()
    }

    fn mention(&self, body: &[u8], from: usize) -> Option<usize> {
        let length = self.name.len();
        let first = self.name[0];
        let starts = body.get(from..)?.windows(length);
        let found = starts
            .enumerate()
            .find(|(_, part)| part[0].eq_ignore_ascii_case(&first) && self.is_named(part));
        found.map(|(at, _)| from + at)
    }
}

/// What must come next, after the setting was named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Nothing,
    /// `=` or TO.
    Assignment,
    Value,
    /// The comma after the name in `set_config`.
    Comma,
    /// The value in `set_config`.
    Argument,
    /// What shows that the value was all of the argument.
    ArgumentEnd,
}

/// Whether the text may give the setting a value that does harm.
pub(super) fn sets(text: &[u8], conforming: bool, watched: &Watched) -> bool {
    let mut walk = Walk {
        watched,
        seen: [Token::NONE; 2],
        verb: None,
        routine: false,
        expect: Expect::Nothing,
        loose: false,
        setter: false,
    };
    let harmful = Lexer::new(text, conforming).any(|token| walk.take(token));
    harmful || walk.loose && walk.setter || walk.expect != Expect::Nothing
}

struct Walk<'a> {
    watched: &'a Watched,
    /// The tokens before, the newest first.
    seen: [Token<'a>; 2],
    /// The first word of the statement.
    verb: Option<Word>,
    /// The statement makes or alters a function or procedure.
    routine: bool,
    expect: Expect,
    /// A literal names the setting, and nothing explains it.
    loose: bool,
    /// Something here sets settings by name.
    setter: bool,
}

impl<'a> Walk<'a> {
    /// Whether this token settles that harm is done.
    fn take(&mut self, token: Token<'a>) -> bool {
        let word = if token.lexeme == Lexeme::Word { word(token.text) } else { Word::Other };
        let harmful = self.expected(&token, word) || self.named(&token) || self.body(&token);
        if token.is(b';') {
            self.verb = None;
            self.routine = false;
        } else if self.verb.is_none() && token.lexeme == Lexeme::Word {
            self.verb = Some(word);
            self.setter |= matches!(word, Word::Verb(Verb::Execute | Verb::Call));
        }
        self.routine |= matches!(word, Word::Function | Word::Procedure);
        let settings = token.is_name() && token.text.eq_ignore_ascii_case(b"pg_settings");
        let config = token.is(b'(') && self.seen[0].text.eq_ignore_ascii_case(b"set_config");
        self.setter |= config || settings && !self.begins_with(&[Verb::Select, Verb::Show]);
        self.seen = [token, self.seen[0]];
        harmful
    }

    fn begins_with(&self, verbs: &[Verb]) -> bool {
        verbs.iter().any(|&verb| self.verb == Some(Word::Verb(verb)))
    }

    fn expected(&mut self, token: &Token<'a>, word: Word) -> bool {
        let said = self.watched.is_harmless(token.text);
        let (next, fine) = match self.expect {
            Expect::Nothing => return false,
            // FROM CURRENT: what the client session has, which was looked at before.
            Expect::Assignment if word == Word::From => (Expect::Nothing, true),
            Expect::Assignment => (Expect::Value, token.is(b'=') || word == Word::To),
            Expect::Value => (Expect::Nothing, said),
            Expect::Comma => (Expect::Argument, token.is(b',')),
            Expect::Argument => (Expect::ArgumentEnd, said && token.lexeme == Lexeme::Literal),
            Expect::ArgumentEnd => (Expect::Nothing, token.is(b',') || token.is(b')')),
        };
        self.expect = next;
        !fine
    }

    fn named(&mut self, token: &Token<'a>) -> bool {
        if !self.watched.is_named(token.text) {
            return false;
        }
        let [last, before] = &self.seen;
        if token.is_literal() {
            let called = |name: &[u8]| last.is(b'(') && before.text.eq_ignore_ascii_case(name);
            if called(b"set_config") {
                self.expect = Expect::Comma;
            } else if !called(b"current_setting") {
                self.loose = true;
            }
        } else if token.is_name() && self.begins_with(&[Verb::Set, Verb::Alter, Verb::Create]) {
            let is = |token: &Token<'_>, wanted: Word| {
                token.lexeme == Lexeme::Word && word(token.text) == wanted
            };
            let set = Word::Verb(Verb::Set);
            let qualified = is(last, Word::Session) || is(last, Word::Local);
            if is(last, set) || qualified && is(before, set) {
                self.expect = Expect::Assignment;
            }
        }
        false
    }

    /// Literals that are the body of something that runs, now or later.
    fn body(&self, token: &Token<'a>) -> bool {
        let runs = self.begins_with(&[Verb::Do])
            || self.routine && self.begins_with(&[Verb::Create, Verb::Alter]);
        // A value of the clause SET was looked at already.
        runs && token.is_literal() && self.is_harmful(token.text)
    }

    fn is_harmful(&self, body: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = self.watched.mention(body, from) {
            from = at + self.watched.name.len();
            if !self.is_explained(&body[..at], &body[from..]) {
                return true;
            }
        }
        false
    }

    /// Whether a mention between these texts reads the setting, or gives it a value without harm.
    fn is_explained(&self, before: &[u8], after: &[u8]) -> bool {
        let before = trimmed_end(before);
        if [&b"current_setting("[..], b"show", b"reset"].iter().any(|reads| {
            let start = before.len().checked_sub(reads.len());
            start.is_some_and(|start| before[start..].eq_ignore_ascii_case(reads))
        }) {
            return true;
        }
        let after = trimmed_start(after);
        let signs = [&b":="[..], b"=", b",", b"to ", b"TO "];
        let Some(value) = signs.iter().find_map(|sign| after.strip_prefix(*sign)) else {
            return false;
        };
        let value = trimmed_start(value);
        let end = value.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        let (value, rest) = value.split_at(end.unwrap_or(value.len()));
        self.watched.is_harmless(value) && !trimmed_start(rest).starts_with(b"|")
    }
}

fn is_filling(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'\'' | b'"')
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_filling(byte));
    &text[start.unwrap_or(text.len())..]
}

fn trimmed_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| !is_filling(byte));
    &text[..end.map_or(0, |end| end + 1)]
}
