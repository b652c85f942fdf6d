//! The Central Management store: the published documents, as rows of a database of one pool.
//!
//! Only the agent whose PostgreSQL serves that pool writes here. A commit waits for the mirror as
//! everybody's does, and a row that is visible has been waited for: nothing here cancels a wait,
//! and one that was cancelled by others makes the outcome doubtful until `settle` succeeds.

use std::time::Duration;

use protocol::admin::{TopologyCopy, TopologyHeader};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::postgres::Instance;
use crate::postgres::instance::{DATABASE, ROLE};
use crate::postgres::sql::{APPLICATION, Connection};

/// The database that holds it.
pub(super) const STORE: &str = "xds";
/// A question that takes longer is given up; the connection, too.
const PATIENCE: Duration = Duration::from_secs(6);
/// Below `PATIENCE`, so that PostgreSQL gives up first what it can.
const OPTIONS: &str = "-c synchronous_commit=on -c statement_timeout=5000 -c lock_timeout=3000 \
     -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 \
     -c default_transaction_read_only=off -c client_min_messages=warning \
     -c search_path=pg_catalog -c log_statement=none -c log_min_duration_statement=-1";
const TABLES: &str = "CREATE SCHEMA IF NOT EXISTS backstay; \
     REVOKE ALL ON SCHEMA backstay FROM PUBLIC; \
     CREATE TABLE IF NOT EXISTS backstay.topology ( \
       version bigint PRIMARY KEY CHECK (version > 0), published timestamptz NOT NULL, \
       author text NOT NULL, comment text NOT NULL, digest text NOT NULL, \
       document text NOT NULL); \
     CREATE TABLE IF NOT EXISTS backstay.settled ( \
       one boolean PRIMARY KEY DEFAULT true CHECK (one), server text NOT NULL, \
       at timestamptz NOT NULL)";
const HEADER: &str = "version, (extract(epoch FROM published) * 1000)::bigint, author, comment, \
     digest";

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("PostgreSQL: {}", words(.0))]
    Sql(#[from] tokio_postgres::Error),
    #[error("PostgreSQL does not answer in time")]
    Late,
    #[error("the wait for the mirror was cancelled")]
    Cancelled,
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// What became of a publication.
#[derive(Debug)]
pub(super) enum Published {
    Done,
    /// The newest version is not the one that it was made from.
    Outdated,
    /// Nobody knows yet.
    InDoubt(StoreError),
}

#[derive(Debug)]
pub(super) struct Store {
    sql: Connection,
}

impl Store {
    /// Makes what is missing of the store, and connects to it.
    pub async fn open(instance: &Instance) -> Result<Store, StoreError> {
        within(async {
            let sql = match connect(instance, STORE).await {
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_DATABASE) => {
                    let sql = connect(instance, DATABASE).await?;
                    sql.run(&format!(
                        "CREATE DATABASE {STORE} OWNER {ROLE} ENCODING 'UTF8' LC_COLLATE 'C' \
                         LC_CTYPE 'C' TEMPLATE template0"
                    ))
                    .await?;
                    connect(instance, STORE).await?
                }
                connected => connected?,
            };
            sql.run(TABLES).await?;
            Ok(Store { sql })
        })
        .await
    }

    /// Afterwards every version that is visible is known to survive this server: a commit of our
    /// own, after theirs, was waited for.
    pub async fn settle(&self, server: &str) -> Result<(), StoreError> {
        let before = self.sql.cancelled_waits();
        let statement = "INSERT INTO backstay.settled (server, at) VALUES ($1::text, now()) \
             ON CONFLICT (one) DO UPDATE SET server = excluded.server, at = excluded.at";
        within(async { Ok(self.sql.client().execute(statement, &[&server]).await?) }).await?;
        if self.sql.cancelled_waits() > before {
            return Err(StoreError::Cancelled);
        }
        Ok(())
    }

    /// One version, or the newest one.
    pub async fn copy(&self, version: Option<u64>) -> Result<Option<TopologyCopy>, StoreError> {
        let statement = format!(
            "SELECT {HEADER}, document FROM backstay.topology \
             WHERE $1::bigint IS NULL OR version = $1::bigint ORDER BY version DESC LIMIT 1"
        );
        let version = version.map(number);
        let row = within(async { Ok(self.sql.client().query_opt(&statement, &[&version]).await?) });
        let Some(row) = row.await? else { return Ok(None) };
        Ok(Some(TopologyCopy { header: header(&row)?, document: row.try_get(5)? }))
    }

    /// The newest first; `before`: only smaller versions.
    pub async fn headers(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<TopologyHeader>, StoreError> {
        let statement = format!(
            "SELECT {HEADER} FROM backstay.topology \
             WHERE $1::bigint IS NULL OR version < $1::bigint ORDER BY version DESC LIMIT $2::bigint"
        );
        let (before, limit) = (before.map(number), i64::from(limit));
        let rows =
            within(async { Ok(self.sql.client().query(&statement, &[&before, &limit]).await?) });
        rows.await?.iter().map(header).collect()
    }

    /// Puts a version behind the newest one, if that is the one before it.
    pub async fn publish(&self, copy: &TopologyCopy) -> Published {
        let before = self.sql.cancelled_waits();
        let guard =
            "WHERE coalesce((SELECT max(version) FROM backstay.topology), 0) = $1::bigint - 1";
        match self.insert(copy, guard).await {
            Ok(_) if self.sql.cancelled_waits() > before => {
                Published::InDoubt(StoreError::Cancelled)
            }
            Ok(0) => Published::Outdated,
            Ok(_) => Published::Done,
            Err(StoreError::Sql(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                Published::Outdated
            }
            Err(error) => Published::InDoubt(error),
        }
    }

    /// Puts in a version that was published elsewhere; one that is there already stays.
    pub async fn keep(&self, copy: &TopologyCopy) -> Result<(), StoreError> {
        self.insert(copy, "ON CONFLICT (version) DO NOTHING").await.map(drop)
    }

    async fn insert(&self, copy: &TopologyCopy, end: &str) -> Result<u64, StoreError> {
        let statement = format!(
            "INSERT INTO backstay.topology \
             SELECT $1::bigint, to_timestamp($2::bigint / 1000.0), $3::text, $4::text, \
             $5::text, $6::text {end}"
        );
        let TopologyHeader { version, published_ms, author, comment, digest } = &copy.header;
        let (version, published) = (number(*version), number(*published_ms));
        let client = self.sql.client();
        within(async {
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&version, &published, author, comment, digest, &copy.document];
            Ok(client.execute(&statement, &values).await?)
        })
        .await
    }
}

async fn connect(instance: &Instance, database: &str) -> Result<Connection, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&instance.socket_dir)
        .port(instance.port)
        .user(ROLE)
        .dbname(database)
        .application_name(APPLICATION)
        .connect_timeout(PATIENCE)
        .options(OPTIONS);
    Connection::open_with(&config, NoTls).await
}

async fn within<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PATIENCE, asked).await.unwrap_or(Err(StoreError::Late))
}

fn header(row: &tokio_postgres::Row) -> Result<TopologyHeader, StoreError> {
    Ok(TopologyHeader {
        version: row.try_get::<_, i64>(0)?.unsigned_abs(),
        published_ms: row.try_get::<_, i64>(1)?.unsigned_abs(),
        author: row.try_get(2)?,
        comment: row.try_get(3)?,
        digest: row.try_get(4)?,
    })
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
