//! What is needed to give an adopted PostgreSQL back. Written, and on disk, before the first
//! change; kept until everything is given back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::access::write_file;
use super::super::create::sync_dir;
use super::super::error::Error;
use super::super::instance::Instance;
use super::found::Found;
use crate::clock;

/// How far an adoption has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something may have been changed; the data are still their former owner's.
    Begun,
    /// The data bear the pool's mark, and nobody else starts them.
    Taken,
    /// They are being given back.
    Returning,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub pool: String,
    pub stage: Stage,
    pub begun_ms: u64,
    /// As it was before.
    pub found: Found,
    /// Backstay's role was made on the server.
    #[serde(default)]
    pub role_made: bool,
    /// The checkpoint with which the data were taken.
    #[serde(default)]
    pub taken_at: Option<String>,
    /// What its owner's `start.conf` held; absent: there was none.
    #[serde(default)]
    pub start_conf: Option<String>,
    /// The file that tells systemd not to start it.
    #[serde(default)]
    pub drop_in: Option<PathBuf>,
    /// `postgresql.auto.conf` as it was.
    #[serde(default)]
    pub auto_conf: Option<String>,
    /// `postmaster.opts` as it was.
    #[serde(default)]
    pub options: Option<String>,
}

impl Manifest {
    pub fn path(files_dir: &Path) -> PathBuf {
        super::folder(files_dir).join("manifest.json")
    }

    /// `None`: nothing is adopted there.
    ///
    /// # Errors
    /// There is one that cannot be read. It is never taken for none.
    pub fn read(files_dir: &Path) -> Result<Option<Manifest>, Error> {
        let path = Manifest::path(files_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Error::refused(
                format!("{} is damaged: {error}", path.display()),
                "restore it from a backup: it says how to give the server back",
            )
        })
    }

    pub fn new(pool: &str, found: Found) -> Manifest {
        let read = |name: &str| std::fs::read_to_string(found.data_dir.join(name)).ok();
        Manifest {
            pool: pool.to_owned(),
            stage: Stage::Begun,
            begun_ms: clock::wall_ms(),
            role_made: false,
            taken_at: None,
            start_conf: found
                .owner
                .start_conf()
                .and_then(|path| std::fs::read_to_string(path).ok()),
            drop_in: None,
            auto_conf: read("postgresql.auto.conf"),
            options: read("postmaster.opts"),
            found,
        }
    }

    /// On disk when it returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, instance: &Instance) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::unexpected("writing the manifest", error.to_string()))?;
        write_file(instance, &Manifest::path(&instance.files_dir), &text)?;
        sync_dir(&super::folder(&instance.files_dir))
    }

    /// Sets it aside: nothing is adopted here any more.
    ///
    /// # Errors
    /// The folder cannot be renamed.
    pub fn close(&self, files_dir: &Path) -> Result<PathBuf, Error> {
        let from = super::folder(files_dir);
        let to = files_dir.join(format!("released-{}", clock::wall_ms()));
        std::fs::rename(&from, &to).map_err(Error::io("rename", &from))?;
        sync_dir(files_dir)?;
        Ok(to)
    }
}
