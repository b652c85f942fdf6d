//! The built binary as people and scripts meet it.
#![allow(clippy::unwrap_used)]

mod clients;
mod clients_plain;
mod clients_programs;
mod clients_rust;
#[path = "../../../agent/tests/it/deadline.rs"]
mod deadline;
mod demo;
mod edges;
mod edges_disk;
mod place;
mod stage;
mod usage;
mod writer;
