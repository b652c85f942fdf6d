//! `server adopt`: looks, shows, asks, takes over, and says how long clients were interrupted.
//!
//! What it does can be interrupted anywhere: the same command goes on, `server release` undoes it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent::config::{PartnerAddress, ServerPool};
use agent::postgres::Version;
use agent::postgres::adopt::{self, Finding, Found, Level, Place, Stage, Taking};
use protocol::admin::{MemberStatus, Request, Role, SessionStatus};
use serde::Serialize;

use super::agreed;
use super::file::OwnFile;
use super::neighbour::{self, Neighbour, session_of};
use crate::admin::AskError;
use crate::args::AdoptArgs;
use crate::clock;
use crate::output::{self, Colour, hinted};
use crate::show;

/// How long the agent may take to begin with the pool, and then to serve it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is printed with --json.
#[derive(Debug, Serialize)]
struct Report<'a> {
    pool: &'a str,
    found: &'a Found,
    findings: Vec<Finding>,
    steps: Vec<String>,
    section: String,
    possible: bool,
    done: bool,
    /// From the stop until the pool was served.
    interrupted_ms: Option<u64>,
    sentence: String,
}

pub async fn run(args: &AdoptArgs) -> anyhow::Result<ExitCode> {
    let own = OwnFile::read(&args.config)?;
    let neighbour = Neighbour::of(&own.server);
    let status = neighbour.look().await;
    let data_dir = place(args)?.data_dir().map_err(known)?;
    let files_dir = args.files_dir.clone().unwrap_or_else(|| Found::files_dir(&data_dir));
    let resumed = Taking::resume(&args.pool, &files_dir).map_err(known)?;
    let found = match &resumed {
        Some(taking) => taking.manifest.found.clone(),
        None => {
            let mut found =
                adopt::look(&args.pool, &data_dir, args.superuser.as_deref()).map_err(known)?;
            if let Some(listen) = &args.listen {
                found.listen.clone_from(listen);
            }
            found
        }
    };
    let seen = status.as_ref().and_then(|status| session_of(status, &args.pool)).cloned();
    let instance = found.instance(&args.pool, &files_dir).map_err(known)?;
    let mut findings = match &resumed {
        Some(_) => Vec::new(),
        None => adopt::judge(&found, &instance, &expected(&own)),
    };
    findings.extend(about_the_pool(&own, seen.as_ref(), resumed.is_some(), &args.pool));
    findings.sort_by_key(|finding| finding.level);
    let pool = section(args, &own, &found, &files_dir);
    let mut report = Report {
        pool: &args.pool,
        found: &found,
        possible: findings.iter().all(|finding| finding.level != Level::Error),
        findings,
        steps: steps(&found, &own, status.is_some(), seen.is_some()),
        section: OwnFile::section(&pool)?,
        done: false,
        interrupted_ms: None,
        sentence: String::new(),
    };
    if !args.manner.json {
        output::data(&text(&report, resumed.is_some(), Colour::for_stdout()));
    }
    if !report.possible || args.manner.dry_run {
        report.sentence = "nothing was changed".to_owned();
        return end(args, &report);
    }
    if !agreed(&args.manner, "Take it over now?")? {
        report.sentence = "nothing was changed".to_owned();
        return end(args, &report);
    }
    let waiting = seen.is_some();
    let taking = match resumed {
        Some(taking) => taking,
        None => Taking::begin(&args.pool, found.clone(), &files_dir, waiting).map_err(known)?,
    };
    let stopped = take(args, &own, &pool, taking, waiting).await?;
    report.done = true;
    (report.interrupted_ms, report.sentence) = begin(args, &neighbour, status, stopped).await?;
    end(args, &report)
}

/// Takes the data. Returns when clients were interrupted, if that was now.
async fn take(
    args: &AdoptArgs,
    own: &OwnFile,
    pool: &ServerPool,
    mut taking: Taking,
    waiting: bool,
) -> anyhow::Result<Option<Instant>> {
    let mut stopped = None;
    if taking.manifest.stage == Stage::Begun {
        taking.keep_files().map_err(known)?;
        if taking.runs() {
            output::talk("making Backstay's role");
            taking.make_role().map_err(known)?;
            output::talk("taking the start away from its former owner");
            taking.forbid_start().map_err(known)?;
            taking.checkpoint();
            output::talk("stopping PostgreSQL");
            stopped = Some(clock::now());
            taking.stop(Duration::from_secs(args.stop_timeout)).await.map_err(known)?;
        }
        taking.mark().map_err(known)?;
        output::talk("the data bear the pool's mark");
    }
    taking.hand_over();
    if own.pool(&args.pool).is_none() && !waiting {
        own.replace(&own.with(pool)?)?;
    }
    Ok(stopped)
}

/// Has the agent begin the pool's session. How long clients were interrupted, and a sentence.
async fn begin(
    args: &AdoptArgs,
    neighbour: &Neighbour,
    status: Option<MemberStatus>,
    stopped: Option<Instant>,
) -> anyhow::Result<(Option<u64>, String)> {
    let pool = &args.pool;
    let Some(status) = status else {
        return Ok((
            None,
            format!(
                "{pool} is taken over, and NOT SERVED: the agent does not run. Start it (backstay \
                 server --config {}), then give this command again",
                args.config.display()
            ),
        ));
    };
    neighbour::reload(&status)?;
    let knows =
        |status: Option<&MemberStatus>| status.is_some_and(|it| session_of(it, pool).is_some());
    neighbour.wait("the agent takes part in the pool", PATIENCE, knows).await?;
    match neighbour.ask(&Request::CreateSession { pool: pool.clone() }).await {
        Ok(_) => {}
        Err(AskError::Refused(refusal)) if refusal.code == "session_exists" => {}
        Err(error) => return Err(error.into()),
    }
    let serves = |status: Option<&MemberStatus>| {
        status.and_then(|status| session_of(status, pool)).is_some_and(|session| session.serving)
    };
    neighbour.wait("the pool is served", PATIENCE, serves).await?;
    let interrupted = stopped.map(|stopped| clock::now() - stopped);
    let interrupted = interrupted.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let gap = interrupted
        .map_or(String::new(), |ms| format!("; clients were interrupted for {}", show::span(ms)));
    Ok((interrupted, format!("{pool} is taken over and served{gap}. It has no mirror yet")))
}

fn end(args: &AdoptArgs, report: &Report<'_>) -> anyhow::Result<ExitCode> {
    if args.manner.json {
        output::json(report)?;
    } else {
        output::data(&report.sentence);
    }
    let good = report.possible && (report.done || args.manner.dry_run);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn place(args: &AdoptArgs) -> anyhow::Result<Place> {
    if let Some(dir) = &args.data_dir {
        return Ok(Place::DataDir(dir.clone()));
    }
    let parts = args.cluster.as_deref().and_then(|cluster| cluster.split_once('/'));
    let (version, name) = parts.ok_or_else(|| {
        hinted("the cluster is not understood", "write it as pg_lsclusters does: 15/main")
    })?;
    Ok(Place::Cluster { version: version.to_owned(), name: name.to_owned() })
}

/// What the agent's file says of the programs and their user.
fn expected(own: &OwnFile) -> adopt::Agent {
    let programs = own.server.pg_bin_dir.as_deref().and_then(|dir| Version::of_programs(dir).ok());
    let is_root = rustix::process::geteuid().is_root();
    let os_user = own.server.os_user.clone().or_else(|| is_root.then(|| "postgres".to_owned()));
    adopt::Agent { programs, os_user }
}

/// What stands against the pool itself.
fn about_the_pool(
    own: &OwnFile,
    seen: Option<&SessionStatus>,
    resumed: bool,
    pool: &str,
) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut error = |code, sentence: String, remedy: &str| {
        let remedy = Some(remedy.to_owned());
        all.push(Finding { level: Level::Error, code, sentence, remedy });
    };
    if own.pool(pool).is_some() && !resumed {
        error(
            "pool_exists",
            format!("the server's file already has a pool {pool}"),
            "choose another name: the section is written by this command",
        );
    }
    if let Some(seen) = seen.filter(|seen| seen.role != Role::NotCreated && !resumed) {
        error(
            "pool_lives",
            format!("the agent already takes part in a pool {} as {:?}", seen.pool, seen.role),
            "choose another name",
        );
    }
    all
}

fn section(
    args: &AdoptArgs,
    own: &OwnFile,
    found: &Found,
    files_dir: &std::path::Path,
) -> ServerPool {
    let listen = own.server.process.listen;
    let host = args.host.clone().unwrap_or_else(|| {
        if listen.ip().is_unspecified() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            listen.ip().to_string()
        }
    });
    let mut client_access = found.hba.clone();
    if client_access.is_empty() {
        // No line would mean Backstay's own rules, which let people in.
        client_access.push("local all all reject".to_owned());
    }
    ServerPool {
        name: args.pool.clone(),
        profile: "standard".to_owned(),
        data_dir: found.data_dir.clone(),
        files_dir: files_dir.to_owned(),
        socket_dir: found.socket_dir(files_dir),
        postgres_listen: found.listen.clone(),
        secret_file: None,
        locale: None,
        slot_wal_keep: None,
        client_access,
        first: Some(PartnerAddress {
            name: own.file.name.clone(),
            host,
            port: listen.port(),
            postgres_port: found.port,
        }),
        second: None,
        witness: None,
        converge: true,
        spare_witnesses: Vec::new(),
        times: agent::config::Times::default(),
        settings: found.settings.clone(),
        databases: Vec::new(),
        front_ends: None,
        front_end_password_file: None,
    }
}

fn steps(found: &Found, own: &OwnFile, agent_runs: bool, waiting: bool) -> Vec<String> {
    let mut steps = vec![
        "everything that is needed to give it back is written down".to_owned(),
        "the role \"backstay\" (superuser, by password) is made".to_owned(),
        found.owner.taking_sentence(),
        "PostgreSQL is shut down (fast): clients are disconnected".to_owned(),
        format!("{} gets the pool's mark and standby.signal", found.data_dir.display()),
    ];
    if !waiting {
        steps.push(format!("the pool's section is added to the file of {}", own.file.name));
    }
    steps.push(if agent_runs {
        "the agent starts it again and serves the pool: same port, same roles and passwords".into()
    } else {
        "the agent does NOT RUN: start it at once, for nobody serves until then".into()
    });
    steps
}

fn text(report: &Report<'_>, resumed: bool, colour: Colour) -> String {
    let found = report.found;
    let mut text = format!(
        "{}  PostgreSQL {} on port {}, {} of data in {}\n  {}\n",
        colour.strong(report.pool),
        found.version,
        found.port,
        show::bytes(found.size_bytes),
        found.data_dir.display(),
        found.owner.sentence()
    );
    if resumed {
        text.push_str("  its adoption has begun before and goes on\n");
    }
    for finding in &report.findings {
        let label = match finding.level {
            Level::Error => colour.bad("ERROR  "),
            Level::Warning => colour.warning("warning"),
            Level::Note => colour.faint("note   "),
        };
        text.push_str(&format!("\n  {label}  {}\n", finding.sentence));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("           {remedy}\n"));
        }
    }
    text.push_str("\nSettings that change (everything else stays as it is):\n");
    for change in &found.changes {
        text.push_str(&format!("  {} = {:?}, was {:?}\n", change.name, change.to, change.from));
    }
    text.push_str("Files with settings that stay in force below these:\n");
    for file in &found.setting_files {
        text.push_str(&format!("  {}\n", file.display()));
    }
    text.push_str(
        "\nThe pool's section in the server's file; change settings and access there from now \
         on:\n\n",
    );
    for line in report.section.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    if report.possible {
        text.push_str(
            "\nWhat will be done; clients are interrupted once, from the fourth step on:\n",
        );
        for (at, step) in report.steps.iter().enumerate() {
            text.push_str(&format!("  {}. {step}\n", at + 1));
        }
    }
    text
}

/// With its way out.
pub fn known(error: agent::postgres::Error) -> anyhow::Error {
    match error.hint() {
        Some(hint) => hinted(error.to_string(), hint.to_owned()),
        None => error.into(),
    }
}
