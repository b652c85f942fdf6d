//! An existing PostgreSQL is taken over with its data while a client writes, and given back.

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

/// A server as its administrator has it, and the agents that are to take it over.
struct Yard {
    place: Place,
    port: u16,
    other_port: u16,
    agents: Vec<(&'static str, u16, Child)>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("BACKSTAY_PG_BIN") {
        return PathBuf::from(dir);
    }
    let entries = fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let dirs = entries.map(|entry| entry.path().join("bin"));
    dirs.filter(|dir| dir.join("postgres").exists()).max().unwrap()
}

/// A program that PostgreSQL's user runs.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command
}

#[track_caller]
fn done(mut command: Command) -> String {
    // A server that it starts would keep a pipe open.
    let path = std::env::temp_dir().join(format!("backstay-done-{}", free_port()));
    let file = File::create(&path).unwrap();
    let also = file.try_clone().unwrap();
    let status = command.stdin(Stdio::null()).stdout(file).stderr(also).status().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(status.success(), "{command:?}\n{text}");
    text
}

impl Yard {
    fn new(name: &str) -> Yard {
        let place = Place::new(name);
        if rustix::process::geteuid().is_root() {
            let own = Command::new("chown").arg("postgres").arg(place.path()).status();
            assert!(own.unwrap().success());
        }
        let (port, other_port) = (free_port(), free_port());
        Yard { place, port, other_port, agents: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn postgres(&self, program: &str) -> Command {
        let mut command = as_postgres(&bin_dir().join(program));
        command.current_dir("/");
        command
    }

    /// A server made by hand, on its second timeline, with settings and rules of its own.
    fn make_plain(&self) {
        let data = self.path("data");
        let mut initdb = self.postgres("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "--no-sync", "--auth=trust"]);
        done(initdb);
        let port = self.port;
        let dir = self.place.path().display();
        self.add(
            "data/postgresql.conf",
            &format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{dir}'\n\
             work_mem = '7MB'\nmax_connections = 55\nmax_wal_senders = 12\nfsync = off\n"
            ),
        );
        let rules = "local all all peer\nhost all shop 127.0.0.1/32 scram-sha-256\n\
                     local replication all peer\n";
        fs::write(self.path("data/pg_hba.conf"), rules).unwrap();
        self.start_by_hand();
        let mut stop = self.postgres("pg_ctl");
        stop.args(["stop", "-w", "-m", "fast", "-D"]).arg(&data);
        done(stop);
        done({
            let mut touch = as_postgres(Path::new("touch"));
            touch.arg(self.path("data/standby.signal"));
            touch
        });
        self.start_by_hand();
        let mut promote = self.postgres("pg_ctl");
        promote.args(["promote", "-w", "-D"]).arg(&data);
        done(promote);
        self.fill();
    }

    fn add(&self, file: &str, text: &str) {
        let path = self.path(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{before}{text}")).unwrap();
    }

    fn start_by_hand(&self) {
        let mut start = self.postgres("pg_ctl");
        start.args(["start", "-w", "-D"]).arg(self.path("data")).arg("-l").arg(self.path("log"));
        done(start);
    }

    fn fill(&self) {
        self.sql("CREATE ROLE shop LOGIN PASSWORD 'its-own'");
        self.sql("CREATE DATABASE shop OWNER shop");
        self.sql("ALTER SYSTEM SET maintenance_work_mem = '33MB'");
        self.sql("SELECT pg_reload_conf()");
        self.sql("CREATE TABLE old AS SELECT generate_series(1, 1000) AS number");
    }

    /// Asks the server as its own administrator does.
    #[track_caller]
    fn sql(&self, statement: &str) -> String {
        self.sql_at(self.port, self.place.path(), statement)
    }

    #[track_caller]
    fn sql_at(&self, port: u16, socket_dir: &Path, statement: &str) -> String {
        let mut psql = self.postgres("psql");
        psql.args(["-XAtqw", "-U", "postgres", "-d", "postgres", "-h"]).arg(socket_dir);
        psql.args(["-p", &port.to_string(), "-c", statement]);
        done(psql).trim().to_owned()
    }

    /// An agent without any pool.
    fn agent(&mut self, name: &'static str) {
        let port = free_port();
        self.write(name, port, "");
        self.start_agent(name, port);
    }

    fn write(&self, name: &str, port: u16, pools: &str) {
        let text = format!(
            "# Kept.\nname = \"{name}\"\ndeployment = \"test\"\nlisten = \"127.0.0.1:{port}\"\n\
             state_dir = \"{}\"\nstop_postgres = true\npg_bin_dir = \"{}\"\n{pools}",
            self.path(&format!("{name}.state")).display(),
            bin_dir().display()
        );
        self.place.write(&format!("{name}.toml"), &text);
    }

    fn start_agent(&mut self, name: &'static str, port: u16) {
        let log = File::options().create(true).append(true).open(self.log(name)).unwrap();
        let mut command = self.place.command(&["server", "--config"]);
        command.arg(self.path(&format!("{name}.toml"))).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.agents.push((name, port, child));
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn logs(&self) -> String {
        let tail = |(name, _, _): &(&'static str, u16, Child)| {
            let whole = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        self.agents.iter().map(tail).collect()
    }

    fn reload(&self, name: &str) {
        let (_, _, child) = self.agents.iter().find(|(known, _, _)| *known == name).unwrap();
        kill_process(Pid::from_child(child), Signal::HUP).unwrap();
    }

    fn server(&self, verb: &str, more: &[&str]) -> Told {
        let mut command = self.place.command(&["server", verb, "shop", "--config", "be1.toml"]);
        command.args(more).env("PG_CLUSTER_CONF_ROOT", self.path("etc"));
        Told::from(command.output().unwrap())
    }

    fn pool(&self, args: &[&str]) -> Told {
        let mut text = "name = \"test\"\n".to_owned();
        for (name, port, _) in &self.agents {
            text.push_str(&format!(
                "[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n"
            ));
        }
        text.push_str("[[pool]]\nname = \"shop\"\nfirst = \"be1\"\nsecond = \"be2\"\n");
        let file = self.place.write("deployment.toml", &text);
        let mut command = self.place.command(args);
        Told::from(command.env("BACKSTAY_DEPLOYMENT", file).output().unwrap())
    }

    #[track_caller]
    fn wait(&self, what: &str, good: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.pool(&["pool", "status", "shop", "--json"]).json();
            if good(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#}\n{}", self.logs());
        }
    }

    fn uri(&self) -> String {
        format!(
            "postgres://shop:its-own@127.0.0.1:{},127.0.0.1:{}/shop\
             ?target_session_attrs=read-write&connect_timeout=1",
            self.port, self.other_port
        )
    }

    /// The mirror's section is the adopted server's, with its own places.
    fn add_mirror(&self) {
        let own = fs::read_to_string(self.path("be1.toml")).unwrap();
        let port = |name: &str| self.agents.iter().find(|it| it.0 == name).unwrap().1;
        let second = format!(
            "\n[pool.second]\nname = \"be2\"\nhost = \"127.0.0.1\"\nport = {}\npostgres_port = {}\n",
            port("be2"),
            self.other_port
        );
        self.place.write("be1.toml", &format!("{own}{second}"));
        let section = &own[own.find("[[pool]]").unwrap()..];
        let of_be1 = |name: &str| format!("\"{}\"", self.path(name).display());
        let section = section
            .replace(&of_be1("data"), &of_be1("data2"))
            .replace(&of_be1("data.backstay"), &of_be1("data2.backstay"))
            .replace(
                "socket_dir = ",
                &format!("secret_file = {}\nsocket_dir = ", of_be1("data.backstay/secret")),
            );
        self.write("be2", port("be2"), &format!("{section}{second}"));
        self.reload("be2");
        self.reload("be1");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.agents {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in processes_of(self.place.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn mirrored(status: &Value) -> bool {
    status["state"] == "mirrored" && status["streaming"] == true
}

#[test]
fn a_server_is_taken_over_mirrored_failed_over_and_given_back_while_a_client_writes() {
    let mut yard = Yard::new("adopt");
    yard.make_plain();
    yard.agent("be1");
    yard.agent("be2");
    let uri = yard.uri();
    let writer = Writer::start(&uri, 1);
    writer.goes_on();
    let data = yard.path("data").display().to_string();
    let place = ["--data-dir", data.as_str(), "--json"];

    let before = fs::read_to_string(yard.path("be1.toml")).unwrap();
    let dry = yard.server("adopt", &[&place[..], &["--dry-run"]].concat()).expect(0).json();
    assert_eq!((&dry["possible"], &dry["done"]), (&true.into(), &false.into()), "{dry:#}");
    assert_eq!(dry["found"]["timeline"], 2);
    assert_eq!(fs::read_to_string(yard.path("be1.toml")).unwrap(), before);
    assert!(!yard.path("data.backstay").exists());
    // Nobody can be asked here.
    yard.server("adopt", &place).expect(1);

    let told = yard.server("adopt", &[&place[..], &["--yes"]].concat()).expect(0).json();
    assert_eq!(told["done"], true, "{told:#}");
    assert!(told["interrupted_ms"].as_u64().unwrap() < 30_000, "{told:#}");
    writer.goes_on();
    assert_eq!(yard.sql("SHOW work_mem"), "7MB");
    assert_eq!(yard.sql("SHOW maintenance_work_mem"), "33MB");
    assert_eq!(yard.sql("SHOW max_wal_senders"), "12");
    assert_eq!(yard.sql("SHOW fsync"), "on");
    assert_eq!(yard.sql("SELECT count(*) FROM old"), "1000");
    // Once more changes nothing.
    yard.server("adopt", &[&place[..], &["--yes"]].concat()).expect(0);

    yard.add_mirror();
    yard.wait("mirrored", mirrored);
    yard.pool(&["pool", "failover", "shop", "--to", "be2"]).expect(0);
    writer.goes_on();
    yard.wait("mirrored again", mirrored);
    let at_mirror = |statement| yard.sql_at(yard.other_port, yard.place.path(), statement);
    assert_eq!(at_mirror("SHOW work_mem"), "7MB");
    assert_eq!(at_mirror("SELECT count(*) FROM old"), "1000");
    yard.pool(&["pool", "failover", "shop", "--to", "be1"]).expect(0);
    yard.wait("mirrored a third time", mirrored);
    let refused = yard.server("release", &["--yes"]).expect(1);
    assert!(refused.talk.contains("another server"), "{}", refused.talk);

    let own = fs::read_to_string(yard.path("be1.toml")).unwrap();
    yard.place.write("be1.toml", &own[..own.find("\n[pool.second]").unwrap()]);
    yard.write("be2", yard.agents[1].1, "");
    yard.reload("be2");
    yard.reload("be1");
    yard.wait("it serves alone", |status| status["mirroring"] == "not_mirrored");
    writer.goes_on();
    let told = yard.server("release", &["--yes", "--drop-roles"]).expect(0);
    assert!(told.data.contains("is given back and runs"), "{}", told.data);
    writer.goes_on();
    all_there(&uri, &writer.finish());
    is_as_before(&yard);
}

/// Started with its own configuration, and nothing of Backstay's is in it.
fn is_as_before(yard: &Yard) {
    assert_eq!(
        yard.sql("SHOW config_file"),
        yard.path("data/postgresql.conf").display().to_string()
    );
    assert_eq!(yard.sql("SHOW synchronous_standby_names"), "");
    assert_eq!(yard.sql("SHOW fsync"), "off");
    assert_eq!(yard.sql("SELECT pg_is_in_recovery()"), "f");
    assert_eq!(yard.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'backstay%'"), "0");
    assert_eq!(yard.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    for name in ["data/backstay.pool", "data/standby.signal", "data.lock"] {
        assert!(!yard.path(name).exists(), "{name} is left");
    }
    let own = fs::read_to_string(yard.path("be1.toml")).unwrap();
    assert!(own.contains("# Kept.") && !own.contains("[[pool]]"), "{own}");
    let mut stop = yard.postgres("pg_ctl");
    stop.args(["stop", "-w", "-m", "fast", "-D"]).arg(yard.path("data"));
    done(stop);
    yard.start_by_hand();
    assert_eq!(yard.sql("SELECT count(*) FROM old"), "1000");
}

#[test]
fn a_cluster_of_debians_tools_is_taken_over_and_given_back() {
    let mut yard = Yard::new("adopt-debian");
    let version = bin_dir().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let tool = |program: &str| {
        let mut command = Command::new(program);
        command.env("PG_CLUSTER_CONF_ROOT", yard.path("etc"));
        command
    };
    let port = yard.port.to_string();
    fs::create_dir(yard.path("etc")).unwrap();
    let mut create = tool("pg_createcluster");
    create.args(["-u", "postgres", "-p", &port, "-d"]).arg(yard.path("data"));
    create.arg("-l").arg(yard.path("log")).arg("-s").arg(yard.place.path());
    create.args([&version, "main"]);
    done(create);
    let etc = format!("etc/{version}/main");
    let conf_d = yard.path(&format!("{etc}/conf.d/own.conf"));
    fs::write(&conf_d, "work_mem = '9MB'\nwal_level = minimal\nmax_wal_senders = 0\n").unwrap();
    yard.add(&format!("{etc}/pg_ident.conf"), "people root shop\npeople postgres shop\n");
    let hba = yard.path(&format!("{etc}/pg_hba.conf"));
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all shop peer map=people\n{rules}")).unwrap();
    let control = |action: &str| {
        let mut command = tool("pg_ctlcluster");
        command.args([version.as_str(), "main", action]);
        command
    };
    done(control("start"));
    yard.fill();
    let start_conf = fs::read_to_string(yard.path(&format!("{etc}/start.conf"))).unwrap();

    let cluster = format!("{version}/main");
    let child_port = free_port();
    yard.write("be1", child_port, "");
    yard.start_agent("be1", child_port);
    let told = yard.server("adopt", &["--cluster", &cluster, "--yes", "--json"]).expect(0).json();
    assert_eq!(told["done"], true, "{told:#}");
    assert_eq!(yard.sql("SHOW work_mem"), "9MB");
    assert_eq!(yard.sql("SHOW wal_level"), "replica");
    assert_eq!(yard.sql("SHOW synchronous_commit"), "on");
    assert_eq!(yard.sql("SELECT count(*) FROM old"), "1000");
    run(&yard.uri(), "SELECT 1").unwrap();
    let mut by_map = yard.postgres("psql");
    by_map.args(["-XAtqw", "-U", "shop", "-d", "shop", "-p", &port, "-c", "SELECT 1", "-h"]);
    by_map.arg(yard.place.path());
    done(by_map);
    let mut command = Command::new("pg_ctlcluster");
    command.env("PG_CLUSTER_CONF_ROOT", yard.path("etc")).args([&version, "main", "restart"]);
    let refused = command.output().unwrap();
    assert!(!refused.status.success(), "Debian's tools would start it");

    yard.server("release", &["--yes", "--drop-roles"]).expect(0);
    let after = fs::read_to_string(yard.path(&format!("{etc}/start.conf"))).unwrap();
    assert_eq!(after, start_conf);
    let config = yard.path(&format!("{etc}/postgresql.conf")).display().to_string();
    assert_eq!(yard.sql("SHOW config_file"), config);
    assert_eq!(yard.sql("SHOW wal_level"), "minimal");
    assert_eq!(yard.sql("SELECT count(*) FROM old"), "1000");
    assert_eq!(yard.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'backstay%'"), "0");
    let mut command = Command::new("pg_ctlcluster");
    command.env("PG_CLUSTER_CONF_ROOT", yard.path("etc")).args([&version, "main", "restart"]);
    done(command);
}
