//! Arguments, help, and deployment files.

use expect_test::{Expect, expect, expect_file};

use crate::place::Place;

#[test]
fn help_teaches() {
    let place = Place::new("help");
    let mut text = String::new();
    for noun in [
        &["--help"][..],
        &["demo", "--help"],
        &["demo", "kill", "--help"],
        &["demo", "status", "--help"],
        &["pool", "--help"],
        &["pool", "status", "--help"],
        &["pool", "failover", "--help"],
        &["pool", "force-service", "--help"],
        &["pool", "resume", "--help"],
        &["pool", "witness", "--help"],
        &["drill", "--help"],
        &["server", "--help"],
        &["witness", "--help"],
        &["front-end", "--help"],
    ] {
        let told = place.run(noun).expect(0);
        let lines: Vec<&str> = told.data.lines().map(str::trim_end).collect();
        text.push_str(&format!("$ backstay {}\n{}\n\n", noun.join(" "), lines.join("\n")));
    }
    expect_file!["./help.txt"].assert_eq(&text);
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let place = Place::new("usage");
    for args in [
        &[][..],
        &["pool"],
        &["pool", "status", "--jsn"],
        &["drill", "pool01", "earthquake"],
        &["drill", "pool01", "crash", "--repeat", "0"],
        &["drill", "pool01", "crash", "--through", "tunnel"],
        &["drill", "pool01", "crash", "--clients", "0"],
        &["pool", "force-service", "pool01"],
        &["pool", "resume", "pool01", "--discard", "be1"],
        &["server"],
        &["front-end"],
        &["demo", "--profile", "quick"],
    ] {
        place.run(args).expect(2);
    }
}

fn check(deployment: &str, args: &[&str], expected: Expect) {
    let place = Place::new(&format!("deployment-{}", deployment.len()));
    let file = place.write("deployment.toml", deployment);
    let file = file.to_str().unwrap();
    let args: Vec<&str> = args.iter().copied().chain(["--deployment", file]).collect();
    let told = place.run(&args).expect(1);
    assert_eq!(told.data, "");
    expected.assert_eq(&told.talk.replace(file, "FILE"));
}

const GOOD: &str = r#"
name = "production"

[[member]]
name = "be1"
address = "127.0.0.1:1"

[[member]]
name = "be2"
address = "127.0.0.1:2"

[[pool]]
name = "pool01"
first = "be1"
second = "be2"
"#;

#[test]
fn no_deployment_says_where_one_is_looked_for() {
    let place = Place::new("nowhere");
    let told = place.run(&["pool", "status"]).expect(1);
    expect![[r#"
        error: no deployment is given, and no demo lives in this directory
        hint: name a deployment file with --deployment FILE or BACKSTAY_DEPLOYMENT,
              or start a demo here: backstay demo
    "#]]
    .assert_eq(&told.talk);
}

#[test]
fn a_deployment_that_contradicts_itself_is_refused_with_all_faults() {
    check(
        &format!("{GOOD}witness = \"wit1\"\n[[member]]\nname = \"be1\"\naddress = \"here\"\n"),
        &["pool", "status"],
        expect![[r#"
            error: FILE contradicts itself: two members are called "be1"; the address of "be1" is "here", not host:port; pool "pool01" names "wit1", which is no member
            hint: every name is used once, and every member of a pool has a [[member]] entry
        "#]],
    );
}

#[test]
fn a_deployment_with_an_unknown_field_is_refused() {
    check(
        &GOOD.replace("second", "secnd"),
        &["pool", "status"],
        expect![[r#"
            error: FILE is no deployment file: TOML parse error at line 15, column 1
               |
            15 | secnd = "be2"
               | ^^^^^
            unknown field `secnd`, expected one of `name`, `first`, `second`, `witness`, `profile`
            hint: it holds: name, [[member]] with name and address, [[pool]] with name, first, second and witness, [[front_end]] with name, pool and address
        "#]],
    );
}

#[test]
fn an_unknown_pool_is_told_with_the_known_ones() {
    check(
        GOOD,
        &["pool", "failover", "pool02"],
        expect![[r#"
            error: there is no pool "pool02" in the deployment "production"
            hint: its pools are: pool01
        "#]],
    );
}

#[test]
fn faults_are_played_on_a_demo_only() {
    check(
        GOOD,
        &["drill", "pool01", "host-loss"],
        expect![[r#"
            error: host-loss kills processes, which a drill does on a demo pool only
            hint: rehearse an ordered failover: backstay drill POOL manual --connect URL
        "#]],
    );
}

#[test]
fn a_drill_through_the_gateway_asks_for_its_address() {
    check(
        GOOD,
        &["drill", "pool01", "manual", "--through", "gateway"],
        expect![[r#"
        error: the drill does not know where the Front End is
        hint: name its address: --connect "postgresql://USER@HOST/DATABASE"
              (an older demo gets a Front End when it is started again)
    "#]],
    );
    check(
        GOOD,
        &["drill", "pool01", "manual", "--clients", "5"],
        expect![[r#"
        error: --clients is the number of clients that write through the gateway
        hint: add --through gateway
    "#]],
    );
}

#[test]
fn a_pool_whose_members_are_gone_is_shown_as_not_served() {
    let place = Place::new("gone");
    let file = place.write("deployment.toml", GOOD);
    let status = ["pool", "status", "pool01", "--json", "--deployment", file.to_str().unwrap()];
    let told = place.run(&status).expect(4);
    assert_eq!(told.json()["state"], "not_served");
    assert_eq!(told.json()["members"][1]["answered"], false);
    let failover = ["pool", "failover", "pool01", "--deployment", file.to_str().unwrap()];
    let told = place.run(&failover).expect(1);
    expect![[r#"
        error: no member answers, so nobody knows who serves: be1: it is not reached at 127.0.0.1:1: Connection refused (os error 111)
        hint: see why: backstay pool status pool01
    "#]]
    .assert_eq(&told.talk);
}

#[test]
fn a_command_for_a_demo_that_does_not_exist_says_so() {
    let place = Place::new("no-demo");
    let told = place.run(&["demo", "status", "--dir", "here"]).expect(1);
    expect![[r#"
        error: there is no demo in PLACE/here
        hint: start one with: backstay demo
              or name its directory with --dir DIR
    "#]]
    .assert_eq(&told.talk.replace(place.path().to_str().unwrap(), "PLACE"));
}
