//! The agent's own connections to the local PostgreSQL.
//!
//! They use the Unix socket and simple queries: one round trip each, and no lock on any table of
//! the users'. They run with `synchronous_commit = local`, because a wait for the mirror here
//! would stop the very agent that has to end the wait; the barrier alone does wait.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, SimpleQueryMessage, Socket};

use super::instance::{DATABASE, Instance, ROLE};

/// Name of our connections in `pg_stat_activity`.
pub const APPLICATION: &str = "backstay";

/// Whether commits of a connection wait for the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    Local,
    /// For the barrier.
    Wait,
}

/// The number of the role of the connection that asks: SQL for a value. By name it could only be
/// found in `pg_authid`, which a transaction that waits for the mirror can hold locked.
pub const OWN_ROLE: &str = "(SELECT own.usesysid FROM pg_stat_get_activity(pg_backend_pid()) own)";

pub type Row = Vec<Option<String>>;

#[derive(Debug)]
pub struct Connection {
    client: Client,
    /// How many waits for the mirror ended without it: PostgreSQL then says "commit" all the same
    /// and only warns.
    cancelled_waits: Arc<AtomicU64>,
    carrier: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Connection {
    pub async fn open(instance: &Instance, commits: Commits) -> Result<Connection, Error> {
        let commits = match commits {
            Commits::Local => "local",
            Commits::Wait => "on",
        };
        let options = format!(
            "-c synchronous_commit={commits} -c statement_timeout=0 -c lock_timeout=0 \
             -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 \
             -c default_transaction_read_only=off -c client_min_messages=warning \
             -c search_path=pg_catalog -c log_statement=none -c log_min_duration_statement=-1 \
             -c jit=off"
        );
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&instance.socket_dir)
            .port(instance.port)
            .user(ROLE)
            .dbname(DATABASE)
            .application_name(APPLICATION)
            .options(options);
        Connection::open_with(&config, NoTls).await
    }

    /// Opens a connection that somebody else has configured.
    pub async fn open_with<T>(config: &tokio_postgres::Config, tls: T) -> Result<Connection, Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, mut connection) = config.connect(tls).await?;
        let cancelled_waits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&cancelled_waits);
        let carrier = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.routine() == Some("SyncRepWaitForLSN")
                {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Ok(Connection { client, cancelled_waits, carrier })
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub fn cancelled_waits(&self) -> u64 {
        self.cancelled_waits.load(Ordering::SeqCst)
    }

    pub async fn run(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    pub async fn rows(&self, sql: &str) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for message in self.client.simple_query(sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// The first row; empty if there is none.
    pub async fn row(&self, sql: &str) -> Result<Row, Error> {
        Ok(self.rows(sql).await?.into_iter().next().unwrap_or_default())
    }

    /// The first column of the first row.
    pub async fn one(&self, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.row(sql).await?.into_iter().next().flatten())
    }

    /// For statements that run often: planned once.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Makes a literal of SQL.
pub fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Makes an identifier of SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
