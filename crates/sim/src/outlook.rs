//! What can happen next of itself, and with exact clocks when. Faults, clients and operators come
//! on top, by a scenario's or a walk's choice.

use session::Partner;

use crate::event::{Event, Letter, Local};
use crate::postgres::{Guard, Run};
use crate::seat::{Seat, side};
use crate::world::{Clocks, World};

/// What PostgreSQL, the agent's hands and the network do without being told.
pub const OF_ITSELF: [Local; 16] = [
    Local::Fact,
    Local::Work,
    Local::Rejoin,
    Local::Follows,
    Local::Probe,
    Local::Connect,
    Local::Stream,
    Local::Confirm,
    Local::SenderEnds,
    Local::ReceiverEnds,
    Local::GuardConfirms,
    Local::GuardEnds,
    Local::BarrierReturns,
    Local::Checkpoint,
    Local::Flush,
    Local::ShutDownLate,
];

/// With free clocks, how many facts may wait before probes hold back.
const FACTS: usize = 4;

impl World {
    /// Appends every event that can happen of itself, with the time when it is due.
    pub fn outlook(&self, events: &mut Vec<(Event, u64)>) {
        for seat in Seat::ALL {
            let host = &self.hosts[seat.index()];
            let Some(session) = host.session.as_ref().filter(|_| !host.frozen) else { continue };
            match self.setup.clocks {
                Clocks::Free => events.push((Event::Tick(seat), 0)),
                Clocks::Exact => {
                    if let Some(due) = session.deadline() {
                        events.push((Event::Tick(seat), due.as_micros()));
                    }
                }
            }
            self.letters_to(seat, events);
        }
        for partner in [Partner::First, Partner::Second] {
            if self.hosts[side(partner)].frozen {
                continue;
            }
            for local in OF_ITSELF {
                if self.can(local, partner) {
                    events.push((Event::At(local, partner), self.due(local, partner)));
                }
            }
        }
    }

    fn letters_to(&self, to: Seat, events: &mut Vec<(Event, u64)>) {
        for from in Seat::ALL {
            if self.net.is_cut(from, to) {
                continue;
            }
            if let Some(first) = self.net.channel(from, to).front() {
                events.push((Event::Deliver(Letter { from, to, index: 0 }), first.due));
            }
        }
    }

    /// Whether `local` can happen at `partner` now.
    pub fn can(&self, local: Local, partner: Partner) -> bool {
        let server = &self.servers[side(partner)];
        let room = &self.rooms[side(partner)];
        let agent = self.hosts[side(partner)].session.is_some();
        match local {
            Local::Fact => !room.facts.is_empty(),
            Local::Work => self.can_work(partner),
            Local::Rejoin => room.orders.is_empty() && self.can_rejoin(partner),
            Local::Follows => self.can_report_following(partner),
            Local::Probe => {
                let room_left = self.is_exact() || room.facts.len() < FACTS;
                agent && server.run != Run::Off && room_left
            }
            Local::Connect => self.can_connect(partner),
            Local::Stream => self.can_stream(partner),
            Local::Confirm => self.can_confirm(partner),
            Local::SenderEnds => self.sender_is_widowed(partner),
            Local::ReceiverEnds => self.receiver_is_widowed(partner),
            Local::GuardConfirms => self.guard_lags(partner),
            Local::GuardEnds => matches!(server.guard, Guard::Closing { .. }),
            Local::BarrierReturns => self.barrier_can_return(partner),
            Local::Checkpoint => room.checkpoint.is_some(),
            Local::Flush => {
                server.run != Run::Off
                    && server.data.as_ref().is_some_and(|data| data.flushed < data.len())
            }
            Local::ShutDownLate => room.shutting_down,
            Local::Write | Local::Insert => server.clients,
            Local::Begin => server.clients && server.open_xid.is_none(),
            Local::Finish => server.clients && server.open_xid.is_some(),
            Local::Tell => self.can_tell(partner),
            Local::Exit => server.run != Run::Off,
            Local::Sicken => agent && server.healthy,
            Local::Recover => agent && !server.healthy,
            Local::LoseData => server.run == Run::Off && server.data.is_some(),
        }
    }

    /// With exact clocks: when `local` happens.
    fn due(&self, local: Local, partner: Partner) -> u64 {
        if !self.is_exact() {
            return 0;
        }
        let pace = self.pace();
        let room = &self.rooms[side(partner)];
        let hang_up = self.net.stream_cut.map_or(self.now + pace.hang_up, |cut| cut + pace.silence);
        match local {
            Local::Fact => room.facts.front().map_or(0, |(_, due)| *due),
            Local::Work => room.due,
            Local::Rejoin => room.follow_due,
            Local::Probe => room.probe_due,
            Local::Connect => self.servers[side(partner)].retry,
            Local::SenderEnds | Local::ReceiverEnds => hang_up,
            Local::Stream | Local::Confirm | Local::GuardConfirms | Local::Flush => {
                self.now + pace.wal
            }
            Local::GuardEnds => self.now + pace.guard_end,
            Local::Checkpoint => room.checkpoint.map_or(0, |(_, due)| due),
            Local::ShutDownLate => room.late,
            Local::Follows | Local::BarrierReturns => self.now,
            Local::Write
            | Local::Insert
            | Local::Begin
            | Local::Finish
            | Local::Tell
            | Local::Exit
            | Local::Sicken
            | Local::Recover
            | Local::LoseData => self.now,
        }
    }

    /// With exact clocks: the next thing that happens of itself, and when.
    pub fn next(&self, events: &mut Vec<(Event, u64)>) -> Option<(Event, u64)> {
        events.clear();
        self.outlook(events);
        let next = events.iter().min_by_key(|(_, due)| (*due).max(self.now)).copied();
        next.map(|(event, due)| (event, due.max(self.now)))
    }
}
