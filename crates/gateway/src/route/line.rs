//! A connection in the frames that Backstay's processes speak to each other, from either end.
//!
//! Whoever reads may stop in the middle and go on later: what has arrived is kept.

use protocol::admin::{Refusal, Response};
use protocol::frame::{self, Decoder, Frame, FrameError, Kind};
use protocol::handshake::{Hello, Refused, Unreadable, Welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::papers::{Duplex, Papers};

/// Why a connection to a member, or to a command, had to end.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("it is not reached: {0}")]
    Unreached(std::io::Error),
    #[error("the connection broke: {}", words(.0))]
    Broken(#[from] std::io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("it does not answer")]
    Silent,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Introduction(#[from] Unreadable),
    #[error(transparent)]
    NotWelcome(#[from] Refused),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("its answer is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    #[error("it {0}")]
    Senseless(&'static str),
}

fn words(error: &std::io::Error) -> String {
    trust::explain::of_io(error).unwrap_or_else(|| error.to_string())
}

#[derive(Debug)]
pub struct Line {
    stream: Box<dyn Duplex>,
    decoder: Decoder,
    bytes: Box<[u8]>,
}

impl Line {
    pub fn new(stream: Box<dyn Duplex>) -> Line {
        Line { stream, decoder: Decoder::default(), bytes: vec![0; 4096].into_boxed_slice() }
    }

    /// Dials, shows its certificate if there is one, and introduces itself.
    pub async fn dial(address: &str, hello: &Hello, papers: &Papers) -> Result<Line, LineError> {
        let stream = TcpStream::connect(address).await.map_err(LineError::Unreached)?;
        stream.set_nodelay(true)?;
        let mut line = Line::new(papers.dialled(stream, &hello.wanted).await?);
        line.send(Kind::Hello, &hello.to_bytes()).await?;
        let frame = line.next().await?;
        match frame.kind {
            Kind::Welcome => {
                Welcome::from_bytes(&frame.payload)?;
                Ok(line)
            }
            Kind::Refused => Err(Refused::from_bytes(&frame.payload)?.into()),
            Kind::Hello | Kind::Batch | Kind::Request | Kind::Response | Kind::Ping => {
                Err(LineError::Senseless("does not introduce itself"))
            }
        }
    }

    pub async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), LineError> {
        let mut bytes = Vec::new();
        frame::write(kind, payload, &mut bytes)?;
        self.stream.write_all(&bytes).await?;
        // TLS may keep encrypted bytes back until it is asked for them.
        Ok(self.stream.flush().await?)
    }

    /// The next frame. It may be given up at any time: nothing is lost.
    pub async fn next(&mut self) -> Result<Frame, LineError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let count = match self.stream.read(&mut self.bytes).await {
                // Frames have lengths, so an end that nobody announced is as good as any.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if count == 0 {
                return Err(LineError::Closed);
            }
            self.decoder.push(&self.bytes[..count]);
        }
    }

    /// The next answer; as `next`.
    pub async fn answer(&mut self) -> Result<Response, LineError> {
        loop {
            let frame = self.next().await?;
            match frame.kind {
                Kind::Response => return Ok(Response::from_bytes(&frame.payload)?),
                Kind::Ping => {}
                Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Batch | Kind::Request => {
                    return Err(LineError::Senseless("answers with something that is no answer"));
                }
            }
        }
    }
}
