//! A PostgreSQL of a few lines: it does at once whatever a session orders, and says so.

use session::{
    Boundary, Fact, Found, Incarnation, Lsn, MirrorSeen, Order, Position, Term, Timeline, Xid,
};

/// Where the first promotion begins.
const BEGIN: Position = Position { timeline: Timeline::INITIAL, lsn: Lsn(0x0300_0000) };
/// Bytes that a term writes.
const WRITTEN: u64 = 0x10_0000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Off,
    Standby,
    Mirror,
    Primary,
}

#[derive(Clone, Copy, Debug)]
pub struct Postgres {
    state: State,
    position: Position,
    starts: u64,
    guard_open: bool,
    term: Term,
    /// The barrier waits for the guard.
    barrier: Option<Term>,
}

impl Postgres {
    pub fn stopped() -> Postgres {
        Postgres {
            state: State::Off,
            position: BEGIN,
            starts: 0,
            guard_open: false,
            term: Term(0),
            barrier: None,
        }
    }

    /// The machine went down and came up again.
    pub fn crash(&mut self) {
        self.state = State::Off;
        self.guard_open = false;
        self.barrier = None;
    }

    pub fn found(&self) -> Fact {
        Fact::Found(Found::Stopped)
    }

    /// Does what is ordered; `upstream` is where the other side is.
    pub fn perform(&mut self, order: Order, upstream: Position) -> Vec<Fact> {
        match order {
            Order::RunAlone { .. } => {
                self.state = State::Standby;
                self.starts += 1;
                vec![Fact::Started { incarnation: self.incarnation(), position: self.position }]
            }
            Order::Follow { term, .. } => {
                self.state = State::Mirror;
                self.position = upstream;
                vec![Fact::Streaming { term, position: upstream }]
            }
            Order::Touch { .. } => Vec::new(),
            Order::PreparePromotion { term } => {
                self.state = State::Standby;
                self.term = term;
                let (position, boundary) = (self.position, Boundary::Known(Xid(1_000 + term.0)));
                let newest = position.timeline;
                vec![Fact::PromotionPrepared { term, position, boundary, newest }]
            }
            Order::Promote { term, timeline, fork } => {
                self.state = State::Primary;
                self.position = Position { timeline, lsn: Lsn(fork.lsn.0 + WRITTEN) };
                vec![Fact::Promoted { term, incarnation: self.incarnation(), fork }]
            }
            Order::CommitBarrier { promotion } if self.guard_open => {
                vec![Fact::BarrierCommitted { term: promotion.term }]
            }
            Order::CommitBarrier { promotion } => {
                self.barrier = Some(promotion.term);
                Vec::new()
            }
            Order::AdmitClients { term } => vec![Fact::Checkpointed { term }],
            Order::OpenGuard => {
                self.guard_open = true;
                let committed = self.barrier.take().map(|term| Fact::BarrierCommitted { term });
                std::iter::once(Fact::GuardOpened).chain(committed).collect()
            }
            Order::CloseGuard => {
                self.guard_open = false;
                vec![Fact::GuardClosed]
            }
            Order::ReadPosition { number } => match self.state {
                State::Primary => vec![Fact::PositionRead { number, position: self.position }],
                State::Off | State::Standby | State::Mirror => {
                    vec![Fact::PositionSeen { position: self.position }]
                }
            },
            Order::Stop => {
                self.crash();
                vec![Fact::Stopped]
            }
            Order::ShutDown { .. } => {
                self.crash();
                vec![Fact::ShutDown { position: self.position }]
            }
        }
    }

    /// What a probe shows; `mirror`: the other side, if it can be reached.
    pub fn probe(&self, mirror: Option<&Postgres>) -> Option<Fact> {
        match self.state {
            State::Off | State::Standby => None,
            State::Mirror => Some(Fact::PositionSeen { position: self.position }),
            State::Primary => {
                let streams = mirror.is_some_and(|mirror| mirror.state == State::Mirror);
                let lsn = self.position.lsn;
                let streaming = MirrorSeen::Streaming { flushed: lsn, end: lsn };
                Some(Fact::MirrorSeen(if streams { streaming } else { MirrorSeen::Away }))
            }
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation { started: self.starts, timeline: self.position.timeline }
    }
}
