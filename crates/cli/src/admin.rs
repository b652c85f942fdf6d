//! Asking members: one connection, one question, one answer, each with a deadline.
//!
//! A command asks all members of a pool side by side. One that does not answer costs its own
//! deadline and nothing else, and is shown as such.

use std::fmt;
use std::time::Duration;

use agent::peers::{Channel, ChannelError, Transport};
use anyhow::Context as _;
use protocol::admin::{FrontEndStatus, MemberStatus, Refusal, Request, Response};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::deployment::{Deployment, FrontEndEntry, MemberEntry, PoolEntry};
use crate::output::hinted;
use crate::picture::{Heard, HeardFrontEnd, Picture};
use crate::trust_place;

/// How long a member may take to say how it is.
pub const LOOK_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long a member may take to begin a change, or refuse it.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(20);
/// How long the first set-up of a pool may take: it makes a database cluster.
pub const CREATE_DEADLINE: Duration = Duration::from_secs(300);

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// The member could not be reached, or did not answer in time.
    Silent {
        member: String,
        text: String,
    },
    Refused(Refusal),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Silent { member, text } => write!(f, "{member}: {text}"),
            AskError::Refused(refusal) => f.write_str(&refusal.sentence),
        }
    }
}

impl From<AskError> for anyhow::Error {
    fn from(error: AskError) -> anyhow::Error {
        match error {
            AskError::Silent { member, text } => {
                hinted(format!("{member}: {text}"), "see what it is: backstay pool status")
            }
            AskError::Refused(Refusal { sentence, hint: Some(hint), .. }) => hinted(sentence, hint),
            AskError::Refused(Refusal { sentence, .. }) => anyhow::anyhow!(sentence),
        }
    }
}

/// Asks one member. A refusal is an error.
pub async fn ask(
    deployment: &str,
    member: &MemberEntry,
    request: &Request,
    deadline: Duration,
) -> Result<Response, AskError> {
    let silent = |text: String| AskError::Silent { member: member.name.clone(), text };
    match timeout(deadline, exchange(deployment, member, request)).await {
        Ok(Ok(Response::Refused(refusal))) => Err(AskError::Refused(refusal)),
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(silent(format!("{error:#}"))),
        Err(_) => Err(silent(format!("no answer within {} s", deadline.as_secs_f32()))),
    }
}

async fn exchange(
    deployment: &str,
    member: &MemberEntry,
    request: &Request,
) -> anyhow::Result<Response> {
    let mut channel = open(deployment, member).await?;
    channel.put(Kind::Request, &request.to_bytes()).map_err(said)?;
    loop {
        let frame = channel.receive().await.map_err(said)?;
        match frame.kind {
            Kind::Response => {
                return Response::from_bytes(&frame.payload)
                    .context("read its answer (another version of Backstay?)");
            }
            Kind::Ping => {}
            Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Batch | Kind::Request => {
                anyhow::bail!("it answers with something that is no answer");
            }
        }
    }
}

/// It says what it was caused by already.
pub fn said(error: ChannelError) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// A connection to `member` as this administrator.
async fn open(deployment: &str, member: &MemberEntry) -> anyhow::Result<Channel> {
    let stream = TcpStream::connect(&member.address)
        .await
        .with_context(|| format!("it is not reached at {}", member.address))?;
    let transport = Transport::patient(stream).context("prepare the connection")?;
    let credentials = trust_place::find(deployment)?;
    if let Some(credentials) = &credentials {
        trust_place::renew_if_due(credentials).await;
    }
    let transport = trust_place::secure(transport, credentials.as_ref(), &member.name).await?;
    let host = match &credentials {
        Some(credentials) => credentials.identity().name.clone(),
        None => "administrator".to_owned(),
    };
    let me = Introduction {
        deployment: deployment.to_owned(),
        host,
        run: u64::from(std::process::id()),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut channel = Channel::new(transport);
    let hello = me.hello(Role::Administrator, &member.name);
    channel.introduce(&hello).await.map_err(said)?;
    Ok(channel)
}

/// What one member says of itself.
pub async fn look(
    deployment: &str,
    member: &MemberEntry,
    deadline: Duration,
) -> Result<MemberStatus, String> {
    let request = Request::Status { pool: None };
    match ask(deployment, member, &request, deadline).await {
        Ok(Response::Status(status)) => Ok(status),
        Ok(_) => Err("it answers something else than asked".to_owned()),
        Err(AskError::Silent { text, .. }) => Err(text),
        Err(AskError::Refused(refusal)) => Err(refusal.sentence),
    }
}

/// What the Front Ends of a pool say of themselves, asked side by side.
pub async fn front_ends(
    deployment: &Deployment,
    pool: &PoolEntry,
    deadline: Duration,
) -> Vec<HeardFrontEnd> {
    let mut asked = Vec::new();
    for FrontEndEntry { name, address, .. } in deployment.front_ends_of(pool).cloned() {
        let deployment = deployment.name.clone();
        asked.push(tokio::task::spawn_local(async move {
            let process = MemberEntry { name, address };
            let answer = look_at_front_end(&deployment, &process, deadline).await;
            HeardFrontEnd { name: process.name, address: process.address, answer }
        }));
    }
    let mut heard = Vec::new();
    for task in asked {
        heard.extend(task.await);
    }
    heard
}

async fn look_at_front_end(
    deployment: &str,
    process: &MemberEntry,
    deadline: Duration,
) -> Result<FrontEndStatus, String> {
    match ask(deployment, process, &Request::Status { pool: None }, deadline).await {
        Ok(Response::FrontEnd(status)) => Ok(status),
        Ok(_) => Err("it is no Front End: check the address in the deployment".to_owned()),
        Err(AskError::Silent { text, .. }) => Err(text),
        Err(AskError::Refused(refusal)) => Err(refusal.sentence),
    }
}

/// A pool with its Front Ends, as `pool status` shows it.
pub async fn whole_picture(
    deployment: &Deployment,
    pool: &PoolEntry,
    deadline: Duration,
) -> anyhow::Result<Picture> {
    let members = picture_within(deployment, pool, deadline);
    let (picture, heard) = tokio::join!(members, front_ends(deployment, pool, deadline));
    Ok(picture?.with_front_ends(heard))
}

/// Asks all members of a pool side by side, and merges what they say.
pub async fn picture(deployment: &Deployment, pool: &PoolEntry) -> anyhow::Result<Picture> {
    picture_within(deployment, pool, LOOK_DEADLINE).await
}

pub async fn picture_within(
    deployment: &Deployment,
    pool: &PoolEntry,
    deadline: Duration,
) -> anyhow::Result<Picture> {
    let mut asked = Vec::new();
    for member in deployment.members_of(pool)? {
        let name = deployment.name.clone();
        let task = tokio::task::spawn_local(async move {
            let answer = look(&name, &member, deadline).await;
            Heard { name: member.name, address: member.address, answer }
        });
        asked.push(task);
    }
    let mut heard = Vec::new();
    for task in asked {
        heard.push(task.await?);
    }
    Ok(Picture::of(pool, heard))
}
