//! A TCP socket that can move from one runtime to another, below whatever runs over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(super) enum Socket {
    Attached(TcpStream),
    /// In no runtime: nothing can be read or written.
    Detached(std::net::TcpStream),
    /// It could not be moved.
    Lost,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket::Attached(stream)
    }

    pub fn detach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Socket::Lost) {
            Socket::Attached(stream) => Socket::Detached(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    pub fn attach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Socket::Lost) {
            Socket::Detached(stream) => Socket::Attached(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Socket::Attached(stream) => Ok(Pin::new(stream)),
            Socket::Detached(_) | Socket::Lost => {
                Err(io::Error::other("the connection is in no runtime"))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(context)
    }
}
