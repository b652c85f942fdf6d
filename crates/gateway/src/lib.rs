//! The Front End's SQL gateway: any PostgreSQL client connects to it as if to PostgreSQL, and hardly
//! notices a failover.
//!
//! One task per client session (`client`) walks the messages of both sides (`conversation`), has a
//! server connection from `servers` while it needs one, and learns from `route` who the principal
//! is. What was cut off by a failover is judged in `in_doubt`; what the next principal must be told
//! of a client session is kept in `restore`. Everything runs on one thread.

mod clock;
pub mod config;
mod conversation;
mod counters;
mod in_doubt;
mod login;
mod lookup;
mod mode;
mod refusal;
mod route;
mod status;
mod tls;
mod verifiers;
