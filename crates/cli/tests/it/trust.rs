//! From nothing to servers that trust each other: the authority, tokens, and what is refused.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::deadline::processes_of;
use crate::place::{Place, Told};

const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["be1", "be2", "wit1"];

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three machines, and an administrator's with the authority.
struct Site {
    place: Place,
    /// The authority's.
    port: u16,
    /// Of each name: the members' port, and PostgreSQL's.
    ports: [[u16; 2]; 3],
    running: Vec<Child>,
}

impl Site {
    fn new(name: &str) -> Site {
        let place = Place::new(name);
        let ports = NAMES.map(|_| [(); 2].map(|()| free_port()));
        Site { place, port: free_port(), ports, running: Vec::new() }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command
            .env("XDG_CONFIG_HOME", self.place.path().join("config"))
            .env("BACKSTAY_DEPLOYMENT", self.place.path().join("deployment.toml"))
            .env_remove("BACKSTAY_AUTHORITY")
            .env_remove("BACKSTAY_TOKEN");
        command
    }

    fn run(&self, args: &[&str]) -> Told {
        Told::from(self.command(args).output().unwrap())
    }

    #[track_caller]
    fn expect(&self, code: i32, args: &[&str]) -> Told {
        let told = self.run(args);
        let said = format!("stdout:\n{}\nstderr:\n{}", told.data, told.talk);
        assert_eq!(told.code, code, "{args:?}\n{said}\n{}", self.logs());
        told
    }

    fn start(&mut self, log: &str, args: &[&str]) {
        let log = File::create(self.place.path().join(log)).unwrap();
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(command.spawn().unwrap());
    }

    fn logs(&self) -> String {
        let tail = |name: &&str| {
            let log = self.place.path().join(format!("{name}.log"));
            let whole = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        NAMES.iter().chain(&["authority"]).map(tail).collect()
    }

    /// The authority, and its service.
    fn found(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        self.expect(0, &["authority", "init", "test", "--address", &address]);
        self.start("authority.log", &["authority", "serve", "--listen", &address]);
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "{}", self.logs());
        }
        let other = format!("127.0.0.1:{}", free_port());
        let told = self.expect(1, &["authority", "serve", "--listen", &other]);
        assert!(told.talk.contains("served by another process"), "{}", told.talk);
    }

    fn token(&self, more: &[&str]) -> String {
        let args = [&["authority", "issue-token"], more].concat();
        self.expect(0, &args).data.trim().to_owned()
    }

    /// A person's certificate: the directory that it is in.
    fn person(&self, name: &str, role: &str) -> PathBuf {
        let token = self.token(&["--name", name, "--role", role]);
        let dir = self.dir(name);
        self.expect(0, &["join", "--token", &token, "--state-dir", dir.to_str().unwrap()]);
        dir.join("trust")
    }

    fn server_file(&self, name: &str, number: usize) -> String {
        let dir = self.dir(name);
        let partner = |place: &str, number: usize| {
            let [port, postgres] = self.ports[number];
            let more = if name == "wit1" {
                String::new()
            } else {
                format!(", postgres_port = {postgres}")
            };
            let name = NAMES[number];
            format!(
                "{place} = {{ name = \"{name}\", host = \"127.0.0.1\", port = {port}{more} }}\n"
            )
        };
        let mut text = format!(
            "name = \"{name}\"\ndeployment = \"test\"\nlisten = \"127.0.0.1:{}\"\n\
             state_dir = \"{}\"\n[[pool]]\nname = \"pool01\"\nprofile = \"fast\"\n{}{}",
            self.ports[number][0],
            dir.join("state").display(),
            partner("first", 0),
            partner("second", 1)
        );
        if name != "wit1" {
            let own = |what: &str| dir.join(what).display().to_string();
            text.push_str(&format!(
                "witness = {{ name = \"wit1\", host = \"127.0.0.1\", port = {} }}\n\
                 data_dir = \"{}\"\nfiles_dir = \"{}\"\nsocket_dir = \"{}\"\n\
                 postgres_listen = \"127.0.0.1\"\nsettings = {{ shared_buffers = \"16MB\" }}\n",
                self.ports[2][0],
                own("data"),
                own("files"),
                own("run")
            ));
        }
        text
    }

    /// Every machine joins, and its process starts.
    fn join(&mut self) {
        let mut deployment = "name = \"test\"\n".to_owned();
        for (number, name) in NAMES.into_iter().enumerate() {
            let dir = self.dir(name);
            fs::create_dir_all(&dir).unwrap();
            let kind = if name == "wit1" { "witness" } else { "server" };
            let token = self.token(&["--name", name, "--role", kind, "--host", "127.0.0.1"]);
            let state = dir.join("state");
            self.expect(0, &["join", "--token", &token, "--state-dir", state.to_str().unwrap()]);
            if rustix::process::geteuid().is_root() {
                let own = Command::new("chown").arg("postgres").arg(&dir).status();
                assert!(own.unwrap().success());
            }
            let file = self.place.write(&format!("{name}.toml"), &self.server_file(name, number));
            self.start(&format!("{name}.log"), &[kind, "--config", file.to_str().unwrap()]);
            deployment.push_str(&format!(
                "[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{}\"\n",
                self.ports[number][0]
            ));
        }
        deployment.push_str(
            "[[pool]]\nname = \"pool01\"\nfirst = \"be1\"\nsecond = \"be2\"\nwitness = \"wit1\"\n",
        );
        self.place.write("deployment.toml", &deployment);
    }

    fn status(&self) -> Value {
        self.run(&["pool", "status", "pool01", "--json"]).json()
    }

    #[track_caller]
    fn wait(&self, what: &str, good: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if good(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#}\n{}", self.logs());
        }
    }

    fn all_answer(&self) {
        self.wait("all answer", |status| {
            let members = status["members"].as_array();
            members.is_some_and(|all| all.iter().all(|member| member["answered"] == true))
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = kill_process(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
        for pid in processes_of(self.place.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn is_mirrored(status: &Value) -> bool {
    status["state"] == "mirrored" && status["automatic_failover"]["armed"] == true
}

#[test]
fn three_machines_join_and_mirror_and_only_who_may_is_let_in() {
    let mut site = Site::new("trust");
    site.found();
    site.join();
    site.all_answer();
    site.expect(0, &["pool", "create", "pool01"]);
    site.wait("mirrored", is_mirrored);

    // Who only looks, looks.
    let reader = site.person("rita", "read-only-administrator");
    let reader = reader.to_str().unwrap();
    site.expect(0, &["pool", "status", "pool01", "--trust", reader]);
    let told = site.expect(1, &["pool", "suspend", "pool01", "--trust", reader]);
    assert!(told.talk.contains("rita has the role read-only-administrator"), "{}", told.talk);
    assert_eq!(site.status()["state"], "mirrored");

    site.expect(0, &["pool", "failover", "pool01"]);
    site.wait("be2 serves", |status| status["principal"] == "be2" && is_mirrored(status));

    // Both are told in the trail, by name.
    let trail = site.expect(0, &["audit", "--json"]).json();
    let has = |who: &str, what: &str, outcome: &str| {
        trail["entries"].as_array().unwrap().iter().any(|entry| {
            (entry["who"] == who) && entry["what"]["request"] == what && entry["outcome"] == outcome
        })
    };
    assert!(has("rita", "suspend", "not_permitted"), "{trail:#}");
    assert!(has("administrator", "failover", "begun"), "{trail:#}");

    // A revoked one is not let in any more, whatever he asks.
    let second = site.person("olga", "administrator");
    let second = second.to_str().unwrap();
    let ask = ["pool", "suspend", "pool01", "--trust", second];
    let look = ["audit", "--json", "--trust", second];
    site.expect(0, &look);
    for name in NAMES {
        fs::write(site.dir(name).join("state/trust/revoked"), "olga\n").unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    let refuses = |missing: &Value| missing["problem"].as_str().unwrap().contains("revoked");
    loop {
        let trail = site.run(&look).json();
        let missing = trail["missing"].as_array().unwrap();
        // Whoever is cut off in the middle of a question hears no reason; the next time he does.
        if missing.len() == NAMES.len() && missing.iter().all(refuses) {
            break;
        }
        assert!(Instant::now() < deadline, "{missing:#?}\n{}", site.logs());
    }
    let told = site.expect(1, &ask);
    assert!(told.talk.contains("revoked"), "{}", told.talk);
    assert!(is_mirrored(&site.status()), "nobody else was affected");

    // A member, too: its link ends.
    fs::write(site.dir("be2").join("state/trust/revoked"), "olga\nwit1\n").unwrap();
    site.wait("the witness's link ends", |status| status["witness"]["connected"] == false);
    fs::write(site.dir("be2").join("state/trust/revoked"), "olga\n").unwrap();
    site.wait("and comes back", is_mirrored);
}

#[test]
fn a_token_is_good_once_and_for_its_time() {
    let mut site = Site::new("tokens");
    site.found();
    let join = |site: &Site, token: &str, to: &str| {
        let dir = site.dir(to);
        site.run(&["join", "--token", token, "--state-dir", dir.to_str().unwrap()])
    };
    let token = site.token(&["--name", "be1", "--role", "server"]);
    join(&site, &token, "first").expect(0);
    join(&site, &token, "first").expect(0);
    let told = join(&site, &token, "second").expect(1);
    assert!(told.talk.contains("used already"), "{}", told.talk);
    assert!(!site.dir("second").join("trust/identity.pem").exists());

    // The invitation's time is in the authority's directory: let it be over.
    let token = site.token(&["--name", "be2", "--role", "server"]);
    let tokens = site.place.path().join("config/backstay/test/authority/tokens");
    for file in fs::read_dir(tokens).unwrap() {
        let file = file.unwrap().path();
        let mut invitation: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        invitation["expires_s"] = Value::from(1_000);
        fs::write(&file, serde_json::to_vec(&invitation).unwrap()).unwrap();
    }
    let told = join(&site, &token, "third").expect(1);
    assert!(told.talk.contains("time is over"), "{}", told.talk);
    let told = join(&site, &token[..token.len() - 3], "third").expect(1);
    assert!(told.talk.contains("not complete"), "{}", told.talk);
}
