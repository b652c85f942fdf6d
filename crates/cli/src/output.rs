//! The only printer: data on standard output, talk on standard error.
//!
//! Whatever is printed reads well without colour; colour comes only on a terminal, and never when
//! `NO_COLOR` is set. An error ends with a `hint:` line when there is something to do about it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fmt;
use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use serde::Serialize;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How the reader starts this program, for advice that can be copied.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "backstay".to_owned())
}

/// An error with a way out of it.
#[derive(Debug)]
pub struct Hinted {
    text: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Hinted {}

/// An error that says what to do.
pub fn hinted(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { text: text.into(), hint: hint.into() })
}

/// The way out of `error`, if it knows one.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    let hinted = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>())?;
    Some(&hinted.hint)
}

/// Whether to mark words with colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    On,
    Off,
}

impl Colour {
    pub fn for_stdout() -> Colour {
        Colour::decide(std::io::stdout().is_terminal())
    }

    pub fn for_stderr() -> Colour {
        Colour::decide(std::io::stderr().is_terminal())
    }

    fn decide(terminal: bool) -> Colour {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if terminal && !refused && !dumb { Colour::On } else { Colour::Off }
    }

    pub fn good(self, text: &str) -> String {
        self.mark("32", text)
    }

    pub fn warning(self, text: &str) -> String {
        self.mark("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.mark("31", text)
    }

    pub fn strong(self, text: &str) -> String {
        self.mark("1", text)
    }

    pub fn faint(self, text: &str) -> String {
        self.mark("2", text)
    }

    fn mark(self, code: &str, text: &str) -> String {
        match self {
            Colour::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::Off => text.to_owned(),
        }
    }
}

/// Prints data. A reader that went away (`| head`) is no error.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let ending = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(out, "{text}{ending}").and_then(|()| out.flush());
}

/// Prints one document of JSON, over several lines.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    data(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints one document of JSON in one line.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    data(&serde_json::to_string(value)?);
    Ok(())
}

/// Says something to the person in front of the terminal.
pub fn talk(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Reports the error that ends the command.
pub fn failure(error: &anyhow::Error) {
    let colour = Colour::for_stderr();
    talk(&format!("{} {error:#}", colour.bad("error:")));
    if let Some(hint) = hint(error) {
        for (index, line) in hint.lines().enumerate() {
            let label = if index == 0 { "hint:" } else { "     " };
            talk(&format!("{} {line}", colour.strong(label)));
        }
    }
}

/// Sends what a long-running process logs to standard error; BACKSTAY_LOG says how much.
///
/// Nobody ever waits for whoever reads it: lines that find no room are dropped. What waits is
/// written when the guard is dropped, if it can be.
pub fn log() -> anyhow::Result<WorkerGuard> {
    let (writer, guard) = NonBlocking::new(std::io::stderr());
    let filter = EnvFilter::builder()
        .with_env_var("BACKSTAY_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .context("understand BACKSTAY_LOG")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(Colour::for_stderr() == Colour::On)
        .with_writer(writer)
        .try_init()
        .map_err(|error| anyhow::anyhow!("begin to log: {error}"))?;
    // The standard one writes to standard error by itself, and waits.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        tracing::error!(%panic, %trace, "an assertion failed");
    }));
    Ok(guard)
}

/// A screen that is drawn again and again.
#[derive(Debug)]
pub struct Screen {
    drawn_once: bool,
}

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    /// A screen on the terminal; `None` if standard output is none.
    pub fn open() -> Option<Screen> {
        std::io::stdout().is_terminal().then_some(Screen { drawn_once: false })
    }

    pub fn draw(&mut self, text: &str) {
        let (rows, columns) = rustix::termios::tcgetwinsize(std::io::stdout())
            .map_or((usize::MAX, usize::MAX), |size| {
                (usize::from(size.ws_row.max(1)), usize::from(size.ws_col.max(1)))
            });
        let mut page = String::from(if self.drawn_once { HOME } else { ENTER });
        page.push_str(HOME);
        let mut used = 0;
        for line in text.lines() {
            let width = width(line);
            let needed = width.div_ceil(columns).max(1);
            if used + needed > rows {
                break;
            }
            if used > 0 {
                page.push_str("\r\n");
            }
            used += needed;
            page.push_str(line);
            // The cursor stands on the last cell of a row that is exactly full.
            if !width.is_multiple_of(columns) || width == 0 {
                page.push_str(CLEAR_LINE_END);
            }
        }
        page.push_str(CLEAR_BELOW);
        self.drawn_once = true;
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(page.as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.drawn_once {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Left-aligned columns, two spaces apart; numbers are aligned by whoever formats them.
#[derive(Default, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

/// What a person sees of `text`: its characters without colour marks.
fn width(text: &str) -> usize {
    let mut count = 0;
    let mut in_mark = false;
    for character in text.chars() {
        match (in_mark, character) {
            (false, '\x1b') => in_mark = true,
            (true, 'm') => in_mark = false,
            (true, _) => {}
            (false, _) => count += 1,
        }
    }
    count
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(cell)).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, wanted) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(wanted - width(cell) + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_marks_do_not_widen_a_column() {
        let mut table = Table::new(&["name", "state"]);
        table.row(vec![Colour::On.good("be1"), "x".into()]);
        table.row(vec!["be22".into(), "y".into()]);
        let plain = table.to_string().replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, "name  state\nbe1   x\nbe22  y\n");
    }
}
