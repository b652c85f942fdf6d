//! Makes sure that PostgreSQL is on this machine, for the tests and the demonstration.
//!
//! It is installed by the system's own package manager or not at all. On a terminal the person is
//! asked; elsewhere (continuous integration) it is done when it can be done without a password;
//! otherwise the exact command is printed. `BACKSTAY_PG_BIN` names other programs to use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::prepare::{self, Needs, Step};
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

fn install() -> Result<()> {
    let Some((_, commands, needs)) = MANAGERS.iter().find(|(name, _, _)| prepare::exists(name))
    else {
        bail!(
            "no package manager known here; install PostgreSQL {OLDEST} or newer yourself \
             and name its programs with BACKSTAY_PG_BIN"
        );
    };
    let steps: Vec<Step> = commands.iter().map(|line| Step::new(*line, *needs)).collect();
    prepare::install(&format!("PostgreSQL {OLDEST} or newer"), &steps)
}

pub fn is_root() -> bool {
    run::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
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
