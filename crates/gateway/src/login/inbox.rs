//! What arrives while somebody logs in: start-up packets and small messages, one at a time.
//!
//! Messages are copied out, because they are few and small; what was read beyond the last one is
//! handed on at the end (`rest`), so that not a byte is lost. A message that is larger than a
//! log-in needs is refused before its body is read.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use wire::frame::{self, FrameError};
use wire::{Malformed, startup};

/// PostgreSQL's own limit for what a client sends while it logs in.
const LARGEST: usize = 65_535;
/// How much room is made for one reading.
const STEP: usize = 1024;

/// Nothing more can be read.
#[derive(Debug)]
pub enum Fault {
    /// The other side ended the connection between two messages or within one.
    Ended,
    Io(io::Error),
    Malformed(Malformed),
    TooLarge,
}

/// One whole message.
#[derive(Debug)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

#[derive(Default, Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Waits until a whole start-up packet is there, and leaves it: `startup::split` reads it.
    pub async fn await_packet<S: AsyncRead + Unpin>(
        &mut self,
        from: &mut S,
    ) -> Result<&[u8], Fault> {
        while startup::split(&self.bytes).map_err(Fault::Malformed)?.is_none() {
            self.more(from).await?;
        }
        Ok(&self.bytes)
    }

    /// Takes so many bytes off.
    pub fn skip(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Waits for one whole message, and takes it off.
    pub async fn message<S: AsyncRead + Unpin>(&mut self, from: &mut S) -> Result<Message, Fault> {
        loop {
            let found = frame::split(&self.bytes, LARGEST).map_err(|error| match error {
                FrameError::Malformed(malformed) => Fault::Malformed(malformed),
                FrameError::TooLarge { .. } => Fault::TooLarge,
            })?;
            if let Some(frame) = found {
                let message = Message { tag: frame.tag, body: frame.body.to_vec() };
                let size = frame.size();
                self.bytes.drain(..size);
                return Ok(message);
            }
            self.more(from).await?;
        }
    }

    pub fn first(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was read and not taken off.
    pub fn rest(self) -> Vec<u8> {
        // An empty buffer must not keep its room for as long as the client stays.
        if self.bytes.is_empty() { Vec::new() } else { self.bytes }
    }

    async fn more<S: AsyncRead + Unpin>(&mut self, from: &mut S) -> Result<(), Fault> {
        self.bytes.reserve(STEP);
        match from.read_buf(&mut self.bytes).await {
            Ok(0) => Err(Fault::Ended),
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::Io(error)),
        }
    }
}
