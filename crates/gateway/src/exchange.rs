//! The gateway's own questions to a server, while no client's message is under way there.

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::frame::{Frame, split};
use wire::message::{DataRow, Fields, push_query};

use crate::conversation::ServerSide;
use crate::refusal;
use crate::tls::Stream;

/// The largest reply to a question of the gateway's own.
const LARGEST: usize = 16 * 1024 * 1024;

/// A connection to a server on which a client session's statements run.
#[derive(Debug)]
pub struct Server {
    pub stream: Stream,
    /// What was read and not yet walked.
    pub unread: Vec<u8>,
    pub side: ServerSide,
    /// What the server has told of its parameters.
    pub parameters: BTreeMap<String, String>,
    pub member: String,
    pub host: String,
    pub port: u16,
    pub process: u32,
    pub key: Vec<u8>,
    /// The gateway has set something that cleaning would set back: it is for one client only.
    pub special: bool,
    /// Commits on it do not wait for the mirror by default, of which its clients are warned.
    pub lowered: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the connection to the server is lost: {0}")]
    Lost(#[from] io::Error),
    #[error("the server does not keep to the protocol")]
    Malformed,
    #[error("the server refused: {message} ({sqlstate})")]
    Refused { sqlstate: String, message: String },
}

/// What the server answered.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<Vec<Option<String>>>,
    /// SQLSTATE and text of the last error.
    pub error: Option<(String, String)>,
    pub status: u8,
    /// What came beside the answer and is meant for the client: notifications.
    pub aside: Vec<u8>,
    /// The server warned that a commit's wait for the mirror was cancelled.
    pub wait_cancelled: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stream.part();
    }
}

impl Server {
    /// Runs `statements` and waits for their end.
    pub async fn ask(&mut self, statements: &str) -> Result<Answer, ExchangeError> {
        let mut bytes = Vec::new();
        push_query(&mut bytes, statements);
        self.exchange(&bytes, 1).await
    }

    /// Sends what needs no answer.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ExchangeError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Runs statements that must not fail.
    pub async fn order(&mut self, statements: &str) -> Result<(), ExchangeError> {
        match self.ask(statements).await?.error {
            None => Ok(()),
            Some((sqlstate, message)) => Err(ExchangeError::Refused { sqlstate, message }),
        }
    }

    /// Sends messages, and waits for as many ReadyForQuery.
    pub async fn exchange(&mut self, bytes: &[u8], ends: usize) -> Result<Answer, ExchangeError> {
        self.send(bytes).await?;
        let mut answer = Answer::default();
        let mut left = ends;
        while left > 0 {
            let mut at = 0;
            while let Ok(Some(frame)) = split(&self.unread[at..], LARGEST) {
                left -= usize::from(frame.tag == b'Z');
                at += frame.size();
                note(&mut self.parameters, &mut answer, frame);
                if left == 0 {
                    break;
                }
            }
            self.unread.drain(..at);
            if left == 0 {
                break;
            }
            if self.unread.len() > LARGEST {
                return Err(ExchangeError::Malformed);
            }
            let mut chunk = [0; 8192];
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.unread.extend_from_slice(&chunk[..count]);
        }
        Ok(answer)
    }
}

fn note(parameters: &mut BTreeMap<String, String>, answer: &mut Answer, frame: Frame<'_>) {
    match frame.tag {
        b'D' => {
            let row = DataRow::of(frame.body);
            let values = row.values().map(|value| {
                let bytes = value.ok().flatten()?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            });
            answer.rows.push(values.collect());
        }
        b'E' => {
            let fields = Fields::of(frame.body);
            answer.error = Some((fields.sqlstate().to_owned(), fields.message().to_owned()));
        }
        b'Z' => answer.status = frame.body.first().copied().unwrap_or_default(),
        b'S' => {
            let mut parts = frame.body.split(|byte| *byte == 0);
            let mut text = || {
                let bytes = parts.next().unwrap_or_default();
                String::from_utf8_lossy(bytes).into_owned()
            };
            let (name, value) = (text(), text());
            parameters.insert(name, value);
        }
        b'N' => {
            let routine = Fields::of(frame.body).routine() == crate::conversation::WAIT;
            answer.wait_cancelled |= routine;
        }
        b'A' => {
            answer.aside.push(b'A');
            refusal::body(&mut answer.aside, frame.body);
        }
        _other => {}
    }
}
