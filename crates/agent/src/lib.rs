//! The loops around the mirroring session: PostgreSQL, peers, disk.
//!
//! A process gathers what happened (`peers`, `clock`, PostgreSQL's facts, administrators'
//! requests), steps its sessions, and performs what they order (`rounds`, `perform`). It decides
//! nothing about roles. What must survive is in the `ledger`; everything that touches PostgreSQL
//! is in `postgres`, behind the door of a `room`.

mod admin;
mod beat;
pub mod clock;
pub mod config;
pub mod enrol;
pub mod error;
mod fence;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod history;
mod house;
pub mod ledger;
mod parts;
pub mod peers;
mod perform;
pub mod postgres;
mod preflight;
mod room;
mod rooms;
mod rounds;
pub mod route;
mod seat;
pub mod server;
mod status;
mod topology;
pub mod witness;
