//! How diagnostics look to people and to scripts.

use expect_test::expect;
use topology::examine;
use topology::render::{self, Colours};

use super::{EXAMPLE, SOUND, changed};

fn shown(text: &str) -> String {
    render::text("topology.toml", text, &examine(text).diagnostics, Colours::Never)
}

#[test]
fn a_document_without_faults_is_counted() {
    assert_eq!(shown(SOUND), "topology.toml: no errors, no warnings\n");
}

#[test]
fn several_faults_look_like_a_compilers() {
    let text = changed(EXAMPLE, "mirror = \"be2\"", "mirror = \"be1\"");
    let text = changed(&text, "lease_ms = 1500", "lease_ms = 2500");
    let text = changed(&text, "port = 5432              #", "port = 7022              #");
    expect![[r#"
        warning[server-without-pool]: server be2 belongs to no pool
          --> topology.toml:28:8
           |
        28 | name = "be2"
           |        ^^^^^
           |
           = note: Its agent has nothing to do; perhaps a name is misspelt elsewhere.
           = help: Name it in a pool, or take it out.

        error[pool-same-host-twice]: pool orders names be1 twice
          --> topology.toml:41:10
           |
        40 | principal = "be1"        # of the first set-up (method none: the only server)
           |             ----- the principal
        41 | mirror = "be1"
           |          ^^^^^ the mirror
           |
           = note: A mirror on the machine that it is to replace is lost together with it.
           = help: Name a server on another machine.

        error[port-collision]: port 7022 of be1.example.com is needed twice
          --> topology.toml:43:8
           |
        20 | [[server]]
           | ---------- for the agent of be1
        ...
        43 | port = 7022              # PostgreSQL's, on both
           |        ^^^^ for PostgreSQL of pool orders on be1
           |
           = note: The second one to start would find the port taken, perhaps only after the next reboot.
           = help: Give one of them another port.

        error[times-break-lease-rule]: in pool orders, the detection time must be at least the lease and 10 % more
          --> topology.toml:48:22
           |
        48 | times = { lease_ms = 2500 }
           |                      ^^^^ in force: heartbeat 250, lease 2500, detection 2000, stop margin 250 ms
           |
           = note: A mirror may stand only when the old principal has certainly stopped: otherwise both would take writes at once.
           = help: Set lease_ms to 1818 or less, or detection_ms to 2750 or more.

        warning[one-front-end]: fe1 is the only way into orders
          --> topology.toml:57:8
           |
        57 | name = "fe1"
           |        ^^^^^
           |
           = note: When it is lost, no client reaches the pool, although the pool is served.
           = help: Add Front Ends on other machines, and name all of them in connection strings.

        topology.toml: 3 errors, 2 warnings
    "#]].assert_eq(&shown(&text));
}

#[test]
fn a_fault_of_the_whole_document_has_no_line() {
    expect![[r#"
        warning[no-pool]: the document has no pool
         |
         = note: Nothing would be served.
         = help: Add a [[pool]].

        topology.toml: no errors, 1 warning
    "#]]
    .assert_eq(&shown("format = 1\ndeployment = \"d\"\n"));
}

#[test]
fn a_document_with_very_many_faults_shows_the_first_ones() {
    let text = format!("{SOUND}{}", "[[pool]]\n".repeat(300));
    let shown = shown(&text);
    assert!(shown.contains("more, which are not shown"));
    assert!(shown.len() < 200_000, "{}", shown.len());
}

#[test]
fn colours_come_only_when_asked_for() {
    let text = changed(SOUND, "port = 5433", "port = 0");
    let found = examine(&text).diagnostics;
    let plain = render::text("t", &text, &found, Colours::Never);
    let styled = render::text("t", &text, &found, Colours::Always);
    assert!(!plain.contains('\u{1b}') && styled.contains("\u{1b}["));
}

#[test]
fn scripts_get_lines_and_columns() {
    let text = changed(SOUND, "witness = \"wit2\"", "witness = \"wti2\"");
    let json = render::json("topology.toml", &text, &examine(&text).diagnostics);
    expect![[r#"
        {
          "diagnostics": [
            {
              "cause": "Its address is unknown; without a witness nothing would fail over by itself.",
              "label": null,
              "message": "there is no witness wti2",
              "page": "topology/rules.md#unknown-witness",
              "place": {
                "end": {
                  "column": 17,
                  "line": 94
                },
                "start": {
                  "column": 11,
                  "line": 94
                }
              },
              "related": [],
              "remedy": "Did you mean wit2? Otherwise add a [[witness]] wti2.",
              "rule": "unknown-witness",
              "severity": "error"
            }
          ],
          "errors": 1,
          "file": "topology.toml",
          "warnings": 0
        }"#]].assert_eq(&serde_json::to_string_pretty(&json).unwrap());
}
