//! Processes by identity: a process id together with its start time.
//!
//! Process ids are used again. Whoever wants to end a process must be sure that it is still the
//! one that was meant: a signal goes through a process handle that was opened first and checked
//! afterwards, so that it can never reach a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, whatever becomes of its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after the start of the machine.
    started: u64,
}

/// What the kernel shows of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Runs,
    Frozen,
    Gone,
}

impl Process {
    /// The process that has this number now.
    pub fn with_pid(pid: i32) -> Option<Process> {
        let stat = stat(pid)?;
        (!is_dead(stat.state)).then_some(Process { pid, started: stat.started })
    }

    pub fn life(self) -> Life {
        match stat(self.pid) {
            Some(stat) if stat.started != self.started || is_dead(stat.state) => Life::Gone,
            Some(stat) if stat.state == 'T' => Life::Frozen,
            Some(_) => Life::Runs,
            None => Life::Gone,
        }
    }

    pub fn is_alive(self) -> bool {
        self.life() != Life::Gone
    }

    /// Sends a signal; that the process is gone already is no error.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("open a handle on process {pid}"));
            }
        };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signal process {pid}")),
        }
    }

    /// The process that `file` names, if it still lives.
    pub fn read(file: &Path) -> Option<Process> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let started = words.next()?.parse().ok()?;
        let process = Process { pid, started };
        process.is_alive().then_some(process)
    }

    /// Writes this process down, whole or not at all.
    pub fn write(self, file: &Path) -> anyhow::Result<()> {
        let fresh = file.with_extension("new");
        fs::write(&fresh, format!("{} {}\n", self.pid, self.started))
            .and_then(|()| fs::rename(&fresh, file))
            .with_context(|| format!("write {}", file.display()))
    }
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name stands in parentheses and may hold anything, so fields count from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The postmaster that runs on `data_dir`, if any.
pub fn postmaster(data_dir: &Path) -> Option<Process> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let process = Process::with_pid(text.lines().next()?.trim().parse().ok()?)?;
    let works_in = fs::read_link(format!("/proc/{}/cwd", process.pid)).ok()?;
    (works_in == data_dir.canonicalize().ok()?).then_some(process)
}

/// Every process that was started on `data_dir`: a postmaster shows nothing else of itself in its
/// first moments.
pub fn started_on(data_dir: &Path) -> Vec<Process> {
    let data_dir = data_dir.as_os_str().as_encoded_bytes();
    let works_there = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments.windows(2).any(|pair| pair[0] == b"-D" && pair[1] == data_dir)
    };
    pids().filter(works_there).filter_map(Process::with_pid).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
}

/// `roots` and all that descends from them, parents before children.
pub fn with_descendants(roots: &[Process]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid).filter(|stat| !is_dead(stat.state)) {
            let process = Process { pid, started: stat.started };
            children.entry(stat.parent).or_default().push(process);
        }
    }
    let mut family: Vec<Process> = Vec::new();
    let mut known: BTreeSet<i32> = BTreeSet::new();
    let mut waiting: Vec<Process> = roots.iter().rev().copied().collect();
    while let Some(process) = waiting.pop() {
        if known.insert(process.pid) {
            family.push(process);
            waiting.extend(children.remove(&process.pid).into_iter().flatten());
        }
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (post) gres (x) S 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 9912 1 1";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', parent: 3, started: 9912 }));
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let me = Process::with_pid(std::process::id().cast_signed()).unwrap();
        assert_eq!(me.life(), Life::Runs);
        let earlier = Process { started: me.started - 1, ..me };
        assert_eq!(earlier.life(), Life::Gone);
        earlier.signal(Signal::KILL).unwrap();
        assert!(me.is_alive());
    }

    #[test]
    fn a_killed_child_is_gone_with_its_own_children() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let root = Process::with_pid(shell.id().cast_signed()).unwrap();
        let deadline = crate::clock::now() + std::time::Duration::from_secs(10);
        while with_descendants(&[root]).len() < 2 {
            assert!(crate::clock::now() < deadline, "the shell has no child");
        }
        for process in with_descendants(&[root]) {
            process.signal(Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(root.life(), Life::Gone);
    }
}
