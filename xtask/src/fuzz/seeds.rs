//! Where the search begins: recorded streams, and what our own writers write.
//!
//! `fuzz/client` and `fuzz/server` hold what psql, pgbench and vacuumdb said to PostgreSQL and were
//! told, byte by byte, from the first packet on; `fuzz/protocol` what Backstay's own processes say
//! and keep, each file named after its reader.

use anyhow::{Context as _, Result, ensure};
use gateway::fuzz::{ANSWER, CLIENT, LOST};
use protocol::admin::{Request, TopologyRequest, TopologyStanding};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use trust::{Answer, Ask, Reason, Refusal};
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
        Target::Frames => recorded_for(target)?.into_iter().chain(framed()).collect(),
        Target::Handshake => handshakes(),
        Target::Requests => requests().iter().map(Request::to_bytes).collect(),
        Target::Enrolment => enrolment(),
        Target::Batches
        | Target::Responses
        | Target::Durable
        | Target::Ledger
        | Target::Tokens
        | Target::Certificates => recorded_for(target)?,
    })
}

/// Those of `fuzz/protocol` whose names begin with the target's.
fn recorded_for(target: Target) -> Result<Vec<Vec<u8>>> {
    let named = |name: &str| name.split('-').next() == Some(target.name());
    let found = recorded_if("protocol", named)?;
    ensure!(!found.is_empty(), "fuzz/protocol has nothing for {}", target.name());
    Ok(found)
}

fn recorded(side: &str) -> Result<Vec<Vec<u8>>> {
    recorded_if(side, |_| true)
}

fn recorded_if(side: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Vec<u8>>> {
    let dir = crate::root().join("fuzz").join(side);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        paths.push(entry.with_context(|| format!("list {}", dir.display()))?.path());
    }
    paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted));
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

pub fn introduction() -> Introduction {
    Introduction {
        deployment: "demo".to_owned(),
        host: "be1".to_owned(),
        run: 7,
        software: "1".to_owned(),
    }
}

fn handshakes() -> Vec<Vec<u8>> {
    let me = introduction();
    let hello = me.hello(Role::Member, "be1");
    let other = Introduction { host: "be2".to_owned(), ..introduction() };
    let mut found = vec![hello.to_bytes(), other.hello(Role::Member, "be1").to_bytes()];
    match me.answer(&me.hello(Role::Administrator, "be1"), |_| true) {
        Ok(welcome) => found.push(welcome.to_bytes()),
        Err(refused) => found.push(refused.to_bytes()),
    }
    found.extend(me.answer(&hello, |_| false).err().map(|refused| refused.to_bytes()));
    found
}

/// A connection as a command makes it.
fn framed() -> Option<Vec<u8>> {
    let hello = introduction().hello(Role::Administrator, "be1").to_bytes();
    let mut out = Vec::new();
    protocol::frame::write(Kind::Hello, &hello, &mut out).ok()?;
    for request in requests() {
        protocol::frame::write(Kind::Request, &request.to_bytes(), &mut out).ok()?;
    }
    protocol::frame::write(Kind::Ping, &[], &mut out).ok()?;
    Some(out)
}

fn requests() -> Vec<Request> {
    let pool = || "pool01".to_owned();
    let document = "format = 1\n".to_owned();
    let (author, comment) = ("anna".to_owned(), "why".to_owned());
    vec![
        Request::Status { pool: Some(pool()) },
        Request::Failover { pool: pool(), to: Some("be2".to_owned()), dry_run: true },
        Request::ForceService { pool: pool(), accept_data_loss: true },
        Request::Follow { pool: pool(), stamp: 7 },
        Request::Drained { pool: pool(), term: 4 },
        Request::Suspend { pool: pool() },
        Request::History { pool: pool(), after: Some(1), limit: None },
        Request::ChangeWitness { pool: pool(), to: None },
        Request::Shutdown { stop_postgres: true },
        Request::Topology(TopologyRequest::Publish { base: 1, document, author, comment }),
        Request::Topology(TopologyRequest::Follow {
            standing: TopologyStanding::default(),
            wait_ms: 5,
        }),
        Request::Preflight { parts: Vec::new() },
        Request::Audit { since_ms: Some(1), limit: Some(2) },
    ]
}

fn enrolment() -> Vec<Vec<u8>> {
    let (request, certificate) = (vec![0x30, 3, 2, 1, 0], vec![0x30, 0]);
    let asks = [
        Ask::Join { token: [1; 8], request: request.clone(), proof: [2; 32] },
        Ask::Renew { request },
    ];
    let refusal = Refusal::new(Reason::Used, "the token was used already");
    let authority = certificate.clone();
    let answers = [Answer::Granted { certificate, authority }, Answer::Refused(refusal)];
    let asked = asks.iter().map(|ask| ask.to_bytes()[4..].to_vec());
    asked.chain(answers.iter().map(|answer| answer.to_bytes()[4..].to_vec())).collect()
}
