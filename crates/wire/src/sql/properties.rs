//! What holds for every text: no bytes make the reading panic, whatever hides a semicolon hides it,
//! and nothing that writes is called a read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::tests::{WRITES, of};
use super::*;

/// What may stand between two tokens.
fn gap() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[" ", "\n", " /* ; ' \" $$ delete */ ", " -- ' ; $$\n", "\t/*/**/*/ "][..],
    )
}

/// What can be written where a value may stand, and hides whatever is in it.
fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "'a;b'",
            "'it''s;'",
            "E'\\';'",
            "$$;'$$",
            "$a$;$$;$a$",
            "\";\"",
            "U&'\\003b;'",
            "1.5e3",
            "$1",
        ][..],
    )
}

fn statement() -> impl Strategy<Value = (String, bool)> {
    let verb = prop::sample::select(
        &["insert into", "update", "delete from", "merge into", "truncate", "create table"][..],
    );
    let read = (gap(), value(), gap(), value())
        .prop_map(|(a, v, b, w)| (format!("select{a}{v}{b}from{a}t{b}where{a}c{b}={w}"), false));
    let write = (verb, gap(), value())
        .prop_map(|(verb, a, v)| (format!("{}{a}t{a}set{a}c={v}", verb.replace(' ', a)), true));
    let inner = (gap(), value()).prop_map(|(a, v)| {
        (format!("with{a}x{a}as{a}(delete from t where c={v} returning *){a}select{a}1"), true)
    });
    prop_oneof![read, write, inner]
}

proptest! {
    #[test]
    fn any_bytes_are_read(text in prop::collection::vec(any::<u8>(), 0..300), conforming: bool) {
        let found = summary(&text, conforming);
        prop_assert!(found.settings().count() <= text.len());
        prop_assert!(start_up_options(&text).count() <= text.len());
    }

    #[test]
    fn any_soup_of_sql_is_read(
        parts in prop::collection::vec(
            prop::sample::select(&[
                "select", "set", "set_config", "synchronous_commit", "'", "''", "\"", "$$", "$a$",
                "(", ")", ";", ".", ",", "=", "e'", "u&\"", "/*", "*/", "--", "\n", " ", "\\",
                "begin", "atomic", "create", "function", "do", "case", "end", "as", "with", "copy",
                "from", "to", "'synchronous_commit'", "delete", "into", "temp", "pg_temp", "é",
            ][..]),
            0..60,
        ),
        conforming: bool,
    ) {
        let text = parts.concat();
        let found = summary(text.as_bytes(), conforming);
        prop_assert!(found.settings().count() <= text.len());
    }

    #[test]
    fn statements_are_counted_and_no_write_is_called_a_read(
        statements in prop::collection::vec(statement(), 1..5),
        gap in gap(),
    ) {
        let texts: Vec<_> = statements.iter().map(|(text, _)| text.as_str()).collect();
        let text = texts.join(&format!("{gap};{gap}"));
        let found = summary(text.as_bytes(), true);
        let count = if statements.len() == 1 { Count::One } else { Count::Many };
        prop_assert_eq!(found.count, count, "{}", text);
        let writes = statements.iter().any(|(_, write)| *write);
        prop_assert_eq!(found.kind == Kind::Read, !writes, "{}", text);
    }

    #[test]
    fn the_case_of_letters_changes_nothing(index in 0..WRITES.len(), seed: u64) {
        let mut bits = seed;
        let text: String = WRITES[index].chars().map(|letter| {
            bits = bits.rotate_left(1);
            if bits & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        }).collect();
        prop_assert_eq!(of(&text).kind, Kind::Write, "{}", text);
    }
}
