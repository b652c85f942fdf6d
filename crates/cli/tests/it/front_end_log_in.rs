//! Who is let in by the Front End, what is refused there, and what a client is told when its
//! commit's wait for the mirror is interrupted. One demo for all, in which nobody fails.

use std::process::Command;

use tokio_postgres::Config;

use crate::front_end::{Failed, Session, Stopped, fails, until};
use crate::stage::Demo;

const RIGHT: &str = "r1ghtPassw0rd";
const WRONG: &str = "wr0ngPassw0rd";
const NEW: &str = "n3wPassw0rd";

#[test]
fn a_front_end_lets_in_whom_the_servers_would_and_closes_the_gaps_they_leave() {
    let demo = Demo::start("fe-log-in", &["--profile", "tolerant"]);
    demo.wait_until_armed();
    demo.make_judge("be1");
    demo.superuser("be1", &users());
    demo.superuser("be1", "CREATE TABLE t (x text); GRANT ALL ON t TO clerk");
    a_right_password_lets_in(&demo);
    an_unknown_user_cannot_be_told_from_a_wrong_password(&demo);
    who_may_not_log_in_is_told_as_postgresql_would(&demo);
    a_user_with_an_md5_secret_is_refused_in_clear_words(&demo);
    channel_binding_can_be_required(&demo);
    replication_is_refused(&demo);
    a_changed_password_counts_soon_and_the_old_one_no_more(&demo);
    lowered_commits_are_refused(&demo);
    a_lowered_commit_in_a_users_own_settings_is_raised(&demo);
    let judge = demo.judge("be1");
    a_cancel_is_not_passed_on_while_a_commit_waits(&demo, &judge);
    a_commit_whose_wait_was_cancelled_is_not_called_committed(&demo, &judge);
    a_commit_whose_server_process_was_ended_is_judged(&demo, &judge);
    no_log_has_a_password(&demo);
}

fn users() -> String {
    format!(
        "CREATE ROLE clerk LOGIN PASSWORD '{RIGHT}';
         CREATE ROLE lowered LOGIN PASSWORD '{RIGHT}';
         ALTER ROLE lowered SET synchronous_commit = off;
         ALTER ROLE lowered SET client_min_messages = error;
         CREATE ROLE guest NOLOGIN PASSWORD '{RIGHT}';
         CREATE ROLE former LOGIN PASSWORD '{RIGHT}' VALID UNTIL '2001-01-01';
         CREATE ROLE secretless LOGIN;
         SET password_encryption = md5;
         CREATE ROLE old LOGIN PASSWORD '{RIGHT}';"
    )
}

fn log_in(demo: &Demo, user: &str, password: &str) -> Result<Session, Failed> {
    Session::open(&demo.front_end_uri(user, password))
}

#[track_caller]
fn refused(demo: &Demo, user: &str, password: &str, sqlstate: &str) -> Failed {
    let failed = log_in(demo, user, password).err().unwrap();
    assert_eq!(failed.sqlstate, sqlstate, "{failed:?}");
    failed
}

fn clerk(demo: &Demo) -> Session {
    log_in(demo, "clerk", RIGHT).unwrap()
}

fn a_right_password_lets_in(demo: &Demo) {
    assert_eq!(clerk(demo).value("SELECT current_user"), "clerk");
}

fn an_unknown_user_cannot_be_told_from_a_wrong_password(demo: &Demo) {
    let wrong = refused(demo, "clerk", WRONG, "28P01");
    let unknown = refused(demo, "nobody", WRONG, "28P01");
    let secretless = refused(demo, "secretless", WRONG, "28P01");
    assert_eq!(wrong.message, "password authentication failed for user \"clerk\"");
    assert_eq!(unknown.message, wrong.message.replace("clerk", "nobody"));
    assert_eq!(secretless.message, wrong.message.replace("clerk", "secretless"));
}

fn who_may_not_log_in_is_told_as_postgresql_would(demo: &Demo) {
    let guest = refused(demo, "guest", RIGHT, "28000");
    assert_eq!(guest.message, "role \"guest\" is not permitted to log in");
    refused(demo, "guest", WRONG, "28P01");
    refused(demo, "former", RIGHT, "28P01");
}

/// The demo's servers ask for SCRAM, which an MD5 secret cannot answer.
fn a_user_with_an_md5_secret_is_refused_in_clear_words(demo: &Demo) {
    refused(demo, "old", WRONG, "28P01");
    let right = refused(demo, "old", RIGHT, "08004");
    assert_eq!(right.message, "the server does not let the Front End in for this user");
    assert!(right.hint.starts_with("Use SCRAM-SHA-256 for the user"), "{right:?}");
}

fn psql(demo: &Demo, more: &str, statement: &str) -> (bool, String) {
    let uri: Config = demo.front_end_uri("clerk", RIGHT).parse().unwrap();
    let output = Command::new("/usr/lib/postgresql/15/bin/psql")
        .args(["-X", "-A", "-t", "-c", statement])
        .arg(format!("host=127.0.0.1 port={} user=clerk dbname=demo {more}", uri.get_ports()[0]))
        .env("PGPASSWORD", RIGHT)
        .current_dir("/")
        .output()
        .unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(both).unwrap())
}

fn channel_binding_can_be_required(demo: &Demo) {
    let (done, said) = psql(demo, "sslmode=require channel_binding=require", "SELECT 6 * 7");
    assert!(done && said.trim() == "42", "{said}");
    let (done, said) = psql(demo, "sslmode=disable channel_binding=require", "SELECT 6 * 7");
    assert!(!done, "{said}");
}

fn replication_is_refused(demo: &Demo) {
    for kind in ["database", "true"] {
        let (done, said) = psql(demo, &format!("replication={kind}"), "IDENTIFY_SYSTEM");
        assert!(!done && said.contains("passes no replication connections on"), "{said}");
    }
}

fn a_changed_password_counts_soon_and_the_old_one_no_more(demo: &Demo) {
    demo.superuser("be1", &format!("ALTER ROLE clerk PASSWORD '{NEW}'"));
    until("the new password is taken", || log_in(demo, "clerk", NEW).is_ok());
    refused(demo, "clerk", RIGHT, "28P01");
    demo.superuser("be1", &format!("ALTER ROLE clerk PASSWORD '{RIGHT}'"));
    // Only those with the old password come: they are found out by the server.
    until("the old password is refused", || log_in(demo, "clerk", NEW).is_err());
    until("the right password is taken", || log_in(demo, "clerk", RIGHT).is_ok());
}

fn lowered_commits_are_refused(demo: &Demo) {
    let session = clerk(demo);
    for statement in [
        "SET synchronous_commit = off",
        "SET SESSION synchronous_commit TO 'local'",
        "set \"synchronous_commit\" to remote_write",
        "SELECT set_config('synchronous_commit', 'off', false)",
        "INSERT INTO t VALUES ('multi'); SET synchronous_commit = off",
    ] {
        session.fails(statement, "0A000");
    }
    let extended = session.ask_extended("SET synchronous_commit = off", &[]);
    fails("extended", extended, "0A000");
    // A name that is not in the text is found out afterwards, and so is dynamic SQL.
    let named = "SELECT set_config($1, 'off', false)";
    session.ask_extended(named, &["synchronous_commit"]).unwrap_or_default();
    assert_eq!(session.value("SHOW synchronous_commit"), "on");
    session.ask("BEGIN").unwrap();
    session.fails("SET LOCAL synchronous_commit = off", "0A000");
    session.fails("SELECT 1", "25P02");
    session.ask("ROLLBACK").unwrap();
    session
        .ask("DO $$ BEGIN PERFORM set_config('synchronous_commit', 'o' || 'ff', false); END $$")
        .unwrap_or_default();
    assert_eq!(session.value("SHOW synchronous_commit"), "on");
    assert_eq!(session.value("SELECT count(*) FROM t"), "0");
    for value in ["on", "remote_apply"] {
        session.ask(&format!("SET synchronous_commit = {value}")).unwrap();
    }
    let mut config: Config = demo.front_end_uri("clerk", RIGHT).parse().unwrap();
    config.options("-c synchronous_commit=off");
    assert_eq!(Session::with(&config).err().unwrap().sqlstate, "0A000");
}

fn a_lowered_commit_in_a_users_own_settings_is_raised(demo: &Demo) {
    let session = log_in(demo, "lowered", RIGHT).unwrap();
    assert_eq!(session.value("SHOW synchronous_commit"), "on");
    session.ask("RESET ALL").unwrap();
    assert_eq!(session.value("SHOW synchronous_commit"), "on", "after RESET ALL");
    session.ask("DISCARD ALL").unwrap();
    assert_eq!(session.value("SHOW synchronous_commit"), "on", "after DISCARD ALL");
    assert_eq!(session.value("SHOW client_min_messages"), "warning");
    let raised = "synchronous_commit has been set back to on".to_owned();
    assert!(session.aside().notices.contains(&raised), "{:?}", session.aside());
}

fn still_mirror(demo: &Demo) -> Stopped {
    let receiver = "SELECT pid FROM pg_stat_wal_receiver";
    until("the mirror receives", || !demo.superuser("be2", receiver).is_empty());
    Stopped::new(&demo.superuser("be2", receiver))
}

const WAITING: &str = "SELECT max(pid) FROM pg_stat_activity \
                       WHERE wait_event = 'SyncRep' AND usename = 'clerk'";

/// The process on the server that waits for the mirror.
fn waiting(judge: &Session) -> String {
    let mut pid = String::new();
    until("a commit waits for the mirror", || {
        pid = judge.value(WAITING);
        !pid.is_empty()
    });
    pid
}

fn a_cancel_is_not_passed_on_while_a_commit_waits(demo: &Demo, judge: &Session) {
    for extended in [false, true] {
        let session = clerk(demo);
        let still = still_mirror(demo);
        let sent = match extended {
            false => session.send("INSERT INTO t VALUES ('cancelled')"),
            true => session.send_extended("INSERT INTO t VALUES ($1)", &["cancelled"]),
        };
        let pid = waiting(judge);
        session.cancel();
        assert_eq!(judge.value(WAITING), pid, "it goes on waiting");
        assert!(sent.is_waiting());
        drop(still);
        sent.answer().unwrap();
        let sent = session.send("SELECT pg_sleep(60)");
        until("it sleeps", || {
            judge.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        });
        session.cancel();
        fails("a read is cancelled as ever", sent.answer(), "57014");
    }
    assert_eq!(clerk(demo).value("SELECT count(*) FROM t WHERE x = 'cancelled'"), "2");
}

fn a_commit_whose_wait_was_cancelled_is_not_called_committed(demo: &Demo, judge: &Session) {
    let session = clerk(demo);
    session.ask("SET client_min_messages = error").unwrap();
    for statement in ["INSERT INTO t VALUES ('alone')", "COMMIT"] {
        if statement == "COMMIT" {
            session.ask("BEGIN").unwrap();
            session.ask("INSERT INTO t VALUES ('alone')").unwrap();
        }
        let still = still_mirror(demo);
        let sent = session.send(statement);
        let pid = waiting(judge);
        judge.value(&format!("SELECT pg_cancel_backend({pid})"));
        let failed = fails(statement, sent.answer(), "08007");
        assert!(failed.message.contains("the wait for the mirror was cancelled"), "{failed:?}");
        drop(still);
        assert_eq!(session.value("SELECT 1"), "1");
    }
}

fn a_commit_whose_server_process_was_ended_is_judged(demo: &Demo, judge: &Session) {
    let session = clerk(demo);
    let still = still_mirror(demo);
    let sent = session.send("INSERT INTO t VALUES ('ended')");
    let pid = waiting(judge);
    judge.value(&format!("SELECT pg_terminate_backend({pid})"));
    until("the process has ended", || judge.value(WAITING) != pid);
    assert!(sent.is_waiting(), "the mirror does not have it");
    drop(still);
    sent.answer().unwrap();
    assert_eq!(session.value("SELECT count(*) FROM t WHERE x = 'ended'"), "1");
}

fn no_log_has_a_password(demo: &Demo) {
    let own = std::fs::read_to_string(demo.place.path().join("demo/demo.toml")).unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
    let secrets = [RIGHT, WRONG, NEW, own.trim_matches('"'), "SCRAM-SHA-256$", "md5"];
    for log in ["fe1/front-end.log", "be1/agent.log", "be2/agent.log", "wit1/agent.log"] {
        let text = std::fs::read_to_string(demo.place.path().join("demo").join(log)).unwrap();
        for secret in secrets {
            assert!(!text.contains(secret), "{log} has {secret}");
        }
    }
}
