//! `server drain`: moves every principal away from a server, one pool after the other.
//!
//! All pools are looked at before the first one is touched. A pool that cannot be failed over ends
//! the command before anything is done, unless it is left out on purpose. Giving the command again
//! goes on with what is left.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::admin;
use crate::args::DrainArgs;
use crate::clock;
use crate::command::pool::{Outcome, Scope, hand_over, missing};
use crate::deployment::Deployment;
use crate::output::{self, hinted};
use crate::picture::Picture;
use crate::show;

const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    Moved,
    /// It serves elsewhere, and is not mirrored again yet.
    MovedNotMirrored,
    Skipped,
    /// It cannot be failed over, or its failover failed.
    Stays,
    /// Not reached, because an earlier one failed; or this is a dry run.
    ToDo,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Entry {
    pool: String,
    to: Option<String>,
    fate: Fate,
    /// Why it stays, or what it was like.
    sentence: String,
    held_up_ms: Option<u64>,
    mirrored_after_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    server: &'a str,
    /// No pool has its principal there any more.
    drained: bool,
    pools: Vec<Entry>,
    sentence: String,
}

pub async fn run(deployment: &Deployment, args: &DrainArgs) -> anyhow::Result<ExitCode> {
    deployment.member(&args.server)?;
    for pool in &args.skip {
        deployment.pool(pool)?;
    }
    let mut entries = Vec::new();
    for entry in &deployment.pools {
        if entry.first != args.server && entry.second != args.server {
            continue;
        }
        let scope = Scope { deployment, pool: entry };
        let picture = scope.picture().await?;
        if picture.served() && picture.principal.as_deref() != Some(args.server.as_str()) {
            continue;
        }
        entries.push(look(&scope, &picture, args).await);
    }
    let stuck: Vec<&Entry> = entries.iter().filter(|entry| entry.fate == Fate::Stays).collect();
    if args.dry_run || !stuck.is_empty() {
        let possible = stuck.is_empty();
        let sentence = if possible {
            format!("{} would be moved away from {}", count(&entries), args.server)
        } else {
            format!(
                "nothing was done: {} of {} cannot be moved away from {}; mend that, or name them \
                 with --skip",
                stuck.len(),
                count(&entries),
                args.server
            )
        };
        let code = if possible { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        return end(args, entries, sentence, false, code);
    }
    let fault = move_all(deployment, args, &mut entries).await;
    let left: Vec<&str> = entries
        .iter()
        .filter(|entry| matches!(entry.fate, Fate::Skipped | Fate::Stays | Fate::ToDo))
        .map(|entry| entry.pool.as_str())
        .collect();
    let drained = left.is_empty();
    let (sentence, code) = match (&fault, drained) {
        (Some(fault), _) => (fault.clone(), ExitCode::FAILURE),
        (None, true) => {
            let server = &args.server;
            let words = "has no principal; it may be taken down. Its pools run exposed meanwhile";
            (format!("{server} {words}"), ExitCode::SUCCESS)
        }
        (None, false) => (
            format!(
                "{} still has the principal of what was left out: {}",
                args.server,
                left.join(", ")
            ),
            ExitCode::SUCCESS,
        ),
    };
    end(args, entries, sentence, drained, code)
}

fn count(entries: &[Entry]) -> String {
    match entries.len() {
        1 => "1 pool".to_owned(),
        many => format!("{many} pools"),
    }
}

/// What would become of a pool.
async fn look(scope: &Scope<'_>, picture: &Picture, args: &DrainArgs) -> Entry {
    let mut entry = Entry {
        pool: scope.pool.name.clone(),
        to: None,
        fate: Fate::ToDo,
        sentence: picture.sentence.clone(),
        held_up_ms: None,
        mirrored_after_ms: None,
    };
    if args.skip.contains(&entry.pool) {
        entry.fate = Fate::Skipped;
        return entry;
    }
    if !picture.served() {
        entry.fate = Fate::Stays;
        return entry;
    }
    match missing(scope).await {
        Ok((to, missing)) => {
            entry.to = Some(to);
            if !missing.is_empty() {
                entry.fate = Fate::Stays;
                entry.sentence = missing.join("; ");
            }
        }
        Err(error) => {
            entry.fate = Fate::Stays;
            entry.sentence = format!("{error:#}");
        }
    }
    entry
}

/// Moves what is to be moved. The reason if that ended early.
async fn move_all(
    deployment: &Deployment,
    args: &DrainArgs,
    entries: &mut [Entry],
) -> Option<String> {
    let all = entries.len();
    for (at, entry) in entries.iter_mut().enumerate() {
        if entry.fate != Fate::ToDo {
            continue;
        }
        let pool = deployment.pool(&entry.pool).ok()?;
        let scope = Scope { deployment, pool };
        output::talk(&format!("{}/{all} {}: failing over", at + 1, entry.pool));
        match hand_over(&scope, entry.to.as_deref()).await {
            Ok(outcome) => note(entry, &outcome),
            Err(error) => {
                entry.fate = Fate::Stays;
                entry.sentence = format!("{error:#}");
            }
        }
        output::talk(&format!("{}/{all} {}: {}", at + 1, entry.pool, entry.sentence));
        if entry.fate == Fate::Stays {
            return Some(format!("{} was not moved: {}", entry.pool, entry.sentence));
        }
        let patience = Duration::from_secs(args.patience);
        match mirrored_again(&scope, patience).await {
            Ok(took) => {
                let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                entry.mirrored_after_ms = Some(ms);
                output::talk(&format!(
                    "{}/{all} {}: mirrored again after {}",
                    at + 1,
                    entry.pool,
                    show::span(ms)
                ));
            }
            Err(why) => {
                entry.fate = Fate::MovedNotMirrored;
                entry.sentence.clone_from(&why);
                return Some(format!(
                    "{} is not mirrored again after {} s ({why}); the other pools were left alone",
                    entry.pool, args.patience
                ));
            }
        }
    }
    None
}

fn note(entry: &mut Entry, outcome: &Outcome) {
    entry.fate = if outcome.done { Fate::Moved } else { Fate::Stays };
    entry.held_up_ms = outcome.held_up_ms;
    entry.sentence.clone_from(&outcome.sentence);
}

/// How long it took, or why it is not so.
async fn mirrored_again(scope: &Scope<'_>, patience: Duration) -> Result<Duration, String> {
    let begun = clock::now();
    loop {
        let picture = admin::picture(scope.deployment, scope.pool).await;
        let picture = picture.map_err(|error| format!("{error:#}"))?;
        if picture.redundant() {
            return Ok(clock::now() - begun);
        }
        if clock::now() - begun > patience {
            return Err(picture.sentence);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn end(
    args: &DrainArgs,
    pools: Vec<Entry>,
    sentence: String,
    drained: bool,
    code: ExitCode,
) -> anyhow::Result<ExitCode> {
    let report = Report { server: &args.server, drained, pools, sentence };
    if args.json {
        output::json(&report)?;
        return Ok(code);
    }
    for entry in &report.pools {
        let words = match entry.fate {
            Fate::Moved => "moved",
            Fate::MovedNotMirrored => "moved, NOT MIRRORED",
            Fate::Skipped => "left out",
            Fate::Stays => "STAYS",
            Fate::ToDo => "to do",
        };
        let to = entry.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        output::data(&format!("{}{to}: {words}: {}", entry.pool, entry.sentence));
    }
    if code == ExitCode::SUCCESS {
        output::data(&report.sentence);
        return Ok(code);
    }
    Err(hinted(report.sentence, "see the pools: backstay pool list"))
}
