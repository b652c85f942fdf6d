//! New documents, and changes to those that are there.

use expect_test::expect;
use topology::draft::{Draft, Place};
use topology::edit::{Edit, EditError, NewPool};
use topology::examine;

use super::{EXAMPLE, changed, checked, ids};

fn draft() -> Draft {
    let place = |name: &str| Place::new(name, format!("{name}.example.com"));
    Draft {
        deployment: "production".to_owned(),
        servers: vec![place("be1"), place("be2")],
        witness: Some(place("wit1")),
        pool: "orders".to_owned(),
        databases: vec!["shop".to_owned()],
        front_ends: vec![place("fe1"), place("fe2"), place("fe3")],
    }
}

#[test]
fn a_new_document_checks_clean_and_explains_itself() {
    let text = draft().text();
    assert_eq!(ids(&text), [""; 0], "{text}");
    expect![[r##"
        # The topology of a deployment. Check it with: backstay topology check
        format = 1
        deployment = "production"
        # The pool that holds the published documents: the Central Management store.
        central_management = "orders"

        # Back-end servers: machines with an agent. Their host is the name by which members, Front Ends
        # and clients reach them.
        [[server]]
        name = "be1"
        host = "be1.example.com"

        [[server]]
        name = "be2"
        host = "be2.example.com"

        # The third vote. It needs no data and little of a machine, but a machine of its own: one that
        # fails with neither of the servers.
        [[witness]]
        name = "wit1"
        host = "wit1.example.com"

        # A pool: what applications connect to. Its databases are mirrored and change sides together.
        [[pool]]
        name = "orders"
        method = "mirroring"
        # Who is principal and mirror after the first set-up.
        principal = "be1"
        mirror = "be2"
        witness = "wit1"
        # 90 for each Front End, and 10 to spare.
        settings = { max_connections = 280 }

        [[pool.database]]
        name = "shop"
        # owner = "…"      # default: a role of the database's name

        # Front Ends: where clients connect, at port 6432. They are carried over every failover.
        [[pool.front_end]]
        name = "fe1"
        host = "fe1.example.com"

        [[pool.front_end]]
        name = "fe2"
        host = "fe2.example.com"

        [[pool.front_end]]
        name = "fe3"
        host = "fe3.example.com"
    "##]].assert_eq(&text);
}

#[test]
fn a_new_document_with_less_in_it_has_no_errors() {
    let bare = Draft {
        witness: None,
        front_ends: Vec::new(),
        servers: draft().servers[..1].to_vec(),
        databases: Vec::new(),
        ..draft()
    };
    let text = bare.text();
    assert_eq!(ids(&text), ["store-not-mirrored"], "{text}");
    let two = Draft { servers: draft().servers, ..bare };
    assert_eq!(ids(&two.text()), ["no-front-end", "no-witness"]);
}

#[test]
fn a_strange_name_in_a_draft_is_told_by_the_rules() {
    let text = Draft { pool: "a\"\n[[server]]".to_owned(), ..draft() }.text();
    assert_eq!(ids(&text), ["name-characters"], "{text}");
}

/// The lines that differ, as `diff` shows them.
fn difference(before: &str, after: &str) -> String {
    let gone = before.lines().filter(|line| !after.lines().any(|other| other == *line));
    let come = after.lines().filter(|line| !before.lines().any(|other| other == *line));
    let gone = gone.map(|line| format!("- {line}\n"));
    gone.chain(come.map(|line| format!("+ {line}\n"))).collect()
}

fn edited(text: &str, change: impl FnOnce(&mut Edit) -> Result<(), EditError>) -> String {
    let mut edit = Edit::new(text).unwrap();
    change(&mut edit).unwrap();
    edit.text()
}

#[test]
fn a_document_that_is_not_changed_stays_as_it_is() {
    assert_eq!(edited(EXAMPLE, |_| Ok(())), EXAMPLE);
}

#[test]
fn a_witness_is_replaced_and_removed_without_touching_anything_else() {
    let text = edited(EXAMPLE, |edit| edit.set_witness("orders", "wit2"));
    expect![[r#"
        - witness = "wit1"
        + witness = "wit2"
    "#]]
    .assert_eq(&difference(EXAMPLE, &text));
    let text = edited(EXAMPLE, |edit| edit.remove_witness("orders"));
    expect![[r#"
        - witness = "wit1"
    "#]]
    .assert_eq(&difference(EXAMPLE, &text));
    assert!(ids(&text).contains(&"no-witness"));
}

#[test]
fn a_witness_of_the_defaults_is_declined() {
    let text = changed(EXAMPLE, "witness = \"wit1\"\n", "");
    let text = changed(&text, "[defaults]\n", "[defaults]\nwitness = \"wit1\"\n");
    assert!(checked(&text).server_parts("be1").unwrap().parts[0].witness.is_some());
    let text = edited(&text, |edit| edit.remove_witness("orders"));
    assert!(checked(&text).server_parts("be1").unwrap().parts[0].witness.is_none());
}

#[test]
fn a_mirror_goes_and_comes_and_comments_stay() {
    let without = edited(EXAMPLE, |edit| edit.remove_mirror("orders"));
    expect![[r#"
        - method = "mirroring"     # "mirroring", "clustering" or "none"
        - mirror = "be2"
        - witness = "wit1"
        + method = "none"     # "mirroring", "clustering" or "none"
    "#]]
    .assert_eq(&difference(EXAMPLE, &without));
    assert_eq!(examine(&without).errors(), 0);
    let with = edited(&without, |edit| {
        edit.set_mirror("orders", "be2")?;
        edit.set_witness("orders", "wit1")
    });
    assert_eq!(checked(&with), checked(EXAMPLE));
}

#[test]
fn what_was_said_of_the_mirror_alone_goes_with_it() {
    let own = "port_on = { be1 = 5440, be2 = 5441 }\nsettings_on.be2 = { work_mem = \"1MB\" }\n";
    let text = changed(EXAMPLE, "users = true", &format!("{own}users = true"));
    for text in [
        edited(&text, |edit| edit.remove_mirror("orders")),
        edited(&text, |edit| {
            edit.add_server(&Place::new("be3", "be3.example.com"))?;
            edit.set_mirror("orders", "be3")
        }),
    ] {
        assert_eq!(examine(&text).errors(), 0, "{text}");
        assert!(text.contains("be1 = 5440") && !text.contains("work_mem"), "{text}");
    }
    assert_eq!(edited(&text, |edit| edit.set_mirror("orders", "be2")), text);
}

#[test]
fn a_pool_is_taken_out() {
    let text = edited(EXAMPLE, |edit| edit.remove_pool("archive"));
    expect![[r#"
        - name = "archive"
        - method = "clustering"
        - cluster = { name = "archive-sql.example.com", port = 5432 }
    "#]]
    .assert_eq(&difference(EXAMPLE, &text));
    let two = format!("{EXAMPLE}# behind\n\n# before\n[[pool]]\nname = \"x\"\n");
    let text = edited(&two, |edit| edit.remove_pool("archive"));
    assert!(text.contains("resiliency_after_s = 1800\n# behind"), "{text}");
    let text = "format = 1\npool = [{ name = \"a\" }, { name = \"b\" }]\n";
    let text = edited(text, |edit| edit.remove_pool("a"));
    assert!(!text.contains("\"a\"") && text.contains("\"b\""), "{text}");
}

#[test]
fn a_comment_above_a_removed_field_goes_to_the_next_one() {
    let text = changed(EXAMPLE, "witness = \"wit1\"\n", "# ask Ann first\nwitness = \"wit1\"\n");
    let text = edited(&text, |edit| edit.remove_witness("orders"));
    assert!(text.contains("# ask Ann first\nport = 5432"), "{text}");
}

#[test]
fn a_pool_is_added_behind_the_others() {
    let pool = NewPool {
        name: "billing".to_owned(),
        principal: "be2".to_owned(),
        mirror: Some("be1".to_owned()),
        witness: Some("wit1".to_owned()),
        port: Some(5433),
        databases: vec!["invoices".to_owned()],
        front_ends: vec![(Place::new("fe2", "fe1.example.com"), Some(6433), Some(7024))],
    };
    let text = edited(EXAMPLE, |edit| edit.add_pool(&pool));
    expect![[r#"

        [[pool]]
        name = "billing"
        method = "mirroring"
        principal = "be2"
        mirror = "be1"
        witness = "wit1"
        port = 5433

        [[pool.database]]
        name = "invoices"

        [[pool.front_end]]
        name = "fe2"
        host = "fe1.example.com"
        port = 6433
        admin_port = 7024
    "#]]
    .assert_eq(text.strip_prefix(EXAMPLE).unwrap_or(&text));
    let parts = checked(&text).server_parts("be2").unwrap();
    assert_eq!(parts.parts.len(), 2);
    let again = Edit::new(&text).unwrap().add_pool(&pool);
    assert_eq!(again, Err(EditError::AlreadyThere("pool billing".to_owned())));
}

#[test]
fn servers_and_witnesses_are_added_beside_their_kin() {
    let text = edited(EXAMPLE, |edit| {
        edit.add_server(&Place::new("be3", "be3.example.com"))?;
        edit.add_witness(&Place::new("wit2", "wit2.example.com"))
    });
    let at = |what: &str| text.find(what).unwrap();
    assert!(at("\"be2\"") < at("\"be3\"") && at("\"be3\"") < at("[[witness]]"), "{text}");
    assert!(at("\"wit2\"") < at("[[pool]]"), "{text}");
}

#[test]
fn inline_lists_are_edited_too() {
    let text = "format = 1\npool = [{ name = \"a\", witness = \"w\" }, { name = \"b\" }]\n";
    let text = edited(text, |edit| edit.set_witness("b", "w2"));
    assert!(
        text.contains("{ name = \"b\" , witness = \"w2\" }")
            || text.contains("{ name = \"b\", witness = \"w2\" }"),
        "{text}"
    );
}

#[test]
fn what_is_not_there_cannot_be_changed() {
    let mut edit = Edit::new(EXAMPLE).unwrap();
    let refused = Err(EditError::NoSuchPool("x".to_owned()));
    assert_eq!(edit.set_mirror("x", "be1"), refused);
    assert_eq!(edit.remove_mirror("x"), refused);
    assert_eq!(edit.remove_witness("x"), refused);
    assert_eq!(Edit::new("a = ").map(|_| ()), Err(EditError::NotToml));
    let mut edit = Edit::new("server = 1\n").unwrap();
    assert_eq!(edit.add_server(&Place::new("a", "b")), Err(EditError::Shape("server")));
}
