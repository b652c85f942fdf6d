//! The command line: nouns, verbs and what their help teaches.
//!
//! Nothing here acts. Help texts are read by people who have just been woken up: the first line
//! says what a command does, the rest says what it costs and what to do next.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod audit;
mod server;
mod topology;

pub use audit::AuditArgs;
pub use server::{AdoptArgs, AgentArgs, DrainArgs, Manner, ReleaseArgs, ServerArgs, ServerCommand};
pub use topology::{NewArgs, PublishArgs, TopologyArgs, TopologyCommand};

const AFTER_HELP: &str = "\
First steps:
  backstay demo                       a mirrored pool on this machine, with real PostgreSQL
  backstay pool status --watch        what it does, from a second terminal
  backstay drill pool01 host-loss     rehearse a fault while a client writes

Exit status: 0 success, 1 failure, 2 wrong usage; `pool status` adds 3 (running exposed) and
4 (not served).";

/// High availability for PostgreSQL: two servers that mirror each other, and a witness.
#[derive(Parser, Debug)]
#[command(name = "backstay", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug)]
pub struct Which {
    /// Which members there are and where; without it, the demo that runs in this directory.
    #[arg(long, global = true, env = "BACKSTAY_DEPLOYMENT", value_name = "FILE")]
    pub deployment: Option<PathBuf>,
    /// The directory of the administrator's certificate (default: ~/.config/backstay/DEPLOYMENT).
    #[arg(long, global = true, env = "BACKSTAY_TRUST", value_name = "DIR")]
    pub trust: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Try everything on this machine: principal, mirror, witness and Front End as real processes.
    ///
    /// Starts a mirrored pool and shows it live: pool `pool01`, servers `be1` and `be2`, witness
    /// `wit1`, and the Front End `fe1` that applications connect to, each a process of its own, on
    /// free loopback ports.
    ///
    /// Ctrl-C stops everything. The next start on the same directory continues where this one
    /// ended. Play faults from a second terminal: `backstay demo kill principal`.
    ///
    /// PostgreSQL is the newest one found, or the one whose programs are in BACKSTAY_PG_BIN.
    Demo(DemoArgs),
    /// Look at a pool and change it.
    Pool(PoolArgs),
    /// The document of the whole deployment: write, check, plan, publish, look back.
    ///
    /// One document names the servers, witnesses, pools and Front Ends. It is checked, what would
    /// change is shown, and when it is published every process does its part by itself.
    Topology(TopologyArgs),
    /// Rehearse a fault while a client writes, and measure what it costs.
    ///
    /// The fault is played on a demo pool (`manual`: on any pool) while a client writes a numbered
    /// row every few milliseconds, and a second client stays pinned to the principal's address.
    /// Every acknowledged row is looked for at the end.
    ///
    /// The write outage is the time from the last row acknowledged before to the first one
    /// acknowledged after the fault. The client gives a statement up after 250 ms of silence, and
    /// then tries all hosts side by side. Exit status 1 if an acknowledged row was lost.
    ///
    /// With `--through gateway` many clients write through the Front End instead, each on one
    /// connection that it keeps. What they are told is compared with what is there: exit status 1
    /// also if a row is there twice, or was reported failed and is there all the same.
    Drill(DrillArgs),
    /// Show who asked the members to change something, and what became of it.
    ///
    /// Every process with a certificate keeps a trail of its own. Exit status 1 if the part of a
    /// member is missing.
    Audit(AuditArgs),
    /// Run the agent of a Back End server, which owns its PostgreSQL.
    ///
    /// It runs in the foreground and logs to standard error (level: BACKSTAY_LOG). SIGTERM ends
    /// the agent and leaves PostgreSQL running; the next agent adopts it. Where the configuration
    /// has no pg_bin_dir, BACKSTAY_PG_BIN names the directory of PostgreSQL's programs.
    ///
    /// With a command: take over a PostgreSQL that is there, give it back, or drain a server.
    Server(ServerArgs),
    /// Run a witness: the third vote of any number of pools.
    Witness(WitnessArgs),
    /// Run a Front End: the gateway that PostgreSQL clients connect to.
    ///
    /// It finds the principal of its pool by asking the servers' agents, and carries its client
    /// sessions over a failover. It runs in the foreground and logs to standard error (level:
    /// BACKSTAY_LOG). SIGTERM ends it, and with it the client sessions.
    FrontEnd(FrontEndArgs),
    /// Make the deployment's own authority, and let servers and people join with it.
    ///
    /// The authority is a directory on an administrator's machine. Whoever has it can let anybody
    /// in: keep it private, and keep a copy of it.
    ///
    /// From nothing to servers that trust each other:
    ///   backstay authority init production --address adm.example.com:7024
    ///   backstay authority serve --listen 0.0.0.0:7024 &
    ///   backstay authority issue-token --name be1 --role server --host be1.example.com
    /// and on be1, with what that printed:
    ///   backstay join --token TOKEN --state-dir /var/lib/backstay
    #[command(verbatim_doc_comment)]
    Authority(AuthorityArgs),
    /// Get this machine's certificate, with a token from `backstay authority issue-token`.
    ///
    /// Key and certificate go to the directory `trust` of the state directory; an administrator's
    /// go to ~/.config/backstay. A running process finds a renewed certificate by itself; a process
    /// that had none before must be started again. May be repeated.
    Join(JoinArgs),
}

#[derive(Args, Debug)]
pub struct AuthorityArgs {
    /// The directory of the authority (default: the only one under ~/.config/backstay).
    #[arg(long, global = true, env = "BACKSTAY_AUTHORITY", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: AuthorityCommand,
}

#[derive(Subcommand, Debug)]
pub enum AuthorityCommand {
    /// Make the authority of a new deployment, and the first administrator's certificate.
    Init {
        /// The deployment's name.
        deployment: String,
        /// The name of the first administrator.
        #[arg(long, value_name = "NAME", default_value = "administrator")]
        administrator: String,
        /// Where `authority serve` will be reached by those who join.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
    },
    /// Print a token that lets one machine or person join. Good once, and for an hour.
    IssueToken {
        #[command(flatten)]
        subject: SubjectArgs,
        /// How many minutes the token is good.
        #[arg(long, value_name = "N", default_value_t = 60,
              value_parser = clap::value_parser!(u32).range(1..=10_080))]
        minutes: u32,
    },
    /// Make a key and a certificate in a directory, to be copied to where they belong.
    ///
    /// For those who copy files to their servers anyway; `issue-token` keeps the key where it is
    /// made.
    Issue {
        #[command(flatten)]
        subject: SubjectArgs,
        /// Where the files go; on the server they belong into `trust` of the state directory.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show who has a certificate.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Renew somebody's certificate no more, and void tokens in that name.
    ///
    /// Members refuse a server, a witness or a Front End as soon as it is not in their
    /// configuration any more. For a person, put the name into the file `trust/revoked` of each
    /// member's state directory: it counts at once.
    Revoke {
        /// Whose certificate.
        name: String,
    },
    /// Answer those who join and those who renew, until it is ended.
    ///
    /// It may run while machines join and be ended again; certificates are renewed 30 days before
    /// their end, as soon as it runs then.
    Serve {
        /// Where to listen.
        #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7024")]
        listen: std::net::SocketAddr,
        /// How others reach it, if `init` was not told. Kept, and written into tokens.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct SubjectArgs {
    /// The name of the process, as in the configuration, or of the person.
    #[arg(long)]
    pub name: String,
    /// What it is.
    #[arg(long, value_enum, default_value_t = RoleName::Server)]
    pub role: RoleName,
    /// A host name or address of it, for clients that check them. May be given several times.
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// The name has a certificate already, and this is for a machine that replaces it.
    #[arg(long)]
    pub again: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum RoleName {
    /// The agent of a Back End server.
    Server,
    Witness,
    FrontEnd,
    Administrator,
    /// Looks, and can change nothing.
    ReadOnlyAdministrator,
}

#[derive(Args, Debug)]
pub struct JoinArgs {
    /// The token; `-` reads it from standard input.
    #[arg(long, env = "BACKSTAY_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Where the authority's service is, if not where the token says.
    #[arg(long, value_name = "HOST:PORT")]
    pub authority: Option<String>,
    /// The state directory of the process that joins.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Join even if there is a good certificate.
    #[arg(long)]
    pub again: bool,
}

#[derive(Args, Debug)]
pub struct WitnessArgs {
    /// The witness's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Args, Debug)]
pub struct FrontEndArgs {
    /// The Front End's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Profile {
    /// A lost host costs writers about 1 s. For hosts close to each other.
    Fast,
    /// A lost host costs writers about 2 s.
    Standard,
    /// A lost host costs writers about 10 s. For busy or distant hosts.
    Tolerant,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Standard => "standard",
            Profile::Tolerant => "tolerant",
        }
    }
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    #[command(flatten)]
    pub start: DemoStart,
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
}

#[derive(Args, Debug)]
pub struct DemoStart {
    #[command(flatten)]
    pub place: DemoDir,
    /// How soon silence counts as a loss. Settled at the first start.
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Run two servers alone: no automatic failover. Settled at the first start.
    #[arg(long)]
    pub without_witness: bool,
    /// Run in the background, return once the pool is mirrored. `backstay demo stop` ends it.
    #[arg(long)]
    pub detach: bool,
    /// The background process itself (started by --detach).
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub supervise: bool,
}

#[derive(Args, Debug, Clone)]
pub struct DemoDir {
    /// Where the demo keeps everything (default: ./.backstay/demo).
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum DemoCommand {
    /// List every process with its role, pids, ports and directories, and how to connect.
    Status {
        #[command(flatten)]
        place: DemoDir,
        /// Print JSON (see docs/json.md).
        #[arg(long)]
        json: bool,
    },
    /// End the demo: every process of it.
    Stop {
        #[command(flatten)]
        place: DemoDir,
    },
    /// End processes at once, as a crash would (SIGKILL). Nothing restarts by itself.
    Kill(FaultArgs),
    /// Freeze processes (SIGSTOP), as a stalled virtual machine would. `thaw` lets them go on.
    Freeze(FaultArgs),
    /// Let frozen processes go on (SIGCONT).
    Thaw(FaultArgs),
    /// Start what was killed; on a running host, end it as a power cut would and start it again.
    Restart(FaultArgs),
}

const TARGETS: &str = "\
Targets:
  principal   the host that serves now: its agent and its PostgreSQL, together
  mirror      the host that mirrors it: its agent and its PostgreSQL, together
  witness     the witness
  server      the principal's PostgreSQL alone; its agent goes on and sees it at once
  front-end   the Front End; its client sessions end with it
  be1, be2, wit1, fe1   the same by name, whatever role it has now";

#[derive(Args, Debug)]
#[command(after_help = TARGETS)]
pub struct FaultArgs {
    /// principal, mirror, witness, server, front-end, or a name.
    pub target: String,
    #[command(flatten)]
    pub place: DemoDir,
}

#[derive(Args, Debug)]
pub struct PoolArgs {
    #[command(flatten)]
    pub which: Which,
    #[command(subcommand)]
    pub command: PoolCommand,
}

#[derive(Subcommand, Debug)]
pub enum PoolCommand {
    /// Set a pool up for the first time: initialise its data, start its session.
    ///
    /// Asked of every member once, after its processes have been started with their
    /// configuration. It never touches data that exists.
    Create {
        /// The pool's name.
        pool: String,
    },
    /// Show every pool of the deployment in one line.
    ///
    /// Exit status: 0 all are served, 4 one is not.
    List {
        /// Print JSON (see docs/json.md).
        #[arg(long)]
        json: bool,
    },
    /// Show roles, protection, lag, lease, and whether automatic failover would work now.
    ///
    /// Exit status: 0 mirrored, 3 running exposed, 4 not served.
    Status {
        /// All pools of the deployment if left out.
        pool: Option<String>,
        /// Keep showing it until Ctrl-C.
        #[arg(long)]
        watch: bool,
        /// Print JSON (see docs/json.md); with --watch one line per second.
        #[arg(long)]
        json: bool,
    },
    /// Exchange principal and mirror without losing anything.
    ///
    /// Writers wait for a fraction of a second. It is refused, with the reason, unless the mirror
    /// is streaming and level.
    Failover {
        /// The pool's name.
        pool: String,
        /// The server that is to be principal; the present mirror if left out.
        #[arg(long, value_name = "SERVER")]
        to: Option<String>,
        /// Show the checks and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON (see docs/json.md).
        #[arg(long)]
        json: bool,
    },
    /// Make a server serve although the rules forbid it. MAY LOSE COMMITS.
    ///
    /// For the case that the principal is gone for good and automatic failover was not possible.
    /// Shows first which data can be reached and how far each copy goes.
    ForceService {
        /// The pool's name.
        pool: String,
        /// The server that is to serve.
        #[arg(long, value_name = "SERVER")]
        to: String,
        /// Say that what was shown may be lost. Without it nothing is changed.
        #[arg(long)]
        accept_data_loss: bool,
    },
    /// Stop mirroring on purpose: the principal runs exposed until `resume`.
    Suspend {
        /// The pool's name.
        pool: String,
    },
    /// Mirror again after `suspend`, or after forced service.
    Resume {
        /// The pool's name.
        pool: String,
        /// After forced service: give up this server's copy of the data and follow the other.
        #[arg(long, value_name = "SERVER", requires = "accept_data_loss")]
        discard: Option<String>,
        /// Say that commits which only the discarded copy holds may be lost.
        #[arg(long, requires = "discard")]
        accept_data_loss: bool,
    },
    /// Show every change of role and state with its time, term and cause.
    History {
        /// The pool's name.
        pool: String,
        /// Print JSON (see docs/json.md).
        #[arg(long)]
        json: bool,
    },
    /// Let a principal that restarted without a witness serve while its mirror is away.
    ///
    /// Only for pools without a witness. Be sure that the other server does not serve.
    ServeAlone {
        /// The pool's name.
        pool: String,
        /// The server that is to serve: the last principal.
        #[arg(long, value_name = "SERVER")]
        server: String,
    },
    /// Let a member that lost its state learn the session from the serving principal alone.
    ///
    /// A member that lost its disk asks both other members and goes on by itself. This is for the
    /// day on which one of them is away for long: be sure that it has not promised its vote to
    /// anybody meanwhile.
    Learn {
        /// The pool's name.
        pool: String,
        /// The server or witness that lost its state.
        #[arg(long, value_name = "NAME")]
        member: String,
    },
    /// Add, replace or remove the witness while the pool runs.
    #[command(subcommand)]
    Witness(WitnessChange),
}

#[derive(Subcommand, Debug)]
pub enum WitnessChange {
    /// Make this witness the pool's third vote.
    Set {
        /// The pool's name.
        pool: String,
        /// The name of the witness in the deployment.
        witness: String,
    },
    /// Run without a witness: no automatic failover any more.
    Remove {
        /// The pool's name.
        pool: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Fault {
    /// An ordered failover (`pool failover`); works on any pool.
    Manual,
    /// The principal's PostgreSQL is killed, its agent lives.
    Crash,
    /// The principal's agent and PostgreSQL are killed together, later restarted.
    HostLoss,
    /// The principal's agent and PostgreSQL are frozen, later thawed.
    Freeze,
    /// The mirror's agent and PostgreSQL are killed together, later restarted.
    MirrorLoss,
    /// The witness is killed, later restarted.
    WitnessLoss,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Manual => "manual",
            Fault::Crash => "crash",
            Fault::HostLoss => "host-loss",
            Fault::Freeze => "freeze",
            Fault::MirrorLoss => "mirror-loss",
            Fault::WitnessLoss => "witness-loss",
        }
    }
}

/// The way that the clients of a drill take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Through {
    /// One client that knows all hosts, and one that stays pinned to the principal's address.
    Direct,
    /// Many clients through the Front End, each on one connection.
    Gateway,
}

impl Through {
    pub fn name(self) -> &'static str {
        match self {
            Through::Direct => "direct",
            Through::Gateway => "gateway",
        }
    }
}

#[derive(Args, Debug)]
pub struct DrillArgs {
    #[command(flatten)]
    pub which: Which,
    /// The pool's name.
    pub pool: String,
    /// What is to happen.
    #[arg(value_enum)]
    pub fault: Fault,
    /// Play the fault so often, and report the median.
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Print JSON (see docs/json.md).
    #[arg(long)]
    pub json: bool,
    /// The way that the clients take.
    #[arg(long, value_enum, default_value_t = Through::Direct)]
    pub through: Through,
    /// How many clients write through the gateway (default: 20).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: Option<u32>,
    /// How the clients connect: all hosts of the pool, or the Front End's address with `--through
    /// gateway`. Known by itself for a demo pool.
    #[arg(long, env = "BACKSTAY_CONNECT", value_name = "URL", hide_env_values = true)]
    pub connect: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
