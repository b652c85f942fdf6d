//! Starting, ending, dying and being adopted.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use session::{Ailment, Fact, Found, Order, Term};

use crate::rig::{Rig, eventually, one};

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

#[tokio::test]
async fn an_immediate_stop_leaves_no_process_even_of_a_frozen_server() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    for frozen in [false, true] {
        let sessions = [rig.sql().await, rig.sql().await];
        if frozen {
            for process in rig.processes() {
                let _ = kill_process(Pid::from_raw(process).unwrap(), Signal::STOP);
            }
        }
        let begun = Instant::now();
        rig.order(Order::Stop).await;
        rig.until(Fact::Stopped).await;
        eprintln!("stopped (frozen: {frozen}) after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(rig.processes(), [0; 0]);
        drop(sessions);
        rig.run_alone(true).await;
    }
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    // When nothing runs it is done at once.
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
}

#[tokio::test]
async fn a_killed_postmaster_is_seen_at_once_and_comes_back_as_a_standby() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    let session = rig.sql().await;
    session.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    rig.facts_so_far();
    let begun = Instant::now();
    kill_process(pid(rig.postmaster().unwrap()), Signal::KILL).unwrap();
    rig.until(Fact::Exited).await;
    eprintln!("exit seen after {:?}", begun.elapsed());
    eventually("its last child is gone", async || rig.processes().is_empty()).await;
    eprintln!("last child gone after {:?}", begun.elapsed());
    let (_, position) = rig.run_alone(true).await;
    eprintln!("a standby again after {:?}", begun.elapsed());
    let sql = rig.sql().await;
    assert_eq!(one(&sql, "SELECT pg_is_in_recovery()").await, "t");
    assert_eq!(position.timeline, session::Timeline(2));
    let next = rig.promote(4).await;
    assert_eq!((next.newest.0, next.promotion.timeline.0), (2, 4));
}

#[tokio::test]
async fn a_restarted_agent_adopts_what_runs() {
    let mut rig = Rig::new();
    rig.drive().await;
    let (incarnation, position) = rig.run_alone(true).await;
    rig.drop_driver();
    assert_eq!(rig.drive().await, Found::Standby { incarnation, position });
    let serving = rig.serve_alone(2).await;
    let postmaster = rig.postmaster();
    rig.drop_driver();
    // The former agent may have died before it could put this back.
    std::fs::remove_file(rig.instance.standby_signal()).unwrap();
    match rig.drive().await {
        Found::Primary { incarnation, .. } => assert_eq!(incarnation, serving.incarnation),
        found => panic!("{found:?}"),
    }
    assert_eq!(rig.postmaster(), postmaster);
    assert!(rig.instance.standby_signal().exists());
    rig.order(Order::OpenGuard).await;
    rig.until(Fact::GuardOpened).await;
    rig.sql().await.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    assert_eq!(rig.processes(), [0; 0]);
}

#[tokio::test]
async fn standby_signal_is_harmless_while_running_and_stops_a_second_primary() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    assert!(rig.instance.standby_signal().exists());
    let sql = rig.sql().await;
    sql.batch_execute("CREATE TABLE t (i int); CHECKPOINT; SELECT pg_reload_conf()").await.unwrap();
    assert_eq!(one(&sql, "SELECT pg_is_in_recovery()").await, "f");
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    rig.drop_driver();
    // As an administrator, or the boot system, would start it.
    let options = format!(
        "-c config_file={} -c hba_file={} -c ident_file={} -c port={} \
         -c unix_socket_directories={}",
        rig.instance.config_file().display(),
        rig.instance.hba_file().display(),
        rig.instance.ident_file().display(),
        rig.instance.port,
        rig.instance.socket_dir.display()
    );
    let mut start = rig.instance.os_user.command(rig.instance.program("pg_ctl"));
    start.args(["start", "-w", "-s", "-o", &options, "-l"]).arg(rig.instance.log_file());
    start.arg("-D").arg(&rig.instance.data_dir);
    assert!(start.status().unwrap().success());
    assert_eq!(one(&rig.sql().await, "SELECT pg_is_in_recovery()").await, "t");
}

#[tokio::test]
async fn a_frozen_server_is_unhealthy_until_it_thaws() {
    let mut rig = Rig::new();
    rig.instance.probe_timeout = Duration::from_millis(300);
    rig.drive().await;
    rig.serve_alone(2).await;
    let processes = rig.processes();
    for process in &processes {
        // One that has just ended need not be frozen.
        let _ = kill_process(Pid::from_raw(*process).unwrap(), Signal::STOP);
    }
    rig.until(Fact::Unhealthy(Ailment::Unresponsive)).await;
    for process in &processes {
        let _ = kill_process(Pid::from_raw(*process).unwrap(), Signal::CONT);
    }
    rig.until(Fact::Healthy).await;
}

#[tokio::test]
async fn a_shutdown_that_hangs_ends_at_its_deadline() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    let session = rig.sql().await;
    session.batch_execute("CREATE TEMP TABLE t (i int)").await.unwrap();
    rig.order(Order::CloseGuard).await;
    rig.until(Fact::GuardClosed).await;
    // The session drops its table at exit, in a transaction that waits for the mirror.
    let begun = Instant::now();
    rig.order(Order::ShutDown { deadline: Duration::from_millis(700) }).await;
    rig.until(Fact::ShutDownLate).await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "it did hang");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(rig.processes(), [0; 0]);
}

#[tokio::test]
async fn stop_ends_what_hangs() {
    let mut rig = Rig::new();
    rig.drive().await;
    let upstream = rig.owner.other();
    let timeline = session::Timeline(3);
    // Nobody is there to be followed.
    rig.order(Order::Follow { term: Term(3), upstream, timeline, own: None }).await;
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    rig.run_alone(true).await;
    let serving = rig.promote(4).await;
    // Without mirror and guard the barrier waits for ever.
    rig.order(Order::CommitBarrier { promotion: serving.promotion }).await;
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    assert!(!rig.facts_so_far().contains(&Fact::BarrierCommitted { term: Term(4) }));
}
