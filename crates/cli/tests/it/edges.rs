//! Clean edges: what is wrong is named, with what to do, and what was acknowledged stays.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::deadline::processes_of;
use crate::place::Place;
use crate::stage::{Demo, process};
use crate::writer::{self, Writer};

/// A process that ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn member_dir(demo: &Demo, name: &str) -> PathBuf {
    demo.place.path().join("demo").join(name)
}

fn uri(demo: &Demo) -> String {
    demo.status()["connection"]["uri"].as_str().unwrap().to_owned()
}

fn port(demo: &Demo, name: &str) -> u16 {
    let port = process(&demo.status(), name)["postgres_port"].as_u64().unwrap();
    u16::try_from(port).unwrap()
}

fn pid(demo: &Demo, name: &str, what: &str) -> Pid {
    let pid = process(&demo.status(), name)[what].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// The agent of be2 by hand.
fn agent(demo: &Demo, before: &[&str], change: impl Fn(String) -> String) -> Held {
    agent_of(demo, "be2", before, change)
}

/// An agent by hand, in front of its program `before`, with `change` made to its configuration.
fn agent_of(demo: &Demo, name: &str, before: &[&str], change: impl Fn(String) -> String) -> Held {
    let config = fs::read_to_string(member_dir(demo, name).join("config.toml")).unwrap();
    let config = demo.place.write("by-hand.toml", &change(config));
    let log = member_dir(demo, name).join("agent.log");
    let log = fs::File::options().append(true).open(log).unwrap();
    let mut words: Vec<&str> = before.to_vec();
    words.extend([env!("CARGO_BIN_EXE_backstay"), "server", "--config"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(config).current_dir(demo.place.path());
    Held(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// What stands in the way of be2's PostgreSQL, and what to do.
fn problem(pool: &Value) -> (String, String) {
    let members = pool["members"].as_array().unwrap();
    let be2 = members.iter().find(|member| member["name"] == "be2").unwrap();
    let text = |key: &str| be2["session"]["postgres"][key].as_str().unwrap_or_default().to_owned();
    (text("problem"), text("hint"))
}

#[track_caller]
fn wait_for_problem(demo: &Demo, text: &str, hint: &str) {
    demo.wait(text, |pool| {
        let (problem, what_to_do) = problem(pool);
        problem.contains(text) && what_to_do.contains(hint)
    });
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let place = Place::new("edges-config");
    let config = place.write(
        "be1.toml",
        r#"
        name = "be 1"
        deployment = "production"
        listen = "here"
        state_dir = "state"
        [[pool]]
        name = "orders"
        profile = "quick"
        data_dir = "/srv/data"
        files_dir = "/srv/data/files"
        socket_dir = "/run/orders"
        first = { name = "be 1", host = "be1" }
        second = { name = "be 1", host = "be2" }
        "#,
    );
    let told = place.run(&["server", "--config", config.to_str().unwrap()]).expect(1);
    for mistake in ["\"be 1\"", "listen", "state_dir", "quick", "files_dir", "twice"] {
        assert!(told.talk.contains(mistake), "{mistake}: {}", told.talk);
    }
    let told = place.run(&["server", "--config", "none.toml"]).expect(1);
    assert!(told.talk.contains("none.toml: No such file"), "{}", told.talk);
    place.write("other.toml", "nme = 'be1'");
    let told = place.run(&["server", "--config", "other.toml"]).expect(1);
    assert!(told.talk.contains("unknown field `nme`, expected one of `name`"), "{}", told.talk);
}

#[test]
fn what_keeps_a_mirror_away_is_named_and_it_comes_back_when_it_is_mended() {
    let demo = Demo::start("edges-names", &[]);
    let term = demo.wait_until_armed()["term"].clone();
    let unchanged = |config: String| config;
    refuse_a_second_agent(&demo);
    assert_eq!(demo.wait_until_armed()["term"], term, "the second agent did no harm");

    demo.kill_and_see("be2");
    let taken = TcpListener::bind(("127.0.0.1", port(&demo, "be2"))).unwrap();
    let told = demo.demo("restart", &["be2"]).expect(1);
    assert!(told.talk.contains("is taken by another program"), "{}", told.talk);
    assert!(told.talk.contains("hint: end that program"), "{}", told.talk);
    {
        let _by_hand = agent(&demo, &[], unchanged);
        wait_for_problem(&demo, "is in use by another program", "stop it");
        drop(taken);
        demo.wait_until_armed();
    }
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
    demo.kill_and_see("be2");

    let data = member_dir(&demo, "be2").join("postgres/data");
    let mark = fs::read_to_string(data.join("backstay.pool")).unwrap();
    fs::write(data.join("backstay.pool"), "pool02\n").unwrap();
    {
        let _by_hand = agent(&demo, &[], unchanged);
        wait_for_problem(&demo, "belongs to the pool \"pool02\"", "choose another data_dir");
        fs::write(data.join("backstay.pool"), mark).unwrap();
        demo.wait_until_armed();
    }
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
    demo.kill_and_see("be2");

    refuse_missing_programs(&demo);
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
    outlive_a_clock_that_jumps(&demo);
}

/// With a state and a port of its own nothing else stops it.
fn refuse_a_second_agent(demo: &Demo) {
    let config = fs::read_to_string(member_dir(demo, "be2").join("config.toml")).unwrap();
    let state = member_dir(demo, "be2").join("state");
    let other = config
        .replace(state.to_str().unwrap(), demo.place.path().join("other").to_str().unwrap())
        .lines()
        .map(|line| if line.starts_with("listen") { "listen = \"127.0.0.1:0\"" } else { line })
        .collect::<Vec<&str>>()
        .join("\n");
    demo.place.write("second.toml", &other);
    let told = demo.place.run(&["server", "--config", "second.toml"]).expect(1);
    assert!(told.talk.contains("another agent already runs"), "{}", told.talk);
    assert!(told.talk.contains("stop it first"), "{}", told.talk);
}

fn refuse_missing_programs(demo: &Demo) {
    let version = member_dir(demo, "be2").join("postgres/data/PG_VERSION");
    let made_by = fs::read_to_string(&version).unwrap();
    let without = |config: &str| {
        let kept = config.lines().filter(|line| !line.starts_with("pg_bin_dir"));
        kept.collect::<Vec<&str>>().join("\n")
    };
    fs::write(&version, "9\n").unwrap();
    let config = fs::read_to_string(member_dir(demo, "be2").join("config.toml")).unwrap();
    demo.place.write("version.toml", &without(&config));
    let mut command = demo.place.command(&["server", "--config", "version.toml"]);
    let told = crate::place::Told::from(command.env_remove("BACKSTAY_PG_BIN").output().unwrap());
    assert_eq!(told.code, 1);
    assert!(told.talk.contains("were made by PostgreSQL 9, whose programs"), "{}", told.talk);
    fs::write(&version, made_by).unwrap();

    let nowhere = demo.place.path().join("nowhere");
    let _by_hand = agent(demo, &[], |config| {
        format!("pg_bin_dir = {:?}\n{}", nowhere.to_str().unwrap(), without(&config))
    });
    wait_for_problem(demo, "there is no program postgres", "set pg_bin_dir");
}

/// The machine's time since boot differs from one start of an agent to the next by a day.
fn outlive_a_clock_that_jumps(demo: &Demo) {
    demo.kill_and_see("be2");
    {
        let _ahead = agent(demo, &["unshare", "--time", "--boottime", "100000"], |config| config);
        demo.wait_until_armed();
        demo.run(&["pool", "failover", "pool01", "--to", "be2"]).expect(0);
        demo.wait("be2 serves", |pool| pool["principal"] == "be2");
        demo.wait_until_armed();
    }
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
}

#[test]
fn what_was_acknowledged_outlives_kill_9_of_every_process_alone_and_together() {
    let demo = Demo::start("edges-kill", &[]);
    demo.wait_until_armed();
    let uri = uri(&demo);
    let writer = Writer::start(&uri, 1);
    writer.goes_on();
    for (name, what) in [
        ("be1", "pid"),
        ("be1", "postmaster_pid"),
        ("be2", "pid"),
        ("be2", "postmaster_pid"),
        ("wit1", "pid"),
    ] {
        kill_process(pid(&demo, name, what), Signal::KILL).unwrap();
        if what == "pid" {
            demo.demo("restart", &[name]).expect(0);
        }
        demo.wait_until_armed();
        writer.goes_on();
    }
    for name in ["be1", "be2"] {
        adopt_what_a_killed_agent_left(&demo, name);
        writer.goes_on();
    }
    for pid in processes_of(demo.place.path()) {
        let _ = kill_process(pid, Signal::KILL);
    }
    demo.start_again(&[]);
    demo.wait_until_armed();
    writer.goes_on();
    let acknowledged = writer.finish();
    writer::all_there(&uri, &acknowledged);

    let supervisor = demo.status()["supervisor_pid"].as_i64().unwrap();
    let supervisor = Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap();
    kill_process(supervisor, Signal::TERM).unwrap();
    nothing_stays(&demo);
    end_a_demo_in_the_foreground(&demo);
    demo.start_again(&[]);
    writer::all_there(&uri, &acknowledged);
}

/// The agent alone is killed and started again, as a service manager would do it.
fn adopt_what_a_killed_agent_left(demo: &Demo, name: &str) {
    let postmaster = pid(demo, name, "postmaster_pid");
    kill_process(pid(demo, name, "pid"), Signal::KILL).unwrap();
    {
        let _by_hand = agent_of(demo, name, &[], |config| config);
        demo.wait("it answers", |pool| {
            let members = pool["members"].as_array().unwrap();
            members.iter().any(|one| one["name"] == name && one["answered"] == true)
        });
        demo.wait_until_armed();
        assert_eq!(pid(demo, name, "postmaster_pid"), postmaster, "{name} was not adopted");
    }
    demo.demo("restart", &[name]).expect(0);
    demo.wait_until_armed();
}

/// Ctrl-C.
fn end_a_demo_in_the_foreground(demo: &Demo) {
    let talk = fs::File::create(demo.place.path().join("talk")).unwrap();
    let mut command = demo.place.command(&["demo", "--dir", "demo"]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(talk);
    let mut shown = Held(quiet.spawn().unwrap());
    demo.wait("served again", |pool| pool["state"] != "not_served");
    kill_process(Pid::from_child(&shown.0), Signal::INT).unwrap();
    assert!(shown.0.wait().unwrap().success());
    nothing_stays(demo);
}

#[track_caller]
fn nothing_stays(demo: &Demo) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !processes_of(demo.place.path()).is_empty() {
        assert!(std::time::Instant::now() < deadline, "processes stay");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
