//! `pool list`: the whole deployment at a glance, one line for each pool.

use std::process::ExitCode;

use protocol::admin::Protection;
use serde::Serialize;

use crate::admin;
use crate::deployment::Deployment;
use crate::output::{self, Colour, Table};
use crate::picture::{Picture, State};
use crate::show;

/// What is printed with --json.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Line {
    pool: String,
    state: State,
    principal: Option<String>,
    mirror: Option<String>,
    protection: Option<Protection>,
    witness: Option<String>,
    witness_connected: Option<bool>,
    front_ends: Vec<FrontEndLine>,
    /// Processes of the pool that do not answer.
    unreachable: Vec<String>,
    alarms: Vec<String>,
    sentence: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct FrontEndLine {
    name: String,
    /// Absent: it does not answer.
    client_sessions: Option<u64>,
}

/// Exit status 4 if a pool is not served.
pub async fn run(deployment: &Deployment, json: bool) -> anyhow::Result<ExitCode> {
    let mut asked = Vec::new();
    for pool in deployment.pools.clone() {
        let deployment = deployment.clone();
        asked.push(tokio::task::spawn_local(async move {
            admin::whole_picture(&deployment, &pool, admin::LOOK_DEADLINE).await
        }));
    }
    let mut lines = Vec::new();
    for task in asked {
        lines.push(line(&task.await??));
    }
    if json {
        output::json(&lines)?;
    } else {
        output::data(&text(&lines, Colour::for_stdout()));
    }
    let all_served = lines.iter().all(|line| line.state != State::NotServed);
    Ok(if all_served { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn line(picture: &Picture) -> Line {
    let members = picture.members.iter().filter(|member| !member.answered);
    let front_ends = picture.front_ends.iter().filter(|front_end| !front_end.answered);
    let silent = members.map(|one| &one.name).chain(front_ends.map(|one| &one.name));
    let front_ends = picture.front_ends.iter().map(|one| FrontEndLine {
        name: one.name.clone(),
        client_sessions: one.status.as_ref().map(|status| status.client_sessions.all),
    });
    Line {
        pool: picture.pool.clone(),
        state: picture.state,
        principal: picture.principal.clone().filter(|_| picture.served()),
        mirror: picture.mirror.clone().filter(|name| picture.served() && !name.is_empty()),
        protection: picture.protection,
        witness: picture.witness.as_ref().map(|witness| witness.name.clone()),
        witness_connected: picture.witness.as_ref().and_then(|witness| witness.connected),
        front_ends: front_ends.collect(),
        unreachable: silent.cloned().collect(),
        alarms: picture.alarms.iter().map(|alarm| alarm.sentence.clone()).collect(),
        sentence: picture.sentence.clone(),
    }
}

fn text(lines: &[Line], colour: Colour) -> String {
    let head =
        ["POOL", "STATE", "PRINCIPAL", "MIRROR", "WITNESS", "FRONT ENDS (CLIENTS)", "ALARMS"];
    let mut table = Table::new(&head);
    let mut notes = String::new();
    for line in lines {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        let witness = match (&line.witness, line.witness_connected) {
            (None, _) => "none".to_owned(),
            (Some(name), Some(false)) => colour.bad(&format!("{name} LOST")),
            (Some(name), Some(true) | None) => name.clone(),
        };
        table.row(vec![
            line.pool.clone(),
            show::state_word(line.state, colour),
            name(&line.principal),
            name(&line.mirror),
            witness,
            front_ends(line, colour),
            line.alarms.len().to_string(),
        ]);
        if line.state == State::NotServed {
            notes.push_str(&format!("{}: {}\n", line.pool, line.sentence));
        }
        if !line.unreachable.is_empty() {
            let names = line.unreachable.join(", ");
            notes.push_str(&format!("{}: {}: {names}\n", line.pool, colour.bad("no answer")));
        }
        for alarm in &line.alarms {
            notes.push_str(&format!("{}: {} {alarm}\n", line.pool, colour.bad("ALARM")));
        }
    }
    if notes.is_empty() { table.to_string() } else { format!("{table}\n{notes}") }
}

fn front_ends(line: &Line, colour: Colour) -> String {
    if line.front_ends.is_empty() {
        return "-".to_owned();
    }
    let shown = line.front_ends.iter().map(|one| match one.client_sessions {
        Some(count) => format!("{} ({count})", one.name),
        None => colour.bad(&format!("{} (no answer)", one.name)),
    });
    shown.collect::<Vec<_>>().join(", ")
}
