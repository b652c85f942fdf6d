//! `backstay server`, `backstay witness`, `backstay front-end`: the long-running processes.

use std::process::ExitCode;

use agent::config::Change;
use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{AgentArgs, FrontEndArgs, WitnessArgs};
use crate::output;

pub fn server(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let mut config = agent::config::Server::load(&args.config)?;
    config.stop_postgres |= args.stop_postgres;
    let _log = output::log()?;
    let (path, running) = (args.config.clone(), config.clone());
    let read = move || {
        let changed = agent::config::Server::load(&path)?;
        match running.fixed_for(&changed) {
            Some(fixed) => Err(anyhow::anyhow!(fixed)),
            None => Ok(changed.change()),
        }
    };
    run(async |end| Ok(agent::server::run_with(config, reloads(read)?, end).await?))
}

pub fn witness(args: &WitnessArgs) -> anyhow::Result<ExitCode> {
    let config = agent::config::Witness::load(&args.config)?;
    let _log = output::log()?;
    let (path, running) = (args.config.clone(), config.clone());
    let read = move || {
        let changed = agent::config::Witness::load(&path)?;
        match running.fixed_for(&changed) {
            Some(fixed) => Err(anyhow::anyhow!(fixed)),
            None => Ok(changed.change()),
        }
    };
    run(async |end| Ok(agent::witness::run_with(config, reloads(read)?, end).await?))
}

/// What `read` finds at each SIGHUP. What it refuses is told, and the process goes on as it was.
fn reloads(
    read: impl Fn() -> anyhow::Result<Change> + Send + 'static,
) -> anyhow::Result<mpsc::Receiver<Change>> {
    let mut hang_up = signal(SignalKind::hangup()).context("listen to signals")?;
    let (changes, changed) = mpsc::channel(1);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            match read() {
                Ok(change) => {
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the configuration is refused; this process goes on with the one it has"
                ),
            }
        }
    });
    Ok(changed)
}

pub fn front_end(args: &FrontEndArgs) -> anyhow::Result<ExitCode> {
    let own = gateway::config::Own::load(&args.config)?;
    let _log = output::log()?;
    let place = trust::Place::new(own.state_dir().join("trust"));
    run(async |end| {
        let renewed = tokio::spawn(agent::enrol::keep_renewed(place));
        let ended = gateway::run_by(own, end).await;
        renewed.abort();
        Ok(ended?)
    })
}

/// Runs a process until it ends by itself or a signal asks it to.
pub fn run(process: impl AsyncFnOnce(End) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate()).context("listen to signals")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen to signals")?;
        process(Box::pin(asked_to_end(terminate, interrupt))).await
    })?;
    Ok(ExitCode::SUCCESS)
}

pub type End = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn asked_to_end(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
