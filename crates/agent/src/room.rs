//! The door between a session's loop and the room of its PostgreSQL.
//!
//! The loop lives on a thread of its own; PostgreSQL's driver lives in the process's other runtime,
//! so that nothing it does can hold up a heartbeat. A task here carries orders in and facts out,
//! and makes a new driver when the session starts anew. Facts bear the number of the driver that
//! told them: those of a former one are void. A room goes on when the loop has ended, because
//! PostgreSQL may still have to be stopped; it ends when its driver does, which must not happen.

mod furniture;

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::Refusal;
use protocol::admin::words::Code;
use session::{Fact, Order, Partner};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use trust::Place;

use crate::config;
use crate::error::Error;
use crate::fence;
use crate::postgres::certificates::Tls;
use crate::postgres::create::Lock;
use crate::postgres::drain::{Drain, Roll};
use crate::postgres::{self, Condition, Configured, Driver, Instance, OsUser, Upstream};
use furniture::{Furniture, furnish};

const QUEUE: usize = 256;
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a driver has for an immediate stop; then PostgreSQL is stopped without it.
const DRIVER_PATIENCE: Duration = Duration::from_secs(1);

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
    /// The part has changed.
    Configure(Box<config::Postgres>),
    /// Make the configured databases where they are missing.
    Databases,
    /// Make the Front Ends' role, or see that it is as it should be.
    FrontEnd,
    /// Stop PostgreSQL at once, whatever it does. There is no driver afterwards.
    Fence {
        done: oneshot::Sender<()>,
    },
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
    /// The Front Ends that follow the pool here.
    pub roll: Roll,
    instance: Arc<Instance>,
    lock: Option<Arc<Lock>>,
}

/// The room's side.
#[derive(Debug)]
pub(crate) struct Room {
    seat: usize,
    owner: Partner,
    instance: Arc<Instance>,
    /// Held as long as the process runs; `None` if the directories are not there yet.
    lock: Option<Arc<Lock>>,
    configured: watch::Sender<Configured>,
    databases: Vec<config::DatabaseEntry>,
    front_end_password_file: Option<PathBuf>,
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
        let partner = upstream(configured);
        let (to_room, wanted) = mpsc::channel(QUEUE);
        let (shown, condition) = watch::channel(Condition::default());
        let drain = Drain { roll: Roll::default(), patience: configured.drain };
        let door = Door {
            wanted: to_room,
            condition,
            roll: drain.roll.clone(),
            instance: Arc::clone(&instance),
            lock: lock.clone(),
        };
        let room = Room {
            seat,
            owner,
            configured: watch::Sender::new(Configured {
                instance: Arc::clone(&instance),
                partner,
                drain,
            }),
            instance,
            lock,
            databases: configured.databases.clone(),
            front_end_password_file: configured.front_end_password_file.clone(),
            creating: server.process.state_dir.join(format!("{}.creating", part.pool)),
            facts,
            wanted,
            shown,
        };
        Ok((room, door))
    }

    /// Until every door is gone; PostgreSQL goes on running then. An earlier end is a failure.
    pub(crate) async fn run(self) {
        let running = self.driver(0);
        self.run_with(running).await;
    }

    async fn run_with(mut self, running: Running) {
        let mut running = Some(running);
        // What the loop has no room for yet: orders are heard meanwhile.
        let mut untold = None;
        let facts = self.facts.clone();
        loop {
            tokio::select! {
                biased;
                wanted = self.wanted.recv() => match wanted {
                    None => return,
                    Some(wanted) => self.serve(wanted, &mut running).await,
                },
                // A loop that has ended hears nothing any more.
                place = facts.reserve(), if untold.is_some() => {
                    if let (Ok(place), Some(told)) = (place, untold.take()) {
                        place.send(told);
                    }
                }
                heard = hear(&mut running), if untold.is_none() => match heard {
                    Heard::Fact(driver, fact) => {
                        untold = Some(Told { seat: self.seat, driver, fact });
                    }
                    Heard::Condition(condition) => {
                        self.shown.send_replace(condition);
                    }
                    Heard::Ended => {
                        tracing::error!(pool = self.instance.pool, "PostgreSQL's driver has ended");
                        return;
                    }
                },
            }
        }
    }

    async fn serve(&mut self, wanted: Wanted, running: &mut Option<Running>) {
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
            Wanted::Configure(changed) => self.configure(*changed),
            Wanted::Databases => self.furnish(Furniture::Databases(self.databases.clone())),
            Wanted::FrontEnd => self.furnish_front_ends(),
            Wanted::Fence { done } => {
                if let Some(mut running) = running.take() {
                    running.stop().await;
                    running.end().await;
                }
                fence::sweep(&self.instance, self.lock.clone()).await;
                let _ = done.send(());
            }
            Wanted::ShutDown { deadline, done } => {
                if let Some(running) = running {
                    running.shut_down(deadline).await;
                }
                let _ = done.send(());
            }
        }
    }

    fn furnish_front_ends(&self) {
        if self.instance.front_end {
            // With certificates a password that is not there is not needed.
            let file = self.front_end_password_file.clone();
            let password_file = file.filter(|file| self.instance.tls().is_none() || file.exists());
            self.furnish(Furniture::FrontEnd { password_file });
        }
    }

    fn furnish(&self, furniture: Furniture) {
        let (instance, shown) = (Arc::clone(&self.instance), self.shown.subscribe());
        tokio::spawn(furnish(instance, furniture, shown));
    }

    fn driver(&self, number: u64) -> Running {
        let (orders, to_perform) = mpsc::channel(QUEUE);
        let (to_tell, facts) = mpsc::channel(QUEUE);
        let (lock, configured) = (self.lock.clone(), self.configured.subscribe());
        let driver = Driver::spawn(configured, lock, self.owner, to_perform, to_tell);
        let condition = driver.condition();
        Running { driver, number, orders, facts, condition }
    }

    /// What has changed is handed on. Directories, port and locale stay as they are as long as this
    /// process runs: other processes know them.
    fn configure(&mut self, changed: config::Postgres) {
        let mut instance = (*self.instance).clone();
        let partner = upstream(&changed);
        instance.partner_host = changed.partner.as_ref().map(|(host, _)| address_of(host));
        instance.settings = changed.settings;
        instance.client_access = changed.client_access;
        instance.front_end = changed.front_end_password_file.is_some() || instance.tls.is_some();
        if let Some(tls) = &mut instance.tls {
            tls.partner = changed.partner_name;
            tls.front_ends = changed.front_ends;
        }
        instance.slot_wal_keep = slot_wal_keep(changed.slot_wal_keep.as_deref());
        self.instance = Arc::new(instance);
        let instance = Arc::clone(&self.instance);
        self.configured.send_modify(|configured| {
            let roll = configured.drain.roll.clone();
            let drain = Drain { roll, patience: changed.drain };
            *configured = Configured { instance, partner, drain };
        });
        self.databases = changed.databases;
        self.front_end_password_file = changed.front_end_password_file;
        if self.shown.borrow().admitted.is_some() {
            self.furnish(Furniture::Databases(self.databases.clone()));
            self.furnish_front_ends();
        }
    }

    /// Data that an interrupted creation has left are taken, and those that were adopted; any
    /// others are refused. Adopted data are those that count: a mirror's part never begins there.
    fn may_create(&self) -> Result<(), Refusal> {
        if postgres::adopt::is_adopted(&self.instance) {
            let dir = self.instance.data_dir.display().to_string();
            let refusal = Code::DataDirectoryInUse.refusal(Some(dir));
            let is_first = self.owner == Partner::First || self.is_alone();
            let ready = postgres::adopt::is_taken(&self.instance) && self.is_made();
            return if is_first && ready { Ok(()) } else { Err(refusal) };
        }
        let interrupted = self.creating.exists();
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
        if self.owner == Partner::Second && !self.is_alone() {
            return Ok(());
        }
        if postgres::adopt::is_adopted(&self.instance) {
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

    /// The pool has no other server.
    fn is_alone(&self) -> bool {
        self.configured.borrow().partner.is_none()
    }

    /// The data are there as a whole: an interrupted creation had made them, or they were adopted.
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
        let is_end = |fact: &Fact| matches!(fact, Fact::ShutDown { .. } | Fact::ShutDownLate);
        let ended = self.ordered(Order::ShutDown { deadline }, is_end);
        if timeout(deadline + STOP_PATIENCE, ended).await != Ok(true) {
            tracing::error!("PostgreSQL did not shut down in time");
        }
    }

    /// Has the driver stop PostgreSQL at once, and the guard before it.
    async fn stop(&mut self) {
        let ended = self.ordered(Order::Stop, |fact| matches!(fact, Fact::Stopped));
        if timeout(DRIVER_PATIENCE, ended).await != Ok(true) {
            tracing::error!("PostgreSQL's driver does not stop it; it is stopped without it");
        }
    }

    /// Whether the driver has told that the order is done.
    async fn ordered(&mut self, order: Order, is_end: impl Fn(&Fact) -> bool) -> bool {
        // What was told before is no answer.
        while self.facts.try_recv().is_ok() {}
        // A driver that tells much must not wait for us while we wait for it.
        let sent = loop {
            tokio::select! {
                biased;
                sent = self.orders.send(order) => break sent.is_ok(),
                Some(_) = self.facts.recv() => {}
            }
        };
        while let (true, Some(fact)) = (sent, self.facts.recv().await) {
            if is_end(&fact) {
                return true;
            }
        }
        false
    }
}

enum Heard {
    Fact(u64, Fact),
    Condition(Condition),
    /// The driver is gone, and nobody had ordered that: a failed assertion.
    Ended,
}

async fn hear(running: &mut Option<Running>) -> Heard {
    let Some(running) = running else { return std::future::pending().await };
    tokio::select! {
        fact = running.facts.recv() => match fact {
            Some(fact) => Heard::Fact(running.number, fact),
            None => Heard::Ended,
        },
        Ok(()) = running.condition.changed() => {
            Heard::Condition(running.condition.borrow_and_update().clone())
        }
    }
}

impl Door {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Stops PostgreSQL at once, whatever it and its room do; returns when no process of it is
    /// left, within reason.
    pub(crate) async fn fence(self) {
        let (done, stopped) = oneshot::channel();
        let by_room = async {
            self.wanted.send(Wanted::Fence { done }).await.is_ok() && stopped.await.is_ok()
        };
        if timeout(STOP_PATIENCE, by_room).await == Ok(true) {
            return;
        }
        tracing::error!(pool = self.instance.pool, "PostgreSQL is stopped without its room");
        let swept = timeout(STOP_PATIENCE, fence::sweep(&self.instance, self.lock));
        if swept.await.is_err() {
            tracing::error!(pool = self.instance.pool, "PostgreSQL did not stop in time");
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
    let tls = Tls::of(
        Place::new(server.process.state_dir.join("trust")),
        &server.process.deployment,
        configured.partner_name.clone(),
    );
    let front_ends = configured.front_ends.clone();
    let tls = tls.map(|tls| Tls { front_ends, ..tls });
    Ok(Instance {
        pool: pool.to_owned(),
        data_dir: configured.data_dir.clone(),
        files_dir: configured.files_dir.clone(),
        socket_dir: configured.socket_dir.clone(),
        bin_dir,
        listen: configured.listen.clone(),
        port: configured.port,
        os_user,
        partner_host: configured.partner.as_ref().map(|(host, _)| address_of(host)),
        secret_file: configured.secret_file.clone(),
        locale: configured.locale.clone(),
        settings: configured.settings.clone(),
        client_access: configured.client_access.clone(),
        front_end: configured.front_end_password_file.is_some() || tls.is_some(),
        tls,
        slot_wal_keep: slot_wal_keep(configured.slot_wal_keep.as_deref()),
        probe_interval: Instance::DEFAULT_PROBE_INTERVAL,
        probe_timeout: Instance::DEFAULT_PROBE_TIMEOUT,
        start_timeout: Instance::DEFAULT_START_TIMEOUT,
    })
}

fn slot_wal_keep(configured: Option<&str>) -> String {
    configured.unwrap_or(Instance::DEFAULT_SLOT_WAL_KEEP).to_owned()
}

fn upstream(configured: &config::Postgres) -> Option<Upstream> {
    let (host, port) = configured.partner.clone()?;
    Some(Upstream { host, port })
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
pub(crate) fn find_programs(data_dir: &Path) -> Result<PathBuf, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::tests::Stage;

    /// A room whose driver's facts are told by the test.
    fn room(stage: &Stage) -> (Room, Door, Running, mpsc::Sender<Fact>, mpsc::Receiver<Told>) {
        let instance = Arc::new(stage.instance.clone());
        let lock = lock(&instance).unwrap();
        let (to_room, wanted) = mpsc::channel(QUEUE);
        let (shown, condition) = watch::channel(Condition::default());
        let (facts, told) = mpsc::channel(1);
        let door = Door {
            wanted: to_room,
            condition,
            roll: Roll::default(),
            instance: Arc::clone(&instance),
            lock: lock.clone(),
        };
        let configured =
            Configured { instance: Arc::clone(&instance), partner: None, drain: Drain::default() };
        let room = Room {
            seat: 0,
            owner: Partner::First,
            instance,
            lock,
            configured: watch::Sender::new(configured),
            databases: Vec::new(),
            front_end_password_file: None,
            creating: stage.instance.files_dir.join("creating"),
            facts,
            wanted,
            shown,
        };
        let mut running = room.driver(0);
        let (tell, facts) = mpsc::channel(QUEUE);
        running.facts = facts;
        (room, door, running, tell, told)
    }

    #[tokio::test]
    async fn a_room_stops_postgresql_after_the_loop_has_ended() {
        let mut stage = Stage::new();
        let (room, door, running, tell, told) = room(&stage);
        let task = tokio::spawn(room.run_with(running));
        drop(told);
        for _ in 0..10 {
            tell.send(Fact::Healthy).await.unwrap();
        }
        while tell.capacity() < QUEUE {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        door.fence().await;
        assert!(stage.has_ended());
    }

    #[tokio::test]
    async fn a_room_hears_orders_while_the_loop_hears_no_facts() {
        let mut stage = Stage::new();
        let (room, door, running, tell, _told) = room(&stage);
        let _task = tokio::spawn(room.run_with(running));
        for _ in 0..10 {
            tell.send(Fact::Healthy).await.unwrap();
        }
        door.fence().await;
        assert!(stage.has_ended());
    }

    #[tokio::test]
    async fn a_room_ends_with_its_driver_and_postgresql_is_stopped_without_it() {
        let mut stage = Stage::new();
        let (room, door, running, tell, _told) = room(&stage);
        let task = tokio::spawn(room.run_with(running));
        drop(tell);
        task.await.unwrap();
        door.fence().await;
        assert!(stage.has_ended());
    }
}
