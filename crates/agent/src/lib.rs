//! The loops around the mirroring session: PostgreSQL, peers, disk.

pub mod clock;
pub mod config;
pub mod ledger;
pub mod peers;
pub mod postgres;
