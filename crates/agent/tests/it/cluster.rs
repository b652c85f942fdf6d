//! Small real PostgreSQL servers for tests: made from one template, on free loopback ports, and
//! gone when the value is dropped, however the test ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agent::postgres::instance::{MIRROR_NAME, ROLE};
use agent::postgres::{Instance, OsUser};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio_postgres::{Client, NoTls};

use crate::deadline;

pub const PASSWORD: &str = "not:a\\secret";
pub const SYNC_NAMES: &str = "ANY 1 (\"backstay_mirror\", \"backstay_exposed\")";
const PATIENCE: Duration = Duration::from_secs(20);
/// PostgreSQL's programs, where Debian and its kin put them.
const BIN_DIRS: [&str; 5] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/18/bin",
    "/usr/lib/postgresql/14/bin",
];

pub struct Cluster {
    pub instance: Instance,
    dir: PathBuf,
    postmaster: Option<Child>,
    extra: Vec<String>,
}

impl Cluster {
    /// A stopped primary with the role `backstay` in it.
    pub fn new() -> Cluster {
        let cluster = Cluster::empty();
        copy(&template().join("data"), &cluster.instance.data_dir);
        cluster
    }

    /// No data directory yet.
    pub fn empty() -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = scratch(&format!("{}-{number}", std::process::id()));
        let os_user = os_user();
        let cluster = Cluster {
            instance: instance(&dir, &os_user),
            dir,
            postmaster: None,
            extra: Vec::new(),
        };
        let instance = &cluster.instance;
        for made in [&instance.files_dir, &instance.socket_dir] {
            std::fs::create_dir_all(made).unwrap();
            os_user.own(made).unwrap();
        }
        cluster.write(
            &instance.hba_file(),
            "local all backstay peer map=backstay\n\
             local replication backstay peer map=backstay\n\
             local all all trust\n\
             host replication backstay 127.0.0.1/32 scram-sha-256\n\
             host all backstay 127.0.0.1/32 scram-sha-256\n",
        );
        cluster
            .write(&instance.ident_file(), "backstay root backstay\nbackstay postgres backstay\n");
        let password = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        cluster.write(&instance.secret_file, &format!("*:*:*:{ROLE}:{password}\n"));
        run(Command::new("chmod").arg("0600").arg(&instance.secret_file));
        cluster
    }

    /// A stopped standby of this stopped or running cluster, as a plain copy of its files.
    pub fn stopped_copy(&self) -> Cluster {
        assert!(self.postmaster.is_none(), "the files of a running server are no copy");
        let copied = Cluster::empty();
        copy(&self.instance.data_dir, &copied.instance.data_dir);
        copied
    }

    /// Further settings for the next start, such as `fsync=off`.
    pub fn with(mut self, setting: &str) -> Cluster {
        self.extra.push(setting.to_owned());
        self
    }

    pub fn signal_standby(&self) {
        self.write(&self.instance.standby_signal(), "");
    }

    /// Starts it, and waits until it takes connections.
    pub async fn start(&mut self) -> Client {
        self.launch();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = self.try_sql().await {
                return client;
            }
            let exited = self.postmaster.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none() && Instant::now() < deadline, "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it as a standby of `upstream`.
    pub async fn start_following(&mut self, upstream: &Cluster) -> Client {
        self.signal_standby();
        let conninfo = upstream.conninfo(&self.instance.secret_file);
        self.extra.retain(|setting| !setting.starts_with("primary_conninfo="));
        self.extra.push(format!("primary_conninfo={conninfo} application_name={MIRROR_NAME}"));
        self.start().await
    }

    pub fn launch(&mut self) {
        assert!(self.postmaster.is_none());
        let instance = &self.instance;
        let log = std::fs::File::options().create(true).append(true).open(instance.log_file());
        let log = log.unwrap();
        let mut command = instance.os_user.command(instance.program("postgres"));
        command.arg("-D").arg(&instance.data_dir);
        let hba = format!("hba_file={}", instance.hba_file().display());
        let ident = format!("ident_file={}", instance.ident_file().display());
        let sockets = format!("unix_socket_directories={}", instance.socket_dir.display());
        let (port, names) =
            (format!("port={}", instance.port), format!("synchronous_standby_names={SYNC_NAMES}"));
        let settings = [
            &port,
            &names,
            &hba,
            &ident,
            &sockets,
            "listen_addresses=127.0.0.1",
            "wal_level=replica",
            "restart_after_crash=off",
            "shared_buffers=16MB",
            "wal_retrieve_retry_interval=100ms",
            "wal_receiver_status_interval=1s",
            "min_wal_size=64MB",
            "wal_keep_size=64MB",
            "wal_sender_timeout=5s",
            "wal_receiver_timeout=5s",
        ];
        for setting in settings.iter().map(|s| &**s).chain(self.extra.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.postmaster = Some(command.spawn().unwrap());
    }

    /// A connection string for PostgreSQL's own programs.
    pub fn conninfo(&self, passfile: &Path) -> String {
        let (port, passfile) = (self.instance.port, passfile.display());
        format!("host=127.0.0.1 port={port} user={ROLE} dbname=postgres passfile={passfile}")
    }

    pub async fn sql(&self) -> Client {
        self.try_sql().await.unwrap()
    }

    pub async fn try_sql(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&self.instance.socket_dir)
            .port(self.instance.port)
            .user(ROLE)
            .dbname("postgres")
            .connect(NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Stops it cleanly (`SIGINT`), immediately (`SIGQUIT`) or by `SIGKILL`.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        let pid = pid_of(postmaster.id());
        if signal == Signal::KILL {
            kill_process_group(pid, signal).unwrap();
        } else {
            rustix::process::kill_process(pid, signal).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while postmaster.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = postmaster.wait();
                panic!("PostgreSQL did not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = kill_process_group(pid, Signal::KILL);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.instance.log_file()).unwrap_or_default()
    }

    pub fn write(&self, path: &Path, content: &str) {
        std::fs::write(path, content).unwrap();
        self.instance.os_user.own(path).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            let _ = kill_process_group(pid_of(postmaster.id()), Signal::KILL);
            let _ = postmaster.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Asks `query` until it answers true.
pub async fn until(client: &Client, query: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let row = tokio::time::timeout(PATIENCE, client.query_one(query, &[])).await;
        let row = row.unwrap_or_else(|_| panic!("no answer: {query}")).unwrap();
        if row.get::<_, Option<bool>>(0) == Some(true) {
            return;
        }
        assert!(Instant::now() < deadline, "it never became true: {query}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn os_user() -> OsUser {
    let root = rustix::process::geteuid().is_root();
    let own = Command::new("id").arg("-un").output().unwrap().stdout;
    let own = String::from_utf8(own).unwrap().trim().to_owned();
    OsUser::find(if root { "postgres" } else { &own }).unwrap()
}

pub fn bin_dir() -> PathBuf {
    match std::env::var_os("BACKSTAY_PG_BIN") {
        Some(dir) => PathBuf::from(dir),
        None => BIN_DIRS
            .map(PathBuf::from)
            .into_iter()
            .find(|dir| dir.join("postgres").is_file())
            .expect("no PostgreSQL found; set BACKSTAY_PG_BIN to the folder of its programs"),
    }
}

pub fn instance(dir: &Path, os_user: &OsUser) -> Instance {
    let port = free_port();
    Instance {
        pool: "pool01".to_owned(),
        data_dir: dir.join("data"),
        files_dir: dir.join("files"),
        socket_dir: dir.join("run"),
        bin_dir: bin_dir(),
        listen: "127.0.0.1".to_owned(),
        port,
        os_user: os_user.clone(),
        partner_host: Some("127.0.0.1".to_owned()),
        secret_file: dir.join("files").join("secret"),
        locale: None,
        settings: std::collections::BTreeMap::new(),
        client_access: Vec::new(),
        front_end: false,
        tls: None,
        slot_wal_keep: Instance::DEFAULT_SLOT_WAL_KEEP.to_owned(),
        probe_interval: Instance::DEFAULT_PROBE_INTERVAL,
        probe_timeout: Instance::DEFAULT_PROBE_TIMEOUT,
        start_timeout: PATIENCE,
    }
}

/// Below the ports that the kernel gives to outgoing connections: nobody else takes it while its
/// server is stopped.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    loop {
        // Runs beside each other begin at different places.
        let number = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A directory that PostgreSQL's user may use.
pub fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("backstay-it-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    os_user().own(&dir).unwrap();
    deadline::watch(&dir);
    dir
}

/// One fresh data directory, made once per test run and copied for each cluster.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        sweep();
        let dir = scratch(&format!("{}-template", std::process::id()));
        let (data, user, bin) = (dir.join("data"), os_user(), bin_dir());
        let password = dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        user.own(&password).unwrap();
        run(user
            .command(bin.join("initdb"))
            .args(["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"])
            .arg(format!("--username={ROLE}"))
            .arg(format!("--pwfile={}", password.display()))
            .arg("--auth=scram-sha-256")
            .arg("-D")
            .arg(&data));
        dir
    })
}

/// Removes what test runs that are over have left behind: the template outlives its run.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("backstay-it-") else {
            continue;
        };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

pub fn run(command: &mut Command) {
    let out = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
}
