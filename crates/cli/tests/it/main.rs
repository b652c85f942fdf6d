//! The built binary as people and scripts meet it.
#![allow(clippy::unwrap_used)]

mod adopt;
mod clients;
mod clients_plain;
mod clients_programs;
mod clients_rust;
mod clients_sqlx;
#[path = "../../../agent/tests/it/deadline.rs"]
mod deadline;
mod demo;
mod drain;
mod edges;
mod edges_disk;
mod front_end;
mod front_end_alone;
mod front_end_chosen;
mod front_end_crash;
mod front_end_handover;
mod front_end_limits;
mod front_end_log_in;
mod front_end_pooling;
mod front_end_secure;
mod parts;
mod place;
mod stage;
mod topology;
mod trust;
mod usage;
mod writer;
