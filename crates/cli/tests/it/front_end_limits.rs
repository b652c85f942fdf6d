//! The limits of a Front End, and clients that do not do what clients should: whatever one of them
//! does, the others are served.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use tokio::io::copy_bidirectional;
use tokio_postgres::{Config, NoTls};

use crate::front_end::{PATIENCE, Session, runtime, until};
use crate::stage::{Demo, process};

#[test]
fn a_front_end_keeps_to_its_limits_and_no_client_harms_another() {
    let demo = Demo::start("fe-limits", &["--profile", "fast"]);
    demo.wait_until_armed();
    demo.superuser("be1", "CREATE ROLE clerk LOGIN PASSWORD 'right' CONNECTION LIMIT 1");
    demo.set_front_end(&[
        ("clients", "5"),
        ("clients_per_user", "4"),
        ("server_connections", "2"),
        ("held", "1"),
        ("login_ms", "1000"),
        ("slow_client_ms", "500"),
    ]);
    let uri = crate::clients::front_end(&demo);
    let clerk = Session::open(&demo.front_end_uri("clerk", "right")).unwrap();
    clients_are_limited_by_user_and_in_all(&demo, &uri);
    drop(clerk);
    wait_for_sessions(&demo, 0);
    server_connections_go_to_the_next_who_waits_and_few_may_wait(&demo, &uri);
    wait_for_sessions(&demo, 0);

    let witness = Session::open(&uri).unwrap();
    who_says_nothing_is_sent_away(&demo);
    bytes_that_are_no_log_in_get_an_error(&demo);
    bytes_that_are_no_message_get_an_error(&demo, &uri);
    who_reads_nothing_is_sent_away(&demo, &uri);
    assert_eq!(witness.value("SELECT 1"), "1");
    assert_eq!(demo.front_end_status()["counters"]["sessions_ended"]["fault"], 0);
}

#[track_caller]
fn wait_for_sessions(demo: &Demo, count: u64) {
    until("client sessions have gone", || {
        demo.front_end_status()["client_sessions"]["all"] == count
    });
}

#[track_caller]
fn refused(uri: &str, sqlstate: &str, words: &str) {
    let failed = Session::open(uri).err().unwrap();
    assert_eq!(failed.sqlstate, sqlstate, "{failed:?}");
    assert!(failed.message.contains(words), "{failed:?}");
}

fn clients_are_limited_by_user_and_in_all(demo: &Demo, uri: &str) {
    let clerk = demo.front_end_uri("clerk", "right");
    refused(&clerk, "53300", "the user has as many");
    let mut others: Vec<Session> = (0..4).map(|_| Session::open(uri).unwrap()).collect();
    refused(uri, "53300", "the Front End has as many client sessions");
    let last = others.pop();
    drop(last);
    until("there is room again", || Session::open(uri).is_ok());
    for session in &others[..2] {
        assert_eq!(session.value("SELECT 1"), "1");
    }
}

fn server_connections_go_to_the_next_who_waits_and_few_may_wait(demo: &Demo, uri: &str) {
    let open = || Session::open(uri).unwrap();
    let (first, second, third, fourth) = (open(), open(), open(), open());
    refused(uri, "53300", "the user has as many");
    assert_eq!(first.value("SELECT 1"), "1");
    assert_eq!(second.value("SELECT 2"), "2");
    let waits = third.send("SELECT 3");
    until("it waits", || demo.front_end_status()["client_sessions"]["held"] == 1);
    let failed = fourth.fails("SELECT 4", "57P03");
    assert!(failed.message.contains("too many client sessions wait"), "{failed:?}");
    assert!(waits.is_waiting());
    drop(first);
    assert_eq!(waits.answer().unwrap(), [[Some("3".to_owned())]]);
    let waits = fourth.send("SELECT 4");
    until("it waits", || demo.front_end_status()["client_sessions"]["held"] == 1);
    fourth.cancel();
    let failed = waits.answer().unwrap_err();
    assert_eq!(failed.sqlstate, "57014", "{failed:?}");
    drop(second);
    assert_eq!(fourth.value("SELECT 4"), "4");
}

fn connect(demo: &Demo) -> TcpStream {
    let port = process(&demo.status(), "fe1")["port"].as_u64().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the Front End closes.
#[track_caller]
fn last_words(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        // A reset may come after the words, as with any server.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is not closed");
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn who_says_nothing_is_sent_away(demo: &Demo) {
    let mut silent = connect(demo);
    let mut slow = connect(demo);
    slow.write_all(&[0, 0, 0, 40, 0, 3]).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
}

fn bytes_that_are_no_log_in_get_an_error(demo: &Demo) {
    for (start, words) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], "C08P01"),
        (&[0, 0, 0, 0, 0, 3, 0, 0], "C08P01"),
        (&[0xff; 64], "C08P01"),
        (&[0, 0, 0, 8, 0, 3, 0, 0], "C08P01"),
        (&[0, 0, 0, 13, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0], "C08P01"),
        (&[0, 0, 0, 9, 0, 2, 0, 0, 0], "C0A000"),
        // No handshake of TLS comes so far that words could be read.
        (&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5], ""),
    ] {
        let mut stream = connect(demo);
        stream.write_all(start).unwrap();
        let said = last_words(&mut stream);
        assert!(said.contains(words), "{start:?}: {said:?}");
    }
}

/// A client that has logged in, and whose bytes are then the test's own.
fn logged_in(uri: &str) -> TcpStream {
    let config: Config = uri.parse().unwrap();
    let address = format!("127.0.0.1:{}", config.get_ports()[0]);
    let stream = runtime().block_on(async {
        let work = runtime().spawn(async move {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let (inner, mut outer) = tokio::io::duplex(64 * 1024);
            let connected = tokio::select! {
                connected = config.connect_raw(inner, NoTls) => connected,
                _ended = copy_bidirectional(&mut outer, &mut socket) => panic!("no log-in"),
            };
            // Kept until the socket is the test's, so that no good-bye is sent.
            let (_client, _connection) = connected.unwrap();
            socket.into_std().unwrap()
        });
        work.await.unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn bytes_that_are_no_message_get_an_error(demo: &Demo, uri: &str) {
    for bytes in [
        &[b'Q', 0, 0, 0, 1][..],
        &[b'Q', 0xff, 0xff, 0xff, 0xff],
        &[b'~', 0, 0, 0, 4],
        &[0; 16],
        &[b'B', 0, 0, 0, 8, 1, 2, 3, 4],
        &[b'Q', 0, 0, 0, 8, b'a', b'b', b'c', b'd'],
    ] {
        let mut stream = logged_in(uri);
        stream.write_all(bytes).unwrap();
        // Those that are well framed are the server's to answer; a Sync shows that it has.
        stream.write_all(&[b'S', 0, 0, 0, 4, b'X', 0, 0, 0, 4]).unwrap();
        let said = last_words(&mut stream);
        assert!(said.contains("C08P01") || said.contains("C22021"), "{bytes:?}: {said:?}");
    }
    let mut half = logged_in(uri);
    half.write_all(&[b'Q', 0, 0, 0, 100, b'S']).unwrap();
    drop(half);
    until("half a message harms nobody", || demo.front_end_status()["client_sessions"]["all"] == 1);
}

fn who_reads_nothing_is_sent_away(demo: &Demo, uri: &str) {
    let mut stream = logged_in(uri);
    let text = b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)\0";
    let length = u32::try_from(text.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[b"Q", &length[..], &text[..]].concat()).unwrap();
    until("the slow client is sent away", || {
        demo.front_end_status()["counters"]["sessions_ended"]["slow"] == 1
    });
}
