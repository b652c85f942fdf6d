//! Whether two servers may be partners at all: the same major version, and the same sorting.
//!
//! A text index that was built by one version of the C library or ICU is silently wrong under
//! another one, and a failover would be the moment at which that comes out.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;

use super::certificates;
use super::create;
use super::error::Error;
use super::instance::{DATABASE, Instance, ROLE};
use super::secure::Secure;
use super::settings::Upstream;
use super::sql::{self, Connection, Row};

const DEADLINE: Duration = Duration::from_secs(3);
const DOING: &str = "asking the principal's PostgreSQL";

/// A connection to the partner's PostgreSQL, by certificate or else by password.
pub async fn connect(instance: &Instance, upstream: &Upstream) -> Result<Connection, Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&upstream.host)
        .port(upstream.port)
        .user(ROLE)
        .dbname(DATABASE)
        .application_name(sql::APPLICATION)
        .connect_timeout(DEADLINE)
        .tcp_user_timeout(DEADLINE);
    let opened = match instance.tls() {
        Some(tls) => {
            // For the programs and the receiver that connect next.
            certificates::prepare(instance);
            let client = tls.client().map_err(|error| Error::unexpected(DOING, error.to_string()));
            config.ssl_mode(SslMode::Require);
            timeout(DEADLINE, Connection::open_with(&config, Secure(client?))).await
        }
        None => {
            config.password(create::known_secret(instance)?).ssl_mode(SslMode::Disable);
            timeout(DEADLINE, Connection::open_with(&config, NoTls)).await
        }
    };
    opened.map_err(|_| Error::Late { doing: DOING })?.map_err(Error::sql(DOING))
}

/// Refuses a principal of another major version.
pub async fn check_major(own: u32, upstream: &Connection) -> Result<(), Error> {
    let number = upstream.one("SHOW server_version_num").await.map_err(Error::sql(DOING))?;
    let number: u32 = number.and_then(|text| text.parse().ok()).unwrap_or_default();
    let theirs = number / 10_000;
    if theirs == own {
        return Ok(());
    }
    Err(Error::refused(
        format!("the principal runs PostgreSQL {theirs}, this server PostgreSQL {own}"),
        format!("install PostgreSQL {theirs} here, and set pg_bin_dir to it"),
    ))
}

/// Refuses a principal that sorts text differently.
pub async fn check_collations(
    major: u32,
    own: &Connection,
    upstream: &Connection,
) -> Result<(), Error> {
    let ours = collations(major, own).await?;
    let theirs = collations(major, upstream).await?;
    let Some((our, their)) = ours.iter().zip(&theirs).find(|(our, their)| our != their) else {
        return Ok(());
    };
    let told = |row: &Row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    Err(Error::refused(
        format!(
            "this server sorts text differently from the principal: {} here, {} there",
            told(our),
            told(their)
        ),
        "install the same version of the C library and of ICU on both servers",
    ))
}

/// The versions of the libraries behind the collations: one row for each provider and database.
/// Both servers have the same catalogue, so the rows can be compared one by one.
async fn collations(major: u32, connection: &Connection) -> Result<Vec<Row>, Error> {
    let mut statement = "SELECT collprovider::text, min(pg_collation_actual_version(oid)), \
         max(pg_collation_actual_version(oid)) FROM pg_collation \
         WHERE collprovider IN ('c', 'i') GROUP BY 1"
        .to_owned();
    if major >= 15 {
        statement.push_str(
            " UNION ALL SELECT 'database ' || datname, \
             pg_database_collation_actual_version(oid), NULL FROM pg_database \
             WHERE datallowconn",
        );
    }
    statement.push_str(" ORDER BY 1");
    connection.rows(&statement).await.map_err(Error::sql("comparing collations"))
}
