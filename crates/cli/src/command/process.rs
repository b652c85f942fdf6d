//! `backstay server`, `backstay witness`, `backstay front-end`: the long-running processes.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{FrontEndArgs, ServerArgs, WitnessArgs};
use crate::output;

pub fn server(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let mut config = agent::config::Server::load(&args.config)?;
    config.stop_postgres |= args.stop_postgres;
    let _log = output::log()?;
    run(async |end| Ok(agent::server::run(config, end).await?))
}

pub fn witness(args: &WitnessArgs) -> anyhow::Result<ExitCode> {
    let config = agent::config::Witness::load(&args.config)?;
    let _log = output::log()?;
    run(async |end| Ok(agent::witness::run(config, end).await?))
}

pub fn front_end(args: &FrontEndArgs) -> anyhow::Result<ExitCode> {
    let config = gateway::config::FrontEnd::load(&args.config)?;
    let _log = output::log()?;
    run(async |end| Ok(gateway::run(config, end).await?))
}

/// Runs a process until it ends by itself or a signal asks it to.
fn run(process: impl AsyncFnOnce(End) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
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

type End = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn asked_to_end(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
