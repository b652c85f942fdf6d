//! Directories, ports, child processes and the other side of a connection, for the tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agent::config::Address;
use agent::peers::{Channel, Peers, Received, Security, Transport};
use agent::route::Routes;
use protocol::admin::{Request, Response};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use session::{Body, Identity, Member, Message, Record, Term};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub const PATIENCE: Duration = Duration::from_secs(30);
const CHILD: &str = "BACKSTAY_TEST_CHILD";

/// A directory that goes away with the test.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstay-members-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        crate::deadline::watch(&path);
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub fn address(name: &str, port: u16) -> Address {
    Address { name: name.to_owned(), host: "127.0.0.1".to_owned(), port }
}

pub fn introduction(host: &str) -> Introduction {
    Introduction {
        deployment: "test".to_owned(),
        host: host.to_owned(),
        run: 1,
        software: "test".to_owned(),
    }
}

/// A child of this very program that runs one of its tests with `argument`; killed at the end.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    pub fn start(test: &str, argument: &Path) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, argument)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Process(child)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the parent gave to this child; `None` in an ordinary run of the test.
pub fn as_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// A host of its own: links to others, and what came from them.
#[derive(Debug)]
pub struct Host {
    pub peers: Peers,
    pub received: mpsc::Receiver<Received>,
}

impl Host {
    pub async fn start(name: &str, others: Vec<Address>) -> Host {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        Host::start_on(name, listener, others)
    }

    pub fn start_on(name: &str, listener: TcpListener, others: Vec<Address>) -> Host {
        Host::start_with(name, listener, others, None)
    }

    /// Requests are answered at once, whatever they are.
    pub fn start_with(
        name: &str,
        listener: TcpListener,
        others: Vec<Address>,
        security: Option<Security>,
    ) -> Host {
        let (to_received, received) = mpsc::channel(10_000);
        let (to_ask, mut asked) = mpsc::channel::<agent::peers::Request>(16);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let sentence = "done".to_owned();
                let _ = request.answer.send(Response::Done { sentence });
            }
        });
        let peers = Peers::start(
            &introduction(name),
            listener,
            others,
            &to_received,
            to_ask,
            Routes::default(),
            security,
        );
        Host { peers, received }
    }

    pub fn send(&mut self, host: &str, session: &str, message: &Message) {
        self.peers.send(host, session, message);
    }

    pub async fn receive(&mut self, patience: Duration) -> Option<Received> {
        tokio::time::timeout(patience, self.received.recv()).await.ok().flatten()
    }
}

pub fn message(from: Member, to: Member, record: Option<Record>, body: Body) -> Message {
    let promise = record.map_or(Term(0), |record| record.id.term);
    Message { from, to, identity: Identity(77), promise, record, body }
}

/// Asks a member as an administrator; tries until it listens.
pub async fn ask(port: u16, request: &Request) -> Response {
    let deadline = Instant::now() + PATIENCE;
    let mut channel = loop {
        match connect(port).await {
            Ok(channel) => break channel,
            Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    channel.put(Kind::Request, &request.to_bytes()).unwrap();
    let frame = tokio::time::timeout(PATIENCE, channel.receive()).await.unwrap().unwrap();
    assert_eq!(frame.kind, Kind::Response);
    Response::from_bytes(&frame.payload).unwrap()
}

async fn connect(port: u16) -> io::Result<Channel> {
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await?;
    let mut channel = Channel::new(transport);
    let hello = introduction("someone").hello(Role::Administrator, "");
    channel.introduce(&hello).await.map_err(io::Error::other)?;
    Ok(channel)
}
