//! `pool history`: what happened, as each member remembers it, merged by time.
//!
//! Members have clocks of their own: entries of different members may stand in the wrong order by
//! as much as their clocks differ. Each entry names its member.

use protocol::admin::{HistoryEntry, HistoryKind, Request, Response};
use serde::Serialize;

use super::Scope;
use crate::output::{self, Colour, Table};

/// The published form: see docs/json.md.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct History {
    pub pool: String,
    pub entries: Vec<HistoryEntry>,
    /// Members that did not answer: their part is missing.
    pub silent: Vec<String>,
}

pub async fn run(scope: &Scope<'_>, json: bool) -> anyhow::Result<()> {
    let history = gather(scope, None).await?;
    if json {
        return output::json(&history);
    }
    let told = history.entries.iter().filter(|entry| entry.kind != HistoryKind::Phase);
    output::data(&text(told, Times::Whole, Colour::for_stdout()));
    for name in &history.silent {
        output::talk(&format!("{name} does not answer: what it alone remembers is missing"));
    }
    Ok(())
}

/// The newest entries of all members, oldest first.
pub async fn gather(scope: &Scope<'_>, limit: Option<u32>) -> anyhow::Result<History> {
    let mut history = History { pool: scope.name(), entries: Vec::new(), silent: Vec::new() };
    for name in scope.pool.member_names() {
        let request = Request::History { pool: scope.name(), after: None, limit };
        match scope.ask(name, &request).await {
            Ok(Response::History { entries, .. }) => history.entries.extend(entries),
            Ok(_) | Err(_) => history.silent.push(name.to_owned()),
        }
    }
    anyhow::ensure!(
        history.silent.len() < scope.pool.member_names().count(),
        "no member of {} answers",
        scope.pool.name
    );
    history
        .entries
        .sort_by(|a, b| (a.at_ms, &a.member, a.number).cmp(&(b.at_ms, &b.member, b.number)));
    Ok(history)
}

/// How a time is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// With the date.
    Whole,
    /// Of today.
    OfDay,
}

/// What a person wants to see of the last minutes: not the same record on every member.
pub fn is_news(entry: &HistoryEntry) -> bool {
    match entry.kind {
        HistoryKind::Phase => false,
        HistoryKind::RecordChanged => entry.cause.as_deref() != Some("newer_record"),
        HistoryKind::RoleChanged
        | HistoryKind::Failover
        | HistoryKind::Alarm
        | HistoryKind::Process => true,
    }
}

/// Entries as a table; a failover with the milliseconds of its phases.
pub fn text<'a>(
    entries: impl Iterator<Item = &'a HistoryEntry>,
    times: Times,
    colour: Colour,
) -> String {
    let mut table = Table::new(&["TIME (UTC)", "MEMBER", "TERM", "WHAT HAPPENED"]);
    for entry in entries {
        let sentence = match entry.kind {
            HistoryKind::Alarm => colour.bad(&entry.sentence),
            HistoryKind::Failover => colour.strong(&entry.sentence),
            HistoryKind::RoleChanged
            | HistoryKind::RecordChanged
            | HistoryKind::Phase
            | HistoryKind::Process => entry.sentence.clone(),
        };
        table.row(vec![
            match times {
                Times::Whole => entry.at.clone(),
                Times::OfDay => entry.at.get(11..23).unwrap_or(&entry.at).to_owned(),
            },
            entry.member.clone(),
            entry.term.to_string(),
            format!("{sentence}{}", phases(entry)),
        ]);
    }
    table.to_string()
}

fn phases(entry: &HistoryEntry) -> String {
    if entry.phases.is_empty() {
        return String::new();
    }
    let words: Vec<String> =
        entry.phases.iter().map(|phase| format!("{} {} ms", phase.phase, phase.ms)).collect();
    format!(" ({})", words.join(", "))
}
