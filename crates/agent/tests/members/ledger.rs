//! The ledger: what was told to be durable is there after kill -9, and damage is never believed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

use agent::ledger::{Found, Ledger, LedgerError, Opened};
use session::{Durable, Identity, Record, Term};

use crate::rig::{Dir, Process, as_child};

fn state(promise: u64) -> Durable {
    let record = Record::genesis(session::Partner::First, None);
    Durable { promise: Term(promise), ..Durable::created(Identity(7), record, None) }
}

fn wait(opened: &mut Opened) -> Vec<(String, u64)> {
    let flushed = opened.outcomes.blocking_recv().expect("the writer lives").unwrap();
    opened.ledger.go_on();
    flushed.into_iter().map(|flushed| (flushed.session, flushed.ticket)).collect()
}

/// Writes promise after promise for three sessions, and tells each that is durable.
#[test]
fn child_that_promises() {
    let Some(dir) = as_child() else { return };
    let mut opened = Ledger::open(&dir).unwrap();
    let start = opened.states.values().map(|state| state.promise.0).max().unwrap_or(0);
    let mut out = std::io::stdout();
    for promise in start + 1.. {
        let session = format!("pool{}", promise % 3);
        opened.ledger.persist(&session, promise, &state(promise));
        // Sometimes several are in one flush.
        if promise % 5 == 0 {
            continue;
        }
        while !opened.ledger.is_idle() {
            for (session, ticket) in wait(&mut opened) {
                writeln!(out, "durable {session} {ticket}").unwrap();
            }
        }
    }
}

#[test]
fn what_was_told_to_be_durable_survives_kill_9() {
    let dir = Dir::new("kill");
    let mut told = std::collections::BTreeMap::<String, u64>::new();
    for round in 0..12_u64 {
        let mut child = Process::start("ledger::child_that_promises", dir.path());
        let out = BufReader::new(child.0.stdout.take().unwrap());
        // Somewhere in the middle of something, a different somewhere each time.
        let lines = 20 + round * 137;
        let mut seen = 0;
        for line in out.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() != Some("durable") {
                continue;
            }
            let session = words.next().unwrap().to_owned();
            told.insert(session, words.next().unwrap().parse().unwrap());
            seen += 1;
            if seen == lines {
                let _ = child.0.kill();
            }
        }
        assert!(seen >= lines, "the child ended by itself");
        child.kill();
        let opened = Ledger::open(dir.path()).unwrap();
        assert!(matches!(opened.found, Found::Whole), "{:?}", opened.found);
        for (session, promise) in &told {
            let kept = opened.states[session].promise.0;
            assert!(kept >= *promise, "{session}: {kept} is less than {promise} (round {round})");
        }
    }
    assert_eq!(told.len(), 3);
}

#[test]
fn a_second_process_is_refused() {
    let dir = Dir::new("lock");
    let _first = Ledger::open(dir.path()).unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::InUse(_))));
}

type Alteration = fn(&mut Vec<u8>);

fn altered(name: &str, alter: Alteration) -> Opened {
    let dir = Dir::new(name);
    let mut opened = Ledger::open(dir.path()).unwrap();
    for promise in 1..=5 {
        opened.ledger.persist("pool01", promise, &state(promise));
        wait(&mut opened);
    }
    drop(opened);
    let path = dir.path().join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    alter(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let first = Ledger::open(dir.path()).unwrap();
    if matches!(first.found, Found::Damaged { .. }) {
        assert!(first.states.is_empty());
        drop(first);
        // And it is no crash loop: the next start begins with what was written since.
        let again = Ledger::open(dir.path()).unwrap();
        assert!(matches!(again.found, Found::Whole));
        return Opened { found: Found::Damaged { how: String::new(), kept: path }, ..again };
    }
    first
}

#[test]
fn an_untouched_file_is_believed() {
    let opened = altered("whole", |_| ());
    assert!(matches!(opened.found, Found::Whole));
    assert_eq!(opened.states["pool01"].promise, Term(5));
}

#[test]
fn a_damaged_file_is_not_believed() {
    let cases: [(&str, Alteration); 5] = [
        ("bit", |bytes| bytes[700] ^= 4),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("zeros", |bytes| bytes.fill(0)),
        ("older", |bytes| {
            let (third, second) = (bytes[1024..1536].to_vec(), 512..1024);
            bytes[second].copy_from_slice(&third);
        }),
    ];
    for (name, alter) in cases {
        let opened = altered(name, alter);
        assert!(matches!(opened.found, Found::Damaged { .. }), "{name}");
    }
}

/// Not a test of speed, which depends on the machine: it says what it was, and that many sessions
/// share a flush.
#[test]
fn many_sessions_share_a_flush() {
    let dir = Dir::new("group");
    let mut opened = Ledger::open(dir.path()).unwrap();
    let mut alone = Vec::new();
    for ticket in 1..=200 {
        let begun = Instant::now();
        opened.ledger.persist("pool00", ticket, &state(ticket));
        wait(&mut opened);
        alone.push(begun.elapsed());
    }
    alone.sort_unstable();
    let sessions = 500;
    let (begun, mut flushes, mut durable) = (Instant::now(), 0, 0);
    for session in 0..sessions {
        opened.ledger.persist(&format!("many{session}"), 1, &state(1));
    }
    while !opened.ledger.is_idle() {
        durable += wait(&mut opened).len();
        flushes += 1;
    }
    let together: Duration = begun.elapsed();
    println!(
        "ledger: alone median {:?}, p99 {:?}; {sessions} sessions in {flushes} flushes, {together:?}",
        alone[100], alone[198]
    );
    assert_eq!(durable, sessions);
    assert!(flushes <= 3, "{flushes} flushes");
}
