//! Real clients in six languages, side by side, through a manual failover and a crash.
//!
//! None of them knows of Backstay. What each was told is compared with what the table holds: that
//! is the promise of a Front End, and no count of errors would show that one answer was wrong.

use std::collections::BTreeMap;

use tokio_postgres::NoTls;

use crate::clients_programs::{self, Client, Failure, Programs};
use crate::stage::Demo;
use crate::writer;

/// Every client, with how many of its units of work can be under way at one time.
const CLIENTS: [(&str, usize); 46] = [
    ("psycopg simple", 1),
    ("psycopg autocommit", 1),
    ("psycopg prepared", 1),
    ("psycopg transaction", 1),
    ("psycopg savepoint", 1),
    ("psycopg pipeline", 1),
    ("psycopg copy", 1),
    ("psycopg reads", 1),
    ("asyncpg simple", 1),
    ("asyncpg prepared", 1),
    ("asyncpg transaction", 1),
    ("asyncpg serializable", 1),
    ("asyncpg many", 1),
    ("asyncpg copy", 1),
    ("asyncpg reads", 1),
    ("node-postgres simple", 1),
    ("node-postgres parameters", 1),
    ("node-postgres prepared", 1),
    ("node-postgres transaction", 1),
    ("node-postgres script", 1),
    ("node-postgres reads", 1),
    ("jdbc simple", 1),
    ("jdbc prepared", 1),
    ("jdbc transaction", 1),
    ("jdbc batch", 1),
    ("jdbc reads", 1),
    ("libpq parameters", 1),
    ("libpq prepared", 1),
    ("libpq transaction", 1),
    ("libpq pipeline", 5),
    ("pgx simple", 1),
    ("pgx prepared", 1),
    ("pgx transaction", 1),
    ("pgx batch", 1),
    ("pgx copy", 1),
    ("pgx reads", 1),
    ("tokio-postgres simple", 1),
    ("tokio-postgres prepared", 1),
    ("tokio-postgres transaction", 1),
    ("tokio-postgres pipeline", 5),
    ("tokio-postgres reads", 1),
    ("sqlx simple", 1),
    ("sqlx prepared", 1),
    ("sqlx transaction", 1),
    ("sqlx reads", 1),
    ("sqlx pool", 3),
];

/// A transaction that was cut off, and one of which nobody can know how it ended.
const RETRY: &str = "40001";
const UNKNOWN: &str = "08007";

#[test]
fn clients_in_six_languages_are_told_the_truth_about_every_row_and_stay_connected() {
    let demo = Demo::start("clients", &["--profile", "standard"]);
    let commands = clients_programs::commands(demo.place.path());
    demo.wait_until_armed();
    let uri = front_end(&demo);
    writer::run(&uri, "CREATE TABLE written (client text, number bigint)").unwrap();
    let names = CLIENTS.map(|(name, _)| name);
    let programs = Programs::start(commands, &uri, demo.place.path(), &names);
    programs.go_on("at the start");

    demo.run(&["pool", "failover", "pool01", "--to", "be2"]).expect(0);
    programs.go_on("after the manual failover");
    for (name, client) in programs.told.now() {
        assert!(client.failed.is_empty(), "{name} saw the manual failover: {:?}", client.failed);
    }
    demo.wait_until_armed();

    demo.demo("kill", &["principal"]).expect(0);
    demo.wait("be1 serves", |pool| pool["principal"] == "be1");
    programs.go_on("after the crash");
    let (told, said) = programs.finish();
    let written = rows(&uri);
    for (name, in_flight) in CLIENTS {
        lives_on(name, &told[name], &said);
        fails_in_what_was_under_way(name, &told[name].failed, in_flight);
        told_the_truth(name, &told[name], written.get(name).unwrap_or(&BTreeMap::new()));
    }
}

/// How applications reach the demo.
pub fn front_end(demo: &Demo) -> String {
    let status = demo.status();
    let uri = status["front_end"]["uri"].as_str();
    uri.unwrap_or_else(|| panic!("no Front End in this demo: {status:#}")).to_owned()
}

/// How often each number of each client is in the table.
fn rows(uri: &str) -> BTreeMap<String, BTreeMap<i64, usize>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(uri, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query("SELECT client, number FROM written", &[]).await.unwrap()
    });
    let mut written: BTreeMap<String, BTreeMap<i64, usize>> = BTreeMap::new();
    for row in rows {
        *written.entry(row.get(0)).or_default().entry(row.get(1)).or_default() += 1;
    }
    written
}

/// The same connection all the time, and it knows what it knew before.
#[track_caller]
fn lives_on(name: &str, client: &Client, said: &str) {
    assert_eq!(client.lost, None, "{name} lost its connection: {client:?}\n{said}");
    let ended = client.ended.as_ref().unwrap();
    assert_eq!(ended["mark"], name, "a setting of {name} was not restored");
    assert_eq!(ended["doubled"], 42, "a prepared statement of {name} was not restored");
    assert_ne!(ended["heard"], false, "{name} does not hear notifications any more");
}

/// The crash costs a client what it had under way, and what only reads not even that.
#[track_caller]
fn fails_in_what_was_under_way(name: &str, failed: &[Failure], in_flight: usize) {
    let bound = if name.ends_with(" reads") { 0 } else { in_flight };
    assert!(failed.len() <= bound, "{name} failed too often: {failed:?}");
    for failure in failed {
        let code = failure.sqlstate.as_str();
        assert!(code == RETRY || code == UNKNOWN, "{name}: {failure:?}");
        assert!(!failure.text.is_empty(), "{name} was not told what happened");
    }
}

/// Acknowledged: exactly once. Failed: not at all. Unknown: all of it once, or nothing.
#[track_caller]
fn told_the_truth(name: &str, client: &Client, written: &BTreeMap<i64, usize>) {
    let mut expected: BTreeMap<i64, usize> = BTreeMap::new();
    if !name.ends_with(" reads") {
        expected.extend(client.acknowledged.iter().map(|number| (*number, 1)));
    }
    for failure in client.failed.iter().filter(|failure| failure.sqlstate == UNKNOWN) {
        let there = failure.numbers.iter().filter(|number| written.contains_key(number));
        let there: Vec<&i64> = there.collect();
        let whole = there.is_empty() || there.len() == failure.numbers.len();
        assert!(whole, "{name}: of {:?} only {there:?} are there", failure.numbers);
        expected.extend(there.iter().map(|number| (**number, 1)));
    }
    let wrong: Vec<String> = (expected.keys().chain(written.keys()))
        .filter(|number| expected.get(number) != written.get(number))
        .map(|number| {
            let (said, is) = (expected.get(number), written.get(number));
            format!("{number}: {} of them, {} expected", is.unwrap_or(&0), said.unwrap_or(&0))
        })
        .collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?}; it was told {:?}", client.failed);
    assert!(!client.acknowledged.is_empty());
}

fn told(acknowledged: &[i64], failed: &[(&[i64], &str)]) -> Client {
    let failed = failed.iter().map(|(numbers, sqlstate)| Failure {
        numbers: numbers.to_vec(),
        sqlstate: (*sqlstate).to_owned(),
        text: "why".to_owned(),
    });
    let (acknowledged, failed) = (acknowledged.to_vec(), failed.collect());
    Client { acknowledged, failed, ..Client::default() }
}

fn written(numbers: &[i64]) -> BTreeMap<i64, usize> {
    let mut written = BTreeMap::new();
    for number in numbers {
        *written.entry(*number).or_default() += 1;
    }
    written
}

#[test]
fn the_truth_is_what_an_application_may_rely_on() {
    told_the_truth(
        "it",
        &told(&[1, 2], &[(&[3, 4], RETRY), (&[5, 6], UNKNOWN)]),
        &written(&[1, 2]),
    );
    told_the_truth("it", &told(&[1], &[(&[5, 6], UNKNOWN)]), &written(&[1, 5, 6]));
}

#[test]
#[should_panic = "2: 0 of them, 1 expected"]
fn an_acknowledged_row_that_is_not_there_is_found() {
    told_the_truth("it", &told(&[1, 2], &[]), &written(&[1]));
}

#[test]
#[should_panic = "2: 2 of them, 1 expected"]
fn a_row_that_was_written_twice_is_found() {
    told_the_truth("it", &told(&[1, 2], &[]), &written(&[1, 2, 2]));
}

#[test]
#[should_panic = "3: 1 of them, 0 expected"]
fn a_failed_row_that_is_there_after_all_is_found() {
    told_the_truth("it", &told(&[1], &[(&[3], RETRY)]), &written(&[1, 3]));
}

#[test]
#[should_panic = "of [3, 4] only [3] are there"]
fn half_a_transaction_is_found() {
    told_the_truth("it", &told(&[1], &[(&[3, 4], UNKNOWN)]), &written(&[1, 3]));
}
