//! A demo in a directory of its own, for one test: none of its processes outlives it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::deadline::processes_of;
use crate::place::{Place, Told};

/// A demo in a directory of its own. Whatever happens to the test, none of its processes stays.
pub struct Demo {
    pub place: Place,
}

impl Demo {
    pub fn start(name: &str, more: &[&str]) -> Demo {
        Demo::start_in(Place::new(name), more)
    }

    pub fn start_in(place: Place, more: &[&str]) -> Demo {
        let demo = Demo { place };
        demo.start_again(more);
        demo
    }

    pub fn start_again(&self, more: &[&str]) {
        let args: Vec<&str> =
            ["demo", "--detach", "--dir", "demo"].iter().chain(more).copied().collect();
        // A descendant that kept the pipes open would hang the test, so talk goes to a file.
        let talk = fs::File::create(self.place.path().join("talk")).unwrap();
        let status = self.place.command(&args).stderr(talk).status().unwrap();
        let talk = fs::read_to_string(self.place.path().join("talk")).unwrap();
        assert!(status.success(), "{talk}\n{}", self.logs());
    }

    pub fn run(&self, args: &[&str]) -> Told {
        let deployment = self.place.path().join("demo/deployment.toml");
        let mut command = self.place.command(args);
        command.env("BACKSTAY_DEPLOYMENT", deployment);
        Told::from(command.output().unwrap())
    }

    pub fn demo(&self, verb: &str, more: &[&str]) -> Told {
        let args: Vec<&str> =
            ["demo", verb].iter().chain(more).chain(&["--dir", "demo"]).copied().collect();
        self.run(&args)
    }

    pub fn status(&self) -> Value {
        self.demo("status", &["--json"]).expect(0).json()
    }

    pub fn pool(&self) -> Value {
        self.run(&["pool", "status", "pool01", "--json"]).json()
    }

    #[track_caller]
    pub fn wait(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
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
    pub fn wait_until_armed(&self) -> Value {
        self.wait("mirrored and armed", |pool| {
            pool["state"] == "mirrored"
                && pool["automatic_failover"]["armed"] == true
                && pool["members"].as_array().unwrap().iter().all(takes_part)
        })
    }

    /// Without the wait, the next look could still show the pool as it was before the loss.
    #[track_caller]
    pub fn kill_and_see(&self, name: &str) {
        self.demo("kill", &[name]).expect(0);
        self.wait("the loss is seen", |pool| pool["automatic_failover"]["armed"] != true);
    }

    pub fn logs(&self) -> String {
        let mut text = String::new();
        for log in ["be1/agent.log", "be2/agent.log", "wit1/agent.log", "fe1/front-end.log"] {
            let name = log;
            let log = self.place.path().join("demo").join(log);
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

/// The member itself says so: what the principal tells may be from before a loss.
fn takes_part(member: &Value) -> bool {
    let session = &member["session"];
    let sees_all = |others: &Vec<Value>| others.iter().all(|other| other["connected"] == true);
    let postgres = match session["role"].as_str() {
        Some("principal") => "primary",
        Some("mirror") => "standby",
        Some("witness") => return session["others"].as_array().is_some_and(sees_all),
        _ => return false,
    };
    session["postgres"]["state"] == postgres && session["others"].as_array().is_some_and(sees_all)
}

pub fn process<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["processes"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()
}
