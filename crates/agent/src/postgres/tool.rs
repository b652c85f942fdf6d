//! Running PostgreSQL's own programs that take long, as PostgreSQL's user.
//!
//! Each runs in a process group of its own, and dropping the run kills the whole group. An agent
//! that was killed leaves its program behind, so whoever is about to touch the same directory
//! ends such orphans first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::error::Error;
use super::instance::Instance;
use super::pidfd::ProcessHandle;

/// How much of what a program says is kept for the error text.
const KEPT_LINES: usize = 8;

/// A program that runs.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not reaped yet, so the number is still its own.
        if let (Some(group), Some(_unreaped)) = (self.group, self.child.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs one of PostgreSQL's programs to its end and returns what it said last. `heard` is given
/// each line that it writes to its standard error.
pub async fn run(
    instance: &Instance,
    program: &'static str,
    arguments: &[OsString],
    mut heard: impl FnMut(&str),
) -> Result<String, Error> {
    let path = instance.program(program);
    let mut command = instance.os_user.command(&path);
    command
        .args(arguments)
        .env("PGPASSFILE", &instance.secret_file)
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child =
        tokio::process::Command::from(command).spawn().map_err(Error::io("run", &path))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let stderr = child.stderr.take();
    let mut running = Running { child, group };
    let mut said: Vec<String> = Vec::new();
    if let Some(stderr) = stderr {
        let mut lines = BufReader::new(stderr).split(b'\n');
        while let Some(line) = lines.next_segment().await.map_err(Error::io("read", &path))? {
            let line = String::from_utf8_lossy(&line);
            // A progress report ends in a carriage return on a terminal only.
            for line in line.split('\r').map(str::trim).filter(|line| !line.is_empty()) {
                heard(line);
                said.push(line.to_owned());
            }
            let surplus = said.len().saturating_sub(KEPT_LINES);
            said.drain(..surplus);
        }
    }
    let status = running.child.wait().await.map_err(Error::io("wait for", &path))?;
    let text = said.join("; ");
    if status.success() {
        Ok(text)
    } else {
        Err(Error::Program { program, status: status.to_string(), text })
    }
}

/// Flushes the volumes of these directories to disk. One call for all files is much faster than
/// what the programs do, one for each; so they are told not to.
pub async fn flush_volumes(dirs: Vec<PathBuf>) -> Result<(), Error> {
    let flushed = tokio::task::spawn_blocking(move || {
        dirs.iter().try_for_each(|dir| {
            let opened = std::fs::File::open(dir).map_err(Error::io("open", dir))?;
            rustix::fs::syncfs(&opened)
                .map_err(|error| Error::io("flush the volume of", dir)(error.into()))
        })
    });
    flushed.await.map_err(|error| Error::unexpected("flushing the data", error.to_string()))?
}

/// Ends programs that an agent which was killed has left working on `path`, and waits until they
/// are gone.
pub async fn end_orphans(path: &Path) {
    const PROGRAMS: [&str; 2] = ["pg_rewind", "pg_basebackup"];
    let needle = path.display().to_string();
    let works_on = |pid: u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        PROGRAMS.contains(&name.trim())
            && line.split('\0').any(|word| word.rsplit('=').next() == Some(&needle))
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| works_on(*pid)) {
        let Ok(process) = ProcessHandle::open(pid) else { continue };
        // The handle is open: what /proc says now is about this very process.
        if works_on(pid) && process.signal(Signal::KILL).is_ok() {
            tracing::info!(pid, "a program that a former agent left behind is ended");
            process.gone().await;
        }
    }
}
