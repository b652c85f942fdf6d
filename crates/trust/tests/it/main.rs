//! The authority, joining and handshakes, without a socket.
#![allow(clippy::unwrap_used)]

mod handshake;
mod join;
mod rig;
