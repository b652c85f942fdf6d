//! What only real servers know, looked at before a document is stored.
//!
//! All findings are told at once, each with what to do. An error keeps the document from being
//! published; a warning is for people to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::admin::{
    PreflightData, PreflightPart, PreflightPartSeen, PreflightPort, PreflightSeen, Request,
    Response,
};
use serde::Serialize;
use topology::Checked;
use topology::derive::ServerPart;
use topology::plan::{Plan, size_words};

use super::gather::Gathered;
use super::site::{Process, Site};
use crate::clock;
use crate::output::Colour;

/// Counting the files of a large data directory takes a while.
const LOOK: Duration = Duration::from_secs(20);
/// Clocks may differ by so much: nothing rests on them but what people read and certificates.
const CLOCKS: u64 = 5_000;
/// Left free besides a copy.
const SPARE_ROOM: u64 = 64 << 20;

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub is_error: bool,
    pub process: String,
    pub pool: Option<String>,
    pub sentence: String,
    pub remedy: String,
}

/// What the machines said, and how long that took to arrive.
#[derive(Default)]
pub struct Looked {
    pub seen: BTreeMap<String, PreflightSeen>,
    /// The clock here, when the answers were in.
    pub at_ms: u64,
}

/// Asks every server about the parts that `document` gives it.
pub async fn look(site: &Site, document: &Checked) -> Looked {
    let mut tasks = Vec::new();
    for process in site.processes.iter().filter(|process| process.is_member()) {
        let parts = document.server_parts(&process.name).map(|parts| parts.parts);
        let parts = parts.unwrap_or_default();
        let parts = parts.iter().map(|part| asked(part, &process.name)).collect();
        let (process, request) = (process.clone(), Request::Preflight { parts });
        let site = Site { deployment: site.deployment.clone(), processes: Vec::new() };
        tasks.push(tokio::task::spawn_local(async move {
            let answer = site.ask(&process, &request, LOOK).await;
            (process.name, answer)
        }));
    }
    let mut seen = BTreeMap::new();
    for task in tasks {
        if let Ok((name, Ok(Response::Preflight(found)))) = task.await {
            seen.insert(name, found);
        }
    }
    Looked { seen, at_ms: clock::wall_ms() }
}

fn asked(part: &ServerPart, server: &str) -> PreflightPart {
    let second = part.second.as_ref().filter(|second| second.agent.name == server);
    PreflightPart {
        pool: part.pool.clone(),
        data_dir: part.data_dir.clone(),
        files_dir: part.files_dir.clone(),
        port: second.unwrap_or(&part.first).postgres_port,
        settings: part.settings.keys().cloned().collect(),
    }
}

/// Why a process does not answer, judged by whether the plan needs it.
pub fn unreachable(site: &Site, plan: &Plan, gathered: &Gathered) -> Vec<Finding> {
    let needed: BTreeSet<&String> =
        plan.changes.iter().flat_map(|change| &change.processes).collect();
    let silent = |process: &Process| {
        let why = gathered.silent.get(&process.name)?;
        let is_error = needed.contains(&process.name);
        Some(Finding {
            code: "unreachable",
            is_error,
            process: process.name.clone(),
            pool: None,
            sentence: format!("{} does not answer at {}: {why}", process.name, process.address),
            remedy: match is_error {
                true => "start it, or correct its host and port; a change that needs it cannot \
                         come about without it"
                    .to_owned(),
                false => {
                    "nothing here needs it: it gets the document when it comes back".to_owned()
                }
            },
        })
    };
    site.processes.iter().filter_map(silent).collect()
}

/// Everything else.
pub fn findings(document: &Checked, plan: &Plan, looked: &Looked) -> Vec<Finding> {
    let mut found = Vec::new();
    for (process, seen) in &looked.seen {
        of_process(&mut found, document, process, seen, looked.at_ms);
        for part in &seen.parts {
            of_part(&mut found, document, plan, process, part, looked);
        }
    }
    for pool in &document.pools {
        of_pair(&mut found, &pool.name, pool.partners().map(|it| it.as_str()), looked);
    }
    found
}

fn of_process(
    found: &mut Vec<Finding>,
    document: &Checked,
    process: &str,
    seen: &PreflightSeen,
    now_ms: u64,
) {
    let mut add = |code, is_error, sentence: String, remedy: &str| {
        found.push(Finding {
            code,
            is_error,
            process: process.to_owned(),
            pool: None,
            sentence,
            remedy: remedy.to_owned(),
        });
    };
    if seen.deployment != document.deployment.value {
        let sentence = format!("{process} belongs to the deployment {}", seen.deployment);
        add("other_deployment", true, sentence, "correct its host, or its own file");
    }
    if seen.version != env!("CARGO_PKG_VERSION") {
        let own = env!("CARGO_PKG_VERSION");
        let sentence = format!("{process} is Backstay {}, this command is {own}", seen.version);
        add("other_version", false, sentence, "update the older one soon");
    }
    if let Some(problem) = &seen.postgres_problem {
        let remedy = "install PostgreSQL's server programs there, or set pg_bin_dir";
        add("no_programs", true, format!("{process}: {problem}"), remedy);
    }
    let apart = seen.clock_ms.abs_diff(now_ms);
    if apart > CLOCKS {
        let sentence = format!("the clock of {process} differs by {} s", apart / 1_000);
        add("clock", false, sentence, "let a time service run on both machines");
    }
}

fn of_part(
    found: &mut Vec<Finding>,
    document: &Checked,
    plan: &Plan,
    process: &str,
    part: &PreflightPartSeen,
    looked: &Looked,
) {
    let mut add = |code, is_error, sentence: String, remedy: &str| {
        found.push(Finding {
            code,
            is_error,
            process: process.to_owned(),
            pool: Some(part.pool.clone()),
            sentence,
            remedy: remedy.to_owned(),
        });
    };
    match &part.data {
        PreflightData::Empty | PreflightData::Ours => {}
        PreflightData::Foreign { sentence } => add(
            "data_directory",
            true,
            format!("on {process}, {sentence}"),
            "choose another root or data_dir, or take those data over: backstay server adopt",
        ),
        PreflightData::Unreadable { sentence } => add(
            "data_directory",
            true,
            format!("on {process}, {sentence}"),
            "let the agent read it, or choose another root or data_dir",
        ),
    }
    if part.data == PreflightData::Ours
        && is_new(plan, &part.pool)
        && is_first(document, process, part)
    {
        add(
            "data_left_over",
            true,
            format!("on {process}, the data of an earlier pool {} are still there", part.pool),
            "move them away: a new pool is never set up over data; or give it another name",
        );
    }
    if let PreflightPort::Taken { sentence } = &part.port {
        let remedy = "stop whatever listens there, or choose another port";
        add("port", true, format!("on {process}, {sentence}"), remedy);
    }
    let needed = copy_to(plan, process, &part.pool).then(|| size(looked, &part.pool)).flatten();
    if let (Some(needed), Some(free)) = (needed, part.free_bytes) {
        let room = free.saturating_add(part.data_bytes.unwrap_or_default());
        if room < needed.saturating_add(SPARE_ROOM) {
            add(
                "space",
                true,
                format!(
                    "the copy of {} needs {}, and there is room for {} on {process}",
                    part.pool,
                    size_words(needed),
                    size_words(room)
                ),
                "free some space on that volume, or choose another root",
            );
        }
    }
}

fn is_new(plan: &Plan, pool: &str) -> bool {
    let added = |code: &str| code == "pool_added";
    plan.changes.iter().any(|it| added(it.code) && it.pool.as_deref() == Some(pool))
}

fn is_first(document: &Checked, process: &str, part: &PreflightPartSeen) -> bool {
    let pool = document.pool(&part.pool);
    let principal = pool.and_then(|pool| pool.principal.as_ref());
    principal.is_some_and(|principal| principal.value == process)
}

fn copy_to(plan: &Plan, process: &str, pool: &str) -> bool {
    let of_pool = plan.changes.iter().filter(|change| change.pool.as_deref() == Some(pool));
    of_pool.flat_map(|change| &change.effects).any(|it| it.copies_to() == Some(process))
}

/// The largest copy that is there: the others may be partial.
fn size(looked: &Looked, pool: &str) -> Option<u64> {
    let parts = looked.seen.values().flat_map(|seen| &seen.parts);
    parts.filter(|part| part.pool == pool).filter_map(|part| part.data_bytes).max()
}

/// Both servers must be able to run the same data.
fn of_pair<'a>(
    found: &mut Vec<Finding>,
    pool: &str,
    partners: impl Iterator<Item = &'a str>,
    looked: &Looked,
) {
    let both: Vec<&PreflightSeen> = partners.filter_map(|name| looked.seen.get(name)).collect();
    let [first, second] = both.as_slice() else { return };
    let major = |seen: &PreflightSeen| {
        seen.postgres.as_ref().and_then(|it| it.split('.').next().map(str::to_owned))
    };
    let mut add = |code, is_error, sentence: String, remedy: &str| {
        found.push(Finding {
            code,
            is_error,
            process: second.process.clone(),
            pool: Some(pool.to_owned()),
            sentence,
            remedy: remedy.to_owned(),
        });
    };
    if let (Some(one), Some(other)) = (major(first), major(second))
        && one != other
    {
        let sentence = format!(
            "{} has PostgreSQL {one} and {} has {other}: the one cannot run the other's data",
            first.process, second.process
        );
        add("postgres_differs", true, sentence, "install the same major version on both");
    }
    if let (Some(one), Some(other)) = (&first.collation_library, &second.collation_library)
        && one != other
    {
        let sentence = format!(
            "{} sorts texts by {one} and {} by {other}: indexes on texts may be wrong after a \
             failover",
            first.process, second.process
        );
        let remedy = "bring both machines to the same release of their system, or use only the \
                      locales C and C.UTF-8";
        add("collation_differs", false, sentence, remedy);
    }
}

/// The findings as people read them.
pub fn text(findings: &[Finding], colour: Colour) -> String {
    let line = |one: &Finding| {
        let label = if one.is_error { colour.bad("error:") } else { colour.warning("warning:") };
        format!("{label} {} [{}]\n   {}\n", one.sentence, one.code, one.remedy)
    };
    findings.iter().map(line).collect()
}
