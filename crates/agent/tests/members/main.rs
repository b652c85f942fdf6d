//! Members without PostgreSQL: real processes, sockets and files.
#![allow(clippy::unwrap_used)]

mod ledger;
mod links;
mod rig;
mod witness;
