//! Virtual clock, network, disks and PostgreSQL around the real session core; scenarios, traces,
//! model check.
//!
//! `world` holds a whole session as plain data that changes by events; `outlook` says what can
//! happen next. Three players choose among it: `play` by exact time, for `scenario`; `walk` at
//! random; `search` exhaustively. `model` runs the last two against the invariants of
//! `docs/protocol.md`, section 8; `trace` keeps what happened so that it can be replayed.
#![forbid(unsafe_code)]

mod chance;
mod client;
mod disk;
mod event;
mod invariant;
mod ledger;
pub mod model;
mod network;
mod outlook;
mod pace;
mod play;
mod postgres;
mod room;
pub mod scenario;
mod search;
mod seat;
mod simulate;
mod trace;
mod transcript;
mod wal;
mod walk;
mod world;

pub use event::{Blow, Event, Letter, Local};
pub use invariant::{Invariant, Violation};
pub use model::{Budget, Report};
pub use play::Play;
pub use seat::Seat;
pub use trace::{Start, Trace, prepare, replay};
pub use walk::{Fault, Swarm};
pub use world::{Clocks, Heard, Mischief, Seen, Setup, World};
