//! Whoever connects: members go to their link, administrators' commands are answered one by one.
//!
//! The number of strangers at the door is bounded, and so is the time for their introduction. Who
//! says nothing never keeps a member out: the stranger that has waited longest makes room. With
//! certificates, handshakes are made on another thread, and what somebody says of himself counts
//! only if his certificate says the same (`visitor`).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{Request as Asked, Response, Right, TopologyRequest};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Reason, Refused, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::audit;
use super::channel::{Channel, ChannelError};
use super::follower;
use super::port::{Port, Refusal};
use super::security::Security;
use super::transport::Transport;
use super::visitor::Visitor;
use super::{Desks, Request};
use crate::topology;

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

/// What a stranger meets.
#[derive(Clone)]
pub(super) struct Reception {
    pub me: Introduction,
    pub security: Option<Security>,
    pub doors: watch::Receiver<Arc<Doors>>,
    pub port: Arc<Port>,
}

/// An administrator, or a Front End, that has been introduced.
struct Admitted {
    channel: Channel,
    visitor: Visitor,
    permit: OwnedSemaphorePermit,
}

pub(super) async fn run(reception: Reception, listener: TcpListener, desks: Desks) {
    let counter = Arc::new(Counter {
        desks,
        followers: Arc::new(Semaphore::new(FOLLOWERS)),
        security: reception.security.clone(),
        port: Arc::clone(&reception.port),
    });
    let room = Arc::new(Semaphore::new(COMMANDS));
    let mut strangers = JoinSet::new();
    // In the order in which they came.
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    let mut commands = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    waiting.retain(|stranger| !stranger.is_finished());
                    if waiting.len() >= STRANGERS
                        && let Some(longest) = waiting.pop_front()
                    {
                        longest.abort();
                        reception.port.count(Refusal::Silent);
                    }
                    let room = Arc::clone(&room);
                    waiting.extend(reception.welcome(stream, from, room, &mut strangers));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors, usually: they come back when others close.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(introduced) = strangers.join_next() => {
                if let Ok(Some(admitted)) = introduced {
                    let counter = Arc::clone(&counter);
                    commands.spawn(async move {
                        if let Err(error) = counter.serve(admitted).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
            }
            Some(_) = commands.join_next() => {}
        }
    }
}

impl Reception {
    /// Sees to somebody who has connected, where handshakes are made.
    fn welcome(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        room: Arc<Semaphore>,
        strangers: &mut JoinSet<Option<Admitted>>,
    ) -> Option<AbortHandle> {
        let mut transport = Transport::over(stream).ok()?;
        let reception = self.clone();
        let Some(security) = &self.security else {
            return Some(strangers.spawn(reception.see_to(transport, from, room)));
        };
        transport.detach().ok()?;
        Some(strangers.spawn_on(reception.see_to(transport, from, room), security.handle()))
    }

    async fn see_to(
        self,
        transport: Transport,
        from: SocketAddr,
        room: Arc<Semaphore>,
    ) -> Option<Admitted> {
        match self.receive(transport, room).await {
            Ok(admitted) => admitted,
            Err((refusal, error)) => {
                self.port.refuse(refusal, Some(from), &error);
                None
            }
        }
    }

    /// Introduces whoever has connected. `Some`: not a member.
    async fn receive(
        &self,
        mut transport: Transport,
        room: Arc<Semaphore>,
    ) -> Result<Option<Admitted>, (Refusal, ChannelError)> {
        let lost = |error| (Refusal::Silent, ChannelError::Io(error));
        transport.attach().map_err(lost)?;
        if let Some(security) = &self.security {
            let admitted = timeout(INTRODUCE, transport.admit(security.server())).await;
            transport = admitted
                .map_err(|_| (Refusal::Silent, ChannelError::Late))?
                .map_err(|error| (Refusal::Handshake, ChannelError::Io(error)))?;
        }
        let mut channel = Channel::new(transport);
        let heard = timeout(INTRODUCE, channel.hear()).await;
        let hello = heard
            .map_err(|_| (Refusal::Silent, ChannelError::Late))?
            .map_err(|error| (of_hello(&error), error))?;
        let doors = Arc::clone(&self.doors.borrow());
        let permit = match hello.role {
            Role::Member => None,
            Role::Administrator => room.try_acquire_owned().ok(),
        };
        let visitor = Visitor::of(&channel);
        let answer = match hello.role {
            Role::Administrator if permit.is_none() => Err(too_many()),
            Role::Administrator | Role::Member => self
                .me
                .answer(&hello, |host| doors.contains_key(host))
                .and_then(|welcome| visitor.must_be(&hello).map(|()| welcome))
                .and_then(|welcome| self.unless_revoked(&visitor).map(|()| welcome)),
        };
        self.reply(&mut channel, answer).await?;
        let Some(permit) = permit else {
            if let Some(door) = doors.get(&hello.host) {
                channel.detach().map_err(|error| (Refusal::Silent, error))?;
                let _ = door.send(channel).await;
            }
            return Ok(None);
        };
        channel.detach().map_err(|error| (Refusal::Silent, error))?;
        Ok(Some(Admitted { channel, visitor, permit }))
    }

    fn unless_revoked(&self, visitor: &Visitor) -> Result<(), Refused> {
        let revoked = |security: &Security| {
            visitor.identity().is_some_and(|identity| security.is_revoked(identity))
        };
        if self.security.as_ref().is_some_and(revoked) {
            let sentence = format!("the certificate was revoked on {}", self.me.host);
            return Err(Refused { reason: Reason::Revoked, sentence });
        }
        Ok(())
    }

    async fn reply(
        &self,
        channel: &mut Channel,
        answer: Result<protocol::handshake::Welcome, Refused>,
    ) -> Result<(), (Refusal, ChannelError)> {
        let silent = |error| (Refusal::Silent, error);
        let refused = match answer {
            Ok(welcome) => {
                channel.put(Kind::Welcome, &welcome.to_bytes()).map_err(silent)?;
                None
            }
            Err(refused) => {
                channel.put(Kind::Refused, &refused.to_bytes()).map_err(silent)?;
                Some(refused)
            }
        };
        timeout(INTRODUCE, channel.write_all())
            .await
            .map_err(|_| silent(ChannelError::Late))?
            .map_err(silent)?;
        match refused {
            None => Ok(()),
            Some(refused) => Err((of_reason(refused.reason), ChannelError::Refused(refused))),
        }
    }
}

/// What an introduction that did not come about counts as.
fn of_hello(error: &ChannelError) -> Refusal {
    match error {
        ChannelError::Io(error) if trust::explain::of_io(error).is_some() => Refusal::Handshake,
        ChannelError::Io(_) | ChannelError::Closed | ChannelError::Late => Refusal::Silent,
        ChannelError::Frame(_)
        | ChannelError::NoIntroduction
        | ChannelError::Refused(_)
        | ChannelError::Revoked
        | ChannelError::NotPermitted(_) => Refusal::Senseless,
    }
}

fn of_reason(reason: Reason) -> Refusal {
    match reason {
        Reason::TooManyConnections => Refusal::TooMany,
        Reason::Revoked => Refusal::Revoked,
        Reason::NoCommonVersion
        | Reason::OtherDeployment
        | Reason::UnknownHost
        | Reason::WrongHost
        | Reason::OtherCertificate => Refusal::Introduction,
    }
}

fn too_many() -> Refused {
    let sentence = "too many commands are connected; end some of them, then try again".to_owned();
    Refused { reason: Reason::TooManyConnections, sentence }
}

/// What those who are no members need.
struct Counter {
    desks: Desks,
    followers: Arc<Semaphore>,
    security: Option<Security>,
    port: Arc<Port>,
}

impl Counter {
    /// Until it hangs up, or its certificate is revoked.
    async fn serve(&self, mut admitted: Admitted) -> Result<(), ChannelError> {
        admitted.channel.attach()?;
        let identity = admitted.visitor.identity().cloned();
        let (Some(security), Some(identity)) = (&self.security, identity) else {
            return self.listen(admitted).await;
        };
        tokio::select! {
            ended = self.listen(admitted) => ended,
            () = security.revocation(&identity) => {
                self.port.refuse(Refusal::Revoked, None, &ChannelError::Revoked);
                Err(ChannelError::Revoked)
            }
        }
    }

    /// One who follows keeps no command out.
    async fn listen(&self, admitted: Admitted) -> Result<(), ChannelError> {
        let Admitted { mut channel, visitor, permit } = admitted;
        let Some(first) = self.converse(&mut channel, &visitor).await? else { return Ok(()) };
        let Ok(_permit) = Arc::clone(&self.followers).try_acquire_owned() else {
            let refusal = Code::TooBusy.refusal(None);
            channel.put(Kind::Response, &Response::Refused(refusal).to_bytes())?;
            return timeout(INTRODUCE, channel.write_all())
                .await
                .map_err(|_| ChannelError::Late)?;
        };
        drop(permit);
        let Some(desk) = self.desks.topology.as_ref().filter(|_| follows_topology(&first)) else {
            return follower::serve(&self.desks.routes, channel, &visitor, first).await;
        };
        topology::serve(desk, channel, visitor.name(), first).await
    }

    /// Answers requests, one after the other. `Some`: it asks to follow.
    async fn converse(
        &self,
        channel: &mut Channel,
        visitor: &Visitor,
    ) -> Result<Option<Asked>, ChannelError> {
        loop {
            let frame = match timeout(IDLE, channel.receive()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(ChannelError::Closed)) => return Ok(None),
                Ok(Err(error)) => {
                    self.port.count(Refusal::Senseless);
                    return Err(error);
                }
                Err(_) => return Err(ChannelError::Late),
            };
            if frame.kind != Kind::Request {
                self.port.count(Refusal::Senseless);
                return Err(ChannelError::NoIntroduction);
            }
            let response = match Asked::from_bytes(&frame.payload) {
                Ok(what) if !visitor.may(&what) => self.deny(visitor, &what).await,
                Ok(follow @ Asked::Follow { .. }) => return Ok(Some(follow)),
                Ok(follow) if self.desks.topology.is_some() && follows_topology(&follow) => {
                    return Ok(Some(follow));
                }
                // There is no answer, and nobody whom it could be about.
                Ok(Asked::Drained { .. }) => continue,
                Ok(what) => self.answer(visitor, what).await,
                Err(refusal) => refusal.into(),
            };
            channel.put(Kind::Response, &response.to_bytes())?;
            timeout(IDLE, channel.write_all()).await.map_err(|_| ChannelError::Late)??;
        }
    }

    async fn deny(&self, visitor: &Visitor, what: &Asked) -> Response {
        let error = ChannelError::NotPermitted(visitor.to_string());
        self.port.refuse(Refusal::NotPermitted, None, &error);
        let refusal = Code::NotPermitted.refusal(Some(visitor.to_string()));
        if let Some(audit) = self.security.as_ref().and_then(Security::audit) {
            audit.note(visitor, what, &refusal.code).await;
        }
        refusal.into()
    }

    /// What changes something is in the audit trail before it happens, and with its outcome.
    async fn answer(&self, visitor: &Visitor, what: Asked) -> Response {
        let changes = what.right() == Right::Change;
        let audit = self.security.as_ref().and_then(Security::audit).filter(|_| changes);
        let Some(audit) = audit else { return self.ask(visitor, what).await };
        audit.note(visitor, &what, "asked").await;
        let response = self.ask(visitor, what.clone()).await;
        audit.note(visitor, &what, audit::outcome(&response)).await;
        response
    }

    async fn ask(&self, visitor: &Visitor, what: Asked) -> Response {
        match (what, &self.desks.topology) {
            (Asked::Topology(what), Some(desk)) => desk.ask(what, visitor.name()).await,
            (Asked::Audit { since_ms, limit }, _) => {
                match self.security.as_ref().and_then(Security::audit) {
                    Some(audit) => audit.show(since_ms, limit).await,
                    None => Code::NoAudit.refusal(None).into(),
                }
            }
            (what, _) => ask(&self.desks.requests, what).await,
        }
    }
}

fn follows_topology(request: &Asked) -> bool {
    matches!(request, Asked::Topology(TopologyRequest::Follow { .. }))
}

async fn ask(requests: &mpsc::Sender<Request>, what: Asked) -> Response {
    let (answer, answered) = oneshot::channel();
    if requests.try_send(Request { what, answer }).is_err() {
        return Code::TooBusy.refusal(None).into();
    }
    answered.await.unwrap_or_else(|_| Code::Unanswered.refusal(None).into())
}
