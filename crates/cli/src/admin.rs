//! Asking members: one connection, one question, one answer, each with a deadline.
//!
//! A command asks all members of a pool side by side. One that does not answer costs its own
//! deadline and nothing else, and is shown as such.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use protocol::admin::{FrontEndStatus, MemberStatus, Refusal, Request, Response};
use protocol::frame::{self, Decoder, Frame, Kind};
use protocol::handshake::{Introduction, Refused, Role, Welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::deployment::{Deployment, FrontEndEntry, MemberEntry, PoolEntry};
use crate::output::hinted;
use crate::picture::{Heard, HeardFrontEnd, Picture};

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
    let mut line = Line::open(deployment, member).await?;
    line.send(Kind::Request, &request.to_bytes()).await?;
    loop {
        let frame = line.next().await?;
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

struct Line {
    stream: TcpStream,
    decoder: Decoder,
}

impl Line {
    async fn open(deployment: &str, member: &MemberEntry) -> anyhow::Result<Line> {
        let stream = TcpStream::connect(&member.address)
            .await
            .with_context(|| format!("it is not reached at {}", member.address))?;
        stream.set_nodelay(true).context("prepare the connection")?;
        let mut line = Line { stream, decoder: Decoder::default() };
        let me = Introduction {
            deployment: deployment.to_owned(),
            host: "administrator".to_owned(),
            run: u64::from(std::process::id()),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let hello = me.hello(Role::Administrator, &member.name);
        line.send(Kind::Hello, &hello.to_bytes()).await?;
        let frame = line.next().await?;
        match frame.kind {
            Kind::Welcome => {
                Welcome::from_bytes(&frame.payload)?;
                Ok(line)
            }
            Kind::Refused => Err(Refused::from_bytes(&frame.payload)?.into()),
            Kind::Hello | Kind::Batch | Kind::Request | Kind::Response | Kind::Ping => {
                anyhow::bail!("it does not introduce itself")
            }
        }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        frame::write(kind, payload, &mut bytes)?;
        self.stream.write_all(&bytes).await.context("send to it")
    }

    async fn next(&mut self) -> anyhow::Result<Frame> {
        let mut bytes = [0_u8; 16 * 1024];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let count = self.stream.read(&mut bytes).await.context("read from it")?;
            anyhow::ensure!(count > 0, "it closed the connection");
            self.decoder.push(&bytes[..count]);
        }
    }
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
