//! Joining and renewing over real connections.

use std::time::{Duration, SystemTime};

use agent::enrol::{self, EnrolError, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use trust::{Again, Book, Place, Reason, Role, Subject, Token};

use crate::rig::{Dir, PATIENCE, loopback};

const HOUR: Duration = Duration::from_hours(1);

struct Stand {
    dir: Dir,
    book: Book,
    address: String,
    service: AbortHandle,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.service.abort();
    }
}

impl Stand {
    async fn start() -> Stand {
        let dir = Dir::new("enrol");
        let place = dir.path().join("authority");
        let book = Book::init(&place, "test", SystemTime::now()).unwrap();
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        book.set_address(&address).unwrap();
        let service = Service::new(Book::open(&place).unwrap()).unwrap();
        let served = enrol::serve(service, listener, std::future::pending());
        let service = tokio::spawn(served).abort_handle();
        Stand { dir, book, address, service }
    }

    fn token(&self, name: &str) -> Token {
        let subject = Subject { role: Role::Server, name: name.to_owned(), hosts: Vec::new() };
        self.book.invite(subject, HOUR, Again::Refuse, SystemTime::now()).unwrap()
    }

    fn place(&self, name: &str) -> Place {
        Place::new(self.dir.path().join(name).join("trust"))
    }
}

fn reason(error: EnrolError) -> Reason {
    match error {
        EnrolError::Refused(refusal) => refusal.reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_joins_with_nothing_but_a_token_and_may_say_so_twice() {
    let stand = Stand::start().await;
    let token: Token = stand.token("be1").to_string().parse().unwrap();
    let place = stand.place("be1");
    let made = enrol::join(&token, None, &place).await.unwrap();
    assert_eq!(made.identity.to_string(), "server be1 of test");
    assert_eq!(place.load().unwrap().identity(), &made.identity);
    assert_eq!(place.authority_address().as_ref(), Some(&stand.address));
    // Elsewhere the token is worth nothing any more.
    let stolen = enrol::join(&token, None, &stand.place("thief")).await.unwrap_err();
    assert_eq!(reason(stolen), Reason::Used);
}

#[tokio::test]
async fn an_outdated_token_is_refused_with_what_to_do() {
    let stand = Stand::start().await;
    let subject = Subject { role: Role::Server, name: "be1".into(), hosts: Vec::new() };
    let before = SystemTime::now() - 2 * HOUR;
    let token = stand.book.invite(subject, HOUR, Again::Refuse, before).unwrap();
    let error = enrol::join(&token, None, &stand.place("be1")).await.unwrap_err();
    assert!(error.to_string().contains("issue another one"), "{error}");
    assert_eq!(reason(error), Reason::Expired);
}

#[tokio::test]
async fn another_authority_at_the_address_is_not_talked_to() {
    let [ours, theirs] = [Stand::start().await, Stand::start().await];
    let token = ours.token("be1");
    let place = ours.place("be1");
    let error = enrol::join(&token, Some(&theirs.address), &place).await.unwrap_err().to_string();
    assert!(error.contains("does not have the authority that the token names"), "{error}");
    assert!(!place.exists());
}

#[tokio::test]
async fn a_certificate_is_renewed_over_itself() {
    let stand = Stand::start().await;
    let place = stand.place("be1");
    let first = enrol::join(&stand.token("be1"), None, &place).await.unwrap();
    let renewed = enrol::renew(&place, &place.load().unwrap()).await.unwrap();
    assert_eq!(renewed.identity, first.identity);
    assert_ne!(renewed.serial, first.serial);
    assert_eq!(place.load().unwrap().own(), &renewed);
    stand.book.revoke("be1").unwrap();
    let refused = enrol::renew(&place, &place.load().unwrap()).await.unwrap_err();
    assert_eq!(reason(refused), Reason::Revoked);
    assert_eq!(place.load().unwrap().own(), &renewed, "what was there goes on");
}

#[tokio::test]
async fn noise_at_the_authority_keeps_nobody_from_joining() {
    let stand = Stand::start().await;
    for noise in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 40_000], &[0x16, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(&stand.address).await.unwrap();
        let _ = stream.write_all(noise).await;
        if noise.len() > 10 {
            let mut answer = Vec::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            drop(read.expect("it hangs up"));
        }
    }
    enrol::join(&stand.token("be1"), None, &stand.place("be1")).await.unwrap();
}
