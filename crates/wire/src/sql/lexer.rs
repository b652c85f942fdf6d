//! The tokens of SQL text, as PostgreSQL's own scanner cuts them.
//!
//! It knows what can hide a semicolon or a word: literals in all their spellings, quoted names,
//! dollar quotes, comments that nest. It copies nothing, and any bytes do: what lies above ASCII
//! is a letter, as it is to PostgreSQL. A literal or comment without its end makes it `broken`.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lexeme {
    /// A name or a keyword without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A name in `U&"…"`, which may be spelt in escapes.
    Encoded,
    /// A literal that says exactly what stands between its quotes.
    Literal,
    /// A literal with doubled quotes, escapes or several parts.
    Composed,
    Number,
    /// A parameter (`$1`).
    Parameter,
    /// Any other byte.
    Mark(u8),
}

/// One token, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token<'a> {
    pub lexeme: Lexeme,
    /// What it says, without its quotes.
    pub text: &'a [u8],
    pub start: usize,
    pub end: usize,
}

impl Token<'_> {
    pub const NONE: Token<'static> =
        Token { lexeme: Lexeme::Mark(b';'), text: &[], start: 0, end: 0 };

    pub fn is(&self, mark: u8) -> bool {
        self.lexeme == Lexeme::Mark(mark)
    }

    pub fn is_name(&self) -> bool {
        matches!(self.lexeme, Lexeme::Word | Lexeme::Quoted | Lexeme::Encoded)
    }

    pub fn is_literal(&self) -> bool {
        matches!(self.lexeme, Lexeme::Literal | Lexeme::Composed)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Minus,
    Slash,
    Dot,
    Other,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'-' => Class::Minus,
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[byte as usize]
}

/// Reads tokens from the front.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    conforming: bool,
    broken: bool,
}

impl<'a> Lexer<'a> {
    /// `conforming` is the setting `standard_conforming_strings`.
    pub fn new(text: &'a [u8], conforming: bool) -> Lexer<'a> {
        Lexer { text, at: 0, conforming, broken: false }
    }

    /// A literal, quoted name or comment began and never ended.
    pub fn broken(&self) -> bool {
        self.broken
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    fn class_at(&self, at: usize) -> Option<Class> {
        self.byte(at).map(class)
    }

    /// The token from `start` to `end`, of which `from..to` is what it says.
    fn token(&mut self, lexeme: Lexeme, span: (usize, usize), says: (usize, usize)) -> Token<'a> {
        let (start, end) = span;
        self.at = end;
        let text = self.text.get(says.0..says.1).unwrap_or_default();
        Token { lexeme, text, start, end }
    }

    fn plain(&mut self, lexeme: Lexeme, end: usize) -> Token<'a> {
        let start = self.at;
        self.token(lexeme, (start, end), (start, end))
    }

    fn mark(&mut self, byte: u8) -> Token<'a> {
        self.plain(Lexeme::Mark(byte), self.at + 1)
    }

    /// A word, or what a prefix of a literal introduces.
    fn word(&mut self, first: u8) -> Token<'a> {
        let start = self.at;
        let next = self.byte(start + 1);
        if next == Some(b'\'') {
            match first {
                b'e' | b'E' => return self.literal(start + 2, true),
                b'b' | b'B' | b'x' | b'X' => return self.literal(start + 2, false),
                // N'…' is the word NCHAR and an ordinary literal.
                b'n' | b'N' => return self.literal(start + 2, !self.conforming),
                _ => {}
            }
        } else if next == Some(b'&') && matches!(first, b'u' | b'U') {
            match self.byte(start + 2) {
                Some(b'\'') => {
                    let mut token = self.literal(start + 3, false);
                    if token.text.contains(&b'\\') {
                        token.lexeme = Lexeme::Composed;
                    }
                    return token;
                }
                Some(b'"') => return self.quoted(start + 3, Lexeme::Encoded),
                Some(_) | None => {}
            }
        }
        let mut end = start + 1;
        while let Some(Class::Letter | Class::Digit | Class::Dollar) = self.class_at(end) {
            end += 1;
        }
        self.plain(Lexeme::Word, end)
    }

    fn number(&mut self) -> Token<'a> {
        let digits = |mut at: usize| {
            while self.class_at(at) == Some(Class::Digit) {
                at += 1;
            }
            at
        };
        let mut end = digits(self.at);
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            end = digits(end + 1);
        }
        if let Some(b'e' | b'E') = self.byte(end) {
            let signed = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            if self.class_at(end + 1 + signed) == Some(Class::Digit) {
                end = digits(end + 1 + signed);
            }
        }
        self.plain(Lexeme::Number, end)
    }

    /// A literal whose first byte of content is at `from`.
    fn literal(&mut self, from: usize, escapes: bool) -> Token<'a> {
        let start = self.at;
        let mut at = from;
        let mut lexeme = Lexeme::Literal;
        loop {
            let found = if escapes {
                self.text
                    .get(at..)
                    .and_then(|rest| rest.iter().position(|b| matches!(b, b'\'' | b'\\')))
            } else {
                find(self.text, at, b'\'').map(|found| found - at)
            };
            let Some(found) = found.map(|found| at + found) else {
                self.broken = true;
                let end = self.text.len();
                return self.token(Lexeme::Composed, (start, end), (from.min(end), end));
            };
            if self.byte(found) == Some(b'\\') || self.byte(found + 1) == Some(b'\'') {
                lexeme = Lexeme::Composed;
                at = found + 2;
            } else if let Some(more) = self.continued(found + 1) {
                lexeme = Lexeme::Composed;
                at = more;
            } else {
                return self.token(lexeme, (start, found + 1), (from, found));
            }
        }
    }

    /// Where the content of a literal goes on that was closed before `at`: literals that only
    /// white space with a line break separates are one, and keep the first one's escapes.
    fn continued(&self, mut at: usize) -> Option<usize> {
        let mut broke = false;
        loop {
            match self.byte(at)? {
                b'\n' | b'\r' => {
                    broke = true;
                    at += 1;
                }
                b'\'' if broke => return Some(at + 1),
                b'-' if self.byte(at + 1) == Some(b'-') => at = self.line_end(at),
                byte if class(byte) == Class::Space => at += 1,
                _ => return None,
            }
        }
    }

    fn line_end(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        from + length.unwrap_or(rest.len())
    }

    fn quoted(&mut self, from: usize, lexeme: Lexeme) -> Token<'a> {
        let start = self.at;
        let mut at = from;
        loop {
            let Some(found) = find(self.text, at, b'"') else {
                self.broken = true;
                let end = self.text.len();
                return self.token(Lexeme::Encoded, (start, end), (from.min(end), end));
            };
            if self.byte(found + 1) != Some(b'"') {
                return self.token(lexeme, (start, found + 1), (from, found));
            }
            at = found + 2;
        }
    }

    /// A dollar-quoted literal, a parameter, or a mark.
    fn dollar(&mut self) -> Token<'a> {
        let start = self.at;
        let mut end = start + 1;
        if self.class_at(end) == Some(Class::Digit) {
            while self.class_at(end) == Some(Class::Digit) {
                end += 1;
            }
            return self.plain(Lexeme::Parameter, end);
        }
        while let Some(Class::Letter | Class::Digit) = self.class_at(end) {
            end += 1;
        }
        if self.byte(end) != Some(b'$') {
            return self.mark(b'$');
        }
        let from = end + 1;
        let tag = &self.text[start..from];
        let mut at = from;
        while let Some(found) = find(self.text, at, b'$') {
            if self.text[found..].starts_with(tag) {
                return self.token(Lexeme::Literal, (start, found + tag.len()), (from, found));
            }
            at = found + 1;
        }
        self.broken = true;
        let end = self.text.len();
        self.token(Lexeme::Composed, (start, end), (from, end))
    }

    /// Skips a comment that begins here; comments nest.
    fn comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let byte = self.byte(self.at)?;
            return Some(match class(byte) {
                Class::Space => {
                    self.at += 1;
                    continue;
                }
                Class::Letter => self.word(byte),
                Class::Digit => self.number(),
                Class::Quote => self.literal(self.at + 1, !self.conforming),
                Class::DoubleQuote => self.quoted(self.at + 1, Lexeme::Quoted),
                Class::Dollar => self.dollar(),
                Class::Minus if self.byte(self.at + 1) == Some(b'-') => {
                    self.at = self.line_end(self.at);
                    continue;
                }
                Class::Slash if self.byte(self.at + 1) == Some(b'*') => {
                    self.comment();
                    continue;
                }
                Class::Dot if self.class_at(self.at + 1) == Some(Class::Digit) => self.number(),
                Class::Minus | Class::Slash | Class::Dot | Class::Other => self.mark(byte),
            });
        }
    }
}

/// Where `byte` is at or after `from`, eight bytes at a time: literals can be very long.
fn find(text: &[u8], from: usize, byte: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let rest = text.get(from..)?;
    let wanted = u64::from_ne_bytes([byte; 8]);
    let (eights, _) = rest.as_chunks::<8>();
    let mut skipped = 0;
    for eight in eights {
        let differs = u64::from_ne_bytes(*eight) ^ wanted;
        if differs.wrapping_sub(ONES) & !differs & HIGHS != 0 {
            break;
        }
        skipped += 8;
    }
    let found = rest[skipped..].iter().position(|&other| other == byte)?;
    Some(from + skipped + found)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    fn tokens(text: &str, conforming: bool) -> Vec<(Lexeme, String)> {
        Lexer::new(text.as_bytes(), conforming)
            .map(|token| (token.lexeme, String::from_utf8_lossy(token.text).into_owned()))
            .collect()
    }

    fn check(text: &str, expected: &[(Lexeme, &str)]) {
        let found = tokens(text, true);
        let found: Vec<_> = found.iter().map(|(lexeme, text)| (*lexeme, text.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn literals_say_what_is_between_their_quotes() {
        check("'a;b'", &[(Lexeme::Literal, "a;b")]);
        check("'it''s'", &[(Lexeme::Composed, "it''s")]);
        check(r"'a\' x", &[(Lexeme::Literal, r"a\"), (Lexeme::Word, "x")]);
        check(r"E'a\'b' x", &[(Lexeme::Composed, r"a\'b"), (Lexeme::Word, "x")]);
        check(r"U&'d\0061' x", &[(Lexeme::Composed, r"d\0061"), (Lexeme::Word, "x")]);
        check(
            "x'1F' B'01' n'q'",
            &[(Lexeme::Literal, "1F"), (Lexeme::Literal, "01"), (Lexeme::Literal, "q")],
        );
        check("$$a;$b$$", &[(Lexeme::Literal, "a;$b")]);
        check("$t$ $$ $T$ $t$;", &[(Lexeme::Literal, " $$ $T$ "), (Lexeme::Mark(b';'), ";")]);
    }

    #[test]
    fn literals_on_several_lines_keep_the_escapes_of_the_first() {
        let text = "E'a' -- c\n 'b\\'c' x";
        check(text, &[(Lexeme::Composed, "a' -- c\n 'b\\'c"), (Lexeme::Word, "x")]);
        check("'a' 'b'", &[(Lexeme::Literal, "a"), (Lexeme::Literal, "b")]);
    }

    #[test]
    fn a_backslash_escapes_when_strings_do_not_conform() {
        let found = tokens(r"'a\';b' x", false);
        assert_eq!(found[0], (Lexeme::Composed, String::from(r"a\';b")));
        assert_eq!(tokens(r"'a\'", true).len(), 1);
        let mut lexer = Lexer::new(br"'a\'", false);
        lexer.by_ref().for_each(drop);
        assert!(lexer.broken());
    }

    #[test]
    fn names_are_words_or_quoted() {
        check(r#"a$b$c "x;""y" "#, &[(Lexeme::Word, "a$b$c"), (Lexeme::Quoted, r#"x;""y"#)]);
        check(r#"U&"d\0061""#, &[(Lexeme::Encoded, r"d\0061")]);
        check("u & x", &[(Lexeme::Word, "u"), (Lexeme::Mark(b'&'), "&"), (Lexeme::Word, "x")]);
        check("größe", &[(Lexeme::Word, "größe")]);
    }

    #[test]
    fn comments_nest_and_hide_everything() {
        check("a/* ; /* ' */ ; */b", &[(Lexeme::Word, "a"), (Lexeme::Word, "b")]);
        check("a--;'\nb", &[(Lexeme::Word, "a"), (Lexeme::Word, "b")]);
        check("/**/a", &[(Lexeme::Word, "a")]);
        check(
            "1*/*x*/2",
            &[(Lexeme::Number, "1"), (Lexeme::Mark(b'*'), "*"), (Lexeme::Number, "2")],
        );
    }

    #[test]
    fn numbers_and_parameters_end_where_postgres_ends_them() {
        check(
            "1e5 1.5 .5 1e'a'",
            &[
                (Lexeme::Number, "1e5"),
                (Lexeme::Number, "1.5"),
                (Lexeme::Number, ".5"),
                (Lexeme::Number, "1"),
                (Lexeme::Literal, "a"),
            ],
        );
        check("$12$q$;$q$", &[(Lexeme::Parameter, "$12"), (Lexeme::Literal, ";")]);
    }

    #[test]
    fn what_never_ends_is_told() {
        for text in ["'a", "\"a", "$$a", "/* /* */", "E'a\\'", "U&\"", "U&'", "$a$ $b$"] {
            let mut lexer = Lexer::new(text.as_bytes(), true);
            lexer.by_ref().for_each(drop);
            assert!(lexer.broken(), "{text}");
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                let mut text = alloc::vec![b'x'; length];
                text[at] = b'\'';
                for from in 0..=length {
                    assert_eq!(find(&text, from, b'\''), (from <= at).then_some(at));
                }
            }
        }
    }
}
