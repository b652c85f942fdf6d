//! Members without PostgreSQL: real processes, sockets and files.
#![allow(clippy::unwrap_used)]

#[path = "../it/deadline.rs"]
mod deadline;
mod enrol;
mod hostile;
mod ledger;
mod links;
mod rig;
mod secure;
mod witness;
