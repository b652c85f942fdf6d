//! Reading goes on after each mistake, and tells each of them once.

use expect_test::{Expect, expect};
use topology::examine;

use super::{EXAMPLE, SOUND, changed, ids};

fn check(text: &str, expected: &Expect) {
    let found = examine(text).diagnostics;
    let lines: Vec<String> = found
        .iter()
        .map(|found| {
            let place = found.place.clone().map_or("", |place| &text[place]);
            let place = place.lines().next().unwrap_or_default();
            format!("{} at {place}: {}. {}\n", found.rule.id, found.message, found.remedy)
        })
        .collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn the_example_has_no_errors() {
    let found = examine(EXAMPLE);
    assert_eq!(found.errors(), 0, "{:#?}", found.diagnostics);
    assert_eq!(ids(EXAMPLE), ["one-front-end", "witness-in-partner-site"]);
}

#[test]
fn all_mistakes_of_reading_are_told_at_once() {
    let text = r#"
format = "1"
deploymant = "production"
central_management = "orders"
[pool]
name = 7
primary = "be1"
port = 70000
users = "yes"
applications = ["call-park", 3]
times = { lease = 1500 }
settings = { work_mem = [1], shared_buffers = 4 }
front_end = ["fe1"]
[[server]]
host = "be1"
password = "hunter2"
"#;
    check(
        text,
        &expect![[r#"
            wrong-type at "1": format wants a whole number, not a text. Write a whole number.
            unknown-field at deploymant: the document has no field deploymant. Did you mean deployment?
            wrong-type at [pool]: pool wants a list of tables, not a table. Write [[pool]], with two brackets: a pool each.
            mirroring-without-mirror at [pool]: pool is to be mirrored and has no mirror. Add mirror = "NAME" with another server, or write method = "none".
            no-witness at [pool]: pool has no witness. Add a [[witness]] on a third machine, and name it in the pool or in defaults.
            wrong-type at 7: name wants a text in quotes, not a whole number. Write a text in quotes.
            unknown-field at primary: a pool has no field primary. Did you mean principal?
            number-out-of-range at 70000: port = 70000 is outside of 0 to 65535. Write a number from 0 to 65535.
            wrong-type at "yes": users wants true or false, not a text. Write true or false.
            wrong-type at 3: applications wants texts in quotes, not a whole number. Write texts in quotes.
            unknown-field at lease: times has no field lease. Correct its name, or take it out; the page of all fields lists those that there are.
            wrong-type at [1]: work_mem in settings wants a text, a whole number, or true or false, not a list. Write a text, a whole number, or true or false.
            wrong-type at "fe1": front_end wants tables, such as { name = "x" }, not a text. Write tables, such as { name = "x" }.
            missing-field at [[server]]: a server has no name. Add name = "…".
            secret-in-document at password: password looks like a secret. Take it out, and change the secret if this document was shared.
        "#]],
    );
}

#[test]
fn a_text_that_is_no_toml_is_told_with_all_its_faults() {
    check(
        "format = 1\nname = \n[[pool\nport = 5x\n",
        &expect![[r#"
        syntax at : this is not understood: string values must be quoted, expected literal string. Mend the line: texts stand in quotes, tables begin with [name] or [[name]].
        syntax at : this is not understood: unclosed array table, expected `]]`. Mend the line: texts stand in quotes, tables begin with [name] or [[name]].
    "#]],
    );
    check(
        "deployment = \"open\nformat = 1\n",
        &expect![[r#"
        syntax at : this is not understood: invalid basic string, expected `"`. Mend the line: texts stand in quotes, tables begin with [name] or [[name]].
    "#]],
    );
}

#[test]
fn settings_of_one_server_are_read_one_by_one() {
    let text = changed(
        SOUND,
        "port = 5433",
        "port = 5433\nsettings_on = { be3 = { work_mem = [1] }, be4 = 7 }",
    );
    check(
        &text,
        &expect![[r#"
        wrong-type at [1]: work_mem in settings_on wants a text, a whole number, or true or false, not a list. Write a text, a whole number, or true or false.
        wrong-type at 7: be4 in settings_on wants a table of settings, such as { work_mem = "64MB" }, not a whole number. Write a table of settings, such as { work_mem = "64MB" }.
    "#]],
    );
}

#[test]
fn a_second_store_is_refused_with_the_reason() {
    let store = "central_management = \"orders\"";
    let two = changed(SOUND, store, "central_management = [\"orders\", \"billing\"]");
    check(
        &two,
        &expect![[r#"
        wrong-type at ["orders", "billing"]: central_management wants a text in quotes, not a list. There is one store: name one pool, in quotes.
    "#]],
    );
    let again = changed(SOUND, store, &format!("{store}\ncentral_management = \"billing\""));
    assert_eq!(ids(&again), ["duplicate-key"]);
}

#[test]
fn a_text_from_another_system_is_read_as_well() {
    assert_eq!(ids(&SOUND.replace('\n', "\r\n")), [""; 0]);
    assert_eq!(ids(&format!("\u{feff}{SOUND}")), [""; 0]);
}

#[test]
fn a_field_written_twice_shows_both_places() {
    let text = changed(SOUND, "port = 5433", "port = 5433\nport = 5434");
    let found = examine(&text).diagnostics;
    let [found] = found.as_slice() else { panic!("{found:#?}") };
    let first = &found.related[0].place;
    assert_eq!(&text[first.clone()], "port");
    assert!(first.start < found.place.clone().unwrap().start);
    assert_eq!(text[first.clone().start..].lines().next(), Some("port = 5433"));
}

#[test]
fn a_name_that_is_nearly_right_is_offered() {
    let text = changed(SOUND, "witness = \"wit2\"", "witness = \"wti2\"");
    check(
        &text,
        &expect![[r#"
            unknown-witness at "wti2": there is no witness wti2. Did you mean wit2? Otherwise add a [[witness]] wti2.
        "#]],
    );
}

#[test]
fn an_empty_text_is_told_what_it_lacks() {
    check(
        "",
        &expect![[r#"
        missing-field at : the document has no deployment. Add deployment = "…".
        format-unsupported at : the document does not say its format. Write format = 1, or use the version of Backstay that wrote the document.
        no-pool at : the document has no pool. Add a [[pool]].
    "#]],
    );
}
