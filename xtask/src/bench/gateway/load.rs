//! One run of clients against one target, and what it showed.
//!
//! The load is pgbench's. The cost of what stands between is its own processor time divided by the
//! transactions, from `/proc`; percentiles are of every single transaction, from pgbench's log.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::middle::{Middle, Programs};
use super::options::{Load, Options, Point};
use super::pool::Principal;
use crate::bench::process::{self, As, Interrupt, Running};
use crate::clock::Stopwatch;

/// Transactions of each client before a run is measured, so that server connections exist.
const WARM_UP: &str = "20";
/// How long an idle process is looked at.
const IDLE: Duration = Duration::from_secs(2);
/// All clients are served when their gateway used hardly any processor time for so long.
const QUIET: Duration = Duration::from_millis(500);
const QUIET_TIME: Duration = Duration::from_millis(20);
const QUIET_DEADLINE: Duration = Duration::from_secs(60);
/// What a client may take to log in; pgbench derives its SCRAM keys anew each time.
const LOGIN: Duration = Duration::from_millis(50);

/// What a run showed. `None`: it has no such figure.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    pub transactions_per_second: Option<f64>,
    /// Processor time of what stands between, in microseconds for each transaction.
    pub processor_us: Option<f64>,
    pub median_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Resident memory for each client.
    pub client_bytes: Option<f64>,
    /// Of one processor, while all clients are silent.
    pub idle_share: Option<f64>,
}

impl Sample {
    pub fn json(&self) -> Value {
        json!({
            "transactions_per_second": self.transactions_per_second,
            "processor_us": self.processor_us,
            "median_us": self.median_us,
            "p99_us": self.p99_us,
            "client_bytes": self.client_bytes,
            "idle_share": self.idle_share,
        })
    }
}

/// What every run needs.
#[derive(Debug)]
pub struct Bench<'a> {
    pub options: &'a Options,
    pub programs: &'a Programs,
    pub principal: &'a Principal,
    pub interrupt: &'a Interrupt,
    /// For pgbench's scripts and logs.
    pub dir: &'a Path,
}

impl Bench<'_> {
    /// So that no target pays for server connections that the others have already.
    pub fn warm_up(&self, point: Point, middle: &Middle) -> Result<()> {
        let clients = if point.load.is_idle() { 8 } else { point.clients };
        let mut pgbench = self.pgbench(clients, None);
        pgbench.args(["-S", "-t", WARM_UP]);
        self.principal.log_in(&mut pgbench, middle.port());
        process::read_bound(&mut pgbench, self.interrupt).map(drop)
    }

    pub fn run(&self, point: Point, middle: &mut Middle) -> Result<Sample> {
        match point.load {
            Load::Simple => self.queries(point, middle, &["-S", "-M", "simple"]),
            Load::Prepared => self.queries(point, middle, &["-S", "-M", "prepared"]),
            Load::Connect => self.queries(point, middle, &["-S", "-M", "simple", "-C"]),
            Load::Latency => self.latency(point, middle),
            Load::Idle => self.idle(point, middle, ""),
            Load::Queried => self.idle(point, middle, "SELECT 1;\n"),
        }
    }

    fn pgbench(&self, clients: u32, files: Option<&str>) -> Command {
        let program = self.programs.postgres.join("pgbench");
        let mut command = process::bound(&program, As::Ourselves, files);
        let jobs = self.options.jobs.min(clients).to_string();
        command.args(["-n", "-j", &jobs, "-c", &clients.to_string()]);
        command
    }

    fn queries(&self, point: Point, middle: &Middle, arguments: &[&str]) -> Result<Sample> {
        let mut pgbench = self.pgbench(point.clients, None);
        pgbench.args(arguments).args(["-T", &self.options.seconds.to_string()]);
        self.principal.log_in(&mut pgbench, middle.port());
        let used = || middle.pid().map(process::processor_time).transpose();
        let before = used()?;
        let text = process::read_bound(&mut pgbench, self.interrupt)?;
        let after = used()?;
        let transactions = number(&text, "number of transactions actually processed:")?;
        let spent = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(Sample {
            transactions_per_second: Some(number(&text, "tps =")?),
            processor_us: spent.map(|spent| spent.as_secs_f64() * 1e6 / transactions),
            ..Sample::default()
        })
    }

    fn latency(&self, point: Point, middle: &Middle) -> Result<Sample> {
        let prefix = self.dir.join("transactions");
        let prefix = format!("--log-prefix={}", prefix.display());
        let arguments = ["-S", "-M", "prepared", "--log", &prefix];
        let sample = self.queries(point, middle, &arguments)?;
        let mut times = Vec::new();
        let entries = std::fs::read_dir(self.dir);
        for entry in entries.with_context(|| format!("list {}", self.dir.display()))? {
            let file = entry.with_context(|| format!("list {}", self.dir.display()))?.path();
            if !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("transac")) {
                continue;
            }
            let text = std::fs::read_to_string(&file);
            let text = text.with_context(|| format!("read {}", file.display()))?;
            times.extend(text.lines().filter_map(microseconds));
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        times.sort_unstable();
        if times.is_empty() {
            bail!("pgbench logged no transaction below {}", self.dir.display());
        }
        Ok(Sample {
            median_us: percentile(&times, 0.5),
            p99_us: percentile(&times, 0.99),
            ..sample
        })
    }

    /// Memory is measured from a fresh start, after some clients have come and gone.
    fn idle(&self, point: Point, middle: &mut Middle, first: &str) -> Result<Sample> {
        middle.restart(self.principal, self.programs, self.interrupt)?;
        let Some(pid) = middle.pid() else { return Ok(Sample::default()) };
        self.warm_up(point, middle)?;
        self.wait_until_quiet(pid)?;
        let before = process::resident(pid)?;
        let script = self.dir.join("idle.sql");
        let mut text = first.to_owned();
        writeln!(text, "\\sleep 1000 s").context("write the script")?;
        std::fs::write(&script, text).with_context(|| format!("write {}", script.display()))?;
        let files = process::files_for(point.clients)?;
        let mut pgbench = self.pgbench(point.clients, files.as_deref());
        pgbench.arg("-f").arg(&script);
        self.principal.log_in(&mut pgbench, middle.port());
        let log = self.dir.join("idle.log");
        let mut clients = Running::start("the idle clients", &mut pgbench, &log)?;
        let limit = QUIET_DEADLINE + LOGIN * point.clients;
        let wanted = point.clients as usize;
        let here = self.interrupt.wait(limit, || {
            clients.expect_alive().with_context(|| {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                format!("{wanted} clients do not get in; they said: {}", said.trim())
            })?;
            Ok(process::connections_to(middle.port())? >= wanted)
        })?;
        if !here {
            bail!("{wanted} clients did not get in within {limit:?}");
        }
        self.wait_until_quiet(pid)?;
        let after = process::resident(pid)?;
        let (watch, used) = (Stopwatch::start(), process::processor_time(pid)?);
        self.interrupt.pause(IDLE)?;
        let used = process::processor_time(pid)?.saturating_sub(used);
        let share = used.as_secs_f64() / watch.elapsed().as_secs_f64();
        clients.expect_alive().context("the idle clients were sent away")?;
        Ok(Sample {
            client_bytes: Some((after as f64 - before as f64) / f64::from(point.clients)),
            idle_share: Some(share),
            ..Sample::default()
        })
    }

    fn wait_until_quiet(&self, pid: u32) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            let before = process::processor_time(pid)?;
            self.interrupt.pause(QUIET)?;
            if process::processor_time(pid)?.saturating_sub(before) <= QUIET_TIME {
                return Ok(());
            }
            if watch.elapsed() > QUIET_DEADLINE {
                bail!("process {pid} does not come to rest though its clients are silent");
            }
        }
    }
}

/// The number behind a label in what pgbench prints.
fn number(text: &str, label: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let word = line.and_then(|line| line.split([' ', '/']).find(|word| !word.is_empty()));
    let number = word.and_then(|word| word.parse().ok());
    number.with_context(|| format!("pgbench printed no line with {label:?}:\n{text}"))
}

/// The time of a transaction in a line of pgbench's log, the third field.
fn microseconds(line: &str) -> Option<u64> {
    line.split_whitespace().nth(2)?.parse().ok()
}

/// Of sorted values: the least that at least the `share` of them do not exceed.
fn percentile(sorted: &[u64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map(|value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::{microseconds, number, percentile};

    #[test]
    fn figures_are_read_as_pgbench_prints_them() {
        let text = "number of transactions actually processed: 9/10\n\
                    tps = 12345.678 (without initial connection time)\n";
        assert_eq!(number(text, "tps =").ok(), Some(12345.678));
        let label = "number of transactions actually processed:";
        assert_eq!(number(text, label).ok(), Some(9.0));
        assert!(number(text, "latency").is_err());
        assert_eq!(microseconds("0 199 2241 0 1175850568 995598"), Some(2241));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 0.5), Some(100.0));
        assert_eq!(percentile(&values, 0.99), Some(198.0));
        assert_eq!(percentile(&[7], 0.99), Some(7.0));
        assert_eq!(percentile(&[], 0.99), None);
    }
}
