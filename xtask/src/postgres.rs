//! Makes sure that PostgreSQL is on this machine, for the tests and the demonstration.
//!
//! It is installed by the system's own package manager or not at all. On a terminal the person is
//! asked; elsewhere (continuous integration) it is done when it can be done without a password;
//! otherwise the exact command is printed. `BACKSTAY_PG_BIN` names other programs to use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{output, run};

const OLDEST: u32 = 14;

/// What Backstay starts.
const PROGRAMS: [&str; 6] =
    ["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump"];

/// Minor releases before these lose commits at start-up (a race in synchronous replication).
const OLDEST_MINOR: [(u32, u32); 4] = [(14, 18), (15, 13), (16, 9), (17, 5)];

#[derive(Clone, Debug)]
pub struct Found {
    pub programs: PathBuf,
    pub major: u32,
    pub minor: u32,
}

/// Finds PostgreSQL, or installs it. Says what it found.
pub fn prepare() -> Result<Found> {
    if let Some(found) = find()? {
        announce(&found)?;
        return Ok(found);
    }
    output::say(format_args!("PostgreSQL {OLDEST} or newer is not on this machine yet."));
    install()?;
    let Some(found) = find()? else {
        bail!(
            "PostgreSQL was installed, but its programs ({}) were not found; \
             set BACKSTAY_PG_BIN to the directory that holds them",
            PROGRAMS.join(", ")
        );
    };
    announce(&found)?;
    Ok(found)
}

fn announce(found: &Found) -> Result<()> {
    let Found { programs, major, minor } = found;
    output::say(format_args!("PostgreSQL {major}.{minor} in {}", programs.display()));
    let needed = OLDEST_MINOR.iter().find(|(of, _)| of == major);
    match needed {
        Some((_, needed)) if minor < needed => bail!(
            "PostgreSQL {major}.{minor} can lose commits when it starts; \
             update it to {major}.{needed} or newer"
        ),
        _ => Ok(()),
    }
}

/// The newest PostgreSQL here that has all its programs.
fn find() -> Result<Option<Found>> {
    if let Some(named) = std::env::var_os("BACKSTAY_PG_BIN") {
        let named = PathBuf::from(named);
        return match look(&named) {
            Some(found) => Ok(Some(found)),
            None => bail!(
                "BACKSTAY_PG_BIN={} does not hold PostgreSQL {OLDEST} or newer with {}",
                named.display(),
                PROGRAMS.join(", ")
            ),
        };
    }
    let found = places().iter().filter_map(|place| look(place)).max_by_key(|found| found.major);
    Ok(found)
}

/// Where distributions and package managers put the programs of a server.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (parent, start, rest) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        places.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
                .map(|entry| entry.path().join(rest)),
        );
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    places
}

fn look(programs: &Path) -> Option<Found> {
    if !PROGRAMS.iter().all(|program| programs.join(program).is_file()) {
        return None;
    }
    let text = run::read(Command::new(programs.join("postgres")).arg("--version")).ok()?;
    let (major, minor) = version(&text)?;
    (major >= OLDEST).then(|| Found { programs: programs.to_path_buf(), major, minor })
}

/// Major and minor of, say, `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_numeric()))?;
    let mut parts = number.split(|c: char| !c.is_numeric());
    let major = parts.next()?.parse().ok()?;
    let minor = if number.contains('.') { parts.next()?.parse().ok()? } else { 0 };
    Some((major, minor))
}

/// How each package manager installs PostgreSQL, and whether that takes root.
const MANAGERS: [(&str, &[&str], Needs); 5] = [
    (
        "apt-get",
        &["apt-get update", "apt-get install -y --no-install-recommends postgresql"],
        Needs::Root,
    ),
    ("dnf", &["dnf install -y postgresql-server postgresql-contrib"], Needs::Root),
    ("pacman", &["pacman -S --noconfirm postgresql"], Needs::Root),
    ("zypper", &["zypper --non-interactive install postgresql-server"], Needs::Root),
    ("brew", &["brew install postgresql@17"], Needs::Nothing),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Root,
    Nothing,
}

fn install() -> Result<()> {
    let Some((_, commands, needs)) = MANAGERS.iter().find(|(name, _, _)| exists(name)) else {
        bail!(
            "no package manager known here; install PostgreSQL {OLDEST} or newer yourself \
             and name its programs with BACKSTAY_PG_BIN"
        );
    };
    let prefix = match (needs, is_root()) {
        (Needs::Nothing, _) | (Needs::Root, true) => "",
        (Needs::Root, false) => "sudo ",
    };
    let shown: Vec<String> = commands.iter().map(|command| format!("{prefix}{command}")).collect();
    let shown = shown.join(" && ");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let allowed = if terminal {
        output::confirm(&format!("Install it now?  ({shown})"))
    } else {
        prefix.is_empty() || sudo_asks_nothing()
    };
    if !allowed {
        bail!("PostgreSQL {OLDEST} or newer is needed; install it with:\n\n    {shown}\n");
    }
    for command in *commands {
        output::say(format_args!("+ {prefix}{command}"));
        let line = format!("{prefix}{command}");
        let mut words = line.split_whitespace();
        let mut child = Command::new(words.next().unwrap_or("false"));
        child.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        // The package manager talks much; on a terminal a person may want to see it move.
        if !terminal {
            child.stdout(Stdio::null());
        }
        run::pass(&mut child).with_context(|| format!("install PostgreSQL with:\n    {shown}"))?;
    }
    Ok(())
}

fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

pub fn is_root() -> bool {
    run::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn sudo_asks_nothing() -> bool {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_version_is_read_as_distributions_print_it() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(version(debian), Some((15, 18)));
        assert_eq!(version("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(version("nothing of the kind"), None);
    }
}
