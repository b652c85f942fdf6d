//! A physical replication connection: logging in, the few commands, the stream.
//!
//! It speaks the protocol itself (crate `wire`), because a client library for SQL knows nothing
//! of CopyBoth. Over the socket it logs in by peer, over TCP by SCRAM with the password from a
//! file. WAL is handed out as it arrives and never gathered, so memory stays bounded. Every
//! request has a deadline; a connection whose request failed is of no further use.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use session::{Lsn, Position, Timeline};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use wire::frame::{self, Frame};
use wire::message::{self, Authentication, Backend, DataRow, Fields};
use wire::replication::{FromServer, LARGEST_WAL, StandbyStatus};
use wire::{Malformed, startup};

use super::certificates::Tls;
use super::history::History;
use super::secure;
use crate::clock;

/// The largest message that is accepted: a stretch of WAL, or a timeline's history.
const LARGEST_MESSAGE: usize = LARGEST_WAL + 1024;
/// Milliseconds from 1970 to 2000, where PostgreSQL's clock begins.
const YEAR_2000_MS: u64 = 946_684_800_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    Socket { directory: PathBuf, port: u16 },
    Tcp { host: String, port: u16 },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Socket { directory, port } => {
                write!(f, "{}/.s.PGSQL.{port}", directory.display())
            }
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Who logs in where, and how long each request may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub endpoint: Endpoint,
    pub role: String,
    /// A file in the form of libpq's password file. Not needed on the socket.
    pub secret: Option<PathBuf>,
    /// Over TCP by certificate, and by no password.
    pub tls: Option<Tls>,
    pub application_name: String,
    pub deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    #[error("cannot connect to PostgreSQL at {endpoint}: {source}")]
    Connect { endpoint: String, source: io::Error },
    #[error("PostgreSQL did not answer within {deadline:?} while {doing}")]
    Late { doing: &'static str, deadline: Duration },
    #[error("the replication connection broke: {0}")]
    Broken(io::Error),
    #[error("PostgreSQL closed the replication connection")]
    Closed,
    #[error("PostgreSQL refused ({sqlstate}): {message}")]
    Refused { sqlstate: String, message: String },
    #[error("PostgreSQL sent what the protocol does not allow: {0}")]
    Protocol(String),
    #[error(
        "PostgreSQL asks for a way to log in that Backstay does not use; let its role log in \
             by peer on the socket and by scram-sha-256 over TCP"
    )]
    Method,
    #[error("cannot log in: {0}; check the password of the role and the secret file")]
    Scram(io::Error),
    #[error(transparent)]
    Certificate(#[from] trust::Error),
    #[error("cannot agree on TLS with PostgreSQL at {endpoint}: {source}")]
    Tls { endpoint: String, source: io::Error },
    #[error("cannot read a password from {path}: {fault}", path = .path.display())]
    Secret { path: PathBuf, fault: String },
}

impl ReplicationError {
    fn protocol(what: impl fmt::Display) -> Self {
        ReplicationError::Protocol(what.to_string())
    }

    fn refused(fields: &Fields<'_>) -> Self {
        ReplicationError::Refused {
            sqlstate: fields.sqlstate().to_owned(),
            message: fields.message().to_owned(),
        }
    }
}

type Result<T> = std::result::Result<T, ReplicationError>;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    pub identifier: u64,
    /// The timeline and the flushed position.
    pub position: Position,
}

/// What came next on the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streamed {
    /// WAL up to this position has come.
    Wal {
        end: Lsn,
    },
    Keepalive {
        answer_now: bool,
    },
    /// The timeline ends here, or the server shuts down.
    Ended,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is logged in.
pub struct Connection {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// Bytes at the front of `input` that are done with.
    taken: usize,
    output: Vec<u8>,
    process: u32,
    deadline: Duration,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Connection {
    pub async fn log_in(login: &Login) -> Result<Connection> {
        within(login.deadline, "logging in", async {
            let mut connection = Connection {
                stream: connect(login).await?,
                input: Vec::with_capacity(LARGEST_MESSAGE),
                taken: 0,
                output: Vec::new(),
                process: 0,
                deadline: login.deadline,
            };
            connection.start(login).await?;
            Ok(connection)
        })
        .await
    }

    /// The process id of the walsender at the other end.
    pub fn process(&self) -> u32 {
        self.process
    }

    pub async fn identify_system(&mut self) -> Result<System> {
        let row = self.row("IDENTIFY_SYSTEM").await?;
        let field = |column: usize| row.get(column).and_then(Option::as_deref);
        let read = || {
            Some(System {
                identifier: field(0)?.parse().ok()?,
                position: Position {
                    timeline: Timeline(field(1)?.parse().ok()?),
                    lsn: parse_lsn(field(2)?)?,
                },
            })
        };
        read().ok_or_else(|| ReplicationError::protocol("an IDENTIFY_SYSTEM that cannot be read"))
    }

    /// The history of `timeline`. The first timeline has none, so nothing is asked for it.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<History> {
        if timeline == Timeline::INITIAL {
            return Ok(History::initial());
        }
        let row = self.row(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = row.get(1).and_then(Option::as_deref).unwrap_or_default();
        History::parse(timeline, content)
            .ok_or_else(|| ReplicationError::protocol("a timeline history that cannot be read"))
    }

    /// A parameter of the server, such as `wal_segment_size`, as it prints it.
    pub async fn show(&mut self, parameter: &str) -> Result<String> {
        let row = self.row(&format!("SHOW {parameter}")).await?;
        Ok(row.into_iter().next().flatten().unwrap_or_default())
    }

    /// Makes a physical slot that keeps WAL from now on. One that is there already is as good.
    pub async fn create_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("CREATE_REPLICATION_SLOT \"{name}\" PHYSICAL RESERVE_WAL");
        match self.row(&command).await {
            Ok(_row) => Ok(()),
            // duplicate_object
            Err(ReplicationError::Refused { sqlstate, .. }) if sqlstate == "42710" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins to stream from `start`, which must not be behind the server's flushed position.
    pub async fn start_replication(&mut self, start: Position) -> Result<()> {
        let Position { timeline, lsn } = start;
        let command = format!("START_REPLICATION PHYSICAL {lsn} TIMELINE {timeline}");
        message::push_query(&mut self.output, &command);
        let deadline = self.deadline;
        within(deadline, "starting to stream", async {
            self.flush().await?;
            loop {
                match self.message().await? {
                    Backend::CopyBothResponse => return Ok(()),
                    Backend::ErrorResponse(fields) => {
                        return Err(ReplicationError::refused(&fields));
                    }
                    Backend::NoticeResponse(_) | Backend::ParameterStatus { .. } => {}
                    other => return Err(ReplicationError::protocol(format!("{other:?}"))),
                }
            }
        })
        .await
    }

    /// Waits until something has come. Safe to drop at any moment.
    pub async fn fill(&mut self) -> Result<()> {
        if self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        self.input.reserve(LARGEST_MESSAGE.saturating_sub(self.input.len()).max(8192));
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(ReplicationError::Closed),
            Ok(_count) => Ok(()),
            Err(error) => Err(ReplicationError::Broken(error)),
        }
    }

    /// The next thing on the stream, if it has come whole.
    pub fn streamed(&mut self) -> Result<Option<Streamed>> {
        loop {
            let Some(size) = self.whole()? else {
                return Ok(None);
            };
            let streamed = match self.take(size)? {
                Backend::CopyData(body) => match FromServer::read(body).map_err(broken)? {
                    FromServer::Wal(data) => Streamed::Wal { end: Lsn(data.end()) },
                    FromServer::Keepalive(keepalive) => {
                        Streamed::Keepalive { answer_now: keepalive.answer_now }
                    }
                },
                Backend::CopyDone => Streamed::Ended,
                Backend::ErrorResponse(fields) => return Err(ReplicationError::refused(&fields)),
                Backend::NoticeResponse(_) | Backend::ParameterStatus { .. } => continue,
                other => return Err(ReplicationError::protocol(format!("{other:?}"))),
            };
            return Ok(Some(streamed));
        }
    }

    /// Confirms everything up to `position` as written, flushed and applied.
    pub async fn confirm(&mut self, position: Lsn, answer_now: bool) -> Result<()> {
        let status = StandbyStatus {
            written: position.0,
            flushed: position.0,
            applied: position.0,
            sent_at: postgres_time(),
            answer_now,
        };
        status.push(&mut self.output);
        self.flush().await
    }

    async fn start(&mut self, login: &Login) -> Result<()> {
        let parameters = [
            ("user", login.role.as_str()),
            ("replication", "true"),
            ("application_name", login.application_name.as_str()),
            // A spare connection idles by design.
            ("options", "-c idle_session_timeout=0 -c statement_timeout=0"),
        ];
        startup::push_start(&mut self.output, parameters);
        self.flush().await?;
        let mut scram = None;
        loop {
            match self.message().await? {
                Backend::Authentication(Authentication::Ok) => {}
                Backend::Authentication(Authentication::Sasl(mut offered)) => {
                    if !offered.any(|name| name == SCRAM_SHA_256) {
                        return Err(ReplicationError::Method);
                    }
                    let password = password(login)?;
                    let exchange =
                        ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    message::push_sasl_initial(&mut self.output, SCRAM_SHA_256, exchange.message());
                    scram = Some(exchange);
                    self.flush().await?;
                }
                Backend::Authentication(Authentication::SaslContinue(challenge)) => {
                    let exchange = scram.as_mut().ok_or(ReplicationError::Method)?;
                    exchange.update(challenge).map_err(ReplicationError::Scram)?;
                    message::push_sasl(&mut self.output, exchange.message());
                    self.flush().await?;
                }
                Backend::Authentication(Authentication::SaslFinal(proof)) => {
                    let exchange = scram.as_mut().ok_or(ReplicationError::Method)?;
                    exchange.finish(proof).map_err(ReplicationError::Scram)?;
                }
                Backend::Authentication(
                    Authentication::CleartextPassword
                    | Authentication::Md5Password { .. }
                    | Authentication::Other(_),
                ) => return Err(ReplicationError::Method),
                Backend::BackendKeyData { process, .. } => self.process = process,
                Backend::ReadyForQuery(_) => return Ok(()),
                Backend::ErrorResponse(fields) => return Err(ReplicationError::refused(&fields)),
                Backend::NoticeResponse(_) | Backend::ParameterStatus { .. } => {}
                other => return Err(ReplicationError::protocol(format!("{other:?}"))),
            }
        }
    }

    /// Runs a command that answers with one row at most.
    async fn row(&mut self, command: &str) -> Result<Vec<Option<String>>> {
        message::push_query(&mut self.output, command);
        within(self.deadline, "answering a command", async {
            self.flush().await?;
            let (mut row, mut refused) = (Vec::new(), None);
            loop {
                match self.message().await? {
                    Backend::DataRow(data) => row = texts(&data)?,
                    Backend::ErrorResponse(fields) => {
                        refused = Some(ReplicationError::refused(&fields));
                    }
                    Backend::ReadyForQuery(_) => return refused.map_or(Ok(row), Err),
                    Backend::RowDescription(_)
                    | Backend::CommandComplete { .. }
                    | Backend::NoticeResponse(_)
                    | Backend::ParameterStatus { .. } => {}
                    other => return Err(ReplicationError::protocol(format!("{other:?}"))),
                }
            }
        })
        .await
    }

    async fn message(&mut self) -> Result<Backend<'_>> {
        let size = loop {
            match self.whole()? {
                Some(size) => break size,
                None => self.fill().await?,
            }
        };
        self.take(size)
    }

    /// The size of the next message, if it is there whole.
    fn whole(&self) -> Result<Option<usize>> {
        let frame = frame::split(&self.input[self.taken..], LARGEST_MESSAGE);
        Ok(frame.map_err(ReplicationError::protocol)?.map(|frame| frame.size()))
    }

    /// Takes the message of `size` bytes, which `whole` has found.
    fn take(&mut self, size: usize) -> Result<Backend<'_>> {
        let bytes = &self.input[self.taken..self.taken + size];
        self.taken += size;
        Backend::read(Frame { tag: bytes[0], body: &bytes[frame::HEADER..] }).map_err(broken)
    }

    async fn flush(&mut self) -> Result<()> {
        let written = self.stream.write_all(&self.output).await;
        self.output.clear();
        written.map_err(ReplicationError::Broken)
    }
}

async fn connect(login: &Login) -> Result<Box<dyn Stream>> {
    let endpoint = &login.endpoint;
    let failed = |source| ReplicationError::Connect { endpoint: endpoint.to_string(), source };
    Ok(match endpoint {
        Endpoint::Socket { .. } => {
            Box::new(UnixStream::connect(endpoint.to_string()).await.map_err(failed)?)
        }
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            match &login.tls {
                None => Box::new(stream),
                Some(tls) => {
                    let endpoint = endpoint.to_string();
                    let failed = |source| ReplicationError::Tls { endpoint, source };
                    Box::new(secure::secured(stream, tls.client()?).await.map_err(failed)?)
                }
            }
        }
    })
}

async fn within<T>(
    deadline: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ReplicationError::Late { doing, deadline }),
    }
}

fn texts(row: &DataRow<'_>) -> Result<Vec<Option<String>>> {
    row.values()
        .map(|value| Ok(value.map_err(broken)?.map(|v| String::from_utf8_lossy(v).into_owned())))
        .collect()
}

fn broken(fault: Malformed) -> ReplicationError {
    ReplicationError::protocol(fault)
}

fn password(login: &Login) -> Result<String> {
    let Some(path) = &login.secret else {
        return Err(ReplicationError::Method);
    };
    let secret = |fault: String| ReplicationError::Secret { path: path.clone(), fault };
    let content = std::fs::read_to_string(path).map_err(|error| secret(error.to_string()))?;
    passfile_password(&content, &login.role)
        .ok_or_else(|| secret(format!("it has no line for role {}", login.role)))
}

/// The password of `role` in a password file, whatever host, port and database its line names:
/// the role has one password on both partners.
pub fn passfile_password(content: &str, role: &str) -> Option<String> {
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => fields.last_mut()?.extend(letters.next()),
                ':' if fields.len() < 5 => fields.push(String::new()),
                letter => fields.last_mut()?.push(letter),
            }
        }
        let [_host, _port, _database, user, password] = <[String; 5]>::try_from(fields).ok()?;
        (user == role || user == "*").then_some(password)
    })
}

/// A position as PostgreSQL prints it, such as `0/3000060`.
pub fn parse_lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.trim().split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some(Lsn(u64::from(high) << 32 | u64::from(low)))
}

fn postgres_time() -> i64 {
    let since = clock::wall_ms().saturating_sub(YEAR_2000_MS).saturating_mul(1000);
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_by_its_role() {
        let file = "# made by Backstay\n*:*:*:someone:no\n*:*:*:backstay:se\\:cr\\\\et:x\n";
        assert_eq!(passfile_password(file, "backstay").as_deref(), Some("se:cr\\et:x"));
        assert_eq!(passfile_password("*:*:*:someone:no", "backstay"), None);
    }

    #[test]
    fn positions_are_read_as_postgresql_prints_them() {
        assert_eq!(parse_lsn("1/3000060"), Some(Lsn(0x1_0300_0060)));
        assert_eq!(parse_lsn("3000060"), None);
        assert_eq!(parse_lsn("1/30000600000"), None);
    }
}
