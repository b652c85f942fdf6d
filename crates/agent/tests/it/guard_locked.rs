//! A transaction that waits for the mirror can hold locks that stop log-ins and every view over
//! `pg_authid`. Nothing that the agent does may need them.

use session::{Ailment, Fact, MirrorSeen, Order};

use crate::cluster::until;
use crate::rig::{Rig, Serving, eventually};

const LOCKS: &str = "BEGIN; LOCK TABLE pg_authid, pg_database IN ACCESS EXCLUSIVE MODE; \
                     INSERT INTO t VALUES (1); COMMIT";
const WAITS: &str =
    "SELECT count(*) = 1 FROM pg_stat_get_activity(NULL) WHERE wait_event = 'SyncRep'";

fn away(fact: Fact) -> Option<()> {
    match fact {
        Fact::MirrorSeen(MirrorSeen::Away) => Some(()),
        Fact::Unhealthy(Ailment::Unresponsive) => panic!("the probe hangs on the lock"),
        _ => None,
    }
}

#[tokio::test]
async fn a_principal_sees_its_mirror_and_exposes_itself_behind_a_locked_catalogue() {
    let mut first = Rig::new();
    first.drive().await;
    first.serve_alone(2).await;
    let client = first.sql().await;
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    first.order(Order::CloseGuard).await;
    first.until(Fact::GuardClosed).await;
    // The probe knows its role again: a session whose caches were just emptied has to read
    // `pg_authid` once, whatever it asks.
    for _probe in 0..3 {
        first.wait("a probe", away).await;
    }
    let writer = first.sql().await;
    let commit = tokio::spawn(async move { writer.batch_execute(LOCKS).await });
    until(&client, WAITS).await;
    first.facts_so_far();
    for _probe in 0..20 {
        first.wait("a probe", away).await;
    }
    first.order(Order::OpenGuard).await;
    first.until(Fact::GuardOpened).await;
    commit.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_mirror_promotes_although_its_principal_died_with_the_catalogue_locked() {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let serving: Serving = first.serve_alone(2).await;
    let client = first.sql().await;
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    second.drive().await;
    second.follow(&serving).await;
    let replica = second.sql().await;
    let open = "BEGIN; LOCK TABLE pg_authid, pg_database IN ACCESS EXCLUSIVE MODE; \
                INSERT INTO t VALUES (1); SELECT pg_switch_wal()";
    client.batch_execute(open).await.unwrap();
    let locked = "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' \
                  AND relation = 1260";
    eventually("the lock is on the standby", async || {
        replica.query_one(locked, &[]).await.unwrap().get(0)
    })
    .await;
    first.order(Order::Stop).await;
    first.until(Fact::Stopped).await;
    second.promote(3).await;
}
