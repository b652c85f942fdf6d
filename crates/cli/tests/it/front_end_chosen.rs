//! What an administrator may choose otherwise: that commits may be lowered, that replication
//! connections are passed on.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use crate::clients_plain::ended;
use crate::front_end::{PROGRAMS, Session, Stopped, until};
use crate::place::Told;
use crate::stage::Demo;

const WARNING: &str = "synchronous_commit below on: what is acknowledged can be lost in a failover";
const RAISED: &str = "synchronous_commit has been set back to on";

#[test]
fn lowered_commits_are_refused_or_warned_of_however_they_come() {
    // The mirror stands still for a moment, which the other profiles would not wait for.
    let demo = Demo::start("fe-lowered", &["--profile", "tolerant"]);
    demo.wait_until_armed();
    demo.make_judge("be1");
    demo.superuser(
        "be1",
        "CREATE TABLE t (x text); GRANT ALL ON t TO demo; \
         CREATE FUNCTION lowers() RETURNS void LANGUAGE plpgsql AS \
           $$ BEGIN SET synchronous_commit = off; END $$; \
         CREATE FUNCTION within() RETURNS void LANGUAGE plpgsql SET synchronous_commit = off AS \
           $$ BEGIN INSERT INTO t VALUES ('within'); END $$; \
         CREATE ROLE hasty LOGIN PASSWORD 'hasty'; GRANT ALL ON t TO hasty; \
         ALTER ROLE hasty SET synchronous_commit = local",
    );
    let uri = crate::clients::front_end(&demo);
    refused(&demo, &uri);
    demo.set_front_end(&[("lowered_commit", "\"warn\"")]);
    warned(&demo, &uri);
}

fn refused(demo: &Demo, uri: &str) {
    let session = Session::open(uri).unwrap();
    for statement in [
        "SET synchronous_commit = off",
        "BEGIN; SET LOCAL synchronous_commit = local; INSERT INTO t VALUES ('never'); COMMIT",
        "SET SESSION synchronous_commit TO remote_write",
        "SELECT set_config('synchronous_commit', 'off', false)",
        "DO $$ BEGIN SET synchronous_commit = off; END $$",
    ] {
        session.fails(statement, "0A000");
    }
    session.fails("ROLLBACK; SHOW nothing", "42704");
    let failed = Session::open(&format!("{uri}?options=-csynchronous_commit%3Doff")).err().unwrap();
    assert_eq!(failed.sqlstate, "0A000", "{failed:?}");
    for statement in [
        "SELECT set_config('synchronous' || '_commit', 'off', false)",
        "DO $$ BEGIN PERFORM lowers(); END $$",
    ] {
        session.ask(statement).unwrap();
        assert_eq!(session.value("SHOW synchronous_commit"), "on", "{statement}");
        assert_eq!(session.aside().notices.last().unwrap(), RAISED, "{statement}");
    }
    let hasty = Session::open(&demo.front_end_uri("hasty", "hasty")).unwrap();
    assert_eq!(hasty.value("SHOW synchronous_commit"), "on");
    assert_eq!(hasty.aside().notices, Vec::<String>::new());

    // What a function hides is not seen in the statement, and its commits wait all the same.
    session.ask("SELECT lowers()").unwrap();
    let own = Session::open(uri).unwrap();
    let others = [
        (&session, "INSERT INTO t VALUES ('after lowers')"),
        (&own, "SELECT within()"),
        (&hasty, "INSERT INTO t VALUES ('hasty')"),
    ];
    let still = mirror_stands_still(demo);
    let sent = others.map(|(session, statement)| session.send(statement));
    until("all wait for the mirror", || waiting(demo) == "3");
    drop(still);
    for sent in sent {
        sent.answer().unwrap();
    }
    assert_eq!(session.value("SELECT count(*) FROM t WHERE x = 'never'"), "0");
}

fn warned(demo: &Demo, uri: &str) {
    let warnings = |session: &Session| {
        session.aside().notices.iter().filter(|notice| *notice == WARNING).count()
    };
    for (statement, lowered) in [
        ("SET synchronous_commit = off", "off"),
        ("BEGIN; SET LOCAL synchronous_commit = local; COMMIT", "on"),
        ("SELECT set_config('synchronous_commit', 'off', false)", "off"),
        ("SELECT set_config('synchronous' || '_commit', 'off', false)", "off"),
        ("DO $$ BEGIN SET synchronous_commit = off; END $$", "off"),
        ("DO $$ BEGIN PERFORM lowers(); END $$", "off"),
    ] {
        let session = Session::open(uri).unwrap();
        session.ask(statement).unwrap();
        assert_eq!(session.value("SHOW synchronous_commit"), lowered, "{statement}");
        session.ask("SET application_name = 'other'").unwrap();
        assert_eq!(warnings(&session), 1, "{statement}");
        session.ask("SET synchronous_commit = on").unwrap();
        session.ask("SET synchronous_commit = off").unwrap();
        assert_eq!(warnings(&session), 2, "again: {statement}");
    }
    let options = Session::open(&format!("{uri}?options=-csynchronous_commit%3Doff")).unwrap();
    let hasty = Session::open(&demo.front_end_uri("hasty", "hasty")).unwrap();
    for (session, value) in [(&options, "off"), (&hasty, "local")] {
        assert_eq!(session.value("SHOW synchronous_commit"), value);
        session.ask("SET application_name = 'other'").unwrap();
        assert_eq!(warnings(session), 1, "{value}");
    }
    let still = mirror_stands_still(demo);
    hasty.ask("INSERT INTO t VALUES ('it does not wait')").unwrap();
    drop(still);
}

/// How many commits wait for the mirror.
fn waiting(demo: &Demo) -> String {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    demo.judge("be1").value(waiting)
}

/// Until what is returned is dropped.
fn mirror_stands_still(demo: &Demo) -> Stopped {
    let sender = "SELECT pid FROM pg_stat_replication WHERE application_name = 'backstay_mirror'";
    Stopped::new(&demo.judge("be1").value(sender))
}

/// A program that ends with the test.
struct Held(Child);

impl Held {
    fn start(command: &mut Command) -> Held {
        Held(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn logical_replication_is_passed_to_the_principal_and_physical_is_not() {
    let demo = Demo::start("fe-replication", &["--profile", "standard"]);
    demo.wait_until_armed();
    for member in ["be2", "be1"] {
        let file = demo.place.path().join("demo").join(member).join("config.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let wanted = "[pool.settings]\nwal_level = \"logical\"";
        std::fs::write(&file, text.replace("[pool.settings]", wanted)).unwrap();
        demo.demo("restart", &[member]).expect(0);
        demo.wait_until_armed();
    }
    let principal = demo.pool()["principal"].as_str().unwrap().to_owned();
    demo.superuser(
        &principal,
        "CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'right'; \
         CREATE PUBLICATION everything FOR ALL TABLES",
    );
    let uri = demo.front_end_uri("replicator", "right");
    refuses(&demo, &uri, "replication=database", "the Front End passes no replication connections");
    demo.set_front_end(&[("replication", "\"pass\"")]);
    refuses(&demo, &uri, "replication=true", "physical replication from each other alone");
    let named = "replication=database&application_name=backstay_mirror";
    refuses(&demo, &uri, named, "must not begin with backstay_");

    let told = ask(&demo, &uri, "replication=database", "IDENTIFY_SYSTEM").expect(0);
    assert!(told.data.ends_with("|demo\n"), "{}", told.data);
    let slot = ["--slot", "s", "--create-slot", "-P", "pgoutput"];
    ended(recvlogical(&demo, &uri).args(slot)).expect(0);
    let said = demo.place.path().join("recvlogical.said");
    let mut receives = recvlogical(&demo, &uri);
    receives.args(["--slot", "s", "--start", "--no-loop", "-F", "1", "-f", "received"]);
    receives.args(["-o", "proto_version=1", "-o", "publication_names=everything"]);
    let mut receiver = Held::start(receives.stderr(File::create(&said).unwrap()));
    let session = Session::open(&crate::clients::front_end(&demo)).unwrap();
    session.ask("CREATE TABLE replicated (x text)").unwrap();
    session.ask("INSERT INTO replicated VALUES ('through the Front End')").unwrap();
    let received = demo.place.path().join("received");
    until("the change comes", || {
        let bytes = std::fs::read(&received).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("through the Front End")
    });

    let other = if principal == "be1" { "be2" } else { "be1" };
    demo.run(&["pool", "failover", "pool01", "--to", other]).expect(0);
    until("the replication connection ends", || receiver.0.try_wait().unwrap().is_some());
    let again = ask(&demo, &uri, "replication=database", "IDENTIFY_SYSTEM").expect(0);
    let timeline = |told: &Told| told.data.split('|').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(timeline(&again) > timeline(&told), "{told:?} {again:?}");
    assert_eq!(session.value("SELECT count(*) FROM replicated"), "1");
    assert_eq!(demo.front_end_status()["counters"]["sessions_ended"]["fault"], 0);
}

fn recvlogical(demo: &Demo, uri: &str) -> Command {
    let mut command = Command::new(format!("{PROGRAMS}/pg_recvlogical"));
    command.current_dir(demo.place.path()).args(["-d", uri]);
    command
}

/// Runs a replication command.
fn ask(demo: &Demo, uri: &str, parameters: &str, command: &str) -> Told {
    let mut psql = Command::new("psql");
    let psql = psql.args(["-X", "-A", "-t", "-c", command]).arg(format!("{uri}?{parameters}"));
    ended(psql.current_dir(demo.place.path()))
}

#[track_caller]
fn refuses(demo: &Demo, uri: &str, parameters: &str, words: &str) {
    let told = ask(demo, uri, parameters, "IDENTIFY_SYSTEM").expect(2);
    assert!(told.talk.contains(words), "{}", told.talk);
}
