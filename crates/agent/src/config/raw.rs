//! The configuration as it is written: one TOML file per process. Unknown fields are refused.
//! Also written by the demo, hence `Serialize`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `backstay server --config FILE`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// The name of this process; a pool's partner of this name is the one that runs here.
    pub name: String,
    /// The name of the deployment: members of another one are refused.
    pub deployment: String,
    /// Where the other members and commands connect, such as `0.0.0.0:7022`.
    pub listen: String,
    /// Promises and records are kept here: never on PostgreSQL's volume, never from a backup.
    pub state_dir: PathBuf,
    /// Whom PostgreSQL runs as when this process runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    /// Where `postgres` is. If absent, `BACKSTAY_PG_BIN` says so; without it, it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_bin_dir: Option<PathBuf>,
    /// Pools that were given up: their part here ends at once, whoever serves. A pool that is just
    /// not named any more is left only when the others can do without this server.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retired: BTreeSet<String>,
    /// On a signal to end, PostgreSQL is shut down too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop_postgres: bool,
    #[serde(default, rename = "pool")]
    pub pools: Vec<ServerPool>,
}

/// `backstay witness --config FILE`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessFile {
    pub name: String,
    pub deployment: String,
    pub listen: String,
    pub state_dir: PathBuf,
    /// As in a server's file.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retired: BTreeSet<String>,
    #[serde(default, rename = "pool")]
    pub pools: Vec<WitnessPool>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPool {
    pub name: String,
    /// `fast`, `standard` or `tolerant`. The same on all members.
    #[serde(default = "standard")]
    pub profile: String,
    pub data_dir: PathBuf,
    /// Backstay's own files about this PostgreSQL.
    pub files_dir: PathBuf,
    pub socket_dir: PathBuf,
    /// `listen_addresses` of PostgreSQL while clients or the partner may come.
    #[serde(default = "everywhere")]
    pub postgres_listen: String,
    /// The password of Backstay's own role in the form of a `.pgpass` file, the same on both
    /// partners; `secret` in `files_dir` if absent. Made where the pool is created, if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The most WAL that the principal keeps for an absent mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_wal_keep: Option<String>,
    /// Lines of `pg_hba.conf` for clients; empty: everybody by scram-sha-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_access: Vec<String>,
    /// The designated principal of the first set-up. A pool of one server has only one of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<PartnerAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<PartnerAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<MemberAddress>,
    /// The session is made what this file says: `witness`, and whether there is a mirror. Else the
    /// file only says how it begins, and commands change it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub converge: bool,
    /// Further witnesses that this one may be replaced with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare_witnesses: Vec<MemberAddress>,
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub times: Times,
    /// PostgreSQL's settings; those that mirroring needs go above them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Made by the designated principal once it serves for the first time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseEntry>,
    /// The Front Ends that may follow this pool and look its users up, by the names in their
    /// certificates. If absent, every Front End of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_ends: Option<BTreeSet<String>>,
    /// A file that holds the password of the Front Ends' role, the same on both partners. If
    /// absent, there is no such role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_end_password_file: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessPool {
    pub name: String,
    #[serde(default = "standard")]
    pub profile: String,
    pub first: MemberAddress,
    pub second: MemberAddress,
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub times: Times,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartnerAddress {
    /// The server's name.
    pub name: String,
    pub host: String,
    /// Where its agent listens for members.
    #[serde(default = "member_port")]
    pub port: u16,
    #[serde(default = "postgres_port")]
    pub postgres_port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberAddress {
    pub name: String,
    pub host: String,
    #[serde(default = "member_port")]
    pub port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseEntry {
    pub name: String,
    pub owner: String,
    /// A file that holds the owner's password and nothing else. Without one the owner is made
    /// without a password, and cannot log in by one until somebody sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// Times that differ from the profile's, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_margin_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_timeout_ms: Option<u64>,
    /// How long a manual failover waits for the Front Ends' transactions to end; 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

impl Times {
    fn is_empty(&self) -> bool {
        *self == Times::default()
    }
}

fn standard() -> String {
    "standard".to_owned()
}

fn everywhere() -> String {
    "*".to_owned()
}

fn member_port() -> u16 {
    7022
}

fn postgres_port() -> u16 {
    5432
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(value: &bool) -> bool {
    !value
}
