//! What is to be measured: points, targets, and how long.
//!
//! A point is a kind of load and a number of clients, a target is what the clients connect to.
//! Everything can be narrowed on the command line, because a benchmark that is tuned against has to
//! answer within seconds; without arguments it measures everything that `docs/measurements.md`
//! shows.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

pub const USAGE: &str = "\
usage: cargo xtask bench gateway [OPTION VALUE] ...

  --targets LIST      direct,pgbouncer,control,haproxy,gateway; gateway=FILE measures another
                      build of backstay beside it. The control is a second PgBouncer: how far
                      it lies from the first is what this machine's noise amounts to
  --points LIST       KIND:CLIENTS, of these kinds:
                        simple, prepared  SELECTs by primary key in either protocol
                        connect           the same (simple), each in a new connection
                        latency           the same (prepared), with the time of each
                        idle              logged in and silent: memory and CPU
                        queried           the same after one query each (transaction pooling)
                      (simple:1,simple:8,simple:32,prepared:1,prepared:8,prepared:32,connect:8,
                      latency:1,idle:1000)
  --rounds N          runs of each target at each point, in turns (5)
  --seconds N         length of a run (5)
  --jobs N            threads of pgbench, where there are enough clients (2)
  --pooling MODE      session or transaction, of PgBouncer and gateway (session)
  --keys KIND         light: a SCRAM verifier of one iteration, so that pgbench's own deriving of
                      keys does not hide what is measured; usual: 4,096 (light)
  --scale N           of pgbench's tables (1)
  --binary FILE       the backstay to measure; without it, a release build is made
  --json FILE         every figure, also of the single runs";

const POINTS: &str = "simple:1,simple:8,simple:32,prepared:1,prepared:8,prepared:32,connect:8,\
                      latency:1,idle:1000";
const TARGETS: &str = "direct,pgbouncer,control,haproxy,gateway";

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    Simple,
    Prepared,
    Connect,
    Latency,
    Idle,
    Queried,
}

impl Load {
    const ALL: [Load; 6] =
        [Load::Simple, Load::Prepared, Load::Connect, Load::Latency, Load::Idle, Load::Queried];

    fn name(self) -> &'static str {
        match self {
            Load::Simple => "simple",
            Load::Prepared => "prepared",
            Load::Connect => "connect",
            Load::Latency => "latency",
            Load::Idle => "idle",
            Load::Queried => "queried",
        }
    }

    /// Whether the clients keep silent.
    pub fn is_idle(self) -> bool {
        match self {
            Load::Simple | Load::Prepared | Load::Connect | Load::Latency => false,
            Load::Idle | Load::Queried => true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    pub load: Load,
    pub clients: u32,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.load.name(), self.clients)
    }
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Point> {
        let Some((name, clients)) = text.split_once(':') else {
            bail!("{text:?} is no point: write, say, prepared:8");
        };
        let Some(load) = Load::ALL.into_iter().find(|load| load.name() == name) else {
            bail!(
                "{name:?} is no kind of load: choose from {}",
                Load::ALL.map(Load::name).join(", ")
            );
        };
        let clients = clients.parse().with_context(|| format!("clients of {text:?}"))?;
        if clients == 0 {
            bail!("{text:?} has no clients: write, say, {name}:8");
        }
        Ok(Point { load, clients })
    }
}

/// What the clients connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Direct,
    PgBouncer,
    /// PgBouncer once more.
    Control,
    HaProxy,
    /// Of the binary that is measured, or of another one.
    Gateway(Option<PathBuf>),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Direct => f.pad("direct"),
            Target::PgBouncer => f.pad("pgbouncer"),
            Target::Control => f.pad("control"),
            Target::HaProxy => f.pad("haproxy"),
            Target::Gateway(None) => f.pad("gateway"),
            Target::Gateway(Some(file)) => f.pad(&format!("gateway={}", file.display())),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target> {
        match text.split_once('=') {
            Some(("gateway", file)) => Ok(Target::Gateway(Some(PathBuf::from(file)))),
            None if text == "direct" => Ok(Target::Direct),
            None if text == "pgbouncer" => Ok(Target::PgBouncer),
            None if text == "control" => Ok(Target::Control),
            None if text == "haproxy" => Ok(Target::HaProxy),
            None if text == "gateway" => Ok(Target::Gateway(None)),
            Some(_) | None => bail!("{text:?} is no target: choose from {TARGETS}, gateway=FILE"),
        }
    }
}

/// How long PgBouncer and the gateway leave a server connection to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    Session,
    Transaction,
}

impl Pooling {
    /// As both configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Session => "session",
            Pooling::Transaction => "transaction",
        }
    }
}

/// How dear it is for a client to derive its SCRAM keys, which pgbench does at each log-in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    Light,
    Usual,
}

impl Keys {
    pub fn name(self) -> &'static str {
        match self {
            Keys::Light => "light",
            Keys::Usual => "usual",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub targets: Vec<Target>,
    pub points: Vec<Point>,
    pub rounds: usize,
    pub seconds: u32,
    pub jobs: u32,
    pub pooling: Pooling,
    pub keys: Keys,
    pub scale: u32,
    pub binary: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[&str]) -> Result<Options> {
        let mut options = Options {
            targets: list(TARGETS)?,
            points: list(POINTS)?,
            rounds: 5,
            seconds: 5,
            jobs: 2,
            pooling: Pooling::Session,
            keys: Keys::Light,
            scale: 1,
            binary: None,
            json: None,
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if !rest.is_empty() {
            bail!("{USAGE}");
        }
        for [name, value] in pairs {
            let number = || value.parse::<u32>().with_context(|| format!("{name} {value}"));
            match *name {
                "--targets" => options.targets = list(value)?,
                "--points" => options.points = list(value)?,
                "--rounds" => options.rounds = number()?.max(1) as usize,
                "--seconds" => options.seconds = number()?.max(1),
                "--jobs" => options.jobs = number()?.max(1),
                "--pooling" => options.pooling = pooling(value)?,
                "--keys" => options.keys = keys(value)?,
                "--scale" => options.scale = number()?.max(1),
                "--binary" => options.binary = Some(PathBuf::from(value)),
                "--json" => options.json = Some(PathBuf::from(value)),
                _ => bail!("{USAGE}"),
            }
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        let queried = self.points.iter().any(|point| point.load == Load::Queried);
        if queried && self.pooling == Pooling::Session {
            bail!(
                "after a query a client keeps its server connection with session pooling, and the \
                 server has no thousands of them: add --pooling transaction, or measure idle:N"
            );
        }
        Ok(())
    }

    /// The most clients that are connected at one time.
    pub fn most_clients(&self) -> u32 {
        self.points.iter().map(|point| point.clients).max().unwrap_or(0)
    }
}

fn list<T: FromStr<Err = Error>>(text: &str) -> Result<Vec<T>> {
    text.split(',').map(str::parse).collect()
}

fn pooling(text: &str) -> Result<Pooling> {
    match text {
        "session" => Ok(Pooling::Session),
        "transaction" => Ok(Pooling::Transaction),
        _ => bail!("{text:?} is no pooling: write session or transaction"),
    }
}

fn keys(text: &str) -> Result<Keys> {
    match text {
        "light" => Ok(Keys::Light),
        "usual" => Ok(Keys::Usual),
        _ => bail!("{text:?} are no keys: write light or usual"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, Options, Point, Target};

    #[test]
    fn points_and_targets_are_written_as_they_are_shown() {
        let words = ["--targets", "direct,gateway,gateway=/b", "--points", "prepared:8,idle:10000"];
        let options = Options::parse(&words).expect("they are right");
        let shown: Vec<String> = options.points.iter().map(Point::to_string).collect();
        assert_eq!(shown, ["prepared:8", "idle:10000"]);
        let shown: Vec<String> = options.targets.iter().map(Target::to_string).collect();
        assert_eq!(shown, ["direct", "gateway", "gateway=/b"]);
        assert_eq!(options.most_clients(), 10_000);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for words in [
            ["--points", "prepared"],
            ["--points", "prepared:0"],
            ["--points", "odd:1"],
            ["--points", "queried:1000"],
            ["--targets", "pgpool"],
            ["--targets", "direct=x"],
            ["--pooling", "statement"],
        ] {
            assert!(Options::parse(&words).is_err(), "{words:?}");
        }
        let allowed = ["--points", "queried:1000", "--pooling", "transaction"];
        let options = Options::parse(&allowed).expect("transaction pooling allows it");
        assert_eq!(options.points, [Point { load: Load::Queried, clients: 1000 }]);
    }
}
