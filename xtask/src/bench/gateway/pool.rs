//! The principal that every target leads to: the one of a demo that was started for the benchmark.
//!
//! Clients log in as the demo's own role, by SCRAM over TCP and without TLS, whatever they connect
//! to; the password goes through the environment and is never an argument.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::options::Keys;
use crate::bench::mirrored::Mirrored;
use crate::{postgres, run};

const ADMINISTRATOR: &str = "backstay";

#[derive(Clone)]
pub struct Principal {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    password: String,
    /// How the server checks the password.
    pub verifier: String,
    /// The configuration of the demo's Front End, if it has one.
    pub front_end_config: Option<PathBuf>,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Principal {
    pub fn of(pool: &Mirrored, programs: &Path, keys: Keys) -> Result<Principal> {
        let status = pool.status()?;
        let keywords = status["connection"]["keywords"].as_str().unwrap_or_default();
        let keyword = |name: &str| {
            let mut pairs = keywords.split_whitespace().filter_map(|word| word.split_once('='));
            let found = pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
            found.with_context(|| format!("the demo's status does not tell {name}"))
        };
        let server = processes(&status)
            .find(|process| process["role"] == "principal")
            .context("the demo has no principal")?;
        let port = server["postgres_port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.context("the demo's status does not tell the principal's port")?;
        let socket = server["socket_directory"].as_str().unwrap_or_default();
        let (user, password) = (keyword("user")?, keyword("password")?);
        let psql = || administrator(programs, socket, port);
        match keys {
            Keys::Light => make_light(psql(), &user, &password)?,
            Keys::Usual => {}
        }
        let verifier = verifier(psql(), &user)?;
        let front_end = processes(&status).find(|process| process["kind"] == "front_end");
        Ok(Principal {
            host: "127.0.0.1".to_owned(),
            port,
            database: keyword("dbname")?,
            password,
            user,
            verifier,
            front_end_config: front_end.and_then(front_end_config),
        })
    }

    /// Adds what leads a program of PostgreSQL to `port`, as the benchmark's role.
    pub fn log_in<'a>(&self, command: &'a mut Command, port: u16) -> &'a mut Command {
        command.args(["-h", &self.host, "-p", &port.to_string(), "-U", &self.user]);
        command.arg(&self.database);
        command.env("PGPASSWORD", &self.password);
        command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable")
    }
}

fn processes(status: &Value) -> impl Iterator<Item = &Value> {
    status["processes"].as_array().into_iter().flatten()
}

/// It lies beside the directory of its state.
fn front_end_config(process: &Value) -> Option<PathBuf> {
    let state = Path::new(process["state_directory"].as_str()?);
    Some(state.parent()?.join("config.toml"))
}

/// Gives the role a verifier with one iteration. HMAC, twice nested, is what all of it is made of;
/// the password is sent on standard input, not as an argument.
const LIGHT: &str = r"
CREATE FUNCTION pg_temp.hmac(key bytea, message bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    inside bytea := decode(repeat('36', 64), 'hex');
    outside bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0 .. length(key) - 1 LOOP
        inside := set_byte(inside, i, get_byte(inside, i) # get_byte(key, i));
        outside := set_byte(outside, i, get_byte(outside, i) # get_byte(key, i));
    END LOOP;
    RETURN sha256(outside || sha256(inside || message));
END $$;
WITH salt AS (SELECT decode(md5(random()::text), 'hex') AS salt),
     salted AS (SELECT salt, pg_temp.hmac(:'password', salt || '\x00000001'::bytea) AS key FROM salt)
SELECT format('ALTER ROLE %I PASSWORD %L', :'user', format(
    'SCRAM-SHA-256$1:%s$%s:%s',
    encode(salt, 'base64'),
    encode(sha256(pg_temp.hmac(key, 'Client Key')), 'base64'),
    encode(pg_temp.hmac(key, 'Server Key'), 'base64'))) FROM salted \gexec
";

/// psql as the administrator over the socket.
fn administrator(programs: &Path, socket: &str, port: u16) -> Command {
    let psql = programs.join("psql");
    let mut command = Command::new(&psql);
    if postgres::is_root() {
        command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(&psql).current_dir("/");
    }
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", socket]);
    command.args(["-p", &port.to_string(), "-U", ADMINISTRATOR, "-d", "postgres"]);
    command
}

fn make_light(mut psql: Command, user: &str, password: &str) -> Result<()> {
    let script = format!("\\set user '{user}'\n\\set password '{password}'\n{LIGHT}");
    let mut child = psql.stdin(Stdio::piped()).spawn().context("start psql")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).context("write to psql")?;
    }
    let status = child.wait().context("wait for psql")?;
    if !status.success() {
        bail!("psql did not give {user} a light verifier ({status})");
    }
    Ok(())
}

fn verifier(mut psql: Command, user: &str) -> Result<String> {
    let query = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
    let text = run::read(psql.args(["-c", &query]))?;
    let text = text.trim();
    if !text.starts_with("SCRAM-SHA-256$") {
        bail!("the role {user} does not log in by SCRAM, so there is nothing fair to compare");
    }
    Ok(text.to_owned())
}
