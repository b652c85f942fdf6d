//! The arguments of `backstay topology`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Which;

const AFTER_HELP: &str = "\
From nothing to a serving pool:
  backstay topology new                 a document from a few questions
  backstay topology publish FILE        check, plan, ask, store, and watch
A change:
  backstay topology export --output FILE, edit it, then: backstay topology publish FILE";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct TopologyArgs {
    #[command(flatten)]
    pub which: Which,
    #[command(subcommand)]
    pub command: TopologyCommand,
}

#[derive(Subcommand, Debug)]
pub enum TopologyCommand {
    /// Write a new, commented document; a terminal is asked for what the flags do not say.
    ///
    /// A file that exists is never overwritten.
    New(NewArgs),
    /// Tell everything that is wrong with a document or unwise, all at once.
    ///
    /// Exit status: 0 without errors, whatever the warnings; 1 with errors.
    Check {
        /// The document.
        file: PathBuf,
        /// Print JSON (see docs/topology/commands.md).
        #[arg(long)]
        json: bool,
    },
    /// Show what publishing a document would change, and what that does to service.
    ///
    /// Only looks. Exit status 1 if the document cannot be published.
    Plan {
        /// The document.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a document, show the plan, ask, store it, and watch until it is done.
    ///
    /// Can be interrupted at any moment: the servers go on by themselves, and publishing the same
    /// document again watches on.
    Publish {
        /// The document.
        file: PathBuf,
        #[command(flatten)]
        how: PublishArgs,
    },
    /// Show the published document.
    Show {
        /// This version instead of the newest one.
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Print JSON: the header and the document.
        #[arg(long)]
        json: bool,
    },
    /// Show in which values two documents differ: version numbers or files.
    ///
    /// With one, it is compared with the newest version; with none, the newest two are.
    Diff {
        /// The earlier one.
        a: Option<String>,
        /// The later one.
        b: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all published versions: when, who, why.
    History {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Publish an old version's document again, as a new version.
    ///
    /// It has a plan as every publication has: data that were written meanwhile stay.
    Rollback {
        /// The version to go back to.
        version: u64,
        #[command(flatten)]
        how: PublishArgs,
    },
    /// Write the published document to a file, to edit and publish it.
    Export {
        /// This version instead of the newest one.
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Where to; a file that exists is not overwritten. Standard output if left out.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the JSON Schema of the document, for editors.
    Schema,
    /// Show who has which version, and since when.
    ///
    /// Exit status 1 if somebody has not the newest one.
    Replication {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug, Clone)]
pub struct PublishArgs {
    /// Why: kept with the version.
    #[arg(long, default_value = "")]
    pub comment: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Check, look at the servers, show the plan, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON: the findings and the plan first, then one line per change that is done.
    #[arg(long)]
    pub json: bool,
    /// Watch no longer than so many seconds; the servers go on all the same.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
}

#[derive(Args, Debug, Clone)]
pub struct NewArgs {
    /// Where to write it.
    #[arg(default_value = "topology.toml")]
    pub file: PathBuf,
    /// The deployment's name.
    #[arg(long)]
    pub name: Option<String>,
    /// A server; the first one is the principal of the first set-up, the second one the mirror.
    #[arg(long = "server", value_name = "NAME=HOST")]
    pub servers: Vec<String>,
    /// The witness: a third machine.
    #[arg(long, value_name = "NAME=HOST")]
    pub witness: Option<String>,
    /// The first pool's name.
    #[arg(long)]
    pub pool: Option<String>,
    /// A database of the pool; its owner is a role of the same name.
    #[arg(long = "database", value_name = "NAME")]
    pub databases: Vec<String>,
    /// A Front End: where clients connect.
    #[arg(long = "front-end", value_name = "NAME=HOST")]
    pub front_ends: Vec<String>,
}
