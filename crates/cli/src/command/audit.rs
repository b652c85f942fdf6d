//! `backstay audit`: who asked the members to change something, and what became of it.
//!
//! Each member keeps a trail of its own; they are merged by time, which clocks that differ may get
//! wrong by as much. A member that does not answer is told, and makes the command fail: its part
//! is missing.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use protocol::admin::{AuditEntry, Request, Response};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::{self, LOOK_DEADLINE};
use crate::args::AuditArgs;
use crate::clock;
use crate::deployment::{Deployment, MemberEntry};
use crate::output::{self, Colour, Table, hinted};

/// The published form: see docs/json.md.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
struct Trail {
    entries: Vec<Entry>,
    /// Members of which older entries are not shown.
    more: Vec<String>,
    /// Members whose part is missing, and why.
    missing: Vec<Missing>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Entry {
    member: String,
    #[serde(flatten)]
    entry: AuditEntry,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Missing {
    member: String,
    problem: String,
}

/// Exit status 1 if the part of a member is missing.
pub async fn run(deployment: &Deployment, args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let since_ms = args.since.as_deref().map(|text| since(text, clock::wall_ms())).transpose()?;
    let members = match &args.member {
        Some(name) => vec![deployment.member(name)?.clone()],
        None => deployment.members.clone(),
    };
    let trail = gather(deployment, members, since_ms, args.limit).await;
    if args.json {
        output::json(&trail)?;
    } else {
        output::data(&text(&trail.entries, Colour::for_stdout()));
    }
    for member in &trail.more {
        output::talk(&format!("{member} has older entries: --since and --limit choose which"));
    }
    for Missing { member, problem } in &trail.missing {
        output::talk(&format!("the trail of {member} is missing: {problem}"));
    }
    Ok(if trail.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gather(
    deployment: &Deployment,
    members: Vec<MemberEntry>,
    since_ms: Option<u64>,
    limit: u32,
) -> Trail {
    let request = Request::Audit { since_ms, limit: Some(limit) };
    let mut asked = Vec::new();
    for member in members {
        let (deployment, request) = (deployment.name.clone(), request.clone());
        asked.push(tokio::task::spawn_local(async move {
            let answer = admin::ask(&deployment, &member, &request, LOOK_DEADLINE).await;
            (member.name, answer)
        }));
    }
    let mut trail = Trail::default();
    for task in asked {
        let Ok((member, answer)) = task.await else { continue };
        let problem = match answer {
            Ok(Response::Audit(part)) => {
                trail.more.extend(part.more.then(|| member.clone()));
                let entry = |entry| Entry { member: member.clone(), entry };
                trail.entries.extend(part.entries.into_iter().map(entry));
                continue;
            }
            Ok(_) => "it answers something else than asked".to_owned(),
            Err(error) => error.to_string(),
        };
        trail.missing.push(Missing { member, problem });
    }
    // Stable: what one member noted at one moment stays in its order.
    trail.entries.sort_by_key(|entry| entry.entry.at_ms);
    trail
}

/// Milliseconds since 1970 of a time, or of a span before now.
fn since(text: &str, now_ms: u64) -> anyhow::Result<u64> {
    let unit = |letter| match letter {
        's' => Some(Duration::from_secs(1)),
        'm' => Some(Duration::from_mins(1)),
        'h' => Some(Duration::from_hours(1)),
        'd' => Some(Duration::from_hours(24)),
        _ => None,
    };
    let span = text.chars().last().and_then(unit).and_then(|unit| {
        let count: u32 = text[..text.len() - 1].parse().ok()?;
        unit.checked_mul(count)
    });
    if let Some(span) = span {
        return Ok(now_ms.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        hinted(
            format!("--since {text}: this is neither a span nor a time"),
            "a span is a number and s, m, h or d: 30m; a time is 2026-11-23T05:00:00Z",
        )
    })?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).context("--since is before 1970")
}

fn text(entries: &[Entry], colour: Colour) -> String {
    let mut table = Table::new(&["TIME (UTC)", "MEMBER", "WHO", "ROLE", "OUTCOME", "WHAT"]);
    for Entry { member, entry } in entries {
        let outcome = match entry.outcome.as_str() {
            "asked" => colour.faint(&entry.outcome),
            "done" | "begun" | "published" | "handed" => colour.good(&entry.outcome),
            _ => colour.bad(&entry.outcome),
        };
        table.row(vec![
            entry.at.clone(),
            member.clone(),
            entry.who.clone(),
            entry.role.clone(),
            outcome,
            words(&entry.what),
        ]);
    }
    table.to_string()
}

/// A request in one line: its name, then its fields.
fn words(what: &serde_json::Value) -> String {
    let Some(fields) = what.as_object() else { return what.to_string() };
    let name = fields.get("request").and_then(serde_json::Value::as_str).unwrap_or_default();
    let others = fields.iter().filter(|(field, _)| *field != "request").map(|(field, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!(" {field}={}", value.replace('\n', " "))
    });
    [name.to_owned()].into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_and_a_time_are_understood_and_nothing_else() {
        assert_eq!(since("30m", 10_000_000).unwrap(), 10_000_000 - 1_800_000);
        assert_eq!(since("7d", 5).unwrap(), 0);
        assert_eq!(since("1970-01-01T00:00:01.5Z", 0).unwrap(), 1_500);
        for text in ["", "m", "yesterday", "1y", "-3h", "5\u{fc}", "1960-01-01T00:00:00Z"] {
            assert!(since(text, 9).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_is_one_line() {
        let what = serde_json::json!({"request": "failover", "pool": "p", "dry_run": false});
        assert_eq!(words(&what), "failover dry_run=false pool=p");
    }
}
