//! That everything Backstay is built from may be given away with it, and comes from one place.
//!
//! Reads `deny.toml`, so that this check and `cargo deny` cannot disagree; needs no network and no
//! tool beside Cargo. It asks only about crates that are built for Linux.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Violation;
use crate::run;

const LIST: &str = "deny.toml";

pub fn check(root: &Path) -> Result<Vec<Violation>> {
    let text = std::fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let list: toml::Table = toml::from_str(&text).with_context(|| format!("parse {LIST}"))?;
    let allowed: BTreeSet<&str> = list["licenses"]["allow"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .collect();
    let mut cargo = run::cargo(&["metadata", "--format-version", "1", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(root);
    let metadata: Value =
        serde_json::from_str(&run::read(&mut cargo)?).context("parse `cargo metadata`")?;
    let mut violations = Vec::new();
    let mut sources = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none");
        if !permits(licence, &allowed) {
            let what = format!("`{name}` is under {licence}, which {LIST} does not allow");
            violations.push(Violation { place: LIST.to_owned(), line: 0, what });
        }
        if let Some(source) = package["source"].as_str() {
            sources.insert(source);
            if !source.starts_with("registry+") {
                let what = format!("`{name}` is not from the registry: use a published version");
                violations.push(Violation { place: LIST.to_owned(), line: 0, what });
            }
        }
    }
    if sources.len() > 1 {
        let what = "dependencies come from more than one place: use one registry".to_owned();
        violations.push(Violation { place: LIST.to_owned(), line: 0, what });
    }
    Ok(violations)
}

/// Whether the SPDX expression can be met with licences of the list. `AND` binds before `OR`,
/// as SPDX says; a slash is the old way to write `OR`.
fn permits(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let permitted = either(&mut words, allowed);
    permitted && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = both(words, allowed);
    while words.next_if(|word| *word == "OR").is_some() {
        permitted |= both(words, allowed);
    }
    permitted
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = one(words, allowed);
    while words.next_if(|word| *word == "AND").is_some() {
        permitted &= one(words, allowed);
    }
    permitted
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    match words.next() {
        Some("(") => {
            let permitted = either(words, allowed);
            words.next() == Some(")") && permitted
        }
        Some(licence) => {
            let exception = words.next_if(|word| *word == "WITH").and_then(|_| words.next());
            match exception {
                Some(exception) => {
                    allowed.contains(format!("{licence} WITH {exception}").as_str())
                        || allowed.contains(licence)
                }
                None => allowed.contains(licence),
            }
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::permits;
    use std::collections::BTreeSet;

    #[test]
    fn an_expression_is_met_or_not() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0"]);
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "", "(MIT OR Apache-2.0) AND ISC", "(MIT"]
        {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }
}
