//! `backstay`: the one binary. Arguments in, a command run, an exit status out.
//!
//! Exit status: 0 success, 1 failure, 2 wrong usage; `pool status` adds 3 and 4.
#![forbid(unsafe_code)]

mod admin;
mod args;
mod clock;
mod command;
mod demo;
mod deployment;
mod drill;
mod output;
mod picture;
mod show;
mod trust_place;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command, ServerArgs, Which};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Server(ServerArgs { agent: Some(args), command: None }) => {
            command::process::server(args)
        }
        Command::Witness(args) => command::process::witness(args),
        Command::FrontEnd(args) => command::process::front_end(args),
        Command::Authority(args) => command::authority::run(args),
        Command::Join(args) => command::join::run(args),
        Command::Server(_)
        | Command::Demo(_)
        | Command::Pool(_)
        | Command::Topology(_)
        | Command::Audit(_)
        | Command::Drill(_) => ask(&cli),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Commands run on one thread: they mostly wait.
fn ask(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let found = |which: &Which| {
            trust_place::name(which.trust.clone());
            deployment::find(which.deployment.as_deref())
        };
        match &cli.command {
            Command::Demo(args) => command::demo::run(args).await,
            Command::Pool(args) => command::pool::run(&found(&args.which)?, &args.command).await,
            Command::Topology(args) => {
                trust_place::name(args.which.trust.clone());
                command::topology::run(args).await
            }
            Command::Audit(args) => {
                command::audit::run(&found(&args.which)?.deployment, args).await
            }
            Command::Drill(args) => drill::run(&found(&args.which)?, args).await,
            Command::Server(ServerArgs { command: Some(args), .. }) => {
                command::server::run(args).await
            }
            Command::Server(ServerArgs { command: None, .. }) => Err(output::hinted(
                "it is not said what to do with the server",
                "run its agent with --config FILE, or see: backstay server --help",
            )),
            Command::Witness(args) => command::process::witness(args),
            Command::FrontEnd(args) => command::process::front_end(args),
            Command::Authority(args) => command::authority::run(args),
            Command::Join(args) => command::join::run(args),
        }
    })
}
