//! Drills: a fault is played while a client writes, and every acknowledged row is looked for.
//!
//! Each run begins with a mirrored pool and ends with one, so that runs are alike and a pool is
//! left as it was found. What was killed or frozen comes back even if the run fails half-way.

mod counted;
mod crowd;
mod judge;
mod report;
mod scene;
mod writer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::admin::at_text;
use tokio_postgres::{Client, Config, NoTls};

use self::counted::Counted;
use self::crowd::{Crowd, Style};
use self::judge::{Found, Judged};
use self::report::{Moments, Report, Run, ThroughGateway, Verdict};
use self::scene::Scene;
use self::writer::{Kept, Rows, TABLE, Writer};
use crate::args::{DrillArgs, Fault, Through};
use crate::clock;
use crate::deployment;
use crate::output::{self, Colour, hinted};

/// The client that uses the whole connection string, and the one pinned to the former principal.
const FREE: i16 = 0;
const PINNED: i16 = 1;
/// How long writes go on undisturbed before the fault.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long writes go on after a change before the next step.
const BREATH: Duration = Duration::from_millis(300);

/// How many clients write through the gateway if nobody says otherwise.
const CLIENTS: u32 = 20;

pub async fn run(found: &deployment::Found, args: &DrillArgs) -> anyhow::Result<ExitCode> {
    if args.through == Through::Direct && args.clients.is_some() {
        return Err(hinted(
            "--clients is the number of clients that write through the gateway",
            "add --through gateway",
        ));
    }
    let scene = Scene::set(found, args)?;
    let clients = i16::try_from(args.clients.unwrap_or(CLIENTS))?;
    let admin = connect(&scene.hosts).await?;
    make_table(&admin).await?;
    drop(admin);
    let mut runs = Vec::new();
    for number in 1..=args.repeat {
        if args.repeat > 1 {
            output::talk(&format!("run {number} of {}", args.repeat));
        }
        let played = tokio::select! {
            run = play(&scene, args.fault, clients) => run,
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
    let report = Report::new(args, &scene.profile, runs);
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&report.text(Colour::for_stdout()));
    }
    if report.wrong > 0 {
        output::talk(&format!("the rows are left in table {TABLE} for a closer look"));
        return Ok(ExitCode::FAILURE);
    }
    let admin = connect(&scene.hosts).await?;
    admin.batch_execute(&format!("DROP TABLE {TABLE}")).await.context("drop the drill's table")?;
    Ok(ExitCode::SUCCESS)
}

/// The clients of a run.
enum Writers {
    Direct { free: Writer, pinned: Writer },
    Gateway { crowd: Crowd, before: Option<Counted> },
}

impl Writers {
    async fn begin(scene: &Scene, run: i64, clients: i16) -> anyhow::Result<Writers> {
        let Some(door) = &scene.door else {
            let free = Writer::spawn(scene.hosts.clone(), Rows { run, client: FREE });
            let principal = scene.principal_host().await?;
            let rows = Rows { run, client: PINNED };
            return Ok(Writers::Direct {
                free,
                pinned: Writer::spawn(writer::pinned(&principal), rows),
            });
        };
        let before = scene.counted().await;
        Ok(Writers::Gateway { crowd: Crowd::spawn(door, run, clients), before })
    }

    fn all_write(&self) -> bool {
        match self {
            Writers::Direct { free, pinned } => {
                free.progress().acknowledged > 0 && pinned.progress().acknowledged > 0
            }
            Writers::Gateway { crowd, .. } => crowd.all_write(),
        }
    }

    /// When a row was acknowledged last, to a client that is meant to go on.
    fn last(&self) -> Option<Instant> {
        match self {
            Writers::Direct { free, .. } => free.progress().last,
            Writers::Gateway { crowd, .. } => crowd.last(),
        }
    }

    fn measure_waits(&self) {
        match self {
            Writers::Direct { .. } => {}
            Writers::Gateway { crowd, .. } => crowd.measure_waits(),
        }
    }
}

/// One run: mirrored, fault, writes go on, return, mirrored again, verdict.
async fn play(scene: &Scene, fault: Fault, clients: i16) -> anyhow::Result<Run> {
    output::talk("waiting until the pool is mirrored and ready for the fault");
    let before = scene.wait_until_ready(fault).await?;
    let run = i64::try_from(clock::wall_ms())?;
    let writers = Writers::begin(scene, run, clients).await?;
    scene.wait_for("all clients write", || writers.all_write()).await?;
    tokio::time::sleep(WARM_UP).await;

    output::talk(&format!("fault: {}, at {}", fault.name(), at_text(clock::wall_ms())));
    writers.measure_waits();
    let fault_at = clock::now();
    scene.strike(fault, &before).await?;
    scene.wait_until_resumed(fault, &before, || writers.last()).await?;
    let moments = Moments { fault: fault_at, resumed: clock::now() };
    tokio::time::sleep(BREATH).await;

    let returned_at = if scene.bring_back(fault).await? { clock::now() } else { fault_at };
    output::talk("writes go on; waiting until the pool is mirrored again");
    let after = scene.wait_until_ready(fault).await?;
    let mirrored_again = clock::now() - returned_at;
    tokio::time::sleep(BREATH).await;

    let end = end(scene, run, writers, moments).await?;
    Ok(Run {
        outage_ms: report::in_ms(report::outage(&end.kept, moments)),
        acknowledged: end.verdict.acknowledged,
        lost: end.verdict.lost,
        duplicated: end.verdict.duplicated,
        mirrored_again_ms: u64::try_from(mirrored_again.as_millis())?,
        term_before: before.term,
        term_after: after.term,
        gateway: end.gateway,
    })
}

/// What the clients of a run brought home.
struct End {
    /// Of the client whose outage counts, or of all together.
    kept: Kept,
    verdict: Verdict,
    gateway: Option<ThroughGateway>,
}

async fn end(scene: &Scene, run: i64, writers: Writers, moments: Moments) -> anyhow::Result<End> {
    match writers {
        Writers::Direct { free, pinned } => {
            let (free, pinned) = (free.finish().await?, pinned.finish().await?);
            let verdict = look_for_rows(scene, run, &free, &pinned).await?;
            Ok(End { kept: free, verdict, gateway: None })
        }
        Writers::Gateway { crowd, before } => {
            end_of_crowd(scene, run, crowd, before, moments).await
        }
    }
}

async fn end_of_crowd(
    scene: &Scene,
    run: i64,
    crowd: Crowd,
    before: Option<Counted>,
    moments: Moments,
) -> anyhow::Result<End> {
    let went_on = crowd.written_since(moments.fault);
    // Before the clients leave: only those that end by themselves are to be counted.
    let after = scene.counted().await;
    let (all, longest) = crowd.finish().await?;
    let client = connect(&scene.hosts).await?;
    let mut judged = Judged::default();
    for (number, told) in (0..).zip(&all) {
        let found = rows_of(&client, run, number).await?;
        judged = judged.and(Judged::of(told, &found, Style::of(number)));
    }
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for (state, count) in all.iter().flat_map(|told| &told.errors) {
        *errors.entry(state.clone()).or_default() += count;
    }
    let kept_all = all.iter().filter(|told| told.connections_lost == 0);
    let gateway = ThroughGateway {
        clients: all.len() as u64,
        went_on,
        errors,
        connections_lost: all.iter().map(|told| told.connections_lost).sum(),
        longest_wait_ms: report::in_ms(longest),
        present_though_failed: judged.present_though_failed,
        torn: judged.torn,
        settings_lost: kept_all.filter(|told| !told.setting_kept).count() as u64,
        front_end: before.zip(after).and_then(|(before, after)| after.since(&before)),
    };
    let verdict = Verdict {
        acknowledged: judged.acknowledged,
        lost: judged.lost,
        duplicated: judged.duplicated,
    };
    Ok(End { kept: judge::together(&all), verdict, gateway: Some(gateway) })
}

/// A client's rows on the principal that serves now.
async fn rows_of(client: &Client, run: i64, name: i16) -> anyhow::Result<Found> {
    let query = format!(
        "SELECT number, count(*) FROM {TABLE} WHERE run = $1 AND client = $2 GROUP BY number"
    );
    let rows = client.query(&query, &[&run, &name]).await.context("look for the rows")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Looks for every acknowledged row on the principal that serves now.
async fn look_for_rows(
    scene: &Scene,
    run: i64,
    free: &Kept,
    pinned: &Kept,
) -> anyhow::Result<Verdict> {
    let client = connect(&scene.hosts).await?;
    let mut sum = Verdict::default();
    for (kept, name) in [(free, FREE), (pinned, PINNED)] {
        let found = rows_of(&client, run, name).await?;
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
