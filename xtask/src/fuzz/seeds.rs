//! Where the search begins: recorded streams, and what our own writers write.
//!
//! `fuzz/client` and `fuzz/server` hold what psql, pgbench and vacuumdb said to PostgreSQL and were
//! told, byte by byte, from the first packet on.

use anyhow::{Context as _, Result};
use gateway::fuzz::{ANSWER, CLIENT, LOST};
use protocol::admin::Request;
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use wire::frame::split;
use wire::scram::client::{Client, ClientSecret};
use wire::scram::server::{Channel, Mechanism, Server};
use wire::scram::{Keys, Verifier};

use super::targets::{NONCE, SALT, Target};

/// Statements that the recorded ones have nothing of.
const STATEMENTS: [&str; 8] = [
    "SET synchronous_commit TO off; SELECT set_config('synchronous_commit', 'local', false)",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x FOR UPDATE",
    "PREPARE TRANSACTION 'it''s'; COMMIT PREPARED E'a\\'b'; ROLLBACK PREPARED $$x$$",
    "CREATE TEMP TABLE a AS SELECT nextval('s'), pg_advisory_lock(1), lo_create(0)",
    "DECLARE \"a\"\"b\" CURSOR WITH HOLD FOR SELECT U&'\\0041' UESCAPE '!' /* a /* b */ c */ -- d",
    "DO $x$ BEGIN PERFORM 1; END $x$; CALL p(); COPY t FROM STDIN; COPY t TO STDOUT",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; COMMIT AND CHAIN; ROLLBACK TO a; END",
    "-c synchronous_commit=off -cclient_min_messages=\\ error --search-path=a\\,b",
];

/// What each target begins with; none is empty.
pub fn of(target: Target) -> Result<Vec<Vec<u8>>> {
    let clients = || recorded("client");
    Ok(match target {
        Target::Startup => {
            let mut packets = clients()?;
            packets.iter_mut().for_each(|stream| stream.truncate(200));
            let mut cancel = Vec::new();
            wire::startup::push_cancel(&mut cancel, 7, &[1; 32]);
            packets.push(cancel);
            packets
        }
        Target::FromClient => clients()?.iter().map(|stream| tagged(stream).to_vec()).collect(),
        Target::FromServer => {
            let mut streams = recorded("server")?;
            // The answer to the request for TLS has no message around it.
            for stream in &mut streams {
                if stream.first() == Some(&b'N') {
                    stream.remove(0);
                }
            }
            streams.push(replication());
            streams
        }
        Target::Scram => vec![log_in(), Verifier::of_password(b"x", SALT, 1).to_text().into()],
        Target::Sql => {
            let mut texts: Vec<Vec<u8>> = STATEMENTS.iter().map(|text| (*text).into()).collect();
            for stream in clients()? {
                let messages = messages(tagged(&stream));
                texts.extend(messages.into_iter().map(|message| message[5..].to_vec()));
            }
            texts
        }
        Target::Conversation => clients()?.iter().flat_map(|stream| scripts(stream)).collect(),
        Target::Members => members(),
        Target::Commands => commands(),
    })
}

fn recorded(side: &str) -> Result<Vec<Vec<u8>>> {
    let dir = crate::root().join("fuzz").join(side);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        paths.push(entry.with_context(|| format!("list {}", dir.display()))?.path());
    }
    // The same order everywhere, so that a seed means the same cases everywhere.
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).with_context(|| format!("read {}", path.display()))
    };
    paths.iter().map(read).collect()
}

/// The messages behind the start-up packets.
fn tagged(mut stream: &[u8]) -> &[u8] {
    while let Ok(Some((_, size))) = wire::startup::split(stream) {
        stream = &stream[size..];
    }
    stream
}

fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Ok(Some(frame)) = split(stream, stream.len()) {
        let (message, rest) = stream.split_at(frame.size());
        found.push(message);
        stream = rest;
    }
    found
}

/// A recorded client: answered message by message, at the end only, and with a server that is lost.
fn scripts(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = messages(tagged(stream)).into_iter().filter(|message| message[0] != b'p');
    let stream: Vec<&[u8]> = stream.collect();
    let script = |between: &[u8], at_end: &[u8]| {
        let mut script = Vec::new();
        for message in &stream {
            for part in message.chunks(200) {
                script.extend_from_slice(&[CLIENT, part.len() as u8]);
                script.extend_from_slice(part);
            }
            script.extend_from_slice(between);
        }
        script.extend_from_slice(at_end);
        script
    };
    vec![
        script(&[ANSWER], &[]),
        script(&[ANSWER, ANSWER], &[LOST, 0]),
        script(&[], &[ANSWER, ANSWER, ANSWER]),
        script(&[3], &[ANSWER]),
        script(&[LOST, 0, ANSWER], &[ANSWER]),
    ]
}

/// A whole log-in as four lines.
fn log_in() -> Vec<u8> {
    let verifier = Verifier::of_password(b"secret", SALT, 1);
    let keys = Keys::of_password(b"secret", SALT, 1);
    let secret = ClientSecret::Keys { keys: &keys, salt: SALT, iterations: 1 };
    let (client, first) = Client::begin(secret, None, NONCE);
    let begun = Server::begin(&verifier, Mechanism::Plain, Channel::Clear, &first, NONCE);
    let Ok((server, answer)) = begun else {
        return first;
    };
    let Ok((_, last)) = client.prove(&answer) else {
        return answer;
    };
    let signature = server.check(&last).map(|proven| proven.message).unwrap_or_default();
    [first, last, answer, signature].join(&b'\n')
}

/// WAL and a keepalive, as a server sends them.
fn replication() -> Vec<u8> {
    let mut stream = Vec::new();
    for tag in [b'w', b'k'] {
        wire::frame::push(&mut stream, b'd', |out| {
            out.push(tag);
            out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0].repeat(3));
            out.extend_from_slice(b"records");
        });
    }
    stream
}

fn members() -> Vec<Vec<u8>> {
    let me = Introduction {
        deployment: "demo".to_owned(),
        host: "be1".to_owned(),
        run: 7,
        software: "1".to_owned(),
    };
    let hello = me.hello(Role::Member, "be2");
    let mut framed = Vec::new();
    let written = protocol::frame::write(Kind::Hello, &hello.to_bytes(), &mut framed);
    let mut found = vec![hello.to_bytes()];
    if let Ok(welcome) = me.answer(&me.hello(Role::Administrator, "be1"), |_| true) {
        found.push(welcome.to_bytes());
    }
    found.extend(written.is_ok().then_some(framed));
    found
}

fn commands() -> Vec<Vec<u8>> {
    let pool = || "pool01".to_owned();
    let requests = [
        Request::Status { pool: Some(pool()) },
        Request::Follow { pool: pool(), stamp: 7 },
        Request::Suspend { pool: pool() },
        Request::Shutdown { stop_postgres: true },
    ];
    let mut found: Vec<Vec<u8>> = requests.iter().map(Request::to_bytes).collect();
    found.push(br#"{"response": "done", "sentence": "it is"}"#.to_vec());
    found
}
