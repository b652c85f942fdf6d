//! The demo, end to end, with real PostgreSQL servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::place::{Place, Told};

/// A demo in a directory of its own. Whatever happens to the test, none of its processes stays.
struct Demo {
    place: Place,
}

impl Demo {
    fn start(name: &str, more: &[&str]) -> Demo {
        let demo = Demo { place: Place::new(name) };
        demo.start_again(more);
        demo
    }

    fn start_again(&self, more: &[&str]) {
        let args: Vec<&str> =
            ["demo", "--detach", "--dir", "demo"].iter().chain(more).copied().collect();
        // A descendant that kept the pipes open would hang the test, so talk goes to a file.
        let talk = fs::File::create(self.place.path().join("talk")).unwrap();
        let status = self.place.command(&args).stderr(talk).status().unwrap();
        let talk = fs::read_to_string(self.place.path().join("talk")).unwrap();
        assert!(status.success(), "{talk}\n{}", self.logs());
    }

    fn run(&self, args: &[&str]) -> Told {
        let deployment = self.place.path().join("demo/deployment.toml");
        let mut command = self.place.command(args);
        command.env("BACKSTAY_DEPLOYMENT", deployment);
        Told::from(command.output().unwrap())
    }

    fn demo(&self, verb: &str, more: &[&str]) -> Told {
        let args: Vec<&str> =
            ["demo", verb].iter().chain(more).chain(&["--dir", "demo"]).copied().collect();
        self.run(&args)
    }

    fn status(&self) -> Value {
        self.demo("status", &["--json"]).expect(0).json()
    }

    fn pool(&self) -> Value {
        self.run(&["pool", "status", "pool01", "--json"]).json()
    }

    #[track_caller]
    fn wait(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let pool = self.pool();
            if good(&pool) {
                return pool;
            }
            assert!(Instant::now() < deadline, "{what}: {pool:#}\n{}", self.logs());
        }
    }

    #[track_caller]
    fn wait_until_armed(&self) -> Value {
        self.wait("mirrored and armed", |pool| {
            pool["state"] == "mirrored" && pool["automatic_failover"]["armed"] == true
        })
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["be1", "be2", "wit1"] {
            let log = self.place.path().join("demo").join(name).join("agent.log");
            let whole = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            let tail = &lines[lines.len().saturating_sub(30)..];
            text.push_str(&format!("--- {name}\n{}\n", tail.join("\n")));
        }
        text
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.place.command(&["demo", "stop", "--dir", "demo"]).output();
        for pid in processes_of(self.place.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process that was started with a path below `dir`, or works there.
fn processes_of(dir: &Path) -> Vec<Pid> {
    let dir = dir.to_str().unwrap();
    let listed = fs::read_dir("/proc").unwrap().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(dir) || works_in.starts_with(dir)
    })
    .filter_map(Pid::from_raw)
    .collect()
}

fn process<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["processes"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()
}

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
