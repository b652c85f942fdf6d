//! A listening socket that can be left alone for a while, and given away.
//!
//! While it is closed nobody is accepted and nobody is refused: those who come wait in the system's
//! queue for whoever accepts next, in this process or in another one.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug)]
pub struct Entrance {
    listener: Rc<TcpListener>,
    open: watch::Receiver<bool>,
}

impl Entrance {
    pub fn new(listener: Rc<TcpListener>, open: watch::Receiver<bool>) -> Entrance {
        Entrance { listener, open }
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next one who comes in. `None`: the socket has been given away.
    pub async fn accept(&mut self) -> Option<io::Result<TcpStream>> {
        loop {
            self.open.wait_for(|open| *open).await.ok()?;
            tokio::select! {
                biased;
                closed = self.open.wait_for(|open| !*open) => drop(closed.ok()?),
                accepted = self.listener.accept() => {
                    return Some(accepted.map(|(stream, _)| stream));
                }
            }
        }
    }
}
