//! Giving an adopted PostgreSQL back: the reverse of each step, from whatever was reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::super::access::write_file;
use super::super::control::Control;
use super::super::create::{self, sync_dir};
use super::super::error::Error;
use super::super::instance::{DATABASE, Instance};
use super::super::process::Postmaster;
use super::super::timelines;
use super::look::Target;
use super::manifest::{Manifest, Stage};
use super::owner::remove;

/// What stays of Backstay's.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Left {
    /// The manifest and what was kept beside it.
    pub files: Option<PathBuf>,
    pub roles: Vec<String>,
    /// Why something could not be removed.
    pub reasons: Vec<String>,
}

/// Shuts down a server that an agent has left running. Nothing may own the data directory.
///
/// # Errors
/// It does not end in time.
pub async fn stop_ours(instance: &Instance, deadline: Duration) -> Result<(), Error> {
    let Some(postmaster) = Postmaster::adopt(instance) else { return Ok(()) };
    postmaster.signal(Signal::INT);
    timeout(deadline, postmaster.exited()).await.map_err(|_| {
        Error::refused(
            format!("PostgreSQL does not shut down within {} s", deadline.as_secs()),
            "a commit may wait for a mirror: start the agent again, and let it end the part",
        )
    })
}

/// Takes what is Backstay's out of the stopped data directory, and gives the start back.
///
/// # Errors
/// A file cannot be read or written. Asking again goes on.
pub fn give_back(instance: &Instance, manifest: &mut Manifest) -> Result<(), Error> {
    let taken = manifest.stage != Stage::Begun;
    manifest.stage = Stage::Returning;
    manifest.write(instance)?;
    let runs = Postmaster::adopt(instance).is_some();
    if runs && create::pool_mark(instance).exists() {
        return Err(Error::refused(
            format!("Backstay's PostgreSQL still runs on {}", instance.data_dir.display()),
            "end its part first",
        ));
    }
    // One that runs without the mark is its former owner's already, or still.
    if !runs {
        if taken {
            clear(instance, manifest)?;
        }
        // The mark goes first: without it no agent takes the data for its own.
        remove(&create::pool_mark(instance))?;
        sync_dir(&instance.data_dir)?;
        remove(&instance.data_dir.join("recovery.signal"))?;
        remove(&instance.standby_signal())?;
        sync_dir(&instance.data_dir)?;
    }
    manifest.found.owner.allow(manifest)
}

/// What a primary of its former owner's must not find.
fn clear(instance: &Instance, manifest: &Manifest) -> Result<(), Error> {
    let control = Control::read(instance)?;
    timelines::remove_unused_skips(instance, control.timeline())?;
    // Its own configuration may allow no slots at all; this one would keep WAL for ever.
    let slots = instance.data_dir.join("pg_replslot");
    for entry in std::fs::read_dir(&slots).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("backstay_") {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
    }
    sync_dir(&slots)?;
    restore_upstream(instance, manifest)?;
    match &manifest.options {
        Some(options) => write_file(instance, &instance.data_dir.join("postmaster.opts"), options),
        None => Ok(()),
    }
}

/// Lines that were taken out of `postgresql.auto.conf` because they would have named an upstream.
fn restore_upstream(instance: &Instance, manifest: &Manifest) -> Result<(), Error> {
    let path = instance.data_dir.join("postgresql.auto.conf");
    let Some(before) = &manifest.auto_conf else { return Ok(()) };
    let now = std::fs::read_to_string(&path).unwrap_or_default();
    let ours = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("primary_conninfo") || line.starts_with("restore_command")
    };
    let lost: Vec<&str> =
        before.lines().filter(ours).filter(|line| !now.lines().any(|one| one == *line)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    write_file(instance, &path, &format!("{now}{}\n", lost.join("\n")))
}

/// Starts it as its former owner did, and waits until it is a primary.
///
/// # Errors
/// It does not start, or starts as something else.
pub fn start_again(instance: &Instance, manifest: &Manifest) -> Result<(), Error> {
    const DOING: &str = "looking at the server that was given back";
    if Postmaster::adopt(instance).is_none() {
        let log = instance.files_dir.join("released.log");
        manifest.found.owner.start(manifest, &instance.os_user, &log)?;
    }
    let target = Target::of(&manifest.found, &instance.os_user);
    match target.psql(DATABASE, "SELECT pg_is_in_recovery()")?.as_str() {
        "f" => Ok(()),
        other => Err(Error::unexpected(DOING, format!("it is no primary: {other}"))),
    }
}

/// Drops Backstay's roles and schemas; says what stays.
///
/// # Errors
/// The server cannot be asked at all.
pub fn drop_roles(instance: &Instance, manifest: &Manifest) -> Result<Left, Error> {
    let target = Target::of(&manifest.found, &instance.os_user);
    let listed = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1";
    let databases = target.psql(DATABASE, listed)?;
    let mut left = Left::default();
    for database in databases.lines() {
        let dropped = target.psql(
            database,
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS backstay CASCADE;",
        );
        if let Err(error) = dropped {
            left.reasons.push(format!("the schema backstay of {database}: {error}"));
        }
    }
    for role in super::found::Found::own_names() {
        let statements =
            format!("SET client_min_messages = warning; DROP ROLE IF EXISTS \"{role}\";");
        if let Err(error) = target.psql(DATABASE, &statements) {
            left.roles.push(role.to_owned());
            left.reasons.push(format!("the role {role}: {error}"));
        }
    }
    Ok(left)
}

/// The lock file beside the data directory.
pub fn lock_file(data_dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", data_dir.display()))
}
