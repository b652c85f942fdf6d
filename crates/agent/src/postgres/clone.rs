//! A fresh copy of the principal's data, by `pg_basebackup`.
//!
//! The copy is made beside the data directory and swapped in by renaming, so the old data stays
//! until the new copy is complete. Where that cannot be (the data directory is a volume of its
//! own, or there is no room for both), the old data is removed first, and the log says so.
//! `Unfinished` says at any moment what a crash has left: killed anywhere, it starts over.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::access::{make_dir, write_file};
use super::certificates;
use super::create::{self, sync_dir};
use super::error::Error;
use super::instance::{DATABASE, Instance, ROLE};
use super::pairing;
use super::rejoin;
use super::replication::{self, ReplicationError};
use super::settings::{self, Upstream};
use super::sql::Connection;
use super::teller::Teller;
use super::tool;

/// Room that is left free besides the copy.
const SPARE_ROOM: u64 = 64 << 20;

/// Why the data directory is not whole: written down before it is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfinished {
    /// A copy is being made in the data directory itself, or `initdb` was.
    Copy,
    Rewind,
    /// The copy beside it is complete and is being swapped in.
    Swap,
}

impl Unfinished {
    pub fn read(instance: &Instance) -> Option<Unfinished> {
        let text = std::fs::read_to_string(create::unfinished_mark(instance)).ok()?;
        Some(match text.trim() {
            "rewind" => Unfinished::Rewind,
            "swap" => Unfinished::Swap,
            _initialise_or_copy => Unfinished::Copy,
        })
    }

    pub fn write(self, instance: &Instance) -> Result<(), Error> {
        let text = match self {
            Unfinished::Copy => "copy\n",
            Unfinished::Rewind => "rewind\n",
            Unfinished::Swap => "swap\n",
        };
        write_file(instance, &create::unfinished_mark(instance), text)?;
        sync_dir(&instance.files_dir)
    }

    /// The data directory is whole.
    pub fn clear(instance: &Instance) -> Result<(), Error> {
        let mark = create::unfinished_mark(instance);
        match std::fs::remove_file(&mark) {
            Ok(()) => sync_dir(&instance.files_dir),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &mark)(error)),
        }
    }
}

/// Where a copy is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Beside,
    /// In the data directory, which is emptied first.
    InPlace,
}

/// Replaces the data directory by a fresh copy of the upstream's. Nothing may run on it.
/// Dropping it ends the copying.
pub async fn run(instance: &Instance, upstream: &Upstream, teller: &Teller) -> Result<(), Error> {
    finish_swap(instance)?;
    let connection = pairing::connect(instance, upstream).await?;
    refuse_tablespaces(&connection).await?;
    let size = database_size(&connection).await?;
    drop(connection);
    let beside = beside(instance);
    tool::end_orphans(&beside).await;
    tool::end_orphans(&instance.data_dir).await;
    remove(&beside)?;
    let target = match place(instance, size)? {
        Place::Beside => beside.clone(),
        Place::InPlace => {
            // The last moment at which the old data are still there.
            check_replication(instance, upstream).await?;
            Unfinished::Copy.write(instance)?;
            make_dir(instance, &instance.data_dir, 0o700)?;
            create::empty(&instance.data_dir)?;
            instance.data_dir.clone()
        }
    };
    make_dir(instance, &target, 0o700)?;
    teller.doing("copying the principal's data");
    tool::run(instance, "pg_basebackup", &arguments(instance, upstream, &target), |line| {
        if let Some((done, total)) = progress(line) {
            teller.progress(done, total);
        }
    })
    .await?;
    teller.doing("flushing the copy");
    tool::flush_volumes(vec![target.clone()]).await?;
    if target == beside {
        Unfinished::Swap.write(instance)?;
        finish_swap(instance)
    } else {
        settle(instance)
    }
}

/// Ends a swap that a crash has interrupted. Afterwards the data directory is whole.
pub fn finish_swap(instance: &Instance) -> Result<(), Error> {
    if Unfinished::read(instance) != Some(Unfinished::Swap) {
        return Ok(());
    }
    let (beside, old) = (beside(instance), former(instance));
    if beside.exists() {
        remove(&old)?;
        if instance.data_dir.exists() {
            rename(&instance.data_dir, &old)?;
        }
        rename(&beside, &instance.data_dir)?;
    }
    settle(instance)?;
    remove(&old)
}

/// The new data is complete and in its place.
fn settle(instance: &Instance) -> Result<(), Error> {
    create::mark_data(instance)?;
    create::put_standby_signal(instance)?;
    sync_dir(&instance.data_dir)?;
    if let Some(parent) = instance.data_dir.parent() {
        sync_dir(parent)?;
    }
    Unfinished::clear(instance)
}

fn arguments(instance: &Instance, upstream: &Upstream, target: &Path) -> Vec<OsString> {
    let pgdata = |path: &Path| {
        let mut argument = OsString::from("--pgdata=");
        argument.push(path);
        argument
    };
    vec![
        pgdata(target),
        format!("--dbname={}", source(instance, upstream)).into(),
        "--wal-method=stream".into(),
        "--checkpoint=fast".into(),
        "--progress".into(),
        "--no-password".into(),
        "--no-sync".into(),
    ]
}

/// The connection string of the programs that read the principal's data. It bears none of the
/// names that acknowledge commits.
pub fn source(instance: &Instance, upstream: &Upstream) -> String {
    let door = certificates::words(instance, upstream)
        .unwrap_or_else(|| settings::by_password(instance, upstream));
    format!(
        "{door} user={ROLE} dbname={DATABASE} connect_timeout=5 application_name=backstay_copy \
         keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000"
    )
}

/// Bytes done and in all, from a line such as `23168/30955 kB (74%), 0/1 tablespace (...)`.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (numbers, rest) = line.split_once(" kB")?;
    let (done, total) = numbers.trim().split_once('/')?;
    let (done, total) = (done.trim().parse::<u64>().ok()?, total.trim().parse::<u64>().ok()?);
    rest.contains("tablespace").then_some((done * 1024, total.max(done) * 1024))
}

/// Whether `pg_basebackup` will be let in.
async fn check_replication(instance: &Instance, upstream: &Upstream) -> Result<(), Error> {
    const DOING: &str = "asking the principal for a copy";
    let failed = |error: ReplicationError| Error::unexpected(DOING, error.to_string());
    let login = rejoin::login(instance, upstream);
    let mut connection = replication::Connection::log_in(&login).await.map_err(failed)?;
    connection.identify_system().await.map(drop).map_err(failed)
}

async fn refuse_tablespaces(upstream: &Connection) -> Result<(), Error> {
    let found = upstream
        .one(
            "SELECT string_agg(spcname, ', ') FROM pg_tablespace \
             WHERE pg_tablespace_location(oid) <> ''",
        )
        .await
        .map_err(Error::sql("looking for tablespaces"))?;
    match found {
        None => Ok(()),
        Some(names) => Err(Error::refused(
            format!("the principal has tablespaces outside of its data directory: {names}"),
            "move their tables back (ALTER TABLE ... SET TABLESPACE pg_default) and drop them",
        )),
    }
}

async fn database_size(upstream: &Connection) -> Result<u64, Error> {
    let size = upstream
        .one(
            "SELECT ((SELECT sum(pg_database_size(oid)) FROM pg_database) \
              + (SELECT sum(size) FROM pg_ls_waldir()))::bigint",
        )
        .await
        .map_err(Error::sql("asking for the size of the data"))?;
    Ok(size.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Decides where the copy goes; refuses it if there is no room even without the old data.
fn place(instance: &Instance, size: u64) -> Result<Place, Error> {
    let data_dir = &instance.data_dir;
    let parent = data_dir.parent().unwrap_or(Path::new("/"));
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let own_volume = device(data_dir).is_some_and(|own| Some(own) != device(parent));
    let needed = size + SPARE_ROOM;
    let free = free_bytes(if own_volume { data_dir } else { parent })?;
    if !own_volume && free >= needed {
        return Ok(Place::Beside);
    }
    let old = size_of(data_dir);
    if free + old < needed {
        return Err(Error::refused(
            format!(
                "a copy of the principal's data needs {} MB, and {} has room for {} MB",
                needed >> 20,
                parent.display(),
                (free + old) >> 20
            ),
            "free some space on this volume, or enlarge it; the old data was not touched",
        ));
    }
    tracing::info!(
        needed_mb = needed >> 20,
        free_mb = free >> 20,
        own_volume,
        "the old data is removed before the new copy is complete"
    );
    Ok(Place::InPlace)
}

/// Bytes free to PostgreSQL's user on the volume of `path`.
pub fn free_bytes(path: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("ask for the free space of", path)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that the files under `path` take. What vanishes meanwhile counts nothing.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn beside(instance: &Instance) -> PathBuf {
    PathBuf::from(format!("{}.copy", instance.data_dir.display()))
}

fn former(instance: &Instance) -> PathBuf {
    PathBuf::from(format!("{}.former", instance.data_dir.display()))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(Error::io("rename", from))?;
    to.parent().map_or(Ok(()), sync_dir)
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_pg_basebackup_reports() {
        let line = "23168/30955 kB (74%), 0/1 tablespace (/var/lib/base/16384)";
        assert_eq!(progress(line), Some((23168 * 1024, 30955 * 1024)));
        assert_eq!(progress("pg_basebackup: error: no space left"), None);
        assert_eq!(progress("31/20 kB (100%), 1/1 tablespace"), Some((31 * 1024, 31 * 1024)));
    }
}
