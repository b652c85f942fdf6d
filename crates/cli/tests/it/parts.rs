//! Parts come, change and go while the processes run and clients write: SIGHUP after the file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::deadline::processes_of;
use crate::place::{Place, Told};
use crate::writer::{Writer, all_there, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A pool as the test's files describe it.
#[derive(Clone)]
pub struct Pool {
    pub name: &'static str,
    pub first: &'static str,
    pub second: Option<&'static str>,
    pub witness: Option<&'static str>,
    pub settings: &'static str,
    /// Tells the pools' ports and directories apart.
    pub number: usize,
}

/// Servers and witnesses that a test starts, with files that it writes.
pub struct Site {
    place: Place,
    names: Vec<&'static str>,
    /// Of each name: the members' port, and PostgreSQL's of two pools.
    ports: Vec<[u16; 3]>,
    running: Vec<(&'static str, Child)>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Site {
    pub fn new(name: &str, names: &[&'static str]) -> Site {
        let place = Place::new(name);
        place.write("password", "its-own");
        let ports = names.iter().map(|_| [(); 3].map(|()| free_port())).collect();
        let site = Site { place, names: names.to_vec(), ports, running: Vec::new() };
        for name in names {
            fs::create_dir_all(site.dir(name)).unwrap();
            if rustix::process::geteuid().is_root() {
                let own = Command::new("chown").arg("postgres").arg(site.dir(name)).status();
                assert!(own.unwrap().success());
            }
        }
        site
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn ports(&self, name: &str) -> [u16; 3] {
        self.ports[self.names.iter().position(|known| *known == name).unwrap()]
    }

    /// Writes what `name` is to have, and what commands are to know.
    pub fn write(&self, name: &str, pools: &[&Pool]) {
        let dir = self.dir(name);
        let mut text = format!(
            "name = \"{name}\"\ndeployment = \"test\"\nlisten = \"127.0.0.1:{}\"\n\
             state_dir = \"{}\"\n",
            self.ports(name)[0],
            dir.join("state").display()
        );
        let is_witness = name.starts_with("wit");
        if !is_witness {
            text.push_str("stop_postgres = true\n");
        }
        for pool in pools {
            text.push_str(&format!("[[pool]]\nname = \"{}\"\nprofile = \"fast\"\n", pool.name));
            for (place, partner) in [("first", Some(pool.first)), ("second", pool.second)] {
                let Some(partner) = partner else { continue };
                let [port, postgres @ ..] = self.ports(partner);
                let more = match is_witness {
                    true => String::new(),
                    false => format!(", postgres_port = {}", postgres[pool.number]),
                };
                text.push_str(&format!(
                    "{place} = {{ name = \"{partner}\", host = \"127.0.0.1\", \
                     port = {port}{more} }}\n"
                ));
            }
            if !is_witness {
                text.push_str(&self.server_pool(&dir, pool));
            }
        }
        self.place.write(&format!("{name}.toml"), &text);
    }

    fn server_pool(&self, dir: &Path, pool: &Pool) -> String {
        let own = |what: &str| dir.join(format!("{what}{}", pool.number)).display().to_string();
        let shared = |what: &str| self.place.path().join(what).display().to_string();
        let mut text = format!(
            "data_dir = \"{}\"\nfiles_dir = \"{}\"\nsocket_dir = \"{}\"\nsecret_file = \"{}\"\n\
             postgres_listen = \"127.0.0.1\"\nconverge = true\n",
            own("data"),
            own("files"),
            own("run"),
            shared(&format!("secret{}", pool.number)),
        );
        if let Some(witness) = pool.witness {
            text.push_str(&format!(
                "witness = {{ name = \"{witness}\", host = \"127.0.0.1\", port = {} }}\n",
                self.ports(witness)[0]
            ));
        }
        text.push_str(&format!(
            "databases = [{{ name = \"shop\", owner = \"shop\", password_file = \"{}\" }}]\n\
             settings = {{ shared_buffers = \"16MB\"{} }}\n",
            shared("password"),
            pool.settings
        ));
        text
    }

    pub fn start(&mut self, name: &'static str) {
        let kind = if name.starts_with("wit") { "witness" } else { "server" };
        let config = self.place.path().join(format!("{name}.toml"));
        let log = File::options().create(true).append(true).open(self.log(name)).unwrap();
        let mut command = self.place.command(&[kind, "--config"]);
        command.arg(config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push((name, command.spawn().unwrap()));
    }

    fn log(&self, name: &str) -> PathBuf {
        self.place.path().join(format!("{name}.log"))
    }

    fn signal(&self, name: &str, signal: Signal) {
        let (_, child) = self.running.iter().find(|(known, _)| *known == name).unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn reload(&self, names: &[&str]) {
        for name in names {
            self.signal(name, Signal::HUP);
        }
    }

    /// Ends a server with its PostgreSQL, in good order.
    pub fn stop(&mut self, name: &str) {
        self.signal(name, Signal::TERM);
        let place = self.running.iter().position(|(known, _)| *known == name).unwrap();
        let (_, mut child) = self.running.remove(place);
        assert!(child.wait().unwrap().success());
    }

    /// Runs a command that is told of these pools.
    pub fn command(&self, pools: &[&Pool], args: &[&str]) -> Told {
        let mut text = "name = \"test\"\n".to_owned();
        for name in &self.names {
            let port = self.ports(name)[0];
            text.push_str(&format!(
                "[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n"
            ));
        }
        for pool in pools {
            let second = pool.second.unwrap_or("be2");
            text.push_str(&format!(
                "[[pool]]\nname = \"{}\"\nfirst = \"{}\"\nsecond = \"{second}\"\n",
                pool.name, pool.first
            ));
            if let Some(witness) = pool.witness {
                text.push_str(&format!("witness = \"{witness}\"\n"));
            }
        }
        let file = self.place.write("deployment.toml", &text);
        let mut command = self.place.command(args);
        Told::from(command.env("BACKSTAY_DEPLOYMENT", file).output().unwrap())
    }

    pub fn status(&self, pool: &Pool) -> Value {
        self.command(&[pool], &["pool", "status", pool.name, "--json"]).json()
    }

    /// What the first partner says of its session.
    #[track_caller]
    pub fn wait(&self, pool: &Pool, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(pool);
            let session = &member(&status, pool.first)["session"];
            if good(session) {
                return session.clone();
            }
            assert!(Instant::now() < deadline, "{what}: {status:#}\n{}", self.logs());
        }
    }

    #[track_caller]
    pub fn wait_until_mirrored(&self, pool: &Pool) -> Value {
        self.wait(pool, "mirrored", |session| {
            let record = &session["record"];
            session["serving"] == true
                && record["protection"] == "mirrored"
                && record["members"]["witness"].as_str() == pool.witness
                && record["members"]["changing"] == false
                && session["mirror"]["streaming"] == true
        })
    }

    #[track_caller]
    fn wait_until_logged(&self, name: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(self.log(name)).unwrap().contains(words) {
            assert!(Instant::now() < deadline, "{name} does not say {words:?}\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn uri(&self, pool: &Pool, servers: &[&str]) -> String {
        let hosts: Vec<String> = servers
            .iter()
            .map(|name| format!("127.0.0.1:{}", self.ports(name)[1 + pool.number]))
            .collect();
        format!(
            "postgres://shop:its-own@{}/shop?target_session_attrs=read-write&connect_timeout=1",
            hosts.join(",")
        )
    }

    fn logs(&self) -> String {
        let tail = |name: &&str| {
            let whole = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        self.names.iter().map(tail).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in processes_of(self.place.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn member<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["members"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

fn alarmed(session: &Value, code: &str) -> bool {
    session["alarms"].as_array().is_some_and(|all| all.iter().any(|it| it["code"] == code))
}

pub const ONE: Pool = Pool {
    name: "pool01",
    first: "be1",
    second: Some("be2"),
    witness: Some("wit1"),
    settings: "",
    number: 0,
};

#[test]
fn a_second_pool_another_witness_and_other_settings_come_while_clients_write() {
    let mut site = Site::new("parts", &["be1", "be2", "wit1", "wit2"]);
    for name in ["be1", "be2", "wit1"] {
        site.write(name, &[&ONE]);
        site.start(name);
    }
    site.write("wit2", &[]);
    site.start("wit2");
    site.wait(&ONE, "it answers", |session| session["role"] == "not_created");
    site.command(&[&ONE], &["pool", "create", "pool01"]).expect(0);
    let before = site.wait_until_mirrored(&ONE);
    let uri = site.uri(&ONE, &["be1", "be2"]);
    let writer = Writer::start(&uri, 1);
    writer.goes_on();

    let two = Pool { name: "pool02", number: 1, ..ONE };
    for name in ["be1", "be2", "wit1"] {
        site.write(name, &[&ONE, &two]);
    }
    site.reload(&["be1", "be2", "wit1"]);
    site.wait(&two, "the second pool is there", |session| session["role"] == "not_created");
    site.command(&[&two], &["pool", "create", "pool02"]).expect(0);
    site.wait_until_mirrored(&two);
    let second_uri = site.uri(&two, &["be1", "be2"]);
    let second_writer = Writer::start(&second_uri, 1);
    second_writer.goes_on();

    // A file with mistakes changes nothing.
    site.place.write("be1.toml", "name = \"be1\"\nnonsense = 1\n");
    site.reload(&["be1"]);
    site.wait_until_logged("be1", "the configuration is refused");
    writer.goes_on();

    let replaced = Pool {
        witness: Some("wit2"),
        settings: ", work_mem = \"7MB\", max_connections = \"90\"",
        ..ONE
    };
    for name in ["be1", "be2"] {
        site.write(name, &[&replaced, &two]);
    }
    site.write("wit1", &[&two]);
    site.write("wit2", &[&replaced]);
    site.reload(&["wit2", "wit1", "be1", "be2"]);
    let after = site.wait_until_mirrored(&replaced);
    assert_eq!(after["term"], before["term"], "nobody failed over");
    site.wait(&replaced, "a restart is waited for", |session| alarmed(session, "settings_wait"));
    run(&uri, "DO $$ BEGIN ASSERT current_setting('work_mem') = '7MB'; END $$").unwrap();
    site.wait_until_logged("wit1", "takes part in the pool no more");
    site.wait_until_mirrored(&two);
    writer.goes_on();
    second_writer.goes_on();
    all_there(&uri, &writer.finish());
    all_there(&second_uri, &second_writer.finish());
}

#[test]
fn a_mirror_is_removed_added_and_moved_while_clients_write() {
    let mut site = Site::new("partners", &["be1", "be2", "be3", "wit1"]);
    for name in ["be1", "be2", "wit1"] {
        site.write(name, &[&ONE]);
        site.start(name);
    }
    site.write("be3", &[]);
    site.start("be3");
    site.wait(&ONE, "it answers", |session| session["role"] == "not_created");
    site.command(&[&ONE], &["pool", "create", "pool01"]).expect(0);
    site.wait_until_mirrored(&ONE);
    let uri = site.uri(&ONE, &["be1"]);
    let writer = Writer::start(&uri, 1);
    writer.goes_on();

    let alone = Pool { second: None, witness: None, ..ONE };
    site.write("be1", &[&alone]);
    site.write("be2", &[]);
    site.write("wit1", &[]);
    site.reload(&["be2", "wit1", "be1"]);
    let is_alone =
        |session: &Value| session["mirroring"] == "not_mirrored" && session["serving"] == true;
    site.wait(&alone, "it serves alone", is_alone);
    site.wait_until_logged("be2", "takes part in the pool no more");
    site.wait_until_logged("wit1", "takes part in the pool no more");
    writer.goes_on();

    site.stop("be1");
    site.start("be1");
    site.wait(&alone, "it serves alone after a restart", is_alone);
    writer.goes_on();

    let moved = Pool { second: Some("be3"), ..ONE };
    for name in ["be1", "be3", "wit1"] {
        site.write(name, &[&moved]);
    }
    site.reload(&["be1", "be3", "wit1"]);
    site.wait_until_mirrored(&moved);
    writer.goes_on();

    for name in ["be1", "be2", "wit1"] {
        site.write(name, &[&ONE]);
    }
    site.write("be3", &[]);
    site.reload(&["be1", "be2", "be3", "wit1"]);
    site.wait_until_logged("be3", "takes part in the pool no more");
    site.wait_until_mirrored(&ONE);
    writer.goes_on();
    all_there(&uri, &writer.finish());
}
