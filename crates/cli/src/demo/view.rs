//! The demo's live view: the pool's picture, what happened last, and what to try next.

use std::path::Path;
use std::time::Duration;

use super::place;
use super::plan::{MemberFiles, POOL, Plan};
use super::process::Life;
use super::supervise::{agent, postmaster};
use crate::admin;
use crate::command::pool::{Scope, recent};
use crate::deployment::Deployment;
use crate::output::{self, Colour, Screen};
use crate::picture::{Picture, State};
use crate::show;

const REDRAW: Duration = Duration::from_millis(400);
const LOOK_DEADLINE: Duration = Duration::from_millis(300);
const HISTORY_LINES: u32 = 8;

/// Draws until it is dropped. Without a terminal it tells changes only, one line each.
pub async fn show(dir: &Path, plan: &Plan) -> anyhow::Result<()> {
    let deployment = plan.deployment();
    let pool = deployment.pool(POOL)?;
    let members = plan.members(dir);
    let mut screen = Screen::open();
    let mut told = String::new();
    let environment = environment(dir);
    let mut ticks = tokio::time::interval(REDRAW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let picture = admin::whole_picture(&deployment, pool, LOOK_DEADLINE).await?;
        match &mut screen {
            Some(screen) => {
                let environment = environment.as_deref();
                screen.draw(&page(&deployment, plan, &members, &picture, environment).await);
            }
            None if told != picture.sentence => {
                output::data(&format!("{POOL}: {}", picture.sentence));
                told = picture.sentence;
            }
            None => {}
        }
    }
}

/// What a second terminal needs to find a demo that is not in the default place.
fn environment(dir: &Path) -> Option<String> {
    let default = place::default_dir().ok();
    let file = dir.join(place::DEPLOYMENT_FILE);
    (default.as_deref() != Some(dir))
        .then(|| format!("export BACKSTAY_DEPLOYMENT={}", file.display()))
}

async fn page(
    deployment: &Deployment,
    plan: &Plan,
    members: &[MemberFiles],
    picture: &Picture,
    environment: Option<&str>,
) -> String {
    let colour = Colour::for_stdout();
    let mut text = show::picture(picture, colour);
    for line in members.iter().filter_map(|member| process_note(member, colour)) {
        text.push_str(&line);
    }
    if let Ok(scope) = Scope::of(deployment, POOL) {
        let lines = recent(&scope, HISTORY_LINES, colour).await;
        text.push_str(&format!("\n{lines}"));
    }
    let through = plan.front_end_strings().unwrap_or_else(|| plan.connection_strings());
    text.push_str(&format!("\n{}  psql \"{}\"\n", colour.strong("connect"), through.uri));
    text.push_str(&format!("{}\n", colour.strong("try next, in a second terminal")));
    if let Some(line) = environment {
        text.push_str(&format!("  {line}\n"));
    }
    let program = output::program();
    for (command, meaning) in advice(picture, members) {
        text.push_str(&format!(
            "  {:<48} {}\n",
            format!("{program} {command}"),
            colour.faint(&meaning)
        ));
    }
    text.push_str(&colour.faint("Ctrl-C ends the demo; its data stay for the next start\n"));
    text
}

fn process_note(member: &MemberFiles, colour: Colour) -> Option<String> {
    let state = |life: Life| match life {
        Life::Runs => None,
        Life::Frozen => Some("frozen"),
        Life::Gone => Some("gone"),
    };
    let life = agent(member).map_or(Life::Gone, |process| process.life());
    let word = state(life)?;
    let postgres = match postmaster(member).map(|process| process.life()) {
        Some(Life::Runs) => "; its PostgreSQL runs",
        Some(Life::Frozen) => "; its PostgreSQL is frozen",
        Some(Life::Gone) | None => "",
    };
    let way = if life == Life::Frozen { "thaw" } else { "restart" };
    Some(format!(
        "  {} {} is {word}{postgres} (backstay demo {way} {})\n",
        colour.warning("process:"),
        member.name,
        member.name
    ))
}

/// What is worth trying in this state: commands, and what they do.
fn advice(picture: &Picture, members: &[MemberFiles]) -> Vec<(String, String)> {
    let down = members.iter().find(|member| agent(member).is_none());
    let frozen = members
        .iter()
        .find(|member| agent(member).is_some_and(|process| process.life() == Life::Frozen));
    let mut lines = Vec::new();
    if let Some(member) = down {
        lines.push((format!("demo restart {}", member.name), "bring it back".to_owned()));
    }
    if let Some(member) = frozen {
        lines.push((format!("demo thaw {}", member.name), "let it go on".to_owned()));
    }
    let fixed: &[(&str, &str)] = match picture.state {
        State::Mirrored => &[
            ("demo kill principal", "its host is lost: watch the mirror take over"),
            ("demo kill server", "only its PostgreSQL crashes"),
            ("demo freeze principal", "a stalled machine, and its return with thaw"),
            ("pool failover pool01", "exchange the roles"),
            ("drill pool01 host-loss", "the same, measured with a writing client"),
            ("drill pool01 crash --through gateway", "what clients of the Front End see of it"),
        ],
        State::Exposed | State::NotServed => &[
            ("pool status --watch", "see what it waits for"),
            ("pool history pool01", "see how it came to this"),
        ],
    };
    let owned = |(command, meaning): &(&str, &str)| ((*command).to_owned(), (*meaning).to_owned());
    lines.extend(fixed.iter().map(owned));
    lines
}
