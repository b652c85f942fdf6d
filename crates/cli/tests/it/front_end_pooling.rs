//! Transaction pooling: many client sessions share few server connections, and none of them finds
//! anything of another, or misses anything of its own, also after a crash.

use tokio_postgres::Statement;

use crate::front_end::{Session, fails, until};
use crate::stage::Demo;

const SESSIONS: usize = 6;

#[test]
fn client_sessions_share_server_connections_and_notice_nothing_of_each_other() {
    let demo = Demo::start("fe-pooling", &["--profile", "fast"]);
    demo.wait_until_armed();
    demo.set_front_end(&[("pooling", "\"transaction\""), ("server_connections", "2")]);
    let uri = crate::clients::front_end(&demo);
    Session::open(&uri).unwrap().ask("CREATE TABLE t (x text)").unwrap();

    let users: Vec<User> = (0..SESSIONS).map(|number| User::begin(&uri, number)).collect();
    everyone_finds_the_own_statements(&users);
    pinned_sessions_keep_their_server(&demo, &uri);
    settings_stay_with_their_session(&demo, &uri);
    transactions_wait_for_each_other(&uri);
    demo.wait_until_armed();
    demo.demo("kill", &["principal"]).expect(0);
    demo.wait("be2 serves", |pool| pool["principal"] == "be2");
    everyone_finds_the_own_statements(&users);
    settings_stay_with_their_session(&demo, &uri);
    assert_eq!(demo.front_end_status()["counters"]["sessions_ended"]["fault"], 0);
}

/// Prepares what others prepare under the same names, with another text.
struct User {
    number: usize,
    session: Session,
    own: Statement,
    common: Statement,
}

impl User {
    fn begin(uri: &str, number: usize) -> User {
        let session = Session::open(uri).unwrap();
        // The library names its statements by a count that starts anew in each session or not:
        // either way one name has several texts here, or one text several names.
        let own = session.prepare(&format!("SELECT 'own {number}'"));
        let common = session.prepare("SELECT count(*)::text FROM t WHERE x = 'nobody'");
        User { number, session, own, common }
    }
}

fn everyone_finds_the_own_statements(users: &[User]) {
    for _round in 0..3 {
        for user in users {
            let own = user.session.execute(&user.own).unwrap();
            assert_eq!(own, format!("own {}", user.number));
            assert_eq!(user.session.execute(&user.common).unwrap(), "0");
        }
    }
}

fn pinned_sessions_keep_their_server(demo: &Demo, uri: &str) {
    for statement in [
        "CREATE TEMP TABLE mine (x int)",
        "SELECT pg_advisory_lock(9)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN news",
        "PREPARE mine AS SELECT 1",
    ] {
        let pinned = Session::open(uri).unwrap();
        pinned.ask(statement).unwrap();
        let process = pinned.value("SELECT pg_backend_pid()");
        let other = Session::open(uri).unwrap();
        assert_ne!(other.value("SELECT pg_backend_pid()"), process, "{statement}");
        assert_eq!(pinned.value("SELECT pg_backend_pid()"), process, "{statement}");
        assert_eq!(other.value("SELECT to_regclass('mine') IS NULL"), "t");
        drop(pinned);
        until("it has gone", || {
            demo.front_end_status()["client_sessions"]["all"] == SESSIONS as u64 + 1
        });
        assert_eq!(other.value("SELECT count(*) FROM pg_prepared_statements WHERE from_sql"), "0");
        assert_eq!(other.value("SELECT to_regclass('mine') IS NULL"), "t");
        drop(other);
    }
}

fn settings_stay_with_their_session(demo: &Demo, uri: &str) {
    let setter = Session::open(uri).unwrap();
    setter.ask("SET app.user_id = '42'").unwrap();
    setter.ask("SET work_mem = '7MB'").unwrap();
    let other = Session::open(uri).unwrap();
    for _round in 0..3 {
        assert_eq!(other.value("SELECT current_setting('app.user_id', true)"), "");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        assert_eq!(setter.value("SHOW app.user_id"), "42");
        assert_eq!(setter.value("SHOW work_mem"), "7MB");
    }
    drop(setter);
    until("it has gone", || {
        demo.front_end_status()["client_sessions"]["all"] == SESSIONS as u64 + 1
    });
    assert_eq!(other.value("SELECT current_setting('app.user_id', true)"), "");
    assert_eq!(other.value("SHOW work_mem"), "4MB");
}

/// With two server connections, the third transaction begins when one of the first has ended.
fn transactions_wait_for_each_other(uri: &str) {
    let open = || Session::open(uri).unwrap();
    let (first, second, third) = (open(), open(), open());
    first.ask("BEGIN").unwrap();
    second.ask("BEGIN").unwrap();
    first.ask("INSERT INTO t VALUES ('first')").unwrap();
    second.fails("SELECT 1/0", "22012");
    let waits = third.send("INSERT INTO t VALUES ('third')");
    fails("the failed one stays failed", second.ask("SELECT 1"), "25P02");
    assert!(waits.is_waiting());
    first.ask("COMMIT").unwrap();
    waits.answer().unwrap();
    second.ask("ROLLBACK").unwrap();
    assert_eq!(third.value("SELECT count(*) FROM t WHERE x IN ('first', 'third')"), "2");
}
