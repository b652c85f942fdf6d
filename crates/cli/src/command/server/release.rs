//! `server release`: ends Backstay's part in an adopted PostgreSQL, and gives it back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent::postgres::adopt::{self, Left, Manifest, Stage};
use agent::postgres::{Instance, create};
use protocol::admin::{MemberStatus, MirroringState, Role, SessionStatus};
use serde::Serialize;

use super::adopt::known;
use super::agreed;
use super::file::OwnFile;
use super::neighbour::{self, Neighbour, session_of};
use crate::args::ReleaseArgs;
use crate::clock;
use crate::output::{self, hinted};

/// How long the agent may take to end its part.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// What is printed with --json.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    pool: &'a str,
    done: bool,
    steps: Vec<String>,
    left: Left,
    sentence: String,
}

pub async fn run(args: &ReleaseArgs) -> anyhow::Result<ExitCode> {
    let own = OwnFile::read(&args.config)?;
    let files_dir = files_dir(args, &own)?;
    let manifest = Manifest::read(&files_dir).map_err(known)?.ok_or_else(|| {
        hinted(
            format!("{} knows of no adopted PostgreSQL", files_dir.display()),
            "only what `backstay server adopt` took over can be given back",
        )
    })?;
    anyhow::ensure!(
        manifest.pool == args.pool,
        "{} belongs to the pool {}",
        files_dir.display(),
        manifest.pool
    );
    let instance = manifest.found.instance(&args.pool, &files_dir).map_err(known)?;
    let neighbour = Neighbour::of(&own.server);
    let status = neighbour.look().await;
    let session = status.as_ref().and_then(|status| session_of(status, &args.pool));
    if let Some(reason) = obstacle(&own, &manifest, session)
        && !args.abandon_pool
    {
        return Err(hinted(reason.sentence, reason.remedy));
    }
    let mut outcome = Outcome {
        pool: &args.pool,
        done: false,
        steps: steps(args, &manifest),
        left: Left::default(),
        sentence: "nothing was changed".to_owned(),
    };
    if !args.manner.json {
        output::data(&outcome.steps.join("\n"));
    }
    if args.manner.dry_run || !agreed(&args.manner, "Give it back now?")? {
        let code = if args.manner.dry_run { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        return end(args, &outcome, code);
    }
    if session.is_some() || own.pool(&args.pool).is_some() {
        end_part(args, &own, &neighbour, status.as_ref(), session.is_some()).await?;
    }
    outcome.left = give_back(args, &instance, manifest).await?;
    outcome.done = true;
    outcome.sentence = sentence(args, &outcome.left);
    end(args, &outcome, ExitCode::SUCCESS)
}

fn end(args: &ReleaseArgs, outcome: &Outcome<'_>, code: ExitCode) -> anyhow::Result<ExitCode> {
    if args.manner.json {
        output::json(outcome)?;
    } else {
        output::data(&outcome.sentence);
    }
    Ok(code)
}

fn files_dir(args: &ReleaseArgs, own: &OwnFile) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &args.files_dir {
        return Ok(dir.clone());
    }
    own.pool(&args.pool).map(|pool| pool.files_dir.clone()).ok_or_else(|| {
        hinted(
            format!("the server's file has no pool {}", args.pool),
            "name the directory of Backstay's own files about it: --files-dir DIR.backstay",
        )
    })
}

struct Obstacle {
    sentence: String,
    remedy: String,
}

/// Why the data here may not be all that there is of the pool.
fn obstacle(
    own: &OwnFile,
    manifest: &Manifest,
    session: Option<&SessionStatus>,
) -> Option<Obstacle> {
    let pool = &manifest.pool;
    let because = |sentence: String, remedy: String| Some(Obstacle { sentence, remedy });
    let remove = format!(
        "remove the mirror first (take it out of the configuration, and reload), or say \
         --abandon-pool: the other server may then serve {pool} with its own copy"
    );
    match session {
        Some(session) if session.role == Role::NotCreated => None,
        Some(session) if session.mirroring != MirroringState::NotMirrored => {
            because(format!("{pool} has another server: its data and these would part"), remove)
        }
        Some(session) if !session.serving => because(
            format!("{pool} is not served here, so nobody says that these data are its newest"),
            format!("see why: backstay pool status {pool}"),
        ),
        Some(_) => None,
        None if manifest.stage != Stage::Taken => None,
        None if own.pool(pool).is_some_and(|section| section.second.is_some()) => {
            because(format!("{pool} has another server by this server's file"), remove)
        }
        None if own.pool(pool).is_none() => None,
        None => because(
            format!("the agent does not say how {pool} is"),
            "start the agent, or say --abandon-pool if you know that these data are the newest"
                .to_owned(),
        ),
    }
}

fn steps(args: &ReleaseArgs, manifest: &Manifest) -> Vec<String> {
    let mut steps = vec![
        format!("{}: given back to its former owner", args.pool),
        "  the agent's part ends: PostgreSQL is shut down, clients are disconnected".to_owned(),
        "  mark, standby.signal, and the mirror's slot are taken out of the data directory".into(),
        format!("  {}; its start is as it was before", manifest.found.owner.sentence()),
    ];
    if !args.no_start {
        steps.push("  it is started with its own configuration".to_owned());
    }
    if args.drop_roles {
        steps.push("  the roles and schemas that Backstay made are dropped".to_owned());
    }
    steps
}

/// Has the agent let go of the data directory.
async fn end_part(
    args: &ReleaseArgs,
    own: &OwnFile,
    neighbour: &Neighbour,
    status: Option<&MemberStatus>,
    lives: bool,
) -> anyhow::Result<()> {
    if own.pool(&args.pool).is_some() {
        own.replace(&own.without(&args.pool)?)?;
    } else if lives {
        return Err(hinted(
            format!("{} comes from the published topology, not from the server's file", args.pool),
            "publish the topology without the pool; then give this command again",
        ));
    }
    let Some(status) = status else { return Ok(()) };
    output::talk("the agent ends its part");
    neighbour::reload(status)?;
    let gone = |status: Option<&MemberStatus>| {
        status.is_some_and(|status| session_of(status, &args.pool).is_none())
    };
    neighbour.wait("the agent has no part in the pool", PATIENCE, gone).await?;
    Ok(())
}

async fn give_back(
    args: &ReleaseArgs,
    instance: &Instance,
    mut manifest: Manifest,
) -> anyhow::Result<Left> {
    let lock = own_data(instance).await?;
    let ours = create::pool_mark(instance).exists();
    let unused = manifest.stage == Stage::Begun;
    if ours {
        adopt::stop_ours(instance, PATIENCE).await.map_err(known)?;
    }
    adopt::give_back(instance, &mut manifest).map_err(known)?;
    drop(lock);
    let mut left = Left::default();
    if args.no_start {
        left.roles = vec!["backstay".to_owned(), "backstay_front_end".to_owned()];
    } else {
        output::talk("starting it as before");
        adopt::start_again(instance, &manifest).map_err(known)?;
        if args.drop_roles || unused {
            left = adopt::drop_roles(instance, &manifest).map_err(known)?;
        } else {
            left.roles = vec!["backstay".to_owned(), "backstay_front_end".to_owned()];
        }
    }
    left.files = Some(manifest.close(&instance.files_dir).map_err(known)?);
    let _ = std::fs::remove_file(adopt::lock_file(&instance.data_dir));
    Ok(left)
}

/// The agent lets go of the data directory a moment after its part has ended.
async fn own_data(instance: &Instance) -> anyhow::Result<create::Lock> {
    let deadline = clock::now() + PATIENCE;
    loop {
        match create::lock(instance) {
            Ok(lock) => return Ok(lock),
            Err(error) if clock::now() > deadline => return Err(known(error)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn sentence(args: &ReleaseArgs, left: &Left) -> String {
    let started =
        if args.no_start { "is given back, and stopped" } else { "is given back and runs" };
    let mut text = format!("{} {started}.", args.pool);
    if let Some(files) = &left.files {
        text.push_str(&format!(" What was written down about it: {}.", files.display()));
    }
    if !left.roles.is_empty() {
        text.push_str(&format!(
            " Roles of Backstay's that may be left: {} (--drop-roles drops them).",
            left.roles.join(", ")
        ));
    }
    for reason in &left.reasons {
        text.push_str(&format!(" Not removed: {reason}."));
    }
    text
}
