//! From a fresh cluster to a serving pair and over: the whole path, with its times.

use std::time::{Duration, Instant};

use session::{Fact, MirrorSeen, Order, Term, Timeline};

use crate::rig::{Rig, eventually, one};

#[tokio::test]
async fn a_pair_serves_mirrors_and_hands_over() {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let begun = Instant::now();
    let serving = first.serve_alone(2).await;
    eprintln!("served after {:?}", begun.elapsed());
    assert_eq!(serving.promotion.timeline, Timeline(2));
    second.drive().await;
    second.follow(&serving).await;
    first
        .wait("the mirror streams", |fact| match fact {
            Fact::MirrorSeen(MirrorSeen::Streaming { .. }) => Some(()),
            _ => None,
        })
        .await;
    first.order(Order::CloseGuard).await;
    first.until(Fact::GuardClosed).await;
    first
        .sql()
        .await
        .batch_execute("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let begun = Instant::now();
    first.order(Order::ShutDown { deadline: Duration::from_secs(5) }).await;
    let end = first
        .wait("shut down", |fact| match fact {
            Fact::ShutDown { position } => Some(position),
            Fact::ShutDownLate => panic!("late"),
            _ => None,
        })
        .await;
    eprintln!("shut down after {:?}", begun.elapsed());
    second
        .wait("the end of the shutdown checkpoint", |fact| match fact {
            Fact::PositionSeen { position } if position.lsn >= end.lsn => {
                assert_eq!(position, end);
                Some(())
            }
            _ => None,
        })
        .await;
    let begun = Instant::now();
    let next = second.promote(3).await;
    second.order(Order::CommitBarrier { promotion: next.promotion }).await;
    second.order(Order::OpenGuard).await;
    second.until(Fact::BarrierCommitted { term: Term(3) }).await;
    eprintln!("from preparing to the barrier {:?}", begun.elapsed());
    assert_eq!(next.promotion.timeline, Timeline(3));
    assert_eq!(next.promotion.fork, end);
    assert!(second.instance.standby_signal().exists());
    second.order(Order::AdmitClients { term: Term(3) }).await;
    eventually("a client is let in", async || {
        second.client("nobody").await.is_err_and(|text| text.contains("password"))
    })
    .await;
}

#[tokio::test]
async fn a_timeline_of_the_other_partner_is_skipped_and_a_used_one_is_refused() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    rig.run_alone(true).await;
    let (fork, _, newest) = rig.prepare(4).await;
    assert_eq!((fork.timeline, newest), (Timeline(2), Timeline(2)));
    for used in [1, 2] {
        let promote = Order::Promote { term: Term(4), timeline: Timeline(used), fork };
        rig.order(promote).await;
        rig.until(Fact::PromotionFailed { term: Term(4) }).await;
    }
    let wal = rig.instance.wal_dir();
    rig.order(Order::Promote { term: Term(4), timeline: Timeline(6), fork }).await;
    rig.wait("promoted", |fact| matches!(fact, Fact::Promoted { .. }).then_some(())).await;
    for (timeline, empty) in [(3, true), (4, true), (5, true), (6, false)] {
        let meta = std::fs::metadata(wal.join(format!("{timeline:08X}.history"))).unwrap();
        assert_eq!(meta.len() == 0, empty, "{timeline}");
    }
    let sql = rig.sql().await;
    let file = one(&sql, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    assert!(file.starts_with("00000006"), "{file}");
    // A later start finds its way over the skipped ids.
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    let (_, position) = rig.run_alone(true).await;
    assert_eq!(position.timeline, Timeline(6));
}

#[tokio::test]
async fn skipped_ids_of_a_promotion_that_never_happened_do_not_hinder_a_start() {
    let mut rig = Rig::new();
    rig.drive().await;
    let unused = rig.instance.wal_dir().join("00000002.history");
    std::fs::write(&unused, "").unwrap();
    rig.instance.os_user.own(&unused).unwrap();
    rig.run_alone(true).await;
    assert!(!unused.exists());
    assert_eq!(one(&rig.sql().await, "SELECT pg_is_in_recovery()").await, "t");
}

#[tokio::test]
async fn a_lone_commit_waits_until_the_guard_is_open() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.run_alone(true).await;
    let serving = rig.promote(2).await;
    rig.order(Order::CommitBarrier { promotion: serving.promotion }).await;
    let sql = rig.sql().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("the barrier waits", async || one(&sql, waits).await == "1").await;
    // A transaction without WAL is no barrier: it does not wait.
    sql.batch_execute("BEGIN; SELECT 1; COMMIT").await.unwrap();
    // A wait that is cancelled ends as success, with a warning only. It must not count.
    let mut last = "-infinity".to_owned();
    for cancelled in ["pg_cancel_backend(pid)", "pg_cancel_backend(pid)", "NULL"] {
        // One that was cancelled is still to be seen for a moment: the next one began later.
        eventually("the barrier waits anew", async || {
            let query = format!(
                "SELECT query_start::text, {cancelled} FROM pg_stat_activity \
                 WHERE wait_event = 'SyncRep' AND query_start > '{last}'"
            );
            let row = sql.query_opt(&query, &[]).await.unwrap();
            row.map(|row| last = row.get(0)).is_some()
        })
        .await;
    }
    let committed = Fact::BarrierCommitted { term: Term(2) };
    assert!(!rig.facts_so_far().contains(&committed));
    let begun = Instant::now();
    rig.order(Order::OpenGuard).await;
    rig.until(committed).await;
    eprintln!("the barrier is committed {:?} after the order to open", begun.elapsed());
    rig.order(Order::CloseGuard).await;
    rig.until(Fact::GuardClosed).await;
    let waiting = sql.batch_execute("CREATE TABLE t (i int)");
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
}

#[tokio::test]
async fn a_primary_reads_a_position_that_covers_every_commit() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    let sql = rig.sql().await;
    sql.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    let lsn = one(&sql, "SELECT pg_current_wal_flush_lsn() - '0/0'").await.parse::<u64>().unwrap();
    rig.order(Order::ReadPosition { number: 7 }).await;
    let read = rig
        .wait("the position", |fact| match fact {
            Fact::PositionRead { number: 7, position } => Some(position),
            _ => None,
        })
        .await;
    assert_eq!(read.timeline, Timeline(2));
    assert!(read.lsn.0 >= lsn);
    let flushed = one(&sql, "SELECT pg_current_wal_flush_lsn() - '0/0'").await;
    assert!(flushed.parse::<u64>().unwrap() >= read.lsn.0, "it is flushed by then");
}

#[tokio::test]
async fn a_standby_that_cannot_open_is_promoted_with_an_unknown_boundary() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    let open = rig.sql().await;
    open.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    open.batch_execute("BEGIN").await.unwrap();
    for i in 0..80 {
        open.batch_execute(&format!("SAVEPOINT s{i}; INSERT INTO t VALUES ({i})")).await.unwrap();
    }
    // The snapshot for standbys in this checkpoint does not hold all subtransactions.
    rig.sql().await.batch_execute("CHECKPOINT").await.unwrap();
    rig.sql().await.batch_execute("CREATE TABLE u AS SELECT 1 AS i").await.unwrap();
    rig.facts_so_far();
    let postmaster = rig.postmaster().unwrap().cast_signed();
    let postmaster = rustix::process::Pid::from_raw(postmaster).unwrap();
    rustix::process::kill_process(postmaster, rustix::process::Signal::KILL).unwrap();
    rig.until(Fact::Exited).await;
    let begun = Instant::now();
    let (_, position) = rig.run_alone(true).await;
    eprintln!("found to be mute after {:?}", begun.elapsed());
    let next = rig.promote(4).await;
    eprintln!("promoted after {:?}", begun.elapsed());
    assert_eq!(next.promotion.boundary, session::Boundary::Unknown);
    assert_eq!(next.promotion.fork, position);
    rig.order(Order::OpenGuard).await;
    rig.order(Order::CommitBarrier { promotion: next.promotion }).await;
    rig.until(Fact::BarrierCommitted { term: Term(4) }).await;
    let sql = rig.sql().await;
    assert_eq!(one(&sql, "SELECT (SELECT count(*) FROM t) + (SELECT i FROM u)").await, "1");
}

/// The receiver begins a new timeline at the beginning of a segment. Ended there, it leaves less
/// than the old timeline's segment holds.
#[tokio::test]
async fn a_mirror_that_had_just_begun_a_new_timeline_starts_and_is_promoted() {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let fork = first.serve_alone(2).await.promotion.fork;
    let history = first.instance.wal_dir().join("00000002.history");
    let wal = second.instance.wal_dir();
    std::fs::copy(history, wal.join("00000002.history")).unwrap();
    let mut segment = std::fs::read(wal.join("000000010000000000000001")).unwrap();
    segment[8192..].fill(0);
    let begun = wal.join("000000020000000000000001");
    std::fs::write(&begun, segment).unwrap();
    for file in ["00000002.history", "000000020000000000000001"] {
        second.instance.os_user.own(&wal.join(file)).unwrap();
    }
    second.drive().await;
    let (_, position) = second.run_alone(true).await;
    assert_eq!((position.timeline, position.lsn), (Timeline(2), fork.lsn));
    let serving = second.promote(3).await;
    assert_eq!((serving.promotion.fork, serving.promotion.timeline), (position, Timeline(3)));
}
