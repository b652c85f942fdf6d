//! `backstay server ...`: taking a PostgreSQL over, giving it back, and maintenance of a server.

mod adopt;
mod drain;
mod file;
mod neighbour;
mod release;

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use crate::args::{Manner, ServerCommand};
use crate::deployment;
use crate::output::{self, hinted};
use crate::trust_place;

pub async fn run(command: &ServerCommand) -> anyhow::Result<ExitCode> {
    match command {
        ServerCommand::Adopt(args) => {
            trust_place::name(args.manner.trust.clone());
            adopt::run(args).await
        }
        ServerCommand::Release(args) => {
            trust_place::name(args.manner.trust.clone());
            release::run(args).await
        }
        ServerCommand::Drain(args) => {
            trust_place::name(args.which.trust.clone());
            let found = deployment::find(args.which.deployment.as_deref())?;
            drain::run(&found.deployment, args).await
        }
    }
}

/// Whether the administrator agrees. Without a terminal nobody can be asked.
fn agreed(manner: &Manner, question: &str) -> anyhow::Result<bool> {
    if manner.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(hinted(
            "nothing was changed: there is no terminal to ask at",
            "look at what would be done (--dry-run), then say --yes",
        ));
    }
    output::talk(&format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
