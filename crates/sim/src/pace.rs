//! How long things take with exact clocks, in microseconds. With free clocks nothing takes time:
//! events come in any order, and so every pace is tried.

use session::Order;

use crate::postgres::Run;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pace {
    /// A message between two members.
    pub message: u64,
    pub fact: u64,
    pub wal: u64,
    pub probe: u64,
    pub retry: u64,
    pub checkpoint: u64,
    /// A rewind or a copy.
    pub touch: u64,
    pub guard_end: u64,
    /// The other end of a connection notices that its process is gone, and that its link is cut.
    pub hang_up: u64,
    pub silence: u64,
    start: u64,
    stop: u64,
    prepare: u64,
    promote: u64,
    small: u64,
}

impl Pace {
    pub const EXACT: Pace = Pace {
        message: 500,
        fact: 1_000,
        wal: 500,
        probe: 100_000,
        retry: 150_000,
        checkpoint: 200_000,
        touch: 900_000,
        guard_end: 5_000,
        hang_up: 1_000,
        silence: 5_000_000,
        start: 240_000,
        stop: 150_000,
        prepare: 30_000,
        promote: 25_000,
        small: 2_000,
    };

    pub const FREE: Pace = Pace {
        message: 0,
        fact: 0,
        wal: 0,
        probe: 0,
        retry: 0,
        checkpoint: 0,
        touch: 0,
        guard_end: 0,
        hang_up: 0,
        silence: 0,
        start: 0,
        stop: 0,
        prepare: 0,
        promote: 0,
        small: 0,
    };

    pub fn order(&self, order: Order, run: Run) -> u64 {
        match order {
            Order::RunAlone { .. } => match run {
                Run::Off | Run::Primary => self.start,
                Run::Standby => self.small,
            },
            Order::PreparePromotion { .. } => self.prepare,
            Order::Promote { .. } => self.promote,
            Order::Stop => match run {
                Run::Off => self.small,
                Run::Standby | Run::Primary => self.stop,
            },
            Order::Follow { .. }
            | Order::Touch { .. }
            | Order::CommitBarrier { .. }
            | Order::AdmitClients { .. }
            | Order::OpenGuard
            | Order::CloseGuard
            | Order::ReadPosition { .. }
            | Order::ShutDown { .. } => self.small,
        }
    }
}
