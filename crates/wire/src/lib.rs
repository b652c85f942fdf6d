//! PostgreSQL's wire protocol, as far as Backstay needs it.
//!
//! Bytes in, borrowed messages out, and messages in, bytes out: no sockets, no clocks, no
//! allocation while reading. `frame` finds message borders, `startup` speaks before there are
//! any, `message` reads and writes the messages themselves, `replication` what travels inside
//! the CopyData of a physical replication stream. No bytes, however hostile, make it panic.

#![no_std]

extern crate alloc;

mod cursor;
pub mod frame;
pub mod message;
pub mod replication;
pub mod scram;
pub mod server;
pub mod sql;
pub mod startup;

/// Bytes that are not what the protocol says they must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The message ends in the middle of a field.
    Short,
    /// A length that is negative, or below what it counts.
    Length,
    /// A text that lacks its end, or is not UTF-8.
    Text,
    /// A code that the protocol does not know.
    Code,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Malformed::Short => "the message ends in the middle of a field",
            Malformed::Length => "the message carries an impossible length",
            Malformed::Text => "the message carries a broken text",
            Malformed::Code => "the message carries an unknown code",
        })
    }
}

impl core::error::Error for Malformed {}
