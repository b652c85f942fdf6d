//! The configuration of a process.
//!
//! The raw form (`raw`) is what is written; it is checked as a whole, so that all mistakes are told
//! at once, each with what to do. What comes out here is valid: every name is known, every address
//! has one owner, the times keep the lease rule. A file is read again only when somebody asks for
//! it.

mod check;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use session::{Member, Partner, Timing, Wanted, WitnessId};

pub use raw::{
    DatabaseEntry, MemberAddress, PartnerAddress, ServerFile, ServerPool, Times, WitnessFile,
    WitnessPool,
};

/// What every process has: a server as well as a witness.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    pub retired: BTreeSet<String>,
}

/// `backstay witness`.
#[derive(Clone, Debug)]
pub struct Witness {
    pub process: Process,
    pub pools: Vec<Part>,
    pub retired: BTreeSet<String>,
}

/// The parts that a process is to have from now on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    pub wanted: Vec<Part>,
    /// Pools that are left at once, whoever serves them.
    pub retired: BTreeSet<String>,
}

/// This process's part in one pool's session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub pool: String,
    pub me: Member,
    pub timing: Timing,
    /// All members that may have a vote, by what they are to the session.
    pub members: BTreeMap<Member, Address>,
    /// The witness that the session is created with.
    pub witness: Option<WitnessId>,
    /// The session is to become what this part says.
    pub converge: bool,
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Postgres {
    pub data_dir: PathBuf,
    pub files_dir: PathBuf,
    pub socket_dir: PathBuf,
    pub secret_file: PathBuf,
    pub listen: String,
    pub port: u16,
    /// The other partner's PostgreSQL: host and port.
    pub partner: Option<(String, u16)>,
    pub partner_name: Option<String>,
    pub locale: Option<String>,
    pub slot_wal_keep: Option<String>,
    pub settings: BTreeMap<String, String>,
    pub client_access: Vec<String>,
    pub databases: Vec<DatabaseEntry>,
    /// How long a manual failover waits for the Front Ends' transactions.
    pub drain: Duration,
    /// The Front Ends that may come; `None`: all of the deployment.
    pub front_ends: Option<BTreeSet<String>>,
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

impl Server {
    pub fn change(&self) -> Change {
        Change { wanted: self.pools.clone(), retired: self.retired.clone() }
    }

    /// What a running process cannot take over from `changed`, as a sentence.
    pub fn fixed_for(&self, changed: &Server) -> Option<&'static str> {
        let same = self.process == changed.process
            && (&self.os_user, &self.pg_bin_dir) == (&changed.os_user, &changed.pg_bin_dir);
        (!same).then_some(FIXED)
    }
}

impl Witness {
    pub fn change(&self) -> Change {
        Change { wanted: self.pools.clone(), retired: self.retired.clone() }
    }

    /// As for a server.
    pub fn fixed_for(&self, changed: &Witness) -> Option<&'static str> {
        (self.process != changed.process).then_some(FIXED)
    }
}

const FIXED: &str = "name, deployment, listen, state_dir, os_user and pg_bin_dir cannot change \
                     while the process runs: restart it for that";

impl Part {
    /// No other partner is named: the pool has one server.
    pub fn is_alone(&self) -> bool {
        match self.me {
            Member::Partner(me) => !self.members.contains_key(&Member::Partner(me.other())),
            Member::Witness(_) => false,
        }
    }

    /// What the session is to become when it is served here.
    pub fn wanted(&self) -> Option<Wanted> {
        if self.is_alone() {
            return Some(Wanted::Alone);
        }
        self.converge.then_some(Wanted::Pair { witness: self.witness })
    }

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
