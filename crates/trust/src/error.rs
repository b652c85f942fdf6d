//! Why something cannot be trusted, or could not be made. The sentences go to people as they are.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {}: {error}", path.display())]
    File { doing: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{} is not understood: {error}", path.display())]
    NotUnderstood { path: PathBuf, error: String },
    #[error("{0}")]
    Name(String),
    #[error("the {what} is not in PEM form: {error}")]
    Pem { what: &'static str, error: String },
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the certificate says nothing of Backstay: it is of another authority")]
    NotOurs,
    #[error("the certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the certificate, its key and its authority do not go together: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "the certificate of {name} is outdated: let it join again with a new token \
         (backstay authority issue-token --again)"
    )]
    Expired { name: String },
    #[error("the other side has shown no certificate")]
    NoCertificate,
    #[error("this is {found}, not {wanted}: check the addresses")]
    OtherName { found: String, wanted: String },
    #[error("a certificate of the role {found} cannot be used here: it needs {wanted}")]
    OtherRole { found: &'static str, wanted: String },
    #[error("this is a certificate of deployment \"{found}\", not of \"{wanted}\"")]
    OtherDeployment { found: String, wanted: String },
    #[error(
        "whoever answers does not have the authority that the token names: check the address, and \
         that the token is of this deployment; if both are right, somebody stands in between"
    )]
    OtherAuthority,
    #[error("the token is not complete, or changed on the way: copy all of it")]
    Token,
    #[error("no random numbers are to be had from the system")]
    Random,
    #[error("there is an authority in {} already", .0.display())]
    AuthorityExists(PathBuf),
    #[error(
        "the authority in {} is served by another process: end that one first",
        .0.display()
    )]
    Served(PathBuf),
    #[error(
        "the name {0} is taken: it has a certificate; for a machine that replaces it, ask again \
         with --again"
    )]
    NameTaken(String),
    #[error("nobody called {0} has a certificate")]
    UnknownName(String),
}
