//! The demo's processes: starting, adopting, ending them, and answering the other commands.
//!
//! Whatever was killed stays dead until somebody asks for its restart, because killing is what the
//! demo is for. The supervisor is a child subreaper: an agent that is killed leaves its PostgreSQL
//! behind, and only a reaper that is awake makes a dead postmaster disappear at once.
//! Pid files hold a start time beside the number, so that a number used again is never signalled.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, WaitOptions};

use super::plan::{HOST, Kind, MemberFiles, Plan};
use super::process::{self, Process};
use crate::clock;
use crate::output::hinted;

const LOCK_FILE: &str = "demo.lock";
const PID_FILE: &str = "supervisor.pid";
/// How long the agents may take to shut their PostgreSQL servers down in good order.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// How long a port may stay taken by what was just killed.
const PORT_DEADLINE: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The one supervisor of a demo, for as long as it holds the lock.
#[derive(Debug)]
pub struct Supervisor {
    pub dir: PathBuf,
    pub members: Vec<MemberFiles>,
    /// Asked for at the start: later another build may have taken its place.
    program: PathBuf,
    _lock: File,
}

/// The supervisor of the demo in `dir`, if one is at work.
pub fn running(dir: &Path) -> Option<Process> {
    Process::read(&dir.join(PID_FILE))
}

impl Supervisor {
    /// Takes the demo over; refused while another supervisor has it.
    pub fn take(dir: &Path) -> anyhow::Result<Supervisor> {
        let file = dir.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .with_context(|| format!("open {}", file.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(hinted(
                format!("a demo runs in {} already", dir.display()),
                "look at it: backstay demo status\nend it: backstay demo stop",
            ));
        }
        let me = Process::with_pid(std::process::id().cast_signed())
            .context("find this process in /proc")?;
        me.write(&dir.join(PID_FILE))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("become a child subreaper")?;
        let program = std::env::current_exe().context("find this program")?;
        Ok(Supervisor { dir: dir.to_path_buf(), members: Vec::new(), program, _lock: lock })
    }

    /// Starts every member that does not run; one left by an earlier supervisor is adopted.
    pub async fn start(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.members = plan.members(&self.dir);
        for member in &self.members {
            if agent(member).is_none() {
                launch(&self.program, member).await?;
            }
        }
        Ok(())
    }

    /// Starts a member again. A process of it that still runs is ended first, as by a power cut.
    pub async fn restart(&self, name: &str) -> anyhow::Result<()> {
        let member = self
            .members
            .iter()
            .find(|member| member.name == name)
            .ok_or_else(|| hinted(format!("the demo has no member {name:?}"), self.names()))?;
        self.end_by_force(&family(member)).await?;
        launch(&self.program, member).await
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        format!("its members are: {}", names.join(", "))
    }

    /// Collects every child that has ended, our own and those that were left to us.
    pub fn reap(&self) {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }

    /// Ends everything: in good order first, then by force.
    pub async fn stop(&self) -> anyhow::Result<()> {
        for process in self.members.iter().flat_map(family) {
            process.signal(Signal::CONT)?;
        }
        for member in &self.members {
            match agent(member) {
                Some(agent) => agent.signal(Signal::TERM)?,
                None => stop_orphan(member)?,
            }
        }
        let deadline = clock::now() + STOP_DEADLINE;
        while clock::now() < deadline && self.members.iter().any(is_alive) {
            tokio::time::sleep(LOOK_PAUSE).await;
            self.reap();
            for member in self.members.iter().filter(|member| agent(member).is_none()) {
                stop_orphan(member)?;
            }
        }
        let mut left: Vec<Process> = self.members.iter().flat_map(family).collect();
        left.extend(self.inherited());
        self.end_by_force(&left).await?;
        let _ = fs::remove_file(self.dir.join(PID_FILE));
        Ok(())
    }

    /// What ended processes have left to this reaper.
    fn inherited(&self) -> Vec<Process> {
        let me = Process::with_pid(std::process::id().cast_signed());
        let family = process::with_descendants(&me.into_iter().collect::<Vec<_>>());
        family.into_iter().filter(|process| Some(*process) != me).collect()
    }

    async fn end_by_force(&self, left: &[Process]) -> anyhow::Result<()> {
        kill_all(left)?;
        let deadline = clock::now() + STOP_DEADLINE;
        while left.iter().any(|process| process.is_alive()) {
            anyhow::ensure!(clock::now() < deadline, "processes of the demo do not end: {left:?}");
            tokio::time::sleep(LOOK_PAUSE).await;
            self.reap();
        }
        Ok(())
    }
}

/// The member's own process: agent, witness or Front End.
pub fn agent(member: &MemberFiles) -> Option<Process> {
    Process::read(&member.pid_file())
}

pub fn postmaster(member: &MemberFiles) -> Option<Process> {
    match member.kind {
        Kind::Server => process::postmaster(&member.data_dir()),
        Kind::Witness | Kind::FrontEnd => None,
    }
}

/// Every process of a member: its agent, its PostgreSQL, and all that they have started.
pub fn family(member: &MemberFiles) -> Vec<Process> {
    let mut roots: Vec<Process> = agent(member).into_iter().chain(postmaster(member)).collect();
    if member.kind == Kind::Server {
        roots.extend(process::started_on(&member.data_dir()));
    }
    process::with_descendants(&roots)
}

fn is_alive(member: &MemberFiles) -> bool {
    agent(member).is_some() || postmaster(member).is_some()
}

pub fn kill_all(processes: &[Process]) -> anyhow::Result<()> {
    processes.iter().try_for_each(|process| process.signal(Signal::KILL))
}

/// A PostgreSQL whose agent is dead: nobody but us will stop it. Immediate shutdown is always safe.
fn stop_orphan(member: &MemberFiles) -> anyhow::Result<()> {
    match postmaster(member) {
        Some(postmaster) => postmaster.signal(Signal::QUIT),
        None => Ok(()),
    }
}

async fn launch(program: &Path, member: &MemberFiles) -> anyhow::Result<()> {
    wait_for_ports(member).await?;
    let noun = match member.kind {
        Kind::Server => "server",
        Kind::Witness => "witness",
        Kind::FrontEnd => "front-end",
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(member.log())
        .with_context(|| format!("open {}", member.log().display()))?;
    let again = log.try_clone().context("share the log")?;
    let child = Command::new(program)
        .arg(noun)
        .arg("--config")
        .arg(member.config())
        .env_remove("BACKSTAY_DEPLOYMENT")
        .current_dir(&member.home)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", member.name))?;
    let started = Process::with_pid(child.id().cast_signed());
    match started {
        Some(process) => process.write(&member.pid_file()),
        None => Err(hinted(
            format!("{} ended as soon as it was started", member.name),
            format!("its log says why: {}", member.log().display()),
        )),
    }
}

/// A port that somebody else has taken is better named here than in a log. A process that has just
/// been killed may hold its port for another moment.
async fn wait_for_ports(member: &MemberFiles) -> anyhow::Result<()> {
    let deadline = clock::now() + PORT_DEADLINE;
    loop {
        match check_ports(member) {
            Err(_) if clock::now() < deadline => tokio::time::sleep(LOOK_PAUSE).await,
            outcome => return outcome,
        }
    }
}

fn check_ports(member: &MemberFiles) -> anyhow::Result<()> {
    let postgres_port = match postmaster(member) {
        Some(_) => None,
        None => member.postgres_port,
    };
    let ports = [Some(member.member_port), postgres_port, member.front_end_port];
    for port in ports.into_iter().flatten() {
        TcpListener::bind((HOST, port)).map_err(|error| {
            hinted(
                format!("port {port} of {} is taken by another program ({error})", member.name),
                "end that program, or start a demo with other ports: backstay demo --dir DIR",
            )
        })?;
    }
    Ok(())
}
