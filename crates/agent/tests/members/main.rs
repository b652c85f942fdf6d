//! Members without PostgreSQL: real processes, sockets and files.
#![allow(clippy::unwrap_used)]

#[path = "../it/deadline.rs"]
mod deadline;
mod ledger;
mod links;
mod rig;
mod witness;
