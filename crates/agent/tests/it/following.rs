//! What a Front End is told, against whole servers: who serves, and when a handover begins.

use std::time::{Duration, Instant};

use agent::config::Times;
use protocol::admin::{PostgresState, Request, Response, Route};

use crate::pool::{FRONT_END_PASSWORD, Line, POOL, Pool};
use crate::rig::{eventually, one};

/// How long a manual failover waits for followers here: far longer than it takes itself.
const DRAIN: Duration = Duration::from_secs(10);

async fn follow(port: u16) -> Line {
    let mut line = Line::open(port).await;
    line.follow(1).await;
    line
}

fn standby(route: &Route) -> bool {
    let found = route.postgres.as_ref();
    found.is_some_and(|postgres| postgres.state == PostgresState::Standby && postgres.complete)
}

async fn fail_over(port: u16) {
    let asked = Request::Failover { pool: POOL.to_owned(), to: None, dry_run: false };
    let response = Line::open(port).await.ask(&asked).await;
    assert!(matches!(response, Response::Begun { .. }), "{response:?}");
}

/// Waits until a manual failover would not be refused.
async fn ready(port: u16) {
    let asked = Request::Failover { pool: POOL.to_owned(), to: None, dry_run: true };
    eventually("a manual failover is possible", async || {
        let response = Line::open(port).await.ask(&asked).await;
        matches!(response, Response::Plan(plan) if plan.possible)
    })
    .await;
}

#[tokio::test]
async fn a_follower_is_told_who_serves_and_each_handover() {
    let times = Times { drain_ms: u64::try_from(DRAIN.as_millis()).ok(), ..Times::default() };
    let pool = Pool::create("following", times).await;
    let mut one_line = follow(pool.ports[0]).await;
    let first = one_line.until(|route| route.serving).await;
    assert_eq!((first.echo, first.member.as_str(), first.handing_over), (1, "be0", false));
    assert_eq!(first.lease_left_ms, None, "without a witness there is no lease");
    let postgres = first.postgres.clone().unwrap();
    assert_eq!((postgres.port, postgres.state), (pool.postgres[0], PostgresState::Primary));
    assert_eq!(first.timelines.last(), Some(&postgres.timeline));
    assert_eq!(first.timelines.first(), Some(&1));
    let promotion = first.promotions.last().unwrap();
    assert_eq!((promotion.term, promotion.timeline), (first.term, postgres.timeline));
    assert!(promotion.established && promotion.boundary.is_some(), "{promotion:?}");
    // Whoever is gone is not waited for.
    drop(one_line);
    let mirror = follow(pool.ports[1]).await.until(standby).await;
    assert!(!mirror.serving && mirror.promotions.is_empty() && mirror.timelines.is_empty());
    drained(&pool, first.term).await;
    follow(pool.ports[0]).await.until(standby).await;
    undrained(&pool).await;
}

/// From be0 to be1, with two followers that drain one after the other.
async fn drained(pool: &Pool, term: u64) {
    pool.sql(0).await.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    ready(pool.ports[0]).await;
    let mut next_line = follow(pool.ports[1]).await;
    let mut early = follow(pool.ports[0]).await;
    let mut late = follow(pool.ports[0]).await;
    late.until(|route| route.serving).await;
    fail_over(pool.ports[0]).await;
    let handing = early.until(|route| route.handing_over).await;
    assert!(handing.serving && handing.term == term, "{handing:?}");
    late.until(|route| route.handing_over).await;
    let drained = Request::Drained { pool: POOL.to_owned(), term };
    early.say(&drained).await;
    // One of two has answered: everybody is still served.
    let client = Pool::client(pool.postgres[0], "app", "").await.unwrap();
    client.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    early.follow(3).await;
    let asked = early.until(|route| route.echo == 3).await;
    assert!(asked.serving && asked.handing_over, "{asked:?}");
    let begun = Instant::now();
    late.say(&drained).await;
    let ended = early.until(|route| !route.serving).await;
    assert!(!ended.handing_over, "{ended:?}");
    let next = next_line.until(|route| route.serving).await;
    let took = begun.elapsed();
    // The rules of access are in force when the route comes.
    Pool::client(pool.postgres[1], "app", "").await.unwrap();
    assert!(next.term > term && took < DRAIN / 2, "{took:?} {next:?}");
    assert_eq!(next.promotions.len(), 2, "{next:?}");
    assert_eq!(next.timelines.len(), 3, "{next:?}");
}

/// Back again, with a follower that never answers: after the patience, and not before.
async fn undrained(pool: &Pool) {
    ready(pool.ports[1]).await;
    let mut silent = follow(pool.ports[1]).await;
    silent.until(|route| route.serving).await;
    fail_over(pool.ports[1]).await;
    silent.until(|route| route.handing_over).await;
    let begun = Instant::now();
    silent.until(|route| !route.serving).await;
    assert!(begun.elapsed() > DRAIN / 2, "{:?}", begun.elapsed());
    follow(pool.ports[0]).await.until(|route| route.serving).await;
}

#[tokio::test]
async fn a_follower_that_does_not_read_loses_old_routes_only() {
    const ASKED: u64 = 20_000;
    let pool = Pool::create("slow", Times::default()).await;
    let mut line = follow(pool.ports[0]).await;
    line.until(|route| route.serving).await;
    for stamp in 2..=ASKED {
        line.follow(stamp).await;
    }
    let wrong = Request::Follow { pool: "other".to_owned(), stamp: 3 };
    let mut told = 0;
    loop {
        let route = line.route().await;
        told += 1;
        if route.echo == ASKED {
            break;
        }
    }
    assert!(told < ASKED, "every question was answered");
    let refused = line.ask(&wrong).await;
    assert!(matches!(refused, Response::Refused(refusal) if refusal.code == "unknown_pool"));
}

#[tokio::test]
async fn a_front_end_learns_what_is_stored_of_a_users_password_and_nothing_else() {
    let pool = Pool::create("looking-up", Times::default()).await;
    let mut line = follow(pool.ports[0]).await;
    line.until(|route| route.serving).await;
    let role = "backstay_front_end";
    let mut opened = None;
    eventually("the role is made", async || {
        opened = Pool::client(pool.postgres[0], role, FRONT_END_PASSWORD).await.ok();
        opened.is_some()
    })
    .await;
    let front_end = opened.unwrap();
    let admin = pool.sql(0).await;
    // The mirror may still be on its way: what is acknowledged is not the question here.
    admin
        .batch_execute(
            "SET synchronous_commit = local; CREATE ROLE app LOGIN PASSWORD 'client' \
             VALID UNTIL '2100-01-01 00:00:00+00' CONNECTION LIMIT 7; CREATE ROLE \"it's\" \
             PASSWORD NULL",
        )
        .await
        .unwrap();
    let row = front_end.query_one("SELECT * FROM backstay.verifier('app')", &[]).await.unwrap();
    assert!(row.get::<_, &str>("secret").starts_with("SCRAM-SHA-256$4096:"));
    assert!(row.get::<_, bool>("can_login"));
    assert_eq!(row.get::<_, f64>("valid_until_epoch"), 4_102_444_800.0);
    assert_eq!(row.get::<_, i32>("connection_limit"), 7);
    let count = async |name: &str| {
        let rows = front_end.query("SELECT * FROM backstay.verifier($1)", &[&name]).await;
        rows.unwrap().len()
    };
    assert_eq!((count("it's").await, count("nobody").await, count("backstay").await), (1, 0, 0));
    for forbidden in
        ["SELECT * FROM pg_authid", "SET ROLE backstay", "CREATE TABLE backstay.mine (x int)"]
    {
        let refused = front_end.batch_execute(forbidden).await.unwrap_err();
        let code = refused.code().unwrap().code();
        assert_eq!(code, "42501", "{forbidden}: {refused}");
    }
    let app = Pool::client(pool.postgres[0], "app", "").await.unwrap();
    let refused = app.batch_execute("SELECT backstay.verifier('app')").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
    let secret = "SELECT rolpassword FROM pg_authid WHERE rolname = 'backstay_front_end'";
    let before = one(&admin, secret).await;
    let instance = pool.instance(0);
    agent::postgres::front_end::make(&instance, Some(FRONT_END_PASSWORD)).await.unwrap();
    assert_eq!(one(&admin, secret).await, before, "keys that fit it were made useless");
    agent::postgres::front_end::make(&instance, Some("another")).await.unwrap();
    Pool::client(pool.postgres[0], role, "another").await.unwrap();
    for (name, value) in [("synchronous_commit", "on"), ("client_min_messages", "notice")] {
        assert_eq!(one(&app, &format!("SHOW {name}")).await, value, "{name}");
    }
}
