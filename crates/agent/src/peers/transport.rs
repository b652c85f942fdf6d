//! A connection between two processes: the one type that knows what carries the bytes.
//!
//! Today that is TCP. Whatever else comes (TLS) is another variant here, and nothing above changes.
//! Sockets are set so that small messages leave at once, and that a peer that no longer answers is
//! noticed by the kernel within about a second, far below its own patience of minutes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sent bytes that are not confirmed for so long end the connection: a new one is made sooner than
/// TCP would try again by itself.
const UNCONFIRMED: u32 = 1_000;
const KEEPALIVE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Transport(Carrier);

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
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
        Ok(Transport(Carrier::Tcp(stream)))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
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
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
