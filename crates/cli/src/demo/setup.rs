//! What a demo needs before its processes can start: directories, configuration, deployment file;
//! and afterwards, once: the pool itself.
//!
//! The configuration is written at each start, so that a newer Backstay continues an older demo.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::config::{
    DatabaseEntry, MemberAddress, PartnerAddress, ServerFile, ServerPool, Times, WitnessFile,
    WitnessPool,
};
use agent::postgres::OsUser;
use anyhow::Context as _;
use serde::Serialize;
use tokio_postgres::NoTls;

use super::front_end;
use super::plan::{DATABASE, HOST, Kind, MemberFiles, POOL, Plan, ServerPlan, new_password};
use super::supervise::agent;
use super::{place, status};
use crate::admin;
use crate::clock;
use crate::command::pool::{Scope, make_session};
use crate::deployment::Deployment;
use crate::output::hinted;
use crate::picture::Picture;

const PASSWORD_FILE: &str = "demo.password";
/// Of the role that Front Ends look up users with: servers and Front End read the same file.
const FRONT_END_PASSWORD_FILE: &str = "front_end.password";
const SECRET_FILE: &str = "secret";
/// Making a database cluster and copying it takes seconds; a slow disk may take minutes.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// A pool that exists needs an election, and perhaps the replay of its WAL.
const AGAIN_DEADLINE: Duration = Duration::from_secs(90);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const MIRROR_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Writes every file that the processes read.
pub fn files(dir: &Path, plan: &Plan) -> anyhow::Result<()> {
    let os_user = match place::postgres_user() {
        Some(name) => Some(OsUser::find(name).map_err(|error| {
            hinted(
                format!("PostgreSQL cannot run as user {name}: {error}"),
                "install PostgreSQL (make demo does), or start the demo as an ordinary user",
            )
        })?),
        None => None,
    };
    write_private(&dir.join(PASSWORD_FILE), &plan.password)?;
    if !front_end_password_file(dir).exists() {
        write_private(&front_end_password_file(dir), &new_password()?)?;
    }
    let secret_dir = dir.join("pool");
    make_dir(&secret_dir, 0o755, os_user.as_ref())?;
    for (index, member) in plan.members(dir).iter().enumerate() {
        make_dir(&member.home, 0o755, None)?;
        make_dir(&member.state_dir(), 0o700, None)?;
        match member.kind {
            Kind::Server => {
                make_dir(&member.postgres_home(), 0o755, os_user.as_ref())?;
                make_dir(&member.socket_dir, 0o755, os_user.as_ref())?;
                write_toml(&member.config(), &server(dir, plan, &plan.servers[index], member))?;
            }
            Kind::Witness => write_toml(&member.config(), &witness(plan, member))?,
            Kind::FrontEnd => front_end::files(dir, plan, member)?,
        }
    }
    write_toml(&dir.join(place::DEPLOYMENT_FILE), &plan.deployment())
}

fn make_dir(path: &Path, mode: u32, owner: Option<&OsUser>) -> anyhow::Result<()> {
    if !path.exists() {
        DirBuilder::new()
            .mode(mode)
            .recursive(true)
            .create(path)
            .with_context(|| format!("make the directory {}", path.display()))?;
    }
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("give {} to {}", path.display(), owner.name))?;
    }
    Ok(())
}

pub fn front_end_password_file(dir: &Path) -> PathBuf {
    dir.join(FRONT_END_PASSWORD_FILE)
}

pub fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", file.display()))
}

pub fn write_toml(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = toml::to_string(value).with_context(|| format!("compose {}", file.display()))?;
    let fresh = file.with_extension("toml.new");
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, file))
        .with_context(|| format!("write {}", file.display()))
}

fn partner(plan: &ServerPlan) -> PartnerAddress {
    PartnerAddress {
        name: plan.name.clone(),
        host: HOST.to_string(),
        port: plan.member_port,
        postgres_port: plan.postgres_port,
    }
}

fn address(name: &str, port: u16) -> MemberAddress {
    MemberAddress { name: name.to_owned(), host: HOST.to_string(), port }
}

fn server(dir: &Path, plan: &Plan, own: &ServerPlan, member: &MemberFiles) -> ServerFile {
    let pool = ServerPool {
        name: POOL.to_owned(),
        profile: plan.profile.clone(),
        data_dir: member.data_dir(),
        files_dir: member.files_dir(),
        socket_dir: member.socket_dir.clone(),
        postgres_listen: HOST.to_string(),
        secret_file: Some(dir.join("pool").join(SECRET_FILE)),
        locale: None,
        slot_wal_keep: None,
        client_access: Vec::new(),
        first: Some(partner(&plan.servers[0])),
        second: Some(partner(&plan.servers[1])),
        converge: false,
        witness: plan.witness.as_ref().map(|wit| address(&wit.name, wit.member_port)),
        spare_witnesses: Vec::new(),
        times: Times::default(),
        settings: [("shared_buffers", "32MB"), ("max_connections", "200")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        databases: vec![DatabaseEntry {
            name: DATABASE.to_owned(),
            owner: DATABASE.to_owned(),
            password_file: Some(dir.join(PASSWORD_FILE)),
        }],
        front_ends: Some(plan.front_end.iter().map(|it| it.name.clone()).collect()),
        front_end_password_file: Some(front_end_password_file(dir)),
    };
    ServerFile {
        name: own.name.clone(),
        deployment: plan.deployment().name,
        listen: format!("{HOST}:{}", own.member_port),
        state_dir: member.state_dir(),
        os_user: place::postgres_user().map(str::to_owned),
        pg_bin_dir: std::env::var_os("BACKSTAY_PG_BIN")
            .filter(|dir| !dir.is_empty())
            .map(Into::into),
        stop_postgres: true,
        retired: BTreeSet::new(),
        pools: vec![pool],
    }
}

fn witness(plan: &Plan, member: &MemberFiles) -> WitnessFile {
    let partner = |index: usize| {
        let server: &ServerPlan = &plan.servers[index];
        address(&server.name, server.member_port)
    };
    WitnessFile {
        name: member.name.clone(),
        deployment: plan.deployment().name,
        listen: format!("{HOST}:{}", member.member_port),
        state_dir: member.state_dir(),
        retired: BTreeSet::new(),
        pools: vec![WitnessPool {
            name: POOL.to_owned(),
            profile: plan.profile.clone(),
            first: partner(0),
            second: partner(1),
            times: Times::default(),
        }],
    }
}

/// Makes the pool if it is not there yet, and waits until clients can use it.
pub async fn pool(dir: &Path, mut plan: Plan) -> anyhow::Result<()> {
    let deployment = plan.deployment();
    if !plan.ready {
        create(dir, &plan, &deployment).await?;
    }
    let what = "the pool is served";
    let span = if plan.ready { AGAIN_DEADLINE } else { READY_DEADLINE };
    wait(dir, &plan, &deployment, what, span, Picture::served).await?;
    if !plan.ready {
        log_in(&plan).await?;
        plan.ready = true;
        plan.write(dir)?;
    }
    Ok(())
}

async fn create(dir: &Path, plan: &Plan, deployment: &Deployment) -> anyhow::Result<()> {
    wait(dir, plan, deployment, "all members answer", ANSWER_DEADLINE, |picture| {
        picture.members.iter().all(|member| member.answered)
    })
    .await?;
    make_session(&Scope::of(deployment, POOL)?).await.map(|_| ())
}

async fn wait(
    dir: &Path,
    plan: &Plan,
    deployment: &Deployment,
    what: &str,
    span: Duration,
    good: impl Fn(&Picture) -> bool,
) -> anyhow::Result<()> {
    let deadline = clock::now() + span;
    loop {
        let picture = admin::picture(deployment, deployment.pool(POOL)?).await?;
        if good(&picture) {
            return Ok(());
        }
        if !plan.ready {
            check_alive(dir, plan)?;
        }
        if clock::now() > deadline {
            let logs: Vec<String> =
                plan.members(dir).iter().map(|member| member.log().display().to_string()).collect();
            return Err(hinted(
                format!("after {} s still not so: {what} ({})", span.as_secs(), picture.sentence),
                format!("the logs say why:\n{}", logs.join("\n")),
            ));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Scripts want to play faults at once. A mirror that is late is told, and no failure: the pool is
/// served, and its status says what the mirror does.
pub async fn wait_until_mirrored(plan: &Plan) -> anyhow::Result<Option<String>> {
    let deployment = plan.deployment();
    let deadline = clock::now() + MIRROR_DEADLINE;
    loop {
        let picture = admin::picture(&deployment, deployment.pool(POOL)?).await?;
        if picture.redundant() && (plan.witness.is_none() || picture.automatic_failover.armed) {
            return Ok(None);
        }
        if clock::now() > deadline {
            let late = "the pool is served, but not mirrored yet: backstay pool status";
            return Ok(Some(late.to_owned()));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// In the first set-up nobody plays faults yet: a process that ends has a reason, and its log
/// tells it.
fn check_alive(dir: &Path, plan: &Plan) -> anyhow::Result<()> {
    for member in plan.members(dir).into_iter().filter(|one| one.kind != Kind::FrontEnd) {
        if agent(&member).is_none() {
            let log = status::tail(&member.log(), 10).unwrap_or_default();
            return Err(hinted(
                format!("{} ended:\n{log}", member.name),
                format!("its whole log: {}", member.log().display()),
            ));
        }
    }
    Ok(())
}

/// The principal makes the database as soon as it serves; wait until a client gets in.
async fn log_in(plan: &Plan) -> anyhow::Result<()> {
    let uri = plan.connection_strings().uri;
    let deadline = clock::now() + ANSWER_DEADLINE;
    loop {
        let Err(error) = tokio_postgres::connect(&uri, NoTls).await else { return Ok(()) };
        if clock::now() > deadline {
            return Err(anyhow::Error::new(error).context("connect to the demo's database"));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
