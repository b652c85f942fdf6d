//! What can go wrong with the local PostgreSQL, told so that a person knows what to do.
//!
//! Callers branch on the variant: `Refused` needs a human, everything else may pass by itself.

use std::io;
use std::path::Path;

use tokio_postgres::error::SqlState;

/// Everything that waits for room tries again by itself.
pub(crate) const MAKE_ROOM: &str =
    "free some space on this volume, or enlarge it; then it goes on by itself";

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
            Error::Io { source, .. } => about_files(source),
            Error::Program { text, .. } | Error::Exited { log: text, .. } => about_words(text),
            Error::Sql { source, .. } => about_answers(source.code()?),
            Error::Late { .. } | Error::Unexpected { .. } => None,
        }
    }
}

fn about_files(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(MAKE_ROOM),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the system has made this volume read-only: look into its log, check the disk")
        }
        io::ErrorKind::PermissionDenied => {
            Some("give this file to PostgreSQL's user (`os_user`), and open the way to it")
        }
        _ => None,
    }
}

fn about_answers(code: &SqlState) -> Option<&'static str> {
    if *code == SqlState::DISK_FULL {
        Some(MAKE_ROOM)
    } else if *code == SqlState::INVALID_PASSWORD {
        Some("the file that secret_file names must be the same on both partners: copy it")
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        Some("the partner lets in the hosts of its own configuration: name this one there")
    } else {
        None
    }
}

/// What PostgreSQL and its programs say of a full volume, in English, as Backstay runs them.
fn about_words(text: &str) -> Option<&'static str> {
    text.contains("No space left on device").then_some(MAKE_ROOM)
}

/// The server's own words if it has said any; the library's `Display` leaves them out.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}
