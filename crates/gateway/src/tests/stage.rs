//! A whole gateway but for its agents and servers: the test says who serves, and is the clients.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use protocol::admin::{PostgresState, Route, RoutePostgres};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use wire::frame::split;
use wire::message::Fields;

use super::server::Server;
use crate::clock;
use crate::config::{FrontEnd, FrontEndFile};
use crate::handover::Entrance;
use crate::house::{House, SCRATCH};
use crate::login::Door;
use crate::lookup::LookupError;
use crate::mode::Modes;
use crate::route::{Pool, Side};
use crate::tls::Tls;
use crate::tls::tests::{Scratch, certificate};
use crate::verifiers::Verifiers;

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let test = tasks.run_until(test);
    runtime.block_on(async { timeout(Duration::from_secs(30), test).await }).unwrap();
}

/// Waits for a condition; the deadline is that of the test.
pub async fn until(mut good: impl FnMut() -> bool) {
    while !good() {
        tokio::task::yield_now().await;
    }
}

pub struct Stage {
    pub house: Rc<House>,
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    _open: watch::Sender<bool>,
    _dir: Scratch,
}

impl Stage {
    /// `settings`: lines of the configuration. Anybody named `anna` is let in.
    pub async fn new(settings: &str) -> Stage {
        let dir = Scratch::new("stage");
        let config = config(&dir, settings);
        let pool = Pool::unfollowed(["be1", "be2"].map(|name| (name.to_owned(), String::new())));
        spawn_local(crate::route::expire(pool.clone()));
        let mode = Modes::follow(&pool, &config.file.times);
        let ask = |_name, _patience| -> std::pin::Pin<Box<dyn Future<Output = _>>> {
            Box::pin(async { Err(LookupError::NoPrincipal) })
        };
        let (files, certificate) = certificate(&dir.0);
        let door = Door {
            tls: Some(Tls::load(&files).unwrap()),
            verifiers: Verifiers::open(&dir.0, Box::new(ask)),
            trust: config.file.trust.clone(),
        };
        let house = Rc::new(House {
            config,
            pool,
            mode,
            counters: Rc::default(),
            servers: Default::default(),
            dialler: Default::default(),
            registry: Rc::default(),
            door,
            scratch: vec![0; SCRATCH].into(),
            greetings: Default::default(),
            busy: Default::default(),
            abandoned: Default::default(),
            opening: Default::default(),
            connections: Default::default(),
            links: Default::default(),
            ending: Default::default(),
        });
        let socket = TcpSocket::new_v4().unwrap();
        // So that little is on its way to a client that does not read.
        socket.set_send_buffer_size(4096).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = Rc::new(socket.listen(64).unwrap());
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let entrance = Entrance::new(listener, is_open);
        spawn_local(crate::listener::serve(Rc::clone(&house), entrance));
        spawn_local(crate::follow_route(Rc::clone(&house)));
        spawn_local(crate::sweep(Rc::clone(&house)));
        Stage { house, address, certificate, _open: open, _dir: dir }
    }

    /// `server` is the principal of `term`.
    pub fn serves(&self, server: &Server, term: u64) {
        self.tell(server, term, Some(60_000), PostgresState::Primary);
    }

    /// It was the principal, as far as anybody knows, and has lost its lease.
    pub fn serves_no_more(&self, server: &Server, term: u64) {
        self.tell(server, term, None, PostgresState::Primary);
    }

    /// It can be read, and nobody serves.
    pub fn stands_by(&self, server: &Server, term: u64) {
        self.tell(server, term, None, PostgresState::Standby);
    }

    fn tell(&self, server: &Server, term: u64, lease_left_ms: Option<u64>, state: PostgresState) {
        let route = Route {
            pool: "pool01".to_owned(),
            member: "be1".to_owned(),
            echo: 0,
            promise: term,
            term,
            serving: lease_left_ms.is_some(),
            lease_left_ms: lease_left_ms.or(Some(0)),
            handing_over: false,
            postgres: Some(RoutePostgres {
                host: "127.0.0.1".to_owned(),
                port: server.address.port(),
                state,
                timeline: 1,
                complete: true,
            }),
            timelines: vec![1],
            promotions: Vec::new(),
        };
        self.house.pool.told(Side::First, route, clock::now());
    }

    /// A client that has logged in.
    pub async fn client(&self) -> Client<TcpStream> {
        let mut client = self.stranger().await;
        let told = client.answer().await;
        assert_eq!(told.sqlstate, "", "{told:?}");
        client
    }

    /// A client that has asked to be let in.
    pub async fn stranger(&self) -> Client<TcpStream> {
        Client::over(TcpStream::connect(self.address).await.unwrap()).await
    }
}

fn config(dir: &Scratch, settings: &str) -> FrontEnd {
    let text = format!(
        r#"
        name = "fe1"
        deployment = "demo"
        pool = "pool01"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        state_dir = "{}"
        first = {{ name = "be1", address = "127.0.0.1:1" }}
        second = {{ name = "be2", address = "127.0.0.1:2" }}
        password_file = "/nowhere"
        trust = ["anna"]
        {settings}
        "#,
        dir.0.display()
    );
    let file: FrontEndFile = toml::from_str(&text).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    FrontEnd { file, listen: any, admin_listen: any, password: String::new() }
}

/// What a client was told, up to ReadyForQuery or the end of the connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Told {
    pub tags: String,
    pub sqlstate: String,
    pub message: String,
    /// Of all values together.
    pub bytes: usize,
    pub closed: bool,
}

pub struct Client<S> {
    pub stream: S,
    unread: Vec<u8>,
    /// What a cancel request must name.
    key: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn over(mut stream: S) -> Client<S> {
        let mut start = Vec::new();
        wire::startup::push_start(&mut start, [("user", "anna"), ("database", "shop")]);
        stream.write_all(&start).await.unwrap();
        Client { stream, unread: Vec::new(), key: Vec::new() }
    }

    pub async fn ask(&mut self, text: &str) -> Told {
        self.send(text).await;
        self.answer().await
    }

    pub async fn send(&mut self, text: &str) {
        let mut bytes = Vec::new();
        wire::message::push_query(&mut bytes, text);
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn answer(&mut self) -> Told {
        let mut told = Told::default();
        loop {
            let mut at = 0;
            while let Ok(Some(frame)) = split(&self.unread[at..], usize::MAX) {
                at += frame.size();
                told.tags.push(char::from(frame.tag));
                match frame.tag {
                    b'D' => told.bytes += frame.body.len() - 6,
                    b'K' => self.key = frame.body.to_vec(),
                    b'E' => {
                        let fields = Fields::of(frame.body);
                        told.sqlstate = fields.sqlstate().to_owned();
                        told.message = fields.message().to_owned();
                    }
                    b'Z' => {
                        self.unread.drain(..at);
                        return told;
                    }
                    _other => {}
                }
            }
            self.unread.drain(..at);
            let mut chunk = vec![0; 64 * 1024];
            match self.stream.read(&mut chunk).await {
                Ok(count) if count > 0 => self.unread.extend_from_slice(&chunk[..count]),
                Ok(_) | Err(_) => {
                    told.closed = true;
                    return told;
                }
            }
        }
    }

    pub fn cancel_request(&self) -> Vec<u8> {
        let (process, key) = self.key.split_first_chunk::<4>().unwrap();
        let mut bytes = Vec::new();
        wire::startup::push_cancel(&mut bytes, u32::from_be_bytes(*process), key);
        bytes
    }
}
