//! The configuration of a Front End, read once at its start.
//!
//! The raw form is what is written; it is checked as a whole, so that all mistakes are told at
//! once, each with what to do. Times are in milliseconds, sizes in bytes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontEndFile {
    pub name: String,
    pub deployment: String,
    pub pool: String,
    /// Where clients connect.
    pub listen: String,
    /// Where commands ask for the status.
    pub admin_listen: String,
    pub state_dir: PathBuf,
    /// The pool's two servers, where their agents listen.
    pub first: ServerAddress,
    /// Absent: the pool has one server.
    #[serde(default = "ServerAddress::none", skip_serializing_if = "ServerAddress::is_none")]
    pub second: ServerAddress,
    /// The password of the role `backstay_front_end`, which looks up how users log in.
    pub password_file: PathBuf,
    /// A certificate and its key, PEM. Absent: clients are not offered TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// TLS to the servers, where this Front End has a certificate.
    #[serde(default)]
    pub server_tls: ServerTls,
    #[serde(default)]
    pub pooling: Pooling,
    #[serde(default)]
    pub replication: Replication,
    #[serde(default)]
    pub lowered_commit: LoweredCommit,
    /// Users that the servers let in without a password, and the gateway with them.
    #[serde(default)]
    pub trust: Vec<String>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub times: Times,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAddress {
    pub name: String,
    /// host:port
    pub address: String,
}

impl ServerAddress {
    /// There is no such server.
    pub fn none() -> ServerAddress {
        ServerAddress { name: String::new(), address: String::new() }
    }

    pub fn is_none(&self) -> bool {
        self.name.is_empty() && self.address.is_empty()
    }
}

/// What is written by hand where everything else comes from the topology: no pool is named.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnFile {
    pub name: String,
    pub deployment: String,
    pub state_dir: PathBuf,
    /// Where commands ask for the status.
    #[serde(default = "admin_listen")]
    pub admin_listen: String,
    /// Where clients connect, if it is not the topology's port on all addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// See `FrontEndFile`; `front-end.password` in `state_dir` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// See `FrontEndFile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<String>,
}

fn admin_listen() -> String {
    "0.0.0.0:7023".to_owned()
}

impl OwnFile {
    /// Where commands are answered.
    ///
    /// # Errors
    /// What is written is no address.
    pub fn commands(&self) -> Result<SocketAddr, ConfigError> {
        self.admin_listen.parse().map_err(|_| ConfigError::Mistakes {
            name: self.name.clone(),
            mistakes: vec![format!(
                "admin_listen = {:?} is no address: write IP:port",
                self.admin_listen
            )],
        })
    }

    pub fn password_file(&self) -> PathBuf {
        let written = self.password_file.clone();
        written.unwrap_or_else(|| self.state_dir.join("front-end.password"))
    }
}

/// A Front End's own file, read.
#[derive(Clone, Debug)]
pub enum Own {
    /// It says everything.
    Whole(Box<FrontEnd>),
    /// The topology says the rest.
    ByTopology(OwnFile),
}

impl Own {
    /// # Errors
    /// See `ConfigError`.
    pub fn load(path: &Path) -> Result<Own, ConfigError> {
        let text = read(path)?;
        let written: toml::Table = understood(path, &text)?;
        if written.contains_key("pool") {
            return FrontEnd::load(path).map(|whole| Own::Whole(Box::new(whole)));
        }
        let own: OwnFile = understood(path, &text)?;
        if own.state_dir.is_absolute() {
            return Ok(Own::ByTopology(own));
        }
        let mistakes = vec![format!("state_dir = {:?}: write a whole path", own.state_dir)];
        Err(ConfigError::Mistakes { name: own.name, mistakes })
    }

    pub fn state_dir(&self) -> &Path {
        match self {
            Own::Whole(whole) => &whole.file.state_dir,
            Own::ByTopology(own) => &own.state_dir,
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        error: error.to_string(),
    })
}

fn understood<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::NotUnderstood {
        path: path.to_owned(),
        error: error.to_string().trim_end().to_owned(),
    })
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How the servers are connected to by a Front End that has a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerTls {
    /// With TLS, and only if the server shows the certificate of the member that it is to be.
    #[default]
    Require,
    /// In clear: for servers whose certificates are the administrator's own.
    Off,
}

/// How long a client session keeps its server connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Until it ends.
    #[default]
    Session,
    /// Until its transaction ends.
    Transaction,
}

/// What becomes of replication connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    #[default]
    Refuse,
    /// Passed to the principal as they are.
    Pass,
}

/// What becomes of a client that sets `synchronous_commit` below `on`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoweredCommit {
    #[default]
    Refuse,
    /// It gets a warning with each such statement, and may lose what was acknowledged.
    Warn,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client sessions in all.
    pub clients: usize,
    /// Client sessions of one user; 0: as many as in all.
    pub clients_per_user: usize,
    /// Server connections in all.
    pub server_connections: usize,
    /// Idle server connections that are kept for the next client.
    pub idle_server_connections: usize,
    /// Client sessions that wait for a server at one time.
    pub held: usize,
    /// Bytes of one statement that are kept for repeating it, and of one reply that is kept until
    /// its commit is certain.
    pub kept_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients: 10_000,
            clients_per_user: 0,
            server_connections: 90,
            idle_server_connections: 40,
            held: 10_000,
            kept_bytes: 256 * 1024,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// How long a statement or a log-in waits for a principal.
    pub hold_ms: u64,
    /// How long a client may take to log in.
    pub login_ms: u64,
    /// How long a server may take to be connected and to let the gateway in.
    pub connect_ms: u64,
    /// How long without a principal until statements that only read are served from a standby.
    pub standby_reads_after_ms: u64,
    /// How long without a principal until the pool is in Resiliency mode.
    pub resiliency_after_ms: u64,
    /// How long a client may leave bytes unread that are meant for it.
    pub slow_client_ms: u64,
    /// How long bytes to a server may stay without acknowledgement. A server that takes none for so
    /// long, behind a lock for instance, counts as lost; that of a dead host is known much sooner.
    pub user_timeout_ms: u64,
    /// How long after the handover of its listening socket client sessions may go on; 0: for ever.
    pub drain_ms: u64,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            hold_ms: 60_000,
            login_ms: 30_000,
            connect_ms: 5_000,
            standby_reads_after_ms: 10_000,
            resiliency_after_ms: 30 * 60_000,
            slow_client_ms: 300_000,
            user_timeout_ms: 300_000,
            drain_ms: 0,
        }
    }
}

impl Times {
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms)
    }

    pub fn login(&self) -> Duration {
        Duration::from_millis(self.login_ms)
    }

    pub fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub fn standby_reads_after(&self) -> Duration {
        Duration::from_millis(self.standby_reads_after_ms)
    }

    pub fn resiliency_after(&self) -> Duration {
        Duration::from_millis(self.resiliency_after_ms)
    }

    pub fn slow_client(&self) -> Duration {
        Duration::from_millis(self.slow_client_ms)
    }

    pub fn user_timeout(&self) -> Duration {
        Duration::from_millis(self.user_timeout_ms)
    }
}

/// What is in force: checked, with its secrets read.
#[derive(Clone, Debug)]
pub struct FrontEnd {
    pub file: FrontEndFile,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// The password of `LOOKUP_ROLE`.
    pub password: String,
}

/// The role that looks up how users log in; the agents make it.
pub const LOOKUP_ROLE: &str = "backstay_front_end";
/// The database that it logs in to.
pub const LOOKUP_DATABASE: &str = "postgres";

/// The configuration cannot be used. The text names every mistake and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error("the configuration {} is not understood: {error}", path.display())]
    NotUnderstood { path: PathBuf, error: String },
    #[error("the configuration of {name} has mistakes:\n  - {}", mistakes.join("\n  - "))]
    Mistakes { name: String, mistakes: Vec<String> },
}

impl FrontEnd {
    /// # Errors
    /// See `ConfigError`.
    pub fn load(path: &Path) -> Result<FrontEnd, ConfigError> {
        let file: FrontEndFile = understood(path, &read(path)?)?;
        FrontEnd::try_from(file)
    }
}

impl TryFrom<FrontEndFile> for FrontEnd {
    type Error = ConfigError;

    fn try_from(file: FrontEndFile) -> Result<FrontEnd, ConfigError> {
        let mut mistakes = Vec::new();
        let mut address = |what: &str, text: &str| {
            text.parse::<SocketAddr>().unwrap_or_else(|_| {
                mistakes.push(format!("{what} = {text:?} is no address: write IP:port"));
                SocketAddr::from(([127, 0, 0, 1], 0))
            })
        };
        let listen = address("listen", &file.listen);
        let admin_listen = address("admin_listen", &file.admin_listen);
        if !file.state_dir.is_absolute() {
            mistakes.push(format!("state_dir = {:?}: write a whole path", file.state_dir));
        }
        for server in [&file.first, &file.second].into_iter().filter(|server| !server.is_none()) {
            let port = server.address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                mistakes.push(format!(
                    "the address of {:?} is {:?}: write host:port",
                    server.name, server.address
                ));
            }
        }
        if file.first == file.second {
            mistakes.push("first and second are the same server: a pool has two".to_owned());
        }
        let limits = &file.limits;
        for (name, value) in [
            ("clients", limits.clients),
            ("server_connections", limits.server_connections),
            ("held", limits.held),
        ] {
            if value == 0 {
                mistakes.push(format!("limits.{name} = 0 lets nobody in: write a larger number"));
            }
        }
        if file.times.resiliency_after_ms < file.times.standby_reads_after_ms {
            mistakes.push(
                "times.resiliency_after_ms is below standby_reads_after_ms: make it longer"
                    .to_owned(),
            );
        }
        let certificate = trust::Place::new(file.state_dir.join("trust"));
        let password = std::fs::read_to_string(&file.password_file).unwrap_or_else(|error| {
            // The servers ask a certificate for none.
            if certificate.exists() && file.server_tls == ServerTls::Require {
                return String::new();
            }
            mistakes.push(format!(
                "password_file {}: {error}: it holds what the servers' front_end_password_file \
                 holds",
                file.password_file.display()
            ));
            String::new()
        });
        if !mistakes.is_empty() {
            return Err(ConfigError::Mistakes { name: file.name, mistakes });
        }
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        Ok(FrontEnd { file, listen, admin_listen, password })
    }
}
