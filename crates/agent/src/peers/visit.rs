//! A connection to another process that is no link: requests and answers, as commands use it.

use protocol::handshake::{Introduction, Role};
use tokio::time::Instant;

use super::channel::{Channel, ChannelError};
use super::link;
use super::security::{Dialling, Security};
use crate::config::Address;

/// Connections to one other process.
#[derive(Debug)]
pub(crate) struct Visits {
    me: Introduction,
    dialling: Option<Dialling>,
    peer: Address,
}

impl Visits {
    pub fn new(me: &Introduction, security: Option<&Security>, peer: Address) -> Visits {
        let dialling = security.map(|security| Dialling::new(security.clone(), &peer.name));
        Visits { me: me.clone(), dialling, peer }
    }

    pub fn peer(&self) -> &str {
        &self.peer.name
    }

    /// # Errors
    /// It is not reached, is somebody else, or does not let this process in.
    pub async fn connect(&mut self) -> Result<Channel, ChannelError> {
        let hello = self.me.hello(Role::Administrator, &self.peer.name);
        let way = link::way(self.dialling.as_mut());
        link::dial(way, self.peer.clone(), hello, Instant::now()).await
    }
}
