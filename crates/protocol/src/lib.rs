//! Bytes between Backstay's own processes: what they look like, and how they stay readable.
//!
//! Members speak binary frames (`frame`) after a short introduction (`handshake`); the messages of
//! sessions travel in batches (`v1`), converted to and from the session's own types by `convert`.
//! An administrator's command speaks the same frames with JSON inside (`admin`). The stored form of
//! a member's durable state (`stored`) lives here too. Nothing here reads a clock, file or socket.
#![forbid(unsafe_code)]

pub mod admin;
pub mod convert;
pub mod frame;
pub mod handshake;
pub mod v1;
