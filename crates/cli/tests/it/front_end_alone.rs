//! What a Front End does while nobody serves: writes wait and fail, reads come from the standby,
//! after long everything persistent is refused at once, and all is normal again by itself.

use crate::front_end::{Session, fails, until};
use crate::stage::Demo;

#[test]
fn without_a_principal_reads_go_on_and_everything_is_normal_again_by_itself() {
    let demo = Demo::start("fe-alone", &["--profile", "fast"]);
    demo.set_front_end(&[
        ("hold_ms", "1500"),
        ("standby_reads_after_ms", "200"),
        // Time enough for what is looked at before it.
        ("resiliency_after_ms", "12000"),
    ]);
    demo.wait_until_armed();
    let uri = crate::clients::front_end(&demo);
    let first = Session::open(&uri).unwrap();
    first.ask("CREATE TABLE t (x int); INSERT INTO t VALUES (1)").unwrap();
    first.ask("SET app.user_id = '42'").unwrap();
    first.ask("LISTEN news").unwrap();
    let second = Session::open(&uri).unwrap();
    let prepared = second.prepare("SELECT count(*)::text FROM t");
    let bound = Session::open(&uri).unwrap();
    bound.ask("CREATE TEMP TABLE mine (x int)").unwrap();
    assert_eq!(first.aside().in_hot_standby.as_deref(), Some("off"));

    demo.demo("kill", &["wit1"]).expect(0);
    demo.demo("kill", &["be1"]).expect(0);
    until("reads are served by the standby", || mode(&demo) == "standby_reads");
    writes_wait_and_fail_and_may_be_tried_again(&first, &second);
    reads_are_answered_by_the_standby(&first, &second, &prepared);
    until("Resiliency mode", || mode(&demo) == "resiliency");
    everything_persistent_is_refused_at_once(&demo, &first, &second);
    reads_are_answered_by_the_standby(&first, &second, &prepared);
    who_is_known_can_log_in(&demo, &uri);
    people_see_the_mode_and_who_is_affected(&demo);

    demo.demo("restart", &["wit1"]).expect(0);
    demo.demo("restart", &["be1"]).expect(0);
    until("normal again", || mode(&demo) == "normal");
    everything_is_normal_on_the_same_connections(&first, &second, &prepared);
    let failed = bound.ended();
    assert_eq!(failed.sqlstate, "57P01", "{failed:?}");
    assert!(failed.message.contains("temporary tables"), "{failed:?}");
}

fn mode(demo: &Demo) -> String {
    demo.front_end_status()["mode"].as_str().unwrap_or_default().to_owned()
}

fn writes_wait_and_fail_and_may_be_tried_again(first: &Session, second: &Session) {
    let simple = first.send("INSERT INTO t VALUES (2)");
    let extended = second.send_extended("INSERT INTO t VALUES ($1::int)", &["2"]);
    for sent in [simple, extended] {
        let failed = fails("a write", sent.answer(), "57P03");
        assert_eq!(failed.message, "no server has served the pool in time");
        assert!(failed.detail.contains("nothing of it was done"), "{failed:?}");
    }
}

fn reads_are_answered_by_the_standby(
    first: &Session,
    second: &Session,
    prepared: &tokio_postgres::Statement,
) {
    assert_eq!(first.value("SHOW in_hot_standby"), "on");
    assert_eq!(first.aside().in_hot_standby.as_deref(), Some("on"));
    assert_eq!(first.value("SELECT count(*) FROM t"), "1");
    assert_eq!(first.value("SHOW app.user_id"), "42");
    assert_eq!(second.execute(prepared).unwrap(), "1");
    assert_eq!(second.aside().in_hot_standby.as_deref(), Some("on"));
}

fn everything_persistent_is_refused_at_once(demo: &Demo, first: &Session, second: &Session) {
    let before = demo.front_end_status();
    let refused = [
        first.ask("INSERT INTO t VALUES (3)"),
        first.ask("CREATE TABLE u (x int)"),
        second.ask_extended("DELETE FROM t", &[]),
    ];
    for answer in refused {
        let failed = fails("Resiliency mode", answer, "25006");
        assert!(failed.message.contains("Resiliency mode"), "{failed:?}");
    }
    let after = demo.front_end_status();
    assert_eq!(before["counters"]["held"], after["counters"]["held"]);
    assert_eq!(after["counters"]["refused_writes"], 3);

    // Many programs put even their reads into transactions.
    first.ask("BEGIN").unwrap();
    assert_eq!(first.value("SELECT count(*) FROM t"), "1");
    first.fails("INSERT INTO t VALUES (3)", "25006");
    first.fails("SELECT 1", "25P02");
    first.ask("ROLLBACK").unwrap();
    assert_eq!(first.value("SELECT count(*) FROM t"), "1");
    // A function may write, whatever its statement looks like.
    first.fails("SELECT nextval('s')", "42P01");
}

fn who_is_known_can_log_in(demo: &Demo, uri: &str) {
    let late = Session::open(uri).unwrap();
    assert_eq!(late.value("SELECT count(*) FROM t"), "1");
    let wrong = Session::open(&demo.front_end_uri("demo", "wrong")).err().unwrap();
    assert_eq!(wrong.sqlstate, "28P01", "{wrong:?}");
    // As on any other day, apart from how long it takes.
    let unknown = Session::open(&demo.front_end_uri("nobody", "wrong")).err().unwrap();
    assert_eq!(unknown.sqlstate, "57P03", "{unknown:?}");
}

fn people_see_the_mode_and_who_is_affected(demo: &Demo) {
    let told = demo.run(&["pool", "status"]).expect(4);
    assert!(told.data.contains("Resiliency mode"), "{}", told.data);
    assert!(told.data.contains("        demo in database demo: "), "{}", told.data);
    let status = demo.front_end_status();
    assert_eq!(status["affected"][0]["user"], "demo", "{status:#}");
    assert_eq!(status["affected_count"], 1, "{status:#}");
    assert!(status["without_principal_ms"].as_u64() > Some(10_000), "{status:#}");
    assert!(status["mode_since"].is_string(), "{status:#}");
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.contains("client sessions affected"), "{sentence}");
    assert_eq!(status["standby"]["server"], "be2");
}

fn everything_is_normal_on_the_same_connections(
    first: &Session,
    second: &Session,
    prepared: &tokio_postgres::Statement,
) {
    first.ask("INSERT INTO t VALUES (4)").unwrap();
    assert_eq!(second.execute(prepared).unwrap(), "2");
    assert_eq!(first.value("SHOW in_hot_standby"), "off");
    assert_eq!(first.aside().in_hot_standby.as_deref(), Some("off"));
    assert_eq!(second.aside().in_hot_standby.as_deref(), Some("off"));
    assert_eq!(first.value("SHOW app.user_id"), "42");
    second.ask("NOTIFY news, 'again'").unwrap();
    first.ask("SELECT 1").unwrap();
    until("the notification comes", || first.aside().notifications == ["again"]);
}
