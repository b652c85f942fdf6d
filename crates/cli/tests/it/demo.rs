//! The demo, end to end, with real PostgreSQL servers.
