//! The gateway as a whole, over real sockets, against servers that fail in ways in which a real one
//! cannot be made to: each of them once, and at the right moment.

mod server;
mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use self::server::{Server, Silent};
use self::stage::{Client, Stage, run, until};

/// Times that a test can wait for.
const QUICK: &str = "[times]\nhold_ms = 600\nconnect_ms = 100\nstandby_reads_after_ms = 10";

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up_and_tried_again() {
    run(async {
        let stage = Stage::new(QUICK).await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        for silent in [Silent::FromTheStart, Silent::AfterTheLogIn] {
            server.silent.set(silent);
            let (opened, begun) = (server.opened.get(), Instant::now());
            let told = stage.stranger().await.answer().await;
            assert_eq!(told.sqlstate, "57P03", "{silent:?}: {told:?}");
            let (took, tries) = (begun.elapsed(), server.opened.get() - opened);
            assert!(took >= Duration::from_millis(600), "{silent:?}: {took:?}");
            assert!((2..=7).contains(&tries), "{silent:?}: {tries} tries");
            until(|| server.closed.get() == server.opened.get()).await;
        }
        server.silent.set(Silent::Never);
        assert_eq!(stage.client().await.ask("select 1").await.tags, "DCZ");
    });
}

#[test]
fn a_log_in_that_waits_for_a_silent_server_goes_on_when_another_one_serves() {
    run(async {
        let stage = Stage::new("[times]\nconnect_ms = 200").await;
        let (silent, good) = (Server::start().await, Server::start().await);
        silent.silent.set(Silent::FromTheStart);
        stage.serves(&silent, 1);
        let mut client = stage.stranger().await;
        until(|| silent.opened.get() == 1).await;
        stage.serves(&good, 2);
        assert_eq!(client.answer().await.sqlstate, "");
        assert_eq!(client.ask("select 1").await.tags, "DCZ");
    });
}

#[test]
fn a_statement_that_is_never_answered_is_repeated_when_another_server_serves() {
    run(async {
        let stage = Stage::new("").await;
        let (silent, good) = (Server::start().await, Server::start().await);
        good.answers.send_replace(true);
        stage.serves(&silent, 1);
        let (mut client, mut idle) = (stage.client().await, stage.client().await);
        client.send("select 'wait'").await;
        until(|| silent.heard("select 'wait'").is_some()).await;
        stage.serves(&good, 2);
        assert_eq!(client.answer().await.tags, "CZ");
        assert_eq!(idle.ask("select 1").await.tags, "DCZ");
        assert!(good.heard("select 1").is_some());
        until(|| silent.closed.get() == silent.opened.get()).await;
    });
}

#[test]
fn a_statement_on_a_server_that_lost_its_lease_ends_although_nobody_serves_ever_after() {
    run(async {
        let stage = Stage::new("[times]\nhold_ms = 300").await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let mut client = stage.client().await;
        client.send("select 'wait'").await;
        until(|| server.heard("select 'wait'").is_some()).await;
        stage.serves_no_more(&server, 1);
        let told = client.answer().await;
        assert_eq!(told.sqlstate, "57P03", "{told:?}");
        until(|| server.closed.get() == server.opened.get()).await;
        stage.serves(&server, 1);
        assert_eq!(client.ask("select 1").await.tags, "DCZ");
    });
}

#[test]
fn a_server_that_refuses_an_order_of_the_gateways_own_serves_nobody() {
    run(async {
        let stage = Stage::new(QUICK).await;
        let server = Server::start().await;
        server.settings.set(["on", "error"]);
        server.refuses.set(true);
        stage.serves(&server, 1);
        let told = stage.stranger().await.answer().await;
        assert_eq!(told.sqlstate, "57P03", "{told:?}");
        until(|| server.closed.get() == server.opened.get()).await;
        server.refuses.set(false);
        assert_eq!(stage.client().await.ask("select 1").await.tags, "DCZ");
    });
}

#[test]
fn a_cancel_on_its_way_meets_no_other_clients_statement() {
    run(async {
        let settings = "pooling = \"transaction\"\n[limits]\nserver_connections = 1";
        let stage = Stage::new(settings).await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let (mut first, mut second) = (stage.client().await, stage.client().await);
        first.send("select 'wait'").await;
        until(|| server.heard("select 'wait'").is_some()).await;
        // It arrives at the server, and is done there only when the test says so.
        server.cancelled.send_replace(false);
        let mut cancel = TcpStream::connect(stage.address).await.unwrap();
        cancel.write_all(&first.cancel_request()).await.unwrap();
        until(|| server.cancels.get() == 1).await;
        server.answers.send_replace(true);
        assert_eq!(first.answer().await.tags, "CZ");
        second.send("select 2").await;
        until(|| stage.house.counters.waiting.get() == 1).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.heard("select 2"), None, "the cancel would have met it");
        server.cancelled.send_replace(true);
        assert_eq!(second.answer().await.tags, "DCZ");
        assert_eq!(server.heard("select 2"), server.heard("select 'wait'"));
    });
}

async fn say_good_bye(client: &mut Client<TcpStream>) {
    let mut bytes = Vec::new();
    wire::message::push_terminate(&mut bytes);
    client.stream.write_all(&bytes).await.unwrap();
}

#[test]
fn a_client_that_leaves_while_its_cancel_is_on_its_way_takes_its_server_along() {
    run(async {
        let stage = Stage::new("").await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let mut first = stage.client().await;
        first.send("select 'wait'").await;
        until(|| server.heard("select 'wait'").is_some()).await;
        let process = server.heard("select 'wait'");
        server.cancelled.send_replace(false);
        let mut cancel = TcpStream::connect(stage.address).await.unwrap();
        cancel.write_all(&first.cancel_request()).await.unwrap();
        until(|| server.cancels.get() == 1).await;
        server.answers.send_replace(true);
        assert_eq!(first.answer().await.tags, "CZ");
        say_good_bye(&mut first).await;
        until(|| server.closed.get() == 1).await;
        let mut second = stage.client().await;
        assert_eq!(second.ask("select 2").await.tags, "DCZ");
        assert_ne!(server.heard("select 2"), process);
        server.cancelled.send_replace(true);
        assert_eq!(cancel.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_client_with_state_on_a_standby_is_told_when_a_principal_serves_again() {
    run(async {
        let stage = Stage::new(QUICK).await;
        let server = Server::start().await;
        stage.stands_by(&server, 1);
        let mut client = stage.client().await;
        server.session.borrow_mut().push(["lock", ""]);
        assert_eq!(client.ask("select pg_advisory_lock(1)").await.tags, "DCZ");
        assert_eq!(client.ask("select 1").await.tags, "DCZ");
        // While it waits for a principal it takes no processor time.
        let used = || rustix::time::clock_gettime(ClockId::ThreadCPUTime);
        let before = used();
        let told = client.ask("insert into t values (1)").await;
        assert_eq!((told.sqlstate.as_str(), told.closed), ("57P03", false), "{told:?}");
        let after = used();
        let spent = Duration::try_from(after - before).unwrap();
        assert!(spent < Duration::from_millis(200), "{spent:?}");
        assert_eq!(client.ask("select 1").await.tags, "DCZ");
        server.session.borrow_mut().clear();
        let principal = Server::start().await;
        stage.serves(&principal, 2);
        let told = client.ask("select 2").await;
        assert_eq!((told.sqlstate.as_str(), told.closed), ("57P01", true), "{told:?}");
        assert!(told.message.contains("advisory locks"), "{told:?}");
        assert_eq!(principal.heard("select 2"), None);
    });
}

#[test]
fn who_waits_for_a_connection_gets_it_in_turn() {
    run(async {
        let settings = "pooling = \"transaction\"\n[limits]\nserver_connections = 1";
        let stage = Stage::new(settings).await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let mut holder = stage.client().await;
        holder.send("select 'wait'").await;
        until(|| server.heard("select 'wait'").is_some()).await;
        let mut clients = Vec::new();
        for number in 1..=20 {
            let mut client = stage.client().await;
            client.send(&format!("select {number}")).await;
            until(|| stage.house.counters.waiting.get() == number).await;
            clients.push(client);
        }
        // One gives up: its turn goes to the next.
        drop(clients.remove(4));
        server.answers.send_replace(true);
        assert_eq!(holder.answer().await.tags, "CZ");
        holder.send("select 'late'").await;
        for client in &mut clients {
            assert_eq!(client.answer().await.tags, "DCZ");
        }
        assert_eq!(holder.answer().await.tags, "DCZ");
        let asked = server.asked.borrow();
        let of_clients = asked.iter().filter_map(|(_, text)| text.strip_prefix("select "));
        let numbers: Vec<u32> = of_clients.filter_map(|number| number.parse().ok()).collect();
        assert!(numbers.is_sorted() && numbers.len() >= 19, "{numbers:?}");
        assert_eq!(asked.last().unwrap().1, "select 'late'");
    });
}

/// A connection with TLS, whose socket takes little ahead.
async fn by_tls(stage: &Stage) -> tokio_rustls::client::TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(stage.address).await.unwrap();
    let mut request = Vec::new();
    wire::startup::push_request(&mut request, wire::startup::SSL_REQUEST);
    socket.write_all(&request).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    let mut roots = RootCertStore::empty();
    roots.add(stage.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

#[test]
fn an_answer_comes_to_its_end_also_by_tls_and_for_a_slow_reader() {
    run(async {
        let stage = Stage::new("").await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let mut client = Client::over(by_tls(&stage).await).await;
        assert_eq!(client.answer().await.sqlstate, "");
        // Some of these fill the sockets and end inside TLS, whose bytes nobody asks for again.
        for size in (1..=20).map(|count| count * 10_000).chain([10_000_000]) {
            server.written.set(0);
            client.send(&format!("select 'big' -- {size}")).await;
            let (mut written, mut still) = (0, 0);
            until(|| {
                still = if server.written.get() == written { still + 1 } else { 0 };
                written = server.written.get();
                written > 0 && still > 500
            })
            .await;
            let told = client.answer().await;
            assert_eq!((told.tags.as_str(), told.bytes), ("DCZ", size));
        }
        assert!(server.opened.get() <= 2, "it was not repeated");
    });
}

#[test]
fn a_cancel_by_tls_ends_as_tls_wants_it() {
    run(async {
        let stage = Stage::new("").await;
        let server = Server::start().await;
        stage.serves(&server, 1);
        let mut client = stage.client().await;
        client.send("select 'wait'").await;
        until(|| server.heard("select 'wait'").is_some()).await;
        let mut cancel = by_tls(&stage).await;
        cancel.write_all(&client.cancel_request()).await.unwrap();
        // Without the alert it would be an error: somebody might have cut it off.
        assert_eq!(cancel.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(server.cancels.get(), 1);
    });
}
