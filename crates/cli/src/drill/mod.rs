//! Drills: a fault is played while a client writes, and every acknowledged row is looked for.
//!
//! Each run begins with a mirrored pool and ends with one, so that runs are alike and a pool is
//! left as it was found. What was killed or frozen comes back even if the run fails half-way.

mod report;
mod scene;
mod writer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use protocol::admin::at_text;
use tokio_postgres::{Client, Config, NoTls};

use self::report::{Moments, Report, Run, Verdict};
use self::scene::Scene;
use self::writer::{Kept, Rows, TABLE, Writer};
use crate::args::{DrillArgs, Fault};
use crate::clock;
use crate::deployment::Found;
use crate::output::{self, Colour};

/// The client that uses the whole connection string, and the one pinned to the former principal.
const FREE: i16 = 0;
const PINNED: i16 = 1;
/// How long writes go on undisturbed before the fault.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long writes go on after a change before the next step.
const BREATH: Duration = Duration::from_millis(300);

pub async fn run(found: &Found, args: &DrillArgs) -> anyhow::Result<ExitCode> {
    let scene = Scene::set(found, args)?;
    let admin = connect(&scene.hosts).await?;
    make_table(&admin).await?;
    drop(admin);
    let mut runs = Vec::new();
    for number in 1..=args.repeat {
        if args.repeat > 1 {
            output::talk(&format!("run {number} of {}", args.repeat));
        }
        let played = tokio::select! {
            run = play(&scene, args.fault) => run,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        match played {
            Ok(run) => runs.push(run),
            Err(error) => {
                output::talk("the run failed; what was killed or frozen is brought back");
                scene.bring_back(args.fault).await?;
                return Err(error);
            }
        }
    }
    let report = Report::new(&args.pool, args.fault.name(), &scene.profile, runs);
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&report.text(Colour::for_stdout()));
    }
    if report.lost > 0 {
        output::talk(&format!("the rows are left in table {TABLE} for a closer look"));
        return Ok(ExitCode::FAILURE);
    }
    let admin = connect(&scene.hosts).await?;
    admin.batch_execute(&format!("DROP TABLE {TABLE}")).await.context("drop the drill's table")?;
    Ok(ExitCode::SUCCESS)
}

/// One run: mirrored, fault, writes go on, return, mirrored again, verdict.
async fn play(scene: &Scene, fault: Fault) -> anyhow::Result<Run> {
    output::talk("waiting until the pool is mirrored and ready for the fault");
    let before = scene.wait_until_ready(fault).await?;
    let run = i64::try_from(clock::wall_ms())?;
    let free = Writer::spawn(scene.hosts.clone(), Rows { run, client: FREE });
    let principal = scene.principal_host().await?;
    let pinned = Writer::spawn(writer::pinned(&principal), Rows { run, client: PINNED });
    scene
        .wait_for("both clients write", || {
            free.progress().acknowledged > 0 && pinned.progress().acknowledged > 0
        })
        .await?;
    tokio::time::sleep(WARM_UP).await;

    output::talk(&format!("fault: {}, at {}", fault.name(), at_text(clock::wall_ms())));
    let fault_at = clock::now();
    scene.strike(fault, &before).await?;
    scene.wait_until_resumed(fault, &before, &free).await?;
    let moments = Moments { fault: fault_at, resumed: clock::now() };
    tokio::time::sleep(BREATH).await;

    let returned_at = if scene.bring_back(fault).await? { clock::now() } else { fault_at };
    output::talk("writes go on; waiting until the pool is mirrored again");
    let after = scene.wait_until_ready(fault).await?;
    let mirrored_again = clock::now() - returned_at;
    tokio::time::sleep(BREATH).await;

    let (free, pinned) = (free.finish().await?, pinned.finish().await?);
    let verdict = look_for_rows(scene, run, &free, &pinned).await?;
    Ok(Run {
        outage_ms: report::in_ms(report::outage(&free, moments)),
        acknowledged: verdict.acknowledged,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        mirrored_again_ms: u64::try_from(mirrored_again.as_millis())?,
        term_before: before.term,
        term_after: after.term,
    })
}

/// Looks for every acknowledged row on the principal that serves now.
async fn look_for_rows(
    scene: &Scene,
    run: i64,
    free: &Kept,
    pinned: &Kept,
) -> anyhow::Result<Verdict> {
    let client = connect(&scene.hosts).await?;
    let query = format!(
        "SELECT number, count(*) FROM {TABLE} WHERE run = $1 AND client = $2 GROUP BY number"
    );
    let mut sum = Verdict::default();
    for (kept, name) in [(free, FREE), (pinned, PINNED)] {
        let rows = client.query(&query, &[&run, &name]).await.context("look for the rows")?;
        let found: BTreeMap<i64, i64> =
            rows.iter().map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1))).collect();
        let one = report::verdict(&kept.acknowledged, &found);
        sum.acknowledged += one.acknowledged;
        sum.lost += one.lost;
        sum.duplicated += one.duplicated;
    }
    Ok(sum)
}

async fn make_table(client: &Client) -> anyhow::Result<()> {
    // Without a key: a row that was written twice must be seen, not refused.
    client
        .batch_execute(&format!(
            "SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS {TABLE} \
             (run bigint NOT NULL, client smallint NOT NULL, number bigint NOT NULL)"
        ))
        .await
        .context("make the drill's table")
}

/// A connection to the principal, for as long as it may take to find one.
async fn connect(hosts: &[Config]) -> anyhow::Result<Client> {
    let deadline = clock::now() + Duration::from_secs(30);
    loop {
        let mut problem = None;
        for host in hosts {
            let attempt = tokio::time::timeout(Duration::from_secs(2), host.connect(NoTls)).await;
            match attempt {
                Ok(Ok((client, connection))) => {
                    tokio::task::spawn_local(connection);
                    return Ok(client);
                }
                Ok(Err(error)) => problem = Some(anyhow::Error::new(error)),
                Err(_) => {}
            }
        }
        if clock::now() > deadline {
            let problem = problem.unwrap_or_else(|| anyhow::anyhow!("no host answers"));
            return Err(problem.context("find a server that takes writes"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
