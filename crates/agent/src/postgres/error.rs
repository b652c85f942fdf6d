//! What can go wrong with the local PostgreSQL, told so that a person knows what to do.
//!
//! Callers branch on the variant: `Refused` needs a human, everything else may pass by itself.

use std::io;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// Nothing was touched, and trying again will not help before somebody has acted.
    #[error("{text}")]
    Refused { text: String, hint: String },
    #[error("{doing}: {}", told(.source))]
    Sql { doing: &'static str, source: tokio_postgres::Error },
    #[error("{program} failed ({status}): {text}")]
    Program { program: &'static str, status: String, text: String },
    /// PostgreSQL ended while it was needed; `log` is the end of what it wrote.
    #[error("PostgreSQL ended while {doing}: {log}")]
    Exited { doing: &'static str, log: String },
    #[error("{doing} did not end in time")]
    Late { doing: &'static str },
    #[error("{doing}: {text}")]
    Unexpected { doing: &'static str, text: String },
}

impl Error {
    pub fn refused(text: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Refused { text: text.into(), hint: hint.into() }
    }

    /// For `map_err`: `Error::io("read", path)`.
    pub fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let doing = format!("{verb} {}", path.display());
        move |source| Error::Io { doing, source }
    }

    pub fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
        move |source| Error::Sql { doing, source }
    }

    pub fn unexpected(doing: &'static str, text: impl Into<String>) -> Error {
        Error::Unexpected { doing, text: text.into() }
    }

    /// What a person can do about it, where there is something to do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Refused { hint, .. } => Some(hint),
            Error::Io { .. }
            | Error::Sql { .. }
            | Error::Program { .. }
            | Error::Exited { .. }
            | Error::Late { .. }
            | Error::Unexpected { .. } => None,
        }
    }
}

/// The server's own words if it has said any; the library's `Display` leaves them out.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => error.to_string(),
    }
}
