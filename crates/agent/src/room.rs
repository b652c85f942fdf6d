//! The door between a session's loop and the room of its PostgreSQL.
//!
//! The loop lives on a thread of its own; PostgreSQL's driver lives in the process's other runtime,
//! so that nothing it does can hold up a heartbeat. A task here carries orders in and facts out,
//! and makes a new driver when the session starts anew. Facts bear the number of the driver that
//! told them: those of a former one are void.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::Refusal;
use protocol::admin::words::Code;
use session::{Fact, Order, Partner};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::config;
use crate::error::Error;
use crate::postgres::create::Lock;
use crate::postgres::sql::{Commits, Connection, literal};
use crate::postgres::{self, Condition, Driver, Instance, OsUser, Upstream};

const QUEUE: usize = 256;
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the loop wants of the room.
#[derive(Debug)]
pub(crate) enum Wanted {
    Perform(Order),
    /// Make this partner's part of a new pool. If that succeeds, `Start` is to follow.
    Create {
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The session has started anew: it is told everything from the beginning.
    Start {
        driver: u64,
    },
    /// Make the configured databases where they are missing.
    Databases,
    /// Shut PostgreSQL down for good, at the end of the process.
    ShutDown {
        deadline: Duration,
        done: oneshot::Sender<()>,
    },
}

/// A fact, from the driver number `driver` of the session at `seat`.
#[derive(Debug)]
pub(crate) struct Told {
    pub seat: usize,
    pub driver: u64,
    pub fact: Fact,
}

/// The loop's side of the door.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub wanted: mpsc::Sender<Wanted>,
    pub condition: watch::Receiver<Condition>,
}

/// The room's side.
#[derive(Debug)]
pub(crate) struct Room {
    seat: usize,
    owner: Partner,
    instance: Arc<Instance>,
    /// Held as long as the process runs; `None` if the directories are not there yet.
    lock: Option<Arc<Lock>>,
    partner: Upstream,
    databases: Vec<config::DatabaseEntry>,
    /// Exists while a pool is being created here.
    creating: PathBuf,
    facts: mpsc::Sender<Told>,
    wanted: mpsc::Receiver<Wanted>,
    shown: watch::Sender<Condition>,
}

/// A driver and the channels to it.
struct Running {
    driver: Driver,
    number: u64,
    orders: mpsc::Sender<Order>,
    facts: mpsc::Receiver<Fact>,
    condition: watch::Receiver<Condition>,
}

impl Room {
    pub(crate) fn new(
        seat: usize,
        owner: Partner,
        part: &config::Part,
        server: &config::Server,
        facts: mpsc::Sender<Told>,
    ) -> Result<(Room, Door), Error> {
        let configured = part
            .postgres
            .as_ref()
            .ok_or_else(|| Error::Refused(format!("pool {} has no PostgreSQL here", part.pool)))?;
        let instance = Arc::new(instance(&part.pool, configured, server)?);
        let lock = lock(&instance)?;
        let partner =
            Upstream { host: configured.partner_host.clone(), port: configured.partner_port };
        let (to_room, wanted) = mpsc::channel(QUEUE);
        let (shown, condition) = watch::channel(Condition::default());
        let room = Room {
            seat,
            owner,
            instance,
            lock,
            partner,
            databases: configured.databases.clone(),
            creating: server.process.state_dir.join(format!("{}.creating", part.pool)),
            facts,
            wanted,
            shown,
        };
        Ok((room, Door { wanted: to_room, condition }))
    }

    /// Until the loop's side is gone. PostgreSQL goes on running.
    pub(crate) async fn run(mut self) {
        let mut running = Some(self.driver(0));
        loop {
            tokio::select! {
                wanted = self.wanted.recv() => match wanted {
                    None => return,
                    Some(wanted) => self.serve(wanted, &mut running).await,
                },
                heard = hear(&mut running) => match heard {
                    Heard::Fact(driver, fact) => {
                        let told = Told { seat: self.seat, driver, fact };
                        if self.facts.send(told).await.is_err() {
                            return;
                        }
                    }
                    Heard::Condition(condition) => {
                        self.shown.send_replace(condition);
                    }
                },
            }
        }
    }

    async fn serve(&self, wanted: Wanted, running: &mut Option<Running>) {
        match wanted {
            Wanted::Perform(order) => {
                let orders = running.as_ref().map(|running| &running.orders);
                if orders.is_none_or(|orders| orders.try_send(order).is_err()) {
                    tracing::error!(?order, "PostgreSQL's driver takes no orders");
                }
            }
            Wanted::Create { done } => {
                let result = match self.may_create() {
                    Ok(()) => self.create_without_driver(running).await,
                    Err(refusal) => Err(refusal),
                };
                let _ = done.send(result);
            }
            Wanted::Start { driver } => {
                if let Some(running) = running.take() {
                    running.end().await;
                }
                *running = Some(self.driver(driver));
            }
            Wanted::Databases => {
                let (instance, databases) = (Arc::clone(&self.instance), self.databases.clone());
                tokio::spawn(make_databases(instance, databases));
            }
            Wanted::ShutDown { deadline, done } => {
                if let Some(running) = running {
                    running.shut_down(deadline).await;
                }
                let _ = done.send(());
            }
        }
    }

    fn driver(&self, number: u64) -> Running {
        let (orders, to_perform) = mpsc::channel(QUEUE);
        let (to_tell, facts) = mpsc::channel(QUEUE);
        let instance = (*self.instance).clone();
        let (lock, partner) = (self.lock.clone(), self.partner.clone());
        let driver = Driver::spawn(instance, lock, self.owner, to_perform, to_tell, partner);
        let condition = driver.condition();
        Running { driver, number, orders, facts, condition }
    }

    /// Data that an interrupted creation has left are taken; any others are refused.
    fn may_create(&self) -> Result<(), Refusal> {
        let interrupted = self.owner == Partner::First && self.creating.exists();
        if interrupted || is_empty(&self.instance.data_dir) {
            return Ok(());
        }
        let dir = self.instance.data_dir.display().to_string();
        Err(Code::DataDirectoryInUse.refusal(Some(dir)))
    }

    /// Afterwards there is no driver until `Start`; the old one goes on if nothing was made.
    async fn create_without_driver(&self, running: &mut Option<Running>) -> Result<(), Refusal> {
        let number = running.as_ref().map_or(0, |running| running.number);
        if let Some(running) = running.take() {
            running.end().await;
        }
        let result = self.create().await;
        if result.is_err() {
            *running = Some(self.driver(number));
        }
        result
    }

    /// The designated principal makes the data of a new pool; the other partner has none yet.
    async fn create(&self) -> Result<(), Refusal> {
        if self.owner == Partner::Second {
            return Ok(());
        }
        if self.creating.exists() && self.is_made() {
            return Ok(());
        }
        std::fs::write(&self.creating, "")
            .and_then(|()| std::fs::File::open(&self.creating)?.sync_all())
            .map_err(|error| Code::InitialiseFailed.refusal(Some(error.to_string())))?;
        postgres::initialise(Arc::clone(&self.instance)).await.map_err(|error| {
            let mut refusal = Code::InitialiseFailed.refusal(Some(error.to_string()));
            refusal.hint = error.hint().map(str::to_owned).or(refusal.hint);
            refusal
        })
    }

    /// An interrupted creation had made all of the data.
    fn is_made(&self) -> bool {
        let version = postgres::Version::of_programs(&self.instance.bin_dir);
        version
            .and_then(|version| postgres::create::look(&self.instance, version))
            .is_ok_and(|found| found == postgres::create::DataDir::Cluster)
    }
}

impl Running {
    /// Ends the driver and waits until it has let go of the data directory.
    async fn end(self) {
        let Running { driver, mut condition, .. } = self;
        drop(driver);
        while condition.changed().await.is_ok() {}
    }

    /// Shuts PostgreSQL down in good order, or at once after the deadline.
    async fn shut_down(&mut self, deadline: Duration) {
        if self.condition.borrow().pid.is_none() {
            return;
        }
        let ended = async {
            if self.orders.send(Order::ShutDown { deadline }).await.is_err() {
                return;
            }
            while let Some(fact) = self.facts.recv().await {
                if matches!(fact, Fact::ShutDown { .. } | Fact::ShutDownLate | Fact::Stopped) {
                    return;
                }
            }
        };
        if timeout(deadline + STOP_PATIENCE, ended).await.is_err() {
            tracing::error!("PostgreSQL did not shut down in time");
        }
    }
}

enum Heard {
    Fact(u64, Fact),
    Condition(Condition),
}

async fn hear(running: &mut Option<Running>) -> Heard {
    let Some(running) = running else { return std::future::pending().await };
    tokio::select! {
        Some(fact) = running.facts.recv() => Heard::Fact(running.number, fact),
        Ok(()) = running.condition.changed() => {
            Heard::Condition(running.condition.borrow_and_update().clone())
        }
        else => std::future::pending().await,
    }
}

impl Door {
    /// Stops PostgreSQL at once, whatever it does; waits until it has, within reason.
    pub(crate) async fn fence(&mut self) {
        let stopped = async {
            let _ = self.wanted.send(Wanted::Perform(Order::Stop)).await;
            while self.condition.borrow_and_update().pid.is_some() {
                if self.condition.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(STOP_PATIENCE, stopped).await.is_err() {
            tracing::error!("PostgreSQL did not stop in time");
        }
    }
}

/// An agent that does not own the data must not even speak for them: it would confuse the session
/// of the one that does. A volume that is not mounted yet is waited for later.
fn lock(instance: &Instance) -> Result<Option<Arc<Lock>>, Error> {
    match postgres::create::lock(instance) {
        Ok(lock) => Ok(Some(Arc::new(lock))),
        Err(refused @ postgres::Error::Refused { .. }) => Err(refused.into()),
        Err(error) => {
            tracing::warn!(%error, "the data directory cannot be owned yet");
            Ok(None)
        }
    }
}

fn instance(
    pool: &str,
    configured: &config::Postgres,
    server: &config::Server,
) -> Result<Instance, Error> {
    let os_user = OsUser::find(&os_user(server.os_user.as_deref())?)?;
    let bin_dir = match &server.pg_bin_dir {
        Some(dir) => dir.clone(),
        None => find_programs(&configured.data_dir)?,
    };
    Ok(Instance {
        pool: pool.to_owned(),
        data_dir: configured.data_dir.clone(),
        files_dir: configured.files_dir.clone(),
        socket_dir: configured.socket_dir.clone(),
        bin_dir,
        listen: configured.listen.clone(),
        port: configured.port,
        os_user,
        partner_host: address_of(&configured.partner_host),
        secret_file: configured.secret_file.clone(),
        locale: configured.locale.clone(),
        settings: configured.settings.clone(),
        client_access: configured.client_access.clone(),
        slot_wal_keep: configured
            .slot_wal_keep
            .clone()
            .unwrap_or_else(|| Instance::DEFAULT_SLOT_WAL_KEEP.to_owned()),
        probe_interval: Instance::DEFAULT_PROBE_INTERVAL,
        probe_timeout: Instance::DEFAULT_PROBE_TIMEOUT,
        start_timeout: Instance::DEFAULT_START_TIMEOUT,
    })
}

/// The configured user; else `postgres` for root, and whoever this process runs as for others.
fn os_user(configured: Option<&str>) -> Result<String, Error> {
    if let Some(name) = configured {
        return Ok(name.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("postgres".to_owned());
    }
    let out = std::process::Command::new("id")
        .arg("-un")
        .output()
        .map_err(|error| Error::Io { doing: "run id -un", error })?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The newest PostgreSQL of this machine; the one that made the data, if there are any.
fn find_programs(data_dir: &Path) -> Result<PathBuf, Error> {
    let mut found: BTreeMap<(u32, u32), PathBuf> = BTreeMap::new();
    let mut places: Vec<PathBuf> = Vec::new();
    for base in ["/usr/lib/postgresql", "/usr", "/usr/local", "/opt"] {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        places.extend(entries.map(|entry| entry.path().join("bin")));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    for place in places {
        if place.join("postgres").exists()
            && place.join("initdb").exists()
            && let Ok(version) = postgres::Version::of_programs(&place)
        {
            found.entry((version.major, version.minor)).or_insert(place);
        }
    }
    let wanted = postgres::Version::of_data(data_dir);
    let best =
        found.into_iter().rfind(|((major, _), _)| wanted.is_none_or(|wanted| wanted == *major));
    best.map(|(_, place)| place).ok_or_else(|| {
        const DO: &str = "install the server package, or set pg_bin_dir to the directory that \
                          holds `postgres` and `initdb`";
        Error::Refused(match wanted {
            Some(major) => format!(
                "the data in {} were made by PostgreSQL {major}, whose programs are not on this \
                 machine: {DO}; or name another data_dir",
                data_dir.display()
            ),
            None => format!("no programs of PostgreSQL 14 to 18 are on this machine: {DO}"),
        })
    })
}

/// The partner's IP address; a name that is not known now is left to PostgreSQL.
fn address_of(host: &str) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return host.to_owned();
    }
    let found = (host, 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    found.map_or_else(|| host.to_owned(), |address| address.ip().to_string())
}

fn is_empty(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Tries until all are there, or PostgreSQL no longer takes writes.
async fn make_databases(instance: Arc<Instance>, databases: Vec<config::DatabaseEntry>) {
    for _ in 0..20 {
        match try_databases(&instance, &databases).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the pool's databases are not made yet"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn try_databases(
    instance: &Instance,
    databases: &[config::DatabaseEntry],
) -> Result<(), String> {
    let told = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(server) => server.message().to_owned(),
        None => error.to_string(),
    };
    let sql = Connection::open(instance, Commits::Wait).await.map_err(told)?;
    for database in databases {
        let password = std::fs::read_to_string(&database.password_file).map_err(|error| {
            format!("cannot read {}: {error}", database.password_file.display())
        })?;
        let (name, owner) = (quoted(&database.name), quoted(&database.owner));
        let role = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(&database.owner));
        if sql.one(&role).await.map_err(told)?.is_none() {
            let password = literal(password.trim());
            sql.run(&format!("CREATE ROLE {owner} LOGIN PASSWORD {password}"))
                .await
                .map_err(told)?;
        }
        let exists =
            format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&database.name));
        if sql.one(&exists).await.map_err(told)?.is_none() {
            sql.run(&format!("CREATE DATABASE {name} OWNER {owner}")).await.map_err(told)?;
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
