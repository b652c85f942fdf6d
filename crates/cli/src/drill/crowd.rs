//! Many clients that write through the Front End, each on one connection that it keeps.
//!
//! Half of them insert single rows, by a prepared statement; the others two rows at a time, between
//! BEGIN and COMMIT. Each believes every word that it is told, does nothing about an error but to
//! go on with the next number, and remembers what it was told about each one: `judge` compares that
//! with what is there. A number is sent once and never again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};

use super::judge::Told;
use super::writer::{Acknowledged, Rows, TABLE};
use crate::clock;

/// From the start of one transaction to the start of the client's next one.
const PACE: Duration = Duration::from_millis(20);
/// Longer than the Front End holds a statement: a client that waits so long has lost its session.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(90);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// What a client sets at the start, and expects to find at the end.
const SETTING: &str = "backstay.drill_client";

/// How a client writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// One row in each statement.
    Autocommit,
    /// Two rows in each transaction.
    Transactions,
}

impl Style {
    pub fn of(client: i16) -> Style {
        if client % 2 == 0 { Style::Autocommit } else { Style::Transactions }
    }

    pub fn rows(self) -> i64 {
        match self {
            Style::Autocommit => 1,
            Style::Transactions => 2,
        }
    }
}

/// What can be seen of a client while it writes.
#[derive(Default, Debug)]
struct Seen {
    last: Cell<Option<Instant>>,
    longest_wait: Cell<Duration>,
}

/// The clients at work; they end when `finish` is called.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<(Rc<Seen>, JoinHandle<Told>)>,
    stop: watch::Sender<bool>,
}

impl Crowd {
    pub fn spawn(door: &Config, run: i64, count: i16) -> Crowd {
        let (stop, stopped) = watch::channel(false);
        let clients = (0..count).map(|client| {
            let seen = Rc::new(Seen::default());
            let hand = Hand {
                door: door.clone(),
                rows: Rows { run, client },
                seen: Rc::clone(&seen),
                next: 0,
                told: Told::default(),
            };
            (seen, tokio::task::spawn_local(hand.write(stopped.clone())))
        });
        Crowd { clients: clients.collect(), stop }
    }

    /// Every client has had a row acknowledged.
    pub fn all_write(&self) -> bool {
        self.clients.iter().all(|(seen, _)| seen.last.get().is_some())
    }

    /// When a row was acknowledged last, to whichever client.
    pub fn last(&self) -> Option<Instant> {
        self.clients.iter().filter_map(|(seen, _)| seen.last.get()).max()
    }

    /// How many clients have had a row acknowledged after `since`.
    pub fn written_since(&self, since: Instant) -> u64 {
        let written = |seen: &Seen| seen.last.get().is_some_and(|last| last > since);
        self.clients.iter().filter(|(seen, _)| written(seen)).count() as u64
    }

    /// From now on the longest wait is measured; what has been sent already counts.
    pub fn measure_waits(&self) {
        self.clients.iter().for_each(|(seen, _)| seen.longest_wait.set(Duration::ZERO));
    }

    /// What each client was told, and the longest wait for the answer to one statement.
    pub async fn finish(self) -> anyhow::Result<(Vec<Told>, Duration)> {
        let _ = self.stop.send(true);
        let mut all = Vec::new();
        let mut longest = Duration::ZERO;
        for (seen, client) in self.clients {
            all.push(client.await?);
            longest = longest.max(seen.longest_wait.get());
        }
        Ok((all, longest))
    }
}

struct Hand {
    door: Config,
    rows: Rows,
    seen: Rc<Seen>,
    next: i64,
    told: Told,
}

/// How one transaction ended, in the client's eyes.
#[derive(Debug)]
enum Outcome {
    Acknowledged,
    /// Nothing of it is there.
    Failed(Trouble),
    /// It may be there or not.
    Unknown(Trouble),
}

/// What a client was told instead of success.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    /// An error of this SQLSTATE; the connection lives.
    Error(String),
    /// The connection has ended, perhaps with a last word.
    Lost(Option<String>),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        match error.as_db_error() {
            Some(told) => {
                let state = told.code().code().to_owned();
                match told.parsed_severity() {
                    Some(Severity::Fatal | Severity::Panic) => Trouble::Lost(Some(state)),
                    Some(_) | None => Trouble::Error(state),
                }
            }
            None => Trouble::Lost(None),
        }
    }
}

/// The answer of a server that does not know the outcome itself.
const UNKNOWN_STATE: &str = "08007";

impl Trouble {
    /// What it means for a transaction whose end was asked for.
    fn at_the_end(self) -> Outcome {
        match &self {
            Trouble::Error(state) if state != UNKNOWN_STATE => Outcome::Failed(self),
            Trouble::Error(_) | Trouble::Lost(_) => Outcome::Unknown(self),
        }
    }

    fn lost(&self) -> bool {
        matches!(self, Trouble::Lost(_))
    }
}

/// A connection that is ready to write.
struct Link {
    client: Client,
    insert: Statement,
    /// Ends the connection's task when the link is dropped.
    _connection: JoinSet<()>,
}

impl Hand {
    async fn write(mut self, mut stopped: watch::Receiver<bool>) -> Told {
        loop {
            let link = tokio::select! {
                link = self.connect() => link,
                _ = stopped.wait_for(|stop| *stop) => return self.told,
            };
            let mut lives = true;
            while lives && !*stopped.borrow() {
                let begun = clock::now();
                lives = self.transaction(&link).await;
                if lives {
                    tokio::time::sleep_until((begun + PACE).into()).await;
                }
            }
            if lives {
                self.told.setting_kept = self.setting_is_kept(&link).await;
                return self.told;
            }
            self.told.connections_lost += 1;
        }
    }

    /// False if the connection has ended.
    async fn transaction(&mut self, link: &Link) -> bool {
        let style = Style::of(self.rows.client);
        let numbers = self.next..self.next + style.rows();
        self.next = numbers.end;
        let outcome = match style {
            Style::Autocommit => self.insert_one(link, numbers.start).await,
            Style::Transactions => self.insert_two(link, numbers.start).await,
        };
        let at = clock::now();
        let trouble = match outcome {
            Outcome::Acknowledged => {
                let rows = numbers.map(|number| Acknowledged { number, at });
                self.told.acknowledged.extend(rows);
                self.seen.last.set(Some(at));
                return true;
            }
            Outcome::Failed(trouble) => {
                self.told.failed.extend(numbers);
                trouble
            }
            Outcome::Unknown(trouble) => trouble,
        };
        self.told.interruptions.push(at);
        self.note(&trouble);
        if trouble.lost() {
            return false;
        }
        if style == Style::Transactions
            && let Err(trouble) = self.ask(link.client.batch_execute("ROLLBACK")).await
        {
            self.note(&trouble);
            return !trouble.lost();
        }
        true
    }

    fn note(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Error(state) | Trouble::Lost(Some(state)) => {
                *self.told.errors.entry(state.clone()).or_default() += 1;
            }
            Trouble::Lost(None) => {}
        }
    }

    async fn insert_one(&self, link: &Link, number: i64) -> Outcome {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.rows.run, &self.rows.client, &number];
        match self.ask(link.client.execute(&link.insert, &values)).await {
            Ok(_) => Outcome::Acknowledged,
            Err(trouble) => trouble.at_the_end(),
        }
    }

    async fn insert_two(&self, link: &Link, first: i64) -> Outcome {
        let Rows { run, client } = self.rows;
        let insert = |number| format!("INSERT INTO {TABLE} VALUES ({run}, {client}, {number})");
        for statement in ["BEGIN".to_owned(), insert(first), insert(first + 1)] {
            if let Err(trouble) = self.ask(link.client.batch_execute(&statement)).await {
                // COMMIT was not sent, so nothing of it can be there.
                return Outcome::Failed(trouble);
            }
        }
        match self.ask(link.client.batch_execute("COMMIT")).await {
            Ok(()) => Outcome::Acknowledged,
            Err(trouble) => trouble.at_the_end(),
        }
    }

    /// Sends one statement and measures how long its answer takes.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        let begun = clock::now();
        let answer = timeout(STATEMENT_DEADLINE, answer).await;
        let waited = clock::now() - begun;
        self.seen.longest_wait.set(self.seen.longest_wait.get().max(waited));
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Trouble::Lost(None)),
        }
    }

    /// Tries until the Front End lets it in.
    async fn connect(&mut self) -> Link {
        loop {
            match timeout(STATEMENT_DEADLINE, self.log_in()).await {
                Ok(Ok(link)) => return link,
                Ok(Err(error)) => self.note(&error.into()),
                Err(_) => {}
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }

    async fn log_in(&self) -> Result<Link, Error> {
        let (client, connection) = self.door.connect(NoTls).await?;
        let mut task = JoinSet::new();
        task.spawn_local(async move {
            let _ = connection.await;
        });
        client.batch_execute(&format!("SET {SETTING} = '{}'", self.rows.client)).await?;
        let insert = client
            .prepare(&format!("INSERT INTO {TABLE} (run, client, number) VALUES ($1, $2, $3)"))
            .await?;
        Ok(Link { client, insert, _connection: task })
    }

    async fn setting_is_kept(&self, link: &Link) -> bool {
        let question = format!("SHOW {SETTING}");
        let asked = link.client.query_one(&question, &[]);
        match timeout(STATEMENT_DEADLINE, asked).await {
            Ok(Ok(row)) => row.get::<_, String>(0) == self.rows.client.to_string(),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_the_end(trouble: Trouble) -> &'static str {
        match trouble.at_the_end() {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn only_a_lost_connection_and_08007_leave_the_outcome_open() {
        assert_eq!(at_the_end(Trouble::Error("40001".to_owned())), "failed");
        assert_eq!(at_the_end(Trouble::Error("08007".to_owned())), "unknown");
        assert_eq!(at_the_end(Trouble::Lost(None)), "unknown");
        assert_eq!(at_the_end(Trouble::Lost(Some("57P01".to_owned()))), "unknown");
    }
}
