//! The other hosts: one long-lived connection to each, for the messages of all sessions.
//!
//! `Peers` belongs to the loop of a process. It gathers what the sessions send in one turn and
//! hands it to the links in one piece each (`flush`); what comes in goes to the loop through one
//! bounded queue. Nothing here ever waits: what finds no room is lost, as on a network.

mod channel;
mod follower;
mod link;
mod listener;
mod outbox;
mod transport;

use std::collections::BTreeMap;

use protocol::convert;
use protocol::handshake::Introduction;
use protocol::v1::Item;
use session::{Body, Message};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::Address;
use crate::route::Routes;
use link::Link;
use outbox::{Outbox, Weight};

pub use channel::{Channel, ChannelError};
pub use transport::Transport;

/// Turns of outgoing messages that a link has not yet taken in; it takes them in at once.
const TURNS: usize = 64;

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
    links: BTreeMap<String, mpsc::Sender<Vec<Outgoing>>>,
    turn: BTreeMap<String, Vec<Outgoing>>,
    /// Ends with `Peers`.
    _tasks: JoinSet<()>,
}

impl Peers {
    /// Listens on `listener`, keeps a link to each of `hosts`, and tells followers of `routes`.
    ///
    /// Must be called inside of a runtime, in which the tasks then live.
    pub fn start(
        me: &Introduction,
        listener: TcpListener,
        hosts: Vec<Address>,
        received: &mpsc::Sender<Received>,
        requests: mpsc::Sender<Request>,
        routes: Routes,
    ) -> Peers {
        let mut tasks = JoinSet::new();
        let mut links = BTreeMap::new();
        let mut doors = BTreeMap::new();
        for peer in hosts {
            let (to_link, outgoing) = mpsc::channel(TURNS);
            let (door, accepted) = mpsc::channel(1);
            links.insert(peer.name.clone(), to_link);
            doors.insert(peer.name.clone(), door);
            let link = Link {
                me: me.clone(),
                peer,
                outgoing,
                accepted,
                received: received.clone(),
                outbox: Outbox::default(),
            };
            tasks.spawn(link.run());
        }
        tasks.spawn(listener::run(me.clone(), listener, doors, requests, routes));
        Peers { links, turn: BTreeMap::new(), _tasks: tasks }
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
            let Some(link) = self.links.get(&host) else { continue };
            // Full only if this thread starves: the messages are lost as on a network.
            let _ = link.try_send(messages);
        }
    }
}
