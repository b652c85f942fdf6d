//! `backstay server` and `backstay witness`: the long-running processes.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::args::{ServerArgs, WitnessArgs};

pub fn server(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let mut config = agent::config::Server::load(&args.config)?;
    config.stop_postgres |= args.stop_postgres;
    log_to_stderr()?;
    anyhow::bail!("not yet")
}

pub fn witness(args: &WitnessArgs) -> anyhow::Result<ExitCode> {
    let _config = agent::config::Witness::load(&args.config)?;
    log_to_stderr()?;
    anyhow::bail!("not yet")
}

fn log_to_stderr() -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("BACKSTAY_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env()
        .context("understand BACKSTAY_LOG")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| anyhow::anyhow!("begin to log: {error}"))
}
