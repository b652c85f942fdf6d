//! Looking at a PostgreSQL that runs, without changing anything.
//!
//! It is asked through `psql`, run as the user who owns the data: its own rules for the socket let
//! that user in, and those rules are not ours to change. Each question gives one document of JSON.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::error::Error;
use super::super::instance::{DATABASE, Instance};
use super::super::os_user::OsUser;
use super::super::settings::{self, Listen};
use super::super::version::Version;
use super::found::{Changed, Found, Slot};
use super::owner::Owner;

/// What the administrator names.
#[derive(Clone, Debug)]
pub enum Place {
    /// Debian's name for it.
    Cluster {
        version: String,
        name: String,
    },
    DataDir(PathBuf),
}

impl Place {
    /// The data directory.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn data_dir(&self) -> Result<PathBuf, Error> {
        let dir = match self {
            Place::DataDir(dir) => dir.clone(),
            Place::Cluster { version, name } => {
                let root = std::env::var_os("PG_CLUSTER_CONF_ROOT");
                let root = root.map_or_else(|| PathBuf::from("/etc/postgresql"), PathBuf::from);
                let file = root.join(version).join(name).join("postgresql.conf");
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    Error::refused(
                        format!(
                            "there is no cluster {version}/{name}: {}: {error}",
                            file.display()
                        ),
                        "see which there are: pg_lsclusters",
                    )
                })?;
                data_directory(&text)
                    .unwrap_or_else(|| Path::new("/var/lib/postgresql").join(version).join(name))
            }
        };
        std::fs::canonicalize(&dir).map_err(Error::io("find the data directory", &dir))
    }
}

fn data_directory(text: &str) -> Option<PathBuf> {
    let line = text.lines().map(str::trim).rfind(|line| line.starts_with("data_directory"))?;
    let value = line.split_once('=')?.1.trim().strip_prefix('\'')?;
    Some(PathBuf::from(value.split('\'').next()?))
}

/// A running server, as `psql` is told to find it.
#[derive(Clone, Debug)]
pub struct Target {
    pub user: OsUser,
    pub bin_dir: PathBuf,
    pub socket_dir: PathBuf,
    pub port: u16,
    pub superuser: String,
}

impl Target {
    pub fn of(found: &Found, user: &OsUser) -> Target {
        Target {
            user: user.clone(),
            bin_dir: found.bin_dir.clone(),
            socket_dir: found.socket_dirs.first().cloned().unwrap_or_default(),
            port: found.port,
            superuser: found.superuser.clone(),
        }
    }

    /// What `statements` print; they are never on a command line.
    pub fn psql(&self, database: &str, statements: &str) -> Result<String, Error> {
        let own = self.bin_dir.join("psql");
        let program = if own.exists() { own } else { PathBuf::from("psql") };
        let mut child = self
            .user
            .command(&program)
            .args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .arg("-h")
            .arg(&self.socket_dir)
            .args(["-p", &self.port.to_string(), "-U", &self.superuser, "-d", database])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", &program))?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it says of a failed write is in its own words.
            let _ = stdin.write_all(statements.as_bytes());
        }
        let out = child.wait_with_output().map_err(Error::io("run", &program))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        Err(Error::Program {
            program: "psql",
            status: out.status.to_string(),
            text: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
        })
    }

    fn ask<T: DeserializeOwned>(&self, database: &str, statements: &str) -> Result<T, Error> {
        let text = self.psql(database, statements).map_err(|error| match error {
            Error::Program { text, .. } => Error::refused(
                format!("PostgreSQL cannot be asked as {:?}: {text}", self.superuser),
                format!(
                    "let {} log in over the socket as a superuser (a line `local all {} peer` in \
                     pg_hba.conf), or name another one with --superuser",
                    self.user.name, self.superuser
                ),
            ),
            other => other,
        })?;
        serde_json::from_str(&text)
            .map_err(|error| Error::unexpected("looking at PostgreSQL", format!("{error}: {text}")))
    }
}

#[derive(Deserialize)]
struct Cluster {
    superuser: bool,
    in_recovery: bool,
    version_number: u32,
    config_file: PathBuf,
    hba_file: PathBuf,
    ident_file: PathBuf,
    settings: BTreeMap<String, String>,
    #[serde(default)]
    written: Option<Vec<Written>>,
    given: Option<BTreeMap<String, String>>,
    tablespaces: Option<Vec<String>>,
    standbys: Option<Vec<String>>,
    slots: Option<Vec<Slot>>,
    subscriptions: Option<Vec<String>>,
    prepared: u64,
    databases: Option<Vec<String>>,
    role_settings: Option<Vec<RoleSetting>>,
    own_roles: Option<Vec<String>>,
    size_bytes: u64,
    timeline: u32,
}

#[derive(Deserialize)]
struct Written {
    file: PathBuf,
    name: Option<String>,
    setting: Option<String>,
    line: Option<u32>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RoleSetting {
    of: String,
    setting: String,
}

#[derive(Deserialize)]
struct InDatabase {
    unlogged: Option<Vec<String>>,
    extensions: Option<Vec<String>>,
    schema: bool,
}

const CLUSTER: &str = "SET statement_timeout = '30s'; SET search_path = pg_catalog;
SELECT json_build_object(
 'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
 'in_recovery', pg_is_in_recovery(),
 'version_number', current_setting('server_version_num')::int,
 'config_file', current_setting('config_file'),
 'hba_file', current_setting('hba_file'),
 'ident_file', current_setting('ident_file'),
 'settings', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings),
 'written', (SELECT json_agg(json_build_object('file', sourcefile, 'line', sourceline,
   'name', lower(name), 'setting', setting, 'error', error) ORDER BY seqno)
   FROM pg_file_settings),
 'given', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings
   WHERE source = 'command line'),
 'tablespaces', (SELECT json_agg(spcname || ' (' || pg_tablespace_location(oid) || ')')
   FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''),
 'standbys', (SELECT json_agg(format('%s from %s (%s)', application_name,
   coalesce(host(client_addr), 'this machine'), state)) FROM pg_stat_replication),
 'slots', (SELECT json_agg(json_build_object('name', slot_name, 'logical', slot_type = 'logical',
   'active', active)) FROM pg_replication_slots),
 'subscriptions', (SELECT json_agg(subname) FROM pg_subscription),
 'prepared', (SELECT count(*) FROM pg_prepared_xacts),
 'databases', (SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn),
 'role_settings', (SELECT json_agg(json_build_object('of', concat_ws(' in ', r.rolname, d.datname),
   'setting', one)) FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
   LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) one),
 'own_roles', (SELECT json_agg(rolname) FROM pg_roles
   WHERE rolname IN ('backstay', 'backstay_front_end')),
 'size_bytes', (SELECT sum(pg_database_size(oid)) FROM pg_database)
   + (SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()),
 'timeline', (SELECT timeline_id FROM pg_control_checkpoint()))";

const IN_DATABASE: &str = "SET statement_timeout = '30s'; SET search_path = pg_catalog;
SELECT json_build_object(
 'unlogged', (SELECT json_agg(n.nspname || '.' || c.relname ORDER BY 1) FROM pg_class c
   JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'm', 'S')),
 'extensions', (SELECT json_agg(extname ORDER BY 1) FROM pg_extension WHERE extname <> 'plpgsql'),
 'schema', EXISTS (SELECT FROM pg_namespace WHERE nspname = 'backstay'))";

/// Looks at the server that runs on `data_dir`.
///
/// # Errors
/// None runs there, or it cannot be asked.
pub fn look(pool: &str, data_dir: &Path, superuser: Option<&str>) -> Result<Found, Error> {
    let user = owner_of(data_dir)?;
    let (pid, port, socket_dir) = postmaster(data_dir)?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))
        .map_err(Error::io("see the program of", data_dir))?;
    let bin_dir = program.parent().unwrap_or(Path::new("/")).to_owned();
    let superuser = superuser.unwrap_or(&user.name).to_owned();
    let target = Target { user, bin_dir, socket_dir, port, superuser };
    let cluster: Cluster = target.ask(DATABASE, CLUSTER)?;
    if !cluster.superuser {
        return Err(Error::refused(
            format!("{:?} is no superuser of this PostgreSQL", target.superuser),
            "name one with --superuser",
        ));
    }
    let mut inside = BTreeMap::new();
    for database in cluster.databases.iter().flatten() {
        inside.insert(database.clone(), target.ask::<InDatabase>(database, IN_DATABASE)?);
    }
    put_together(pool, data_dir, pid, target, cluster, inside)
}

fn put_together(
    pool: &str,
    data_dir: &Path,
    pid: u32,
    target: Target,
    cluster: Cluster,
    inside: BTreeMap<String, InDatabase>,
) -> Result<Found, Error> {
    let shown = |name: &str| cluster.settings.get(name).cloned().unwrap_or_default();
    let list = |name: &str| words(&shown(name));
    let (hba, hba_replication) = rules(&cluster.hba_file)?;
    let of_all = |pick: fn(&InDatabase) -> &Option<Vec<String>>| {
        let found =
            inside.iter().filter_map(|(name, one)| Some((name.clone(), pick(one).clone()?)));
        found.collect::<BTreeMap<_, _>>()
    };
    let written = cluster.written.unwrap_or_default();
    let mut found = Found {
        data_dir: data_dir.to_owned(),
        version: Version::of_programs(&target.bin_dir)?.to_string(),
        version_number: cluster.version_number,
        pid,
        os_user: target.user.name.clone(),
        in_recovery: cluster.in_recovery,
        port: target.port,
        socket_dirs: list("unix_socket_directories").into_iter().map(PathBuf::from).collect(),
        listen: shown("listen_addresses"),
        size_bytes: cluster.size_bytes,
        checksums: shown("data_checksums") == "on",
        wal_level: shown("wal_level"),
        timeline: cluster.timeline,
        wal_elsewhere: std::fs::read_link(data_dir.join("pg_wal")).ok(),
        settings: kept(data_dir, &written, cluster.given.as_ref(), &cluster.settings),
        setting_files: files(data_dir, &written),
        changes: Vec::new(),
        setting_errors: errors(&written),
        hba,
        hba_replication,
        idents: lines_of(&cluster.ident_file)?,
        tablespaces: cluster.tablespaces.unwrap_or_default(),
        standbys: cluster.standbys.unwrap_or_default(),
        slots: cluster.slots.unwrap_or_default(),
        subscriptions: cluster.subscriptions.unwrap_or_default(),
        unlogged: of_all(|one| &one.unlogged),
        extensions: of_all(|one| &one.extensions),
        libraries: list("shared_preload_libraries"),
        prepared: cluster.prepared,
        databases: cluster.databases.unwrap_or_default(),
        role_settings: undoing(cluster.role_settings.unwrap_or_default()),
        own_roles: cluster.own_roles.unwrap_or_default(),
        own_schemas: inside.iter().filter(|(_, one)| one.schema).map(|(n, _)| n.clone()).collect(),
        owner: Owner::find(&cluster.config_file, pid),
        config_file: cluster.config_file,
        hba_file: cluster.hba_file,
        ident_file: cluster.ident_file,
        bin_dir: target.bin_dir,
        superuser: target.superuser,
    };
    found.changes = changes(&found.instance(pool, &Found::files_dir(data_dir))?, &cluster.settings);
    Ok(found)
}

fn owner_of(data_dir: &Path) -> Result<OsUser, Error> {
    let meta = std::fs::metadata(data_dir).map_err(Error::io("look at", data_dir))?;
    if Version::of_data(data_dir).is_none() {
        return Err(Error::refused(
            format!("{} is no data directory of PostgreSQL", data_dir.display()),
            "name the directory that holds PG_VERSION",
        ));
    }
    let out = std::process::Command::new("id")
        .args(["-nu", "--", &meta.uid().to_string()])
        .output()
        .map_err(Error::io("run", Path::new("id")))?;
    OsUser::find(String::from_utf8_lossy(&out.stdout).trim())
}

/// Process id, port and directory of the socket, from PostgreSQL's lock file.
fn postmaster(data_dir: &Path) -> Result<(u32, u16, PathBuf), Error> {
    let not_running = || {
        Error::refused(
            format!("no PostgreSQL runs on {}", data_dir.display()),
            "start it as always (pg_ctlcluster, systemctl, pg_ctl): it is looked at while it runs",
        )
    };
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid"));
    let text = text.map_err(|_| not_running())?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let number = |at: usize| lines.get(at).and_then(|line| line.parse::<u32>().ok());
    let (Some(pid), Some(port)) = (number(0), number(3)) else { return Err(not_running()) };
    if std::fs::read_link(format!("/proc/{pid}/cwd")).ok().as_deref() != Some(data_dir) {
        return Err(not_running());
    }
    let port = u16::try_from(port).map_err(|_| not_running())?;
    let socket_dir = lines.get(4).filter(|line| !line.is_empty()).ok_or_else(|| {
        Error::refused(
            "this PostgreSQL has no Unix socket",
            "set unix_socket_directories: Backstay talks to it over a socket alone",
        )
    })?;
    Ok((pid, port, PathBuf::from(socket_dir)))
}

fn words(list: &str) -> Vec<String> {
    let words = list.split(',').map(|word| word.trim().trim_matches('"'));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Settings of `postgresql.conf` that a mirror would lack: those that are not in a file of the data
/// directory, and those that Backstay gives on the command line from the pool's section.
fn kept(
    data_dir: &Path,
    written: &[Written],
    given: Option<&BTreeMap<String, String>>,
    shown: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for one in written.iter().filter(|one| !one.file.starts_with(data_dir)) {
        if let (Some(name), Some(setting)) = (&one.name, &one.setting) {
            kept.insert(name.clone(), setting.clone());
        }
    }
    // What stood on its command line is in force; so is what ALTER SYSTEM wrote, in the copy too.
    kept.extend(given.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    kept.retain(|name, value| !settings::is_own(name) && !value.contains('\n'));
    // A directory that Debian's tools make at each start.
    kept.remove("stats_temp_directory");
    if kept.get("ssl_cert_file").is_some_and(|file| file.contains("ssl-cert-snakeoil")) {
        // The placeholder of Debian's package, which proves nothing and is another one elsewhere.
        kept.retain(|name, _| !["ssl", "ssl_cert_file", "ssl_key_file"].contains(&name.as_str()));
    }
    if shown.get("wal_level").map(String::as_str) == Some("logical") {
        kept.insert("wal_level".to_owned(), "logical".to_owned());
    }
    for name in ["max_wal_senders", "max_replication_slots"] {
        let value =
            shown.get(name).filter(|value| value.parse().is_ok_and(|value: u32| value > 10));
        kept.extend(value.map(|value| (name.to_owned(), value.clone())));
    }
    kept
}

fn files(data_dir: &Path, written: &[Written]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = written.iter().map(|one| one.file.clone()).collect();
    files.push(data_dir.join("postgresql.auto.conf"));
    files.sort();
    files.dedup();
    files
}

fn errors(written: &[Written]) -> Vec<String> {
    let errors = written.iter().filter_map(|one| {
        let error = one.error.as_deref()?;
        let waits = error.contains("could not be applied");
        let line = one.line.unwrap_or_default();
        (!waits).then(|| format!("{}:{line}: {error}", one.file.display()))
    });
    errors.collect()
}

fn changes(instance: &Instance, shown: &BTreeMap<String, String>) -> Vec<Changed> {
    let own_paths = ["data_directory", "config_file", "hba_file", "ident_file"];
    let mut changes = Vec::new();
    for (name, to) in settings::command_line(instance, Listen::Port) {
        let Some(from) = shown.get(name).filter(|_| !own_paths.contains(&name)) else { continue };
        if *from != to {
            changes.push(Changed { name: name.to_owned(), from: from.clone(), to });
        }
    }
    changes
}

/// Settings of roles and databases that undo one of ours for their sessions.
fn undoing(settings: Vec<RoleSetting>) -> Vec<String> {
    let undoing = settings.into_iter().filter(|one| {
        let name = one.setting.split('=').next().unwrap_or_default();
        settings::is_own(name)
    });
    undoing.map(|one| format!("{}: {}", one.of, one.setting)).collect()
}

/// The lines of `pg_hba.conf`: those for clients, and those about replication.
fn rules(file: &Path) -> Result<(Vec<String>, Vec<String>), Error> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let lines = lines_of(file)?.into_iter().map(|line| absolute(&line, dir));
    Ok(lines.partition(|line| line.split_whitespace().nth(1) != Some("replication")))
}

/// References to other files are relative to the file that they stand in.
fn absolute(line: &str, dir: &Path) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let is_include = words.first().is_some_and(|word| word.starts_with("include"));
    for (at, word) in words.iter_mut().enumerate() {
        let path = match word.strip_prefix('@') {
            Some(path) => Some(path),
            None => (is_include && at == 1).then_some(word.as_str()),
        };
        if let Some(path) = path.filter(|path| !path.starts_with(['/', '"'])) {
            let sign = if is_include { "" } else { "@" };
            *word = format!("{sign}{}", dir.join(path).display());
        }
    }
    // Spaces inside of quotes are part of a name.
    if line.contains('"') { line.to_owned() } else { words.join(" ") }
}

/// Lines that say something; a backslash at the end joins two of them.
fn lines_of(file: &Path) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_access_rules_stay_with_their_files() {
        let dir = Path::new("/etc/it");
        assert_eq!(absolute("local all @admins peer", dir), "local all @/etc/it/admins peer");
        assert_eq!(absolute("include more.conf", dir), "include /etc/it/more.conf");
        assert_eq!(absolute("host  all  all  ::1/128  trust", dir), "host all all ::1/128 trust");
    }

    #[test]
    fn settings_of_files_outside_of_the_data_are_kept() {
        let one = |file: &str, name: &str, setting: &str| Written {
            file: PathBuf::from(file),
            name: Some(name.to_owned()),
            setting: Some(setting.to_owned()),
            line: None,
            error: None,
        };
        let written = [
            one("/etc/it/postgresql.conf", "work_mem", "4MB"),
            one("/etc/it/conf.d/a.conf", "work_mem", "5MB"),
            one("/etc/it/postgresql.conf", "fsync", "off"),
            one("/data/postgresql.conf", "maintenance_work_mem", "9MB"),
        ];
        let shown = [("wal_level", "replica"), ("max_wal_senders", "25")];
        let shown = shown.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let kept = kept(Path::new("/data"), &written, None, &shown);
        let expected = [("max_wal_senders", "25"), ("work_mem", "5MB")];
        assert!(kept.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected));
    }

    #[test]
    fn debians_file_names_the_data_directory() {
        let text = "#data_directory = 'ConfigDir'\ndata_directory = '/srv/x'\t# use data in it\n";
        assert_eq!(data_directory(text), Some(PathBuf::from("/srv/x")));
        assert_eq!(data_directory("port = 5432\n"), None);
    }
}
