//! One simulated host's connection to the witness: TLS, the introduction, and frames of messages.
//!
//! Made again whenever it is lost, as a member's link does it. What comes up while there is none is
//! dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::peers::{Channel, ChannelError, Transport};
use protocol::convert;
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role as Wants};
use protocol::v1::{Batch, Item};
use session::Message;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;

use super::deployment::WITNESS;

const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// What all hosts have sent and received since the beginning.
#[derive(Debug, Default)]
pub struct Traffic {
    pub messages_out: AtomicU64,
    pub messages_in: AtomicU64,
    pub frames_out: AtomicU64,
    pub frames_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub votes: AtomicU64,
    /// Connections that were made.
    pub links: AtomicU64,
    /// Changes of roles, and alarms, that nobody had asked for.
    pub disturbances: AtomicU64,
}

impl Traffic {
    pub fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// How a host reaches the witness.
#[derive(Clone)]
pub struct Way {
    pub me: Introduction,
    pub config: Arc<ClientConfig>,
    pub port: u16,
    /// So many handshakes at one time.
    pub gate: Arc<Semaphore>,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Channel, ChannelError>> + Send>>;

enum State {
    Up(Box<Channel>),
    Dialling(Dialling),
}

pub struct Wire {
    way: Way,
    state: State,
    waiting: Vec<Item>,
    traffic: Arc<Traffic>,
}

impl Wire {
    pub fn new(way: Way, traffic: Arc<Traffic>) -> Wire {
        let state = State::Dialling(Box::pin(dial(way.clone(), Duration::ZERO)));
        Wire { way, state, waiting: Vec::new(), traffic }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub fn send(&mut self, session: &str, message: &Message) {
        if self.is_up() {
            let message = convert::message_to_bytes(message);
            self.waiting.push(Item { session: session.to_owned(), message });
        }
    }

    /// Ends a turn: what was sent in it leaves in one frame, if the one before has left.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        let State::Up(channel) = &mut self.state else { return Ok(()) };
        if self.waiting.is_empty() || !channel.is_written() {
            return Ok(());
        }
        let batch = Batch { items: std::mem::take(&mut self.waiting) };
        let payload = postcard::to_allocvec(&batch).expect("writing to memory does not fail");
        Traffic::add(&self.traffic.messages_out, batch.items.len());
        Traffic::add(&self.traffic.frames_out, 1);
        Traffic::add(&self.traffic.bytes_out, payload.len());
        channel.put(Kind::Batch, &payload)
    }

    /// Returns when something has happened, with the messages that have come. May be dropped.
    pub async fn next(&mut self) -> Vec<(String, Message)> {
        match &mut self.state {
            State::Dialling(dialling) => match dialling.await {
                Ok(channel) => {
                    Traffic::add(&self.traffic.links, 1);
                    self.state = State::Up(Box::new(channel));
                }
                Err(_) => self.redial(),
            },
            State::Up(channel) => match channel.progress().await {
                Ok(Some(frame)) if frame.kind == Kind::Batch => return self.read(&frame.payload),
                Ok(_) => {}
                Err(_) => self.redial(),
            },
        }
        Vec::new()
    }

    fn redial(&mut self) {
        self.waiting.clear();
        self.state = State::Dialling(Box::pin(dial(self.way.clone(), RETRY)));
    }

    fn read(&self, payload: &[u8]) -> Vec<(String, Message)> {
        let batch: Batch = postcard::from_bytes(payload).expect("a witness sends batches");
        Traffic::add(&self.traffic.messages_in, batch.items.len());
        Traffic::add(&self.traffic.frames_in, 1);
        Traffic::add(&self.traffic.bytes_in, payload.len());
        let message = |bytes: &[u8]| {
            convert::message_from_bytes(bytes).expect("a witness sends what is well formed")
        };
        batch.items.into_iter().map(|item| (item.session, message(&item.message))).collect()
    }
}

async fn dial(way: Way, after: Duration) -> Result<Channel, ChannelError> {
    sleep(after).await;
    let _place = way.gate.acquire().await;
    let made = async {
        let transport =
            Transport::dial("127.0.0.1", way.port, PATIENCE).await.map_err(ChannelError::Io)?;
        let transport = transport.secure(way.config).await.map_err(ChannelError::Io)?;
        let mut channel = Channel::new(transport);
        channel.introduce(&way.me.hello(Wants::Member, WITNESS)).await?;
        Ok(channel)
    };
    tokio::time::timeout(PATIENCE, made).await.map_err(|_| ChannelError::Late)?
}
