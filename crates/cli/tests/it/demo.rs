//! The demo, end to end, with real PostgreSQL servers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::deadline::processes_of;
use crate::stage::{Demo, process};
use crate::writer;

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

fn front_end(pool: &Value) -> &Value {
    &pool["front_ends"][0]
}

fn uri(demo: &Demo) -> String {
    demo.status()["front_end"]["uri"].as_str().unwrap().to_owned()
}

#[test]
fn a_demo_has_a_front_end_that_can_be_killed_and_comes_back_at_its_address() {
    let demo = Demo::start("demo-front-end", &["--profile", "fast"]);
    let talk = fs::read_to_string(demo.place.path().join("talk")).unwrap();
    let (address, others) = (uri(&demo), demo.status()["connection"]["uri"].clone());
    let others = others.as_str().unwrap();
    assert!(talk.find(&address).unwrap() < talk.find(others).unwrap(), "{talk}");
    writer::run(&address, "CREATE TABLE t (x int)").unwrap();

    let pool =
        demo.wait("the Front End is normal", |pool| front_end(pool)["status"]["mode"] == "normal");
    assert_eq!(front_end(&pool)["name"], "fe1");
    assert_eq!(front_end(&pool)["status"]["principal"]["server"], "be1");
    let status = demo.status();
    let shown = process(&status, "fe1");
    assert_eq!(shown["kind"], "front_end");
    assert_eq!(shown["state"], "running");
    offers_tls(u16::try_from(shown["port"].as_u64().unwrap()).unwrap());
    let key = demo.place.path().join("demo/fe1/key.pem");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);

    demo.demo("kill", &["front-end"]).expect(0);
    let pool = demo.wait("the Front End is gone", |pool| front_end(pool)["answered"] == false);
    assert_eq!(pool["state"], "mirrored", "it has no part in the state");
    demo.run(&["pool", "status"]).expect(0);
    demo.demo("restart", &["fe1"]).expect(0);
    writer::run(&address, "INSERT INTO t VALUES (1)").unwrap();
}

/// A server that has a certificate says S to whoever asks for TLS.
#[track_caller]
fn offers_tls(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
}

#[test]
fn a_demo_from_before_there_were_front_ends_and_certificates_gets_them() {
    let demo = Demo::start("demo-older", &["--profile", "fast"]);
    demo.demo("stop", &[]).expect(0);
    let file = demo.place.path().join("demo/demo.toml");
    let plan = fs::read_to_string(&file).unwrap();
    let older = &plan[..plan.find("[front_end]").unwrap()];
    fs::write(&file, older).unwrap();
    fs::remove_dir_all(demo.place.path().join("demo/fe1")).unwrap();
    fs::remove_file(demo.place.path().join("demo/front_end.password")).unwrap();
    for gone in ["authority", "administrator", "be1/state/trust", "be2/state/trust"] {
        fs::remove_dir_all(demo.place.path().join("demo").join(gone)).unwrap();
    }
    fs::remove_dir_all(demo.place.path().join("demo/wit1/state/trust")).unwrap();
    assert_eq!(demo.status()["front_end"], Value::Null);

    demo.start_again(&[]);
    demo.wait_until_armed();
    for made in ["administrator", "be1/state/trust", "wit1/state/trust", "fe1/state/trust"] {
        let dir = demo.place.path().join("demo").join(made);
        assert!(dir.join("identity.pem").exists(), "{}", dir.display());
    }
    writer::run(&uri(&demo), "CREATE TABLE t (x int)").unwrap();
}

#[test]
fn a_drill_through_the_gateway_finds_no_wrong_answer() {
    let demo = Demo::start("demo-drill-gateway", &["--profile", "fast"]);
    for fault in ["manual", "crash"] {
        let args = ["drill", "pool01", fault, "--through", "gateway", "--clients", "8", "--json"];
        let report = demo.run(&args).expect(0).json();
        assert_eq!(report["through"], "gateway");
        assert_eq!((&report["lost"], &report["wrong"]), (&Value::from(0), &Value::from(0)));
        let run = &report["runs"][0];
        assert!(run["acknowledged"].as_u64() > Some(100), "{report:#}");
        let clients = &run["gateway"];
        assert_eq!(clients["went_on"], 8, "{report:#}");
        assert_eq!(clients["connections_lost"], 0, "{report:#}");
        assert_eq!(clients["front_end"]["sessions_ended"], 0, "{report:#}");
        assert!(clients["front_end"]["held"].as_u64() > Some(0), "{report:#}");
        let errors = clients["errors"].as_object().unwrap();
        if fault == "manual" {
            assert!(errors.is_empty(), "{report:#}");
        }
        assert!(errors.keys().all(|state| state == "40001" || state == "08007"), "{report:#}");
    }
}
