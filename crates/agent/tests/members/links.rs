//! Links between hosts: batches, slow peers, reconnection.

use std::time::{Duration, Instant};

use agent::peers::{Channel, Transport};
use protocol::frame::Kind;
use protocol::v1::Batch;
use session::{
    Body, Boundary, Member, Position, Promotion, Report, Stamp, Term, Timeline, WitnessId,
};
use tokio::net::TcpListener;

use crate::rig::{Host, PATIENCE, address, introduction, loopback, message};

const WITNESS: Member = Member::Witness(WitnessId(5));

fn heartbeat(sent: u64) -> Body {
    let stamp = Stamp { run: 1, sent: session::Instant::from_micros(sent) };
    Body::Heartbeat { stamp, report: Report::default() }
}

/// The accepting side of one connection, which speaks only when the test does.
async fn accept(listener: &TcpListener, name: &str) -> Channel {
    let (stream, _) = listener.accept().await.unwrap();
    let mut channel = Channel::new(Transport::over(stream).unwrap());
    let hello = channel.hear().await.unwrap();
    let welcome = introduction(name).answer(&hello, |_| true).unwrap();
    channel.put(Kind::Welcome, &welcome.to_bytes()).unwrap();
    channel.write_all().await.unwrap();
    channel
}

async fn batch(channel: &mut Channel) -> Batch {
    loop {
        let frame = tokio::time::timeout(PATIENCE, channel.receive()).await.unwrap().unwrap();
        if frame.kind == Kind::Batch {
            return postcard::from_bytes(&frame.payload).unwrap();
        }
    }
}

#[tokio::test]
async fn the_messages_of_a_turn_travel_in_one_frame() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut host = Host::start("a", vec![address("b", port)]).await;
    let mut channel = accept(&listener, "b").await;
    // One message shows that the link is up.
    host.send("b", "first", &message(Member::FIRST, WITNESS, None, Body::StateAsked { nonce: 1 }));
    host.peers.flush();
    assert_eq!(batch(&mut channel).await.items.len(), 1);
    for number in 0..100 {
        let session = format!("pool{number}");
        host.send("b", &session, &message(Member::FIRST, WITNESS, None, heartbeat(number)));
    }
    host.send("nobody", "x", &message(Member::FIRST, WITNESS, None, heartbeat(0)));
    host.peers.flush();
    assert_eq!(batch(&mut channel).await.items.len(), 100);
}

/// A message of some 100 kB.
fn heavy() -> Body {
    let promotion = Promotion {
        term: Term(u64::MAX),
        timeline: Timeline(u32::MAX),
        fork: Position::default(),
        boundary: Boundary::Unknown,
        established: false,
    };
    let remembered = session::Shown::default();
    Body::StateAnswered { nonce: 0, remembered, promotions: vec![promotion; 5_000] }
}

#[tokio::test]
async fn a_stuck_peer_delays_nobody_else() {
    let stuck = TcpListener::bind(loopback(0)).await.unwrap();
    let good = TcpListener::bind(loopback(0)).await.unwrap();
    let ports = [&stuck, &good].map(|listener| listener.local_addr().unwrap().port());
    let mut host =
        Host::start("a", vec![address("stuck", ports[0]), address("good", ports[1])]).await;
    let mut other = Host::start_on("good", good, vec![address("a", 1)]);
    let silent = accept(&stuck, "stuck").await;
    let heavy = message(Member::FIRST, Member::SECOND, None, heavy());
    let mut slowest = Duration::ZERO;
    for number in 0..200_u64 {
        // Far more than the sockets hold, to a peer that reads nothing.
        host.send("stuck", "pool", &heavy);
        let sent = message(Member::FIRST, WITNESS, None, Body::StateAsked { nonce: number });
        let begun = Instant::now();
        host.send("good", "pool", &sent);
        host.peers.flush();
        let received = other.receive(PATIENCE).await.unwrap();
        assert_eq!((received.host.as_str(), &received.message), ("a", &sent));
        if number > 0 {
            slowest = slowest.max(begun.elapsed());
        }
    }
    println!("links: slowest message beside a stuck peer {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(silent);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_at_once() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut host = Host::start("a", vec![address("b", port)]).await;
    let channel = accept(&listener, "b").await;
    tokio::time::timeout(PATIENCE, async {
        drop(channel);
        let begun = Instant::now();
        let mut channel = accept(&listener, "b").await;
        println!("links: connected again after {:?}", begun.elapsed());
        assert!(begun.elapsed() < PATIENCE);
        let sent = message(Member::FIRST, WITNESS, None, Body::StateAsked { nonce: 9 });
        host.send("b", "pool", &sent);
        host.peers.flush();
        assert_eq!(batch(&mut channel).await.items.len(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_of_another_deployment_is_refused() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _host = Host::start_on("b", listener, vec![address("a", 1)]);
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
    let mut channel = Channel::new(transport);
    let mut stranger = introduction("a");
    stranger.deployment = "other".to_owned();
    let hello = stranger.hello(protocol::handshake::Role::Member, "b");
    let error = channel.introduce(&hello).await.unwrap_err();
    assert!(error.to_string().contains("deployment"), "{error}");
}

#[tokio::test]
async fn silent_strangers_keep_no_member_out() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _host = Host::start_on("b", listener, vec![address("a", 1)]);
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(tokio::net::TcpStream::connect(loopback(port)).await.unwrap());
    }
    let begun = Instant::now();
    let transport = Transport::dial("127.0.0.1", port, PATIENCE).await.unwrap();
    let mut channel = Channel::new(transport);
    let hello = introduction("a").hello(protocol::handshake::Role::Member, "b");
    tokio::time::timeout(PATIENCE, channel.introduce(&hello)).await.unwrap().unwrap();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_does_not_introduce_himself_is_not_listened_to_for_long() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let mut talker = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut channel = Channel::new(Transport::over(stream).unwrap());
    // The beginning of a frame of 1 MiB.
    let mut bytes = vec![0_u8; 100_000];
    bytes[..6].copy_from_slice(&[0, 16, 0, 0, 1, 1]);
    let heard = tokio::time::timeout(PATIENCE, async {
        let write = tokio::io::AsyncWriteExt::write_all(&mut talker, &bytes);
        tokio::join!(write, channel.hear()).1
    });
    assert!(heard.await.unwrap().is_err());
}
