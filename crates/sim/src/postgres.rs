//! A modelled PostgreSQL: what it does by itself, without an agent. It survives an agent's crash.
//!
//! A commit is acknowledged if and only if the mirror that is connected to this primary has
//! flushed it, or the guard is open. WAL streams from a primary to a standby over a link of its
//! own; both ends notice the loss of the other one later, and a confirmation can be in the socket.

use session::{Fact, Found, Incarnation, MirrorSeen, Partner, Position, Term};

use crate::seat::side;
use crate::wal::DataCopy;
use crate::world::{Violation, World};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Run {
    Off,
    Standby,
    Primary,
}

/// A walsender of a primary: its mirror's connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sender {
    /// The mirror's run.
    pub peer: u64,
    pub confirmed: u32,
    /// A confirmation that the primary has not read yet.
    pub in_socket: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    Closed,
    Open,
    /// Its sender process still reads what was confirmed before.
    Closing {
        confirmed: u32,
        /// The agent waits for the end of it.
        asked: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    pub data: Option<DataCopy>,
    pub run: Run,
    /// Names this run: a promotion does not begin a new one.
    pub started: u64,
    /// The term that it was promoted for.
    pub term: Term,
    /// Clients are let in.
    pub clients: bool,
    /// Where a standby streams from.
    pub upstream: Option<Partner>,
    /// The upstream's run that the receiver is connected to.
    pub receiver: Option<u64>,
    pub sender: Option<Sender>,
    pub guard: Guard,
    /// Commits before this position do not wait, or not any more.
    pub released: u32,
    pub next_xid: u16,
    /// A transaction that has an id and has not committed.
    pub open_xid: Option<u16>,
    /// With exact clocks: when the next connection is tried.
    pub retry: u64,
    pub healthy: bool,
}

impl Server {
    pub fn new(data: Option<DataCopy>) -> Server {
        Server {
            data,
            run: Run::Off,
            started: 0,
            term: Term(0),
            clients: false,
            upstream: None,
            receiver: None,
            sender: None,
            guard: Guard::Closed,
            released: 0,
            next_xid: 0,
            open_xid: None,
            retry: 0,
            healthy: true,
        }
    }

    pub fn is_primary(&self) -> bool {
        self.run == Run::Primary
    }

    pub fn flushed(&self) -> u32 {
        self.data.as_ref().map_or(0, |data| data.flushed)
    }

    pub fn position(&self) -> Position {
        self.data.as_ref().map_or(Position::default(), DataCopy::position)
    }

    pub fn incarnation(&self) -> Incarnation {
        Incarnation { started: self.started, timeline: self.position().timeline }
    }

    /// What an agent finds when it starts.
    pub fn found(&self) -> Found {
        let Some(data) = self.data.as_ref().filter(|data| !data.unusable) else {
            return Found::Nothing;
        };
        let (incarnation, position) = (self.incarnation(), data.position());
        match self.run {
            Run::Off => Found::Stopped,
            Run::Standby => Found::Standby { incarnation, position },
            Run::Primary => Found::Primary { incarnation, position },
        }
    }

    /// What the agent's probe shows now.
    pub fn probe(&self) -> Option<Fact> {
        match self.run {
            Run::Off => None,
            Run::Standby => Some(Fact::PositionSeen { position: self.position() }),
            Run::Primary => {
                Some(Fact::MirrorSeen(self.sender.map_or(MirrorSeen::Away, |sender| {
                    MirrorSeen::Streaming {
                        flushed: session::Lsn(u64::from(sender.confirmed)),
                        end: session::Lsn(u64::from(self.flushed())),
                    }
                })))
            }
        }
    }

    /// Every process of it is gone.
    pub fn kill(&mut self) {
        self.run = Run::Off;
        self.clients = false;
        self.upstream = None;
        self.receiver = None;
        self.sender = None;
        self.guard = Guard::Closed;
        self.open_xid = None;
        if let Some(data) = &mut self.data {
            data.crash();
        }
    }

    /// Starts as a hot standby without upstream.
    pub fn start(&mut self, started: u64) {
        self.kill();
        self.run = Run::Standby;
        self.started = started;
        self.term = Term(0);
        self.next_xid = 0;
        self.released = 0;
    }

    pub fn leave_upstream(&mut self) {
        self.upstream = None;
        self.receiver = None;
    }
}

impl World {
    /// Whether the two servers can reach each other now.
    pub(crate) fn stream_link(&self) -> bool {
        self.net.stream_cut.is_none()
    }

    /// Whether this standby's receiver is connected to a live primary's sender, and both know it.
    pub(crate) fn streams(&self, partner: Partner) -> bool {
        let (own, up) = (&self.servers[side(partner)], &self.servers[side(partner.other())]);
        let connected = own.receiver == Some(up.started) && up.is_primary();
        connected && up.sender.is_some_and(|sender| sender.peer == own.started)
    }

    pub(crate) fn can_connect(&self, partner: Partner) -> bool {
        let (own, up) = (&self.servers[side(partner)], &self.servers[side(partner.other())]);
        let wants = own.run == Run::Standby && own.upstream.is_some() && own.receiver.is_none();
        let (Some(data), Some(source)) = (&own.data, &up.data) else { return false };
        wants
            && self.stream_link()
            && up.is_primary()
            && up.sender.is_none()
            && data.can_follow(source)
    }

    pub(crate) fn connect(&mut self, partner: Partner) {
        let confirmed = self.servers[side(partner)].flushed();
        let (peer, up) = (self.servers[side(partner)].started, side(partner.other()));
        let in_socket = Some(confirmed);
        self.servers[up].sender = Some(Sender { peer, confirmed: 0, in_socket });
        self.servers[side(partner)].receiver = Some(self.servers[up].started);
        self.probe_soon(partner.other());
    }

    /// Whether there is WAL for this standby to receive.
    pub(crate) fn can_stream(&self, partner: Partner) -> bool {
        self.streams(partner)
            && self.stream_link()
            && self.servers[side(partner)].flushed() < self.servers[side(partner.other())].flushed()
    }

    pub(crate) fn stream(&mut self, partner: Partner) {
        let [first, second] = &mut self.servers;
        let (own, up) = match partner {
            Partner::First => (first, second),
            Partner::Second => (second, first),
        };
        let (Some(data), Some(source)) = (&mut own.data, &up.data) else { return };
        data.receive(source);
        if let Some(sender) = &mut up.sender {
            sender.in_socket = Some(data.flushed);
        }
    }

    pub(crate) fn can_confirm(&self, partner: Partner) -> bool {
        self.servers[side(partner)].sender.is_some_and(|sender| sender.in_socket.is_some())
    }

    pub(crate) fn confirm(&mut self, partner: Partner) {
        let Some(sender) = &mut self.servers[side(partner)].sender else { return };
        let Some(confirmed) = sender.in_socket.take() else { return };
        sender.confirmed = confirmed;
        self.release(partner, confirmed);
    }

    /// Whether this primary's mirror is gone, so that its sender will end.
    pub(crate) fn sender_is_widowed(&self, partner: Partner) -> bool {
        let (own, peer) = (&self.servers[side(partner)], &self.servers[side(partner.other())]);
        own.sender.is_some_and(|sender| {
            peer.receiver != Some(own.started) || peer.started != sender.peer || !self.stream_link()
        })
    }

    pub(crate) fn receiver_is_widowed(&self, partner: Partner) -> bool {
        let (own, up) = (&self.servers[side(partner)], &self.servers[side(partner.other())]);
        own.receiver.is_some_and(|run| {
            let sender = up.sender.is_some_and(|sender| sender.peer == own.started);
            !up.is_primary() || up.started != run || !sender || !self.stream_link()
        })
    }

    pub(crate) fn end_sender(&mut self, partner: Partner) {
        self.servers[side(partner)].sender = None;
        self.probe_soon(partner);
    }

    pub(crate) fn end_receiver(&mut self, partner: Partner) {
        let retry = self.now + self.pace().retry;
        let server = &mut self.servers[side(partner)];
        server.receiver = None;
        server.retry = retry;
        self.stream_is_lost(partner);
    }

    pub(crate) fn guard_lags(&self, partner: Partner) -> bool {
        let server = &self.servers[side(partner)];
        match server.guard {
            Guard::Closed => false,
            Guard::Open => server.released < server.flushed(),
            Guard::Closing { confirmed, .. } => server.released < confirmed,
        }
    }

    pub(crate) fn guard_confirms(&mut self, partner: Partner) {
        let server = &self.servers[side(partner)];
        let end = match server.guard {
            Guard::Closed => return,
            Guard::Open => server.flushed(),
            Guard::Closing { confirmed, .. } => confirmed,
        };
        self.release(partner, end);
    }

    /// PostgreSQL crashes by itself, or is killed by a stranger.
    pub(crate) fn exit(&mut self, partner: Partner) {
        self.servers[side(partner)].kill();
        let room = &mut self.rooms[side(partner)];
        room.barrier = None;
        room.checkpoint = None;
        self.stream_is_lost(partner);
        self.report(partner, Fact::Exited);
    }

    pub(crate) fn promote_server(
        &mut self,
        partner: Partner,
        term: Term,
        timeline: session::Timeline,
    ) -> Result<(), Violation> {
        let seat = crate::seat::Seat::of_partner(partner);
        let forced = self.hosts[seat.index()].disk.saved.record.and_then(|record| record.forced);
        let server = &mut self.servers[side(partner)];
        let Some(data) = &mut server.data else { return Ok(()) };
        let timelines = (data.timeline(), timeline);
        let forced = forced.map(|forced| forced.term);
        self.ledger.promote(term, partner, timelines, data.commits, forced)?;
        server.next_xid = data.next_xid();
        data.promote(timeline);
        server.run = Run::Primary;
        server.term = term;
        server.leave_upstream();
        Ok(())
    }
}
