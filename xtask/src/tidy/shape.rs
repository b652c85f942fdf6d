//! How large things may grow: lines of a file, lines of a function, columns of a line; and that
//! every file says what it is. Tests may be as long as they must; a snapshot, as wide as it is.

use super::{Source, Violation};

const FILE: usize = 600;
const FUNCTION: usize = 70;
const COLUMNS: usize = 100;

pub fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !source.text.starts_with("//!") {
        let what = "a file opens with `//!`: what it is, why, and what always holds in it";
        violations.push(source.violation(1, what));
    }
    for (at, line) in source.text.lines().enumerate() {
        let width = line.chars().count();
        let code = source.lexed.lines[at].chars().filter(|c| !c.is_whitespace()).count();
        let snapshot = in_test(source, at) && line.contains('"') && code <= COLUMNS * 4 / 5;
        if width > COLUMNS && !source.lexed.in_literal[at] && !snapshot {
            let what = format!("{width} columns; {COLUMNS} are allowed: break the line");
            violations.push(source.violation(at + 1, what));
        }
    }
    if !source.is_test() {
        violations.extend(file_size(source));
        violations.extend(function_sizes(source));
    }
    violations
}

fn in_test(source: &Source, at: usize) -> bool {
    source.is_test() || source.lexed.in_test[at]
}

fn file_size(source: &Source) -> Option<Violation> {
    let lines = source.lexed.in_test.iter().filter(|test| !**test).count().saturating_sub(1);
    (lines > FILE).then(|| {
        let what = format!("{lines} lines without tests; {FILE} are allowed: split it by subject");
        source.violation(0, what)
    })
}

fn function_sizes(source: &Source) -> Vec<Violation> {
    let lexed = &source.lexed;
    let mut violations = Vec::new();
    for (first, name) in functions(&lexed.lines) {
        if lexed.in_test[first] {
            continue;
        }
        let Some((line, column)) = body(&lexed.lines, first) else { continue };
        let lines = lexed.closing(line, column) - first + 1;
        if lines > FUNCTION {
            let what = format!(
                "`{name}` has {lines} lines; {FUNCTION} are allowed: \
                 let it branch, and move what the branches do into leaves"
            );
            violations.push(source.violation(first + 1, what));
        }
    }
    violations
}

/// The line and the name of every `fn`.
fn functions(lines: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        while let Some(word) = words.next() {
            if word != "fn" {
                continue;
            }
            if let Some(name) = words.next().filter(|name| !name.is_empty()) {
                found.push((at, name.to_owned()));
            }
        }
    }
    found
}

/// Where the body of the function on line `first` opens; `None` for one without a body.
fn body(lines: &[String], first: usize) -> Option<(usize, usize)> {
    let mut depth = 0;
    let mut seen = false;
    for (at, line) in lines.iter().enumerate().skip(first) {
        let start = if at == first { line.find("fn ").unwrap_or(0) } else { 0 };
        let skip = line[..start].chars().count();
        for (column, c) in line.chars().enumerate().skip(skip) {
            match c {
                '(' | '[' => {
                    depth += 1;
                    seen = true;
                }
                ')' | ']' => depth -= 1,
                '{' if depth == 0 && seen => return Some((at, column)),
                ';' if depth == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, FILE, FUNCTION, check};
    use crate::tidy::Source;

    fn faults(text: &str) -> Vec<String> {
        let source = Source::new("crates/x/src/y.rs", text);
        check(&source).into_iter().map(|violation| violation.to_string()).collect()
    }

    fn function(lines: usize) -> String {
        format!("//! X.\nfn long(\n) {{\n{}}}\n", "    a();\n".repeat(lines - 3))
    }

    #[test]
    fn a_function_of_the_allowed_length_passes_and_one_line_more_does_not() {
        assert_eq!(faults(&function(FUNCTION)), [""; 0]);
        let found = faults(&function(FUNCTION + 1));
        assert!(found.len() == 1 && found[0].contains("`long` has 71 lines"), "{found:?}");
    }

    #[test]
    fn a_file_is_measured_without_its_tests() {
        let lines = |count| "//! X.\n".to_owned() + &"use a;\n".repeat(count - 1);
        assert_eq!(faults(&lines(FILE)), [""; 0]);
        assert_eq!(faults(&lines(FILE + 1)).len(), 1);
        let tests = "#[cfg(test)]\nmod tests {\n    use a;\n}\n";
        assert_eq!(faults(&(lines(FILE) + tests)), [""; 0]);
    }

    #[test]
    fn a_wide_line_and_a_missing_module_text_are_found() {
        let wide = "x".repeat(COLUMNS + 1);
        assert_eq!(faults(&format!("//! X.\n{wide}\n")).len(), 1);
        assert_eq!(faults(&format!("//! X.\nlet a = \"\n{wide}\";\n")), [""; 0]);
        assert_eq!(faults("use a;\n").len(), 1);
    }
}
