//! `pool failover`: checks, begins, waits, and says how it ended.
//!
//! How long writes were held up is taken from the histories: from the moment when the old principal
//! stopped serving to the first write of the new term. The two may have different clocks, so the
//! time that this command saw go by is told as the upper bound.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use protocol::admin::{FailoverPlan, HistoryKind, Request, Response};
use serde::Serialize;

use super::{Scope, history};
use crate::clock;
use crate::output::{self, Colour, hinted};
use crate::picture::Picture;

const DEADLINE: Duration = Duration::from_secs(60);
const HISTORY_DEADLINE: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The published form: see docs/json.md.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Outcome {
    pub pool: String,
    /// The other server serves now.
    pub done: bool,
    from: String,
    to: Option<String>,
    term_before: u64,
    term_after: u64,
    /// From the request until the new principal was seen to serve.
    total_ms: u64,
    /// From the end of the old principal's service to the first write of the new one.
    pub held_up_ms: Option<u64>,
    pub sentence: String,
}

pub async fn run(
    scope: &Scope<'_>,
    to: Option<&str>,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(name) = to {
        scope.partner(name)?;
    }
    let plan = plan(scope, to).await?;
    if dry_run || !plan.possible {
        if json && dry_run {
            output::json(&plan)?;
        } else {
            output::data(&checks(&plan, Colour::for_stdout()));
        }
        if dry_run {
            return Ok(if plan.possible { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        return Err(hinted(
            format!("a failover from {} to {} is not possible now", plan.from, plan.to),
            format!("see what is missing: backstay pool status {}", scope.pool.name),
        ));
    }
    let outcome = carry_out(scope, &plan, to).await?;
    if json {
        output::json(&outcome)?;
    } else {
        output::data(&outcome.sentence);
    }
    Ok(if outcome.done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who would serve, and what is missing for a failover.
pub async fn missing(scope: &Scope<'_>) -> anyhow::Result<(String, Vec<String>)> {
    let plan = plan(scope, None).await?;
    let mut missing: Vec<String> =
        plan.checks.iter().filter(|check| !check.met).map(|check| check.sentence.clone()).collect();
    if !plan.possible && missing.is_empty() {
        missing.push("a failover is not possible now".to_owned());
    }
    Ok((plan.to, missing))
}

/// A failover from beginning to end.
pub async fn hand_over(scope: &Scope<'_>, to: Option<&str>) -> anyhow::Result<Outcome> {
    let plan = plan(scope, to).await?;
    carry_out(scope, &plan, to).await
}

async fn carry_out(
    scope: &Scope<'_>,
    plan: &FailoverPlan,
    to: Option<&str>,
) -> anyhow::Result<Outcome> {
    let begun = clock::now();
    let request = ask_for(scope, to, false);
    let response = scope.ask(&plan.from, &request).await?;
    let Response::Begun { term, .. } = response else { return Err(surprise()) };
    output::talk(&format!("{} hands the service over to {}", plan.from, plan.to));
    wait(scope, plan, term, begun).await
}

fn surprise() -> anyhow::Error {
    hinted(
        "the member answered something else than asked",
        "the command and the member are of different versions: update both",
    )
}

fn ask_for(scope: &Scope<'_>, to: Option<&str>, dry_run: bool) -> Request {
    Request::Failover { pool: scope.name(), to: to.map(str::to_owned), dry_run }
}

async fn plan(scope: &Scope<'_>, to: Option<&str>) -> anyhow::Result<FailoverPlan> {
    match scope.ask_principal(&ask_for(scope, to, true)).await? {
        Response::Plan(plan) => Ok(plan),
        Response::Done { .. }
        | Response::Begun { .. }
        | Response::Status(_)
        | Response::Preview(_)
        | Response::History { .. }
        | Response::Route(_)
        | Response::FrontEnd(_)
        | Response::Topology(_)
        | Response::Preflight(_)
        | Response::Audit(_)
        | Response::Refused(_) => Err(surprise()),
    }
}

fn checks(plan: &FailoverPlan, colour: Colour) -> String {
    let mut text = format!("failover of {} from {} to {}\n", plan.pool, plan.from, plan.to);
    for check in &plan.checks {
        let mark = if check.met { colour.good("met    ") } else { colour.bad("NOT MET") };
        text.push_str(&format!("  {mark}  {}\n", check.sentence));
    }
    text.push_str(if plan.possible { "it would begin\n" } else { "it would be refused\n" });
    text
}

/// Waits until somebody serves a newer term.
async fn wait(
    scope: &Scope<'_>,
    plan: &FailoverPlan,
    term: u64,
    begun: Instant,
) -> anyhow::Result<Outcome> {
    let deadline = begun + DEADLINE;
    loop {
        let picture = scope.picture().await?;
        if picture.served() && picture.term > term {
            return Ok(outcome(scope, plan, term, begun, &picture).await);
        }
        if clock::now() > deadline {
            return Err(hinted(
                format!(
                    "nobody has taken over within {} s: {}",
                    DEADLINE.as_secs(),
                    picture.sentence
                ),
                format!("see what goes on: backstay pool status {} --watch", scope.pool.name),
            ));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn outcome(
    scope: &Scope<'_>,
    plan: &FailoverPlan,
    term: u64,
    begun: Instant,
    picture: &Picture,
) -> Outcome {
    let total_ms = u64::try_from((clock::now() - begun).as_millis()).unwrap_or(u64::MAX);
    let done = picture.principal.as_deref() == Some(plan.to.as_str());
    let held_up_ms = held_up_ms(scope, &plan.from, picture.term).await;
    let held_up_ms = held_up_ms.filter(|ms| *ms <= total_ms);
    let held_up = match held_up_ms {
        Some(ms) => format!("{ms} ms"),
        None => format!("at most {total_ms} ms"),
    };
    let sentence = if done {
        format!("{} serves in term {}; writes were held up for {held_up}", plan.to, picture.term)
    } else {
        format!(
            "{} could not take over; {} serves again, in term {}, after {total_ms} ms",
            plan.to, plan.from, picture.term
        )
    };
    Outcome {
        pool: scope.name(),
        done,
        from: plan.from.clone(),
        to: picture.principal.clone(),
        term_before: term,
        term_after: picture.term,
        total_ms,
        held_up_ms,
        sentence,
    }
}

/// What the histories say, as soon as both say it.
async fn held_up_ms(scope: &Scope<'_>, from: &str, term: u64) -> Option<u64> {
    let deadline = clock::now() + HISTORY_DEADLINE;
    loop {
        let entries = history::gather(scope, Some(50)).await.ok()?.entries;
        let stopped = entries.iter().rev().find(|entry| {
            entry.kind == HistoryKind::RoleChanged
                && entry.member == from
                && entry.from.as_deref() == Some("principal")
        });
        let served = entries
            .iter()
            .rev()
            .find(|entry| entry.kind == HistoryKind::Failover && entry.term == term);
        if let (Some(stopped), Some(served)) = (stopped, served) {
            return served.at_ms.checked_sub(stopped.at_ms);
        }
        if clock::now() > deadline {
            return None;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
