//! Asks the principal how a user logs in.
//!
//! It logs in as a role that may do nothing else, runs one function, and keeps its connection for
//! the next question. A kept connection may have ended meanwhile, so a question that fails on one
//! is asked once more on a new one. One question at a time: each takes a fraction of a
//! millisecond, and the answers are cached.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use wire::frame::Frame;
use wire::message::{Backend, DataRow, push_bind, push_execute_and_sync, push_parse};

use crate::config::{LOOKUP_DATABASE, LOOKUP_ROLE};
use crate::dial::Dialler;
use crate::login::inbox::{Inbox, Message};
use crate::login::to_server::{ServerError, ServerReport, Whom, log_in};
use crate::login::{Credentials, SecretText};
use crate::route::Principal;
use crate::tls::Stream;
use crate::verifiers::Row;

const SQL: &str = "SELECT secret, can_login, valid_until_epoch, connection_limit \
                   FROM backstay.verifier($1)";

/// The question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("no principal serves the pool")]
    NoPrincipal,
    #[error("the principal's PostgreSQL did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Server(#[from] ServerError),
}

#[derive(Debug)]
pub struct Lookup {
    credentials: Credentials,
    dialler: Dialler,
    /// How long a question may take, with the connection that it may need.
    patience: Duration,
    kept: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    /// Member, host and port.
    to: (String, String, u16),
    stream: Stream,
    inbox: Inbox,
}

impl Lookup {
    /// With certificates nobody asks for the password.
    pub fn new(password: &str, dialler: Dialler, patience: Duration) -> Lookup {
        let credentials = Credentials::Password(SecretText::from(password));
        Lookup { credentials, dialler, patience, kept: Mutex::new(None) }
    }

    /// How this user logs in; `None` if there is no such user. The caller knows the principal.
    ///
    /// # Errors
    /// See `LookupError`; never `NoPrincipal`.
    pub async fn ask(&self, server: &Principal, user: &str) -> Result<Option<Row>, LookupError> {
        let asked = timeout(self.patience, self.ask_patiently(server, user)).await;
        asked.unwrap_or(Err(LookupError::TooSlow))
    }

    async fn ask_patiently(
        &self,
        server: &Principal,
        user: &str,
    ) -> Result<Option<Row>, LookupError> {
        let mut kept = self.kept.lock().await;
        // Taken out, so that it is not kept if the question fails or is given up half-way.
        let former = kept.take().filter(|it| it.is_to(server));
        if let Some(mut connection) = former
            && let Ok(row) = connection.ask(user).await
        {
            *kept = Some(connection);
            return Ok(row);
        }
        let mut connection = self.connect(server).await?;
        let row = connection.ask(user).await?;
        *kept = Some(connection);
        Ok(row)
    }

    async fn connect(&self, server: &Principal) -> Result<Connection, ServerError> {
        let Principal { member, host, port, .. } = server;
        let prepare = |socket: &TcpStream| socket.set_nodelay(true);
        let mut stream = self.dialler.dial(member, (host, *port), prepare).await?;
        let parameters = [("application_name", "backstay front end"), ("client_encoding", "UTF8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let credentials = &self.credentials;
        let end_point = stream.server_end_point();
        let whom = Whom { user: LOOKUP_ROLE, database: LOOKUP_DATABASE, end_point };
        log_in(&mut stream, &whom, &parameters, credentials).await?;
        let (member, host) = (member.clone(), host.clone());
        Ok(Connection { to: (member, host, *port), stream, inbox: Inbox::default() })
    }
}

impl Connection {
    fn is_to(&self, server: &Principal) -> bool {
        let (member, host, port) = &self.to;
        (member, host, *port) == (&server.member, &server.host, server.port)
    }

    async fn ask(&mut self, user: &str) -> Result<Option<Row>, ServerError> {
        let mut out = Vec::new();
        push_parse(&mut out, SQL);
        push_bind(&mut out, &[user]);
        push_execute_and_sync(&mut out);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        let mut found = None;
        loop {
            let message = self.inbox.message(&mut self.stream).await?;
            match Backend::read(Frame { tag: message.tag, body: &message.body })? {
                Backend::DataRow(row) => found = Some(read_row(&row)),
                Backend::ReadyForQuery(_) => return Ok(found),
                Backend::ErrorResponse(_) => return Err(refused(message)),
                _other => {}
            }
        }
    }
}

fn refused(message: Message) -> ServerError {
    ServerError::Refused(ServerReport::from(message.body))
}

fn read_row(row: &DataRow<'_>) -> Row {
    let number = |column| row.text(column).and_then(|text| text.parse::<f64>().ok());
    Row {
        secret: row.text(0).map(SecretText::from),
        can_login: row.text(1) == Some("t"),
        // Infinity becomes the last moment there is, and that is what it means.
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        valid_until_ms: number(2).map(|seconds| (seconds * 1000.0) as i64),
        connection_limit: row.text(3).and_then(|text| text.parse().ok()).unwrap_or(-1),
    }
}
