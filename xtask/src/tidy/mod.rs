//! What no compiler checks: who may use whom, how large things may grow, what they may be called.
//!
//! Every ban names its replacement, so that whoever meets it knows what to write instead.
//! The checks read files and `cargo metadata`; they compile nothing. They run as an ordinary
//! test (`xtask/tests/tidy.rs`) and as `cargo xtask tidy`. There is no list of exceptions: a rule
//! that has to be broken is changed here, for everybody.

pub mod edges;
pub mod lexer;
pub mod licences;
pub mod links;
pub mod names;
pub mod shape;
pub mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{output, run};
use lexer::Lexed;

/// A rule that is broken, and where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    pub place: String,
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// A Rust file of this repository, read once and lexed once for all checks.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root of the repository.
    pub path: PathBuf,
    pub text: String,
    pub lexed: Lexed,
}

impl Source {
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let lexed = Lexed::new(&text);
        Self { path, text, lexed }
    }

    pub fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { place: self.path.display().to_string(), line, what: what.into() }
    }

    /// Whether the whole file is a test.
    pub fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
            || self.path.ends_with("tests.rs")
    }

    pub fn file_name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Every broken rule.
pub fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let mut sources = Vec::new();
    for path in files(root)? {
        let full = root.join(&path);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                let text = std::fs::read_to_string(&full)
                    .with_context(|| format!("read {}", path.display()))?;
                sources.push(Source::new(path, text));
            }
            Some("md") => violations.extend(links::check(root, &path)?),
            _ => {}
        }
    }
    for source in &sources {
        violations.extend(shape::check(source));
        violations.extend(names::check(source));
        violations.extend(words::check(source));
    }
    violations.extend(edges::check(root)?);
    violations.extend(licences::check(root)?);
    violations.sort();
    Ok(violations)
}

/// The checks as a chore.
pub fn run() -> Result<()> {
    let violations = check(&crate::root())?;
    if violations.is_empty() {
        output::say("tidy.");
        return Ok(());
    }
    for violation in &violations {
        output::data(violation);
    }
    bail!("{} places are not tidy", violations.len())
}

/// All files that belong to the repository or are about to, relative to its root.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = match run::read(&mut git) {
        Ok(listed) => listed.lines().map(PathBuf::from).collect(),
        // An unpacked archive is no git work tree.
        Err(_) => walk(root, Path::new(""))?,
    };
    Ok(listed.into_iter().filter(|path| root.join(path).is_file()).collect())
}

fn walk(root: &Path, below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let dir = root.join(below);
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let name = entry.file_name();
        let path = below.join(&name);
        if entry.path().is_file() {
            found.push(path);
        } else if !name.to_string_lossy().starts_with('.') && !is_built(&name) {
            found.extend(walk(root, &path)?);
        }
    }
    Ok(found)
}

fn is_built(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("target")
}
