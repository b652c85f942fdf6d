//! The way back of a former principal (protocol, 3.5).

use std::time::{Duration, Instant};

use agent::postgres::Instance;
use rustix::process::{Signal, kill_process};
use session::{Fact, Found, Order, Promotion, Term, Timeline, Touch};
use tokio::sync::mpsc;

use crate::cluster::pid_of;
use crate::rig::{Rig, Serving, eventually, one};

/// A pair after a failover that lost what `first` had acknowledged alone: `second` serves on
/// timeline 3, and `first` was killed on timeline 2 with a row that `second` never saw.
struct Diverged {
    first: Rig,
    second: Rig,
    own: Promotion,
    serving: Serving,
}

async fn diverged() -> Diverged {
    let mut first = Rig::new();
    let mut second = first.partner();
    assert_eq!(first.drive().await, Found::Stopped);
    let own = first.serve_alone(2).await.promotion;
    let table = "CREATE TABLE t (n int); INSERT INTO t VALUES (1)";
    first.sql().await.batch_execute(table).await.unwrap();
    second.drive().await;
    second
        .follow(&Serving { promotion: own, incarnation: incarnation(), newest: own.timeline })
        .await;
    // A stream that has begun need not have brought everything yet.
    let mirror = second.sql().await;
    eventually("the mirror has the table", async || {
        one(&mirror, "SELECT to_regclass('t') IS NOT NULL").await == "t"
    })
    .await;
    let (fork, boundary, _) = second.prepare(3).await;
    first.sql().await.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    kill_process(pid_of(first.postmaster().unwrap()), Signal::KILL).unwrap();
    first.until(Fact::Exited).await;
    first.order(Order::Stop).await;
    first.until(Fact::Stopped).await;

    let timeline = Timeline(3);
    second.order(Order::Promote { term: Term(3), timeline, fork }).await;
    let promoted = |fact| match fact {
        Fact::Promoted { incarnation, .. } => Some(incarnation),
        _ => None,
    };
    let incarnation = second.wait("promoted", promoted).await;
    let promotion = Promotion { term: Term(3), timeline, fork, boundary, established: false };
    let serving = Serving { promotion, incarnation, newest: timeline };
    second.order(Order::OpenGuard).await;
    second.order(Order::CommitBarrier { promotion }).await;
    second.until(Fact::BarrierCommitted { term: Term(3) }).await;
    second.order(Order::AdmitClients { term: Term(3) }).await;
    second.sql().await.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    Diverged { first, second, own, serving }
}

fn incarnation() -> session::Incarnation {
    session::Incarnation { started: 0, timeline: Timeline(2) }
}

/// Follows, gives leave to touch when asked, and returns what was asked for.
async fn follow(rig: &mut Rig, serving: &Serving, own: Option<Promotion>) -> Vec<Touch> {
    let (term, timeline) = (serving.promotion.term, serving.promotion.timeline);
    let upstream = rig.owner.other();
    rig.order(Order::Follow { term, upstream, timeline, own }).await;
    let mut touched = Vec::new();
    loop {
        let step = rig
            .wait("streaming, or leave to touch", |fact| match fact {
                Fact::TouchNeeded { touch, .. } => Some(Some(touch)),
                Fact::Streaming { .. } => Some(None),
                _ => None,
            })
            .await;
        match step {
            Some(touch) => {
                touched.push(touch);
                rig.order(Order::Touch { term }).await;
            }
            None => return touched,
        }
    }
}

async fn rows(rig: &Rig) -> Vec<i32> {
    let rows = rig.sql().await.query("SELECT n FROM t ORDER BY n", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The pair is whole again: what the principal commits waits for the mirror and arrives there.
async fn mirrored(principal: &mut Rig, mirror: &Rig) {
    principal.order(Order::CloseGuard).await;
    principal.until(Fact::GuardClosed).await;
    principal.sql().await.batch_execute("INSERT INTO t VALUES (4)").await.unwrap();
    eventually("the mirror has replayed", async || rows(mirror).await == [1, 3, 4]).await;
}

#[tokio::test]
async fn a_diverged_principal_comes_back_by_rewind() {
    let Diverged { mut first, mut second, own, serving } = diverged().await;
    let begun = Instant::now();
    assert_eq!(follow(&mut first, &serving, Some(own)).await, [Touch::Rewind]);
    eprintln!("a crashed principal streams again after {:?}", begun.elapsed());
    mirrored(&mut second, &first).await;

    let kept = std::fs::read_dir(first.instance.files_dir.join("discarded")).unwrap();
    let kept: Vec<_> = kept.flatten().map(|entry| entry.path()).collect();
    assert_eq!(kept.len(), 1);
    let range = std::fs::read_to_string(kept[0].join("range")).unwrap();
    assert!(
        range.starts_with(&format!("from {} on timeline 2", serving.promotion.fork.lsn)),
        "{range}"
    );
    let list = std::fs::read_to_string(kept[0].join("transactions")).unwrap();
    assert!(list.contains("COMMIT"), "the lost commit is listed: {list}");
    assert!(std::fs::read_dir(&kept[0]).unwrap().count() > 2, "its WAL is kept");
}

#[tokio::test]
async fn a_rewind_that_fails_becomes_a_fresh_copy() {
    let Diverged { mut first, mut second, own, serving } = diverged().await;
    first.drop_driver();
    first.instance.bin_dir = without_rewind(&first.instance);
    assert_eq!(first.drive().await, Found::Stopped);
    assert_eq!(follow(&mut first, &serving, Some(own)).await, [Touch::Rewind]);
    mirrored(&mut second, &first).await;
}

/// PostgreSQL's programs, but with a `pg_rewind` that breaks the data and fails.
fn without_rewind(instance: &Instance) -> std::path::PathBuf {
    let dir = instance.files_dir.join("bin");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(
        &instance.files_dir,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for program in std::fs::read_dir(&instance.bin_dir).unwrap().flatten() {
        if program.file_name() != "pg_rewind" {
            std::os::unix::fs::symlink(program.path(), dir.join(program.file_name())).unwrap();
        }
    }
    let broken = dir.join("pg_rewind");
    let data = instance.data_dir.display();
    std::fs::write(&broken, format!("#!/bin/sh\nrm -rf {data}/base\necho broken >&2\nexit 1\n"))
        .unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[tokio::test]
async fn killed_in_the_middle_of_a_rewind_it_starts_over_with_a_copy() {
    let Diverged { mut first, mut second, own, serving } = diverged().await;
    first.drop_driver();
    std::fs::write(first.instance.files_dir.join("initialise.unfinished"), "rewind\n").unwrap();
    assert_eq!(first.drive().await, Found::Nothing);
    assert_eq!(follow(&mut first, &serving, Some(own)).await, [Touch::Copy]);
    mirrored(&mut second, &first).await;
}

#[tokio::test]
async fn a_partner_without_data_copies_the_principals() {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let serving = first.serve_alone(2).await;
    let table = "CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n";
    first.sql().await.batch_execute(table).await.unwrap();
    std::fs::remove_dir_all(&second.instance.data_dir).unwrap();
    assert_eq!(second.drive().await, Found::Nothing);
    let mut condition = second.driver.as_ref().unwrap().condition();
    let (teller, mut seen) = mpsc::channel(1000);
    let watched = tokio::spawn(async move {
        while condition.changed().await.is_ok() {
            let progress = condition.borrow().progress;
            if let Some(progress) = progress {
                let _ = teller.try_send(progress);
            }
        }
    });
    let begun = Instant::now();
    assert_eq!(follow(&mut second, &serving, None).await, [Touch::Copy]);
    eprintln!("a fresh copy streams after {:?}", begun.elapsed());
    let progress = seen.recv().await.unwrap();
    assert!(progress.total > 1 << 20 && progress.done <= progress.total, "{progress:?}");
    watched.abort();
    assert_eq!(rows(&second).await.len(), 100_000);

    // Killed between the two renames of the swap: it is finished, and nothing is copied again.
    second.order(Order::Stop).await;
    second.until(Fact::Stopped).await;
    second.drop_driver();
    let data = &second.instance.data_dir;
    std::fs::rename(data, data.with_file_name("data.copy")).unwrap();
    std::fs::write(second.instance.files_dir.join("initialise.unfinished"), "swap\n").unwrap();
    assert_eq!(second.drive().await, Found::Stopped);
    assert_eq!(follow(&mut second, &serving, None).await, []);
    assert_eq!(rows(&second).await.len(), 100_000);
}

#[tokio::test]
async fn a_clean_shutdown_before_the_fork_needs_no_rewind() {
    let mut first = Rig::new();
    let mut second = first.partner();
    first.drive().await;
    let own = first.serve_alone(2).await;
    second.drive().await;
    second.follow(&own).await;
    first.order(Order::ShutDown { deadline: Duration::from_secs(5) }).await;
    let end = first
        .wait("shut down", |fact| match fact {
            Fact::ShutDown { position } => Some(position),
            _ => None,
        })
        .await;
    second
        .wait("level", |fact| match fact {
            Fact::PositionSeen { position } => (position == end).then_some(()),
            _ => None,
        })
        .await;
    let serving = second.promote(3).await;
    assert_eq!(serving.promotion.fork, end);
    let begun = Instant::now();
    assert_eq!(follow(&mut first, &serving, Some(own.promotion)).await, []);
    eprintln!("after a clean shutdown it streams again after {:?}", begun.elapsed());
}
