//! The programs that a benchmark compares with, from the system's own packages.
//!
//! As with PostgreSQL, a person on a terminal is asked; elsewhere it is done when it takes no
//! password, and otherwise the exact command is printed. What the packages start as services is
//! stopped again: benchmarks run instances of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{output, postgres, run};

/// Where servers lie that are not meant for everybody's search path.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Package managers whose packages are named like the programs.
const MANAGERS: [(&str, &str); 4] = [
    ("apt-get", "apt-get install -y --no-install-recommends"),
    ("dnf", "dnf install -y"),
    ("pacman", "pacman -S --noconfirm"),
    ("zypper", "zypper --non-interactive install"),
];

/// The program, installed if it is not here.
pub fn prepare(name: &str) -> Result<PathBuf> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    output::say(format_args!("{name} is not on this machine yet; it is compared with."));
    install(name)?;
    find(name).with_context(|| format!("{name} was installed, but its program was not found"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

fn install(name: &str) -> Result<()> {
    let Some((_, command)) = MANAGERS.iter().find(|(manager, _)| find(manager).is_some()) else {
        bail!("no package manager known here; install {name} yourself, or leave it out: --targets");
    };
    let prefix = if postgres::is_root() { "" } else { "sudo " };
    let line = format!("{prefix}{command} {name}");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let allowed = if terminal {
        output::confirm(&format!("Install it now?  ({line})"))
    } else {
        prefix.is_empty() || sudo_asks_nothing()
    };
    if !allowed {
        bail!("install it with the following, or leave it out (--targets):\n\n    {line}\n");
    }
    output::say(format_args!("+ {line}"));
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().unwrap_or_default());
    child.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    if !terminal {
        child.stdout(Stdio::null());
    }
    run::pass(&mut child).with_context(|| format!("install with:\n    {line}"))?;
    stop_service(prefix, name)
}

/// Nobody asked for a service.
fn stop_service(prefix: &str, name: &str) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    let line = format!("{prefix}systemctl disable --now --quiet {name}");
    let mut words = line.split_whitespace();
    run::pass(Command::new(words.next().unwrap_or_default()).args(words))
}

fn sudo_asks_nothing() -> bool {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}
