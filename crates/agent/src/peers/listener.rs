//! Whoever connects: members go to their link, administrators' commands are answered one by one.
//!
//! The number of strangers at the door is bounded, and so is the time for their introduction. Who
//! says nothing never keeps a member out: the stranger that has waited longest makes room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{Request as Asked, Response};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Reason, Refused, Role};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Request;
use super::channel::{Channel, ChannelError};
use super::follower;
use super::transport::Transport;
use crate::route::Routes;

/// Connections that have not yet been introduced.
const STRANGERS: usize = 128;
/// Connections of administrators' commands.
const COMMANDS: usize = 64;
/// Connections of Front Ends.
const FOLLOWERS: usize = 1_024;
const INTRODUCE: Duration = Duration::from_secs(5);
/// A command that asks nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(120);

/// Each member's link takes the connections that it makes.
pub(super) type Doors = BTreeMap<String, mpsc::Sender<Channel>>;

pub(super) async fn run(
    me: Introduction,
    listener: TcpListener,
    doors: watch::Receiver<Arc<Doors>>,
    requests: mpsc::Sender<Request>,
    routes: Routes,
) {
    let followers = Arc::new(Semaphore::new(FOLLOWERS));
    let counter = Arc::new(Counter { requests, routes, followers });
    let me = Arc::new(me);
    let room = Arc::new(Semaphore::new(COMMANDS));
    let mut strangers = JoinSet::new();
    // In the order in which they came.
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    let mut commands = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    waiting.retain(|stranger| !stranger.is_finished());
                    if waiting.len() >= STRANGERS
                        && let Some(longest) = waiting.pop_front()
                    {
                        longest.abort();
                    }
                    let (me, doors) = (Arc::clone(&me), doors.clone());
                    let room = Arc::clone(&room);
                    waiting.push_back(strangers.spawn(async move {
                        let channel = Channel::new(Transport::over(stream).ok()?);
                        let received = receive(&me, &doors, room, channel).await;
                        received.unwrap_or_else(|error| {
                            tracing::debug!(%error, "a connection ended");
                            None
                        })
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors, usually: they come back when others close.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(introduced) = strangers.join_next() => {
                if let Ok(Some((channel, permit))) = introduced {
                    let counter = Arc::clone(&counter);
                    commands.spawn(async move {
                        if let Err(error) = counter.serve(channel, permit).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
            }
            Some(_) = commands.join_next() => {}
        }
    }
}

/// Introduces whoever has connected. `Some`: an administrator.
async fn receive(
    me: &Introduction,
    doors: &watch::Receiver<Arc<Doors>>,
    room: Arc<Semaphore>,
    mut channel: Channel,
) -> Result<Option<(Channel, OwnedSemaphorePermit)>, ChannelError> {
    let hello = timeout(INTRODUCE, channel.hear()).await.map_err(|_| ChannelError::Late)??;
    let doors = Arc::clone(&doors.borrow());
    let permit = match hello.role {
        Role::Member => None,
        Role::Administrator => room.try_acquire_owned().ok(),
    };
    let answer = match hello.role {
        Role::Administrator if permit.is_none() => Err(too_many()),
        Role::Administrator | Role::Member => me.answer(&hello, |host| doors.contains_key(host)),
    };
    match answer {
        Ok(welcome) => channel.put(Kind::Welcome, &welcome.to_bytes())?,
        Err(refused) => {
            tracing::info!(host = hello.host, reason = %refused, "a connection is refused");
            channel.put(Kind::Refused, &refused.to_bytes())?;
            timeout(INTRODUCE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
            return Err(ChannelError::Refused(refused));
        }
    }
    timeout(INTRODUCE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
    if let Some(permit) = permit {
        return Ok(Some((channel, permit)));
    }
    if let Some(door) = doors.get(&hello.host) {
        let _ = door.send(channel).await;
    }
    Ok(None)
}

fn too_many() -> Refused {
    let sentence = "too many commands are connected; end some of them, then try again".to_owned();
    Refused { reason: Reason::TooManyConnections, sentence }
}

/// Answers an administrator's requests, one after the other. `Some`: it asks to follow.
async fn converse(
    requests: &mpsc::Sender<Request>,
    channel: &mut Channel,
) -> Result<Option<Asked>, ChannelError> {
    loop {
        let frame = match timeout(IDLE, channel.receive()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(ChannelError::Closed)) => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(ChannelError::Late),
        };
        if frame.kind != Kind::Request {
            return Err(ChannelError::NoIntroduction);
        }
        let response = match Asked::from_bytes(&frame.payload) {
            Ok(follow @ Asked::Follow { .. }) => return Ok(Some(follow)),
            // There is no answer, and nobody whom it could be about.
            Ok(Asked::Drained { .. }) => continue,
            Ok(what) => ask(requests, what).await,
            Err(refusal) => refusal.into(),
        };
        channel.put(Kind::Response, &response.to_bytes())?;
        timeout(IDLE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
    }
}

/// What those who are no members need.
struct Counter {
    requests: mpsc::Sender<Request>,
    routes: Routes,
    followers: Arc<Semaphore>,
}

impl Counter {
    /// An administrator, until it hangs up. One who follows keeps no command out.
    async fn serve(
        &self,
        mut channel: Channel,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), ChannelError> {
        let Some(first) = converse(&self.requests, &mut channel).await? else { return Ok(()) };
        let Ok(_permit) = Arc::clone(&self.followers).try_acquire_owned() else {
            let refusal = Code::TooBusy.refusal(None);
            channel.put(Kind::Response, &Response::Refused(refusal).to_bytes())?;
            return timeout(INTRODUCE, channel.write_all())
                .await
                .map_err(|_| ChannelError::Late)?;
        };
        drop(permit);
        follower::serve(&self.routes, channel, first).await
    }
}

async fn ask(requests: &mpsc::Sender<Request>, what: Asked) -> Response {
    let (answer, answered) = oneshot::channel();
    if requests.try_send(Request { what, answer }).is_err() {
        return Code::TooBusy.refusal(None).into();
    }
    answered.await.unwrap_or_else(|_| Code::Unanswered.refusal(None).into())
}
