//! The arguments of `backstay server`: the agent itself, and what is done with a server.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Which;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ServerArgs {
    #[command(flatten)]
    pub agent: Option<AgentArgs>,
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
}

#[derive(Args, Debug)]
pub struct AgentArgs {
    /// The server's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Stop PostgreSQL as well when SIGTERM or SIGINT ends the agent.
    #[arg(long)]
    pub stop_postgres: bool,
}

#[derive(Subcommand, Debug)]
pub enum ServerCommand {
    /// Take over an existing PostgreSQL with its data, as the only server of a new pool.
    ///
    /// Run it on the server, as root. It looks first, and shows what it found, what will change,
    /// and what stays; then it asks. The data stay where they are and are not rewritten. Clients
    /// are interrupted by one restart; port, roles, passwords and access rules stay. `backstay
    /// server release` gives everything back.
    Adopt(AdoptArgs),
    /// Give an adopted PostgreSQL back to whoever started it before.
    ///
    /// Run it on the server, as root. The pool must have no mirror any more. Clients are
    /// interrupted by one restart. Also undoes an adoption that was interrupted.
    Release(ReleaseArgs),
    /// Move everything away that has its principal on a server, for maintenance.
    ///
    /// Fails over one pool after the other, and waits for each until it is mirrored again. If a
    /// pool cannot be failed over, nothing is done unless it is named with --skip.
    Drain(DrainArgs),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("place").required(true).args(["cluster", "data_dir"])))]
pub struct AdoptArgs {
    /// The name of the new pool.
    pub pool: String,
    /// The server's configuration (TOML): the pool is added to it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A cluster of Debian's tools, such as 15/main.
    #[arg(long, value_name = "VERSION/NAME")]
    pub cluster: Option<String>,
    /// Any PostgreSQL's data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where Backstay keeps its own files about it (default: beside the data, DIR.backstay).
    #[arg(long, value_name = "DIR")]
    pub files_dir: Option<PathBuf>,
    /// The superuser to look at it with (default: the owner of the data).
    #[arg(long, value_name = "ROLE")]
    pub superuser: Option<String>,
    /// Where PostgreSQL listens from now on (default: as before).
    #[arg(long, value_name = "ADDRESSES")]
    pub listen: Option<String>,
    /// How other members reach this server (default: its host name).
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// How long the shutdown may take.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub stop_timeout: u64,
    #[command(flatten)]
    pub manner: Manner,
}

#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// The pool's name.
    pub pool: String,
    /// The server's configuration (TOML): the pool is taken out of it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where Backstay's own files about it are, if the configuration does not name the pool.
    #[arg(long, value_name = "DIR")]
    pub files_dir: Option<PathBuf>,
    /// Drop the roles and schemas that Backstay made.
    #[arg(long)]
    pub drop_roles: bool,
    /// Leave it stopped.
    #[arg(long)]
    pub no_start: bool,
    /// Release it although the pool has another server, or cannot be asked. THE DATA PART WAYS:
    /// the other server may serve on with its own copy.
    #[arg(long)]
    pub abandon_pool: bool,
    #[command(flatten)]
    pub manner: Manner,
}

#[derive(Args, Debug)]
pub struct Manner {
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The directory of the administrator's certificate (default: ~/.config/backstay/DEPLOYMENT).
    #[arg(long, env = "BACKSTAY_TRUST", value_name = "DIR")]
    pub trust: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    pub which: Which,
    /// The server that is to have no principal.
    pub server: String,
    /// Leave this pool as it is, also if its principal stays there.
    #[arg(long, value_name = "POOL")]
    pub skip: Vec<String>,
    /// How long each pool may take until it is mirrored again.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub patience: u64,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
