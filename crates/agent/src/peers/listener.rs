//! Whoever connects: members go to their link, administrators' commands are answered one by one.
//! The number of strangers at the door is bounded, and so is the time for their introduction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{Request as Asked, Response};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Request;
use super::channel::{Channel, ChannelError};
use super::transport::Transport;

/// Connections that have not yet been introduced, and those of commands.
const STRANGERS: usize = 128;
const INTRODUCE: Duration = Duration::from_secs(5);
/// A command that asks nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(120);

type Doors = BTreeMap<String, mpsc::Sender<Channel>>;

pub(super) async fn run(
    me: Introduction,
    listener: TcpListener,
    doors: Doors,
    requests: mpsc::Sender<Request>,
) {
    let doors = Arc::new(doors);
    let me = Arc::new(me);
    let room = Arc::new(Semaphore::new(STRANGERS));
    let mut strangers = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors, usually: they come back when others close.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while strangers.try_join_next().is_some() {}
        let (me, doors, requests) = (Arc::clone(&me), Arc::clone(&doors), requests.clone());
        strangers.spawn(async move {
            let Ok(transport) = Transport::over(stream) else { return };
            if let Err(error) = receive(&me, &doors, &requests, Channel::new(transport)).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(permit);
        });
    }
}

async fn receive(
    me: &Introduction,
    doors: &Doors,
    requests: &mpsc::Sender<Request>,
    mut channel: Channel,
) -> Result<(), ChannelError> {
    let hello = timeout(INTRODUCE, channel.hear()).await.map_err(|_| ChannelError::Late)??;
    match me.answer(&hello, |host| doors.contains_key(host)) {
        Ok(welcome) => channel.put(Kind::Welcome, &welcome.to_bytes())?,
        Err(refused) => {
            tracing::info!(host = hello.host, reason = %refused, "a connection is refused");
            channel.put(Kind::Refused, &refused.to_bytes())?;
            timeout(INTRODUCE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
            return Err(ChannelError::Refused(refused));
        }
    }
    timeout(INTRODUCE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
    match hello.role {
        Role::Member => {
            if let Some(door) = doors.get(&hello.host) {
                let _ = door.send(channel).await;
            }
            Ok(())
        }
        Role::Administrator => converse(requests, channel).await,
    }
}

/// Answers an administrator's requests, one after the other.
async fn converse(
    requests: &mpsc::Sender<Request>,
    mut channel: Channel,
) -> Result<(), ChannelError> {
    loop {
        let frame = match timeout(IDLE, channel.receive()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(ChannelError::Closed)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(ChannelError::Late),
        };
        if frame.kind != Kind::Request {
            return Err(ChannelError::NoIntroduction);
        }
        let response = match Asked::from_bytes(&frame.payload) {
            Ok(what) => ask(requests, what).await,
            Err(refusal) => refusal.into(),
        };
        channel.put(Kind::Response, &response.to_bytes())?;
        timeout(IDLE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
    }
}

async fn ask(requests: &mpsc::Sender<Request>, what: Asked) -> Response {
    let (answer, answered) = oneshot::channel();
    if requests.try_send(Request { what, answer }).is_err() {
        return Code::TooBusy.refusal(None).into();
    }
    answered.await.unwrap_or_else(|_| Code::Unanswered.refusal(None).into())
}
