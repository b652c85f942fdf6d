//! The demo, end to end, with real PostgreSQL servers.

use crate::deadline::processes_of;
use crate::stage::{Demo, process};

#[test]
fn a_killed_principal_is_replaced_comes_back_as_mirror_and_nothing_stays_running() {
    let demo = Demo::start("demo-kill", &["--profile", "fast"]);
    let before = demo.wait_until_armed();
    assert_eq!(before["principal"], "be1");
    let status = demo.status();
    assert_eq!(process(&status, "be1")["role"], "principal");
    assert_eq!(process(&status, "wit1")["kind"], "witness");
    assert!(process(&status, "be2")["postmaster_pid"].is_i64());

    demo.demo("kill", &["principal"]).expect(0);
    let after = demo.wait("be2 serves", |pool| pool["principal"] == "be2");
    assert!(after["term"].as_u64() > before["term"].as_u64());
    let status = demo.status();
    assert_eq!(process(&status, "be1")["state"], "gone");
    assert_eq!(process(&status, "be1")["postmaster_state"], "gone");
    demo.wait("exposed", |pool| pool["state"] == "exposed");
    demo.run(&["pool", "status"]).expect(3);

    demo.demo("restart", &["principal"]).expect(0);
    demo.wait_until_armed();
    demo.run(&["pool", "status"]).expect(0);
    let history = demo.run(&["pool", "history", "pool01", "--json"]).expect(0).json();
    let entries = history["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["kind"] == "failover"), "{history:#}");

    demo.demo("stop", &[]).expect(0);
    assert_eq!(processes_of(demo.place.path()), []);
    demo.run(&["pool", "status"]).expect(4);
}

#[test]
fn a_demo_that_is_started_again_continues_with_its_ports_and_data() {
    let demo = Demo::start("demo-again", &["--profile", "fast"]);
    let first = demo.wait_until_armed();
    let connection = demo.status()["connection"]["uri"].clone();
    demo.demo("stop", &[]).expect(0);
    assert_eq!(processes_of(demo.place.path()), []);

    demo.start_again(&[]);
    let again = demo.wait_until_armed();
    assert!(again["term"].as_u64() > first["term"].as_u64());
    assert_eq!(demo.status()["connection"]["uri"], connection);
    let told = demo.demo("status", &[]).expect(0);
    assert!(told.data.contains("be1"), "{}", told.data);
}

#[test]
fn a_drill_loses_nothing_and_says_so_in_the_published_form() {
    let demo = Demo::start("demo-drill", &["--profile", "fast"]);
    for fault in ["manual", "crash"] {
        let report = demo.run(&["drill", "pool01", fault, "--json"]).expect(0).json();
        assert_eq!(report["fault"], fault);
        assert_eq!(report["profile"], "fast");
        assert_eq!(report["lost"], 0);
        let run = &report["runs"][0];
        assert!(run["acknowledged"].as_u64() > Some(50), "{report:#}");
        assert!(run["term_after"].as_u64() > run["term_before"].as_u64(), "{report:#}");
        assert!(run["outage_ms"].as_f64() > Some(0.0), "{report:#}");
    }
}
