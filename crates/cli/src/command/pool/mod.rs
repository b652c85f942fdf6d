//! `backstay pool ...`: looking at a pool and changing it.

mod change;
mod failover;
mod force;
mod history;
mod list;
mod status;

use std::process::ExitCode;

use protocol::admin::{Request, Response};

pub use self::change::make_session;
pub use self::failover::{Outcome, hand_over, missing};
use crate::admin::{self, AskError};
use crate::args::{PoolCommand, WitnessChange};
use crate::deployment::{Deployment, Found, PoolEntry};
use crate::output::{Colour, hinted};
use crate::picture::Picture;

pub async fn run(found: &Found, command: &PoolCommand) -> anyhow::Result<ExitCode> {
    let deployment = &found.deployment;
    let scope = |pool: &str| Scope::of(deployment, pool);
    match command {
        PoolCommand::Status { pool, watch, json } => {
            return status::run(deployment, pool.as_deref(), *watch, *json).await;
        }
        PoolCommand::List { json } => return list::run(deployment, *json).await,
        PoolCommand::History { pool, json } => history::run(&scope(pool)?, *json).await?,
        PoolCommand::Create { pool } => change::create(&scope(pool)?).await?,
        PoolCommand::Failover { pool, to, dry_run, json } => {
            return failover::run(&scope(pool)?, to.as_deref(), *dry_run, *json).await;
        }
        PoolCommand::ForceService { pool, to, accept_data_loss } => {
            return force::run(&scope(pool)?, to, *accept_data_loss).await;
        }
        PoolCommand::Suspend { pool } => change::suspend(&scope(pool)?).await?,
        PoolCommand::Resume { pool, discard, accept_data_loss: _ } => match discard {
            Some(server) => change::discard(&scope(pool)?, server).await?,
            None => change::resume(&scope(pool)?).await?,
        },
        PoolCommand::Learn { pool, member } => change::learn(&scope(pool)?, member).await?,
        PoolCommand::ServeAlone { pool, server } => {
            change::serve_alone(&scope(pool)?, server).await?;
        }
        PoolCommand::Witness(WitnessChange::Set { pool, witness }) => {
            change::witness(&scope(pool)?, Some(witness)).await?;
        }
        PoolCommand::Witness(WitnessChange::Remove { pool }) => {
            change::witness(&scope(pool)?, None).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One pool of the deployment, and how to ask its members.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub deployment: &'a Deployment,
    pub pool: &'a PoolEntry,
}

impl<'a> Scope<'a> {
    pub fn of(deployment: &'a Deployment, pool: &str) -> anyhow::Result<Scope<'a>> {
        Ok(Scope { deployment, pool: deployment.pool(pool)? })
    }

    fn name(&self) -> String {
        self.pool.name.clone()
    }

    pub async fn picture(&self) -> anyhow::Result<Picture> {
        admin::picture(self.deployment, self.pool).await
    }

    async fn ask(&self, member: &str, request: &Request) -> Result<Response, AskError> {
        let member = self.deployment.member(member).map_err(|error| AskError::Silent {
            member: member.to_owned(),
            text: format!("{error:#}"),
        })?;
        let deadline = match request {
            Request::CreateSession { .. } => admin::CREATE_DEADLINE,
            _ if request.is_read() => admin::LOOK_DEADLINE,
            _ => admin::CHANGE_DEADLINE,
        };
        admin::ask(&self.deployment.name, member, request, deadline).await
    }

    /// Asks whoever serves.
    async fn ask_principal(&self, request: &Request) -> anyhow::Result<Response> {
        let picture = self.picture().await?;
        let Some(principal) = picture.principal.filter(|_| picture.state != NOT_SERVED) else {
            return Err(hinted(
                picture.sentence,
                format!("see why: backstay pool status {}", self.pool.name),
            ));
        };
        Ok(self.ask(&principal, request).await?)
    }

    /// A server of the pool by name.
    fn partner(&self, name: &str) -> anyhow::Result<&'a str> {
        [&self.pool.first, &self.pool.second]
            .into_iter()
            .find(|partner| *partner == name)
            .map(String::as_str)
            .ok_or_else(|| {
                hinted(
                    format!("{name:?} is no server of {}", self.pool.name),
                    format!("its servers are: {}, {}", self.pool.first, self.pool.second),
                )
            })
    }
}

/// The newest entries of the history as lines; for the demo's view.
pub async fn recent(scope: &Scope<'_>, count: u32, colour: Colour) -> String {
    let Ok(history) = history::gather(scope, Some(count * 10)).await else {
        return String::new();
    };
    let news: Vec<_> = history.entries.iter().filter(|entry| history::is_news(entry)).collect();
    let skipped = news.len().saturating_sub(count as usize);
    history::text(news[skipped..].iter().copied(), history::Times::OfDay, colour)
}

const NOT_SERVED: crate::picture::State = crate::picture::State::NotServed;

/// What a member said in answer to a change.
fn sentence(response: Response) -> String {
    match response {
        Response::Done { sentence } | Response::Begun { sentence, .. } => sentence,
        Response::Refused(refusal) => refusal.sentence,
        Response::Status(_)
        | Response::Plan(_)
        | Response::Preview(_)
        | Response::Route(_)
        | Response::FrontEnd(_)
        | Response::Topology(_)
        | Response::Preflight(_)
        | Response::Audit(_)
        | Response::History { .. } => "the member answered something else than asked".to_owned(),
    }
}
