//! An order that is replaced while PostgreSQL starts for it.

use session::{Fact, Found, Order};

use crate::rig::{Rig, Serving, eventually};

#[tokio::test]
async fn a_start_that_a_newer_order_dropped_is_not_taken_for_a_server_that_lets_nobody_in() {
    let mut first = Rig::new();
    let mut second = first.partner();
    assert_eq!(first.drive().await, Found::Stopped);
    let serving: Serving = first.serve_alone(2).await;
    second.drive().await;
    for _ in 0..3 {
        second.order(Order::Stop).await;
        second.until(Fact::Stopped).await;
        let (term, timeline) = (serving.promotion.term, serving.promotion.timeline);
        let upstream = second.owner.other();
        second.order(Order::Follow { term, upstream, timeline, own: None }).await;
        eventually("it is being started", async || second.postmaster().is_some()).await;
        second.follow(&serving).await;
    }
}
