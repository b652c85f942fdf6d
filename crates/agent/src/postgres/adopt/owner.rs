//! Who starts an existing PostgreSQL, and how that is taken away and given back.
//!
//! Debian's clusters are *disabled* in `start.conf` rather than set to `manual`: then
//! `pg_ctlcluster` refuses a start by hand, too. A unit of systemd gets a drop-in that asserts that
//! the data directory bears no mark of Backstay's. Whatever starts it all the same finds
//! `standby.signal`, and makes a standby that takes no writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::super::create::sync_dir;
use super::super::error::Error;
use super::super::os_user::OsUser;
use super::manifest::Manifest;

const DEBIAN_ROOT: &str = "/etc/postgresql";
const SYSTEMD: &str = "/run/systemd/system";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Owner {
    /// A cluster of Debian's tools: `pg_ctlcluster VERSION NAME`.
    Debian { version: String, name: String, dir: PathBuf, unit: Option<String> },
    /// A unit of systemd.
    Unit { unit: String },
    /// Somebody with `pg_ctl`, or a script: with these arguments.
    Hand { arguments: Vec<String> },
}

impl Owner {
    pub fn find(config_file: &Path, pid: u32) -> Owner {
        let unit = unit_of(pid);
        let dir = config_file.parent().unwrap_or(Path::new("/"));
        let part = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
        let (name, version) = (part(Some(dir)), part(dir.parent()));
        let marked = dir.join("start.conf").exists() || dir.join("pg_ctl.conf").exists();
        if let (true, Some(name), Some(version)) = (marked, name, version)
            && version.starts_with(|c: char| c.is_ascii_digit())
        {
            return Owner::Debian { version, name, dir: dir.to_owned(), unit };
        }
        if let Some(unit) = unit {
            return Owner::Unit { unit };
        }
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty());
        let arguments = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Owner::Hand { arguments }
    }

    pub fn sentence(&self) -> String {
        match self {
            Owner::Debian { version, name, dir, unit } => format!(
                "it is Debian's cluster {version}/{name} ({}){}",
                dir.display(),
                unit.as_ref().map(|unit| format!(", run by the unit {unit}")).unwrap_or_default()
            ),
            Owner::Unit { unit } => format!("systemd runs it, as the unit {unit}"),
            Owner::Hand { .. } => "it was started by hand (pg_ctl), or by a script".to_owned(),
        }
    }

    /// What is done so that it is not started that way any more.
    pub fn taking_sentence(&self) -> String {
        match self {
            Owner::Debian { dir, unit, .. } => format!(
                "{} will say \"disabled\": pg_ctlcluster and the boot start it no more{}",
                dir.join("start.conf").display(),
                if unit.is_some() { "; a drop-in tells systemd the same" } else { "" }
            ),
            Owner::Unit { unit } => {
                format!("a drop-in tells systemd not to start {unit} while Backstay has the data")
            }
            Owner::Hand { .. } => "nothing on this machine is known to start it: take it out of \
                                   scripts of your own"
                .to_owned(),
        }
    }

    pub fn start_conf(&self) -> Option<PathBuf> {
        match self {
            Owner::Debian { dir, .. } => Some(dir.join("start.conf")),
            Owner::Unit { .. } | Owner::Hand { .. } => None,
        }
    }

    fn unit(&self) -> Option<String> {
        if !Path::new(SYSTEMD).is_dir() {
            return None;
        }
        match self {
            Owner::Debian { version, name, dir, .. } => {
                dir.starts_with(DEBIAN_ROOT).then(|| format!("postgresql@{version}-{name}.service"))
            }
            Owner::Unit { unit } => Some(unit.clone()),
            Owner::Hand { .. } => None,
        }
    }

    /// Where the drop-in goes that keeps systemd from starting it.
    pub fn drop_in(&self) -> Option<PathBuf> {
        let unit = self.unit()?;
        Some(PathBuf::from(format!("/etc/systemd/system/{unit}.d/backstay.conf")))
    }

    /// Takes the start away. Asking twice changes nothing.
    pub(super) fn forbid(&self, manifest: &Manifest, mark: &Path) -> Result<(), Error> {
        if let Some(path) = self.start_conf() {
            let text = "# Backstay runs this cluster (backstay server release gives it back).\n\
                        disabled\n";
            write_in_place(&path, text)?;
        }
        if let Some(path) = &manifest.drop_in {
            let dir = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(dir).map_err(Error::io("make the directory", dir))?;
            let text = format!(
                "# Written by Backstay, which runs this PostgreSQL.\n[Unit]\n\
                 AssertPathExists=!{}\n",
                mark.display()
            );
            write_in_place(path, &text)?;
            systemctl(&["daemon-reload"])?;
        }
        Ok(())
    }

    /// Gives the start back as it was. Asking twice changes nothing.
    pub(super) fn allow(&self, manifest: &Manifest) -> Result<(), Error> {
        if let Some(path) = self.start_conf() {
            match &manifest.start_conf {
                Some(text) => write_in_place(&path, text)?,
                None => remove(&path)?,
            }
        }
        if let Some(path) = &manifest.drop_in {
            remove(path)?;
            if let Some(dir) = path.parent() {
                // Only if nothing of others is in it.
                let _ = std::fs::remove_dir(dir);
            }
            systemctl(&["daemon-reload"])?;
        }
        Ok(())
    }

    /// Has systemd stop its unit, so that it does not take the end for a failure. `false`: there is
    /// none.
    pub(super) fn stop_unit(&self, active: &Option<String>) -> Result<bool, Error> {
        match active {
            Some(unit) if Path::new(SYSTEMD).is_dir() => {
                systemctl(&["stop", "--no-block", unit])?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    pub(super) fn active_unit(&self) -> Option<String> {
        match self {
            Owner::Debian { unit, .. } => unit.clone(),
            Owner::Unit { unit } => Some(unit.clone()),
            Owner::Hand { .. } => None,
        }
    }

    /// Starts it as its former owner would.
    pub(super) fn start(
        &self,
        manifest: &Manifest,
        user: &OsUser,
        log: &Path,
    ) -> Result<(), Error> {
        if let Some(unit) = self.unit() {
            return systemctl(&["start", &unit]);
        }
        match self {
            Owner::Debian { version, name, dir, .. } => {
                let mut command = Command::new("pg_ctlcluster");
                command.args([version, name, "start"]);
                let root = dir.parent().and_then(Path::parent);
                if let Some(root) = root.filter(|root| *root != Path::new(DEBIAN_ROOT)) {
                    command.env("PG_CLUSTER_CONF_ROOT", root);
                }
                run("pg_ctlcluster", command)
            }
            Owner::Unit { unit } => systemctl(&["start", unit]),
            Owner::Hand { arguments } => {
                let (dir, options) = split(arguments, &manifest.found.data_dir);
                let mut command = user.command(manifest.found.bin_dir.join("pg_ctl"));
                command.args(["start", "--wait", "--silent", "--pgdata"]).arg(dir);
                command.arg("--log").arg(log).arg("--options").arg(options).current_dir("/");
                run("pg_ctl", command)
            }
        }
    }
}

/// The directory that `postgres` was given, and the other arguments as the shell of `pg_ctl` reads
/// them.
fn split(arguments: &[String], data_dir: &Path) -> (PathBuf, String) {
    let mut dir = data_dir.to_owned();
    let mut rest = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "-D" {
            dir = words.next().map_or(dir, PathBuf::from);
        } else if let Some(path) = word.strip_prefix("-D") {
            dir = PathBuf::from(path);
        } else {
            rest.push(format!("'{}'", word.replace('\'', r"'\''")));
        }
    }
    (dir, rest.join(" "))
}

/// The unit of systemd that a process belongs to.
fn unit_of(pid: u32) -> Option<String> {
    if !Path::new(SYSTEMD).is_dir() {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let names = text.lines().filter_map(|line| line.rsplit('/').next());
    let mut units = names.filter(|name| name.ends_with(".service"));
    units.next().filter(|unit| !unit.starts_with("user@")).map(str::to_owned)
}

fn systemctl(arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    run("systemctl", command)
}

/// Runs `command` with its talk in a file: a server that it starts would keep a pipe open.
fn run(program: &'static str, mut command: Command) -> Result<(), Error> {
    let path = std::env::temp_dir().join(format!("backstay-{}-{program}", std::process::id()));
    let file = std::fs::File::create(&path).map_err(Error::io("write", &path))?;
    let also = file.try_clone().map_err(Error::io("write", &path))?;
    let status = command.stdin(std::process::Stdio::null()).stdout(file).stderr(also).status();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    let status = status.map_err(Error::io("run", Path::new(program)))?;
    if status.success() {
        return Ok(());
    }
    let text = text.trim().to_owned();
    Err(Error::Program { program, status: status.to_string(), text })
}

/// Keeps who owns the file and who may read it.
fn write_in_place(path: &Path, text: &str) -> Result<(), Error> {
    if std::fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(Error::io("write", path))?;
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("flush", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
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
    fn arguments_survive_the_shell_of_pg_ctl() {
        let given = ["-D", "/etc/it", "-c", "cluster_name=it's"].map(str::to_owned);
        let (dir, options) = split(&given, Path::new("/data"));
        assert_eq!(
            (dir.as_path(), options.as_str()),
            (Path::new("/etc/it"), r"'-c' 'cluster_name=it'\''s'")
        );
        assert_eq!(split(&[], Path::new("/data")).0, Path::new("/data"));
    }
}
