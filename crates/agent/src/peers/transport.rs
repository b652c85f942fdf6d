//! A connection between two processes: the one type that knows what carries the bytes.
//!
//! That is TCP, or TLS over it with a certificate on both sides. Sockets are set so that small
//! messages leave at once, and that a peer that no longer answers is noticed by the kernel within
//! about a second, far below its own patience of minutes. Handshakes compute, so they are made in
//! another thread than the one that the connection then lives in: `detach` and `attach` carry it
//! over.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use trust::{Certificate, Credentials};

use super::socket::Socket;
use crate::clock;

/// Sent bytes that are not confirmed for so long end the connection: a new one is made sooner than
/// TCP would try again by itself.
const UNCONFIRMED: u32 = 1_000;
const KEEPALIVE: Duration = Duration::from_secs(1);
/// What waits unencrypted or encrypted in a connection, at most: more waits where it comes from.
const BUFFERED: usize = 16 * 1024;

#[derive(Debug)]
pub struct Transport(Carrier);

#[derive(Debug)]
enum Carrier {
    Tcp(Socket),
    Tls(Box<Secured>),
}

#[derive(Debug)]
struct Secured {
    stream: TlsStream<Socket>,
    /// Of the other side.
    peer: Certificate,
}

impl Transport {
    /// # Errors
    /// Nobody accepts there within `patience`.
    pub async fn dial(host: &str, port: u16, patience: Duration) -> io::Result<Transport> {
        let stream = timeout(patience, TcpStream::connect((host, port)))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Transport::over(stream)
    }

    /// Takes over a connection that was accepted, or made, on TCP.
    ///
    /// # Errors
    /// The socket does not take its options.
    pub fn over(stream: TcpStream) -> io::Result<Transport> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
        sockopt::set_tcp_user_timeout(&stream, UNCONFIRMED)?;
        Ok(Transport(Carrier::Tcp(Socket::new(stream))))
    }

    /// For commands: a person waits longer for a slow network than a member does.
    ///
    /// # Errors
    /// The socket does not take its options.
    pub fn patient(stream: TcpStream) -> io::Result<Transport> {
        stream.set_nodelay(true)?;
        Ok(Transport(Carrier::Tcp(Socket::new(stream))))
    }

    /// The dialling side's handshake. `config` says who must answer.
    ///
    /// # Errors
    /// It is somebody else, or we are not let in.
    pub async fn secure(self, config: Arc<ClientConfig>) -> io::Result<Transport> {
        let connector = TlsConnector::from(config);
        let limited = |connection: &mut tokio_rustls::rustls::ClientConnection| {
            connection.set_buffer_limit(Some(BUFFERED));
        };
        let socket = self.plain()?;
        let stream = connector.connect_with(trust::server_name(), socket, limited).await?;
        let peer = Credentials::peer(stream.get_ref().1.peer_certificates(), clock::wall())
            .map_err(io::Error::other)?;
        Ok(Transport(Carrier::Tls(Box::new(Secured { stream: stream.into(), peer }))))
    }

    /// The accepting side's handshake.
    ///
    /// # Errors
    /// There is no good certificate on the other side.
    pub async fn admit(self, config: Arc<ServerConfig>) -> io::Result<Transport> {
        let acceptor = TlsAcceptor::from(config);
        let limited = |connection: &mut tokio_rustls::rustls::ServerConnection| {
            connection.set_buffer_limit(Some(BUFFERED));
        };
        let socket = self.plain()?;
        let stream = acceptor.accept_with(socket, limited).await?;
        let peer = Credentials::peer(stream.get_ref().1.peer_certificates(), clock::wall())
            .map_err(io::Error::other)?;
        Ok(Transport(Carrier::Tls(Box::new(Secured { stream: stream.into(), peer }))))
    }

    fn plain(self) -> io::Result<Socket> {
        match self.0 {
            Carrier::Tcp(socket) => Ok(socket),
            Carrier::Tls(_) => Err(io::Error::other("the connection is secured already")),
        }
    }

    /// Whose certificate the other side has shown; `None` without TLS.
    pub fn peer(&self) -> Option<&Certificate> {
        match &self.0 {
            Carrier::Tcp(_) => None,
            Carrier::Tls(secured) => Some(&secured.peer),
        }
    }

    /// Leaves the runtime that it was made in, to be attached to another.
    ///
    /// # Errors
    /// The socket cannot be taken out.
    pub fn detach(&mut self) -> io::Result<()> {
        self.socket().detach()
    }

    /// Settles in the current runtime, unless it lives in one.
    ///
    /// # Errors
    /// The socket cannot be registered.
    pub fn attach(&mut self) -> io::Result<()> {
        self.socket().attach()
    }

    fn socket(&mut self) -> &mut Socket {
        match &mut self.0 {
            Carrier::Tcp(socket) => socket,
            Carrier::Tls(secured) => secured.stream.get_mut().0,
        }
    }
}

/// Frames have lengths, so an end that nobody announced is an end as good as any.
fn ended(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        result => result,
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Carrier::Tls(secured) => {
                let read = ready!(Pin::new(&mut secured.stream).poll_read(context, buffer));
                Poll::Ready(ended(read))
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Carrier::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Carrier::Tls(secured) => Pin::new(&mut secured.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Carrier::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Carrier::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(context),
        }
    }
}
