//! The published document in a process: its own copy, how newer ones come, and the store.
//!
//! Each process keeps a copy and works from it, so it starts without anybody else. It asks the
//! partners of the store's pool for a newer one (`pull`) and answers others who ask it (`follow`).
//! The agent that serves the store's pool has the `store` besides (`serving`). All of it lives in
//! the runtime of PostgreSQL's drivers, never in the sessions' loop: the loop hears of it only as a
//! change of the configuration, through the door that a reload of the file goes through.

mod desk;
mod follow;
mod keeper;
mod parts;
mod places;
mod publishing;
mod pull;
mod roster;
mod serving;
mod store;

pub(crate) use desk::Desk;
pub(crate) use follow::serve;
pub(crate) use keeper::Keeper;
