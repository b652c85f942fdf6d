//! `pool status`: what the pool is, and whether it would survive the next fault.

use std::process::ExitCode;
use std::time::Duration;

use crate::admin;
use crate::deployment::{Deployment, PoolEntry};
use crate::output::{self, Colour, Screen};
use crate::picture::{Picture, State};
use crate::show;

const REDRAW: Duration = Duration::from_millis(500);
const JSON_LINE: Duration = Duration::from_secs(1);

pub async fn run(
    deployment: &Deployment,
    pool: Option<&str>,
    watch: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let pools: Vec<&PoolEntry> = match pool {
        Some(name) => vec![deployment.pool(name)?],
        None => deployment.pools.iter().collect(),
    };
    if watch {
        return keep_showing(deployment, &pools, json).await;
    }
    let pictures = look(deployment, &pools).await?;
    match (json, pool) {
        // One pool was asked for: one object. Otherwise a list, also of one.
        (true, Some(_)) => output::json(&pictures[0])?,
        (true, None) => output::json(&pictures)?,
        (false, _) => output::data(&text(&pictures, Colour::for_stdout())),
    }
    Ok(exit_code(&pictures))
}

async fn look(deployment: &Deployment, pools: &[&PoolEntry]) -> anyhow::Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for pool in pools {
        pictures.push(admin::whole_picture(deployment, pool, admin::LOOK_DEADLINE).await?);
    }
    Ok(pictures)
}

fn text(pictures: &[Picture], colour: Colour) -> String {
    let texts: Vec<String> =
        pictures.iter().map(|picture| show::picture(picture, colour)).collect();
    texts.join("\n")
}

/// The worst state of the pools that were shown.
fn exit_code(pictures: &[Picture]) -> ExitCode {
    let code = |picture: &Picture| match picture.state {
        State::Mirrored => 0,
        State::Exposed => 3,
        State::NotServed => 4,
    };
    ExitCode::from(pictures.iter().map(code).max().unwrap_or(0))
}

async fn keep_showing(
    deployment: &Deployment,
    pools: &[&PoolEntry],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut screen = if json { None } else { Screen::open() };
    let mut ticks = tokio::time::interval(if json { JSON_LINE } else { REDRAW });
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = &mut ended => return Ok(ExitCode::SUCCESS),
            _ = ticks.tick() => {}
        }
        let pictures = look(deployment, pools).await?;
        match &mut screen {
            Some(screen) => screen.draw(&text(&pictures, Colour::for_stdout())),
            None if json => pictures.iter().try_for_each(output::json_line)?,
            None => output::data(&text(&pictures, Colour::Off)),
        }
    }
}
