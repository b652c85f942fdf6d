//! Trust: who a process is, and how others know it.
//!
//! A deployment has an authority of its own. It gives each process a certificate with a name and
//! a role, against a token that is good once and for a short time. On every connection between
//! Backstay's processes both sides show their certificates; what a certificate does not say is not
//! so. There is no socket here: bytes in, bytes out, files, and configurations for rustls. The
//! time is always an argument.
#![forbid(unsafe_code)]

mod authority;
mod book;
mod certificate;
mod error;
mod exchange;
pub mod explain;
mod files;
mod identity;
mod key;
mod place;
mod tls;
mod token;
mod verify;

pub use authority::{Authority, LIFETIME, Subject};
pub use book::{Again, Book, Entry, TOKEN_LIFETIME};
pub use certificate::Certificate;
pub use error::Error;
pub use exchange::{Answer, Ask, LIMIT, Reason, Refusal};
pub use identity::{Identity, Role, check_name};
pub use key::Key;
pub use place::{Place, Stamp};
pub use tls::{
    Credentials, EXPORTER_LENGTH, Expected, Exporter, binding, join_client, server_name,
};
pub use token::Token;
