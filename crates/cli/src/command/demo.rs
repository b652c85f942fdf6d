//! `backstay demo ...`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::args::{DemoArgs, DemoCommand, DemoDir, FaultArgs};
use crate::demo::fault::{self, Deed, Part, Target};
use crate::demo::plan::Plan;
use crate::demo::{self, certificates, place, status, supervise};
use crate::output;

pub async fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None if args.start.detach => demo::detach(&args.start).await?,
        None => demo::start(&args.start).await?,
        Some(DemoCommand::Status { place, json }) => {
            let status = status::look(&existing(place)?).await?;
            if *json {
                output::json(&status)?;
            } else {
                output::data(&status.text());
            }
        }
        Some(DemoCommand::Stop { place }) => {
            demo::stop(&existing(place)?).await?;
            output::talk("the demo has ended; its data stay for the next start");
        }
        Some(DemoCommand::Kill(fault)) => play(fault, Deed::Kill).await?,
        Some(DemoCommand::Freeze(fault)) => play(fault, Deed::Freeze).await?,
        Some(DemoCommand::Thaw(fault)) => play(fault, Deed::Thaw).await?,
        Some(DemoCommand::Restart(fault)) => play(fault, Deed::Restart).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The demo that is meant; it is asked as its administrator from now on.
fn existing(place: &DemoDir) -> anyhow::Result<PathBuf> {
    let dir = place::existing(place.dir.as_deref())?;
    certificates::speak_for(&dir);
    Ok(dir)
}

async fn play(args: &FaultArgs, deed: Deed) -> anyhow::Result<()> {
    let dir = existing(&args.place)?;
    let plan = Plan::read(&dir)?;
    let target = fault::resolve(&dir, &plan, &args.target, deed).await?;
    let words = target.words();
    match deed {
        Deed::Kill => told("killed", &words, target.kill()?)?,
        Deed::Freeze => told("froze", &words, target.freeze()?)?,
        Deed::Thaw => told("thawed", &words, target.thaw()?)?,
        Deed::Restart => restart(&dir, &target).await?,
    }
    Ok(())
}

fn told(deed: &str, words: &str, count: usize) -> anyhow::Result<()> {
    if count == 0 {
        return Err(output::hinted(
            format!("no process of {words} runs"),
            "see what runs: backstay demo status",
        ));
    }
    let noun = if count == 1 { "process" } else { "processes" };
    output::data(&format!("{deed} {words}: {count} {noun}"));
    Ok(())
}

async fn restart(dir: &Path, target: &Target) -> anyhow::Result<()> {
    let words = target.words();
    if target.part == Part::Postgres && supervise::agent(&target.member).is_some() {
        output::data(&format!("{words} is brought back by its agent, without being told"));
        return Ok(());
    }
    fault::restart(dir, target).await?;
    output::data(&format!("started {} again", target.member.name));
    Ok(())
}
