//! The agent's PostgreSQL room against real PostgreSQL.

mod cluster;
mod guard_fence;
mod pg_promotion;
mod rig;
