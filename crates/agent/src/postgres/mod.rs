//! The room of the local PostgreSQL: everything that touches it is in here.
//!
//! `Driver` performs the session's orders and reports facts; it decides nothing about roles.
//! The other modules are its tools, each for one thing: what the server is (`instance`), which
//! settings it gets (`settings`), who may connect (`access`), its processes (`process`), its
//! control file (`control`), our connections to it (`sql`).

pub mod access;
pub mod adopt;
pub mod canary;
pub mod certificates;
pub mod clone;
pub mod condition;
pub mod control;
pub mod create;
pub mod databases;
pub mod drain;
pub mod driver;
mod ears;
pub mod error;
pub mod follow;
pub mod front_end;
pub mod guard;
pub mod history;
pub mod instance;
mod log_file;
pub mod os_user;
pub mod pairing;
pub mod pidfd;
pub mod probe;
pub mod process;
pub mod promotion;
pub mod rejoin;
mod replay;
pub mod replication;
pub mod rewind;
mod secure;
pub mod server;
pub mod settings;
pub mod sql;
mod startup;
pub mod teller;
pub mod timelines;
pub mod tool;
pub mod version;
mod worker;

pub use condition::{Admitted, Condition, Problem, Progress, State};
pub use create::{initialise, secret};
pub use driver::{Configured, Driver};
pub use error::Error;
pub use instance::{Database, Instance};
pub use os_user::OsUser;
pub use settings::Upstream;
pub use version::Version;
