//! What there is to know of a PostgreSQL that is to be adopted, as values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::Error;
use super::super::instance::{FRONT_END, Instance, ROLE};
use super::super::os_user::OsUser;
use super::owner::Owner;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Without symbolic links.
    pub data_dir: PathBuf,
    pub config_file: PathBuf,
    pub hba_file: PathBuf,
    pub ident_file: PathBuf,
    /// Such as `15.18`.
    pub version: String,
    pub version_number: u32,
    pub pid: u32,
    pub bin_dir: PathBuf,
    /// Who owns the data directory.
    pub os_user: String,
    /// As whom it was looked at.
    pub superuser: String,
    pub in_recovery: bool,
    pub port: u16,
    pub socket_dirs: Vec<PathBuf>,
    pub listen: String,
    pub size_bytes: u64,
    pub checksums: bool,
    pub wal_level: String,
    pub timeline: u32,
    /// `pg_wal` is a symbolic link to this.
    pub wal_elsewhere: Option<PathBuf>,
    /// Of its settings, those that the pool's section has to name: they are in no file of the data
    /// directory, so a copy of the data would lack them.
    pub settings: BTreeMap<String, String>,
    /// Files with settings that stay in force.
    pub setting_files: Vec<PathBuf>,
    /// What Backstay sets to another value.
    pub changes: Vec<Changed>,
    /// Lines of its configuration that PostgreSQL does not understand.
    pub setting_errors: Vec<String>,
    /// Lines of `pg_hba.conf`; those about replication are in `hba_replication`.
    pub hba: Vec<String>,
    pub hba_replication: Vec<String>,
    pub idents: Vec<String>,
    pub tablespaces: Vec<String>,
    pub standbys: Vec<String>,
    pub slots: Vec<Slot>,
    pub subscriptions: Vec<String>,
    /// By database.
    pub unlogged: BTreeMap<String, Vec<String>>,
    pub extensions: BTreeMap<String, Vec<String>>,
    pub libraries: Vec<String>,
    pub prepared: u64,
    pub databases: Vec<String>,
    /// Settings of roles or databases that undo one of Backstay's.
    pub role_settings: Vec<String>,
    /// Roles that bear a name of Backstay's.
    pub own_roles: Vec<String>,
    /// Databases with a schema of Backstay's name.
    pub own_schemas: Vec<String>,
    pub owner: Owner,
}

/// A setting that changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    pub name: String,
    pub from: String,
    pub to: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub logical: bool,
    pub active: bool,
}

impl Found {
    /// The directory for Backstay's own files if nobody names another one.
    pub fn files_dir(data_dir: &Path) -> PathBuf {
        PathBuf::from(format!("{}.backstay", data_dir.display()))
    }

    pub fn socket_dir(&self, files_dir: &Path) -> PathBuf {
        self.socket_dirs.first().cloned().unwrap_or_else(|| files_dir.join("run"))
    }

    /// As Backstay will run it.
    ///
    /// # Errors
    /// Its user is not known, or this process may not act for it.
    pub fn instance(&self, pool: &str, files_dir: &Path) -> Result<Instance, Error> {
        Ok(Instance {
            pool: pool.to_owned(),
            data_dir: self.data_dir.clone(),
            files_dir: files_dir.to_owned(),
            socket_dir: self.socket_dir(files_dir),
            bin_dir: self.bin_dir.clone(),
            listen: self.listen.clone(),
            port: self.port,
            os_user: OsUser::find(&self.os_user)?,
            partner_host: None,
            secret_file: files_dir.join("secret"),
            locale: None,
            settings: self.settings.clone(),
            client_access: self.hba.clone(),
            front_end: false,
            tls: None,
            slot_wal_keep: Instance::DEFAULT_SLOT_WAL_KEEP.to_owned(),
            probe_interval: Instance::DEFAULT_PROBE_INTERVAL,
            probe_timeout: Instance::DEFAULT_PROBE_TIMEOUT,
            start_timeout: Instance::DEFAULT_START_TIMEOUT,
        })
    }

    pub fn own_names() -> [&'static str; 2] {
        [ROLE, FRONT_END]
    }
}
