//! What mirroring through Backstay costs, compared with what it stands on.
//!
//! Two pairs of servers with the same settings on the same machine: one with PostgreSQL's plain
//! synchronous replication, one that Backstay mirrors. pgbench runs on them in turns, so that
//! whatever else the machine does hits both alike; what counts is the ratio of the medians.

mod gateway;
mod mirrored;
mod packages;
mod plain;
mod process;
mod witness;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{output, postgres, run};
pub use gateway::forwarding;
use mirrored::Mirrored;
use plain::Plain;
use process::Interrupt;
pub use witness::witness;

/// The least ratio of transactions per second that is acceptable.
const GOAL: f64 = 0.97;

struct Options {
    runs: usize,
    seconds: u32,
    clients: u32,
    scale: u32,
    /// The `backstay` to measure; without it, a release build is made.
    binary: Option<PathBuf>,
}

const USAGE: &str = "\
usage: cargo xtask bench mirroring [--runs N] [--seconds N] [--clients N] [--scale N] [--binary FILE]";

impl Options {
    fn parse(arguments: &[&str]) -> Result<Options> {
        let mut options = Options { runs: 5, seconds: 20, clients: 8, scale: 10, binary: None };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if !rest.is_empty() {
            bail!("{USAGE}");
        }
        for [name, value] in pairs {
            let number = || value.parse::<u32>().with_context(|| format!("{name} {value}"));
            match *name {
                "--runs" => options.runs = number()?.max(1) as usize,
                "--seconds" => options.seconds = number()?.max(1),
                "--clients" => options.clients = number()?.max(1),
                "--scale" => options.scale = number()?.max(1),
                "--binary" => options.binary = Some(PathBuf::from(value)),
                _ => bail!("{USAGE}"),
            }
        }
        Ok(options)
    }
}

/// One run of pgbench.
#[derive(Clone, Copy, Debug)]
struct Run {
    transactions_per_second: f64,
    latency_ms: f64,
}

pub fn mirroring(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let programs = postgres::prepare()?.programs;
    let binary = build(options.binary.as_deref())?;
    let interrupt = Interrupt::watch()?;
    let dir = std::env::temp_dir().join(format!("backstay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    output::heading("setting up", "a mirrored pool, and a plain pair with the same settings");
    let mirrored = Mirrored::start(&binary, &dir.join("mirrored"), &interrupt)?;
    let settings = mirrored.settings(&programs)?;
    let plain = Plain::start(&programs, &dir.join("plain"), &settings)?;
    let pairs = [("plain", plain.uri()), ("mirrored", mirrored.uri())];
    for (_, uri) in pairs {
        let scale = options.scale.to_string();
        run::read(pgbench(&programs).args(["-i", "-q", "-s", &scale]).arg(uri))?;
    }
    let mut runs = [Vec::new(), Vec::new()];
    for turn in 1..=options.runs {
        for (at, (name, uri)) in pairs.into_iter().enumerate() {
            if at == 1 {
                mirrored.expect_mirrored()?;
            }
            interrupt.check()?;
            let run = measure(&programs, uri, &options)?;
            output::say(format_args!(
                "run {turn}  {name:>8}  {:>9.1} transactions/s  {:>7.3} ms",
                run.transactions_per_second, run.latency_ms
            ));
            runs[at].push(run);
        }
    }
    mirrored.expect_mirrored()?;
    drop((plain, mirrored));
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    report(&runs)
}

/// The `backstay` to measure; a release build is made if none is named.
fn build(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = named {
        return Ok(binary.to_path_buf());
    }
    output::heading("building", "backstay, optimised");
    run::pass(&mut run::cargo(&["build", "--release", "--locked", "--package", "backstay"]))?;
    Ok(crate::target().join("release/backstay"))
}

fn pgbench(programs: &Path) -> Command {
    let beside = programs.join("pgbench");
    Command::new(if beside.exists() { beside } else { "pgbench".into() })
}

fn measure(programs: &Path, uri: &str, options: &Options) -> Result<Run> {
    let (clients, seconds) = (options.clients.to_string(), options.seconds.to_string());
    let mut command = pgbench(programs);
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds]).arg(uri);
    let text = run::read(&mut command)?;
    let value = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        let number = line.and_then(|line| line.split_whitespace().find_map(|w| w.parse().ok()));
        number.with_context(|| format!("pgbench printed no line with {label:?}:\n{text}"))
    };
    Ok(Run { transactions_per_second: value("tps =")?, latency_ms: value("latency average =")? })
}

fn report([plain, mirrored]: &[Vec<Run>; 2]) -> Result<()> {
    let rate = |run: &Run| run.transactions_per_second;
    let latency = |run: &Run| run.latency_ms;
    let ratio = median(mirrored, rate) / median(plain, rate);
    output::data("| pair | transactions/s (median) | latency (median) |\n|---|---|---|");
    for (name, runs) in [("plain synchronous replication", plain), ("Backstay", mirrored)] {
        output::data(format_args!(
            "| {name} | {:.1} | {:.3} ms |",
            median(runs, rate),
            median(runs, latency)
        ));
    }
    output::data(format_args!("\nratio {ratio:.3} over {} runs of each", plain.len()));
    if ratio < GOAL {
        bail!("mirroring through Backstay is slower than it may be: {ratio:.3}, at least {GOAL}");
    }
    Ok(())
}

fn median<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Two ports of the loopback address that nobody uses.
fn free_ports() -> Result<[u16; 2]> {
    let listen = || TcpListener::bind(("127.0.0.1", 0)).context("find a free port");
    let (first, second) = (listen()?, listen()?);
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok([port(&first)?, port(&second)?])
}
