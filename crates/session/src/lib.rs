//! The mirroring session (prose to come).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod durable;
mod input;
mod message;
mod output;
mod record;
mod role;
mod session;
mod term;
mod time;
mod view;

pub use durable::{Data, Durable, Other};
pub use input::{Ailment, Fact, Found, Input, MirrorSeen, Request, Touch};
pub use message::{Body, Level, Message, Reach, Refusal, Report, Stamp, Verdict};
pub use output::{Alarm, Answer, Cause, Event, Order, Output, Phase, Rejection, Why};
pub use record::{
    Boundary, Forced, Incarnation, Members, Mirroring, Promotion, Protected, Protection, Record,
    RecordId, Shown,
};
pub use role::{MirroringState, Role};
pub use session::{Config, Session};
pub use term::{Identity, Lsn, Member, Partner, Position, Term, Timeline, WitnessId, Xid};
pub use time::{Instant, Timing};
pub use view::{Obstacle, OtherSeen, View};
