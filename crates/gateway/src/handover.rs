//! A Front End is replaced by another process of it, and no client is refused.
//!
//! A process that starts and finds another one with its state directory asks that one for its
//! listening sockets, so connections that nobody has accepted yet are not lost. Each step that can
//! fail comes before the step that cannot be taken back: until the new process says that it serves,
//! the old one goes on as if nothing had been asked whenever the new one goes away. Afterwards the
//! old process only serves the client sessions that it has, and the new one passes it their
//! cancels. Whoever holds the lock (`claim`) owns the state directory; nobody else writes there.

mod claim;
mod entrance;
mod link;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::claim::Claim;
pub use self::entrance::Entrance;
pub use self::link::{Links, pass_cancels};
use self::link::{receive, receive_hello, receive_sockets, send, send_hello, send_sockets};
use crate::config::FrontEnd;
use crate::socket;
use crate::verifiers::Verifiers;

/// How long a new process waits for the one before it, which may be about to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one step of the other process may take.
const STEP: Duration = Duration::from_secs(10);
/// From one look for the lock to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the two processes say to each other, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    /// The old one: here are copies of the sockets. I go on until you are ready.
    Sockets,
    /// The old one: you are another Front End.
    Stranger,
    /// The new one: nothing can fail any more.
    Ready,
    /// The old one: I accept nobody and write nothing.
    Yours,
    /// The new one: I accept clients.
    Serving,
}

/// Who asks for the sockets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
    deployment: String,
    pool: String,
    name: String,
}

const VERSION: u32 = 1;

impl Hello {
    fn of(config: &FrontEnd) -> Hello {
        let file = &config.file;
        Hello {
            version: VERSION,
            deployment: file.deployment.clone(),
            pool: file.pool.clone(),
            name: file.name.clone(),
        }
    }
}

/// Why a Front End could not take its place.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("cannot lock {}: {error}", path.display())]
    Lock { path: PathBuf, error: std::io::Error },
    #[error(
        "another process holds {} and does not hand over: end it, or choose another state_dir",
        path.display()
    )]
    Occupied { path: PathBuf },
    #[error(
        "the Front End that runs with state_dir {} has another name, pool or deployment: choose \
         another state_dir", path.display()
    )]
    Stranger { path: PathBuf },
    #[error("cannot listen on {what} = {address}: {error}")]
    Listen { what: &'static str, address: SocketAddr, error: std::io::Error },
}

/// What only one process of a Front End has at a time.
#[derive(Debug)]
pub struct Held {
    hello: Hello,
    state_dir: PathBuf,
    post: Option<UnixListener>,
    clients: Rc<TcpListener>,
    commands: Rc<TcpListener>,
    open: watch::Sender<bool>,
    /// The process that waits to hear that this one serves.
    before: Option<UnixStream>,
    /// Given up last: whoever has it may listen where this process listened.
    claim: Option<Claim>,
}

/// Takes the place of the Front End that runs with this state directory, or of none.
///
/// # Errors
/// See `HandoverError`; the other Front End then goes on.
pub async fn arrive(config: &FrontEnd) -> Result<(Held, Links), HandoverError> {
    let path = || config.file.state_dir.clone();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(claim) = take_claim(config)? {
            let clients = listen("listen", config.listen).await?;
            let commands = listen("admin_listen", config.admin_listen).await?;
            let held = Held::new(config, claim, clients, commands);
            return Ok((held, Links::default()));
        }
        match ask(config).await? {
            Some(arrived) => return Ok(arrived),
            None if Instant::now() > deadline => {
                return Err(HandoverError::Occupied { path: path() });
            }
            None => sleep(LOOK_AGAIN).await,
        }
    }
}

fn take_claim(config: &FrontEnd) -> Result<Option<Claim>, HandoverError> {
    let path = &config.file.state_dir;
    Claim::take(path).map_err(|error| HandoverError::Lock { path: path.clone(), error })
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, HandoverError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| HandoverError::Listen { what, address, error })
}

/// Asks the process that runs. `None`: it went away, or is about to.
async fn ask(config: &FrontEnd) -> Result<Option<(Held, Links)>, HandoverError> {
    let state_dir = &config.file.state_dir;
    let Ok(mut before) = UnixStream::connect(claim::post_path(state_dir)).await else {
        return Ok(None);
    };
    let asked = async {
        send_hello(&mut before, &Hello::of(config)).await?;
        receive_sockets(&before).await
    };
    let Ok(Ok(answer)) = timeout(STEP, asked).await else {
        return Ok(None);
    };
    let sockets = answer.ok_or_else(|| HandoverError::Stranger { path: state_dir.clone() })?;
    let clients = inherit(sockets.clients, "listen", config.listen).await?;
    let commands = inherit(sockets.commands, "admin_listen", config.admin_listen).await?;
    let agreed = async {
        send(&mut before, Word::Ready).await?;
        receive(&mut before).await
    };
    if !matches!(timeout(STEP, agreed).await, Ok(Ok(Word::Yours))) {
        return Ok(None);
    }
    let deadline = Instant::now() + STEP;
    let claim = loop {
        match take_claim(config)? {
            Some(claim) => break claim,
            None if Instant::now() > deadline => return Ok(None),
            None => sleep(LOOK_AGAIN).await,
        }
    };
    let mut held = Held::new(config, claim, clients, commands);
    held.before = Some(before);
    Ok(Some((held, sockets.links)))
}

/// The other process's socket if it listens where this one should; otherwise one of its own.
async fn inherit(
    socket: TcpListener,
    what: &'static str,
    wanted: SocketAddr,
) -> Result<TcpListener, HandoverError> {
    let same = socket
        .local_addr()
        .is_ok_and(|found| found == wanted || found.ip() == wanted.ip() && wanted.port() == 0);
    if same { Ok(socket) } else { listen(what, wanted).await }
}

/// How much longer a client's system may leave bytes unacknowledged than the client untaken.
const LONGER: Duration = Duration::from_secs(60);

impl Held {
    fn new(config: &FrontEnd, claim: Claim, clients: TcpListener, commands: TcpListener) -> Held {
        // Accepted sockets inherit this; a kernel that refuses it only makes dead clients linger.
        // The gateway's own patience with a slow client ends sooner.
        if let Err(error) = socket::prepare(&clients, config.file.times.slow_client() + LONGER) {
            tracing::warn!(%error, "the listening socket could not be prepared");
        }
        Held {
            hello: Hello::of(config),
            state_dir: config.file.state_dir.clone(),
            post: claim.listen(),
            claim: Some(claim),
            clients: Rc::new(clients),
            commands: Rc::new(commands),
            open: watch::channel(true).0,
            before: None,
        }
    }

    /// Where clients and commands come in.
    pub fn entrances(&self) -> (Entrance, Entrance) {
        let entrance = |listener| Entrance::new(listener, self.open.subscribe());
        (entrance(Rc::clone(&self.clients)), entrance(Rc::clone(&self.commands)))
    }

    /// Whoever accepts at the entrances ends.
    pub fn close(&mut self) {
        self.open = watch::channel(false).0;
    }

    /// Clients are accepted: whoever served before need not come back.
    pub async fn serving(&mut self, links: &Links) {
        let Some(mut before) = self.before.take() else {
            return;
        };
        // Otherwise it has ended, and its client sessions with it.
        if let Ok(Ok(())) = timeout(STEP, send(&mut before, Word::Serving)).await {
            links.add(before);
        }
    }

    /// Waits until another process serves in the place of this one; returns the way to it.
    /// Everything that is held has then been given away.
    pub async fn given_away(&mut self, verifiers: &Verifiers, links: &Links) -> UnixStream {
        loop {
            let stream = self.asked().await;
            if let Some(after) = self.hand_over(stream, verifiers, links).await {
                links.clear();
                return after;
            }
            verifiers.resume_writing().await;
            self.open.send_replace(true);
        }
    }

    async fn asked(&mut self) -> UnixStream {
        loop {
            let Some(post) = &self.post else {
                return std::future::pending().await;
            };
            match post.accept().await {
                Ok((stream, _)) if link::is_own_user(&stream) => return stream,
                Ok(_) => tracing::warn!("a process of another user asked for the sockets"),
                Err(error) => {
                    tracing::warn!(%error, "a process that asks for the sockets is not heard");
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// `None`: the other process went away, and this one goes on.
    async fn hand_over(
        &mut self,
        mut after: UnixStream,
        verifiers: &Verifiers,
        links: &Links,
    ) -> Option<UnixStream> {
        let hello = timeout(STEP, receive_hello(&mut after)).await.ok()?.ok()?;
        if hello != self.hello {
            tracing::warn!(name = %hello.name, pool = %hello.pool, "another Front End was started \
                 with this state directory; it is refused");
            let _told = timeout(STEP, send(&mut after, Word::Stranger)).await;
            return None;
        }
        let sent = send_sockets(&after, &self.clients, &self.commands, links);
        timeout(STEP, sent).await.ok()?.ok()?;
        let ready = timeout(STEP, receive(&mut after)).await.ok()?.ok()?;
        if ready != Word::Ready {
            return None;
        }
        self.open.send_replace(false);
        verifiers.stop_writing().await;
        self.claim = None;
        let served = async {
            send(&mut after, Word::Yours).await?;
            receive(&mut after).await
        };
        if matches!(timeout(STEP, served).await, Ok(Ok(Word::Serving))) || !self.take_back().await {
            self.post = None;
            return Some(after);
        }
        tracing::warn!("a process that was to take over went away; this one goes on");
        None
    }

    /// The new process did not say that it serves. Whether its place is free.
    async fn take_back(&mut self) -> bool {
        // A process that has just died may hold the lock for a moment.
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match Claim::take(&self.state_dir) {
                Ok(Some(claim)) => {
                    self.post = claim.listen();
                    self.claim = Some(claim);
                    return true;
                }
                Ok(None) | Err(_) if Instant::now() > deadline => return false,
                Ok(None) | Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
