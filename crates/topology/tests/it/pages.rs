//! The pages that are made from the code, so that they cannot go astray. After a change to a rule
//! or a field, `UPDATE_EXPECT=1 cargo test -p topology pages` writes them anew.

use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::Value;
use topology::{Family, Severity, rules, schema};

use super::EXAMPLE;

fn section(family: Family) -> &'static str {
    match family {
        Family::Reading => "What is written",
        Family::Names => "Names",
        Family::References => "What names point to",
        Family::Methods => "Methods",
        Family::Hosts => "Hosts and ports",
        Family::Sites => "Sites",
        Family::Witnesses => "Witnesses",
        Family::Pairs => "Pairs of pools",
        Family::Store => "The Central Management store",
        Family::Times => "Times",
        Family::Settings => "PostgreSQL's settings",
        Family::Databases => "Databases",
        Family::Directories => "Directories",
        Family::FrontEnds => "Front Ends",
        Family::Access => "Client access",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
    }
}

#[test]
fn the_page_of_rules_is_what_the_rules_say() {
    let mut page = String::from(
        "# Rules of the topology document\n\nAll of them are looked at in each check, and all that \
         is found is told at once. An *error* keeps a document from being published; a *warning* \
         says that something is unwise, and may be meant so. Facts that only the servers know \
         (versions, space, clocks) are checked when a document is published.\n\n\
         This page is made from the rules themselves.\n",
    );
    let mut family = None;
    for rule in rules() {
        if family != Some(rule.family) {
            family = Some(rule.family);
            let _ = write!(page, "\n## {}\n", section(rule.family));
        }
        let _ = write!(
            page,
            "\n### {}\n\n*{}.* {}\n\n{}\n\n**Remedy.** {}\n",
            rule.id,
            severity(rule.severity),
            rule.finds,
            rule.why,
            rule.remedy
        );
    }
    for rule in rules() {
        assert_eq!(page.matches(&format!("\n### {}\n", rule.id)).count(), 1, "{}", rule.id);
        let anchor = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(rule.id.chars().all(anchor), "{} is its own anchor", rule.id);
    }
    expect_file!["../../../../docs/topology/rules.md"].assert_eq(&page);
}

#[test]
fn the_page_of_fields_is_what_the_schema_says() {
    let schema = schema();
    let mut page = String::from(
        "# Fields of the topology document\n\nAll fields by their tables. Those marked † have no \
         default and must be written. [The format](README.md) explains how they work together; \
         [schema.json](schema.json) says the same to editors.\n\nThis page is made from the code \
         that reads the document.\n",
    );
    for (heading, table) in [
        ("At the top", None),
        ("`[defaults]`", Some("Defaults")),
        ("`[[site]]`", Some("Site")),
        ("`[[server]]`", Some("Server")),
        ("`[[witness]]`", Some("Witness")),
        ("`[[pool]]`", Some("Pool")),
        ("`cluster` of a pool", Some("Cluster")),
        ("`[[pool.database]]`", Some("Database")),
        ("`[[pool.front_end]]`", Some("FrontEnd")),
        ("`times`", Some("Times")),
    ] {
        let table = table.map_or(&schema, |name| &schema["definitions"][name]);
        let _ = write!(page, "\n## {heading}\n\n");
        if let Some(words) = table["description"].as_str() {
            let _ = write!(page, "{}\n\n", one_line(words));
        }
        page.push_str("| field | kind | means |\n|---|---|---|\n");
        fields(&mut page, table);
    }
    expect_file!["../../../../docs/topology/fields.md"].assert_eq(&page);
}

fn fields(page: &mut String, table: &Value) {
    let required: Vec<&str> =
        table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut all: Vec<(&String, &Value)> = table["properties"].as_object().unwrap().iter().collect();
    all.sort_by_key(|(name, _)| (*name != "name", !required.contains(&name.as_str())));
    for (name, property) in all {
        let mark = if required.contains(&name.as_str()) { " †" } else { "" };
        let words = one_line(property["description"].as_str().unwrap());
        let _ = writeln!(page, "| `{name}`{mark} | {} | {words} |", kind(property));
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn kind(property: &Value) -> &'static str {
    match property["type"].as_str() {
        Some("string") => "text",
        Some("integer") => "number",
        Some("boolean") => "truth value",
        Some("array") if property["items"]["$ref"].is_string() => "tables",
        Some("array") => "list",
        Some("object") => "table",
        Some(_) | None => "table",
    }
}

#[test]
fn the_schema_for_editors_is_the_one_of_the_code() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    expect_file!["../../../../docs/topology/schema.json"].assert_eq(&text);
    assert!(!text.contains("null"), "TOML has no null");
}

#[test]
fn the_page_of_the_format_shows_the_example_that_is_tested() {
    let page = include_str!("../../../../docs/topology/README.md");
    assert!(page.contains(&format!("```toml\n{EXAMPLE}```")), "the example differs");
}
