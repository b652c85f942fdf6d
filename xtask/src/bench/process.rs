//! Programs that run beside a benchmark and end with it, and what the kernel says about them.
//!
//! Each is started so that the kernel ends it when this chore dies, whatever of; and a Ctrl-C is
//! noticed between two looks, so that everything is stopped in order. Linux only: the figures come
//! from `/proc`.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{output, postgres, run};

/// As whom servers run that refuse to run as root.
const USER: &str = "postgres";
const LOOK: Duration = Duration::from_millis(5);
/// Between asking a program to end and killing it.
const GRACE: Duration = Duration::from_secs(5);
/// Files that a program has open for other things than clients: server connections, for one.
const BESIDE_CLIENTS: u32 = 1000;
/// What `utime` and `stime` count on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whether somebody pressed Ctrl-C.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on SIGINT and SIGTERM do not end this process by themselves.
    pub fn watch() -> Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("watch for Ctrl-C")?;
        }
        Ok(Interrupt(flag))
    }

    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Looks whether it `is_so`, again and again until `limit`; gives the last answer.
    pub fn wait(&self, limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
        let watch = crate::clock::Stopwatch::start();
        loop {
            self.check()?;
            if is_so()? {
                return Ok(true);
            }
            if watch.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }

    pub fn pause(&self, length: Duration) -> Result<()> {
        self.wait(length, || Ok(false)).map(drop)
    }
}

/// As whom a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum As {
    Ourselves,
    /// Never as root.
    Unprivileged,
}

/// A program that the kernel ends with this process. It is replaced by the program itself, so
/// that the id of the child is the program's.
pub fn bound(program: &Path, user: As, files: Option<&str>) -> Command {
    let mut words: Vec<String> = Vec::new();
    if let Some(files) = files {
        words.extend(["prlimit".to_owned(), format!("--nofile={files}"), "--".to_owned()]);
    }
    words.extend(["setpriv", "--pdeathsig", "TERM"].map(str::to_owned));
    match user {
        As::Ourselves => {}
        As::Unprivileged if postgres::is_root() => {
            let groups = ["--reuid", USER, "--regid", USER, "--init-groups"];
            words.extend(groups.map(str::to_owned));
        }
        As::Unprivileged => {}
    }
    words.push("--".to_owned());
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg(program).stdin(Stdio::null());
    command
}

/// Gives a file or directory to whom `As::Unprivileged` is.
pub fn give(path: &Path) -> Result<()> {
    if postgres::is_root() {
        run::pass(Command::new("chown").arg(USER).arg(path))?;
    }
    Ok(())
}

/// What `prlimit` has to set so that a program can have so many clients; `None`: nothing.
pub fn files_for(clients: u32) -> Result<Option<String>> {
    let limits = read(Path::new("/proc/self/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let line = line.context("read the limit of open files in /proc/self/limits")?;
    Ok(raised(line, clients + BESIDE_CLIENTS))
}

/// The soft limit alone, which needs no rights, unless the hard one is too low as well.
fn raised(limits: &str, needed: u32) -> Option<String> {
    // A limit that is no number is no limit.
    let mut limits =
        limits.split_whitespace().map(|limit| limit.parse::<u32>().unwrap_or(u32::MAX));
    let (soft, hard) = (limits.next()?, limits.next()?);
    match needed {
        _ if needed <= soft => None,
        _ if needed <= hard => Some(format!("{needed}:")),
        _ => Some(format!("{needed}:{needed}")),
    }
}

/// A program in the background, ended on drop.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts it; what it says goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Running> {
        let file = || std::fs::OpenOptions::new().create(true).append(true).open(log);
        let (out, err) = (file(), file());
        command.stdout(out.with_context(|| format!("open {}", log.display()))?);
        command.stderr(err.with_context(|| format!("open {}", log.display()))?);
        let shown = run::line(command);
        let child = command.spawn().with_context(|| format!("start `{shown}`"))?;
        Ok(Running { name: name.to_owned(), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// It ended by itself.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("look after {}", self.name))? {
            Some(status) => bail!("{} ended by itself ({status})", self.name),
            None => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = self.child.id().to_string();
        run::read(Command::new("kill").args(["-TERM", &pid]))?;
        let watch = crate::clock::Stopwatch::start();
        while watch.elapsed() < GRACE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop().with_context(|| format!("stop {}", self.name)) {
            output::failed(&error);
        }
    }
}

/// The end of a log, for an error.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    format!("the end of its log:\n{}", lines[from..].join("\n"))
}

/// Runs a program that prints little to its end, or until Ctrl-C; gives its standard output.
pub fn read_bound(command: &mut Command, interrupt: &Interrupt) -> Result<String> {
    let shown = run::line(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("wait for `{shown}`"))? {
            break status;
        }
        if let Err(error) = interrupt.check() {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("end `{shown}`"))?;
            return Err(error);
        }
        std::thread::sleep(LOOK);
    };
    let (mut out, mut said) = (String::new(), String::new());
    let streams = (child.stdout.take(), child.stderr.take());
    if let (Some(mut stdout), Some(mut stderr)) = streams {
        stdout.read_to_string(&mut out).with_context(|| format!("read what `{shown}` printed"))?;
        stderr.read_to_string(&mut said).with_context(|| format!("read what `{shown}` said"))?;
    }
    // Ctrl-C on a terminal reaches the program as well.
    interrupt.check()?;
    if !status.success() {
        bail!("`{shown}` failed ({status}): {}", said.trim());
    }
    Ok(out)
}

/// The processor time that a process has used, all its threads together.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let text = read(Path::new(&format!("/proc/{pid}/stat")))?;
    let ticks = ticks(&text).with_context(|| format!("read the times in /proc/{pid}/stat"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// `utime` and `stime`, the 14th and 15th field; the second may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS")
}

/// The most that its resident memory has been.
#[cfg(feature = "witness")]
pub fn peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM")
}

fn memory(pid: u32, what: &str) -> Result<u64> {
    let text = read(Path::new(&format!("/proc/{pid}/status")))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("read {what} in /proc/{pid}/status"))? * 1024)
}

/// How many connections to a port of this machine are established.
pub fn connections_to(port: u16) -> Result<usize> {
    let text = read(Path::new("/proc/net/tcp"))?;
    Ok(count_connections(&text, port))
}

/// Whether somebody listens on a port of this machine.
#[cfg(feature = "witness")]
pub fn listens(port: u16) -> Result<bool> {
    let local = format!(":{port:04X}");
    let text = read(Path::new("/proc/net/tcp"))?;
    Ok(text.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(words[..], [_, here, _, "0A"] if here.ends_with(&local))
    }))
}

fn count_connections(table: &str, port: u16) -> usize {
    let local = format!(":{port:04X}");
    let is_ours = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let here = words.next().is_some_and(|address| address.ends_with(&local));
        here && words.nth(1) == Some("01")
    };
    table.lines().filter(is_ours).count()
}

/// Busy and whole time of all processors since the start of the machine, in ticks.
pub fn machine_ticks() -> Result<(u64, u64)> {
    let text = read(Path::new("/proc/stat"))?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // Guests are counted in user time already.
    let all: u64 = fields.iter().take(8).sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{count_connections, raised, ticks};

    #[test]
    fn the_limit_of_files_is_raised_only_when_it_is_too_low() {
        assert_eq!(raised("  1024   4096   files", 1000), None);
        assert_eq!(raised("  1024   4096   files", 2000).as_deref(), Some("2000:"));
        assert_eq!(raised("  1024   4096   files", 5000).as_deref(), Some("5000:5000"));
        assert_eq!(raised("  1024   unlimited   files", 5000).as_deref(), Some("5000:"));
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn only_established_connections_of_the_port_count() {
        let table = "  sl  local_address rem_address   st
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000
   1: 0100007F:1538 0100007F:C000 01 00000000:00000000
   2: 0100007F:C000 0100007F:1538 01 00000000:00000000
   3: 0100007F:1538 0100007F:C001 06 00000000:00000000
";
        assert_eq!(count_connections(table, 0x1538), 1);
    }
}
