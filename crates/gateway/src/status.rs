//! The Front End's own door for commands: its status, and its end.
//!
//! It speaks the members' introduction and frames, so that a command asks it as it asks a member.
//! Commands are few and short: too many at one time are refused, and one that is silent is closed.

mod shown;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use protocol::admin::{Code, Request, Response};
use protocol::frame::Kind;
use protocol::handshake::{Hello, Introduction, Reason, Refused, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

pub use self::shown::Status;
use crate::route::line::{Line, LineError};

/// Commands at one time.
const COMMANDS: usize = 32;
const INTRODUCE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);

struct Door {
    me: Introduction,
    status: Status,
    room: Semaphore,
    /// Taken by the first command that ends the gateway.
    shutdown: RefCell<Option<oneshot::Sender<()>>>,
}

/// Answers commands until the task is ended. `shutdown` is told when a command ends the gateway.
pub async fn serve(listener: TcpListener, status: Status, shutdown: oneshot::Sender<()>) {
    let door = Rc::new(Door {
        me: status.introduction(),
        status,
        room: Semaphore::new(COMMANDS),
        shutdown: RefCell::new(Some(shutdown)),
    });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let door = Rc::clone(&door);
                spawn_local(async move {
                    if let Err(error) = door.converse(stream).await {
                        tracing::debug!(%error, "a command's connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a command's connection could not be accepted");
                // Out of file descriptors, usually: they come back when others close.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Door {
    async fn converse(&self, stream: TcpStream) -> Result<(), LineError> {
        let mut line = Line::new(stream)?;
        let room = self.room.try_acquire();
        let introduced = timeout(INTRODUCE, self.introduce(&mut line, room.is_ok())).await;
        introduced.map_err(|_| LineError::Silent)??;
        loop {
            let frame = match timeout(IDLE, line.next()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(LineError::Closed)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(LineError::Silent),
            };
            let response = match frame.kind {
                Kind::Request => match Request::from_bytes(&frame.payload) {
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

    async fn introduce(&self, line: &mut Line, room: bool) -> Result<(), LineError> {
        let frame = line.next().await?;
        if frame.kind != Kind::Hello {
            return Err(LineError::Senseless("does not introduce itself"));
        }
        let hello = Hello::from_bytes(&frame.payload)?;
        let answer = match hello.role {
            Role::Administrator if !room => Err(Refused {
                reason: Reason::TooManyConnections,
                sentence: "too many commands are connected; end some of them, then try again"
                    .to_owned(),
            }),
            Role::Administrator | Role::Member => self.me.answer(&hello, |_| false),
        };
        match answer {
            Ok(welcome) => line.send(Kind::Welcome, &welcome.to_bytes()).await,
            Err(refused) => {
                line.send(Kind::Refused, &refused.to_bytes()).await?;
                Err(refused.into())
            }
        }
    }

    /// `Done` stands for the end of the gateway only.
    fn answer(&self, request: &Request) -> Response {
        match request {
            Request::Status { pool } if !self.status.is_of(pool.as_deref()) => {
                Code::UnknownPool.refusal(None).into()
            }
            Request::Status { .. } => Response::FrontEnd(self.status.shown()),
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
            | Request::Drained { .. } => Code::FrontEnd.refusal(None).into(),
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
