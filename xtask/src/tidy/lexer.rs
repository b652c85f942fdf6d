//! Just enough of Rust's grammar to tell code from comments and from literals.
//!
//! `Lexed` keeps every line where it is and blanks whatever is not code, so that a check can
//! search for words without being fooled by a string, and match braces without being fooled by a
//! comment. It also knows which lines are tests.

/// The code of a file, with comments and the insides of literals blanked.
#[derive(Debug)]
pub struct Lexed {
    /// As many lines as the file has, and of the same lengths in characters.
    pub lines: Vec<String>,
    /// Whether the line lies in a `#[cfg(test)]` module.
    pub in_test: Vec<bool>,
    /// Whether the line begins inside a literal.
    pub in_literal: Vec<bool>,
}

impl Lexed {
    pub fn new(text: &str) -> Self {
        let (code, in_literal) = blanked(text);
        let lines: Vec<String> = code.split('\n').map(str::to_owned).collect();
        let in_test = test_lines(&lines);
        Self { lines, in_test, in_literal }
    }

    /// The line on which the brace opened at (`line`, `column`) is closed.
    pub fn closing(&self, line: usize, column: usize) -> usize {
        closing(&self.lines, line, column)
    }
}

/// `text` with comments and literals blanked, and which of its lines begin inside a literal.
fn blanked(text: &str) -> (String, Vec<bool>) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut in_literal = vec![false];
    let mut at = 0;
    while at < chars.len() {
        let (end, kind) = token(&chars, at);
        for &c in &chars[at..end] {
            if c == '\n' {
                code.push('\n');
                in_literal.push(kind == Kind::Literal);
            } else {
                code.push(if kind == Kind::Code { c } else { ' ' });
            }
        }
        at = end;
    }
    (code, in_literal)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Where the token that begins at `at` ends, and what it is.
fn token(chars: &[char], at: usize) -> (usize, Kind) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (until(chars, at, '\n'), Kind::Comment),
        '/' if next == Some('*') => (block_comment(chars, at), Kind::Comment),
        '"' => (string(chars, at), Kind::Literal),
        '\'' => match character(chars, at) {
            Some(end) => (end, Kind::Literal),
            None => (at + 1, Kind::Code),
        },
        c if c.is_alphanumeric() || c == '_' => {
            let mut end = at;
            while chars.get(end).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                end += 1;
            }
            let word: String = chars[at..end].iter().collect();
            match word.as_str() {
                "r" | "br" | "cr" => match raw_string(chars, end) {
                    Some(end) => (end, Kind::Literal),
                    None => (end, Kind::Code),
                },
                _ => (end, Kind::Code),
            }
        }
        _ => (at + 1, Kind::Code),
    }
}

fn until(chars: &[char], at: usize, stop: char) -> usize {
    (at..chars.len()).find(|&i| chars[i] == stop).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of a raw string whose hashes or quote begin at `at`; `None` for a raw identifier.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let ends = |i: &usize| {
        chars[*i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    let end = (at + hashes + 1..chars.len()).find(ends);
    Some(end.map_or(chars.len(), |end| end + 1 + hashes))
}

/// The end of a character literal; `None` for a lifetime.
fn character(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at + 1)? {
        '\\' => Some(until(chars, at + 3, '\'') + 1),
        _ => (chars.get(at + 2) == Some(&'\'')).then_some(at + 3),
    }
}

/// Which lines lie in a module under `#[cfg(test)]`.
fn test_lines(lines: &[String]) -> Vec<bool> {
    let mut in_test = vec![false; lines.len()];
    let mut line = 0;
    while line < lines.len() {
        if lines[line].trim_start().starts_with("#[cfg(test)]") {
            let opening = (line..lines.len()).find_map(|at| {
                let column = lines[at].find(['{', ';'])?;
                Some((at, column, lines[at][column..].starts_with('{')))
            });
            let end = match opening {
                Some((at, column, true)) => closing(lines, at, lines[at][..column].chars().count()),
                Some((at, _, false)) => at,
                None => lines.len() - 1,
            };
            in_test[line..=end].fill(true);
            line = end;
        }
        line += 1;
    }
    in_test
}

fn closing(lines: &[String], line: usize, column: usize) -> usize {
    let mut depth = 0;
    for (at, text) in lines.iter().enumerate().skip(line) {
        let skip = if at == line { column } else { 0 };
        for c in text.chars().skip(skip) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                return at;
            }
        }
    }
    lines.len() - 1
}

#[cfg(test)]
mod tests {
    use super::Lexed;

    fn code(text: &str) -> String {
        let lexed = Lexed::new(text);
        lexed.lines.join("\n").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blank_and_lifetimes_are_code() {
        assert_eq!(code("a /* b /* c */ d */ e // f\ng"), "a e g");
        assert_eq!(code(r##"a("x\"y") + r#"z"w"# + b'\'' + 'q' + b"##), "a( ) + + b + + b");
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(code("r#type = br\"x\""), "r#type =");
    }

    #[test]
    fn a_test_module_is_known_to_its_last_brace() {
        let lexed = Lexed::new("fn a() {}\n#[cfg(test)]\nmod tests {\n\"}\"\n}\nfn b() {}\n");
        assert_eq!(lexed.in_test, [false, true, true, true, true, false, false]);
    }

    #[test]
    fn a_line_inside_a_literal_is_known() {
        assert_eq!(Lexed::new("a(\"\nb\n\")\nc").in_literal, [false, true, true, false]);
    }
}
