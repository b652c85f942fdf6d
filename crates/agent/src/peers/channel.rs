//! Frames over a transport, and the introduction at the beginning of each connection.
//! Reading and writing can be abandoned at any point where they wait without losing bytes.

use std::collections::VecDeque;
use std::io;

use protocol::frame::{self, Decoder, Frame, Kind};
use protocol::handshake::{Hello, Refused, Welcome};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use trust::Certificate;

use super::transport::Transport;

const READ: usize = 16 * 1024;
/// The most that is taken in of somebody who has not introduced himself.
const HELLO: usize = 32 * 1024;

/// Why a connection did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("{}", words(.0))]
    Io(#[source] io::Error),
    #[error("the other side closed the connection")]
    Closed,
    #[error("{0}")]
    Frame(#[from] frame::FrameError),
    #[error("refused: {0}")]
    Refused(Refused),
    #[error("the other side did not introduce itself")]
    NoIntroduction,
    #[error("the other side took too long")]
    Late,
    #[error("the certificate of the other side was revoked")]
    Revoked,
    #[error("the role does not permit the request: {0}")]
    NotPermitted(String),
}

fn words(error: &io::Error) -> String {
    trust::explain::of_io(error).unwrap_or_else(|| error.to_string())
}

/// A stream of frames in both directions.
#[derive(Debug)]
pub struct Channel {
    transport: Transport,
    decoder: Decoder,
    buffer: Vec<u8>,
    ready: VecDeque<Frame>,
    /// Bytes that have come in all.
    taken: usize,
    out: Vec<u8>,
    written: usize,
    /// TLS may keep encrypted bytes back until it is asked for them.
    flushed: bool,
}

impl Channel {
    pub fn new(transport: Transport) -> Channel {
        Channel {
            transport,
            decoder: Decoder::default(),
            buffer: vec![0; READ],
            ready: VecDeque::new(),
            taken: 0,
            out: Vec::new(),
            written: 0,
            flushed: true,
        }
    }

    /// Whose certificate the other side has shown; `None` without TLS.
    pub fn peer(&self) -> Option<&Certificate> {
        self.transport.peer()
    }

    /// See `Transport::detach`.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn detach(&mut self) -> Result<(), ChannelError> {
        self.transport.detach().map_err(ChannelError::Io)
    }

    /// See `Transport::attach`.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn attach(&mut self) -> Result<(), ChannelError> {
        self.transport.attach().map_err(ChannelError::Io)
    }

    /// Everything that was put in has been handed to the kernel.
    pub fn is_written(&self) -> bool {
        self.written == self.out.len() && self.flushed
    }

    /// Puts a frame into the output; `progress` or `write_all` sends it.
    ///
    /// # Errors
    /// The payload is above the limit.
    pub fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ChannelError> {
        if self.is_written() {
            self.out.clear();
            self.written = 0;
        }
        self.flushed = false;
        Ok(frame::write(kind, payload, &mut self.out)?)
    }

    /// Waits until something was read or written. `Some`: a frame has come.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn progress(&mut self) -> Result<Option<Frame>, ChannelError> {
        if let Some(frame) = self.ready.pop_front() {
            return Ok(Some(frame));
        }
        let waiting = !self.is_written();
        let rest = &self.out[self.written..];
        let (mut reader, mut writer) = tokio::io::split(&mut self.transport);
        tokio::select! {
            read = reader.read(&mut self.buffer) => {
                let count = read.map_err(ChannelError::Io)?;
                if count == 0 {
                    return Err(ChannelError::Closed);
                }
                self.taken = self.taken.saturating_add(count);
                self.decoder.push(&self.buffer[..count]);
                while let Some(frame) = self.decoder.next_frame()? {
                    self.ready.push_back(frame);
                }
            }
            sent = send(&mut writer, rest), if waiting => {
                let sent = sent.map_err(ChannelError::Io)?;
                self.flushed = rest.is_empty();
                self.written += sent;
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The next frame; what was put in is written meanwhile.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn receive(&mut self) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = self.progress().await? {
                return Ok(frame);
            }
        }
    }

    /// Writes all that was put in.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn write_all(&mut self) -> Result<(), ChannelError> {
        let rest = &self.out[self.written..];
        self.transport.write_all(rest).await.map_err(ChannelError::Io)?;
        self.written = self.out.len();
        self.transport.flush().await.map_err(ChannelError::Io)?;
        self.flushed = true;
        Ok(())
    }

    /// The dialling side's part of the introduction.
    ///
    /// # Errors
    /// The other side refused, or is no member.
    pub async fn introduce(&mut self, hello: &Hello) -> Result<Welcome, ChannelError> {
        self.put(Kind::Hello, &hello.to_bytes())?;
        let frame = self.receive().await?;
        match frame.kind {
            Kind::Welcome => {
                Welcome::from_bytes(&frame.payload).map_err(|_| ChannelError::NoIntroduction)
            }
            Kind::Refused => Err(Refused::from_bytes(&frame.payload)
                .map_or(ChannelError::NoIntroduction, ChannelError::Refused)),
            Kind::Hello | Kind::Batch | Kind::Request | Kind::Response | Kind::Ping => {
                Err(ChannelError::NoIntroduction)
            }
        }
    }

    /// The accepting side's part: what the other side says of itself.
    ///
    /// # Errors
    /// It says nothing that can be understood.
    pub async fn hear(&mut self) -> Result<Hello, ChannelError> {
        let frame = loop {
            if let Some(frame) = self.progress().await? {
                break frame;
            }
            if self.taken > HELLO {
                return Err(ChannelError::NoIntroduction);
            }
        };
        if frame.kind != Kind::Hello {
            return Err(ChannelError::NoIntroduction);
        }
        Hello::from_bytes(&frame.payload).map_err(|_| ChannelError::NoIntroduction)
    }
}

/// Some of `rest`; what is kept back below, once there is none.
async fn send(writer: &mut (impl AsyncWrite + Unpin), rest: &[u8]) -> io::Result<usize> {
    if rest.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    writer.write(rest).await
}
