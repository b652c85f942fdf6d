//! The only printer of this crate: data on standard output, talk on standard error.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};

/// A line of talk.
pub fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// A heading: what is about to happen, and why.
pub fn heading(title: &str, why: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\n\x1b[1m== {title}\x1b[0m  {why}");
    } else {
        eprintln!("\n== {title}  {why}");
    }
}

/// A line of talk that replaces the one before; nothing where no terminal shows it.
pub fn progress(text: impl std::fmt::Display) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text} ");
    }
}

/// A line of data.
pub fn data(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Everything that went wrong, outermost first.
pub fn failed(error: &anyhow::Error) {
    eprintln!("\nerror: {error:#}");
}

/// Asks a question that is answered with yes or no; no terminal means no.
pub fn confirm(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    eprint!("{question} [Y/n] ");
    let mut answer = String::new();
    if std::io::stderr().flush().is_err() || std::io::stdin().read_line(&mut answer).is_err() {
        return false;
    }
    matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
}
