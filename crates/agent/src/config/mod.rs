//! The configuration of a process, read once at its start.
//!
//! The raw form (`raw`) is what is written; it is checked as a whole, so that all mistakes are told
//! at once, each with what to do. What comes out here is valid: every name is known, every address
//! has one owner, the times keep the lease rule. No part of the file is read again later.

mod check;
mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use session::{Member, Partner, Timing, WitnessId};

pub use raw::{
    DatabaseEntry, MemberAddress, PartnerAddress, ServerFile, ServerPool, Times, WitnessFile,
    WitnessPool,
};

/// What every process has: a server as well as a witness.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub deployment: String,
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
}

/// `backstay server`.
#[derive(Clone, Debug)]
pub struct Server {
    pub process: Process,
    pub os_user: Option<String>,
    /// As configured, else what `BACKSTAY_PG_BIN` names. `None`: to be found.
    pub pg_bin_dir: Option<PathBuf>,
    pub stop_postgres: bool,
    pub pools: Vec<Part>,
}

/// `backstay witness`.
#[derive(Clone, Debug)]
pub struct Witness {
    pub process: Process,
    pub pools: Vec<Part>,
}

/// This process's part in one pool's session.
#[derive(Clone, Debug)]
pub struct Part {
    pub pool: String,
    pub me: Member,
    pub timing: Timing,
    /// All members that may have a vote, by what they are to the session.
    pub members: BTreeMap<Member, Address>,
    /// The witness that the session is created with.
    pub witness: Option<WitnessId>,
    /// A partner's own PostgreSQL.
    pub postgres: Option<Postgres>,
}

/// A process that has a part in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A partner's PostgreSQL, as configured.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub data_dir: PathBuf,
    pub files_dir: PathBuf,
    pub socket_dir: PathBuf,
    pub secret_file: PathBuf,
    pub listen: String,
    pub port: u16,
    /// The other partner's PostgreSQL.
    pub partner_host: String,
    pub partner_port: u16,
    pub locale: Option<String>,
    pub slot_wal_keep: Option<String>,
    pub settings: BTreeMap<String, String>,
    pub client_access: Vec<String>,
    pub databases: Vec<DatabaseEntry>,
    /// How long a manual failover waits for the Front Ends' transactions.
    pub drain: Duration,
    /// The password of the Front Ends' role.
    pub front_end_password_file: Option<PathBuf>,
}

/// The configuration cannot be used. The text names every mistake and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error("the configuration {} is not understood: {error}", path.display())]
    NotUnderstood { path: PathBuf, error: String },
    #[error("the configuration of {process} has mistakes:\n  - {}", mistakes.join("\n  - "))]
    Mistakes { process: String, mistakes: Vec<String> },
}

impl Server {
    /// # Errors
    /// See `ConfigError`.
    pub fn load(path: &Path) -> Result<Server, ConfigError> {
        check::server(read(path)?)
    }
}

impl TryFrom<ServerFile> for Server {
    type Error = ConfigError;

    fn try_from(file: ServerFile) -> Result<Server, ConfigError> {
        check::server(file)
    }
}

impl Witness {
    /// # Errors
    /// See `ConfigError`.
    pub fn load(path: &Path) -> Result<Witness, ConfigError> {
        check::witness(read(path)?)
    }
}

impl TryFrom<WitnessFile> for Witness {
    type Error = ConfigError;

    fn try_from(file: WitnessFile) -> Result<Witness, ConfigError> {
        check::witness(file)
    }
}

impl Part {
    /// The name of the process that is `member`; a number if it is not configured.
    pub fn name_of(&self, member: Member) -> String {
        match (self.members.get(&member), member) {
            (Some(address), _) => address.name.clone(),
            (None, Member::Partner(partner)) => partner.to_string(),
            (None, Member::Witness(WitnessId(id))) => format!("witness {id:016x}"),
        }
    }

    pub fn my_name(&self) -> String {
        self.name_of(self.me)
    }

    pub fn partner_named(&self, name: &str) -> Option<Partner> {
        [Partner::First, Partner::Second].into_iter().find(|partner| {
            self.members.get(&Member::Partner(*partner)).is_some_and(|found| found.name == name)
        })
    }

    pub fn witness_named(&self, name: &str) -> Option<WitnessId> {
        let id = WitnessId::named(name);
        self.members.contains_key(&Member::Witness(id)).then_some(id)
    }
}

fn read<F: serde::de::DeserializeOwned>(path: &Path) -> Result<F, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        error: error.to_string(),
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::NotUnderstood {
        path: path.to_owned(),
        error: error.to_string(),
    })
}
