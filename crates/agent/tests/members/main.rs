//! Members without PostgreSQL: real processes, sockets and files.

mod ledger;
mod links;
mod rig;
mod witness;
