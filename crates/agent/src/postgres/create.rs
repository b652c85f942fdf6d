//! A new cluster, and the marks by which an existing one is known.
//!
//! A data directory bears the name of its pool, so that no other pool's data, and no cluster that
//! somebody else made, is ever taken over. An unfinished cluster is known by a mark in the files
//! directory and is made anew.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::access::{self, make_dir, write_file};
use super::adopt;
use super::error::Error;
use super::instance::{DATABASE, Instance, ROLE};
use super::replication::passfile_password;
use super::settings;
use super::version::Version;

const POOL_MARK: &str = "backstay.pool";

/// What the data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// It is missing, empty, or was never finished.
    Nothing,
    /// A cluster of this pool.
    Cluster,
}

/// Held by the one agent that owns the data directory.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

/// Refuses a second agent for the same data directory.
pub fn lock(instance: &Instance) -> Result<Lock, Error> {
    make_dir(instance, &instance.files_dir, 0o700)?;
    let beside = PathBuf::from(format!("{}.lock", instance.data_dir.display()));
    if let Some(parent) = beside.parent() {
        make_dir(instance, parent, 0o755)?;
    }
    let mut files = Vec::new();
    for path in [instance.files_dir.join("lock"), beside] {
        let file = File::create(&path).map_err(Error::io("open", &path))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::refused(
                format!("another agent already runs {}", instance.data_dir.display()),
                "stop it first, or give this agent a data directory of its own",
            ));
        }
        files.push(file);
    }
    Ok(Lock { _files: files })
}

/// The pool whose data a directory holds; `None` if it bears no pool's name.
pub fn pool_of_data(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(POOL_MARK)).ok()?;
    Some(text.trim().to_owned())
}

/// Says what the data directory holds; refuses what is not this pool's or cannot be run.
pub fn look(instance: &Instance, version: Version) -> Result<DataDir, Error> {
    let dir = &instance.data_dir;
    if unfinished_mark(instance).exists() || is_empty(dir)? {
        return Ok(DataDir::Nothing);
    }
    let shown = dir.display();
    let Some(major) = Version::of_data(dir) else {
        return Err(Error::refused(
            format!("{shown} is not empty, and is no data directory of PostgreSQL"),
            "choose an empty or missing directory as data_dir",
        ));
    };
    let mark = pool_mark(instance);
    match fs::read_to_string(&mark) {
        Ok(pool) if pool.trim() == instance.pool => {}
        Ok(pool) => {
            return Err(Error::refused(
                format!("{shown} belongs to the pool {:?}, not {:?}", pool.trim(), instance.pool),
                "choose another data_dir, or correct the pool's name",
            ));
        }
        Err(_) => {
            return Err(Error::refused(
                format!("{shown} holds a PostgreSQL that Backstay did not make"),
                "choose an empty or missing directory as data_dir, or take these data over \
                 (backstay server adopt)",
            ));
        }
    }
    if major != version.major {
        return Err(Error::refused(
            format!("{shown} was made by PostgreSQL {major}, but the programs are {version}"),
            format!("set pg_bin_dir to PostgreSQL {major}, or upgrade the data with pg_upgrade"),
        ));
    }
    Ok(DataDir::Cluster)
}

/// Makes a cluster that is stopped and will start as a standby. Blocks for a second or two.
pub fn initialise_now(instance: &Instance) -> Result<(), Error> {
    let version = Version::of_programs(&instance.bin_dir)?.check()?;
    settings::check(instance)?;
    if look(instance, version)? == DataDir::Cluster {
        return Err(Error::refused(
            format!("{} already holds a cluster of this pool", instance.data_dir.display()),
            "remove it if the pool shall be made anew",
        ));
    }
    if adopt::is_adopted(instance) {
        return Err(Error::refused(
            format!("{} holds data that were adopted", instance.data_dir.display()),
            "they are never made anew; if they are not wanted, release them first",
        ));
    }
    make_dir(instance, &instance.files_dir, 0o700)?;
    let mark = unfinished_mark(instance);
    if mark.exists() {
        empty(&instance.data_dir)?;
    }
    write_file(instance, &mark, "initialise\n")?;
    make_dir(instance, &instance.data_dir, 0o700)?;
    // Those who know each other by certificates need no password.
    let by_password = instance.tls().is_none() || instance.secret_file.exists();
    let password = by_password.then(|| secret(instance)).transpose()?;
    run_initdb(instance, password.as_deref())?;
    make_operator(instance)?;
    mark_data(instance)?;
    put_standby_signal(instance)?;
    fs::remove_file(&mark).map_err(Error::io("remove", &mark))?;
    sync_dir(&instance.files_dir)
}

/// As `initialise_now`, off the async threads.
pub async fn initialise(instance: Arc<Instance>) -> Result<(), Error> {
    tokio::task::spawn_blocking(move || initialise_now(&instance))
        .await
        .map_err(|error| Error::unexpected("making the cluster", error.to_string()))?
}

fn run_initdb(instance: &Instance, password: Option<&str>) -> Result<(), Error> {
    let password_file = instance.files_dir.join("initial_password");
    let program = instance.program("initdb");
    let mut command = instance.os_user.command(&program);
    if let Some(password) = password {
        write_file(instance, &password_file, password)?;
        command.arg(format!("--pwfile={}", password_file.display()));
    }
    let out = command
        .arg("-D")
        .arg(&instance.data_dir)
        .arg(format!("--username={ROLE}"))
        .arg(format!("--locale={}", locale(instance)))
        .args(["--data-checksums", "--encoding=UTF8"])
        .args(["--auth-local=peer", "--auth-host=scram-sha-256"])
        .current_dir("/")
        .output()
        .map_err(Error::io("run", &program));
    let _ = fs::remove_file(&password_file);
    let out = out?;
    if out.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: "initdb",
        status: out.status.to_string(),
        text: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
    })
}

/// A superuser for the administrator, who logs in over the socket as PostgreSQL's own user.
fn make_operator(instance: &Instance) -> Result<(), Error> {
    let program = instance.program("postgres");
    let mut child = instance
        .os_user
        .command(&program)
        .args(["--single", "-D"])
        .arg(&instance.data_dir)
        .arg(DATABASE)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir("/")
        .spawn()
        .map_err(Error::io("run", &program))?;
    let name = instance.os_user.name.replace('"', "\"\"");
    if let Some(mut stdin) = child.stdin.take() {
        let statement = format!("CREATE ROLE \"{name}\" SUPERUSER LOGIN\n");
        stdin.write_all(statement.as_bytes()).map_err(Error::io("talk to", &program))?;
    }
    let out = child.wait_with_output().map_err(Error::io("run", &program))?;
    let text = String::from_utf8_lossy(&out.stderr);
    if out.status.success() && !text.contains("ERROR:") {
        return Ok(());
    }
    Err(Error::Program {
        program: "postgres --single",
        status: out.status.to_string(),
        text: text.trim().to_owned(),
    })
}

fn locale(instance: &Instance) -> String {
    if let Some(locale) = &instance.locale {
        return locale.clone();
    }
    let listed = std::process::Command::new("locale").arg("-a").output();
    let listed = listed.map(|out| String::from_utf8_lossy(&out.stdout).to_lowercase());
    match listed {
        Ok(text) if text.lines().any(|line| line == "c.utf8" || line == "c.utf-8") => "C.UTF-8",
        Ok(_) | Err(_) => "C",
    }
    .to_owned()
}

/// Reads the password of Backstay's role; makes one, at random, if there is none yet.
pub fn secret(instance: &Instance) -> Result<String, Error> {
    let path = &instance.secret_file;
    if path.exists() {
        return known_secret(instance);
    }
    let random = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 24];
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io("read", random))?;
    let password = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if let Some(parent) = path.parent() {
        make_dir(instance, parent, 0o700)?;
    }
    write_file(instance, path, &format!("*:*:*:{ROLE}:{password}\n"))?;
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(password)
}

/// The password that both partners share. It is never made up here: another one could not log in.
pub fn known_secret(instance: &Instance) -> Result<String, Error> {
    let path = &instance.secret_file;
    let Ok(text) = fs::read_to_string(path) else {
        return Err(Error::refused(
            format!("the pool's password file {} cannot be read", path.display()),
            "copy it from the other partner, readable by PostgreSQL's user alone",
        ));
    };
    passfile_password(&text, ROLE).filter(|password| !password.is_empty()).ok_or_else(|| {
        Error::refused(
            format!("{} does not hold a password", path.display()),
            format!("it must be one line: *:*:*:{ROLE}:PASSWORD"),
        )
    })
}

pub fn pool_mark(instance: &Instance) -> PathBuf {
    instance.data_dir.join(POOL_MARK)
}

/// Writes the pool's name into the data directory.
pub fn mark_data(instance: &Instance) -> Result<(), Error> {
    write_file(instance, &pool_mark(instance), &format!("{}\n", instance.pool))
}

/// With this file a start, by whomever, makes a standby and never a second primary (3.3).
pub fn put_standby_signal(instance: &Instance) -> Result<(), Error> {
    if instance.standby_signal().exists() {
        return Ok(());
    }
    make_standby_signal(instance)?;
    flush_standby_signal(instance)
}

/// In place at once; on disk only after `flush_standby_signal`.
pub fn make_standby_signal(instance: &Instance) -> Result<(), Error> {
    let path = instance.standby_signal();
    File::create(&path).map_err(Error::io("make", &path))?;
    instance.os_user.own(&path)
}

pub fn flush_standby_signal(instance: &Instance) -> Result<(), Error> {
    let path = instance.standby_signal();
    File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("flush", &path))?;
    sync_dir(&instance.data_dir)
}

pub fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("flush", path))
}

pub fn unfinished_mark(instance: &Instance) -> PathBuf {
    instance.files_dir.join("initialise.unfinished")
}

fn is_empty(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            Ok(entries.all(|entry| entry.is_ok_and(|e| e.file_name() == "lost+found")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read", dir)(error)),
    }
}

/// Removes what is in `dir`, which an unfinished `initialise` had made.
pub fn empty(dir: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        if kind.is_dir() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        } else {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Everything that has to be in place before `postgres` is started on the data directory.
pub fn prepare_files(
    instance: &Instance,
    access: access::Access,
    upstream: Option<&settings::Upstream>,
) -> Result<(), Error> {
    make_dir(instance, &instance.files_dir, 0o700)?;
    if !instance.socket_dir.starts_with(&instance.files_dir) {
        access::tighten(&instance.files_dir)?;
    }
    make_dir(instance, &instance.socket_dir, 0o755)?;
    put_standby_signal(instance)?;
    let recovery = instance.data_dir.join("recovery.signal");
    if recovery.exists() {
        fs::remove_file(&recovery).map_err(Error::io("remove", &recovery))?;
    }
    settings::write(instance)?;
    settings::write_upstream(instance, upstream)?;
    access::write(instance, access)
}
