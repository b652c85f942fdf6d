//! The other hosts: one long-lived connection to each, for the messages of all sessions.
//!
//! `Peers` belongs to the loop of a process. It gathers what the sessions send in one turn and
//! hands it to the links in one piece each (`flush`); what comes in goes to the loop through one
//! bounded queue. Nothing here ever waits: what finds no room is lost, as on a network. Who
//! somebody is, his certificate says (`security`); what he may do follows from its role
//! (`visitor`).

mod audit;
mod channel;
mod follower;
mod link;
mod listener;
mod outbox;
mod port;
mod security;
mod socket;
mod transport;
mod visit;
mod visitor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::PortStatus;
use protocol::convert;
use protocol::handshake::Introduction;
use protocol::v1::Item;
use session::{Body, Message};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::Address;
use crate::route::Routes;
use crate::topology::Desk;
use link::Link;
use listener::{Doors, Reception};
use outbox::{Outbox, Weight};
use port::Port;
use security::Dialling;

pub use channel::{Channel, ChannelError};
pub use security::{Security, SecurityError};
pub use transport::Transport;
pub(crate) use visit::Visits;

/// Turns of outgoing messages that a link has not yet taken in; it takes them in at once.
const TURNS: usize = 64;
const DAY: Duration = Duration::from_hours(24);

/// A message that came in.
#[derive(Debug)]
pub struct Received {
    /// The process that sent it.
    pub host: String,
    pub session: String,
    pub message: Message,
}

/// An administrator's request, and where its answer goes.
#[derive(Debug)]
pub struct Request {
    pub what: protocol::admin::Request,
    pub answer: oneshot::Sender<protocol::admin::Response>,
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    weight: Weight,
    item: Item,
}

#[derive(Debug)]
pub struct Peers {
    me: Introduction,
    security: Option<Security>,
    port: Arc<Port>,
    received: mpsc::Sender<Received>,
    links: BTreeMap<String, Line>,
    /// Where the listener takes members to.
    doors: watch::Sender<Arc<Doors>>,
    turn: BTreeMap<String, Vec<Outgoing>>,
    /// Ends with `Peers`.
    tasks: JoinSet<()>,
}

/// The loop's end of a link, which ends with it.
#[derive(Debug)]
struct Line {
    peer: Address,
    outgoing: mpsc::Sender<Vec<Outgoing>>,
    door: mpsc::Sender<Channel>,
}

/// Where the members' port takes what those ask who are no members.
#[derive(Debug)]
pub(crate) struct Desks {
    pub requests: mpsc::Sender<Request>,
    pub routes: Routes,
    pub topology: Option<Desk>,
}

impl Peers {
    /// Listens on `listener`, keeps a link to each of `hosts`, and tells followers of `routes`.
    /// With `security` all connections, made or accepted, are TLS with certificates.
    ///
    /// Must be called inside of a runtime, in which the tasks then live.
    pub fn start(
        me: &Introduction,
        listener: TcpListener,
        hosts: Vec<Address>,
        received: &mpsc::Sender<Received>,
        requests: mpsc::Sender<Request>,
        routes: Routes,
        security: Option<Security>,
    ) -> Peers {
        let desks = Desks { requests, routes, topology: None };
        Peers::start_with(me, listener, hosts, received, desks, security)
    }

    pub(crate) fn start_with(
        me: &Introduction,
        listener: TcpListener,
        hosts: Vec<Address>,
        received: &mpsc::Sender<Received>,
        desks: Desks,
        security: Option<Security>,
    ) -> Peers {
        let (doors, opened) = watch::channel(Arc::default());
        let mut tasks = JoinSet::new();
        let port = Arc::new(Port::default());
        let reception = Reception {
            me: me.clone(),
            security: security.clone(),
            doors: opened,
            port: Arc::clone(&port),
        };
        tasks.spawn(listener::run(reception, listener, desks));
        let mut peers = Peers {
            me: me.clone(),
            security,
            port,
            received: received.clone(),
            links: BTreeMap::new(),
            doors,
            turn: BTreeMap::new(),
            tasks,
        };
        peers.set_hosts(hosts);
        peers
    }

    /// Keeps a link to each of `hosts` from now on, and to nobody else. A link whose host has the
    /// same address as before goes on undisturbed.
    ///
    /// Must be called inside of the runtime of `start`.
    pub fn set_hosts(&mut self, hosts: Vec<Address>) {
        while self.tasks.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut self.links);
        for peer in hosts {
            let known = before.remove(&peer.name).filter(|line| line.peer == peer);
            let line = known.unwrap_or_else(|| self.link(peer.clone()));
            self.links.insert(peer.name, line);
        }
        let doors = self.links.iter().map(|(name, line)| (name.clone(), line.door.clone()));
        self.doors.send_replace(Arc::new(doors.collect()));
    }

    fn link(&mut self, peer: Address) -> Line {
        let (outgoing, to_send) = mpsc::channel(TURNS);
        let (door, accepted) = mpsc::channel(1);
        let link = Link {
            me: self.me.clone(),
            dialling: self
                .security
                .as_ref()
                .map(|security| Dialling::new(security.clone(), &peer.name)),
            peer: peer.clone(),
            outgoing: to_send,
            accepted,
            received: self.received.clone(),
            outbox: Outbox::default(),
        };
        self.tasks.spawn(link.run());
        Line { peer, outgoing, door }
    }

    /// What the members' port shows of itself.
    pub fn port(&self) -> PortStatus {
        let left = self.security.as_ref().map(Security::left);
        PortStatus {
            certificates: left.is_some(),
            certificate_days_left: left.map(|left| left.as_secs() / DAY.as_secs()),
            refused: self.port.refused(),
        }
    }

    /// Sends `message` with this turn's others to `host`; to an unknown one it is lost.
    pub fn send(&mut self, host: &str, session: &str, message: &Message) {
        if !self.links.contains_key(host) {
            return;
        }
        let weight = match message.body {
            Body::Heartbeat { .. } | Body::HeartbeatAnswered { .. } => Weight::Heartbeat,
            Body::Proposed
            | Body::Accepted { .. }
            | Body::ProposalRefused { .. }
            | Body::PreVoteAsked { .. }
            | Body::PreVoteAnswered { .. }
            | Body::VoteAsked { .. }
            | Body::VoteAnswered { .. }
            | Body::Resigned { .. }
            | Body::LevelAsked { .. }
            | Body::LevelAnswered { .. }
            | Body::StateAsked { .. }
            | Body::StateAnswered { .. }
            | Body::IdentityLost { .. } => Weight::Other,
        };
        let message = convert::message_to_bytes(message);
        let item = Item { session: session.to_owned(), message };
        let outgoing = Outgoing { weight, item };
        match self.turn.get_mut(host) {
            Some(turn) => turn.push(outgoing),
            None => drop(self.turn.insert(host.to_owned(), vec![outgoing])),
        }
    }

    /// Ends the turn: what was sent in it leaves.
    pub fn flush(&mut self) {
        while let Some((host, messages)) = self.turn.pop_first() {
            let Some(line) = self.links.get(&host) else { continue };
            // Full only if this thread starves: the messages are lost as on a network.
            let _ = line.outgoing.try_send(messages);
        }
    }
}
