//! The databases of a new pool: made by whoever creates the pool, once it is serving.

use postgres_protocol::password::scram_sha_256;

use super::error::Error;
use super::instance::{Database, Instance};
use super::sql::{Commits, Connection, identifier, literal};

/// Makes what is missing of the databases and their owners. Asking twice does no harm.
pub async fn make(instance: &Instance, databases: &[Database]) -> Result<(), Error> {
    const DOING: &str = "making the pool's databases";
    let sql = Connection::open(instance, Commits::Wait).await.map_err(Error::sql(DOING))?;
    for database in databases {
        let owner = identifier(&database.owner);
        let known = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(&database.owner));
        if sql.one(&known).await.map_err(Error::sql(DOING))?.is_none() {
            // Never in clear: PostgreSQL shows running statements, and logs those that fail.
            let password = database.password.as_ref().map_or_else(String::new, |password| {
                format!(" PASSWORD {}", literal(&scram_sha_256(password.as_bytes())))
            });
            let make = format!("CREATE ROLE {owner} LOGIN{password}");
            sql.run(&make).await.map_err(Error::sql(DOING))?;
        }
        let name = identifier(&database.name);
        let known =
            format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&database.name));
        if sql.one(&known).await.map_err(Error::sql(DOING))?.is_none() {
            let make = format!("CREATE DATABASE {name} OWNER {owner}");
            sql.run(&make).await.map_err(Error::sql(DOING))?;
        }
    }
    Ok(())
}
