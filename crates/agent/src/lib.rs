//! The loops around the mirroring session: PostgreSQL, peers, disk.

pub mod postgres;
