//! What forwarding through the gateway costs, compared with a direct connection, PgBouncer and
//! HAProxy.
//!
//! All lead to the same principal, of a demo that is started for it. The targets take turns within
//! each round, so that whatever else the machine does hits them alike, and another one begins each
//! round, so that none always follows the same neighbour. Linux only.

mod load;
mod middle;
mod options;
mod pool;
mod report;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::mirrored::Mirrored;
use super::process::{self, Interrupt};
use super::{build, packages};
use crate::{output, postgres, run};
use load::Bench;
use middle::{Middle, Programs};
use options::{Options, Point, Target};
use pool::Principal;
use report::{Report, Row};

/// How long the machine is looked at before each run.
const LOOK: Duration = Duration::from_millis(100);

pub fn forwarding(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let found = postgres::prepare()?;
    let wanted = |target: &Target| options.targets.contains(target);
    let mut programs = Programs {
        postgres: found.programs,
        pgbouncer: Default::default(),
        haproxy: Default::default(),
        backstay: build(options.binary.as_deref())?,
    };
    if wanted(&Target::PgBouncer) || wanted(&Target::Control) {
        programs.pgbouncer = packages::prepare("pgbouncer")?;
    }
    if wanted(&Target::HaProxy) {
        programs.haproxy = packages::prepare("haproxy")?;
    }
    let interrupt = Interrupt::watch()?;
    let dir = std::env::temp_dir().join(format!("backstay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let outcome = measure(&options, &programs, &dir, &interrupt);
    let removed =
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()));
    let report = outcome?;
    removed?;
    report.show();
    if let Some(file) = &options.json {
        let text = format!("{:#}\n", whole(&report, &options, &programs)?);
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    report.judge()
}

fn measure(
    options: &Options,
    programs: &Programs,
    dir: &Path,
    interrupt: &Interrupt,
) -> Result<Report> {
    output::heading("setting up", "a mirrored pool, and what stands before its principal");
    let pool = Mirrored::start(&programs.backstay, &dir.join("mirrored"), interrupt)?;
    interrupt.check()?;
    let principal = Principal::of(&pool, &programs.postgres, options.keys)?;
    let scale = options.scale.to_string();
    let mut tables = Command::new(programs.postgres.join("pgbench"));
    tables.args(["-i", "-q", "-s", &scale]);
    run::read(principal.log_in(&mut tables, principal.port))?;
    let mut middles = Vec::new();
    for (at, target) in options.targets.iter().enumerate() {
        let own = dir.join(format!("target-{at}"));
        let middle = Middle::start(target, &own, programs, &principal, options, interrupt)?;
        middles.push(middle);
    }
    let bench = Bench { options, programs, principal: &principal, interrupt, dir };
    let mut report = Report::default();
    for point in &options.points {
        measure_point(&bench, *point, &mut middles, &mut report)?;
    }
    pool.expect_mirrored().context("the pool changed while it was measured")?;
    Ok(report)
}

fn measure_point(
    bench: &Bench<'_>,
    point: Point,
    middles: &mut [Middle],
    report: &mut Report,
) -> Result<()> {
    output::heading(&point.to_string(), "");
    // Nothing stands between, or every client would take a connection of the server.
    let has_figure = |target: &Target| match target {
        Target::Direct | Target::HaProxy => !point.load.is_idle(),
        Target::PgBouncer | Target::Control | Target::Gateway(_) => true,
    };
    let mut middles: Vec<&mut Middle> =
        middles.iter_mut().filter(|middle| has_figure(middle.target())).collect();
    let row = |target: &Target| Row { point, target: target.clone(), samples: Vec::new() };
    let mut rows: Vec<Row> = middles.iter().map(|middle| row(middle.target())).collect();
    for middle in &middles {
        bench.warm_up(point, middle)?;
    }
    let rounds = if point.load.is_idle() { 1 } else { bench.options.rounds };
    for round in 0..rounds {
        for turn in 0..middles.len() {
            let at = (round + turn) % middles.len();
            report.beside.push(others(bench.interrupt)?);
            let sample = bench
                .run(point, middles[at])
                .with_context(|| format!("measure {point} through {}", middles[at].target()))?;
            rows[at].samples.push(sample);
            let shown = Row { point, target: rows[at].target.clone(), samples: vec![sample] };
            output::say(shown.line(round + 1));
        }
    }
    report.rows.append(&mut rows);
    Ok(())
}

/// The share of all processors that is taken while nothing is measured.
fn others(interrupt: &Interrupt) -> Result<f64> {
    let (busy, all) = process::machine_ticks()?;
    interrupt.pause(LOOK)?;
    let (busy_then, all_then) = process::machine_ticks()?;
    Ok((busy_then - busy) as f64 / (all_then - all).max(1) as f64)
}

/// The report, and what it was measured with.
fn whole(report: &Report, options: &Options, programs: &Programs) -> Result<Value> {
    let version = |program: &Path, argument: &str| -> Result<Option<String>> {
        if program.as_os_str().is_empty() {
            return Ok(None);
        }
        let text = run::read(Command::new(program).arg(argument))?;
        Ok(text.lines().next().map(str::to_owned))
    };
    let mut value = report.json();
    value["versions"] = json!({
        "backstay": version(&programs.backstay, "--version")?,
        "postgres": version(&programs.postgres.join("postgres"), "--version")?,
        "pgbouncer": version(&programs.pgbouncer, "--version")?,
        "haproxy": version(&programs.haproxy, "-v")?,
    });
    value["processors"] = json!(std::thread::available_parallelism().map_or(0, usize::from));
    value["rounds"] = json!(options.rounds);
    value["seconds"] = json!(options.seconds);
    value["keys"] = json!(options.keys.name());
    value["pooling"] = json!(options.pooling.name());
    Ok(value)
}
