//! In which values two documents differ, whatever their layout and their comments.
//!
//! Entries of lists are known by their names and not by their places, so that a pool that was
//! moved up is the same pool. Each value is told with its path, such as `pool.orders.witness`.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

/// One value that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    pub path: String,
    /// As TOML writes it; `None`: it was not there.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// All values that differ, by path; `None` if one of the texts is no TOML.
pub fn difference(before: &str, after: &str) -> Option<Vec<Difference>> {
    let values = |text: &str| -> Option<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        table(&mut values, "", &text.parse::<Table>().ok()?);
        Some(values)
    };
    let (before, after) = (values(before)?, values(after)?);
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let differs = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let told = differs.map(|path| Difference {
        path: path.clone(),
        before: before.get(path).cloned(),
        after: after.get(path).cloned(),
    });
    Some(told.collect())
}

/// The differences as lines; a value that is new is marked `+`, one that is gone `-`.
pub fn difference_text(differences: &[Difference]) -> String {
    let line = |one: &Difference| match (&one.before, &one.after) {
        (None, Some(after)) => format!("+ {} = {after}\n", one.path),
        (Some(before), None) => format!("- {} = {before}\n", one.path),
        (Some(before), Some(after)) => format!("~ {} = {after} (was {before})\n", one.path),
        (None, None) => String::new(),
    };
    match differences {
        [] => "no value differs\n".to_owned(),
        differences => differences.iter().map(line).collect(),
    }
}

fn table(values: &mut BTreeMap<String, String>, path: &str, entries: &Table) {
    for (name, value) in entries {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        one(values, &path, value);
    }
}

fn one(values: &mut BTreeMap<String, String>, path: &str, value: &Value) {
    match value {
        Value::Table(entries) => table(values, path, entries),
        Value::Array(entries) if !entries.is_empty() && entries.iter().all(Value::is_table) => {
            for (index, entry) in entries.iter().enumerate() {
                let Value::Table(entry) = entry else { continue };
                let name = entry.get("name").and_then(Value::as_str);
                let path = match name {
                    Some(name) => format!("{path}.{name}"),
                    None => format!("{path}.{}", index + 1),
                };
                // Its name is in the path; without other values it is still there.
                values.insert(format!("{path}.name"), value_text(entry.get("name")));
                let others = entry.iter().filter(|(field, _)| *field != "name");
                let others: Table =
                    others.map(|(field, value)| (field.clone(), value.clone())).collect();
                table(values, &path, &others);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => {
            values.insert(path.to_owned(), value.to_string());
        }
    }
}

fn value_text(value: Option<&Value>) -> String {
    value.map_or_else(|| "\"\"".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn shown(before: &str, after: &str) -> String {
        difference_text(&difference(before, after).unwrap())
    }

    #[test]
    fn layout_and_order_are_no_difference() {
        let one = "a = 1 # one\n[[pool]]\nname = \"p\"\nport = 1\n[[pool]]\nname = \"q\"\n";
        let other = "a   = 1\npool = [{ name = \"q\" }, { name = \"p\", port = 1 }]\n";
        assert_eq!(shown(one, other), "no value differs\n");
    }

    #[test]
    fn each_value_is_told_with_its_path() {
        let one = "[[pool]]\nname = \"p\"\nwitness = \"w1\"\nsettings = { work_mem = \"8MB\" }\n";
        let other = "[[pool]]\nname = \"p\"\nwitness = \"w2\"\nport = 5\n\
                     [[pool]]\nname = \"q\"\nclient_access = [\"a\", \"b\"]\n";
        expect![[r#"
            + pool.p.port = 5
            - pool.p.settings.work_mem = "8MB"
            ~ pool.p.witness = "w2" (was "w1")
            + pool.q.client_access = ["a", "b"]
            + pool.q.name = "q"
        "#]]
        .assert_eq(&shown(one, other));
        assert_eq!(difference("a = ", ""), None);
    }
}
