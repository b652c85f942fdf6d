//! How a client gets in, and how the gateway gets in to a server in its name.
//!
//! `accept` takes a new connection from its first byte to the end of the authentication: TLS, the
//! version of the protocol, SCRAM, MD5 or trust. What it refuses is told to the client in
//! PostgreSQL's own words, and the connection is closed so that the words arrive. What a log-in
//! leaves (`Credentials`) lets the gateway log in to either server of the pool (`to_server`). No
//! password, key or secret has a readable `Debug`.

mod authenticate;
pub mod inbox;
pub mod md5;
mod opening;
pub mod random;
#[cfg(test)]
mod tests;
pub mod to_server;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::scram::Keys;
use wire::server::{Report, Severity, push_error};

use self::authenticate::Admitted;
use self::inbox::{Fault, Inbox};
use self::opening::Opened;
use crate::tls::{Stream, Tls};
use crate::verifiers::Verifiers;

/// A text that must not be read by people who look at logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Box<str>);

impl SecretText {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> SecretText {
        SecretText(text.into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// What every client comes through.
#[derive(Debug)]
pub struct Door {
    /// Absent: clients are not offered TLS.
    pub tls: Option<Tls>,
    pub verifiers: Rc<Verifiers>,
    /// Users who are let in without a password.
    pub trust: Vec<String>,
}

/// A connection that wants something.
#[derive(Debug)]
pub enum Accepted {
    Client(Box<LoggedIn>),
    /// A client wants its statement cancelled. It waits until the stream ends.
    Cancel {
        process: u32,
        key: Vec<u8>,
        stream: Stream,
    },
}

/// A client that is in, and has not been told so yet.
#[derive(Debug)]
pub struct LoggedIn {
    pub stream: Stream,
    /// The end of its log-in, up to `AuthenticationOk`: goes out with what it is told next.
    pub unsent: Vec<u8>,
    /// What was read beyond its log-in.
    pub buffered: Vec<u8>,
    /// The version of the protocol that is spoken: `PROTOCOL_3_0` or `PROTOCOL_3_2`.
    pub protocol: u32,
    pub user: String,
    pub database: String,
    /// All parameters of its start, as they were given, without the options of the protocol
    /// itself: these have been settled.
    pub parameters: Vec<(String, String)>,
    pub credentials: Credentials,
    /// Present: it wants the commands of replication.
    pub replication: Option<ReplicationKind>,
    /// How many connections the user may have; -1: as many as there is room for.
    pub connection_limit: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicationKind {
    Physical,
    /// Of one database.
    Logical,
}

/// With what the gateway logs in to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// What a log-in by SCRAM left: good for every server with the same verifier.
    Scram { keys: Keys, salt: Rc<[u8]>, iterations: u32 },
    /// What the server stores, which is as good as the password.
    Md5(SecretText),
    /// The password itself: of the lookup role only.
    Password(SecretText),
    /// Nothing: the server lets this user in.
    Trust,
}

/// A connection that is over, and why. The client has been told what it could be told.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the client left before it had logged in")]
    Left,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the client began with TLS, which is not configured")]
    NoTls,
    #[error("the client began with TLS at once and did not name the protocol inside (ALPN)")]
    NoAlpn,
    #[error("the client sent data in clear where its TLS handshake belongs")]
    Stuffed,
    #[error("{message} ({sqlstate})")]
    Told { sqlstate: &'static str, message: String },
}

/// How a step of a log-in ends early.
#[derive(Debug)]
enum Stop {
    /// Nothing can be told, or nothing should.
    Silent(Refused),
    Tell(Words),
}

/// What the client is told.
#[derive(Debug)]
struct Words {
    sqlstate: &'static str,
    message: String,
    detail: &'static str,
    hint: &'static str,
}

impl Words {
    fn new(sqlstate: &'static str, message: impl Into<String>) -> Words {
        Words { sqlstate, message: message.into(), detail: "", hint: "" }
    }

    fn detail(self, detail: &'static str) -> Words {
        Words { detail, ..self }
    }

    fn hint(self, hint: &'static str) -> Words {
        Words { hint, ..self }
    }
}

impl From<Words> for Stop {
    fn from(words: Words) -> Stop {
        Stop::Tell(words)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Silent(Refused::Io(error))
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        match fault {
            Fault::Ended => Stop::Silent(Refused::Left),
            Fault::Io(error) => Stop::Silent(Refused::Io(error)),
            Fault::Malformed(malformed) => Stop::Tell(Words::new(
                PROTOCOL_VIOLATION,
                format!("malformed message: {malformed}"),
            )),
            Fault::TooLarge => Stop::Tell(Words::new(PROTOCOL_VIOLATION, "invalid message length")),
        }
    }
}

const PROTOCOL_VIOLATION: &str = "08P01";
const INVALID_PASSWORD: &str = "28P01";
const INVALID_AUTHORIZATION: &str = "28000";
const NOT_SUPPORTED: &str = "0A000";
const INVALID_PARAMETER: &str = "22023";
const CANNOT_CONNECT_NOW: &str = "57P03";

/// The stream of a client, with what was read ahead.
#[derive(Debug)]
struct Line {
    stream: Stream,
    inbox: Inbox,
    /// What the client may bind its log-in to.
    end_point: Option<Rc<[u8]>>,
}

/// Takes a new connection through its log-in. The caller bounds the time.
///
/// # Errors
/// See `Refused`; the connection is closed then.
pub async fn accept(socket: TcpStream, door: &Door) -> Result<Accepted, Refused> {
    let (mut line, opened) = opening::open(socket, door.tls.as_ref()).await?;
    let start = match opened {
        Opened::Cancel { process, key } => {
            return Ok(Accepted::Cancel { process, key, stream: line.stream });
        }
        Opened::Start(start) => start,
    };
    match authenticate::admit(&mut line, door, &start).await {
        Ok(Admitted { credentials, connection_limit, unsent }) => {
            Ok(Accepted::Client(Box::new(LoggedIn {
                stream: line.stream,
                unsent,
                buffered: line.inbox.rest(),
                protocol: start.protocol,
                user: start.user,
                database: start.database,
                parameters: start.parameters,
                credentials,
                replication: start.replication,
                connection_limit,
            })))
        }
        Err(stop) => Err(part(line, stop).await),
    }
}

/// How long a client may take to read why it is refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// Ends the connection, and tells the client why.
async fn part(line: Line, stop: Stop) -> Refused {
    let words = match stop {
        Stop::Silent(refused) => return refused,
        Stop::Tell(words) => words,
    };
    let some = |text: &'static str| (!text.is_empty()).then_some(text);
    let report = Report {
        detail: some(words.detail),
        hint: some(words.hint),
        ..Report::new(Severity::Fatal, words.sqlstate, &words.message)
    };
    let mut out = Vec::new();
    push_error(&mut out, &report);
    // Whether it arrives is the client's concern.
    let _arrived = timeout(FAREWELL, farewell(line.stream, &out)).await;
    Refused::Told { sqlstate: words.sqlstate, message: words.message }
}

/// Writes the last bytes and waits until the client has closed: a socket that is closed with
/// bytes unread would be reset, and the last words lost on the way.
pub async fn farewell(mut stream: Stream, last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    for _ in 0..MOST_UNREAD / unread.len() {
        if stream.read(&mut unread).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// How much a client may go on sending after it was refused.
const MOST_UNREAD: usize = 64 * 1024;
