//! `backstay topology` from the first draft on, with real processes and a client that writes.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::deadline::processes_of;
use crate::place::{Place, Told};
use crate::writer::{Writer, all_there};

const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 5] = ["be1", "be2", "be3", "wit1", "wit2"];

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Prepared machines: agents that run with nothing to do.
struct Site {
    place: Place,
    /// Of each: the members' port, and PostgreSQL's of two pools.
    ports: [[u16; 3]; 5],
    running: Vec<Child>,
}

impl Site {
    fn new(name: &str) -> Site {
        let place = Place::new(name);
        let ports = NAMES.map(|_| [(); 3].map(|()| free_port()));
        let mut site = Site { place, ports, running: Vec::new() };
        for name in NAMES {
            let dir = site.place.path().join(name);
            fs::create_dir_all(&dir).unwrap();
            site.write_own_file(name);
            if !name.starts_with("wit") {
                for pool in ["pool01", "pool02"] {
                    // Without certificates the servers know each other by a password.
                    let files = dir.join(pool).join("backstay");
                    fs::create_dir_all(&files).unwrap();
                    fs::write(files.join("secret"), "*:*:*:backstay:known-to-both\n").unwrap();
                    own(&["-R", "postgres"], &dir);
                    let only_mine = fs::Permissions::from_mode(0o600);
                    fs::set_permissions(files.join("secret"), only_mine).unwrap();
                }
            }
            site.start(name);
        }
        site
    }

    fn ports(&self, name: &str) -> [u16; 3] {
        self.ports[NAMES.iter().position(|known| *known == name).unwrap()]
    }

    fn write_own_file(&self, name: &str) {
        let state_dir = self.place.path().join(format!("{name}-state"));
        let text = format!(
            "name = \"{name}\"\ndeployment = \"test\"\nlisten = \"127.0.0.1:{}\"\n\
             state_dir = \"{}\"\n",
            self.ports(name)[0],
            state_dir.display()
        );
        self.place.write(&format!("{name}.toml"), &text);
    }

    fn start(&mut self, name: &'static str) {
        let kind = if name.starts_with("wit") { "witness" } else { "server" };
        let log = File::create(self.log(name)).unwrap();
        let mut command = self.place.command(&[kind, "--config", &format!("{name}.toml")]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(command.spawn().unwrap());
    }

    fn log(&self, name: &str) -> PathBuf {
        self.place.path().join(format!("{name}.log"))
    }

    fn logs(&self) -> String {
        let tail = |name: &&str| {
            let whole = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        NAMES.iter().map(tail).collect()
    }

    fn run(&self, args: &[&str]) -> Told {
        let mut command = self.place.command(args);
        command.env("BACKSTAY_DEPLOYMENT", self.place.path().join("topology.toml"));
        Told::from(command.output().unwrap())
    }

    #[track_caller]
    fn expect(&self, code: i32, args: &[&str]) -> Told {
        let told = self.run(args);
        let said = format!("stdout:\n{}\nstderr:\n{}", told.data, told.talk);
        assert_eq!(told.code, code, "{args:?}\n{said}\n{}", self.logs());
        told
    }

    #[track_caller]
    fn publish(&self, comment: &str) -> Told {
        let publish = ["topology", "publish", "topology.toml", "--yes", "--wait", "90"];
        self.expect(0, &[publish.as_slice(), &["--comment", comment]].concat())
    }

    fn document(&self) -> String {
        fs::read_to_string(self.place.path().join("topology.toml")).unwrap()
    }

    /// Changes the document where `place` is, which is there once.
    #[track_caller]
    fn edit(&self, place: &str, to: &str) {
        let text = self.document();
        assert_eq!(text.matches(place).count(), 1, "{place:?} is there once in\n{text}");
        self.place.write("topology.toml", &text.replace(place, to));
    }

    /// What people would add because all of it is on one machine.
    fn settle_on_one_machine(&self) {
        for name in ["be1", "be2", "wit1"] {
            self.edit(&format!("\"{name}.example\""), "\"127.0.0.1\"");
        }
        for name in ["be1", "be2"] {
            let place = format!("name = \"{name}\"\nhost = \"127.0.0.1\"\n");
            self.edit(&place, &format!("{place}{}", self.of_server(name)));
        }
        let witness = "name = \"wit1\"\nhost = \"127.0.0.1\"\n";
        self.edit(witness, &format!("{witness}port = {}\n", self.ports("wit1")[0]));
        let third = format!(
            "[[server]]\nname = \"be3\"\nhost = \"127.0.0.1\"\n{}\n[[witness]]\nname = \"wit2\"\n\
             host = \"127.0.0.1\"\nport = {}\n\n",
            self.of_server("be3"),
            self.ports("wit2")[0]
        );
        let text = self.document();
        let at = text.find("[[witness]]").unwrap();
        self.place.write("topology.toml", &format!("{}{third}{}", &text[..at], &text[at..]));
        let pool = "[[pool]]\nname = \"pool01\"\n";
        self.edit(pool, &format!("{pool}{}", self.of_pool(0)));
    }

    fn of_server(&self, name: &str) -> String {
        let root = self.place.path().join(name);
        let port = self.ports(name)[0];
        format!("port = {port}\nroot = \"{}\"\npostgres_listen = \"127.0.0.1\"\n", root.display())
    }

    fn of_pool(&self, number: usize) -> String {
        let port = |name| format!("{name} = {}", self.ports(name)[1 + number]);
        let ports = ["be1", "be2"].map(port).join(", ");
        format!(
            "port_on = {{ {ports} }}\nsocket_dir = \"{}\"\nprofile = \"fast\"\n\
             client_access = [\"host all all 127.0.0.1/32 trust\"]\n\
             settings = {{ shared_buffers = \"16MB\" }}\n",
            self.place.path().join("run").display()
        )
    }

    fn uri(&self, number: usize, database: &str) -> String {
        let host = |name: &&str| format!("127.0.0.1:{}", self.ports(name)[1 + number]);
        let hosts: Vec<String> = ["be1", "be2", "be3"].iter().map(host).collect();
        format!(
            "postgres://{database}@{}/{database}?target_session_attrs=read-write&connect_timeout=1",
            hosts.join(",")
        )
    }

    fn pool(&self, pool: &str) -> Value {
        self.run(&["pool", "status", pool, "--json"]).json()
    }

    #[track_caller]
    fn is_mirrored(&self, pool: &str, servers: [&str; 2], witness: Option<&str>) {
        let status = self.pool(pool);
        assert_eq!(status["state"], "mirrored", "{status:#}\n{}", self.logs());
        assert_eq!(status["witness"]["name"].as_str(), witness);
        let found = [&status["principal"], &status["mirror"]].map(|it| it.as_str().unwrap());
        assert!(servers.iter().all(|server| found.contains(server)), "{found:?}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in processes_of(self.place.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn own(args: &[&str], dir: &std::path::Path) {
    if rustix::process::geteuid().is_root() {
        assert!(Command::new("chown").args(args).arg(dir).status().unwrap().success());
    }
}

fn new_document(site: &Site) {
    let servers = ["--server", "be1=be1.example", "--server", "be2=be2.example"];
    let others = ["--witness", "wit1=wit1.example", "--pool", "pool01", "--database", "shop"];
    site.expect(0, &[["topology", "new", "--name", "test"].as_slice(), &servers, &others].concat());
    site.settle_on_one_machine();
}

#[test]
fn a_deployment_is_published_and_changed_while_clients_write() {
    let mut site = Site::new("topology");
    new_document(&site);
    let told = site.expect(0, &["topology", "plan", "topology.toml"]);
    assert!(told.data.contains("pool01 is set up on be1, mirrored on be2"), "{}", told.data);
    site.publish("the beginning");
    site.is_mirrored("pool01", ["be1", "be2"], Some("wit1"));
    let writer = Writer::start(&site.uri(0, "shop"), 1);
    writer.goes_on();

    // A second pool on the same servers, by one command.
    let second = format!(
        "\n[[pool]]\nname = \"pool02\"\nprincipal = \"be2\"\nmirror = \"be1\"\nwitness = \"wit1\"\n\
         {}\n[[pool.database]]\nname = \"depot\"\n",
        site.of_pool(1)
    );
    site.place.write("topology.toml", &(site.document() + &second));
    site.publish("a second pool");
    site.is_mirrored("pool02", ["be1", "be2"], Some("wit1"));
    writer.goes_on();

    let term = site.pool("pool01")["term"].clone();
    let principal = "principal = \"be1\"\nmirror = \"be2\"\n";
    let with = |more: &str| format!("{principal}{more}");
    site.edit(&with("witness = \"wit1\"\n"), &with("witness = \"wit2\"\n"));
    site.publish("another witness");
    site.is_mirrored("pool01", ["be1", "be2"], Some("wit2"));
    site.edit(&with("witness = \"wit2\"\n"), principal);
    site.publish("no witness");
    site.is_mirrored("pool01", ["be1", "be2"], None);
    site.edit(principal, &with("witness = \"wit1\"\n"));
    site.publish("a witness again");
    site.is_mirrored("pool01", ["be1", "be2"], Some("wit1"));
    assert_eq!(site.pool("pool01")["term"], term, "nobody failed over");
    writer.goes_on();

    let before = site.document();
    let port = |name: &str| format!("{name} = {}", site.ports(name)[1]);
    let both = format!("{}, {}", port("be1"), port("be2"));
    let of_mirror = ["method = \"mirroring\"\n", "mirror = \"be2\"\nwitness = \"wit1\"\n"];
    site.edit(of_mirror[0], "method = \"none\"\n");
    site.edit(of_mirror[1], "");
    site.edit(&both, &port("be1"));
    site.publish("without a mirror");
    assert_eq!(site.pool("pool01")["mirroring"], "not_mirrored");
    writer.goes_on();

    // Interrupted, and gone on with by the same command.
    let moved = format!("{}, {}", port("be1"), port("be3"));
    site.place.write("topology.toml", &before.replace(&both, &moved));
    site.edit(of_mirror[1], "mirror = \"be3\"\nwitness = \"wit1\"\n");
    interrupted(&site);
    site.publish("");
    site.is_mirrored("pool01", ["be1", "be3"], Some("wit1"));
    writer.goes_on();
    all_there(&site.uri(0, "shop"), &writer.finish());
    looked_back_at(&site);
    refused_while_nobody_serves(&mut site);
}

/// What a publisher is told while the store is away; what is published stays known.
fn refused_while_nobody_serves(site: &mut Site) {
    for name in ["be1", "be3"] {
        let place = NAMES.iter().position(|known| *known == name).unwrap();
        site.running[place].kill().unwrap();
        site.running[place].wait().unwrap();
    }
    site.edit("name = \"shop\"\n", "name = \"shop\"\npurpose = \"orders\"\n");
    let told = site.expect(1, &["topology", "publish", "topology.toml", "--yes"]);
    assert!(told.talk.contains("the Central Management store cannot take it"), "{}", told.talk);
    assert!(told.talk.contains("nothing was changed"), "{}", told.talk);
    site.expect(0, &["topology", "show"]);
    assert_eq!(site.expect(0, &["topology", "history", "--json"]).json()["source"], "copies");
}

/// A publication that somebody ends as soon as it is stored.
fn interrupted(site: &Site) {
    let talk = site.place.path().join("talk");
    let mut command = site.place.command(&["topology", "publish", "topology.toml", "--yes"]);
    command.stdout(Stdio::null()).stderr(File::create(&talk).unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&talk).unwrap().contains("is published") {
        assert!(Instant::now() < deadline, "{}", site.logs());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    let talk = fs::read_to_string(&talk).unwrap();
    assert!(talk.contains("to watch on: "), "{talk}");
}

/// What was published, by whom and why; and who has it.
fn looked_back_at(site: &Site) {
    let history = site.expect(0, &["topology", "history", "--json"]).json();
    let versions = history["versions"].as_array().unwrap();
    assert_eq!(history["source"], "store");
    assert_eq!(versions.len(), 7, "{history:#}");
    assert_eq!(versions[5]["comment"], "a second pool");
    let shown = site.expect(0, &["topology", "show", "--version", "1"]);
    assert!(shown.data.contains("# Who is principal and mirror"), "{}", shown.data);
    let differs = site.expect(0, &["topology", "diff", "2", "3"]);
    assert_eq!(differs.data, "~ pool.pool01.witness = \"wit2\" (was \"wit1\")\n");
    let replication = site.expect(0, &["topology", "replication", "--json"]).json();
    assert!(replication["processes"].as_array().unwrap().len() >= 5, "{replication:#}");

    // Whoever works on an old version is told who was faster.
    site.expect(0, &["topology", "export", "--output", "mine.toml"]);
    site.expect(1, &["topology", "export", "--output", "mine.toml"]);
    site.edit("name = \"depot\"\n", "name = \"depot\"\npurpose = \"what is in stock\"\n");
    site.publish("a purpose");
    let publish = ["topology", "publish", "mine.toml", "--yes"];
    let told = site.expect(1, &publish);
    assert!(told.talk.contains("made from version 7"), "{}", told.talk);
    assert!(told.talk.contains("version 8 was published by"), "{}", told.talk);
    site.expect(0, &["topology", "rollback", "7", "--yes", "--wait", "60"]);
    let differs = site.expect(0, &["topology", "diff", "7", "9"]);
    assert_eq!(differs.data, "no value differs\n");
}

#[test]
fn a_document_is_drafted_and_checked_without_any_server() {
    let place = Place::new("draft");
    let new = ["topology", "new", "--name", "test", "--server", "be1=be1.example.com"];
    let told = place.run(&[new.as_slice(), &["--pool", "p"]].concat()).expect(0);
    assert_eq!(told.data, "topology.toml\n");
    let told = place.run(&[new.as_slice(), &["--pool", "p"]].concat()).expect(1);
    assert!(told.talk.contains("is not overwritten"), "{}", told.talk);
    place.run(&[new.as_slice(), &["other.toml"]].concat()).expect(1);
    place.run(&["topology", "check", "topology.toml"]).expect(0);
    let whole = fs::read_to_string(place.path().join("topology.toml")).unwrap();
    place.write("bad.toml", &whole.replace("principal = \"be1\"", "principal = \"be7\""));
    let told = place.run(&["topology", "check", "bad.toml", "--json"]).expect(1);
    assert_eq!(told.json()["errors"], 1);
    let told = place.run(&["topology", "plan", "bad.toml"]).expect(1);
    assert!(told.talk.contains("be7"), "{}", told.talk);
    assert!(place.run(&["topology", "schema"]).expect(0).json()["$schema"].is_string());
    let differs = place.run(&["topology", "diff", "topology.toml", "bad.toml"]).expect(0);
    assert_eq!(differs.data, "~ pool.p.principal = \"be7\" (was \"be1\")\n");
}

#[test]
fn nothing_is_published_unasked_or_to_servers_that_are_not_there() {
    let place = Place::new("unasked");
    let text = format!(
        "format = 1\ndeployment = \"test\"\ncentral_management = \"p\"\n[[server]]\nname = \"be1\"\n\
         host = \"127.0.0.1\"\nport = {}\n[[pool]]\nname = \"p\"\nmethod = \"none\"\n\
         principal = \"be1\"\n",
        free_port()
    );
    place.write("topology.toml", &text);
    let told = place.run(&["topology", "publish", "topology.toml", "--yes"]).expect(1);
    assert!(told.data.contains("[unreachable]"), "{}", told.data);
    assert!(told.talk.contains("nothing was changed"), "{}", told.talk);
    let told = place.run(&["topology", "show", "--deployment", "topology.toml"]).expect(1);
    assert!(told.talk.contains("nothing is published in test"), "{}", told.talk);
    let told = place.run(&["pool", "status", "p", "--deployment", "topology.toml"]).expect(4);
    assert!(told.data.contains("be1"), "{}", told.data);
}
