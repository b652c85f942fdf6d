//! How the gateway logs in to a PostgreSQL server in the name of a user.
//!
//! It has the credentials that the user's own log-in left: the keys of SCRAM, or the MD5 secret,
//! or nothing. Everything goes as far as `ReadyForQuery`. What the server refuses is kept as it
//! came, so that the client can be told in the server's own words.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use wire::Malformed;
use wire::frame::{self, Frame};
use wire::message::{self, Authentication, Backend, Fields};
use wire::scram::client::{Client, ClientFailure, ClientSecret, Proving};
use wire::scram::{MECHANISM, MECHANISM_PLUS, nonce};
use wire::startup::push_start;

use super::inbox::{Fault, Inbox, Message};
use super::{Credentials, md5, random};

/// What the server said when it let the gateway in.
#[derive(Default, Debug)]
pub struct ServerHello {
    /// The settings that clients are kept informed about, in the order in which they came.
    pub parameters: Vec<(String, String)>,
    /// What a cancel request must name.
    pub process: u32,
    pub key: Vec<u8>,
    /// The bodies of notices that came on the way.
    pub notices: Vec<Vec<u8>>,
    /// What was read after `ReadyForQuery`.
    pub buffered: Vec<u8>,
}

/// The body of an error, as the server sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReport {
    body: Vec<u8>,
}

impl ServerReport {
    pub fn sqlstate(&self) -> &str {
        self.fields().map(|fields| fields.sqlstate()).unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.fields().map(|fields| fields.message()).unwrap_or_default()
    }

    /// Appends it as an error, with all its fields.
    pub fn push(&self, out: &mut Vec<u8>) {
        frame::push(out, b'E', |out| out.extend_from_slice(&self.body));
    }

    fn fields(&self) -> Option<Fields<'_>> {
        match Backend::read(Frame { tag: b'E', body: &self.body }) {
            Ok(Backend::ErrorResponse(fields)) => Some(fields),
            Ok(_) | Err(_) => None,
        }
    }
}

impl From<Vec<u8>> for ServerReport {
    fn from(body: Vec<u8>) -> ServerReport {
        ServerReport { body }
    }
}

/// Why the gateway is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the connection to the server failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server ended the connection while the gateway logged in")]
    Ended,
    #[error("the server's answer is not understood: {0}")]
    Malformed(#[from] Malformed),
    #[error("the server's answer is not part of a log-in: message {0:?}")]
    Unexpected(char),
    #[error("the server refused: {} ({})", .0.message(), .0.sqlstate())]
    Refused(ServerReport),
    /// The server wants to know something that the user's log-in did not leave.
    #[error("the server asks for {0}, which cannot be answered for this user")]
    Unanswerable(&'static str),
    #[error("{0}")]
    Scram(#[from] ClientFailure),
}

impl From<Fault> for ServerError {
    fn from(fault: Fault) -> ServerError {
        match fault {
            Fault::Ended => ServerError::Ended,
            Fault::Io(error) => ServerError::Io(error),
            Fault::Malformed(malformed) => ServerError::Malformed(malformed),
            Fault::TooLarge => ServerError::Malformed(Malformed::Length),
        }
    }
}

/// As whom, and where.
#[derive(Clone, Debug)]
pub struct Whom<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// The hash of the certificate that the server has shown: a proof is good for it alone.
    pub end_point: Option<Vec<u8>>,
}

/// Logs in. Of `parameters`, which may be a client's own, `user` and `database` are
/// left out: the other arguments say them. The caller bounds the time.
pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    whom: &Whom<'_>,
    parameters: &[(String, String)],
    credentials: &Credentials,
) -> Result<ServerHello, ServerError> {
    let given = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let given = given.filter(|(name, _)| !matches!(*name, "user" | "database"));
    let mut out = Vec::new();
    let first = [("user", whom.user), ("database", whom.database)];
    push_start(&mut out, first.into_iter().chain(given));
    send(stream, &out).await?;
    let mut inbox = Inbox::default();
    authenticate(stream, &mut inbox, whom, credentials).await?;
    settle(stream, inbox).await
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Answers the server's questions until it is content.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    inbox: &mut Inbox,
    whom: &Whom<'_>,
    credentials: &Credentials,
) -> Result<(), ServerError> {
    loop {
        let message = inbox.message(stream).await?;
        let mut out = Vec::new();
        match authentication(&message)? {
            Authentication::Ok => return Ok(()),
            Authentication::Md5Password { salt } => {
                let answer = match credentials {
                    Credentials::Md5(stored) => md5::answer(stored.expose(), salt),
                    Credentials::Password(password) => {
                        md5::answer(&md5::stored(password.expose().as_bytes(), whom.user), salt)
                    }
                    Credentials::Scram { .. } | Credentials::Trust => {
                        return Err(ServerError::Unanswerable("an MD5 password"));
                    }
                };
                message::push_password(&mut out, &answer);
                send(stream, &out).await?;
            }
            Authentication::Sasl(offered) => {
                let offered: Vec<&str> = offered.collect();
                let bound = offered.contains(&MECHANISM_PLUS);
                if !bound && !offered.contains(&MECHANISM) {
                    return Err(ServerError::Unanswerable("a mechanism other than SCRAM-SHA-256"));
                }
                let end_point = whom.end_point.as_deref().filter(|_| bound);
                scram(stream, inbox, end_point, credentials).await?;
            }
            Authentication::CleartextPassword => {
                return Err(ServerError::Unanswerable("a password in clear"));
            }
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                return Err(ServerError::Unexpected('R'));
            }
            Authentication::Other(_) => {
                return Err(ServerError::Unanswerable("another proof than a password"));
            }
        }
    }
}

/// The whole exchange, up to the server's own proof.
async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    inbox: &mut Inbox,
    end_point: Option<&[u8]>,
    credentials: &Credentials,
) -> Result<(), ServerError> {
    let prepared;
    let secret = match credentials {
        Credentials::Scram { keys, salt, iterations } => {
            ClientSecret::Keys { keys, salt, iterations: *iterations }
        }
        Credentials::Password(password) => {
            // As PostgreSQL does: what cannot be prepared is taken as it is.
            let password = password.expose();
            prepared = stringprep::saslprep(password).unwrap_or(password.into());
            ClientSecret::Password(prepared.as_bytes())
        }
        Credentials::Md5(_) | Credentials::Trust => {
            return Err(ServerError::Unanswerable("a SCRAM password"));
        }
    };
    let (client, first) = Client::begin(secret, end_point, &nonce(&random::bytes()));
    let mut out = Vec::new();
    let mechanism = if end_point.is_some() { MECHANISM_PLUS } else { MECHANISM };
    message::push_sasl_initial(&mut out, mechanism, &first);
    send(stream, &out).await?;
    let message = inbox.message(stream).await?;
    let proving: Proving = match authentication(&message)? {
        Authentication::SaslContinue(answer) => {
            let (proving, proof) = client.prove(answer)?;
            out.clear();
            message::push_sasl(&mut out, &proof);
            send(stream, &out).await?;
            proving
        }
        _other => return Err(ServerError::Unexpected('R')),
    };
    let message = inbox.message(stream).await?;
    match authentication(&message)? {
        Authentication::SaslFinal(last) => Ok(proving.verify(last)?),
        _other => Err(ServerError::Unexpected('R')),
    }
}

fn unexpected(message: &Message) -> ServerError {
    ServerError::Unexpected(char::from(message.tag))
}

fn authentication(message: &Message) -> Result<Authentication<'_>, ServerError> {
    match read(message)? {
        Backend::Authentication(question) => Ok(question),
        _other => Err(unexpected(message)),
    }
}

/// Takes what comes between the log-in and the first statement.
async fn settle<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut inbox: Inbox,
) -> Result<ServerHello, ServerError> {
    let mut hello = ServerHello::default();
    loop {
        let message = inbox.message(stream).await?;
        match read(&message)? {
            Backend::ParameterStatus { name, value } => {
                hello.parameters.push((name.to_owned(), value.to_owned()));
            }
            Backend::BackendKeyData { process, key } => {
                (hello.process, hello.key) = (process, key.to_owned());
            }
            Backend::NoticeResponse(_) => hello.notices.push(message.body),
            Backend::ReadyForQuery(_) => {
                hello.buffered = inbox.rest();
                return Ok(hello);
            }
            _other => return Err(unexpected(&message)),
        }
    }
}

/// Reads a message; an error of the server is one here.
fn read(message: &Message) -> Result<Backend<'_>, ServerError> {
    match Backend::read(Frame { tag: message.tag, body: &message.body })? {
        Backend::ErrorResponse(_) => {
            Err(ServerError::Refused(ServerReport { body: message.body.clone() }))
        }
        other => Ok(other),
    }
}
