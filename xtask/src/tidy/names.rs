//! What things may be called. A module named after nothing explains nothing; and a role has one
//! word in this repository, the one in `docs/glossary.md`.

use super::{Source, Violation};

/// Modules that become a drawer for everything.
const MODULES: [&str; 8] =
    ["util", "utils", "common", "manager", "managers", "helper", "helpers", "misc"];

/// Words for which the glossary has another one.
const WORDS: [(&str, &str); 4] = [
    ("leader", "principal"),
    ("master", "principal, or primary for what PostgreSQL reports"),
    ("epoch", "term"),
    ("arbiter", "witness"),
];

/// Names that others have given.
const FOREIGN: [&str; 2] = ["UNIX_EPOCH", "POSTGRES_EPOCH"];

pub fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for part in source.path.components() {
        let part = part.as_os_str().to_string_lossy();
        let module = part.strip_suffix(".rs").unwrap_or(&part);
        if MODULES.contains(&module) {
            violations.push(source.violation(0, module_fault(module)));
        }
    }
    for (at, line) in source.lexed.lines.iter().enumerate() {
        let mut before = "";
        for name in line.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if before == "mod" && MODULES.contains(&name) {
                violations.push(source.violation(at + 1, module_fault(name)));
            }
            if let Some((word, instead)) = banned(name) {
                let what = format!("`{name}`: this repository does not say {word}; say {instead}");
                violations.push(source.violation(at + 1, what));
            }
            if !name.is_empty() {
                before = name;
            }
        }
    }
    violations
}

fn module_fault(module: &str) -> String {
    format!("a module named `{module}` explains nothing: name it after what it knows")
}

fn banned(name: &str) -> Option<(&'static str, &'static str)> {
    if FOREIGN.contains(&name) {
        return None;
    }
    let parts = parts(name);
    WORDS.into_iter().find(|(word, _)| parts.iter().any(|part| part == word))
}

/// The words of `a_name` or `AName`, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().into_iter().for_each(|part| part.extend(c.to_lowercase()));
        }
        before = c;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::Source;

    fn faults(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn a_drawer_for_everything_is_refused() {
        assert_eq!(faults("crates/x/src/util.rs", ""), 1);
        assert_eq!(faults("crates/x/src/helpers/time.rs", ""), 1);
        assert_eq!(faults("crates/x/src/lib.rs", "mod common;"), 1);
        assert_eq!(faults("crates/x/src/lib.rs", "mod commonplace;"), 0);
    }

    #[test]
    fn a_role_has_one_word() {
        assert_eq!(faults("a.rs", "let new_leader = EpochNumber(1);"), 2);
        assert_eq!(faults("a.rs", "let postmaster = \"the master\"; // epoch"), 0);
        assert_eq!(faults("a.rs", "std::time::UNIX_EPOCH"), 0);
    }
}
