//! What is given about one local PostgreSQL before it runs: its paths, port, user and settings.
//!
//! Two directories belong to it. The data directory is PostgreSQL's own. The files directory is
//! ours: configuration, access rules, secret, log and marks are kept there, so that neither a
//! rewind nor a fresh copy of the data directory can carry another server's into it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::certificates::{self, Tls};
use super::os_user::OsUser;

/// PostgreSQL's role that Backstay itself uses, on both partners.
pub const ROLE: &str = "backstay";
/// The role that Front Ends look up users with.
pub const FRONT_END: &str = "backstay_front_end";
/// Name of the mirror's walsender, and of its slot on the principal.
pub const MIRROR_NAME: &str = "backstay_mirror";
/// Name of the exposure guard's walsender.
pub const GUARD_NAME: &str = "backstay_exposed";
/// The database that Backstay's own connections use.
pub const DATABASE: &str = "postgres";

/// One local PostgreSQL. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The pool whose data this is; written into a mark so that no other pool's data is taken.
    pub pool: String,
    pub data_dir: PathBuf,
    /// Ours: made if it is missing.
    pub files_dir: PathBuf,
    /// Where the Unix socket is; a path of at most 90 bytes. Made if it is missing.
    pub socket_dir: PathBuf,
    /// Where `postgres` and its programs are.
    pub bin_dir: PathBuf,
    /// Value of `listen_addresses` while clients or the partner may come.
    pub listen: String,
    pub port: u16,
    pub os_user: OsUser,
    /// The partner's address for `pg_hba.conf` (an IP address), from which it may replicate.
    pub partner_host: Option<String>,
    /// Password of `ROLE` in the form of a `.pgpass` file, mode 0600, owned by `os_user`. The same
    /// on both partners: whoever makes the second one brings it there.
    pub secret_file: PathBuf,
    /// Locale of a new cluster; `None` is `C.UTF-8` if the machine has it, otherwise `C`.
    pub locale: Option<String>,
    /// The operator's own settings; Backstay's go above them.
    pub settings: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` for clients; empty: everybody by scram-sha-256.
    pub client_access: Vec<String>,
    /// Front Ends may look up users.
    pub front_end: bool,
    /// The agent's certificate, if it has one.
    pub tls: Option<Tls>,
    /// Value of `max_slot_wal_keep_size`.
    pub slot_wal_keep: String,
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    /// How long a start may take until the server is consistent.
    pub start_timeout: Duration,
}

/// A database for the pool's users, made by whoever creates the pool once it is serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub owner: String,
    /// `None`: the owner is made without one.
    pub password: Option<String>,
}

impl Instance {
    pub const DEFAULT_SLOT_WAL_KEEP: &str = "1GB";
    pub const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_millis(100);
    pub const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_millis(1_000);
    pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(600);

    /// Backstay's own roles use certificates, and PostgreSQL shows the agent's.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref().filter(|_| !certificates::others_in_force(self))
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("pg_wal")
    }

    pub fn standby_signal(&self) -> PathBuf {
        self.data_dir.join("standby.signal")
    }

    pub fn log_file(&self) -> PathBuf {
        self.files_dir.join("postgresql.log")
    }

    pub fn config_file(&self) -> PathBuf {
        self.files_dir.join("postgresql.conf")
    }

    /// `primary_conninfo` and `restore_command`, which change while the server runs.
    pub fn upstream_file(&self) -> PathBuf {
        self.files_dir.join("upstream.conf")
    }

    pub fn hba_file(&self) -> PathBuf {
        self.files_dir.join("pg_hba.conf")
    }

    pub fn ident_file(&self) -> PathBuf {
        self.files_dir.join("pg_ident.conf")
    }

    /// The Unix socket itself.
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One that never runs.
    pub fn instance() -> Instance {
        Instance {
            pool: "pool01".to_owned(),
            data_dir: PathBuf::from("/data"),
            files_dir: PathBuf::from("/files"),
            socket_dir: PathBuf::from("/run/it's"),
            bin_dir: PathBuf::from("/bin"),
            listen: "127.0.0.1".to_owned(),
            port: 5432,
            os_user: OsUser::unchanged("postgres"),
            partner_host: Some("10.0.0.2".to_owned()),
            secret_file: PathBuf::from("/files/secret"),
            locale: None,
            settings: BTreeMap::new(),
            client_access: Vec::new(),
            front_end: false,
            tls: None,
            slot_wal_keep: Instance::DEFAULT_SLOT_WAL_KEEP.to_owned(),
            probe_interval: Instance::DEFAULT_PROBE_INTERVAL,
            probe_timeout: Instance::DEFAULT_PROBE_TIMEOUT,
            start_timeout: Instance::DEFAULT_START_TIMEOUT,
        }
    }
}
