//! Every process of a demo, with what a script needs to find it: see docs/json.md.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use protocol::admin::Role;
use serde::Serialize;

use super::place;
use super::plan::{ConnectionStrings, Kind, MemberFiles, POOL, Plan};
use super::process::{Life, Process};
use super::supervise::{self, agent, postmaster};
use crate::admin;
use crate::output::Table;
use crate::picture::{Picture, role_words};

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DemoStatus {
    pub directory: PathBuf,
    pub deployment: PathBuf,
    /// The demo's supervisor is at work.
    pub running: bool,
    pub supervisor_pid: Option<i32>,
    pub pool: &'static str,
    pub profile: String,
    /// How applications connect: through the Front End.
    pub front_end: Option<ConnectionStrings>,
    /// How clients connect to the servers themselves.
    pub connection: ConnectionStrings,
    pub processes: Vec<ProcessStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProcessStatus {
    pub name: String,
    /// `server`, `witness` or `front_end`.
    pub kind: &'static str,
    pub role: Option<Role>,
    pub serving: bool,
    pub state: LifeShown,
    pub pid: Option<i32>,
    pub postmaster_state: Option<LifeShown>,
    pub postmaster_pid: Option<i32>,
    pub member_port: u16,
    pub postgres_port: Option<u16>,
    /// Where clients connect: of a server its PostgreSQL's, of a Front End its own.
    pub port: Option<u16>,
    pub data_directory: Option<PathBuf>,
    pub socket_directory: Option<PathBuf>,
    pub state_directory: PathBuf,
    pub log: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeShown {
    Running,
    Frozen,
    Gone,
}

impl LifeShown {
    fn of(process: Option<Process>) -> LifeShown {
        match process.map_or(Life::Gone, Process::life) {
            Life::Runs => LifeShown::Running,
            Life::Frozen => LifeShown::Frozen,
            Life::Gone => LifeShown::Gone,
        }
    }

    fn words(self) -> &'static str {
        match self {
            LifeShown::Running => "running",
            LifeShown::Frozen => "frozen",
            LifeShown::Gone => "gone",
        }
    }
}

/// Looks at the demo in `dir`.
pub async fn look(dir: &Path) -> anyhow::Result<DemoStatus> {
    let plan = Plan::read(dir)?;
    let deployment = plan.deployment();
    let picture = admin::picture(&deployment, deployment.pool(POOL)?).await?;
    let supervisor = supervise::running(dir);
    Ok(DemoStatus {
        directory: dir.to_path_buf(),
        deployment: dir.join(place::DEPLOYMENT_FILE),
        running: supervisor.is_some(),
        supervisor_pid: supervisor.map(|process| process.pid),
        pool: POOL,
        front_end: plan.front_end_strings(),
        connection: plan.connection_strings(),
        processes: plan.members(dir).iter().map(|member| process(member, &picture)).collect(),
        profile: plan.profile,
    })
}

fn process(member: &MemberFiles, picture: &Picture) -> ProcessStatus {
    let seen = picture.member(&member.name);
    let (agent, postmaster) = (agent(member), postmaster(member));
    let server = |path: PathBuf| (member.kind == Kind::Server).then_some(path);
    ProcessStatus {
        name: member.name.clone(),
        kind: match member.kind {
            Kind::Server => "server",
            Kind::Witness => "witness",
            Kind::FrontEnd => "front_end",
        },
        role: seen.and_then(|seen| seen.role()),
        serving: seen.and_then(|seen| seen.session.as_ref()).is_some_and(|session| session.serving),
        state: LifeShown::of(agent),
        pid: agent.map(|process| process.pid),
        postmaster_state: match member.kind {
            Kind::Server => Some(LifeShown::of(postmaster)),
            Kind::Witness | Kind::FrontEnd => None,
        },
        postmaster_pid: postmaster.map(|process| process.pid),
        member_port: member.member_port,
        postgres_port: member.postgres_port,
        port: member.front_end_port.or(member.postgres_port),
        data_directory: server(member.data_dir()),
        socket_directory: server(member.socket_dir.clone()),
        state_directory: member.state_dir(),
        log: member.log(),
    }
}

impl DemoStatus {
    pub fn text(&self) -> String {
        let mut table = Table::new(&[
            "NAME",
            "ROLE",
            "PROCESS",
            "PID",
            "POSTGRESQL",
            "PID",
            "PORT",
            "DATA DIRECTORY",
        ]);
        let number = |number: Option<i32>| number.map_or("-".to_owned(), |pid| pid.to_string());
        for one in &self.processes {
            table.row(vec![
                one.name.clone(),
                one.role_shown().to_owned(),
                one.state.words().to_owned(),
                number(one.pid),
                one.postmaster_state.map_or("-", LifeShown::words).to_owned(),
                number(one.postmaster_pid),
                one.port.map_or("-".to_owned(), |port| port.to_string()),
                one.data_directory.as_ref().map_or("-".to_owned(), |dir| dir.display().to_string()),
            ]);
        }
        let head = match self.supervisor_pid {
            Some(pid) => format!("demo in {} (process {pid})", self.directory.display()),
            None => format!("demo in {}: not running", self.directory.display()),
        };
        let forms = |strings: &ConnectionStrings| {
            format!("  {}\n  psql \"{}\"\n  {}\n", strings.uri, strings.keywords, strings.jdbc)
        };
        let front_end = self.front_end.as_ref().map(forms);
        let front_end = front_end.map(|forms| format!("connect through the Front End:\n{forms}"));
        format!(
            "{head}\n\n{table}\n{}connect to the servers themselves:\n{}",
            front_end.unwrap_or_default(),
            forms(&self.connection)
        )
    }
}

impl ProcessStatus {
    fn role_shown(&self) -> &'static str {
        match self.role {
            Some(role) => role_words(role),
            None if self.kind == "front_end" => "front end",
            None => "-",
        }
    }
}

/// The last lines of a log, for a failure that only the log explains.
pub fn tail(log: &Path, lines: usize) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}
