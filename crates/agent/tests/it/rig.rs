//! A driver with its PostgreSQL, as the session would hold it: orders in, facts out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agent::postgres::drain::Drain;
use agent::postgres::instance::ROLE;
use agent::postgres::{Configured, Driver, Instance, Upstream};
use session::{
    Boundary, Fact, Found, Incarnation, Order, Partner, Position, Promotion, Term, Timeline,
};
use tokio::sync::{mpsc, watch};
use tokio_postgres::{Client, NoTls};

use crate::cluster;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Rig {
    pub instance: Instance,
    pub owner: Partner,
    dir: PathBuf,
    orders: Option<mpsc::Sender<Order>>,
    configured: Option<watch::Sender<Configured>>,
    facts: mpsc::Receiver<Fact>,
    pub driver: Option<Driver>,
    pub partner_port: u16,
    pub drain: Drain,
}

/// What a promotion ended in.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    pub promotion: Promotion,
    pub incarnation: Incarnation,
    pub newest: Timeline,
}

impl Rig {
    /// A new pool's first partner: a stopped cluster, no driver yet.
    pub fn new() -> Rig {
        let rig = Rig::empty();
        cluster::copy(&seed().data_dir, &rig.instance.data_dir);
        rig
    }

    /// A partner without data that shares the secret of all rigs.
    pub fn empty() -> Rig {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = cluster::scratch(&format!("{}-rig{number}", std::process::id()));
        let instance = cluster::instance(&dir, &cluster::os_user());
        std::fs::create_dir_all(&instance.files_dir).unwrap();
        instance.os_user.own(&instance.files_dir).unwrap();
        cluster::copy(&seed().secret_file, &instance.secret_file);
        let facts = mpsc::channel(1).1;
        let owner = Partner::First;
        let drain = Drain { patience: Drain::DEFAULT_PATIENCE, ..Drain::default() };
        Rig {
            instance,
            owner,
            dir,
            orders: None,
            configured: None,
            facts,
            driver: None,
            partner_port: 1,
            drain,
        }
    }

    /// The other partner, with a plain copy of this stopped one's data.
    pub fn partner(&mut self) -> Rig {
        let mut partner = Rig::empty();
        cluster::copy(&self.instance.data_dir, &partner.instance.data_dir);
        partner.owner = self.owner.other();
        partner.partner_port = self.instance.port;
        self.partner_port = partner.instance.port;
        partner
    }

    /// Starts the agent's part and returns what it found.
    pub async fn drive(&mut self) -> Found {
        let (orders, inbox) = mpsc::channel(64);
        let (facts, seen) = mpsc::channel(256);
        let partner = Some(Upstream { host: "127.0.0.1".to_owned(), port: self.partner_port });
        let instance = Arc::new(self.instance.clone());
        let configured = Configured { instance, partner, drain: self.drain.clone() };
        let (held, configured) = watch::channel(configured);
        self.configured = Some(held);
        self.driver = Some(Driver::spawn(configured, None, self.owner, inbox, facts));
        (self.orders, self.facts) = (Some(orders), seen);
        self.wait("found", |fact| match fact {
            Fact::Found(found) => Some(found),
            _ => None,
        })
        .await
    }

    /// The agent dies; PostgreSQL goes on.
    pub fn drop_driver(&mut self) {
        self.driver = None;
        self.orders = None;
    }

    pub async fn order(&self, order: Order) {
        self.orders.as_ref().unwrap().send(order).await.unwrap();
    }

    /// The next fact that `want` takes; others are passed over.
    pub async fn wait<T>(&mut self, what: &str, want: impl Fn(Fact) -> Option<T>) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let fact = self.facts.recv().await.expect("the driver has ended");
                if let Some(found) = want(fact) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => {
                let driver = self.driver.as_ref();
                let condition = driver.map(|driver| driver.condition().borrow().clone());
                panic!("no fact: {what}\n{condition:#?}\n{}", self.log())
            }
        }
    }

    pub async fn until(&mut self, fact: Fact) {
        self.wait(&format!("{fact:?}"), |seen| (seen == fact).then_some(())).await;
    }

    /// All facts that are there by now.
    pub fn facts_so_far(&mut self) -> Vec<Fact> {
        let mut facts = Vec::new();
        while let Ok(fact) = self.facts.try_recv() {
            facts.push(fact);
        }
        facts
    }

    pub async fn run_alone(&mut self, reachable: bool) -> (Incarnation, Position) {
        self.order(Order::RunAlone { reachable }).await;
        self.wait("started", |fact| match fact {
            Fact::Started { incarnation, position } => Some((incarnation, position)),
            _ => None,
        })
        .await
    }

    pub async fn prepare(&mut self, term: u64) -> (Position, Boundary, Timeline) {
        self.order(Order::PreparePromotion { term: Term(term) }).await;
        self.wait("promotion prepared", |fact| match fact {
            Fact::PromotionPrepared { position, boundary, newest, .. } => {
                Some((position, boundary, newest))
            }
            Fact::PromotionFailed { .. } => panic!("the preparation failed"),
            _ => None,
        })
        .await
    }

    /// From a standby to a primary whose barrier is still to be committed.
    pub async fn promote(&mut self, term: u64) -> Serving {
        let (fork, boundary, newest) = self.prepare(term).await;
        let timeline = newest.next_owned_by(self.owner);
        self.order(Order::Promote { term: Term(term), timeline, fork }).await;
        let (incarnation, at) = self
            .wait("promoted", |fact| match fact {
                Fact::Promoted { incarnation, fork, .. } => Some((incarnation, fork)),
                Fact::PromotionFailed { .. } => panic!("the promotion failed"),
                _ => None,
            })
            .await;
        assert_eq!(at, fork, "the fork is where it was announced");
        let promotion =
            Promotion { term: Term(term), timeline, fork, boundary, established: false };
        Serving { promotion, incarnation, newest }
    }

    /// A primary that serves alone, with its guard open.
    pub async fn serve_alone(&mut self, term: u64) -> Serving {
        self.run_alone(true).await;
        let serving = self.promote(term).await;
        self.order(Order::CommitBarrier { promotion: serving.promotion }).await;
        self.order(Order::OpenGuard).await;
        self.until(Fact::BarrierCommitted { term: Term(term) }).await;
        self.order(Order::AdmitClients { term: Term(term) }).await;
        self.until(Fact::Checkpointed { term: Term(term) }).await;
        serving
    }

    pub async fn follow(&mut self, serving: &Serving) -> Position {
        let (term, timeline) = (serving.promotion.term, serving.promotion.timeline);
        let upstream = self.owner.other();
        self.order(Order::Follow { term, upstream, timeline, own: None }).await;
        self.wait("streaming", |fact| match fact {
            Fact::Streaming { position, .. } => Some(position),
            _ => None,
        })
        .await
    }

    /// A connection as Backstay's own role over the socket.
    pub async fn sql(&self) -> Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&self.instance.socket_dir)
            .port(self.instance.port)
            .user(ROLE)
            .dbname("postgres")
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// A connection of the agent's own kind.
    pub async fn sql_connection(&self) -> agent::postgres::sql::Connection {
        let commits = agent::postgres::sql::Commits::Local;
        agent::postgres::sql::Connection::open(&self.instance, commits).await.unwrap()
    }

    /// Connects as a client would; on failure, what PostgreSQL or the library says.
    pub async fn client(&self, user: &str) -> Result<Client, String> {
        let opened = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.instance.port)
            .user(user)
            .password("client")
            .dbname("postgres")
            .connect(NoTls)
            .await;
        let (client, connection) = opened.map_err(|error| match error.as_db_error() {
            Some(server) => server.message().to_owned(),
            None => format!("{error:?}"),
        })?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.instance.log_file()).unwrap_or_default()
    }

    pub fn postmaster(&self) -> Option<u32> {
        let file = self.instance.data_dir.join("postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
    }

    /// Process ids of everything that runs in the data directory, whoever started it.
    pub fn processes(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd == self.instance.data_dir)
        })
        .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.drop_driver();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in left.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits until `done`, looking every few milliseconds.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// The first column of the first row, as text.
pub async fn one(client: &Client, sql: &str) -> String {
    for message in client.simple_query(sql).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return row.get(0).unwrap_or_default().to_owned();
        }
    }
    panic!("no row: {sql}")
}

/// The cluster that every rig starts from, made by Backstay itself.
pub fn seed() -> &'static Instance {
    static SEED: OnceLock<Instance> = OnceLock::new();
    SEED.get_or_init(|| {
        let dir = cluster::scratch(&format!("{}-seed", std::process::id()));
        let mut instance = cluster::instance(&dir, &cluster::os_user());
        instance.files_dir = dir.join("files");
        agent::postgres::create::initialise_now(&instance).unwrap();
        instance
    })
}
