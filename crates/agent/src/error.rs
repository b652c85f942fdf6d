//! Why a process could not start, or had to end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ledger::LedgerError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot listen on {address}: {error}; if another process has the port, stop it or choose \
         another one (`listen`)"
    )]
    Listen { address: SocketAddr, error: io::Error },
    #[error(
        "this process has no certificate (there is none in {}), so it may listen on a loopback \
         address alone, and not on {address}; let it join the deployment: backstay join",
        place.display()
    )]
    NoCertificate { address: SocketAddr, place: PathBuf },
    #[error(transparent)]
    Security(#[from] crate::peers::SecurityError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Not the source of itself: its words are all said here, with what to do.
    #[error("{}{}", .0, hint(.0))]
    Postgres(crate::postgres::Error),
    #[error("cannot {doing}: {error}")]
    Io { doing: &'static str, error: io::Error },
    /// Nothing can be promised any more; PostgreSQL has been stopped.
    #[error(
        "the state directory does not take writes any more: {0}; check the disk, then start again"
    )]
    LedgerFailed(io::Error),
    #[error("{0}")]
    Refused(String),
}

impl From<crate::postgres::Error> for Error {
    fn from(error: crate::postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

fn hint(error: &crate::postgres::Error) -> String {
    error.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
}
