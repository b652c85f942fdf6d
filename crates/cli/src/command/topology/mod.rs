//! `backstay topology ...`: the document of the deployment, from the first draft to the history.
//!
//! Every process converges to the published document by itself. These commands check, show what
//! would change, store, and watch; none of them performs a change, so that each may be interrupted
//! and repeated at any moment.

mod document;
mod gather;
mod new;
mod plan;
mod preflight;
mod publish;
mod site;
mod versions;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use crate::args::{TopologyArgs, TopologyCommand};

pub async fn run(args: &TopologyArgs) -> anyhow::Result<ExitCode> {
    let known = args.which.deployment.as_deref();
    match &args.command {
        TopologyCommand::New(args) => new::run(args),
        TopologyCommand::Check { file, json } => document::check(file, *json),
        TopologyCommand::Schema => document::schema(),
        TopologyCommand::Plan { file, json } => plan::run(known, file, *json).await,
        TopologyCommand::Publish { file, how } => publish::file(known, file, how).await,
        TopologyCommand::Rollback { version, how } => publish::rollback(known, *version, how).await,
        TopologyCommand::Show { version, json } => versions::show(known, *version, *json).await,
        TopologyCommand::Diff { a, b, json } => {
            versions::diff(known, a.as_deref(), b.as_deref(), *json).await
        }
        TopologyCommand::History { json } => versions::history(known, *json).await,
        TopologyCommand::Export { version, output } => {
            versions::export(known, *version, output.as_deref()).await
        }
        TopologyCommand::Replication { json } => versions::replication(known, *json).await,
    }
}

/// Where commands are told of the deployment, if they are.
type Known<'a> = Option<&'a Path>;
