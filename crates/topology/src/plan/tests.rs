//! What each kind of change is planned as.

use expect_test::{Expect, expect};

use super::*;
use crate::examine;

const BASE: &str = r#"
format = 1
deployment = "production"
central_management = "orders"

[[site]]
name = "north"

[[server]]
name = "be1"
host = "be1.example.com"

[[server]]
name = "be2"
host = "be2.example.com"

[[server]]
name = "be3"
host = "be3.example.com"

[[server]]
name = "be4"
host = "be4.example.com"

[[witness]]
name = "wit1"
host = "wit1.example.com"

[[witness]]
name = "wit2"
host = "wit2.example.com"

[[pool]]
name = "orders"
principal = "be1"
mirror = "be2"
witness = "wit1"
settings = { work_mem = "8MB", max_connections = 200 }

[[pool.database]]
name = "shop"

[[pool.front_end]]
name = "fe1"
host = "fe1.example.com"
"#;

const SECOND: &str = r#"
[[pool]]
name = "billing"
principal = "be2"
mirror = "be1"
witness = "wit1"
port = 5433

[[pool.database]]
name = "invoices"
"#;

const CLUSTER: &str = r#"
[[pool]]
name = "archive"
method = "clustering"
cluster = { name = "archive-sql.example.com" }
"#;

fn checked(text: &str) -> Checked {
    match examine(text).checked() {
        Ok(checked) => checked,
        Err(found) => panic!("{found:#?}\n{text}"),
    }
}

/// `BASE` with places changed; each is there exactly once.
fn with(changes: &[(&str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (place, to) in changes {
        assert_eq!(text.matches(place).count(), 1, "{place:?} is there once");
        text = text.replace(place, to);
    }
    text
}

fn serving(principal: &str) -> Facts {
    let pool = PoolFacts {
        principal: Some(principal.to_owned()),
        is_served: true,
        is_mirrored: true,
        servers: ["be1", "be2"].map(str::to_owned).into(),
        witness: Some("wit1".to_owned()),
        size: Some(12 << 30),
        ..PoolFacts::default()
    };
    Facts { pools: [("orders".to_owned(), pool)].into(), ..Facts::default() }
}

fn planned(old: &str, new: &str, facts: &Facts) -> Plan {
    plan(Some(&checked(old)), &checked(new), facts)
}

#[track_caller]
fn shows(old: &str, new: &str, facts: &Facts, text: &Expect) {
    text.assert_eq(&planned(old, new, facts).text());
}

fn codes(plan: &Plan) -> Vec<&str> {
    let refused = plan.refusals.iter().map(|refusal| refusal.code);
    plan.changes.iter().map(|change| change.code).chain(refused).collect()
}

const NO_WITNESS: (&str, &str) = ("witness = \"wit1\"\n", "");
const ALONE: (&str, &str) = ("mirror = \"be2\"\nwitness = \"wit1\"\n", "method = \"none\"\n");

#[test]
fn nothing_changes_by_what_only_people_read() {
    let commented = format!("# more to read\n{BASE}");
    assert!(planned(BASE, &commented, &serving("be1")).is_empty());
    let sited = with(&[("name = \"north\"", "name = \"south\"")]);
    shows(
        BASE,
        &sited,
        &serving("be1"),
        &expect![[r#"
        nothing would change
        note: sites have changed; only checks look at them
    "#]],
    );
}

#[test]
fn a_first_publication_sets_pools_up() {
    let plan = plan(None, &checked(BASE), &Facts::default());
    expect![[r#"
        1. orders is set up on be1, mirrored on be2
           no interruption; fresh copy to be2
           wit1 is its witness
           databases: lis, shop, xds
    "#]]
    .assert_eq(&plan.text());
    let waits = plan.changes[0].done.iter();
    let waits = waits.filter(|done| matches!(done.look(&Facts::default(), 1), Progress::Waits(_)));
    assert_eq!(waits.count(), plan.changes[0].done.len());
}

#[test]
fn a_second_pool_on_the_same_servers_leaves_the_first_alone() {
    let text = format!("{BASE}{SECOND}{CLUSTER}");
    shows(
        BASE,
        &text,
        &serving("be1"),
        &expect![[r#"
        1. billing is set up on be2, mirrored on be1
           no interruption; fresh copy to be1
           wit1 is its witness
           databases: invoices
        2. the cluster behind archive is registered
           no interruption
           nothing is set up there: the cluster's own tools did that
    "#]],
    );
    let plan = planned(BASE, &text, &serving("be1"));
    assert!(plan.changes.iter().all(|change| change.pool.as_deref() != Some("orders")));
}

#[test]
fn a_pool_that_is_given_up_keeps_its_data() {
    let text = format!("{BASE}{SECOND}{CLUSTER}");
    shows(
        &text,
        BASE,
        &serving("be1"),
        &expect![[r#"
        1. billing is given up
           nobody serves it any more
           its data stay on be1 in /srv/backstay/billing/data: remove them by hand when nobody needs them
           its data stay on be2 in /srv/backstay/billing/data: remove them by hand when nobody needs them
        2. the cluster behind archive is registered no more
           the cluster goes on: Backstay never ran it
    "#]],
    );
}

#[test]
fn removing_only_the_witness_never_touches_the_mirror() {
    let plan = planned(BASE, &with(&[NO_WITNESS]), &serving("be1"));
    expect![[r#"
        1. wit1 is the witness of orders no more
           no interruption; no automatic failover from then on
           the mirror stays as it is: every commit is on both disks as before
    "#]]
    .assert_eq(&plan.text());
    let about_mirror = |done: &Condition| {
        matches!(
            done,
            Condition::Mirrored { .. } | Condition::Alone { .. } | Condition::Left { .. }
        )
    };
    assert!(!plan.changes[0].done.iter().any(about_mirror));
}

#[test]
fn a_witness_is_added_and_replaced_without_interruption() {
    shows(
        &with(&[NO_WITNESS]),
        BASE,
        &serving("be1"),
        &expect![[r#"
        1. wit1 becomes the witness of orders
           no interruption
           from then on the pool fails over by itself
    "#]],
    );
    let replaced = with(&[("witness = \"wit1\"", "witness = \"wit2\"")]);
    shows(
        BASE,
        &replaced,
        &serving("be1"),
        &expect![[r#"
        1. wit2 becomes the witness of orders in place of wit1
           no interruption
           the old one votes until the new one does: no moment is without a witness
    "#]],
    );
    let mut exposed = serving("be1");
    exposed.pools.get_mut("orders").unwrap().is_mirrored = false;
    let plan = planned(BASE, &replaced, &exposed);
    assert!(plan.changes[0].effects.contains(&Effect::NoAutomaticFailoverMeanwhile));
    let spare =
        with(&[("witness = \"wit1\"\n", "witness = \"wit1\"\nspare_witnesses = [\"wit2\"]\n")]);
    assert_eq!(codes(&planned(BASE, &spare, &serving("be1"))), ["spare_witnesses"]);
}

#[test]
fn a_mirror_goes_and_comes() {
    shows(
        BASE,
        &with(&[ALONE]),
        &serving("be1"),
        &expect![[r#"
        1. be2 leaves orders: be1 serves it alone
           no interruption; every commit is on one disk only from then on
           its data stay on be2 in /srv/backstay/orders/data: remove them by hand when nobody needs them
        2. wit1 is the witness of orders no more
           no interruption
    "#]],
    );
    let plan = planned(BASE, &with(&[ALONE]), &serving("be2"));
    assert_eq!(plan.changes[0].effects[0], Effect::ManualFailover);
    shows(
        &with(&[ALONE]),
        BASE,
        &serving("be1"),
        &expect![[r#"
        1. be2 becomes the mirror of orders, which had none
           no interruption; fresh copy of 12 GB to be2
        2. wit1 becomes the witness of orders
           no interruption
           from then on the pool fails over by itself
    "#]],
    );
}

#[test]
fn a_partner_moves_to_another_server() {
    let mirror = with(&[("mirror = \"be2\"", "mirror = \"be3\"")]);
    shows(
        BASE,
        &mirror,
        &serving("be1"),
        &expect![[r#"
        1. be3 takes the place of be2 in orders
           no interruption; fresh copy of 12 GB to be3; exposed while the copy runs
           its data stay on be2 in /srv/backstay/orders/data: remove them by hand when nobody needs them
    "#]],
    );
    let principal = with(&[("principal = \"be1\"", "principal = \"be3\"")]);
    shows(
        BASE,
        &principal,
        &serving("be1"),
        &expect![[r#"
        1. be3 takes the place of be1 in orders
           one manual failover (about 0.2 s); fresh copy of 12 GB to be3; exposed while the copy runs
           be1 serves now, and hands over to be2 first
           its data stay on be1 in /srv/backstay/orders/data: remove them by hand when nobody needs them
    "#]],
    );
    // Whoever serves decides, and not the document.
    let plan = planned(BASE, &principal, &serving("be2"));
    assert!(!plan.changes[0].effects.contains(&Effect::ManualFailover));
    let plan = planned(BASE, &mirror, &serving("be2"));
    assert!(plan.changes[0].effects.contains(&Effect::ManualFailover));
}

#[test]
fn what_cannot_be_done_at_once_is_refused_with_the_steps() {
    let both = with(&[
        ("principal = \"be1\"", "principal = \"be3\""),
        ("mirror = \"be2\"", "mirror = \"be4\""),
    ]);
    shows(
        BASE,
        &both,
        &serving("be1"),
        &expect![[r#"
        refused: both servers of orders cannot be replaced at once
           because the data are on be1 and be2 only, and one of them has to give them
           step 1: replace the mirror only, and publish
           step 2: wait until the pool is mirrored again, and then replace the other one
    "#]],
    );
    let plan = planned(BASE, &both, &serving("be2"));
    assert_eq!(plan.refusals[0].steps[0], "replace the principal only, and publish");
    let exchanged = with(&[
        ("principal = \"be1\"", "principal = \"be2\""),
        ("mirror = \"be2\"", "mirror = \"be1\""),
    ]);
    shows(
        BASE,
        &exchanged,
        &serving("be1"),
        &expect![[r#"
        refused: principal and mirror of orders cannot be exchanged in the document
           because principal and mirror there say who was what at the first set-up; who serves now is the session's decision
           step 1: leave the document as it was
           step 2: to change sides: backstay pool failover orders
    "#]],
    );
    let crossed = with(&[
        ("principal = \"be1\"", "principal = \"be2\""),
        ("mirror = \"be2\"", "mirror = \"be3\""),
    ]);
    assert_eq!(codes(&planned(BASE, &crossed, &serving("be1"))), ["partner_crosses"]);
    let moved = with(&[ALONE, ("principal = \"be1\"", "principal = \"be3\"")]);
    assert_eq!(codes(&planned(&with(&[ALONE]), &moved, &serving("be1"))), ["only_server_replaced"]);
}

#[test]
fn principal_in_the_document_is_only_of_the_first_set_up() {
    let plan = planned(BASE, BASE, &serving("be2"));
    assert!(plan.changes.is_empty());
    assert_eq!(
        plan.notes,
        ["be2 serves orders now, and goes on: `principal = \"be1\"` speaks of the first set-up \
             only. To change sides: backstay pool failover orders"]
    );
}

#[test]
fn settings_say_whether_a_restart_is_needed() {
    let changed = with(&[(
        "work_mem = \"8MB\", max_connections = 200",
        "work_mem = \"9MB\", max_connections = 300, auto_explain.log_nested_statements = \"on\"",
    )]);
    let changed = changed
        .replace("auto_explain.log_nested_statements", "\"auto_explain.log_nested_statements\"");
    shows(
        BASE,
        &changed,
        &serving("be1"),
        &expect![[r#"
        1. settings of orders: work_mem = 9MB (was 8MB)
           no interruption
        2. settings of orders that take a restart: max_connections = 300 (was 200)
           no interruption now; in force after a restart of the mirror, then one manual failover (about 0.2 s)
           nothing is restarted by publishing; `pool status` shows what waits
        3. settings of orders: auto_explain.log_nested_statements = on
           no interruption
           whether PostgreSQL takes them over by a reload is not known here; `pool status` tells afterwards if a restart is waited for
    "#]],
    );
    let lower = with(&[("max_connections = 200", "max_connections = 150")]);
    let plan = planned(BASE, &lower, &serving("be1"));
    assert_eq!(plan.changes[0].effects, [Effect::AfterFailoverAndMirrorRestart]);
    let kept = with(&[("witness = \"wit1\"\n", "witness = \"wit1\"\nslot_wal_keep = \"9GB\"\n")]);
    assert_eq!(codes(&planned(BASE, &kept, &serving("be1"))), ["settings_restart"]);
    let alone = with(&[ALONE, ("max_connections = 200", "max_connections = 150")]);
    let plan = planned(&with(&[ALONE]), &alone, &serving("be1"));
    assert_eq!(plan.changes[0].effects, [Effect::AfterRestart]);
    let mut told = serving("be1");
    let contexts = [("work_mem".to_owned(), Context::Restart)].into();
    told.pools.get_mut("orders").unwrap().contexts = contexts;
    let work_mem = with(&[("8MB", "9MB")]);
    assert_eq!(codes(&planned(BASE, &work_mem, &told)), ["settings_restart"]);
}

#[test]
fn databases_are_made_and_never_dropped() {
    let renamed = with(&[("name = \"shop\"", "name = \"store\"")]);
    shows(
        BASE,
        &renamed,
        &serving("be1"),
        &expect![[r#"
        1. databases are made in orders: store
           no interruption
           one that is there already is left as it is
        2. databases of orders are named no more: shop
           no interruption
           they are never dropped: they stay in the pool, and stay mirrored, until somebody drops them there
    "#]],
    );
    let owned =
        with(&[("name = \"shop\"", "name = \"shop\"\nowner = \"ann\"\nschema = \"a.sql\"")]);
    let plan = planned(BASE, &owned, &serving("be1"));
    assert!(plan.is_empty());
    assert_eq!(plan.notes.len(), 2);
}

#[test]
fn small_changes_interrupt_nobody() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "witness = \"wit1\"\n",
            "witness = \"wit1\"\nclient_access = [\"host all all 10.0.0.0/8 scram-sha-256\"]\n",
            "client_access",
        ),
        ("witness = \"wit1\"\n", "witness = \"wit1\"\nprofile = \"tolerant\"\n", "times"),
        (
            "witness = \"wit1\"\n",
            "witness = \"wit1\"\ntimes = { partner_timeout_ms = 1200 }\n",
            "times",
        ),
        (
            "witness = \"wit1\"\n",
            "witness = \"wit1\"\nsocket_dir = \"/run/orders\"\n",
            "socket_dir",
        ),
        ("host = \"be2.example.com\"", "host = \"be2.example.net\"", "address"),
        ("host = \"wit1.example.com\"", "host = \"wit1.example.com\"\nport = 7099", "address"),
        (
            "[[pool.front_end]]\nname = \"fe1\"\nhost = \"fe1.example.com\"",
            "[[pool.front_end]]\nname = \"fe1\"\nhost = \"fe1.example.com\"\nhold_s = 90",
            "front_end_settings",
        ),
        (
            "[[pool.front_end]]\n",
            "[[pool.front_end]]\nname = \"fe2\"\nhost = \"fe2.example.com\"\n\n[[pool.front_end]]\n",
            "front_end_added",
        ),
        (
            "[[witness]]\nname = \"wit1\"",
            "[[witness]]\nname = \"wit3\"\nhost = \"wit3.example.com\"\n\n[[witness]]\nname = \"wit1\"",
            "process_added",
        ),
        ("[[witness]]\nname = \"wit2\"\nhost = \"wit2.example.com\"\n", "", "process_removed"),
    ];
    for (place, to, code) in cases {
        let plan = planned(BASE, &with(&[(place, to)]), &serving("be1"));
        assert_eq!(codes(&plan), [*code], "{to}");
        for effect in plan.changes.iter().flat_map(|change| &change.effects) {
            let quiet = matches!(effect, Effect::NoInterruption | Effect::AfterAgentRestart { .. });
            assert!(quiet, "{to}: {effect:?}");
        }
    }
}

#[test]
fn a_front_end_that_moves_or_goes_ends_its_client_sessions() {
    let moved = with(&[("host = \"fe1.example.com\"", "host = \"fe1.example.com\"\nport = 6400")]);
    let gone = with(&[("[[pool.front_end]]\nname = \"fe1\"\nhost = \"fe1.example.com\"\n", "")]);
    for (text, code) in [(moved, "front_end_moved"), (gone, "front_end_removed")] {
        let plan = planned(BASE, &text, &serving("be1"));
        assert_eq!(codes(&plan), [code]);
        let ends = Effect::EndsClientSessions { front_end: "fe1".to_owned() };
        assert_eq!(plan.changes[0].effects, [ends]);
    }
}

#[test]
fn postgresqls_port_changes_on_the_mirror_first() {
    let both = with(&[("witness = \"wit1\"\n", "witness = \"wit1\"\nport = 5440\n")]);
    shows(
        BASE,
        &both,
        &serving("be1"),
        &expect![[r#"
        refused: PostgreSQL's port on be1 cannot change while be1 serves orders
           because the running PostgreSQL keeps its port, and the mirror would look for it at the new one
           step 1: change it for the mirror only: port_on = { be2 = 5440 }
           step 2: restart be2's agent with its PostgreSQL, then: backstay pool failover orders
           step 3: change it for be1, and restart its agent with its PostgreSQL
    "#]],
    );
    let mirror =
        with(&[("witness = \"wit1\"\n", "witness = \"wit1\"\nport_on = { be2 = 5440 }\n")]);
    assert_eq!(codes(&planned(BASE, &mirror, &serving("be1"))), ["postgres_port"]);
    assert_eq!(codes(&planned(BASE, &mirror, &serving("be2"))), ["port_of_principal"]);
}

#[test]
fn what_would_leave_data_behind_is_refused() {
    let cases: &[(&str, &str, &str)] = &[
        ("witness = \"wit1\"\n", "witness = \"wit1\"\nroot = \"/data\"\n", "directory_moved"),
        ("deployment = \"production\"", "deployment = \"other\"", "deployment_renamed"),
    ];
    for (place, to, code) in cases {
        let plan = planned(BASE, &with(&[(place, to)]), &serving("be1"));
        assert_eq!(codes(&plan), [*code]);
        assert!(plan.refusals[0].steps.len() >= 2);
    }
    let before = format!("{BASE}{SECOND}");
    let after = before.replace(
        "principal = \"be2\"\nmirror = \"be1\"\nwitness = \"wit1\"\nport = 5433\n\n[[pool.database]]\nname = \"invoices\"",
        "method = \"clustering\"\ncluster = { name = \"sql.example.com\" }",
    );
    assert_eq!(codes(&planned(&before, &after, &serving("be1"))), ["method_changed"]);
}

#[test]
fn the_store_moves_and_pools_are_paired() {
    let before = format!("{BASE}{SECOND}");
    let moved =
        before.replace("central_management = \"orders\"", "central_management = \"billing\"");
    let plan = planned(&before, &moved, &serving("be1"));
    assert!(codes(&plan).contains(&"store_moved"), "{}", plan.text());
    assert!(plan.text().contains("the database xds in orders stays, and is used no more"));
    let paired = before
        .replace("mirror = \"be2\"\n", "mirror = \"be2\"\npair = \"billing\"\n")
        .replace("port = 5433\n", "port = 5433\npair = \"orders\"\n");
    assert_eq!(codes(&planned(&before, &paired, &serving("be1"))), ["pair", "pair"]);
}

#[test]
fn what_makes_a_pool_safer_comes_before_what_costs_it_protection() {
    let before = format!("{BASE}{SECOND}");
    let after = BASE
        .replace("witness = \"wit1\"", "witness = \"wit2\"")
        .replace("work_mem = \"8MB\"", "work_mem = \"9MB\"")
        .replace("mirror = \"be2\"", "mirror = \"be3\"");
    let plan = planned(&before, &after, &serving("be1"));
    assert_eq!(
        codes(&plan),
        ["witness_replaced", "settings_reloaded", "partner_moved", "pool_removed"]
    );
}
