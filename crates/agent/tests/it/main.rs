//! The agent's PostgreSQL room against real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod adopt;
mod canary_volumes;
mod cluster;
mod deadline;
mod following;
mod guard_fence;
mod guard_locked;
mod pg_access;
mod pg_certificates;
mod pg_life;
mod pg_pair;
mod pg_promotion;
mod pg_settings;
mod pool;
mod rejoin_dropped;
mod rejoin_restart;
mod rejoin_rewind;
mod rejoin_way_back;
mod rig;
mod topology;
