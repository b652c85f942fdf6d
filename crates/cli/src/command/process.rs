//! `backstay server` and `backstay witness`: the long-running processes.

use std::process::ExitCode;

use crate::args::{ServerArgs, WitnessArgs};
use crate::output;

pub fn server(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let mut config = agent::config::Server::load(&args.config)?;
    config.stop_postgres |= args.stop_postgres;
    output::log()?;
    anyhow::bail!("not yet")
}

pub fn witness(args: &WitnessArgs) -> anyhow::Result<ExitCode> {
    let _config = agent::config::Witness::load(&args.config)?;
    output::log()?;
    anyhow::bail!("not yet")
}
