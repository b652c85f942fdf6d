//! A client that writes numbered rows and remembers which ones were acknowledged.
//!
//! A number is sent once and never again: when its answer does not come, it is in doubt and counts
//! neither as acknowledged nor as lost. The clock of an acknowledgement is read when the answer
//! arrives. The client never cancels a statement, because a cancelled wait looks like success.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

use crate::clock;

/// The table that drills write to.
pub const TABLE: &str = "backstay_drill";
/// From the start of one row to the start of the next, if it was answered by then.
const PACE: Duration = Duration::from_millis(5);
/// Silence after which a connection is given up, as an application's own deadline would be.
const STATEMENT_DEADLINE: Duration = Duration::from_millis(250);
/// How long one host may take to let the client in.
const CONNECT_DEADLINE: Duration = Duration::from_millis(250);
/// Between two attempts at one host.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// The same for a client with one host only, which is not the one whose outage counts.
const PINNED_PAUSE: Duration = Duration::from_millis(50);

/// One acknowledged row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    pub number: i64,
    pub at: Instant,
}

/// How far a writer is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Progress {
    pub acknowledged: u64,
    pub last: Option<Instant>,
}

/// Which rows are this writer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    pub run: i64,
    pub client: i16,
}

/// A writer at work; it ends when `finish` is called.
#[derive(Debug)]
pub struct Writer {
    progress: watch::Receiver<Progress>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Kept>,
}

/// What a writer brings home.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Kept {
    /// In the order of their answers.
    pub acknowledged: Vec<Acknowledged>,
    /// When a write was refused or remained without an answer.
    pub interruptions: Vec<Instant>,
}

impl Writer {
    /// A client that writes to whichever of `hosts` takes writes.
    pub fn spawn(hosts: Vec<Config>, rows: Rows) -> Writer {
        let (progress_sender, progress) = watch::channel(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let pen = Pen { hosts, rows, progress: progress_sender, next: 0, kept: Kept::default() };
        let task = tokio::task::spawn_local(pen.write(stopped));
        Writer { progress, stop, task }
    }

    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub async fn finish(self) -> anyhow::Result<Kept> {
        let _ = self.stop.send(true);
        Ok(self.task.await?)
    }
}

struct Pen {
    hosts: Vec<Config>,
    rows: Rows,
    progress: watch::Sender<Progress>,
    next: i64,
    kept: Kept,
}

/// How one row ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acknowledged,
    /// The server refused it and goes on: a mirror, say.
    Refused,
    /// No answer, or one that cannot be trusted: the connection is given up.
    InDoubt,
}

impl Pen {
    async fn write(mut self, mut stopped: watch::Receiver<bool>) -> Kept {
        loop {
            let link = tokio::select! {
                link = connect(&self.hosts) => link,
                _ = stopped.wait_for(|stop| *stop) => return self.kept,
            };
            while !*stopped.borrow() {
                let begun = clock::now();
                let pause = match self.row(&link).await {
                    Outcome::Acknowledged => PACE,
                    Outcome::Refused if self.hosts.len() == 1 => PINNED_PAUSE,
                    Outcome::Refused | Outcome::InDoubt => break,
                };
                tokio::time::sleep_until((begun + pause).into()).await;
            }
            if *stopped.borrow() {
                return self.kept;
            }
        }
    }

    async fn row(&mut self, link: &Link) -> Outcome {
        let number = self.next;
        self.next += 1;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.rows.run, &self.rows.client, &number];
        let answer = timeout(STATEMENT_DEADLINE, link.client.execute(&link.insert, &values)).await;
        let at = clock::now();
        let outcome = match answer {
            Ok(Ok(_)) if link.wait_cancelled.load(Ordering::Acquire) => Outcome::InDoubt,
            Ok(Ok(_)) => Outcome::Acknowledged,
            Ok(Err(error)) if error.as_db_error().is_some() && !link.client.is_closed() => {
                Outcome::Refused
            }
            Ok(Err(_)) | Err(_) => Outcome::InDoubt,
        };
        match outcome {
            Outcome::Acknowledged => {
                self.kept.acknowledged.push(Acknowledged { number, at });
                let acknowledged = self.kept.acknowledged.len() as u64;
                self.progress.send_replace(Progress { acknowledged, last: Some(at) });
            }
            Outcome::Refused | Outcome::InDoubt => self.kept.interruptions.push(at),
        }
        outcome
    }
}

/// A connection that is ready to write.
struct Link {
    client: Client,
    insert: Statement,
    /// The server said that it gave up waiting for the mirror: success means nothing then.
    wait_cancelled: Arc<AtomicBool>,
    /// Ends the connection's task when the link is dropped.
    _connection: JoinSet<()>,
}

/// Tries all hosts side by side, again and again, until one is ready.
async fn connect(hosts: &[Config]) -> Link {
    let pause = if hosts.len() == 1 { PINNED_PAUSE } else { RETRY_PAUSE };
    let mut attempts = JoinSet::new();
    for host in hosts {
        attempts.spawn_local(attempt(host.clone(), Duration::ZERO));
    }
    loop {
        match attempts.join_next().await {
            Some(Ok(Ok(link))) => return link,
            Some(Ok(Err(host))) => {
                attempts.spawn_local(attempt(host, pause));
            }
            Some(Err(_)) | None => {
                for host in hosts {
                    attempts.spawn_local(attempt(host.clone(), pause));
                }
            }
        }
    }
}

async fn attempt(host: Config, pause: Duration) -> Result<Link, Config> {
    tokio::time::sleep(pause).await;
    match timeout(CONNECT_DEADLINE, log_in(&host)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(_)) | Err(_) => Err(host),
    }
}

async fn log_in(host: &Config) -> Result<Link, tokio_postgres::Error> {
    let (client, mut connection) = host.connect(NoTls).await?;
    let wait_cancelled = Arc::new(AtomicBool::new(false));
    let flag = wait_cancelled.clone();
    let mut task = JoinSet::new();
    task.spawn_local(async move {
        let mut messages = std::pin::pin!(std::future::poll_fn(|context| {
            loop {
                match std::task::ready!(connection.poll_message(context)) {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if notice.routine() == Some("SyncRepWaitForLSN") {
                            flag.store(true, Ordering::Release);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return std::task::Poll::Ready(()),
                }
            }
        }));
        messages.as_mut().await;
    });
    let insert = client
        .prepare(&format!("INSERT INTO {TABLE} (run, client, number) VALUES ($1, $2, $3)"))
        .await?;
    Ok(Link { client, insert, wait_cancelled, _connection: task })
}

/// One configuration per host of `connect`; each lets in only a server that takes writes.
pub fn hosts_of(connect: &str) -> anyhow::Result<Vec<Config>> {
    let whole: Config = connect.parse()?;
    let ports = whole.get_ports();
    let mut hosts = Vec::new();
    for (index, host) in whole.get_hosts().iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let mut one = Config::new();
        match host {
            tokio_postgres::config::Host::Tcp(name) => one.host(name),
            tokio_postgres::config::Host::Unix(path) => one.host_path(path),
        };
        one.port(port);
        if let Some(user) = whole.get_user() {
            one.user(user);
        }
        if let Some(password) = whole.get_password() {
            one.password(password);
        }
        one.dbname(whole.get_dbname().or(whole.get_user()).unwrap_or("postgres"));
        one.application_name("backstay drill");
        one.target_session_attrs(TargetSessionAttrs::ReadWrite);
        hosts.push(one);
    }
    anyhow::ensure!(!hosts.is_empty(), "the connection string names no host");
    Ok(hosts)
}

/// The first host of `connect`, whoever it is.
pub fn any_of(connect: &str) -> anyhow::Result<Config> {
    let mut hosts = hosts_of(connect)?.into_iter();
    let mut one = hosts.next().context("the connection string names no host")?;
    one.target_session_attrs(TargetSessionAttrs::Any);
    Ok(one)
}

/// The same host, whatever it takes: for the client that stays pinned to it.
pub fn pinned(host: &Config) -> Vec<Config> {
    let mut one = host.clone();
    one.target_session_attrs(TargetSessionAttrs::Any);
    vec![one]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_of_two_hosts_becomes_two() {
        let hosts = hosts_of("postgresql://demo:x@127.0.0.1:6001,127.0.0.2:6002/demo").unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[1].get_ports(), [6002]);
        assert_eq!(hosts[1].get_dbname(), Some("demo"));
        assert_eq!(hosts[0].get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(pinned(&hosts[0])[0].get_target_session_attrs(), TargetSessionAttrs::Any);
    }
}
