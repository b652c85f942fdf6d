//! The mirroring session of one pool: who may acknowledge a commit.
//!
//! Two partners keep the same data; a witness, if there is one, breaks ties and keeps none. One
//! partner is the *principal*: it serves a *term*, and every commit that it acknowledges is on its
//! mirror's disk too (`Mirrored`), or the others know that it is not (`Exposed`). What members
//! know of this is the *record*; it grows by (term, revision), and a change that could cost a
//! commit takes effect only when another member has written it down.
//!
//! A principal serves while others answer its heartbeats: that is its *lease*. It is elected by
//! one vote besides its own, and whoever votes promises never to help an older term again. What
//! protects the commits, though, is no clock: PostgreSQL acknowledges a commit if and only if the
//! mirror has flushed it or the *exposure guard* is open, and the guard opens only under a record
//! that another member has accepted. Leases merely keep two partners from serving reads at once.
//!
//! The whole crate is one pure function with a state: `Session::step(now, input) -> outputs`.
//! Inputs are facts (`Input`), outputs are orders (`Output`), performed in order; a state to
//! persist is durable before anything after it happens. Nothing here reads a clock, a file or a
//! socket, and nothing fails: an input that comes too late is rejected and changes nothing.
//!
//! Reading order: `input`, `output`, `record`; then `session` (the door), `receive` (what every
//! message brings), `vote` and `candidate` (elections), `principal`, `promotion`, `protect`
//! (a reign), `partner` and `mirror` (a data server between reigns), and the rules for bad days:
//! `amnesia`, `force`, `handover`, `membership`, `sole`; `converge` orders what the configuration
//! wants. `docs/protocol.md` gives the rules their numbers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod amnesia;
mod candidate;
mod converge;
mod durable;
mod force;
mod handover;
mod heartbeat;
mod input;
mod invariant;
mod lease;
mod leave;
mod membership;
mod message;
mod mirror;
mod mutant;
mod operator;
mod output;
mod partner;
#[cfg(test)]
mod pool;
mod principal;
mod promotion;
mod protect;
mod receive;
mod record;
mod role;
mod session;
mod sole;
mod term;
mod time;
mod view;
mod vote;

pub use durable::{Data, Durable, Other, Suspension};
pub use input::{Ailment, Fact, Found, Input, MirrorSeen, Request, Touch, Wanted};
pub use invariant::check_durable;
pub use leave::Leave;
pub use message::{Body, Level, Message, Reach, Refusal, Report, Stamp, Verdict};
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use output::{Alarm, Answer, Cause, Event, Order, Output, Phase, Rejection, Why};
pub use record::{
    Boundary, Forced, Incarnation, Members, Mirroring, Promotion, Protected, Protection, Record,
    RecordId, Shown,
};
pub use role::{MirroringState, Role};
pub use session::{Config, Session};
pub use term::{Identity, Lsn, Member, Partner, Position, Term, Timeline, WitnessId, Xid};
pub use time::{Instant, Timing};
pub use view::{Obstacle, OtherSeen, Unmet, View};
