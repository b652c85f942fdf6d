//! No text makes the reader, the rules or the rendering panic, whatever its bytes.

use proptest::prelude::*;
use topology::edit::Edit;
use topology::render::{self, Colours};
use topology::{Checked, examine};

use super::{EXAMPLE, SOUND};

fn everything(text: &str) {
    let examined = examine(text);
    let plain = render::text("topology.toml", text, &examined.diagnostics, Colours::Never);
    assert!(!plain.contains('\u{1b}') || text.contains('\u{1b}'));
    render::text("topology.toml", text, &examined.diagnostics, Colours::Always);
    render::json("topology.toml", text, &examined.diagnostics);
    if let Ok(edit) = Edit::new(text) {
        assert!(Edit::new(&edit.text()).is_ok());
    }
    if let Ok(checked) = examined.checked() {
        derive(&checked);
    }
}

fn derive(checked: &Checked) {
    for server in &checked.servers {
        assert!(checked.server_parts(&server.name).is_some());
    }
    for witness in &checked.witnesses {
        assert!(checked.witness_parts(&witness.name).is_some());
    }
    for front_end in checked.pools.iter().flat_map(|pool| &pool.front_ends) {
        assert!(checked.front_end_parts(&front_end.name).is_some());
    }
    checked.deployment_parts();
}

/// Values of every kind, and words that mean something in the format.
const WORDS: &[&str] = &[
    "\"\"",
    "\"be1\"",
    "\"orders\"",
    "0",
    "-1",
    "70000",
    "9223372036854775808",
    "1e400",
    "true",
    "[]",
    "[[]]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
    "\"\\u0000\"",
    "'\n'",
    "\"ö\"",
    "nan",
    "\"127.0.0.1\"",
    "\"host all all ::/0 trust\"",
    "\"host all all 1.2.3.4/0 md5\"",
    "]",
    "[",
    "\n",
    "=",
    "\"",
    "#",
    "\r",
    "\u{feff}",
    "\"mirroring\"",
    "\"none\"",
    "\"clustering\"",
];

fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    let cuts =
        prop::collection::vec((any::<prop::sample::Index>(), 0..WORDS.len(), 0..12usize), 1..5);
    cuts.prop_map(move |cuts| {
        let mut text = text.to_owned();
        for (at, word, length) in cuts {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = at.index(starts.len());
            let from = starts[start];
            let to = starts.get(start + length).copied().unwrap_or(text.len());
            text.replace_range(from..to, WORDS[word]);
        }
        text
    })
}

/// One value replaced by another, so that the text stays TOML.
fn revalued(text: &'static str) -> impl Strategy<Value = String> {
    let values: Vec<usize> = text.match_indices(" = ").map(|(at, _)| at + 3).collect();
    (prop::sample::select(values), prop::sample::select(&WORDS[..19])).prop_map(
        move |(at, word)| {
            let rest = &text[at..];
            let end = rest.find([',', '\n', '}']).unwrap_or(rest.len());
            format!("{}{word}{}", &text[..at], &rest[end..])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        everything(&text);
    }

    #[test]
    fn any_damage_to_a_sound_document_is_survived(text in damaged(SOUND)) {
        everything(&text);
    }

    #[test]
    fn any_damage_to_the_example_is_survived(text in damaged(EXAMPLE)) {
        everything(&text);
    }

    #[test]
    fn any_value_in_any_field_is_survived(text in revalued(SOUND)) {
        everything(&text);
    }
}

#[test]
fn a_deep_and_a_long_text_are_survived() {
    everything(&"[".repeat(100_000));
    everything(&format!("a = {}", "[".repeat(100_000)));
    everything(&format!("a = {}", "{ b = ".repeat(10_000)));
    everything(&"[[server]]\n".repeat(2_000));
    everything(&format!("{SOUND}{}", "# x\n".repeat(100_000)));
}
