//! A whole pool for tests: two servers as processes of their own, without a witness, and
//! connections to their members' ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::config::{PartnerAddress, Server, ServerFile, ServerPool, Times};
use agent::peers::{Channel, Transport};
use agent::postgres::Instance;
use protocol::admin::{Request, Response, Route};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use tokio_postgres::{Client, NoTls};

use crate::{cluster, deadline};

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const POOL: &str = "pool01";
pub const FRONT_END_PASSWORD: &str = "it's the front end's";
const CHILD: &str = "BACKSTAY_TEST_SERVER";

#[test]
fn child_that_is_a_server() {
    let Some(config) = std::env::var_os(CHILD) else { return };
    let config = Server::load(Path::new(&config)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(agent::server::run(config, std::future::pending())).unwrap();
}

pub struct Pool {
    dir: PathBuf,
    pub ports: [u16; 2],
    pub postgres: [u16; 2],
    servers: Vec<Child>,
}

impl Pool {
    /// A pool that was just created: both servers run, and nobody serves yet.
    pub async fn create(name: &str, times: Times) -> Pool {
        let dir = cluster::scratch(&format!("{}-{name}", std::process::id()));
        std::fs::write(dir.join("front_end.password"), FRONT_END_PASSWORD).unwrap();
        let [one, two, three, four] = [(); 4].map(|()| cluster::free_port());
        let (ports, postgres) = ([one, two], [three, four]);
        let mut pool = Pool { dir, ports, postgres, servers: Vec::new() };
        for number in 0..2 {
            let config = pool.write_config(number, times);
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["pool::child_that_is_a_server", "--exact", "--nocapture"])
                .env(CHILD, &config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            pool.servers.push(child);
        }
        for port in pool.ports {
            let create = Request::CreateSession { pool: POOL.to_owned() };
            let response = Line::open(port).await.ask(&create).await;
            assert!(matches!(response, Response::Done { .. }), "{response:?}");
        }
        pool
    }

    fn write_config(&self, number: usize, times: Times) -> PathBuf {
        let partner = |number: usize| PartnerAddress {
            name: format!("be{number}"),
            host: "127.0.0.1".to_owned(),
            port: self.ports[number],
            postgres_port: self.postgres[number],
        };
        let own = self.dir.join(format!("be{number}"));
        let file = ServerFile {
            name: format!("be{number}"),
            deployment: "test".to_owned(),
            listen: format!("127.0.0.1:{}", self.ports[number]),
            state_dir: own.join("state"),
            os_user: None,
            pg_bin_dir: Some(cluster::bin_dir()),
            stop_postgres: false,
            retired: Default::default(),
            pools: vec![ServerPool {
                name: POOL.to_owned(),
                profile: "fast".to_owned(),
                data_dir: own.join("data"),
                files_dir: own.join("files"),
                socket_dir: own.join("run"),
                postgres_listen: "127.0.0.1".to_owned(),
                secret_file: Some(self.dir.join("secret")),
                locale: None,
                slot_wal_keep: None,
                client_access: vec!["host all app 127.0.0.1/32 trust".to_owned()],
                first: Some(partner(0)),
                second: Some(partner(1)),
                converge: false,
                witness: None,
                spare_witnesses: Vec::new(),
                times,
                settings: [("shared_buffers".to_owned(), "16MB".to_owned())].into(),
                databases: Vec::new(),
                front_ends: None,
                front_end_password_file: Some(self.dir.join("front_end.password")),
            }],
        };
        std::fs::create_dir_all(file.state_dir.clone()).unwrap();
        cluster::os_user().own(&own).unwrap();
        let path = self.dir.join(format!("be{number}.toml"));
        std::fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
        path
    }

    /// Backstay's own role, over the socket of that server.
    pub async fn sql(&self, number: usize) -> Client {
        let mut config = tokio_postgres::Config::new();
        let socket_dir = self.dir.join(format!("be{number}")).join("run");
        config.host_path(socket_dir).port(self.postgres[number]).user("backstay");
        config.dbname("postgres");
        connect(&config).await.unwrap()
    }

    /// As much of its PostgreSQL as a connection over the socket needs.
    pub fn instance(&self, number: usize) -> Instance {
        let mut instance = cluster::instance(&self.dir, &cluster::os_user());
        instance.socket_dir = self.dir.join(format!("be{number}")).join("run");
        instance.port = self.postgres[number];
        instance
    }

    /// A client over the network.
    pub async fn client(port: u16, user: &str, password: &str) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user(user).password(password).dbname("postgres");
        connect(&config).await
    }
}

async fn connect(config: &tokio_postgres::Config) -> Result<Client, String> {
    let (client, connection) = config.connect(NoTls).await.map_err(|error| {
        error.as_db_error().map_or_else(|| error.to_string(), |told| told.message().to_owned())
    })?;
    tokio::spawn(connection);
    Ok(client)
}

impl Drop for Pool {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let left = deadline::processes_of(&self.dir);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A connection to a member's port.
pub struct Line(Channel);

impl Line {
    /// Tries until the member listens.
    pub async fn open(port: u16) -> Line {
        let begun = Instant::now();
        loop {
            match Transport::dial("127.0.0.1", port, PATIENCE).await {
                Ok(transport) => {
                    let mut channel = Channel::new(transport);
                    let me = Introduction {
                        deployment: "test".to_owned(),
                        host: "someone".to_owned(),
                        run: 1,
                        software: "test".to_owned(),
                    };
                    channel.introduce(&me.hello(Role::Administrator, "")).await.unwrap();
                    return Line(channel);
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Over a connection that is introduced already.
    pub fn over(channel: Channel) -> Line {
        Line(channel)
    }

    pub async fn say(&mut self, request: &Request) {
        self.0.put(Kind::Request, &request.to_bytes()).unwrap();
        self.0.write_all().await.unwrap();
    }

    pub async fn hear(&mut self) -> Response {
        let frame = tokio::time::timeout(PATIENCE, self.0.receive()).await.unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Response);
        Response::from_bytes(&frame.payload).unwrap()
    }

    pub async fn ask(&mut self, request: &Request) -> Response {
        self.say(request).await;
        self.hear().await
    }

    pub async fn follow(&mut self, stamp: u64) {
        self.say(&Request::Follow { pool: POOL.to_owned(), stamp }).await;
    }

    pub async fn route(&mut self) -> Route {
        match self.hear().await {
            Response::Route(route) => route,
            other => panic!("no route: {other:?}"),
        }
    }

    /// The first route of which this is true.
    pub async fn until(&mut self, wanted: impl Fn(&Route) -> bool) -> Route {
        let mut seen = Vec::new();
        let mut ask = tokio::time::interval(Duration::from_secs(2));
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                tokio::select! {
                    route = self.route() => {
                        if wanted(&route) {
                            return route;
                        }
                        seen.push(route);
                    }
                    // One that asks nothing is hung up on; changes do not wait for this.
                    _tick = ask.tick() => self.follow(1).await,
                }
            }
        });
        match found.await {
            Ok(route) => route,
            Err(_) => panic!("no such route; the last one: {:#?}", seen.last()),
        }
    }
}
