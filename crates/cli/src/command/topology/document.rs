//! Documents as files: read, checked, and marked with the version that they were made from.
//!
//! The mark is a comment in the first line. It is not stored: it only tells a publisher that
//! somebody else has published since. Publishing moves it on.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use topology::render::{self, Colours};
use topology::{Checked, Diagnostic, examine};

use crate::output::{self, Colour, hinted};

const MARK: &str = "# made from version ";

/// A document that was read.
#[derive(Clone, Debug)]
pub struct Text {
    /// What it is called in messages.
    pub name: String,
    /// Without the mark.
    pub text: String,
    /// The version that it was made from, if it says so.
    pub made_from: Option<u64>,
}

impl Text {
    pub fn new(name: &str, whole: &str) -> Text {
        let (made_from, text) = unmarked(whole);
        Text { name: name.to_owned(), text, made_from }
    }

    pub fn read(file: &Path) -> anyhow::Result<Text> {
        let whole = std::fs::read_to_string(file)
            .with_context(|| format!("read the document {}", file.display()))?;
        Ok(Text::new(&file.display().to_string(), &whole))
    }

    /// Without errors. All findings are told.
    pub fn checked(&self) -> anyhow::Result<(Checked, Vec<Diagnostic>)> {
        let examined = examine(&self.text);
        let found = examined.diagnostics.clone();
        match examined.checked() {
            Ok(checked) => Ok((checked, found)),
            Err(found) => {
                output::talk(render::text(&self.name, &self.text, &found, colours()).trim_end());
                Err(hinted(
                    format!("{} has errors", self.name),
                    "each of them says what to do; docs/topology/rules.md explains all rules",
                ))
            }
        }
    }
}

/// The text with the mark in its first line.
pub fn marked(text: &str, version: u64) -> String {
    format!("{MARK}{version}; publishing moves this line on\n{text}")
}

fn unmarked(whole: &str) -> (Option<u64>, String) {
    let (first, rest) = whole.split_once('\n').unwrap_or((whole, ""));
    let number = first.strip_prefix(MARK).and_then(|rest| rest.split(';').next()?.parse().ok());
    match number {
        Some(number) => (Some(number), rest.to_owned()),
        None => (None, whole.to_owned()),
    }
}

fn colours() -> Colours {
    match Colour::for_stderr() {
        Colour::On => Colours::Always,
        Colour::Off => Colours::Never,
    }
}

pub fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let Text { name, text, .. } = Text::read(file)?;
    let examined = examine(&text);
    if json {
        output::json(&render::json(&name, &text, &examined.diagnostics))?;
    } else {
        let colours = match Colour::for_stdout() {
            Colour::On => Colours::Always,
            Colour::Off => Colours::Never,
        };
        output::data(&render::text(&name, &text, &examined.diagnostics, colours));
    }
    Ok(if examined.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn schema() -> anyhow::Result<ExitCode> {
    output::json(&topology::schema())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_no_part_of_the_document() {
        let text = Text::new("x", &marked("format = 1\n", 7));
        assert_eq!((text.made_from, text.text.as_str()), (Some(7), "format = 1\n"));
        let text = Text::new("x", "# made from stone\nformat = 1\n");
        assert_eq!((text.made_from, text.text.as_str()), (None, "# made from stone\nformat = 1\n"));
    }
}
