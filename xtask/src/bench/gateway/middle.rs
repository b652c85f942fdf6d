//! What stands between the clients and the principal: PgBouncer, HAProxy, the gateway, or nothing.
//!
//! Each is one process with a configuration of its own, on a free loopback port, and set up the way
//! that is best for it: no log line per connection, the client's own SCRAM keys towards the server.
//! It can be started afresh, so that memory is measured from a clean state.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::options::{Options, Target};
use super::pool::Principal;
use crate::bench::process::{self, As, Interrupt, Running};
use crate::{bench, run};

const DEADLINE: Duration = Duration::from_secs(30);
/// Server connections that PgBouncer may open; more than the points have clients, except the idle.
const SERVER_CONNECTIONS: u32 = 60;

/// The programs to start.
#[derive(Clone, Debug)]
pub struct Programs {
    pub postgres: PathBuf,
    pub pgbouncer: PathBuf,
    pub haproxy: PathBuf,
    pub backstay: PathBuf,
}

#[derive(Debug)]
pub struct Middle {
    target: Target,
    port: u16,
    dir: PathBuf,
    /// The program and its arguments; `None`: nothing stands between.
    program: Option<(PathBuf, Vec<String>, As)>,
    files: Option<String>,
    running: Option<Running>,
}

impl Middle {
    /// Writes its configuration in `dir` and starts it.
    pub fn start(
        target: &Target,
        dir: &Path,
        programs: &Programs,
        principal: &Principal,
        options: &Options,
        interrupt: &Interrupt,
    ) -> Result<Middle> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let [port, admin_port] = bench::free_ports()?;
        let mut middle = Middle {
            target: target.clone(),
            port,
            dir: dir.to_path_buf(),
            program: None,
            files: process::files_for(options.most_clients())?,
            running: None,
        };
        middle.program = match target {
            Target::Direct => {
                middle.port = principal.port;
                None
            }
            Target::PgBouncer | Target::Control => {
                let config = middle.pgbouncer(principal, options)?;
                Some((programs.pgbouncer.clone(), vec![config], As::Unprivileged))
            }
            Target::HaProxy => {
                let config = middle.haproxy(principal)?;
                let arguments = vec!["-db".to_owned(), "-f".to_owned(), config];
                Some((programs.haproxy.clone(), arguments, As::Unprivileged))
            }
            Target::Gateway(build) => {
                let config = middle.gateway(principal, options, admin_port)?;
                let arguments = ["front-end".to_owned(), "--config".to_owned(), config];
                let build = build.clone().unwrap_or_else(|| programs.backstay.clone());
                Some((build, arguments.to_vec(), As::Ourselves))
            }
        };
        middle.restart(principal, programs, interrupt)?;
        Ok(middle)
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process that forwards; `None`: nothing stands between.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Starts it afresh and waits until a client is let through.
    pub fn restart(
        &mut self,
        principal: &Principal,
        programs: &Programs,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.running = None;
        let log = self.dir.join("log");
        if let Some((program, arguments, user)) = &self.program {
            let mut command = process::bound(program, *user, self.files.as_deref());
            let name = self.target.to_string();
            self.running = Some(Running::start(&name, command.args(arguments), &log)?);
        }
        let last = std::cell::RefCell::new(None);
        let through = interrupt.wait(DEADLINE, || {
            if let Some(running) = &mut self.running {
                running.expect_alive().with_context(|| process::tail(&log))?;
            }
            let mut psql = Command::new(programs.postgres.join("psql"));
            psql.args(["-X", "-A", "-t", "-c", "SELECT 1"]).env("PGCONNECT_TIMEOUT", "2");
            let answer = run::read(principal.log_in(&mut psql, self.port));
            let is_through = answer.is_ok();
            *last.borrow_mut() = answer.err();
            Ok(is_through)
        })?;
        match last.into_inner() {
            _ if through => Ok(()),
            Some(error) => Err(error.context(format!(
                "{} let nobody through for {DEADLINE:?}; {}",
                self.target,
                process::tail(&log)
            ))),
            None => bail!("{} let nobody through for {DEADLINE:?}", self.target),
        }
    }

    fn pgbouncer(&self, principal: &Principal, options: &Options) -> Result<String> {
        let users = self.dir.join("users");
        self.write(&users, &format!("\"{}\" \"{}\"\n", principal.user, principal.verifier))?;
        let clients = options.most_clients() + 100;
        let text = format!(
            "[databases]\n\
             {database} = host={host} port={server_port}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = scram-sha-256\n\
             auth_file = {users}\n\
             pool_mode = {pooling}\n\
             max_client_conn = {clients}\n\
             default_pool_size = {SERVER_CONNECTIONS}\n\
             log_connections = 0\n\
             log_disconnections = 0\n",
            database = principal.database,
            host = principal.host,
            server_port = principal.port,
            port = self.port,
            users = users.display(),
            pooling = options.pooling.name(),
        );
        self.config("pgbouncer.ini", &text)
    }

    fn haproxy(&self, principal: &Principal) -> Result<String> {
        let text = format!(
            "global\n  maxconn 1000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen postgres\n  bind 127.0.0.1:{}\n  server principal {}:{}\n",
            self.port, principal.host, principal.port
        );
        self.config("haproxy.cfg", &text)
    }

    /// The Front End of the demo, with a door and a memory of its own.
    fn gateway(&self, principal: &Principal, options: &Options, admin: u16) -> Result<String> {
        let Some(file) = &principal.front_end_config else {
            bail!(
                "the demo of this backstay starts no Front End, whose configuration the gateway \
                 is given: leave it out with --targets direct,pgbouncer,haproxy"
            );
        };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let mut config: toml::Table =
            toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        let state = self.dir.join("state");
        std::fs::create_dir_all(&state).with_context(|| format!("create {}", state.display()))?;
        // It comes as the demo's own Front End does, and speaks in clear to the servers, as all do.
        let given = config.get("state_dir").and_then(toml::Value::as_str).map(PathBuf::from);
        for file in given.iter().flat_map(|dir| std::fs::read_dir(dir.join("trust"))).flatten() {
            let file = file.context("read the Front End's certificates")?;
            let trust = state.join("trust");
            std::fs::create_dir_all(&trust)?;
            std::fs::copy(file.path(), trust.join(file.file_name()))?;
        }
        for (name, value) in [
            ("server_tls", "off".to_owned()),
            ("listen", format!("127.0.0.1:{}", self.port)),
            ("admin_listen", format!("127.0.0.1:{admin}")),
            ("state_dir", state.display().to_string()),
            ("pooling", options.pooling.name().to_owned()),
        ] {
            config.insert(name.to_owned(), value.into());
        }
        let limits = config.entry("limits").or_insert_with(|| toml::Table::new().into());
        if let Some(limits) = limits.as_table_mut() {
            limits.insert("clients".to_owned(), i64::from(options.most_clients() + 100).into());
        }
        let text = toml::to_string(&config).context("write the gateway's configuration")?;
        self.config("front-end.toml", &text)
    }

    fn config(&self, name: &str, text: &str) -> Result<String> {
        let file = self.dir.join(name);
        self.write(&file, text)?;
        Ok(file.display().to_string())
    }

    fn write(&self, file: &Path, text: &str) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
        opened
            .and_then(|mut out| out.write_all(text.as_bytes()))
            .with_context(|| format!("write {}", file.display()))?;
        match self.target {
            Target::PgBouncer | Target::Control | Target::HaProxy => process::give(file),
            Target::Direct | Target::Gateway(_) => Ok(()),
        }
    }
}
