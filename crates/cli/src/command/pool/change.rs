//! The plain changes: create, suspend, resume, serve alone, witness.

use std::time::Duration;

use protocol::admin::{Request, Response};

use super::{Scope, sentence};
use crate::admin::AskError;
use crate::clock;
use crate::output::{self, hinted};
use crate::picture::Picture;

const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// First set-up of a pool.
pub async fn create(scope: &Scope<'_>) -> anyhow::Result<()> {
    if make_session(scope).await? == Made::Before {
        return Err(hinted(
            format!("{} has been set up before", scope.pool.name),
            format!("look at it: backstay pool status {}", scope.pool.name),
        ));
    }
    let served = wait(scope, "somebody serves", Picture::served).await?;
    output::data(&format!("{} is set up: {}", scope.pool.name, served.sentence));
    Ok(())
}

/// When a pool's session was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    Now,
    /// Every member knew it.
    Before,
}

/// Asks every member to make its part of the session. The first partner makes the data, so it is
/// asked first: a member that has learnt the session from others has no reason to make any. Asking
/// again after a failure goes on where it ended.
pub async fn make_session(scope: &Scope<'_>) -> anyhow::Result<Made> {
    let mut made = Made::Before;
    for name in scope.pool.member_names() {
        let request = Request::CreateSession { pool: scope.name() };
        match scope.ask(name, &request).await {
            Ok(response) => {
                output::talk(&format!("{name}: {}", sentence(response)));
                made = Made::Now;
            }
            Err(AskError::Refused(refusal)) if refusal.code == "session_exists" => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(made)
}

pub async fn suspend(scope: &Scope<'_>) -> anyhow::Result<()> {
    let response = scope.ask_principal(&Request::Suspend { pool: scope.name() }).await?;
    tell(response);
    Ok(())
}

pub async fn resume(scope: &Scope<'_>) -> anyhow::Result<()> {
    let request = Request::Resume { pool: scope.name(), discard_this_side: false };
    tell(scope.ask_principal(&request).await?);
    Ok(())
}

/// After forced service: `server` gives up its copy of the data.
pub async fn discard(scope: &Scope<'_>, server: &str) -> anyhow::Result<()> {
    let server = scope.partner(server)?;
    let request = Request::Resume { pool: scope.name(), discard_this_side: true };
    tell(scope.ask(server, &request).await?);
    Ok(())
}

pub async fn serve_alone(scope: &Scope<'_>, server: &str) -> anyhow::Result<()> {
    let server = scope.partner(server)?;
    tell(scope.ask(server, &Request::ServeAlone { pool: scope.name() }).await?);
    let served = wait(scope, "it serves", Picture::served).await?;
    output::data(&served.sentence);
    Ok(())
}

/// A member that lost its state learns from the principal alone.
pub async fn learn(scope: &Scope<'_>, member: &str) -> anyhow::Result<()> {
    scope.deployment.member(member)?;
    tell(scope.ask(member, &Request::Learn { pool: scope.name() }).await?);
    let knows = |picture: &Picture| {
        let of = picture.members.iter().find(|seen| seen.name == member);
        of.and_then(|seen| seen.session.as_ref()).is_some_and(|session| session.record.is_some())
    };
    wait(scope, "it has learnt the session", knows).await?;
    output::data(&format!("{member} knows the session of {} again", scope.pool.name));
    Ok(())
}

pub async fn witness(scope: &Scope<'_>, to: Option<&str>) -> anyhow::Result<()> {
    if let Some(name) = to {
        scope.deployment.member(name)?;
    }
    let request = Request::ChangeWitness { pool: scope.name(), to: to.map(str::to_owned) };
    output::talk(&sentence(scope.ask_principal(&request).await?));
    wait(scope, "all members know the new witness", |picture| {
        let record = picture
            .members
            .iter()
            .filter(|member| Some(&member.name) == picture.principal.as_ref())
            .find_map(|member| member.session.as_ref()?.record.as_ref());
        record.is_some_and(|record| {
            !record.members.changing && record.members.witness.as_deref() == to
        })
    })
    .await?;
    output::data(&match to {
        Some(name) => format!("{name} is the witness of {}", scope.pool.name),
        None => format!("{} has no witness: no automatic failover", scope.pool.name),
    });
    Ok(())
}

fn tell(response: Response) {
    output::data(&sentence(response));
}

async fn wait(
    scope: &Scope<'_>,
    what: &str,
    good: impl Fn(&Picture) -> bool,
) -> anyhow::Result<Picture> {
    let deadline = clock::now() + DEADLINE;
    loop {
        let picture = scope.picture().await?;
        if good(&picture) {
            return Ok(picture);
        }
        if clock::now() > deadline {
            return Err(hinted(
                format!(
                    "after {} s still not so: {what} ({})",
                    DEADLINE.as_secs(),
                    picture.sentence
                ),
                format!("see why: backstay pool status {}", scope.pool.name),
            ));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
