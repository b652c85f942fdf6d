//! A mirror whose agent is restarted, and one whose PostgreSQL does not start: neither loses the
//! way back, and no good copy is thrown away.

use session::{Fact, Found, MirrorSeen, Order, Touch};

use crate::rig::{Rig, Serving, eventually, one};

/// A principal and its streaming mirror, which has the table `t`; the guard is open.
async fn pair() -> (Rig, Rig, Serving) {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let serving = first.serve_alone(2).await;
    first.sql().await.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    second.drive().await;
    second.follow(&serving).await;
    (first, second, serving)
}

/// What the principal commits waits for the mirror, and comes to be read there.
async fn mirrored(first: &mut Rig, second: &Rig) {
    first
        .wait("the mirror streams", |fact| match fact {
            Fact::MirrorSeen(MirrorSeen::Streaming { .. }) => Some(()),
            _ => None,
        })
        .await;
    first.order(Order::CloseGuard).await;
    first.until(Fact::GuardClosed).await;
    first.sql().await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let mirror = second.sql().await;
    eventually("the mirror has replayed", async || {
        one(&mirror, "SELECT count(*) FROM t WHERE i = 1").await == "1"
    })
    .await;
}

#[tokio::test]
async fn a_restarted_agent_of_a_streaming_mirror_follows_on() {
    let (mut first, mut second, serving) = pair().await;
    let receiver = "SELECT pid FROM pg_stat_wal_receiver";
    let before = one(&second.sql().await, receiver).await;
    second.drop_driver();
    // Without its agent the mirror counts as lost: the principal is exposed, and PostgreSQL
    // streams on.
    first.sql().await.batch_execute("INSERT INTO t VALUES (0)").await.unwrap();
    assert!(matches!(second.drive().await, Found::Standby { .. }));
    second.follow(&serving).await;
    assert_eq!(one(&second.sql().await, receiver).await, before, "the stream was not broken");
    mirrored(&mut first, &second).await;
}

#[tokio::test]
async fn a_start_that_fails_for_a_setting_throws_nothing_away() {
    let (mut first, mut second, serving) = pair().await;
    second.order(Order::Stop).await;
    second.until(Fact::Stopped).await;
    second.drop_driver();
    second.instance.settings.insert("shared_preload_libraries".to_owned(), "gone".to_owned());
    assert_eq!(second.drive().await, Found::Stopped);
    let (term, timeline) = (serving.promotion.term, serving.promotion.timeline);
    let upstream = second.owner.other();
    second.order(Order::Follow { term, upstream, timeline, own: None }).await;
    let condition = second.driver.as_ref().unwrap().condition();
    eventually("the reason is told", async || {
        let problem = condition.borrow().problem.clone();
        problem.is_some_and(|problem| problem.text.contains("could not access file \"gone\""))
    })
    .await;
    let touched = |fact: &Fact| matches!(fact, Fact::TouchNeeded { .. });
    assert!(!second.facts_so_far().iter().any(touched));

    second.drop_driver();
    second.instance.settings.clear();
    assert_eq!(second.drive().await, Found::Stopped);
    second.follow(&serving).await;
    mirrored(&mut first, &second).await;
}

#[tokio::test]
async fn damaged_data_are_replaced_by_a_fresh_copy() {
    let (mut first, mut second, serving) = pair().await;
    second.order(Order::Stop).await;
    second.until(Fact::Stopped).await;
    std::fs::write(second.instance.data_dir.join("backup_label"), "broken\n").unwrap();
    let (term, timeline) = (serving.promotion.term, serving.promotion.timeline);
    let upstream = second.owner.other();
    second.order(Order::Follow { term, upstream, timeline, own: None }).await;
    second.until(Fact::TouchNeeded { term, touch: Touch::Copy }).await;
    second.order(Order::Touch { term }).await;
    second.wait("streaming", |fact| matches!(fact, Fact::Streaming { .. }).then_some(())).await;
    mirrored(&mut first, &second).await;
}

#[tokio::test]
async fn clients_stay_when_the_agent_of_their_principal_is_restarted() {
    let mut rig = Rig::new();
    rig.drive().await;
    let term = rig.serve_alone(2).await.promotion.term;
    let role = "CREATE ROLE app LOGIN PASSWORD 'client'";
    rig.sql().await.batch_execute(role).await.unwrap();
    let mut opened = None;
    eventually("a client is let in", async || {
        opened = rig.client("app").await.ok();
        opened.is_some()
    })
    .await;
    let client = opened.unwrap();
    rig.drop_driver();
    assert!(matches!(rig.drive().await, Found::Primary { .. }));
    rig.order(Order::AdmitClients { term }).await;
    rig.until(Fact::Checkpointed { term }).await;
    assert_eq!(one(&client, "SELECT 1").await, "1");
    assert!(rig.client("app").await.is_ok());
}
