//! `backstay demo`: a mirrored pool on this machine, made of real processes.
//!
//! `start` is the supervisor in the foreground, with a live view; `detach` starts the same
//! supervisor in the background. All other commands work on the demo's files and processes, so
//! that they also work on what a killed supervisor has left behind.

pub mod certificates;
mod control;
pub mod fault;
mod front_end;
pub mod place;
pub mod plan;
pub mod process;
mod setup;
pub mod status;
pub mod supervise;
mod view;

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::control::{Ask, Caller};
use self::plan::{ConnectionStrings, Plan};
use self::supervise::Supervisor;
use crate::args::{DemoStart, Profile};
use crate::clock;
use crate::output::{self, hinted};

const SUPERVISOR_LOG: &str = "supervisor.log";
/// How often the certificates are looked at.
const RENEWAL: Duration = Duration::from_hours(1);
/// The supervisor writes this when clients can use the pool; it names what is late.
const READY_FILE: &str = "ready";
const DETACH_DEADLINE: Duration = Duration::from_secs(360);
const STOP_DEADLINE: Duration = Duration::from_secs(45);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Where the background supervisor of the demo in `dir` writes.
pub fn supervisor_log(dir: &Path) -> std::path::PathBuf {
    dir.join(SUPERVISOR_LOG)
}

/// Runs the demo until it is told to end.
pub async fn start(args: &DemoStart) -> anyhow::Result<()> {
    let dir = place::dir(args.place.dir.as_deref())?;
    place::prepare(&dir, args.place.dir.as_deref())?;
    if args.supervise {
        // Fails only in a process that leads a group already, which then needs no new session.
        let _ = rustix::process::setsid();
    }
    let mut signals = Signals::new()?;
    let mut supervisor = Supervisor::take(&dir)?;
    let mut plan = plan_for(&dir, args)?;
    plan.complete(&dir)?;
    let _ = std::fs::remove_file(dir.join(READY_FILE));
    setup::files(&dir, &plan)?;
    certificates::see_to(&dir, &plan)?;
    certificates::speak_for(&dir);
    let listener = control::listen(&dir)?;
    let outcome = match supervisor.start(&plan).await {
        Ok(()) => serve(&supervisor, &plan, &listener, &mut signals, args.supervise).await,
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_file(dir.join(READY_FILE));
    if !args.supervise {
        output::talk("ending the demo");
    }
    let stopped = supervisor.stop().await;
    let callers = outcome?;
    for caller in callers {
        caller.answer(&clone_of(&stopped)).await;
    }
    stopped
}

/// An outcome twice: for the caller and for this process.
fn clone_of(outcome: &anyhow::Result<()>) -> anyhow::Result<()> {
    outcome.as_ref().copied().map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// The plan of this directory, or a new one.
fn plan_for(dir: &Path, args: &DemoStart) -> anyhow::Result<Plan> {
    if !dir.join(place::PLAN_FILE).exists() {
        let profile = args.profile.unwrap_or(Profile::Standard).name();
        let plan = Plan::new(profile, !args.without_witness)?;
        plan.write(dir)?;
        output::talk(&format!("a new demo in {}", dir.display()));
        return Ok(plan);
    }
    let plan = Plan::read(dir)?;
    let other_profile = args.profile.is_some_and(|profile| profile.name() != plan.profile);
    if other_profile || (args.without_witness && plan.witness.is_some()) {
        return Err(hinted(
            format!(
                "the demo in {} was made with profile {} and {} witness",
                dir.display(),
                plan.profile,
                if plan.witness.is_some() { "a" } else { "no" }
            ),
            "start it without these options, or make another one with --dir DIR",
        ));
    }
    output::talk(&format!("the demo in {} continues", dir.display()));
    Ok(plan)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    child: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            child: listen(SignalKind::child())?,
        })
    }
}

/// Serves the demo until somebody ends it; whoever asked for that is still to be answered.
async fn serve(
    supervisor: &Supervisor,
    plan: &Plan,
    listener: &UnixListener,
    signals: &mut Signals,
    in_background: bool,
) -> anyhow::Result<Vec<Caller>> {
    let mut show = std::pin::pin!(set_up_and_show(&supervisor.dir, plan, in_background));
    let mut renewal = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            shown = &mut show => {
                shown?;
                anyhow::bail!("the view ended");
            }
            _ = signals.child.recv() => supervisor.reap(),
            _ = renewal.tick() => renew(&supervisor.dir, plan),
            _ = signals.interrupt.recv() => return Ok(Vec::new()),
            _ = signals.terminate.recv() => return Ok(Vec::new()),
            // A background demo outlives the terminal that it was started from.
            _ = signals.hang_up.recv(), if !in_background => return Ok(Vec::new()),
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Some(caller) = Caller::hear(stream).await else { continue };
                match &caller.ask {
                    Ask::Stop => return Ok(vec![caller]),
                    Ask::Restart { name } => {
                        let outcome = supervisor.restart(name).await;
                        caller.answer(&outcome).await;
                    }
                }
            }
        }
    }
}

fn renew(dir: &Path, plan: &Plan) {
    if certificates::administrator(dir).is_some()
        && let Err(error) = certificates::see_to(dir, plan)
    {
        output::talk(&format!("the demo's certificates cannot be renewed: {error:#}"));
    }
}

/// Makes the pool usable, says how to connect, and then shows it as long as the demo runs.
async fn set_up_and_show(dir: &Path, plan: &Plan, in_background: bool) -> anyhow::Result<()> {
    if !plan.ready {
        output::talk("making two PostgreSQL servers; the first start takes a few seconds");
    }
    setup::pool(dir, plan.clone()).await?;
    let mut late = Vec::new();
    if in_background {
        late.extend(setup::wait_until_mirrored(plan).await?);
    }
    late.extend(front_end::wait_until_it_serves(dir, plan).await);
    say_ready(dir, &late.join("\n"))?;
    if in_background {
        return std::future::pending().await;
    }
    introduce(plan, &late.join("\n"));
    view::show(dir, plan).await
}

/// Whole or not at all: whoever started the background demo reads it as soon as it is there.
fn say_ready(dir: &Path, late: &str) -> anyhow::Result<()> {
    let fresh = dir.join("ready.new");
    std::fs::write(&fresh, late)
        .and_then(|()| std::fs::rename(&fresh, dir.join(READY_FILE)))
        .context("say that the demo is ready")
}

/// How to connect, and what is not there yet.
fn introduce(plan: &Plan, late: &str) {
    if !late.is_empty() {
        output::talk(late);
    }
    let forms = |strings: &ConnectionStrings| {
        format!("  {}\n  psql \"{}\"\n  {}", strings.uri, strings.keywords, strings.jdbc)
    };
    if let Some(strings) = plan.front_end_strings() {
        output::talk(&format!(
            "the pool is served. Connect through the Front End, which carries clients over a \
             failover:\n{}",
            forms(&strings)
        ));
    }
    output::talk(&format!(
        "or to whichever of the servers takes writes:\n{}",
        forms(&plan.connection_strings())
    ));
}

/// Starts the demo in the background and waits until the pool is served and mirrored.
pub async fn detach(args: &DemoStart) -> anyhow::Result<()> {
    let dir = place::dir(args.place.dir.as_deref())?;
    place::prepare(&dir, args.place.dir.as_deref())?;
    if supervise::running(&dir).is_some() {
        return Err(hinted(
            format!("a demo runs in {} already", dir.display()),
            "look at it: backstay demo status\nend it: backstay demo stop",
        ));
    }
    let _ = std::fs::remove_file(dir.join(READY_FILE));
    let mut child = spawn_supervisor(&dir, args)?;
    let deadline = clock::now() + DETACH_DEADLINE;
    while !dir.join(READY_FILE).exists() {
        if let Some(status) = child.try_wait().context("watch the demo")? {
            let log = status::tail(&supervisor_log(&dir), 8).unwrap_or_default();
            return Err(hinted(
                format!("the demo ended ({status}):\n{log}"),
                format!("the logs are in {}", dir.display()),
            ));
        }
        anyhow::ensure!(clock::now() < deadline, "the demo does not become ready");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let late = std::fs::read_to_string(dir.join(READY_FILE)).unwrap_or_default();
    introduce(&Plan::read(&dir)?, &late);
    output::talk("look at it: backstay demo status; end it: backstay demo stop");
    Ok(())
}

fn spawn_supervisor(dir: &Path, args: &DemoStart) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    let path = supervisor_log(dir);
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut command = Command::new(program);
    command.arg("demo").arg("--supervise").arg("--dir").arg(dir);
    if let Some(profile) = args.profile {
        command.args(["--profile", profile.name()]);
    }
    if args.without_witness {
        command.arg("--without-witness");
    }
    let again = log.try_clone().context("share the log")?;
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .env("NO_COLOR", "1")
        .process_group(0)
        .spawn()
        .context("start the demo in the background")
}

/// Ends the demo in `dir`, also one whose supervisor is gone.
pub async fn stop(dir: &Path) -> anyhow::Result<()> {
    let Some(supervisor) = supervise::running(dir) else {
        return stop_leftovers(dir).await;
    };
    control::ask(dir, &Ask::Stop).await?;
    let deadline = clock::now() + STOP_DEADLINE;
    while supervisor.is_alive() {
        anyhow::ensure!(clock::now() < deadline, "the demo's supervisor does not end");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

async fn stop_leftovers(dir: &Path) -> anyhow::Result<()> {
    let plan = Plan::read(dir)?;
    let mut supervisor = Supervisor::take(dir)?;
    supervisor.members = plan.members(dir);
    supervisor.stop().await
}
