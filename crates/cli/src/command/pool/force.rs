//! `pool force-service`: the only command that may lose commits.
//!
//! It shows first what every reachable copy of the data holds, and does nothing unless the loss
//! has been accepted in so many words.

use std::process::ExitCode;
use std::time::Duration;

use protocol::admin::{DatumShown, ForcePreview, Request, Response};

use super::{Scope, sentence};
use crate::clock;
use crate::output::{self, Colour, Table, hinted};
use crate::show;

const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub async fn run(scope: &Scope<'_>, to: &str, accept_data_loss: bool) -> anyhow::Result<ExitCode> {
    let server = scope.partner(to)?;
    let colour = Colour::for_stderr();
    let picture = scope.picture().await?;
    if picture.served() {
        return Err(hinted(
            format!("service must not be forced: {}", picture.sentence),
            format!("exchange the roles instead: backstay pool failover {}", scope.pool.name),
        ));
    }
    let ask = |accept_data_loss| Request::ForceService { pool: scope.name(), accept_data_loss };
    let mut own = None;
    for partner in [&scope.pool.first, &scope.pool.second].into_iter().filter(|it| !it.is_empty()) {
        match scope.ask(partner, &ask(false)).await {
            Ok(Response::Preview(preview)) => {
                output::talk(&shown(&preview, colour));
                if partner == server {
                    own = Some(preview);
                }
            }
            Ok(_) => output::talk(&format!("{partner}: it answers something else than asked")),
            Err(error) => output::talk(&format!("its data are not known: {error}\n")),
        }
    }
    let Some(preview) = own else {
        return Err(hinted(
            format!("{server} does not answer, so it cannot be made to serve"),
            format!("start its agent: backstay server --config FILE on {server}"),
        ));
    };
    if let Some(refusal) = preview.refusal {
        let hint = refusal.hint.unwrap_or_else(|| "see: backstay pool status".to_owned());
        return Err(hinted(refusal.sentence, hint));
    }
    if !accept_data_loss {
        return Err(hinted(
            "nothing was changed: what only the other server holds would be lost",
            format!(
                "be sure that the other server does not serve, then say so:\n\
                 backstay pool force-service {} --to {server} --accept-data-loss",
                scope.pool.name
            ),
        ));
    }
    let response = scope.ask(server, &ask(true)).await?;
    output::talk(&sentence(response));
    wait(scope, server).await?;
    Ok(ExitCode::SUCCESS)
}

async fn wait(scope: &Scope<'_>, server: &str) -> anyhow::Result<()> {
    let deadline = clock::now() + DEADLINE;
    loop {
        let picture = scope.picture().await?;
        if picture.served() && picture.principal.as_deref() == Some(server) {
            output::data(&format!("{server} serves in term {}, by force", picture.term));
            return Ok(());
        }
        if clock::now() > deadline {
            return Err(hinted(
                format!("{server} does not serve within {} s", DEADLINE.as_secs()),
                format!("see why: backstay pool status {}", scope.pool.name),
            ));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// What one partner holds, and what it last knew of the other.
fn shown(preview: &ForcePreview, colour: Colour) -> String {
    let mut table = Table::new(&["  DATA OF", "WAL UP TO", "TIMELINE", "USABLE", "KNOWN"]);
    table.row(datum(&preview.own, "now"));
    let heard = preview.other.seen_ms_ago.map(|ms| format!("{} ago", show::span(ms)));
    table.row(datum(&preview.other, &heard.unwrap_or_else(|| "never".to_owned())));
    let protected = match &preview.protected {
        Some(position) => format!("both are known to hold everything up to {}", position.lsn),
        None => "it is not known up to where both hold the same".to_owned(),
    };
    let verdict = if preview.nothing_should_be_lost {
        colour.good("nothing that was acknowledged should be lost")
    } else {
        colour.bad("ACKNOWLEDGED COMMITS MAY BE LOST")
    };
    format!("{} says: {}\n{table}  {protected}\n  {verdict}\n", preview.server, preview.sentence)
}

fn datum(datum: &DatumShown, known: &str) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    vec![
        format!("  {}", datum.server),
        text(datum.position.as_ref().map(|position| position.lsn.clone())),
        text(datum.timeline.map(|timeline| timeline.to_string())),
        text(datum.valid.map(|valid| if valid { "yes" } else { "NO" }.to_owned())),
        known.to_owned(),
    ]
}
