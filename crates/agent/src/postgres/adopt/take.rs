//! The steps of an adoption. Each can be repeated, and `give_back` undoes whatever was reached.
//!
//! The order is what makes it safe: the manifest before the first change; the former owner can no
//! longer start the server before it is stopped; `standby.signal` before the pool's mark, so that
//! whoever starts it from then on makes no primary.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use rustix::process::Signal;
use tokio::time::timeout;

use super::super::access::{make_dir, write_file};
use super::super::control::Control;
use super::super::create::{self, sync_dir};
use super::super::error::Error;
use super::super::instance::{DATABASE, Instance, ROLE};
use super::super::process::Postmaster;
use super::super::sql::literal;
use super::found::Found;
use super::look::Target;
use super::manifest::{Manifest, Stage};

/// An adoption that has begun.
#[derive(Debug)]
pub struct Taking {
    pub instance: Instance,
    pub manifest: Manifest,
    /// `None`: an agent that has the pool's part already waits for these data.
    lock: Option<create::Lock>,
}

impl Taking {
    /// Writes the manifest. Nothing of PostgreSQL's is changed yet. `waiting`: an agent holds the
    /// data directory, and waits for it to bear the pool's mark.
    ///
    /// # Errors
    /// An agent owns the data directory, or the files directory is in use for something else.
    pub fn begin(
        pool: &str,
        found: Found,
        files_dir: &Path,
        waiting: bool,
    ) -> Result<Taking, Error> {
        let instance = found.instance(pool, files_dir)?;
        let lock = if waiting { None } else { Some(create::lock(&instance)?) };
        if create::unfinished_mark(&instance).exists() {
            return Err(Error::refused(
                format!("{} was used for another PostgreSQL", files_dir.display()),
                "name another directory with --files-dir",
            ));
        }
        make_dir(&instance, files_dir, 0o700)?;
        make_dir(&instance, &super::folder(files_dir), 0o700)?;
        let mut manifest = Manifest::new(pool, found);
        manifest.drop_in = manifest.found.owner.drop_in();
        manifest.write(&instance)?;
        sync_dir(files_dir)?;
        Ok(Taking { instance, manifest, lock })
    }

    /// Goes on with one that was interrupted; `None`: there is none.
    ///
    /// # Errors
    /// It is another pool's, or is being given back.
    pub fn resume(pool: &str, files_dir: &Path) -> Result<Option<Taking>, Error> {
        let Some(manifest) = Manifest::read(files_dir)? else { return Ok(None) };
        if manifest.pool != pool {
            return Err(Error::refused(
                format!("{} is pool {}'s", files_dir.display(), manifest.pool),
                "name that pool, or another directory with --files-dir",
            ));
        }
        if manifest.stage == Stage::Returning {
            return Err(Error::refused(
                format!("pool {pool} is being given back"),
                format!("end that first: backstay server release {pool}"),
            ));
        }
        let instance = manifest.found.instance(pool, files_dir)?;
        let lock = match manifest.stage {
            Stage::Begun => create::lock(&instance).ok(),
            Stage::Taken | Stage::Returning => None,
        };
        Ok(Some(Taking { instance, manifest, lock }))
    }

    /// Keeps copies of the configuration, and what Backstay's own will include.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn keep_files(&self) -> Result<(), Error> {
        let (instance, found) = (&self.instance, &self.manifest.found);
        let folder = super::folder(&instance.files_dir);
        let original = folder.join("original");
        make_dir(instance, &original, 0o700)?;
        let mut files = found.setting_files.clone();
        files.extend([found.config_file.clone(), found.hba_file.clone(), found.ident_file.clone()]);
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let name = file.display().to_string().trim_start_matches('/').replace('/', "_");
            write_file(instance, &original.join(name), &text)?;
        }
        if !found.config_file.starts_with(&found.data_dir) {
            let path = found.config_file.display().to_string().replace('\'', "''");
            let text = format!(
                "# Written by Backstay: the configuration that this server had before.\n\
                 include_if_exists = '{path}'\n"
            );
            write_file(instance, &super::former_config(&instance.files_dir), &text)?;
        }
        if !found.idents.is_empty() {
            let text = format!("{}\n", found.idents.join("\n"));
            write_file(instance, &super::former_idents(&instance.files_dir), &text)?;
        }
        sync_dir(&folder)
    }

    /// Makes Backstay's role on the running server, if it still runs for its former owner.
    ///
    /// # Errors
    /// The role cannot be made.
    pub fn make_role(&mut self) -> Result<(), Error> {
        let password = create::secret(&self.instance)?;
        // Never in clear: PostgreSQL shows running statements, and logs those that fail.
        let verifier = literal(&scram_sha_256(password.as_bytes()));
        let known = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{ROLE}'");
        let target = Target::of(&self.manifest.found, &self.instance.os_user);
        let verb = if target.psql(DATABASE, &known)? == "0" { "CREATE" } else { "ALTER" };
        let statements = format!(
            "SET synchronous_commit = local; SET log_statement = none;\n\
             {verb} ROLE {ROLE} SUPERUSER REPLICATION LOGIN PASSWORD {verifier};"
        );
        target.psql(DATABASE, &statements)?;
        self.manifest.role_made = true;
        self.manifest.write(&self.instance)
    }

    /// From now on its former owner does not start it any more.
    ///
    /// # Errors
    /// A file cannot be written, or systemd does not read it.
    pub fn forbid_start(&self) -> Result<(), Error> {
        self.manifest.found.owner.forbid(&self.manifest, &create::pool_mark(&self.instance))
    }

    /// Whether the server runs; from `Stage::Taken` on it is Backstay's.
    pub fn runs(&self) -> bool {
        Postmaster::adopt(&self.instance).is_some()
    }

    /// A checkpoint beforehand makes the stop short. It may fail.
    pub fn checkpoint(&self) {
        let target = Target::of(&self.manifest.found, &self.instance.os_user);
        if let Err(error) = target.psql(DATABASE, "CHECKPOINT") {
            tracing::warn!(%error, "no checkpoint before the stop, which may take longer");
        }
    }

    /// Fast shutdown.
    ///
    /// # Errors
    /// It did not end in time: it goes on shutting down.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Error> {
        let Some(postmaster) = Postmaster::adopt(&self.instance) else { return Ok(()) };
        let owner = &self.manifest.found.owner;
        if !owner.stop_unit(&owner.active_unit())? {
            postmaster.signal(Signal::INT);
        }
        timeout(deadline, postmaster.exited()).await.map_err(|_| {
            Error::refused(
                format!(
                    "PostgreSQL has not shut down within {} s, and goes on doing so",
                    deadline.as_secs()
                ),
                "see its log; then adopt again, which goes on from here, or release",
            )
        })
    }

    /// The data become the pool's. They were shut down cleanly.
    ///
    /// # Errors
    /// They were not, or a file cannot be written.
    pub fn mark(&mut self) -> Result<(), Error> {
        if !self.manifest.role_made {
            return Err(Error::refused(
                "PostgreSQL was stopped before Backstay's role was made",
                "start it as always, and adopt it again",
            ));
        }
        let control = Control::read(&self.instance)?;
        if !control.is_shut_down() {
            return Err(Error::refused(
                format!("the data were not shut down cleanly (they are \"{}\")", control.state),
                format!(
                    "give it back, let it recover, and adopt it again: backstay server release {}",
                    self.manifest.pool
                ),
            ));
        }
        if self.manifest.found.wal_level == "minimal" {
            self.raise_wal_level()?;
        }
        // Whoever starts it from here on makes a standby.
        create::put_standby_signal(&self.instance)?;
        self.manifest.taken_at = Some(Control::read(&self.instance)?.checkpoint.to_string());
        self.manifest.stage = Stage::Taken;
        self.manifest.write(&self.instance)?;
        create::mark_data(&self.instance)?;
        sync_dir(&self.instance.data_dir)
    }

    /// A standby cannot start from WAL of level minimal; a start for itself ends that.
    fn raise_wal_level(&self) -> Result<(), Error> {
        let program = self.instance.program("postgres");
        let mut config = std::ffi::OsString::from("config_file=");
        config.push(&self.manifest.found.config_file);
        let out = self
            .instance
            .os_user
            .command(&program)
            .args(["--single", "-D"])
            .arg(&self.instance.data_dir)
            .arg("-c")
            .arg(config)
            .args(["-c", "wal_level=replica", DATABASE])
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .map_err(Error::io("run", &program))?;
        if out.status.success() {
            return Ok(());
        }
        Err(Error::Program {
            program: "postgres --single",
            status: out.status.to_string(),
            text: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
        })
    }

    /// Lets the agent have the data directory.
    pub fn hand_over(&mut self) {
        self.lock = None;
    }
}
