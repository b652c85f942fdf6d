//! The processes of one PostgreSQL, watched and signalled through process handles.
//!
//! A handle sees the end of its process at once and can never hit another process that was given
//! the same number. PostgreSQL's children each make a session of their own, so what belongs to a
//! server is found by its working directory, which is the data directory.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::access;
use super::error::Error;
use super::instance::Instance;
use super::pidfd::ProcessHandle;

/// How long an immediate shutdown may take before the rest is killed.
const QUIT_GRACE: Duration = Duration::from_millis(100);

/// The postmaster.
#[derive(Debug)]
pub struct Postmaster {
    pid: u32,
    process: ProcessHandle,
    /// Present if this very agent started it.
    child: Option<Child>,
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.reap();
    }
}

impl Postmaster {
    /// Starts `postgres`. It goes on when the agent ends.
    pub fn spawn(
        instance: &Instance,
        settings: &[(&'static str, String)],
    ) -> Result<Postmaster, Error> {
        let program = instance.program("postgres");
        let log = instance.log_file();
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .map_err(Error::io("open", &log))?;
        access::tighten(&log)?;
        instance.os_user.own(&log)?;
        let also = out.try_clone().map_err(Error::io("open", &log))?;
        let mut command = instance.os_user.command(&program);
        command.arg("-D").arg(&instance.data_dir);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.current_dir("/").stdout(out).stderr(also);
        let mut child = command.spawn().map_err(Error::io("start", &program))?;
        let pid = child.id();
        match ProcessHandle::open(pid) {
            Ok(process) => Ok(Postmaster { pid, process, child: Some(child) }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::Io { doing: "get a handle on PostgreSQL".to_owned(), source: error })
            }
        }
    }

    /// The postmaster that runs on the data directory, if there is one.
    pub fn adopt(instance: &Instance) -> Option<Postmaster> {
        let text = fs::read_to_string(instance.data_dir.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        let process = ProcessHandle::open(pid).ok()?;
        // The handle is open: what /proc says now is about this very process.
        works_in(pid, &data_dir(instance)).then_some(Postmaster { pid, process, child: None })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub async fn exited(&self) {
        self.process.gone().await;
    }

    pub fn signal(&self, signal: Signal) {
        signal_to(&self.process, signal);
    }

    /// The program that it runs.
    pub fn program(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.pid())).ok()
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.try_wait();
        }
    }
}

fn data_dir(instance: &Instance) -> PathBuf {
    fs::canonicalize(&instance.data_dir).unwrap_or_else(|_| instance.data_dir.clone())
}

fn signal_to(process: &ProcessHandle, signal: Signal) {
    if let Err(error) = process.signal(signal) {
        tracing::warn!(%error, "a process of PostgreSQL takes no signal");
    }
}

fn works_in(pid: u32, data_dir: &Path) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(name.trim(), "postgres" | "postmaster")
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_dir)
}

/// Every process of the server, the postmaster included.
pub fn all_of(instance: &Instance) -> Vec<ProcessHandle> {
    let data_dir = data_dir(instance);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| works_in(*pid, &data_dir))
        .filter_map(|pid| ProcessHandle::open(pid).ok())
        .collect()
}

/// Immediate shutdown: returns when no process of the server is left. Also ends what a postmaster
/// that died has left behind.
pub async fn stop_at_once(instance: &Instance, postmaster: Option<&Postmaster>) {
    if let Some(postmaster) = postmaster {
        postmaster.signal(Signal::QUIT);
        let rest = all_of(instance);
        let gone = async {
            postmaster.exited().await;
            for process in &rest {
                process.gone().await;
            }
        };
        if tokio::time::timeout(QUIT_GRACE, gone).await.is_err() {
            postmaster.signal(Signal::KILL);
            postmaster.exited().await;
        }
    }
    kill_all(instance).await;
}

async fn kill_all(instance: &Instance) {
    loop {
        let rest = all_of(instance);
        if rest.is_empty() {
            return;
        }
        for process in &rest {
            signal_to(process, Signal::KILL);
        }
        for process in &rest {
            process.gone().await;
        }
        // A zombie that was not reaped yet has no working directory, so this ends.
    }
}

/// Makes this process the parent of whatever its children leave behind, so that no zombie of a
/// dead server looks alive to PostgreSQL's programs.
pub fn become_subreaper() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "zombies of PostgreSQL may stay");
    }
}

/// Takes away dead servers' children that have become ours. Never touches a living process, and
/// leaves other children of this process to whoever started them.
pub fn reap_orphans() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // pid (name) state parent ...; the name may contain anything.
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let mut words = tail.split_whitespace();
        let (state, parent) = (words.next(), words.next());
        if head.ends_with("(postgres") && state == Some("Z") && parent == Some(&own.to_string()) {
            let options = rustix::process::WaitOptions::NOHANG;
            let _ = rustix::process::waitpid(Pid::from_raw(pid), options);
        }
    }
}
