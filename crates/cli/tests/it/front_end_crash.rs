//! What clients of a Front End are told, and what they find again, when the principal hands over
//! and when it crashes. Commits that are in doubt are made so on purpose: the link to the mirror
//! stands still, on one end or the other, so that their fate is known to the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_postgres::Statement;

use crate::front_end::{Failed, Rows, Sent, Session, Stopped, fails, runtime, until};
use crate::stage::Demo;

#[test]
fn clients_are_told_the_truth_about_a_failover_and_find_their_sessions_again() {
    // The mirror stands still for a moment, which the other profiles would not wait for.
    let demo = Demo::start("fe-crash", &["--profile", "tolerant"]);
    demo.wait_until_armed();
    let uri = crate::clients::front_end(&demo);
    demo.superuser("be1", "CREATE ROLE clerk; GRANT clerk TO demo");
    demo.make_judge("be1");
    let tables = "CREATE TABLE t (x text); CREATE TABLE u (x text); INSERT INTO u VALUES ('read')";
    Session::open(&uri).unwrap().ask(tables).unwrap();
    nobody_sees_a_manual_failover(&demo, &uri);
    demo.wait_until_armed();

    let other = Session::open(&uri).unwrap();
    let lasting = Lasting::begin(&uri);
    let bound = bound_to_their_server(&uri);
    let under_way = UnderWay::begin(&demo, &uri);
    let judge = demo.judge("be2");
    let sender = judge.value("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'");
    let doubt = Doubt::begin(&judge, &uri, "lost", &sender);
    demo.demo("kill", &["be2"]).expect(0);
    // Who is known can log in while nobody serves, and who is not learns of it when somebody does.
    let late = Session::open(&uri).unwrap();
    let held = late.send("INSERT INTO t VALUES ('held')");
    assert_eq!(
        Session::open(&demo.front_end_uri("demo", "wrong")).err().unwrap().sqlstate,
        "28P01"
    );
    let unknown = Session::open(&demo.front_end_uri("nobody", "wrong")).err().unwrap();
    assert_eq!(unknown.sqlstate, "28P01", "{unknown:?}");
    demo.wait("be1 serves", |pool| pool["principal"] == "be1");
    held.answer().unwrap();
    assert_eq!(late.value("SELECT count(*) FROM t WHERE x = 'held'"), "1");
    doubt.was_lost();
    under_way.was_cut_off_or_repeated();
    lasting.is_there_again(&other);
    for (session, reason) in bound {
        let failed = session.ended();
        assert_eq!(failed.sqlstate, "57P01", "{reason}: {failed:?}");
        assert!(failed.message.contains(reason), "{failed:?}");
    }
    assert_eq!(other.value("SELECT count(*) FROM t WHERE x = 'cut'"), "0");

    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
    let receiver = "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    let receiver = demo.superuser("be2", receiver);
    let doubt = Doubt::begin(&demo.judge("be1"), &uri, "kept", &receiver);
    demo.demo("kill", &["be1"]).expect(0);
    doubt.was_kept(&demo);
    assert_eq!(demo.front_end_status()["counters"]["sessions_ended"]["fault"], 0);
}

/// Sessions that write all the time, each in one of three ways.
const WRITERS: usize = 20;

fn nobody_sees_a_manual_failover(demo: &Demo, uri: &str) {
    let (end, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let session = Session::open(uri).unwrap();
            runtime().spawn(write(session, number, Arc::clone(&end), Arc::clone(&count)))
        })
        .collect();
    let goes_on = |what| {
        let before = count.load(Ordering::SeqCst);
        until(what, || count.load(Ordering::SeqCst) > before + 10 * WRITERS);
    };
    goes_on("they write at the start");
    demo.run(&["pool", "failover", "pool01", "--to", "be2"]).expect(0);
    goes_on("they write after the failover");
    end.store(true, Ordering::SeqCst);
    for writer in writers {
        runtime().block_on(writer).unwrap().unwrap();
    }
    let acknowledged = count.load(Ordering::SeqCst).to_string();
    let there = Session::open(uri).unwrap().value("SELECT count(*) FROM t WHERE x = 'manual'");
    assert_eq!(there, acknowledged);
}

async fn write(
    session: Session,
    number: usize,
    end: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> Result<(), Failed> {
    let client = session.client();
    while !end.load(Ordering::SeqCst) {
        match number % 3 {
            0 => drop(client.simple_query("INSERT INTO t VALUES ('manual')").await?),
            1 => drop(client.query_typed("INSERT INTO t VALUES ('manual')", &[]).await?),
            _ => {
                client.simple_query("BEGIN").await?;
                client.simple_query("INSERT INTO t VALUES ('manual')").await?;
                client.simple_query("COMMIT").await?;
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// A client session with everything that a failover must carry over.
struct Lasting {
    session: Session,
    prepared: Statement,
    clerk: Session,
}

impl Lasting {
    fn begin(uri: &str) -> Lasting {
        let session = Session::open(uri).unwrap();
        for statement in [
            "SET app.user_id = '42'",
            "SET search_path = pg_catalog, \"My Schema\"",
            "SET work_mem = '7MB'",
            "BEGIN; SET lock_timeout = '5s'; COMMIT",
            "BEGIN; SET statement_timeout = '55s'; ROLLBACK",
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '66s'; COMMIT",
            "SELECT set_config('app.tenant', 'it''s \\ mine', false)",
            "PREPARE doubled (int) AS SELECT $1 * 2",
            "PREPARE gone AS SELECT 1",
            "DEALLOCATE gone",
            "LISTEN news; LISTEN \"Odd name\"; LISTEN old; UNLISTEN old",
        ] {
            session.ask(statement).unwrap();
        }
        let prepared = session.prepare("SELECT current_setting('app.user_id') || '!'");
        let clerk = Session::open(uri).unwrap();
        clerk.ask("SET ROLE clerk").unwrap();
        Lasting { session, prepared, clerk }
    }

    fn is_there_again(&self, other: &Session) {
        let session = &self.session;
        for (name, value) in [
            ("app.user_id", "42"),
            ("app.tenant", "it's \\ mine"),
            ("search_path", "pg_catalog, \"My Schema\""),
            ("work_mem", "7MB"),
            ("lock_timeout", "5s"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ] {
            assert_eq!(session.value(&format!("SHOW {name}")), value, "{name}");
        }
        assert_eq!(session.value("EXECUTE doubled (21)"), "42");
        session.fails("EXECUTE gone", "26000");
        assert_eq!(session.execute(&self.prepared).unwrap(), "42!");
        for channel in ["news", "\"Odd name\"", "old"] {
            other.ask(&format!("NOTIFY {channel}, '{}'", channel.trim_matches('"'))).unwrap();
        }
        session.ask("SELECT 1").unwrap();
        let heard = || session.aside().notifications;
        until("the notifications come", || heard() == ["news", "Odd name"]);
        assert_eq!(self.clerk.value("SELECT current_user"), "clerk");
        self.clerk.ask("RESET ROLE").unwrap();
        assert_eq!(self.clerk.value("SELECT current_user"), "demo");
        session.ask("RESET ALL").unwrap();
        assert_eq!(session.value("SHOW work_mem"), "4MB");
        let lost = "notifications may have been lost in a failover".to_owned();
        assert!(session.aside().notices.contains(&lost), "{:?}", session.aside());
    }
}

/// Client sessions with something that no other server can be given, and what it is.
fn bound_to_their_server(uri: &str) -> Vec<(Session, &'static str)> {
    let all = [
        ("CREATE TEMP TABLE mine (x int)", "temporary tables"),
        ("SELECT 1 AS x INTO TEMPORARY mine", "temporary tables"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "WITH HOLD"),
        ("SELECT pg_advisory_lock(7)", "advisory locks"),
        ("DO $$ BEGIN PERFORM pg_try_advisory_lock(8); END $$", "advisory locks"),
    ];
    let begun = all.into_iter().map(|(statement, reason)| {
        let session = Session::open(uri).unwrap();
        session.ask(statement).unwrap();
        assert_eq!(session.value("SELECT 1"), "1");
        (session, reason)
    });
    begun.collect()
}

/// What is under way when the principal is killed.
struct UnderWay {
    idle: Session,
    idle_extended: Session,
    busy: Session,
    busy_sent: Sent,
    failed: Session,
    /// Holds up the reads and writes.
    locker: Session,
    reads: Vec<(Session, Sent)>,
    writes: Vec<(Session, Sent)>,
}

impl UnderWay {
    fn begin(demo: &Demo, uri: &str) -> UnderWay {
        let open = || Session::open(uri).unwrap();
        let transaction = || {
            let session = open();
            session.ask("BEGIN").unwrap();
            session.ask("INSERT INTO t VALUES ('cut')").unwrap();
            session
        };
        let (idle, idle_extended, busy) = (transaction(), transaction(), transaction());
        let busy_sent = busy.send("SELECT pg_sleep(600)");
        let failed = transaction();
        failed.fails("SELECT 1/0", "22012");
        let locker = transaction();
        locker.ask("LOCK TABLE u").unwrap();
        let begin = |statement: &str| {
            let (one, two) = (open(), open());
            let (simple, extended) = (one.send(statement), two.send_extended(statement, &[]));
            vec![(one, simple), (two, extended)]
        };
        let reads = begin("SELECT x FROM u WHERE x = 'read'");
        let writes = begin("INSERT INTO u VALUES ('written')");
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE wait_event = 'PgSleep' OR wait_event_type = 'Lock'";
        until("they wait", || demo.superuser("be2", waiting) == "5");
        UnderWay { idle, idle_extended, busy, busy_sent, failed, locker, reads, writes }
    }

    fn was_cut_off_or_repeated(self) {
        let cut = |answer: Result<Rows, Failed>| {
            let told = fails("a transaction cut off", answer, "40001");
            assert_eq!(told.message, "the transaction was cut off by a failover before its commit");
        };
        cut(self.busy_sent.answer());
        cut(self.idle.ask("INSERT INTO t VALUES ('cut')"));
        cut(self.idle_extended.ask_extended("INSERT INTO t VALUES ($1)", &["cut"]));
        for session in [&self.busy, &self.idle, &self.failed] {
            session.fails("SELECT 1", "25P02");
            session.ask("ROLLBACK").unwrap();
            assert_eq!(session.value("SELECT 1"), "1");
        }
        fails("extended", self.idle_extended.ask_extended("SELECT 1::text", &[]), "25P02");
        self.idle_extended.ask("COMMIT").unwrap();
        cut(self.locker.ask("SELECT 1"));
        for (session, sent) in self.reads {
            assert_eq!(sent.answer().unwrap(), [[Some("read".to_owned())]]);
            assert_eq!(session.value("SELECT 1"), "1");
        }
        for (session, sent) in self.writes {
            sent.answer().unwrap();
            assert_eq!(session.value("SELECT 1"), "1");
        }
        assert_eq!(self.idle.value("SELECT count(*) FROM u WHERE x = 'written'"), "2");
        self.idle.ask("BEGIN; INSERT INTO t VALUES ('anew'); COMMIT").unwrap();
    }
}

/// Commits that wait for the mirror, each sent in another way.
struct Doubt {
    mark: &'static str,
    still: Option<Stopped>,
    alone: Vec<(Session, Sent)>,
    in_transactions: Vec<(Session, Sent)>,
}

impl Doubt {
    /// `link` is the process on which the mirror's answers depend. It must not stand still for
    /// long: the pool would agree to go on without its mirror.
    fn begin(judge: &Session, uri: &str, mark: &'static str, link: &str) -> Doubt {
        let insert = format!("INSERT INTO t VALUES ('{mark}')");
        let open = || Session::open(uri).unwrap();
        let (alone, within) = ([open(), open()], [open(), open()]);
        for session in alone.iter().chain(&within) {
            session.ask("SELECT 1").unwrap();
        }
        for session in &within {
            session.ask("BEGIN").unwrap();
            session.ask(&insert).unwrap();
        }
        let prepared = [alone[1].prepare(&insert), within[1].prepare("COMMIT")];
        let still = Some(Stopped::new(link));
        let both = |sessions: [Session; 2], simple: &str, prepared: &Statement| {
            let [one, two] = sessions;
            let (simple, extended) = (one.send(simple), two.send_prepared(prepared));
            vec![(one, simple), (two, extended)]
        };
        let alone = both(alone, &insert, &prepared[0]);
        let in_transactions = both(within, "COMMIT", &prepared[1]);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        until("all wait for the mirror", || judge.value(waiting) == "4");
        Doubt { mark, still, alone, in_transactions }
    }

    /// The mirror never got them: those that can be repeated were, the others are told.
    fn was_lost(self) {
        drop(self.still);
        for (session, sent) in self.alone {
            sent.answer().unwrap();
            assert_eq!(session.value("SELECT 1"), "1");
        }
        let mut last = None;
        for (session, sent) in self.in_transactions {
            let told = fails("COMMIT", sent.answer(), "40001");
            assert!(told.message.contains("was not committed"), "{told:?}");
            last = Some(session);
        }
        let there = format!("SELECT count(*) FROM t WHERE x = '{}'", self.mark);
        assert_eq!(last.unwrap().value(&there), "2", "each of those that were repeated, once");
    }

    /// The mirror had received them, without having said so.
    fn was_kept(mut self, demo: &Demo) {
        drop(self.still.take());
        demo.wait("be2 serves", |pool| pool["principal"] == "be2");
        let mut last = None;
        let ways = ["simple", "extended", "simple COMMIT", "extended COMMIT"];
        let all = self.alone.into_iter().chain(self.in_transactions);
        for ((session, sent), way) in all.zip(ways) {
            let answer = sent.answer();
            assert!(answer.is_ok(), "{way}: {answer:?}");
            last = Some(session);
        }
        let there = format!("SELECT count(*) FROM t WHERE x = '{}'", self.mark);
        assert_eq!(last.unwrap().value(&there), "4", "all of them, once");
    }
}
