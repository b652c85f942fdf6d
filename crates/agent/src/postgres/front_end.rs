//! The role that Front Ends look up users with: it may log in, and ask one function for what is
//! stored of a user's password. It has no other rights.
//!
//! All of it is data of the pool: the mirror has it too. So it is made once, and looked at again
//! with each new term; the role's own verifier is replaced only if the configured password is
//! another one, because Front Ends keep keys that fit the verifier.

use postgres_protocol::password::scram_sha_256;
use wire::scram::Verifier;

use super::error::Error;
use super::instance::{FRONT_END, Instance, ROLE};
use super::sql::{Commits, Connection, literal};

const DOING: &str = "making the Front Ends' role";

/// Makes what is missing of the role and the function. Asking twice changes nothing. Without a
/// password the role logs in by certificate alone.
pub async fn make(instance: &Instance, password: Option<&str>) -> Result<(), Error> {
    let sql = Connection::open(instance, Commits::Local).await.map_err(Error::sql(DOING))?;
    let role = format!("SELECT rolpassword FROM pg_authid WHERE rolname = {}", literal(FRONT_END));
    let row = sql.row(&role).await.map_err(Error::sql(DOING))?;
    let make = match (row.first(), password) {
        (None, None) => format!("CREATE ROLE {FRONT_END} LOGIN;"),
        (None, Some(new)) => format!("CREATE ROLE {FRONT_END} LOGIN PASSWORD {};", secret(new)),
        (Some(Some(stored)), Some(same)) if fits(stored, same) => String::new(),
        (Some(_), Some(new)) => format!("ALTER ROLE {FRONT_END} PASSWORD {};", secret(new)),
        (Some(_), None) => String::new(),
    };
    // One implicit transaction: all of it or nothing.
    sql.run(&format!("{make}{}", rights())).await.map_err(Error::sql(DOING))
}

/// Never in clear: PostgreSQL shows running statements, and logs those that fail.
fn secret(password: &str) -> String {
    literal(&scram_sha_256(password.as_bytes()))
}

fn fits(stored: &str, password: &str) -> bool {
    Verifier::parse(stored).is_some_and(|stored| {
        Verifier::of_password(password.as_bytes(), &stored.salt, stored.iterations) == stored
    })
}

/// Whatever somebody has made of them before. Backstay's own role is nobody's to ask for: it is a
/// superuser that replicates. The function runs as its owner, which is that role.
fn rights() -> String {
    format!(
        "ALTER ROLE {FRONT_END} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION \
           NOBYPASSRLS CONNECTION LIMIT -1 VALID UNTIL 'infinity'; \
         CREATE SCHEMA IF NOT EXISTS backstay; \
         ALTER SCHEMA backstay OWNER TO {ROLE}; \
         REVOKE ALL ON SCHEMA backstay FROM PUBLIC; \
         GRANT USAGE ON SCHEMA backstay TO {FRONT_END}; \
         CREATE OR REPLACE FUNCTION backstay.verifier(name text) \
           RETURNS TABLE(secret text, can_login boolean, valid_until_epoch double precision, \
             connection_limit int) \
           LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog \
           AS $$SELECT rolpassword, rolcanlogin, \
             extract(epoch FROM rolvaliduntil)::double precision, rolconnlimit \
             FROM pg_authid WHERE rolname = $1::name AND rolname <> current_user$$; \
         ALTER FUNCTION backstay.verifier(text) OWNER TO {ROLE}; \
         REVOKE ALL ON FUNCTION backstay.verifier(text) FROM PUBLIC; \
         GRANT EXECUTE ON FUNCTION backstay.verifier(text) TO {FRONT_END}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_fits_its_own_password_only() {
        let stored = scram_sha_256(b"one");
        assert!(fits(&stored, "one"));
        assert!(!fits(&stored, "other"));
        assert!(!fits("md5d41d8cd98f00b204e9800998ecf8427e", "one"));
    }
}
