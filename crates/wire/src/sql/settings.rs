//! The names of the settings that a text sets for its client session.
//!
//! Read from the text again, and only when somebody asks. The special spellings (SET TIME ZONE,
//! SET NAMES and their like) give the name of the setting behind them. SET LOCAL gives nothing,
//! as it ends with its transaction; so does a SET inside the definition of a function.

use super::lexer::{Lexeme, Lexer, Token};
use super::words::{Verb, Word, word};

/// An iterator over names of settings; see `Summary::settings`.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    last: Token<'a>,
    /// Names that one spelling stands for, and that are still to be told.
    more: &'static [&'static [u8]],
}

const CHARACTERISTICS: &[&[u8]] = &[
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
];

/// Words after SET that stand for a setting with another name.
const SPELLINGS: &[(Word, &[u8])] = &[
    (Word::Authorization, b"session_authorization"),
    (Word::Time, b"TimeZone"),
    (Word::Names, b"client_encoding"),
    (Word::Schema, b"search_path"),
    (Word::Xml, b"xmloption"),
];

fn word_of(token: &Token<'_>) -> Word {
    if token.lexeme == Lexeme::Word { word(token.text) } else { Word::Other }
}

impl<'a> Settings<'a> {
    pub(super) fn new(text: &'a [u8], conforming: bool, any: bool) -> Settings<'a> {
        let text = if any { text } else { &[] };
        Settings { text, lexer: Lexer::new(text, conforming), last: Token::NONE, more: &[] }
    }

    fn peek(&self) -> Token<'a> {
        self.lexer.clone().next().unwrap_or(Token::NONE)
    }

    /// The name after SET or RESET.
    fn assigned(&mut self) -> Option<&'a [u8]> {
        let mut token = self.lexer.next()?;
        if !self.peek().is(b'.') {
            if word_of(&token) == Word::Session {
                token = self.lexer.next()?;
            }
            let first = word_of(&token);
            if matches!(first, Word::Local | Word::Transaction | Word::Constraints | Word::All) {
                return None;
            }
            if first == Word::Characteristics {
                self.more = CHARACTERISTICS;
                return None;
            }
            if let Some((_, name)) = SPELLINGS.iter().find(|(word, _)| *word == first) {
                return Some(name);
            }
        }
        self.name(token)
    }

    /// A name that begins with this token and may have dots.
    fn name(&mut self, first: Token<'a>) -> Option<&'a [u8]> {
        let mut last = first;
        let mut plain = first.lexeme == Lexeme::Word;
        while self.peek().is(b'.') {
            self.lexer.next();
            last = self.lexer.next()?;
            plain &= last.lexeme == Lexeme::Word;
        }
        if plain {
            self.text.get(first.start..last.end)
        } else if last.start == first.start && first.lexeme == Lexeme::Quoted {
            Some(first.text)
        } else {
            None
        }
    }

    /// The name in a call of `set_config`, if it is a literal and nothing else.
    fn argument(&self) -> Option<&'a [u8]> {
        let mut ahead = self.lexer.clone();
        let name = ahead.next()?;
        let comma = ahead.next()?;
        (name.lexeme == Lexeme::Literal && comma.is(b',')).then_some(name.text)
    }
}

impl<'a> Iterator for Settings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some((name, more)) = self.more.split_first() {
                self.more = more;
                return Some(name);
            }
            let token = self.lexer.next()?;
            let last = core::mem::replace(&mut self.last, token);
            let found = if last.is(b';')
                && matches!(word_of(&token), Word::Verb(Verb::Set | Verb::Reset))
            {
                self.assigned()
            } else if token.is(b'(')
                && last.is_name()
                && last.text.eq_ignore_ascii_case(b"set_config")
            {
                self.argument()
            } else {
                None
            };
            if found.is_some() {
                return found;
            }
        }
    }
}
