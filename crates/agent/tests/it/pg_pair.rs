//! Two servers: what each sees of the other, and a failover after a crash, with its times.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use session::{Fact, MirrorSeen, Order, Partner, Term};

use crate::rig::{Rig, Serving, one};

/// A principal and its streaming mirror; the guard is closed.
async fn pair() -> (Rig, Rig, Serving) {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let serving = first.serve_alone(2).await;
    second.drive().await;
    second.follow(&serving).await;
    streams(&mut first).await;
    first.order(Order::CloseGuard).await;
    first.until(Fact::GuardClosed).await;
    (first, second, serving)
}

async fn streams(principal: &mut Rig) {
    principal
        .wait("the mirror streams", |fact| match fact {
            Fact::MirrorSeen(MirrorSeen::Streaming { .. }) => Some(()),
            _ => None,
        })
        .await;
}

fn kill(number: &str, signal: Signal) {
    kill_process(Pid::from_raw(number.parse().unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn both_sides_see_the_loss_of_the_stream_at_once_and_it_comes_back() {
    let (mut first, mut second, serving) = pair().await;
    let term = serving.promotion.term;
    let sql = second.sql().await;
    let receiver = one(&sql, "SELECT pid FROM pg_stat_wal_receiver").await;
    first.facts_so_far();
    second.facts_so_far();
    let begun = Instant::now();
    // A killed child takes its whole server down: only ended, it comes back.
    kill(&receiver, Signal::TERM);
    second.until(Fact::StreamLost { term }).await;
    eprintln!("the mirror saw it after {:?}", begun.elapsed());
    first.until(Fact::MirrorSeen(MirrorSeen::Away)).await;
    eprintln!("the principal saw it after {:?}", begun.elapsed());
    second.wait("streaming", |fact| matches!(fact, Fact::Streaming { .. }).then_some(())).await;
    streams(&mut first).await;
    eprintln!("it streams again after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_mirror_may_be_read_until_its_promotion_and_loses_its_own_slot() {
    let (first, mut second, _serving) = pair().await;
    first
        .sql()
        .await
        .batch_execute("CREATE ROLE app LOGIN PASSWORD 'client'; CREATE TABLE t AS SELECT 7 AS i")
        .await
        .unwrap();
    let mut opened = None;
    crate::rig::eventually("a reader is let in", async || {
        opened = second.client("app").await.ok();
        opened.is_some()
    })
    .await;
    let reader = opened.unwrap();
    assert_eq!(one(&reader, "SELECT 1").await, "1");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(one(&second.sql().await, slots).await, "0");
    let active = "SELECT slot_name FROM pg_replication_slots WHERE active";
    assert_eq!(one(&first.sql().await, active).await, "backstay_mirror");
    second.prepare(3).await;
    assert!(reader.simple_query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_crash_hands_over_with_every_commit_and_the_former_principal_returns() {
    let (mut first, mut second, _serving) = pair().await;
    let sql = first.sql().await;
    sql.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    for i in 0..20 {
        sql.batch_execute(&format!("INSERT INTO t VALUES ({i})")).await.unwrap();
    }
    first.facts_so_far();
    let begun = Instant::now();
    kill(&first.postmaster().unwrap().to_string(), Signal::KILL);
    first.until(Fact::Exited).await;
    eprintln!("exit seen after {:?}", begun.elapsed());
    let next = second.promote(3).await;
    eprintln!("promoted after {:?}", begun.elapsed());
    second.order(Order::CommitBarrier { promotion: next.promotion }).await;
    second.order(Order::OpenGuard).await;
    second.until(Fact::BarrierCommitted { term: Term(3) }).await;
    eprintln!("established after {:?}", begun.elapsed());
    second.order(Order::AdmitClients { term: Term(3) }).await;
    second.until(Fact::Checkpointed { term: Term(3) }).await;
    assert_eq!(one(&second.sql().await, "SELECT count(*) FROM t").await, "20");
    // The way back: a rewind if the crash left something that the mirror had not received.
    let (term, timeline) = (Term(3), next.promotion.timeline);
    let order = Order::Follow { term, upstream: Partner::Second, timeline, own: None };
    let begun = Instant::now();
    first.order(order).await;
    loop {
        let seen = first
            .wait("the way back", |fact| match fact {
                Fact::TouchNeeded { .. } => Some(false),
                Fact::Streaming { .. } => Some(true),
                _ => None,
            })
            .await;
        if seen {
            break;
        }
        first.order(Order::Touch { term }).await;
    }
    eprintln!("back after {:?}", begun.elapsed());
    streams(&mut second).await;
    second.order(Order::CloseGuard).await;
    second.until(Fact::GuardClosed).await;
    second.sql().await.batch_execute("INSERT INTO t VALUES (20)").await.unwrap();
}

#[tokio::test]
async fn a_principal_of_another_major_version_is_refused() {
    let (first, mut second, _serving) = pair().await;
    second.order(Order::Stop).await;
    second.until(Fact::Stopped).await;
    let upstream =
        agent::postgres::Upstream { host: "127.0.0.1".to_owned(), port: first.instance.port };
    let connection = agent::postgres::pairing::connect(&second.instance, &upstream).await.unwrap();
    let refused = agent::postgres::pairing::check_major(13, &connection).await.unwrap_err();
    assert!(refused.to_string().contains("this server PostgreSQL 13"), "{refused}");
    let own = first.sql_connection().await;
    let major = agent::postgres::Version::of_programs(&first.instance.bin_dir).unwrap().major;
    agent::postgres::pairing::check_collations(major, &own, &connection).await.unwrap();
}
