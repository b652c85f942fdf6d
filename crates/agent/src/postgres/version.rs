//! Which PostgreSQL this is, and whether Backstay may run it.
//!
//! Minor versions with the start-up race of synchronous replication are refused: after a start
//! their backends would, for a moment, not wait for the mirror (fixed in spring 2025).

use std::fmt;
use std::path::Path;
use std::process::Command;

use super::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Asks the programs in `bin_dir`.
    pub fn of_programs(bin_dir: &Path) -> Result<Version, Error> {
        for name in ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"] {
            if !bin_dir.join(name).is_file() {
                return Err(Error::refused(
                    format!("there is no program {name} in {}", bin_dir.display()),
                    "install PostgreSQL 14 to 18 with its server programs, or set pg_bin_dir",
                ));
            }
        }
        let program = bin_dir.join("postgres");
        let out =
            Command::new(&program).arg("--version").output().map_err(Error::io("run", &program))?;
        let text = String::from_utf8_lossy(&out.stdout);
        Version::parse(&text).ok_or_else(|| {
            Error::refused(
                format!("{} tells no version: {:?}", program.display(), text.trim()),
                "point pg_bin_dir to a released PostgreSQL 14 to 18",
            )
        })
    }

    /// From the output of `postgres --version`, such as `postgres (PostgreSQL) 15.18 (Debian)`.
    fn parse(text: &str) -> Option<Version> {
        let number =
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some(Version { major, minor })
    }

    /// The major version that a data directory was made by; `None` if it has no such mark.
    pub fn of_data(data_dir: &Path) -> Option<u32> {
        std::fs::read_to_string(data_dir.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    pub fn check(self) -> Result<Version, Error> {
        let least = match self.major {
            14 => 18,
            15 => 13,
            16 => 9,
            17 => 5,
            18 => 0,
            _ => {
                return Err(Error::refused(
                    format!("PostgreSQL {self} is not supported"),
                    "use PostgreSQL 14, 15, 16, 17 or 18",
                ));
            }
        };
        if self.minor < least {
            return Err(Error::refused(
                format!(
                    "PostgreSQL {self} may acknowledge commits without its mirror after a start"
                ),
                format!("update to {}.{least} or newer", self.major),
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_distributions_print() {
        let parsed = Version::parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(parsed, Some(Version { major: 15, minor: 18 }));
        assert_eq!(Version::parse("postgres (PostgreSQL) 19devel"), None);
    }

    #[test]
    fn versions_with_the_start_up_race_are_refused() {
        for (major, minor, fine) in
            [(13, 20, false), (14, 17, false), (14, 18, true), (15, 12, false), (15, 13, true)]
        {
            assert_eq!(Version { major, minor }.check().is_ok(), fine, "{major}.{minor}");
        }
        for (major, minor, fine) in [
            (16, 8, false),
            (16, 9, true),
            (17, 4, false),
            (17, 5, true),
            (18, 0, true),
            (19, 1, false),
        ] {
            assert_eq!(Version { major, minor }.check().is_ok(), fine, "{major}.{minor}");
        }
    }
}
