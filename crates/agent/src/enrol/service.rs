//! The authority's service: gives certificates against tokens, and renews them.
//!
//! Anybody may connect, so everything is bounded: connections, time, and the length of a question.
//! One question is answered after the other, because each changes the authority's directory.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use trust::{Answer, Ask, Book, Credentials};

use super::{hear, say};
use crate::clock;

const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Service {
    /// Held while a question is answered, which takes a few writes to the disk.
    book: Mutex<Book>,
    acceptor: TlsAcceptorOf,
    /// Nobody else answers for the same authority.
    _lock: File,
}

/// rustls' acceptor shows nothing of itself.
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

impl Service {
    /// # Errors
    /// Somebody answers for this authority already, or it cannot make a certificate for its own
    /// service.
    pub fn new(book: Book) -> Result<Service, trust::Error> {
        let lock = book.lock()?;
        let own = book.own_credentials(clock::wall())?;
        let acceptor = TlsAcceptorOf(TlsAcceptor::from(own.authority_server()?));
        Ok(Service { book: Mutex::new(book), acceptor, _lock: lock })
    }

    async fn converse(&self, tcp: TcpStream, from: SocketAddr) -> io::Result<()> {
        let mut stream = self.acceptor.0.accept(tcp).await?;
        let connection = stream.get_ref().1;
        let now = clock::wall();
        let peer = Credentials::peer(connection.peer_certificates(), now).ok();
        let exporter = trust::binding(|to, label, context| {
            connection.export_keying_material(to, label, context)
        })
        .map_err(io::Error::other)?;
        let ask = Ask::from_bytes(&hear(&mut stream).await?).map_err(io::Error::other)?;
        let answer = self.book.lock().await.answer(&ask, peer.as_ref(), &exporter, now);
        let what = match &ask {
            Ask::Join { .. } => "join",
            Ask::Renew { .. } => "renew",
        };
        match &answer {
            Answer::Granted { certificate, .. } => {
                let identity = trust::Certificate::read(certificate).map(|made| made.identity);
                let identity = identity.map_err(io::Error::other)?;
                tracing::info!(what, %from, %identity, "a certificate is given out");
            }
            Answer::Refused(refusal) => {
                let reason = refusal.reason;
                tracing::warn!(what, %from, ?reason, "no certificate is given out");
            }
        }
        say(&mut stream, &answer.to_bytes()).await
    }
}

/// Until `shutdown`.
pub async fn serve(service: Service, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let service = Arc::new(service);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut conversations = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    // Who finds no room is hung up on: joining can be repeated.
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let service = Arc::clone(&service);
                    conversations.spawn(async move {
                        let _permit = permit;
                        match timeout(PATIENCE, service.converse(tcp, from)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(%from, %error, "nothing was asked"),
                            Err(_) => tracing::debug!(%from, "nothing was asked in time"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = conversations.join_next() => {}
        }
    }
}
