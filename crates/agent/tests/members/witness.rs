//! The witness as a process: many sessions over one connection, and kill -9.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::config::{MemberAddress, Times, Witness, WitnessFile, WitnessPool};
use protocol::admin::{Request, Response, Role};
use session::{
    Body, Lsn, Member, Partner, Position, Protected, Reach, Record, RecordId, Term, Timeline,
    Verdict, WitnessId,
};

use crate::rig::{Dir, Host, PATIENCE, Process, address, as_child, ask, free_port, message};

const SESSIONS: usize = 300;

fn pool(number: usize) -> String {
    format!("pool{number:03}")
}

fn write_config(dir: &Path, port: u16) -> PathBuf {
    let member = |name: &str, port| MemberAddress {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
    };
    let file = WitnessFile {
        name: "wit1".to_owned(),
        deployment: "test".to_owned(),
        listen: format!("127.0.0.1:{port}"),
        state_dir: dir.join("state"),
        retired: Default::default(),
        pools: (0..SESSIONS)
            .map(|number| WitnessPool {
                name: pool(number),
                profile: "fast".to_owned(),
                // Never dialled: their names are lower, so they dial.
                first: member("be1", 1),
                second: member("be2", 1),
                times: Times::default(),
            })
            .collect(),
    };
    let path = dir.join("witness.toml");
    std::fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
    path
}

#[test]
fn child_that_is_a_witness() {
    let Some(config) = as_child() else { return };
    let config = Witness::load(&config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(agent::witness::run(config, std::future::pending())).unwrap();
}

fn start(config: &Path) -> Process {
    Process::start("witness::child_that_is_a_witness", config)
}

fn witness() -> Member {
    Member::Witness(WitnessId::named("wit1"))
}

fn genesis() -> Record {
    Record::genesis(Partner::First, Some(WitnessId::named("wit1")))
}

/// Asks in every session, and answers the witness's own questions, until `take` is content with
/// all of them.
async fn in_every_session(
    host: &mut Host,
    body: impl Fn() -> Body,
    take: impl Fn(&session::Message) -> bool,
) -> Duration {
    let begun = Instant::now();
    let mut missing: Vec<usize> = (0..SESSIONS).collect();
    while !missing.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} sessions did not answer", missing.len());
        for number in &missing {
            let asked = message(Member::FIRST, witness(), Some(genesis()), body());
            host.send("wit1", &pool(*number), &asked);
        }
        host.peers.flush();
        let mut content = BTreeMap::new();
        let mut open = missing.len();
        while open > 0 {
            let Some(received) = host.receive(Duration::from_millis(100)).await else { break };
            if let Body::StateAsked { nonce } = received.message.body {
                let remembered = session::Shown::default();
                let answer = Body::StateAnswered { nonce, remembered, promotions: Vec::new() };
                let answer = message(Member::FIRST, witness(), Some(genesis()), answer);
                host.send("wit1", &received.session, &answer);
                host.peers.flush();
            }
            if take(&received.message) {
                content.insert(received.session, ());
                open -= 1;
            }
        }
        missing.retain(|number| !content.contains_key(&pool(*number)));
    }
    begun.elapsed()
}

fn is_shaken(message: &session::Message) -> bool {
    matches!(message.body, Body::StateAnswered { nonce: 4, .. })
}

fn vote() -> Body {
    Body::VoteAsked {
        term: Term(2),
        position: Position { timeline: Timeline(1), lsn: Lsn(100) },
        reach: Reach(Protected { term: Term(0), lsn: Lsn(100) }),
    }
}

/// A vote is given once. If its answer was dropped on the way, the next one refuses, and shows the
/// record that the vote made.
fn is_granted(message: &session::Message) -> bool {
    match &message.body {
        Body::VoteAnswered { term: Term(2), verdict: Verdict::Granted, .. } => true,
        Body::VoteAnswered { term: Term(2), .. } => is_elected(message),
        _other => false,
    }
}

fn is_elected(message: &session::Message) -> bool {
    let elected = RecordId { term: Term(2), revision: 0 };
    message.promise == Term(2) && message.record.is_some_and(|record| record.id == elected)
}

fn resident_kb(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_witness_keeps_its_votes_in_many_sessions_over_kill_9() {
    let dir = Dir::new("witness");
    let port = free_port();
    let config = write_config(dir.path(), port);
    let mut process = start(&config);
    let begun = Instant::now();
    for number in 0..SESSIONS {
        let response = ask(port, &Request::CreateSession { pool: pool(number) }).await;
        assert!(matches!(response, Response::Done { .. }), "{response:?}");
    }
    println!("witness: {SESSIONS} sessions created in {:?}", begun.elapsed());
    let again = ask(port, &Request::CreateSession { pool: pool(0) }).await;
    assert!(matches!(again, Response::Refused(refusal) if refusal.code == "session_exists"));
    let followed = ask(port, &Request::Follow { pool: pool(0), stamp: 1 }).await;
    assert!(matches!(followed, Response::Refused(refusal) if refusal.code == "not_a_partner"));

    let mut host = Host::start("be1", vec![address("wit1", port)]).await;
    let shaken = in_every_session(&mut host, || Body::StateAsked { nonce: 4 }, is_shaken).await;
    let granted = in_every_session(&mut host, vote, is_granted).await;
    let memory = resident_kb(process.0.id());
    println!("witness: shaken {shaken:?}, votes {granted:?}, {memory} kB");

    process.kill();
    let process = start(&config);
    let shown = |message: &session::Message| is_shaken(message) && is_elected(message);
    let back = in_every_session(&mut host, || Body::StateAsked { nonce: 4 }, shown).await;
    println!("witness: back after {back:?}");
    let Response::Status(status) = ask(port, &Request::Status { pool: None }).await else {
        panic!("no status");
    };
    assert_eq!(status.sessions.len(), SESSIONS);
    assert!(status.sessions.iter().all(|session| session.role == Role::Witness));
    assert!(status.sessions.iter().all(|session| session.term == 2));
    drop(process);
}
