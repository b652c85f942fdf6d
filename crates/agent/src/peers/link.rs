//! The link to one other host: one connection, made again whenever it is lost.
//!
//! Of two hosts the one with the lower name dials, the other accepts; a newer connection replaces
//! an older one. The link's task never waits for its peer alone: it takes messages in while it
//! writes, so a peer that reads slowly costs nobody but itself.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use protocol::convert;
use protocol::frame::{Frame, Kind};
use protocol::handshake::{Hello, Introduction, Role};
use protocol::v1::Batch;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls::ClientConfig;

use super::channel::{Channel, ChannelError};
use super::outbox::Outbox;
use super::security::{Dialling, Security};
use super::transport::Transport;
use super::{Outgoing, Received};
use crate::config::Address;

/// Between two attempts to connect; the first one after a loss comes at once.
const RETRY: Duration = Duration::from_millis(100);
const DIAL: Duration = Duration::from_millis(500);
const INTRODUCE: Duration = Duration::from_secs(2);
/// How often a link says something when it has nothing to say.
const PING: Duration = Duration::from_secs(1);
/// A connection on which nothing came for so long is dead, or its peer is frozen. It is ended, so
/// that what waits in it is not delivered much later.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) struct Link {
    pub me: Introduction,
    /// `None`: without TLS.
    pub dialling: Option<Dialling>,
    pub peer: Address,
    pub outgoing: mpsc::Receiver<Vec<Outgoing>>,
    /// Connections that the peer has made, already introduced.
    pub accepted: mpsc::Receiver<Channel>,
    pub received: mpsc::Sender<Received>,
    pub outbox: Outbox,
}

/// Links that last no longer than this, so many of them in a row, have a reason that stays.
const BRIEF: Duration = Duration::from_secs(1);
const MANY: u32 = 10;

/// Why the link's task goes on, or does not.
enum Turn {
    Connected(Channel),
    /// The process ends.
    Over,
}

impl Link {
    pub(super) async fn run(mut self) {
        let dials = self.me.host < self.peer.name;
        let mut next_dial = Instant::now();
        let mut complained = false;
        let mut brief = 0_u32;
        let mut channel = None;
        loop {
            let connected = match channel.take() {
                Some(channel) => channel,
                None => match self.connect(dials, next_dial, &mut complained).await {
                    Turn::Connected(channel) => channel,
                    Turn::Over => return,
                },
            };
            if brief < MANY {
                tracing::info!(peer = self.peer.name, "link is up");
            }
            complained = false;
            let since = Instant::now();
            match self.serve(connected).await {
                Ok(Some(newer)) => channel = Some(newer),
                Ok(None) => return,
                Err(error) => {
                    if brief < MANY {
                        tracing::info!(peer = self.peer.name, %error, "link is down");
                    }
                    self.outbox.disconnected();
                }
            }
            brief = if since.elapsed() < BRIEF { brief.saturating_add(1) } else { 0 };
            if brief == MANY {
                tracing::error!(
                    peer = self.peer.name,
                    "links end as soon as they are made: does a second process run under this \
                     name or the peer's, such as a copy of a machine? stop it"
                );
            }
            // At once after a loss, but a peer that keeps ending connections is not besieged.
            next_dial = (since + RETRY).max(Instant::now());
        }
    }

    /// Until there is a connection.
    async fn connect(&mut self, dials: bool, mut next: Instant, complained: &mut bool) -> Turn {
        let hello = self.me.hello(Role::Member, &self.peer.name);
        let mut attempt = None;
        loop {
            if dials && attempt.is_none() {
                let way = self.way();
                attempt = Some(Box::pin(dial(way, self.peer.clone(), hello.clone(), next)));
            }
            tokio::select! {
                messages = self.outgoing.recv() => {
                    let Some(messages) = messages else { return Turn::Over };
                    for Outgoing { weight, item } in messages {
                        self.outbox.push(weight, item, false);
                    }
                }
                accepted = self.accepted.recv() => match accepted {
                    Some(channel) => match here(channel) {
                        Some(channel) => return Turn::Connected(channel),
                        None => continue,
                    },
                    None => return Turn::Over,
                },
                result = async { attempt.as_mut().expect("guarded").await },
                    if attempt.is_some() =>
                {
                    attempt = None;
                    match result {
                        Ok(channel) => return Turn::Connected(channel),
                        Err(error) => {
                            let refused = is_refusal(&error);
                            if refused && !*complained {
                                tracing::warn!(peer = self.peer.name, %error, "peer refuses");
                                *complained = true;
                            }
                            next = Instant::now() + if refused { RETRY * 10 } else { RETRY };
                        }
                    }
                }
            }
        }
    }

    fn way(&mut self) -> Way {
        way(self.dialling.as_mut())
    }

    /// Until the connection ends, or a newer one takes its place; `None`: the process ends.
    async fn serve(&mut self, mut channel: Channel) -> Result<Option<Channel>, ChannelError> {
        let mut revoked = pin!(revoked(self.dialling.as_ref(), &channel));
        let mut heard = Instant::now();
        let mut ping = heard + PING;
        loop {
            if channel.is_written() && !self.outbox.is_empty() {
                channel.put(Kind::Batch, &self.outbox.take())?;
                ping = Instant::now() + PING;
            }
            tokio::select! {
                frame = channel.progress() => {
                    if let Some(frame) = frame? {
                        heard = Instant::now();
                        self.take_in(frame)?;
                    }
                }
                messages = self.outgoing.recv() => {
                    let Some(messages) = messages else { return Ok(None) };
                    for Outgoing { weight, item } in messages {
                        self.outbox.push(weight, item, true);
                    }
                }
                accepted = self.accepted.recv() => match accepted.map(here) {
                    Some(Some(newer)) => return Ok(Some(newer)),
                    Some(None) => {}
                    None => return Ok(None),
                },
                () = sleep_until(ping), if channel.is_written() => {
                    channel.put(Kind::Ping, &[])?;
                    ping = Instant::now() + PING;
                }
                () = sleep_until(heard + SILENCE) => return Err(ChannelError::Late),
                () = &mut revoked => return Err(ChannelError::Revoked),
            }
        }
    }

    fn take_in(&mut self, frame: Frame) -> Result<(), ChannelError> {
        match frame.kind {
            Kind::Batch => {}
            Kind::Ping => return Ok(()),
            Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Request | Kind::Response => {
                return Err(ChannelError::NoIntroduction);
            }
        }
        let Ok(batch) = postcard::from_bytes::<Batch>(&frame.payload) else {
            tracing::warn!(peer = self.peer.name, "a batch cannot be read");
            return Ok(());
        };
        for item in batch.items {
            match convert::message_from_bytes(&item.message) {
                Ok(message) => {
                    let host = self.peer.name.clone();
                    // A lost message is one that the network has lost: nobody waits here.
                    let _ =
                        self.received.try_send(Received { host, session: item.session, message });
                }
                Err(malformed) => {
                    tracing::warn!(peer = self.peer.name, %malformed, "message is not understood");
                }
            }
        }
        Ok(())
    }
}

/// Returns when the certificate of the other side is revoked.
fn revoked(dialling: Option<&Dialling>, channel: &Channel) -> impl Future<Output = ()> + use<> {
    let security = dialling.map(|dialling| dialling.security().clone());
    let identity = channel.peer().map(|peer| peer.identity.clone());
    async move {
        match (security, identity) {
            (Some(security), Some(identity)) => security.revocation(&identity).await,
            (None, _) | (_, None) => std::future::pending().await,
        }
    }
}

/// How a peer is reached now.
pub(super) fn way(dialling: Option<&mut Dialling>) -> Way {
    let dialling = dialling?;
    let config = dialling.config().map_err(|error| error.to_string());
    Some((dialling.security().clone(), config))
}

/// How a peer is reached.
pub(super) type Way = Option<(Security, Result<Arc<ClientConfig>, String>)>;

/// A connection that was accepted in another thread settles here. `None`: it is lost.
fn here(mut channel: Channel) -> Option<Channel> {
    channel.attach().is_ok().then_some(channel)
}

/// Whether the peer, or we, do not want this connection: trying again at once changes nothing.
fn is_refusal(error: &ChannelError) -> bool {
    match error {
        ChannelError::Refused(_) | ChannelError::Revoked => true,
        ChannelError::Io(error) => trust::explain::of_io(error).is_some(),
        ChannelError::Closed
        | ChannelError::Frame(_)
        | ChannelError::NoIntroduction
        | ChannelError::NotPermitted(_)
        | ChannelError::Late => false,
    }
}

pub(super) async fn dial(
    way: Way,
    peer: Address,
    hello: Hello,
    when: Instant,
) -> Result<Channel, ChannelError> {
    sleep_until(when).await;
    let Some((security, config)) = way else { return reach(None, peer, hello).await };
    let config = config.map_err(|error| ChannelError::Io(io::Error::other(error)))?;
    let made = security.elsewhere(async {
        let mut channel = reach(Some(config), peer, hello).await?;
        channel.detach()?;
        Ok::<_, ChannelError>(channel)
    });
    let mut channel = made.await.map_err(ChannelError::Io)??;
    if channel.peer().is_some_and(|peer| security.is_revoked(&peer.identity)) {
        return Err(ChannelError::Revoked);
    }
    channel.attach()?;
    Ok(channel)
}

async fn reach(
    config: Option<Arc<ClientConfig>>,
    peer: Address,
    hello: Hello,
) -> Result<Channel, ChannelError> {
    let mut transport =
        Transport::dial(&peer.host, peer.port, DIAL).await.map_err(ChannelError::Io)?;
    let introduced = async {
        if let Some(config) = config {
            transport = transport.secure(config).await.map_err(ChannelError::Io)?;
        }
        let mut channel = Channel::new(transport);
        channel.introduce(&hello).await?;
        Ok(channel)
    };
    timeout(INTRODUCE, introduced).await.map_err(|_| ChannelError::Late)?
}
