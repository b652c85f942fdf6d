//! The fence: a commit is acknowledged if and only if the mirror has flushed it, or the guard is
//! open (protocol, 3.2).

use std::time::{Duration, Instant};

use agent::postgres::guard::{Guard, GuardEvent};
use rustix::process::{Signal, kill_process};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::cluster::{Cluster, pid_of, until};

/// Asks the function behind `pg_stat_activity`: the view reads `pg_authid`, which a waiting commit
/// can hold locked.
const WAITS: &str =
    "SELECT count(*) = 1 FROM pg_stat_get_activity(NULL) WHERE wait_event = 'SyncRep'";

async fn event(guard: &mut Guard) -> GuardEvent {
    tokio::time::timeout(Duration::from_secs(10), guard.event()).await.unwrap()
}

async fn ready(guard: &mut Guard) {
    tokio::time::timeout(Duration::from_secs(10), guard.ready()).await.unwrap();
}

/// Writes a row in a client of its own, in the background.
async fn write(cluster: &Cluster, sql: &'static str) -> JoinHandle<()> {
    let client = cluster.sql().await;
    tokio::spawn(async move { client.batch_execute(sql).await.unwrap() })
}

async fn returns(commit: JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(10), commit).await.unwrap().unwrap();
}

async fn with_table(cluster: &mut Cluster) -> Client {
    let client = cluster.start().await;
    let table = "SET synchronous_commit = local; CREATE TABLE t (n int)";
    client.batch_execute(table).await.unwrap();
    client
}

#[tokio::test]
async fn a_lone_commit_waits_unless_the_guard_is_open() {
    let mut cluster = Cluster::new();
    let client = with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    ready(&mut guard).await;

    let commit = write(&cluster, "INSERT INTO t VALUES (1)").await;
    until(&client, WAITS).await;
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    returns(commit).await;
    returns(write(&cluster, "INSERT INTO t VALUES (2)").await).await;

    // remote_apply waits for the applied position, which a receiver of WAL need not send.
    let applied = "SET synchronous_commit = remote_apply; INSERT INTO t VALUES (3)";
    returns(write(&cluster, applied).await).await;

    guard.close();
    assert_eq!(event(&mut guard).await, GuardEvent::Closed);
    let commit = write(&cluster, "INSERT INTO t VALUES (4)").await;
    until(&client, WAITS).await;
    assert!(!commit.is_finished());
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    returns(commit).await;

    // Without its agent a lone principal acknowledges nothing.
    drop(guard);
    let gone =
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'backstay_exposed'";
    until(&client, gone).await;
    let commit = write(&cluster, "INSERT INTO t VALUES (5)").await;
    until(&client, WAITS).await;
    assert!(!commit.is_finished());
}

#[tokio::test]
async fn the_guard_opens_while_a_waiting_commit_stops_every_log_in() {
    let mut cluster = Cluster::new();
    let client = with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    ready(&mut guard).await;
    for _round in 0..2 {
        let commit = write(
            &cluster,
            "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE; \
             INSERT INTO t VALUES (1); COMMIT",
        )
        .await;
        until(&client, WAITS).await;
        let log_in = tokio::time::timeout(Duration::from_millis(300), cluster.try_sql()).await;
        assert!(log_in.is_err(), "the lock does not stop log-ins");
        guard.open();
        assert_eq!(event(&mut guard).await, GuardEvent::Opened);
        returns(commit).await;
        // The next spare is there before the guard closes, so a second time works as well.
        ready(&mut guard).await;
        guard.close();
        assert_eq!(event(&mut guard).await, GuardEvent::Closed);
    }
}

#[tokio::test]
async fn a_guard_counts_as_closed_only_when_its_walsender_is_gone() {
    let mut cluster = Cluster::new();
    let client = with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    let find = "SELECT pid FROM pg_stat_replication \
                WHERE application_name = 'backstay_exposed' AND state = 'streaming'";
    let walsender: i32 = client.query_one(find, &[]).await.unwrap().get(0);
    let walsender = pid_of(u32::try_from(walsender).unwrap());
    kill_process(walsender, Signal::STOP).unwrap();

    let before = Instant::now();
    guard.close();
    assert!(before.elapsed() < Duration::from_secs(5), "a hung server blocks the caller");
    let early = tokio::time::timeout(Duration::from_millis(400), guard.event()).await;
    assert!(early.is_err(), "closed although its walsender lives");
    kill_process(walsender, Signal::CONT).unwrap();
    assert_eq!(event(&mut guard).await, GuardEvent::Closed);
}

#[tokio::test]
async fn a_guard_that_breaks_says_so_and_opens_again() {
    let mut cluster = Cluster::new();
    let client = with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE state = 'streaming'";
    client.query(end, &[]).await.unwrap();
    assert_eq!(event(&mut guard).await, GuardEvent::Lost);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    returns(write(&cluster, "INSERT INTO t VALUES (1)").await).await;

    // Without a server there is nothing to open, and the answer comes all the same.
    cluster.stop(Signal::QUIT);
    assert_eq!(event(&mut guard).await, GuardEvent::Lost);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Lost);
    guard.close();
    assert_eq!(event(&mut guard).await, GuardEvent::Closed);
}

#[tokio::test]
async fn behind_a_lagging_mirror_commits_wait_again_when_the_guard_is_closed() {
    let mut principal = Cluster::new();
    let mut mirror = principal.stopped_copy();
    let client = with_table(&mut principal).await;
    let mirror_sql = mirror.start_following(&principal).await;
    let streams = "SELECT count(*) = 1 FROM pg_stat_replication \
                   WHERE application_name = 'backstay_mirror' AND state = 'streaming'";
    until(&client, streams).await;
    returns(write(&principal, "INSERT INTO t VALUES (1)").await).await;

    let receiver: i32 =
        mirror_sql.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.unwrap().get(0);
    let receiver = pid_of(u32::try_from(receiver).unwrap());
    kill_process(receiver, Signal::STOP).unwrap();
    let mut guard = Guard::spawn(&principal.instance);
    ready(&mut guard).await;
    let commit = write(&principal, "INSERT INTO t VALUES (2)").await;
    until(&client, WAITS).await;
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    returns(commit).await;

    guard.close();
    assert_eq!(event(&mut guard).await, GuardEvent::Closed);
    let commit = write(&principal, "INSERT INTO t VALUES (3)").await;
    until(&client, WAITS).await;
    kill_process(receiver, Signal::CONT).unwrap();
    returns(commit).await;
}

#[tokio::test]
async fn the_guard_keeps_up_with_a_large_transaction() {
    let mut cluster = Cluster::new();
    with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    let large = "INSERT INTO t SELECT n FROM generate_series(1, 300000) n";
    returns(write(&cluster, large).await).await;
}

/// What the guard costs each commit of a lone principal: interleaved, because the machine is busy.
#[tokio::test]
async fn a_commit_through_the_guard_costs_little_more_than_one_without_waiting() {
    const COMMITS: u32 = 200;
    let mut cluster = Cluster::new();
    let client = with_table(&mut cluster).await;
    let mut guard = Guard::spawn(&cluster.instance);
    guard.open();
    assert_eq!(event(&mut guard).await, GuardEvent::Opened);
    let mut spent = [Duration::ZERO; 2];
    for _round in 0..5 {
        for (mode, spent) in ["local", "on"].iter().zip(&mut spent) {
            client.batch_execute(&format!("SET synchronous_commit = {mode}")).await.unwrap();
            let begun = Instant::now();
            for _commit in 0..COMMITS / 5 {
                client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
            }
            *spent += begun.elapsed();
        }
    }
    let [local, guarded] = spent.map(|spent| spent / COMMITS);
    eprintln!("a commit takes {local:?} without waiting, {guarded:?} through the guard");
    assert!(guarded < local * 5 + Duration::from_millis(5));
}
