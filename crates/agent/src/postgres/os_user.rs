//! The operating system's user that PostgreSQL runs as.
//!
//! PostgreSQL refuses to run as root, so an agent that is root starts it, and every program that
//! touches the data directory, as somebody else. `setpriv` does that, because it also takes on
//! the user's further groups (a key file may be readable by one of them only).

use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The agent itself runs as somebody else, and so has to change to this user.
    changes: bool,
}

impl OsUser {
    /// Looks `name` up; the agent must be root or that user itself.
    pub fn find(name: &str) -> Result<OsUser, Error> {
        let number = |flag: &str| -> Result<u32, Error> {
            let out = Command::new("id")
                .args([flag, "--", name])
                .output()
                .map_err(Error::io("run", Path::new("id")))?;
            String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|_| {
                Error::refused(
                    format!("there is no operating system user {name:?}"),
                    "create it, or set os_user to the user that shall own the data directory",
                )
            })
        };
        let (uid, gid) = (number("-u")?, number("-g")?);
        let own = rustix::process::geteuid().as_raw();
        if uid == 0 {
            return Err(Error::refused(
                "PostgreSQL does not run as root",
                "set os_user to an ordinary user, such as postgres",
            ));
        }
        if own != 0 && own != uid {
            return Err(Error::refused(
                format!("this process may not become {name:?}"),
                format!("run it as root or as {name}"),
            ));
        }
        Ok(OsUser { name: name.to_owned(), uid, gid, changes: own != uid })
    }

    /// Whoever this process runs as, under another name.
    #[cfg(test)]
    pub fn unchanged(name: &str) -> OsUser {
        OsUser { name: name.to_owned(), uid: 0, gid: 0, changes: false }
    }

    /// A command that will run as this user, in a process group of its own so that no signal of a
    /// terminal reaches it. The process id is that of the program itself.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = if self.changes {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", self.uid))
                .arg(format!("--regid={}", self.gid))
                .args(["--init-groups", "--"])
                .arg(program.as_ref());
            command
        } else {
            Command::new(program)
        };
        command.process_group(0).stdin(std::process::Stdio::null());
        // Nothing of the agent's own environment may change how PostgreSQL's programs connect.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C.UTF-8").env("LC_MESSAGES", "C");
        command
    }

    /// Gives `path` to this user.
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        if !self.changes {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change the owner of", path))
    }
}
