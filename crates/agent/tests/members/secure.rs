//! Members with certificates: links, roles, and what changes while they run.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use agent::peers::{Channel, ChannelError, Security, Transport};
use protocol::admin::{Request, Response};
use protocol::frame::Kind;
use protocol::handshake::Role as Wants;
use session::{Body, Member, WitnessId};
use tokio::net::TcpListener;
use trust::{Again, Book, Credentials, Expected, Key, Place, Role, Subject};

use crate::rig::{Dir, Host, PATIENCE, address, introduction, loopback, message};

const WITNESS: Member = Member::Witness(WitnessId(5));

/// An authority, and those who have its certificates.
#[derive(Debug)]
pub struct Authority {
    dir: Dir,
    pub book: Book,
}

impl Authority {
    pub fn new() -> Authority {
        Authority::of("test")
    }

    pub fn of(deployment: &str) -> Authority {
        let dir = Dir::new("authority");
        let book = Book::init(&dir.path().join("authority"), deployment, SystemTime::now());
        Authority { dir, book: book.unwrap() }
    }

    pub fn place(&self, role: Role, name: &str) -> Place {
        self.place_since(role, name, SystemTime::now())
    }

    /// With a certificate that was made at `when`.
    pub fn place_since(&self, role: Role, name: &str, when: SystemTime) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Place::new(self.dir.path().join(format!("{name}-{number}")));
        self.certify(&place, role, name, when);
        place
    }

    pub fn certify(&self, place: &Place, role: Role, name: &str, when: SystemTime) {
        let key = Key::generate().unwrap();
        let subject = Subject { role, name: name.to_owned(), hosts: Vec::new() };
        let request = key.request(name).unwrap();
        let certificate = self.book.issue(subject, &request, Again::Replace, when).unwrap();
        place.install(&key, &certificate, self.book.authority().der()).unwrap();
    }

    pub fn security(&self, role: Role, name: &str) -> Security {
        Security::open(self.place(role, name)).unwrap()
    }

    pub fn credentials(&self, role: Role, name: &str) -> Credentials {
        self.place(role, name).load().unwrap()
    }
}

/// A member `b` that knows `a`, and where it listens.
pub async fn member(authority: &Authority) -> (Host, u16) {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let security = Some(authority.security(Role::Server, "b"));
    (Host::start_with("b", listener, vec![address("a", 1)], security), port)
}

/// Dials `b` with `credentials`, and introduces itself as `name`.
pub async fn dial(
    port: u16,
    credentials: &Credentials,
    wants: Wants,
    name: &str,
) -> Result<Channel, ChannelError> {
    let expected = Expected { name: Some("b".into()), roles: &[Role::Server] };
    let config = credentials.client(expected).unwrap();
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
    let transport = transport.secure(config).await.map_err(ChannelError::Io)?;
    let mut channel = Channel::new(transport);
    channel.introduce(&introduction(name).hello(wants, "b")).await?;
    Ok(channel)
}

async fn ask(channel: &mut Channel, request: &Request) -> Result<Response, ChannelError> {
    channel.put(Kind::Request, &request.to_bytes())?;
    let frame = tokio::time::timeout(PATIENCE, channel.receive()).await.unwrap()?;
    Ok(Response::from_bytes(&frame.payload).unwrap())
}

#[tokio::test]
async fn members_with_certificates_hear_each_other() {
    let authority = Authority::new();
    let (mut b, port) = member(&authority).await;
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let security = Some(authority.security(Role::Witness, "a"));
    let mut a = Host::start_with("a", listener, vec![address("b", port)], security);
    let begun = Instant::now();
    let asked = |nonce| message(Member::FIRST, WITNESS, None, Body::StateAsked { nonce });
    a.send("b", "pool", &asked(1));
    a.peers.flush();
    let received = b.receive(PATIENCE).await.unwrap();
    println!("secure: first message after {:?}", begun.elapsed());
    assert_eq!((received.host.as_str(), received.message), ("a", asked(1)));
    let mut slowest = Duration::ZERO;
    for nonce in 2..200 {
        let begun = Instant::now();
        b.send("a", "pool", &asked(nonce));
        b.peers.flush();
        assert_eq!(a.receive(PATIENCE).await.unwrap().message, asked(nonce));
        slowest = slowest.max(begun.elapsed());
    }
    println!("secure: slowest message {slowest:?}");
    assert!(b.peers.port().certificates);
    assert_eq!(b.peers.port().certificate_days_left, Some(89));
}

#[tokio::test]
async fn each_role_may_what_it_is_for_and_no_more() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    let suspend = Request::Suspend { pool: "p".into() };
    let status = Request::Status { pool: None };
    for (role, changes) in
        [(Role::Administrator, true), (Role::ReadOnlyAdministrator, false), (Role::FrontEnd, false)]
    {
        let credentials = authority.credentials(role, "x");
        let mut channel = dial(port, &credentials, Wants::Administrator, "x").await.unwrap();
        let looked = ask(&mut channel, &status).await.unwrap();
        assert!(matches!(looked, Response::Done { .. }), "{looked:?}");
        match ask(&mut channel, &suspend).await.unwrap() {
            Response::Done { .. } => assert!(changes, "{role}"),
            Response::Refused(refusal) => {
                assert!(!changes, "{role}");
                assert_eq!(refusal.code, "not_permitted");
                assert!(refusal.sentence.contains(role.as_str()), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(host.peers.port().refused.get("not_permitted"), Some(&2));
}

#[tokio::test]
async fn every_change_is_in_the_audit_trail_before_it_is_answered() {
    let authority = Authority::new();
    let place = authority.place(Role::Server, "b");
    let security = Security::open(place.clone()).unwrap().audited(place.dir()).unwrap();
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _host = Host::start_with("b", listener, Vec::new(), Some(security));
    let suspend = Request::Suspend { pool: "p".into() };
    for (role, name) in [(Role::Administrator, "ann"), (Role::ReadOnlyAdministrator, "bob")] {
        let credentials = authority.credentials(role, name);
        let mut channel = dial(port, &credentials, Wants::Administrator, name).await.unwrap();
        ask(&mut channel, &Request::Status { pool: None }).await.unwrap();
        ask(&mut channel, &suspend).await.unwrap();
    }
    let text = std::fs::read_to_string(place.dir().join("audit.jsonl")).unwrap();
    let seen: Vec<(String, String, String)> = text
        .lines()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(entry["what"]["pool"], "p");
            let field = |name: &str| entry[name].as_str().unwrap().to_owned();
            (field("who"), field("role"), field("outcome"))
        })
        .collect();
    let expected = [
        ("ann", "administrator", "asked"),
        ("ann", "administrator", "done"),
        ("bob", "read-only-administrator", "not_permitted"),
    ];
    let expected =
        expected.map(|(who, role, outcome)| (who.to_owned(), role.to_owned(), outcome.to_owned()));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_front_end_takes_no_part_in_sessions() {
    let authority = Authority::new();
    let (_host, port) = member(&authority).await;
    for role in [Role::FrontEnd, Role::Administrator] {
        let credentials = authority.credentials(role, "a");
        let error = dial(port, &credentials, Wants::Member, "a").await.unwrap_err().to_string();
        assert!(error.contains("cannot take part in sessions"), "{error}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let place = authority.place(Role::Server, "b");
    let security = Security::open(place.clone()).unwrap();
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let others = vec![address("a", 1)];
    let _host = Host::start_with("b", listener, others, Some(security));
    let a = authority.credentials(Role::Server, "a");
    let serial = async || {
        let channel = dial(port, &a, Wants::Member, "a").await.unwrap();
        channel.peer().unwrap().serial.clone()
    };
    let before = serial().await;
    std::fs::write(place.dir().join("identity.pem"), "broken").unwrap();
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        assert_eq!(serial().await, before);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    authority.certify(&place, Role::Server, "b", SystemTime::now());
    let deadline = Instant::now() + PATIENCE;
    while serial().await == before {
        assert!(Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whoever_is_revoked_is_hung_up_on_and_not_let_in_again() {
    let authority = Authority::new();
    let place = authority.place(Role::Server, "b");
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let security = Security::open(place.clone()).unwrap();
    let host = Host::start_with("b", listener, vec![address("a", 1)], Some(security));
    let [ann, bob] = ["ann", "bob"].map(|name| authority.credentials(Role::Administrator, name));
    let mut of_ann = dial(port, &ann, Wants::Administrator, "ann").await.unwrap();
    let mut of_bob = dial(port, &bob, Wants::Administrator, "bob").await.unwrap();
    std::fs::write(place.dir().join("revoked"), "ann\n").unwrap();
    let ended = tokio::time::timeout(PATIENCE, of_ann.receive()).await.unwrap();
    assert!(matches!(ended, Err(ChannelError::Closed)), "{ended:?}");
    let error = dial(port, &ann, Wants::Administrator, "ann").await.unwrap_err().to_string();
    assert!(error.contains("was revoked on b"), "{error}");
    let status = Request::Status { pool: None };
    assert!(matches!(ask(&mut of_bob, &status).await, Ok(Response::Done { .. })));
    // Who is refused hears it before it is counted.
    let deadline = Instant::now() + PATIENCE;
    while host.peers.port().refused.get("revoked") != Some(&2) {
        assert!(Instant::now() < deadline, "{:?}", host.peers.port());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_member_that_leaves_the_configuration_is_not_let_in_again() {
    let authority = Authority::new();
    let (mut host, port) = member(&authority).await;
    let a = authority.credentials(Role::Server, "a");
    let mut channel = dial(port, &a, Wants::Member, "a").await.unwrap();
    host.peers.set_hosts(Vec::new());
    // What was said before may still come.
    let gone = async { while channel.receive().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let error = dial(port, &a, Wants::Member, "a").await.unwrap_err().to_string();
    assert!(error.contains("has no part in any session of b"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_somebody_else_does_not_start_a_process() {
    let authority = Authority::new();
    let place = authority.place(Role::Server, "be2");
    let security = Security::open(place.clone()).unwrap();
    let wrong = security.must_be(&place, "test", Role::Server, "be1").unwrap_err().to_string();
    assert!(wrong.contains("is of server be2 of test, but this process is server be1"), "{wrong}");
    assert!(security.must_be(&place, "test", Role::Server, "be2").is_ok());
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_connection_costs_little_memory_and_a_handshake_little_time() {
    // The port has room for so many commands.
    const COUNT: usize = 60;
    let authority = Authority::new();
    let (_host, port) = member(&authority).await;
    let credentials = authority.credentials(Role::Server, "a");
    let expected = || Expected { name: Some("b".into()), roles: &[Role::Server] };
    let config = credentials.client(expected()).unwrap();
    let mut open = Vec::new();
    let (mut full, mut resumed) = (Duration::ZERO, Duration::ZERO);
    let before = resident();
    for number in 0..COUNT {
        // Each as a host of its own would make it; every second one is resumed.
        let first = number % 2 == 0;
        let config = if first { credentials.client(expected()).unwrap() } else { config.clone() };
        let begun = Instant::now();
        let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
        let mut channel = Channel::new(transport.secure(config).await.unwrap());
        channel.introduce(&introduction("a").hello(Wants::Administrator, "b")).await.unwrap();
        *if first { &mut full } else { &mut resumed } += begun.elapsed();
        open.push(channel);
    }
    let each = resident().saturating_sub(before) / open.len();
    let half = u32::try_from(open.len() / 2).unwrap();
    println!("secure: {each} B for both ends of a connection");
    let (full, resumed) = (full / half, resumed / half);
    println!("secure: {full:?} for a full handshake, {resumed:?} for a resumed one");
    assert!(each < 200_000, "{each}");
}
