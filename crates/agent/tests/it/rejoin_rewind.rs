//! What `pg_rewind` itself does, and why the way back is as it is (protocol, 3.5).

use rustix::process::Signal;

use crate::cluster::{Cluster, until};

const PROMOTE: &str = "SELECT pg_promote(true)";

/// A primary on timeline 2 and its standby; both have the same data so far.
async fn pair() -> (Cluster, Cluster) {
    let mut first = Cluster::new().with("synchronous_standby_names=");
    let mut second = first.stopped_copy().with("synchronous_standby_names=");
    let client = first.start().await;
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    let mirror = second.start_following(&first).await;
    until(&client, "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'").await;
    until(&mirror, "SELECT to_regclass('t') IS NOT NULL").await;
    (first, second)
}

fn rewind(target: &Cluster, source: &Cluster) -> (bool, String) {
    let instance = &target.instance;
    let out = instance
        .os_user
        .command(instance.program("pg_rewind"))
        .arg(format!("--target-pgdata={}", instance.data_dir.display()))
        .arg(format!("--source-server={}", source.conninfo(&instance.secret_file)))
        .arg("--no-ensure-shutdown")
        .output()
        .unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn major(cluster: &Cluster) -> u32 {
    let version = std::fs::read_to_string(cluster.instance.data_dir.join("PG_VERSION")).unwrap();
    version.trim().parse().unwrap()
}

#[tokio::test]
async fn pg_rewind_refuses_a_crashed_server_until_it_has_replayed_as_a_standby() {
    let (mut first, mut second) = pair().await;
    let promoted = second.sql().await;
    first.sql().await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    promoted.batch_execute(PROMOTE).await.unwrap();
    first.sql().await.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    first.stop(Signal::KILL);
    first.signal_standby();
    promoted.batch_execute("CHECKPOINT").await.unwrap();
    let (done, text) = rewind(&first, &second);
    assert!(!done && text.contains("target server must be shut down cleanly"), "{text}");

    let standby = first.start().await;
    until(&standby, "SELECT pg_is_in_recovery()").await;
    drop(standby);
    first.stop(Signal::INT);
    let (done, text) = rewind(&first, &second);
    assert!(done && !text.contains("no rewind required"), "{text}");
    second.stop(Signal::QUIT);
}

#[tokio::test]
async fn before_the_checkpoint_of_the_new_primary_pg_rewind_may_find_nothing_to_do() {
    let (mut first, second) = pair().await;
    let promoted = second.sql().await;
    // Without its checkpoint the control file of the promoted server stays as it was.
    promoted.batch_execute("CHECKPOINT").await.unwrap();
    let checkpointer: i32 = promoted
        .query_one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'", &[])
        .await
        .unwrap()
        .get(0);
    let checkpointer = crate::cluster::pid_of(u32::try_from(checkpointer).unwrap());
    rustix::process::kill_process(checkpointer, Signal::STOP).unwrap();
    promoted.batch_execute(PROMOTE).await.unwrap();
    promoted.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    first.sql().await.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    first.stop(Signal::INT);
    let (done, text) = rewind(&first, &second);
    let needless = done && text.contains("no rewind required");
    assert_eq!(needless, major(&first) < 16, "{text}");
    rustix::process::kill_process(checkpointer, Signal::CONT).unwrap();
    if needless {
        promoted.batch_execute("CHECKPOINT").await.unwrap();
        let (done, text) = rewind(&first, &second);
        assert!(done && !text.contains("no rewind required"), "{text}");
    }
}

/// Why timeline ids are owned: nothing but the id tells `pg_rewind` that the data differs.
#[tokio::test]
async fn two_promotions_to_one_timeline_look_like_one() {
    let (mut first, second) = pair().await;
    first.stop(Signal::INT);
    let promoted = second.sql().await;
    promoted.batch_execute(PROMOTE).await.unwrap();
    promoted.batch_execute("INSERT INTO t VALUES (2); CHECKPOINT").await.unwrap();
    first.signal_standby();
    let standby = first.start().await;
    standby.batch_execute(PROMOTE).await.unwrap();
    standby.batch_execute("INSERT INTO t VALUES (1); CHECKPOINT").await.unwrap();
    drop(standby);
    first.stop(Signal::INT);
    let (done, text) = rewind(&first, &second);
    assert!(done && text.contains("no rewind required"), "{text}");
}
