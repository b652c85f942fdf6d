//! The document from outside: what is found, how it is shown, what follows from it, and that the
//! pages tell the truth about all of it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod change;
mod hostile;
mod pages;
mod parts;
mod reading;
mod rules;
mod shown;

use topology::{Checked, examine};

/// A document that nothing can be said against.
const SOUND: &str = include_str!("sound.toml");
/// The document that the pages show.
const EXAMPLE: &str = include_str!("example.toml");

/// The ids of all rules that find something, sorted, each as often as it does.
fn ids(text: &str) -> Vec<&'static str> {
    let mut ids: Vec<_> = examine(text).diagnostics.iter().map(|found| found.rule.id).collect();
    ids.sort_unstable();
    ids
}

fn checked(text: &str) -> Checked {
    match examine(text).checked() {
        Ok(checked) => checked,
        Err(found) => panic!("{found:#?}"),
    }
}

/// `text` with one place changed. The place must be there, and there once.
fn changed(text: &str, place: &str, to: &str) -> String {
    assert_eq!(text.matches(place).count(), 1, "{place:?} is there once");
    text.replace(place, to)
}
