//! The published versions: shown, compared, listed, written to files; and who has which.

use std::path::Path;
use std::process::ExitCode;

use protocol::admin::{
    TopologyAnswer, TopologyCopy, TopologyHolder, TopologyKind, TopologyRequest, TopologySource,
    at_text,
};
use topology::plan::{difference, difference_text};

use super::Known;
use super::document::{Text, marked};
use super::new::write_new;
use super::site::{Site, who};
use crate::clock;
use crate::output::{self, Colour, Table, hinted, program};
use crate::show;

/// A published version; the newest one if none is named.
pub async fn version(site: &Site, version: Option<u64>) -> anyhow::Result<TopologyCopy> {
    let Some(number) = version else {
        return site.newest().await.ok_or_else(|| nothing(site));
    };
    let what = TopologyRequest::Show { version, document: true };
    let found = site.first_answer(what, |answer| match answer {
        TopologyAnswer::Shown(shown) => {
            let header = shown.header.filter(|header| header.version == number)?;
            Some(TopologyCopy { header, document: shown.document? })
        }
        TopologyAnswer::History { .. }
        | TopologyAnswer::Replication(_)
        | TopologyAnswer::Published { .. }
        | TopologyAnswer::Outdated { .. }
        | TopologyAnswer::Faulty { .. }
        | TopologyAnswer::Handed { .. }
        | TopologyAnswer::Newer { .. }
        | TopologyAnswer::Nothing { .. } => None,
    });
    found.await.map_err(|error| {
        hinted(
            format!("nobody has version {number}: {error}"),
            format!("see which there are: {} topology history", program()),
        )
    })
}

fn nothing(site: &Site) -> anyhow::Error {
    hinted(
        format!("nothing is published in {}, or none of its processes answers", site.deployment),
        format!("publish a document: {} topology publish FILE", program()),
    )
}

pub async fn show(known: Known<'_>, number: Option<u64>, json: bool) -> anyhow::Result<ExitCode> {
    let copy = version(&Site::known(known)?, number).await?;
    if json {
        output::json(&copy)?;
    } else {
        output::talk(&who(&copy.header));
        output::data(&copy.document);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn export(
    known: Known<'_>,
    number: Option<u64>,
    file: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let copy = version(&Site::known(known)?, number).await?;
    let text = marked(&copy.document, copy.header.version);
    match file {
        None => output::data(&text),
        Some(file) => {
            write_new(file, &text)?;
            output::talk(&who(&copy.header));
            output::data(&file.display().to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Two version numbers or files, or fewer.
pub async fn diff(
    known: Known<'_>,
    a: Option<&str>,
    b: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (before, after) = match (a, b) {
        (Some(a), Some(b)) => (either(known, a).await?, either(known, b).await?),
        (Some(a), None) => {
            let (one, newest) = (either(known, a).await?, newest(known).await?);
            // A file is what is to come; a version is what was.
            if a.parse::<u64>().is_ok() { (one, newest) } else { (newest, one) }
        }
        (None, _) => {
            let site = Site::known(known)?;
            let newest = version(&site, None).await?;
            let before = match newest.header.version {
                0 | 1 => Text::new("nothing", ""),
                number => text(&version(&site, Some(number - 1)).await?),
            };
            (before, text(&newest))
        }
    };
    let found = difference(&before.text, &after.text).ok_or_else(|| {
        hinted(
            format!("{} or {} is no TOML", before.name, after.name),
            format!("see where: {} topology check FILE", program()),
        )
    })?;
    if json {
        output::json(&serde_json::json!({
            "before": before.name, "after": after.name, "differences": found,
        }))?;
    } else {
        output::talk(&format!("from {} to {}", before.name, after.name));
        output::data(&difference_text(&found));
    }
    Ok(ExitCode::SUCCESS)
}

async fn either(known: Known<'_>, what: &str) -> anyhow::Result<Text> {
    match what.parse::<u64>() {
        Ok(number) => Ok(text(&version(&Site::known(known)?, Some(number)).await?)),
        Err(_) => Text::read(Path::new(what)),
    }
}

async fn newest(known: Known<'_>) -> anyhow::Result<Text> {
    Ok(text(&version(&Site::known(known)?, None).await?))
}

fn text(copy: &TopologyCopy) -> Text {
    Text::new(&format!("version {}", copy.header.version), &copy.document)
}

pub async fn history(known: Known<'_>, json: bool) -> anyhow::Result<ExitCode> {
    let site = Site::known(known)?;
    let what = TopologyRequest::History { before: None, limit: None };
    let pick = |answer| match answer {
        TopologyAnswer::History { versions, source } => Some((versions, source)),
        TopologyAnswer::Shown(_)
        | TopologyAnswer::Replication(_)
        | TopologyAnswer::Published { .. }
        | TopologyAnswer::Outdated { .. }
        | TopologyAnswer::Faulty { .. }
        | TopologyAnswer::Handed { .. }
        | TopologyAnswer::Newer { .. }
        | TopologyAnswer::Nothing { .. } => None,
    };
    // The store knows all; a copy only what it was given.
    let from_store = site
        .first_answer(what.clone(), |answer| {
            pick(answer).filter(|(_, source)| *source == TopologySource::Store)
        })
        .await;
    let (versions, source) = match from_store {
        Ok(found) => found,
        Err(_) => site.first_answer(what, pick).await?,
    };
    if json {
        output::json(&serde_json::json!({ "source": source, "versions": versions }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["VERSION", "PUBLISHED", "AUTHOR", "COMMENT"]);
    for header in &versions {
        table.row(vec![
            header.version.to_string(),
            at_text(header.published_ms),
            header.author.clone(),
            header.comment.clone(),
        ]);
    }
    output::data(&table.to_string());
    if source == TopologySource::Copies {
        output::talk("from a process's own copies: the store does not answer, and may know more");
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn replication(known: Known<'_>, json: bool) -> anyhow::Result<ExitCode> {
    let site = Site::known(known)?;
    let pick = |answer| match answer {
        TopologyAnswer::Replication(found) => Some(found),
        TopologyAnswer::Shown(_)
        | TopologyAnswer::History { .. }
        | TopologyAnswer::Published { .. }
        | TopologyAnswer::Outdated { .. }
        | TopologyAnswer::Faulty { .. }
        | TopologyAnswer::Handed { .. }
        | TopologyAnswer::Newer { .. }
        | TopologyAnswer::Nothing { .. } => None,
    };
    let what = TopologyRequest::Replication;
    let by_store =
        site.first_answer(what.clone(), |answer| pick(answer).filter(|found| found.is_store)).await;
    let found = match by_store {
        Ok(found) => found,
        Err(_) => site.first_answer(what, pick).await?,
    };
    let named = found.processes.iter().filter(|one| one.kind != TopologyKind::Unnamed);
    let all_current = named.clone().all(|one| one.is_current);
    if json {
        output::json(&found)?;
    } else {
        let colour = Colour::for_stdout();
        if let Some(newest) = &found.newest {
            output::talk(&who(newest));
        }
        let mut table = Table::new(&["PROCESS", "KIND", "VERSION", "SINCE", "NOW", "PROBLEM"]);
        for one in &found.processes {
            table.row(holder(one, colour));
        }
        output::data(&table.to_string());
        if !found.is_store {
            let process = &found.process;
            output::talk(&format!("as {process} knows it: whoever serves the store knows more"));
        }
    }
    Ok(if all_current { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn holder(one: &TopologyHolder, colour: Colour) -> Vec<String> {
    let kind = match one.kind {
        TopologyKind::Server => "server",
        TopologyKind::Witness => "witness",
        TopologyKind::FrontEnd => "front end",
        TopologyKind::Unnamed => "not named",
    };
    let version = match &one.standing {
        None => "unknown".to_owned(),
        Some(standing) if standing.have == 0 => colour.bad("none"),
        Some(standing) if one.is_current => standing.have.to_string(),
        Some(standing) => colour.warning(&standing.have.to_string()),
    };
    let since = one.standing.as_ref().and_then(|standing| standing.since_ms);
    let since = since.map(|since| clock::wall_ms().saturating_sub(since));
    let now = match (one.is_connected, one.seen_ms_ago) {
        (true, _) => "connected".to_owned(),
        (false, Some(ago)) => colour.bad(&format!("away for {}", show::span(ago))),
        (false, None) => colour.bad("never heard"),
    };
    let problem = one.standing.as_ref().and_then(|standing| standing.problem.clone());
    vec![
        one.name.clone(),
        kind.to_owned(),
        version,
        since.map_or("-".to_owned(), |since| format!("{} ago", show::span(since))),
        now,
        problem.unwrap_or_default(),
    ]
}
