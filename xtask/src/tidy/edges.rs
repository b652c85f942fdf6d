//! Who may use whom: the table under "Edges" in `ARCHITECTURE.md`, compared with what Cargo says.
//!
//! The table is the truth. An edge that it does not list is a violation, and so is a crate that
//! it does not name, an edge that nobody uses, and an outside dependency of a pure crate that is
//! not written there. So the page that people read cannot fall behind the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Violation;
use crate::run;

const PAGE: &str = "ARCHITECTURE.md";

/// One line of the table, or what Cargo says about the same crate.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Edges {
    /// Crates of this repository.
    pub inside: BTreeSet<String>,
    /// Crates of this repository that only its tests use.
    pub in_tests: BTreeSet<String>,
    /// Crates of others; `None`: whatever is needed.
    pub outside: Option<BTreeSet<String>>,
}

pub fn check(root: &Path) -> Result<Vec<Violation>> {
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let mut cargo = run::cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let metadata = run::read(cargo.current_dir(root))?;
    let metadata: Value = serde_json::from_str(&metadata).context("parse `cargo metadata`")?;
    Ok(compare(&table(&page), &used(&metadata)))
}

/// The table: crate, what it may use, what its tests may also use, outside crates.
pub fn table(page: &str) -> BTreeMap<String, Edges> {
    let section = page.split("\n## ").find(|section| section.starts_with("Edges"));
    let mut edges = BTreeMap::new();
    for line in section.unwrap_or_default().lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, inside, in_tests, outside, ..] = cells.as_slice() else { continue };
        let Some(name) = words(name).into_iter().next() else { continue };
        let outside = (*outside != "as needed").then(|| words(outside));
        edges.insert(name, Edges { inside: words(inside), in_tests: words(in_tests), outside });
    }
    edges
}

/// The words of a cell that are set as code.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn used(metadata: &Value) -> BTreeMap<String, Edges> {
    let mut used = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let mut edges = Edges { outside: Some(BTreeSet::new()), ..Edges::default() };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default().to_owned();
            let inside = dependency["path"].is_string();
            match (inside, dependency["kind"].as_str()) {
                (true, Some("dev")) => drop(edges.in_tests.insert(name)),
                (true, _) => drop(edges.inside.insert(name)),
                (false, Some("dev")) => {}
                (false, _) => edges.outside.iter_mut().for_each(|all| {
                    all.insert(name.clone());
                }),
            }
        }
        let name = package["name"].as_str().unwrap_or_default();
        used.insert(name.to_owned(), edges);
    }
    used
}

fn compare(allowed: &BTreeMap<String, Edges>, used: &BTreeMap<String, Edges>) -> Vec<Violation> {
    let mut faults = Vec::new();
    for (name, edges) in used {
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("`{name}` is missing in the table of edges: say what it may use"));
            continue;
        };
        // A crate may name itself, to switch a feature on for its tests.
        let in_tests = &(&allowed.in_tests | &allowed.inside) | &BTreeSet::from([name.clone()]);
        for edge in edges.inside.difference(&allowed.inside) {
            faults.push(format!(
                "`{name}` uses `{edge}`, which is not listed: move what is shared further down, \
                 or argue for the edge in the table"
            ));
        }
        for edge in edges.in_tests.difference(&in_tests) {
            faults.push(format!("the tests of `{name}` use `{edge}`, which is not listed"));
        }
        for edge in allowed.inside.difference(&edges.inside) {
            faults.push(format!("`{name}` does not use `{edge}`: strike it from the table"));
        }
        if let (Some(allowed), Some(outside)) = (&allowed.outside, &edges.outside) {
            for edge in outside.difference(allowed) {
                faults.push(format!(
                    "`{name}` is pure and uses `{edge}`, which is not listed: \
                     do without it, or argue for it in the table"
                ));
            }
        }
    }
    for name in allowed.keys().filter(|name| !used.contains_key(*name)) {
        faults.push(format!("`{name}` is in the table of edges, but there is no such crate"));
    }
    let violation = |what| Violation { place: PAGE.to_owned(), line: 0, what };
    faults.into_iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::{compare, table, used};

    const TABLE: &str = "
## Edges

| crate | may use | its tests | crates of others |
|---|---|---|---|
| `low` | nothing | | nothing |
| `high` | `low` | | as needed |

## Next

| `no` |
";

    fn metadata(low: &str, high: &str) -> serde_json::Value {
        let text = format!(
            r#"{{"packages": [{{"name": "low", "dependencies": [{low}]}},
                {{"name": "high", "dependencies": [{high}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn faults(low: &str, high: &str) -> usize {
        compare(&table(TABLE), &used(&metadata(low, high))).len()
    }

    #[test]
    fn an_edge_that_is_not_listed_is_found() {
        let on_low = r#"{"name": "low", "path": "/low", "kind": null}"#;
        let on_high = r#"{"name": "high", "path": "/high", "kind": null}"#;
        let on_serde = r#"{"name": "serde", "kind": null}"#;
        let in_tests = r#"{"name": "expect-test", "kind": "dev"}"#;
        assert_eq!(faults("", on_low), 0);
        assert_eq!(faults(on_high, on_low), 1, "an arrow that points up");
        assert_eq!(faults(on_serde, on_low), 1, "an outside crate in a pure one");
        assert_eq!(faults(in_tests, &format!("{on_low}, {on_serde}")), 0);
        assert_eq!(faults("", ""), 1, "an edge that nobody uses");
    }
}
