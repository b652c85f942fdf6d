//! Whoever should not be there, at a real port: refused, counted, and harmless to the others.

use std::time::{Duration, Instant, SystemTime};

use agent::peers::{Channel, ChannelError, Transport};
use protocol::frame::Kind;
use protocol::handshake::Role as Wants;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use trust::{Expected, Role};

use crate::rig::{Host, PATIENCE, introduction, loopback};
use crate::secure::{Authority, dial, member};

const DAY: Duration = Duration::from_hours(24);

/// Until the port has counted `count` refusals for `reason`.
async fn counted(host: &Host, reason: &str, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while host.peers.port().refused.get(reason).copied().unwrap_or(0) < count {
        assert!(Instant::now() < deadline, "{reason}: {:?}", host.peers.port().refused);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whatever came before, a member is welcome.
async fn a_member_comes_in(authority: &Authority, port: u16) {
    let a = authority.credentials(Role::Server, "a");
    let welcome = tokio::time::timeout(PATIENCE, dial(port, &a, Wants::Member, "a")).await;
    welcome.unwrap().unwrap();
}

/// Sends `bytes` without TLS, and waits until the other side hangs up.
async fn shout(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(loopback(port)).await.unwrap();
    // It may hang up before everything is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.expect("it hangs up"));
}

#[tokio::test]
async fn nobody_comes_in_without_tls() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    shout(port, b"GET / HTTP/1.0\r\n\r\n").await;
    shout(port, &[0xff; 100_000]).await;
    let mut hello = Vec::new();
    let introduction = introduction("a").hello(Wants::Member, "b").to_bytes();
    protocol::frame::write(Kind::Hello, &introduction, &mut hello).unwrap();
    shout(port, &hello).await;
    counted(&host, "handshake", 3).await;
    // A command of somebody who has not joined is told why.
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
    let mut channel = Channel::new(transport);
    let hello = crate::rig::introduction("ann").hello(Wants::Administrator, "b");
    let error = channel.introduce(&hello).await.unwrap_err().to_string();
    assert!(error.contains("TLS is spoken on one side only"), "{error}");
    a_member_comes_in(&authority, port).await;
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_of_this_authority() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    // No certificate at all.
    let fingerprint = authority.book.authority().certificate().fingerprint;
    let none = trust::join_client("test", fingerprint).unwrap();
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
    assert!(transport.secure(none).await.is_err());
    counted(&host, "handshake", 1).await;
    // Another authority of the same name, and somebody who does not care whom he reaches.
    let other = Authority::new();
    let stranger = other.credentials(Role::Server, "a");
    let error = dial(port, &stranger, Wants::Member, "a").await.unwrap_err().to_string();
    assert!(error.contains("another authority"), "{error}");
    counted(&host, "handshake", 2).await;
    a_member_comes_in(&authority, port).await;
}

#[tokio::test]
async fn an_outdated_certificate_is_refused_with_the_reason() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    let since = SystemTime::now() - 91 * DAY;
    let outdated = authority.place_since(Role::Server, "a", since).load().unwrap();
    let error = dial(port, &outdated, Wants::Member, "a").await.unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    counted(&host, "handshake", 1).await;
    a_member_comes_in(&authority, port).await;
}

#[tokio::test]
async fn nobody_introduces_himself_under_another_name() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    let c = authority.credentials(Role::Server, "c");
    let error = dial(port, &c, Wants::Member, "a").await.unwrap_err().to_string();
    assert!(error.contains("this certificate is of c, and not of a"), "{error}");
    let unknown = dial(port, &c, Wants::Member, "c").await.unwrap_err().to_string();
    assert!(unknown.contains("has no part in any session"), "{unknown}");
    counted(&host, "introduction", 2).await;
    a_member_comes_in(&authority, port).await;
}

#[tokio::test]
async fn frames_that_make_no_sense_end_a_connection_and_nothing_else() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    let ann = authority.credentials(Role::Administrator, "ann");
    for (count, senseless) in [
        // A length above the limit, a frame of another version, a frame too short for a header.
        &[0xff, 0xff, 0xff, 0xff, 1, 5][..],
        &[0, 0, 0, 3, 9, 5, 0][..],
        &[0, 0, 0, 1, 1][..],
    ]
    .into_iter()
    .enumerate()
    {
        let expected = Expected { name: Some("b".into()), roles: &[Role::Server] };
        let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
        let mut transport = transport.secure(ann.client(expected).unwrap()).await.unwrap();
        transport.write_all(senseless).await.unwrap();
        transport.flush().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, transport.read_to_end(&mut answer)).await;
        drop(read.expect("it hangs up"));
        counted(&host, "senseless", count as u64 + 1).await;
    }
    let mut channel = dial(port, &ann, Wants::Administrator, "ann").await.unwrap();
    channel.put(Kind::Batch, b"no batch of an administrator").unwrap();
    let ended = tokio::time::timeout(PATIENCE, channel.receive()).await.unwrap();
    assert!(matches!(ended, Err(ChannelError::Closed | ChannelError::Io(_))), "{ended:?}");
    counted(&host, "senseless", 4).await;
    a_member_comes_in(&authority, port).await;
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_no_member_out() {
    let authority = Authority::new();
    let (host, port) = member(&authority).await;
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(loopback(port)).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a handshake, and no more.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    a_member_comes_in(&authority, port).await;
    counted(&host, "silent", 172).await;
}
