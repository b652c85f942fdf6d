//! The Front End's own door for commands: its status, and its end.
//!
//! It speaks the members' introduction and frames, so that a command asks it as it asks a member.
//! Commands are few and short: too many at one time are refused, and one that is silent is closed.

mod shown;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use protocol::admin::{Code, Request, Response, Right};
use protocol::frame::Kind;
use protocol::handshake::{Hello, Introduction, Reason, Refused, Role};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};
use trust::Identity;

pub use self::shown::Status;
use crate::handover::Entrance;
use crate::papers::Papers;
use crate::route::line::{Line, LineError};
use crate::topology::Keeper;

/// Commands at one time.
const COMMANDS: usize = 32;
/// Connections that are not yet introduced. Of more, the one that has waited longest makes room.
const STRANGERS: usize = 64;
/// With more of them than this the next one is let wait, for so long: handshakes take the time of
/// the thread that serves the clients.
const CALM: usize = 8;
const PACE: Duration = Duration::from_millis(10);
const INTRODUCE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);

struct Door {
    me: Introduction,
    shown: Shown,
    papers: Papers,
    room: Semaphore,
    /// Taken by the first command that ends the gateway.
    shutdown: RefCell<Option<oneshot::Sender<()>>>,
}

/// What commands are answered from.
#[derive(Debug)]
pub struct Shown {
    /// `None`: it has no configuration yet.
    pub status: Option<Status>,
    /// `None`: its own file says everything.
    pub topology: Option<Keeper>,
}

/// Answers commands until the task is ended, or another process answers them. `shutdown` is told
/// when a command ends the gateway.
pub async fn serve(
    mut entrance: Entrance,
    me: Introduction,
    shown: Shown,
    papers: Papers,
    shutdown: oneshot::Sender<()>,
) {
    let door = Rc::new(Door {
        me,
        shown,
        papers,
        room: Semaphore::new(COMMANDS),
        shutdown: RefCell::new(Some(shutdown)),
    });
    let mut strangers: VecDeque<Stranger> = VecDeque::new();
    while let Some(accepted) = entrance.accept().await {
        match accepted {
            Ok(stream) => {
                strangers.retain(Stranger::waits);
                if strangers.len() >= STRANGERS
                    && let Some(longest) = strangers.pop_front()
                {
                    longest.task.abort();
                }
                strangers.push_back(Stranger::welcome(&door, stream));
                if strangers.len() > CALM && door.papers.are_there() {
                    sleep(PACE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a command's connection could not be accepted");
                // Out of file descriptors, usually: they come back when others close.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Somebody who has connected.
struct Stranger {
    task: AbortHandle,
    introduced: Rc<Cell<bool>>,
}

impl Stranger {
    fn welcome(door: &Rc<Door>, stream: TcpStream) -> Stranger {
        let introduced = Rc::new(Cell::new(false));
        let (door, known) = (Rc::clone(door), Rc::clone(&introduced));
        let task = spawn_local(async move {
            if let Err(error) = door.converse(stream, &known).await {
                tracing::debug!(%error, "a command's connection ended");
            }
        });
        Stranger { task: task.abort_handle(), introduced }
    }

    /// He has neither gone nor introduced himself.
    fn waits(&self) -> bool {
        !self.introduced.get() && !self.task.is_finished()
    }
}

impl Door {
    async fn converse(&self, stream: TcpStream, introduced: &Cell<bool>) -> Result<(), LineError> {
        stream.set_nodelay(true)?;
        let accepted = timeout(INTRODUCE, self.papers.accepted(stream)).await;
        let (stream, peer) = accepted.map_err(|_| LineError::Silent)??;
        let peer = peer.map(|certificate| certificate.identity);
        let mut line = Line::new(stream);
        let introducing = self.introduce(&mut line, peer.as_ref());
        let _room = timeout(INTRODUCE, introducing).await.map_err(|_| LineError::Silent)??;
        introduced.set(true);
        loop {
            let frame = match timeout(IDLE, line.next()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(LineError::Closed)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(LineError::Silent),
            };
            if peer.as_ref().is_some_and(|peer| self.papers.is_revoked(peer)) {
                return Err(LineError::Senseless("has a certificate that was revoked"));
            }
            let response = match frame.kind {
                Kind::Request => match Request::from_bytes(&frame.payload) {
                    Ok(request) if !permits(peer.as_ref(), &request) => {
                        Code::NotPermitted.refusal(None).into()
                    }
                    Ok(Request::Topology(what)) => match &self.shown.topology {
                        Some(keeper) => keeper.answer(what).await,
                        // Its own file says everything.
                        None => Code::FrontEnd.refusal(None).into(),
                    },
                    Ok(request) => self.answer(&request),
                    Err(refusal) => refusal.into(),
                },
                Kind::Ping => continue,
                Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Batch | Kind::Response => {
                    return Err(LineError::Senseless("sent something that is no request"));
                }
            };
            let ends = matches!(response, Response::Done { .. });
            let sent = timeout(INTRODUCE, line.send(Kind::Response, &response.to_bytes())).await;
            if ends {
                self.shut_down();
            }
            sent.map_err(|_| LineError::Silent)??;
        }
    }

    async fn introduce(
        &self,
        line: &mut Line,
        peer: Option<&Identity>,
    ) -> Result<Option<SemaphorePermit<'_>>, LineError> {
        let frame = line.next().await?;
        if frame.kind != Kind::Hello {
            return Err(LineError::Senseless("does not introduce itself"));
        }
        let hello = Hello::from_bytes(&frame.payload)?;
        let room = self.room.try_acquire().ok();
        let answer = match hello.role {
            Role::Administrator if room.is_none() => Err(Refused {
                reason: Reason::TooManyConnections,
                sentence: "too many commands are connected; end some of them, then try again"
                    .to_owned(),
            }),
            Role::Administrator | Role::Member => self
                .me
                .answer(&hello, |_| false)
                .and_then(|welcome| must_be(peer, &hello).map(|()| welcome))
                .and_then(|welcome| self.unless_revoked(peer).map(|()| welcome)),
        };
        match answer {
            Ok(welcome) => {
                line.send(Kind::Welcome, &welcome.to_bytes()).await?;
                Ok(room)
            }
            Err(refused) => {
                line.send(Kind::Refused, &refused.to_bytes()).await?;
                Err(refused.into())
            }
        }
    }

    fn unless_revoked(&self, peer: Option<&Identity>) -> Result<(), Refused> {
        if !peer.is_some_and(|peer| self.papers.is_revoked(peer)) {
            return Ok(());
        }
        let sentence = format!("the certificate was revoked on {}", self.me.host);
        Err(Refused { reason: Reason::Revoked, sentence })
    }

    /// `Done` stands for the end of the gateway only.
    fn answer(&self, request: &Request) -> Response {
        match request {
            Request::Status { pool } => match &self.shown.status {
                None => Code::NoTopology.refusal(None).into(),
                Some(status) if !status.is_of(pool.as_deref()) => {
                    Code::UnknownPool.refusal(None).into()
                }
                Some(status) => Response::FrontEnd(status.shown()),
            },
            Request::Shutdown { .. } => {
                Response::Done { sentence: "the Front End is ending".to_owned() }
            }
            Request::CreateSession { .. }
            | Request::Failover { .. }
            | Request::ForceService { .. }
            | Request::Suspend { .. }
            | Request::Resume { .. }
            | Request::History { .. }
            | Request::ChangeWitness { .. }
            | Request::ServeAlone { .. }
            | Request::Learn { .. }
            | Request::Follow { .. }
            | Request::Drained { .. }
            | Request::Topology(_)
            | Request::Preflight { .. }
            | Request::Audit { .. } => Code::FrontEnd.refusal(None).into(),
        }
    }

    fn shut_down(&self) {
        if let Some(shutdown) = self.shutdown.borrow_mut().take() {
            tracing::info!("a command ends the Front End");
            // Whoever waits for this may have ended already.
            let _ = shutdown.send(());
        }
    }
}

/// The certificate says what `hello` says; without certificates nothing does.
fn must_be(peer: Option<&Identity>, hello: &Hello) -> Result<(), Refused> {
    let Some(other) = peer.filter(|peer| peer.name != hello.host) else { return Ok(()) };
    let sentence = format!("this certificate is of {}, and not of {}", other.name, hello.host);
    Err(Refused { reason: Reason::OtherCertificate, sentence })
}

/// Everybody of the deployment may look; the rest takes an administrator.
fn permits(peer: Option<&Identity>, request: &Request) -> bool {
    match request.right() {
        Right::Look | Right::Inspect | Right::Follow => true,
        Right::Change => peer.is_none_or(|peer| peer.role == trust::Role::Administrator),
    }
}

#[cfg(test)]
mod tests {
    use protocol::admin::{FrontEndMode, FrontEndStatus};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::config::{FrontEnd, FrontEndFile};
    use crate::counters::Counters;
    use crate::mode::Modes;
    use crate::route::Pool;

    fn config() -> FrontEnd {
        let text = r#"
            name = "fe1"
            deployment = "demo"
            pool = "pool01"
            listen = "127.0.0.1:6432"
            admin_listen = "127.0.0.1:6433"
            state_dir = "/nowhere"
            first = { name = "be1", address = "127.0.0.1:1" }
            second = { name = "be2", address = "127.0.0.1:2" }
            password_file = "/nowhere/password"
        "#;
        let file: FrontEndFile = toml::from_str(text).unwrap();
        let address = |text: &str| text.parse().unwrap();
        let (listen, admin_listen) = (address(&file.listen), address(&file.admin_listen));
        FrontEnd { file, listen, admin_listen, password: String::new() }
    }

    async fn ask(line: &mut Line, request: Request) -> Response {
        line.send(Kind::Request, &request.to_bytes()).await.unwrap();
        timeout(Duration::from_secs(20), line.answer()).await.unwrap().unwrap()
    }

    fn code(response: Response) -> String {
        match response {
            Response::Refused(refusal) => refusal.code,
            other => panic!("answered {other:?}"),
        }
    }

    /// Runs `test` with the address of a status that nobody but the test asks.
    fn with_status(test: impl AsyncFnOnce(String, Rc<Counters>, oneshot::Receiver<()>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let config = config();
            let names = ["be1", "be2"].map(|name| (name.to_owned(), String::new()));
            let pool = Pool::unfollowed(names);
            let modes = Modes::follow(&pool, &config.file.times);
            let counters = Rc::new(Counters::default());
            let (counted, registry) = (Rc::clone(&counters), Rc::default());
            let status = Status::new(&config, config.listen, pool, modes, counted, registry);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (shutdown, ended) = oneshot::channel();
            let (_open, is_open) = watch::channel(true);
            let me = status.introduction();
            let shown = Shown { status: Some(status), topology: None };
            spawn_local(serve(
                Entrance::new(Rc::new(listener), is_open),
                me,
                shown,
                Papers::default(),
                shutdown,
            ));
            test(address, counters, ended).await;
        });
    }

    fn me() -> Introduction {
        Introduction {
            deployment: "demo".to_owned(),
            host: "administrator".to_owned(),
            run: 1,
            software: "0".to_owned(),
        }
    }

    #[test]
    fn it_shows_the_mode_and_whom_it_affects() {
        with_status(async |address, counters, _ended| {
            let session = counters.sessions.enter();
            let waits = counters.waiting.enter();
            let hello = me().hello(Role::Administrator, "fe1");
            let mut line = Line::dial(&address, &hello, &Papers::default()).await.unwrap();
            let pool = Some("pool01".to_owned());
            let response = ask(&mut line, Request::Status { pool }).await;
            let Response::FrontEnd(shown) = response else { panic!("answered {response:?}") };
            let FrontEndStatus { name, mode, sentence, principal, servers, .. } = &shown;
            assert_eq!((name.as_str(), *mode), ("fe1", FrontEndMode::WithoutPrincipal));
            assert_eq!(sentence, "nobody serves; 1 of 1 client session waiting");
            assert_eq!((principal, servers.len()), (&None, 2));
            assert!(shown.without_principal_ms.is_some());
            assert_eq!((shown.client_sessions.all, shown.client_sessions.held), (1, 1));
            drop((session, waits));
        });
    }

    #[test]
    fn what_only_members_can_do_is_refused_with_a_code() {
        with_status(async |address, _counters, _ended| {
            let hello = me().hello(Role::Administrator, "fe1");
            let mut line = Line::dial(&address, &hello, &Papers::default()).await.unwrap();
            let pool = || "pool01".to_owned();
            let other = Request::Status { pool: Some("other".to_owned()) };
            assert_eq!(code(ask(&mut line, other).await), "unknown_pool");
            let suspend = Request::Suspend { pool: pool() };
            assert_eq!(code(ask(&mut line, suspend).await), "front_end");
            let follow = Request::Follow { pool: pool(), stamp: 1 };
            assert_eq!(code(ask(&mut line, follow).await), "front_end");
            line.send(Kind::Request, b"{\"request\": \"dance\"}").await.unwrap();
            assert_eq!(code(line.answer().await.unwrap()), "unknown_request");
        });
    }

    #[test]
    fn a_command_ends_the_front_end() {
        with_status(async |address, _counters, mut ended| {
            let hello = me().hello(Role::Administrator, "");
            let mut line = Line::dial(&address, &hello, &Papers::default()).await.unwrap();
            assert!(ended.try_recv().is_err());
            let response = ask(&mut line, Request::Shutdown { stop_postgres: false }).await;
            assert!(matches!(response, Response::Done { .. }));
            assert!(timeout(Duration::from_secs(20), ended).await.unwrap().is_ok());
        });
    }

    #[test]
    fn strangers_are_refused() {
        with_status(async |address, _counters, _ended| {
            for (role, deployment, wanted, reason) in [
                (Role::Member, "demo", "fe1", Reason::UnknownHost),
                (Role::Administrator, "other", "fe1", Reason::OtherDeployment),
                (Role::Administrator, "demo", "fe2", Reason::WrongHost),
            ] {
                let me = Introduction { deployment: deployment.to_owned(), ..me() };
                match Line::dial(&address, &me.hello(role, wanted), &Papers::default()).await {
                    Err(LineError::NotWelcome(refused)) => assert_eq!(refused.reason, reason),
                    other => panic!("answered {other:?}"),
                }
            }
        });
    }
}
