//! From a fresh cluster to a serving pair and over: the whole path, with its times.

use std::time::{Duration, Instant};

use session::{Fact, MirrorSeen, Order, Term, Timeline};

use crate::rig::{Rig, eventually};

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
