//! Random walks: each one draws which faults are on, how many of each, and how fast every part
//! moves (a swarm: a walk that does a little of everything reaches few corners).
//!
//! A walk chooses *actions*; each becomes a concrete event and is written down before it happens.

use session::{Partner, Request};

use crate::chance::Chance;
use crate::event::{Blow, Event, Letter, Local};
use crate::ledger::COMMITS;
use crate::play::apply_soundly;
use crate::seat::{SEATS, Seat};
use crate::trace::Trace;
use crate::world::{Violation, World};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    Lose,
    Repeat,
    Reorder,
    Stray,
    CrashAgent,
    CrashHost,
    Exit,
    LoseState,
    LoseData,
    Stall,
    Cut,
    CutStream,
    ForceService,
    Failover,
    Suspend,
    ChangeWitness,
    ServeAlone,
    Sicken,
    ChangeMirror,
}

pub const FAULTS: [Fault; 19] = [
    Fault::Lose,
    Fault::Repeat,
    Fault::Reorder,
    Fault::Stray,
    Fault::CrashAgent,
    Fault::CrashHost,
    Fault::Exit,
    Fault::LoseState,
    Fault::LoseData,
    Fault::Stall,
    Fault::Cut,
    Fault::CutStream,
    Fault::ForceService,
    Fault::Failover,
    Fault::Suspend,
    Fault::ChangeWitness,
    Fault::ServeAlone,
    Fault::Sicken,
    Fault::ChangeMirror,
];

/// What one walk may do, and how fast its parts move.
#[derive(Clone, Debug)]
pub struct Swarm {
    budgets: [u8; FAULTS.len()],
    /// One fault in so many steps.
    rarity: u64,
    /// After about so many steps other parts are the fast ones.
    moods: u64,
}

/// How fast every part moves for a while. A part of speed zero stands still.
#[derive(Clone, Debug)]
struct Mood {
    ticks: [u32; SEATS],
    letters: [u32; SEATS],
    locals: [u32; 2],
    clients: u32,
    repairs: u32,
}

impl Mood {
    fn drawn(chance: &mut Chance) -> Mood {
        let mut speed = |fast: u64| {
            if chance.one_in(12) { 0 } else { 1 + chance.below(fast) as u32 }
        };
        Mood {
            ticks: [speed(6), speed(6), speed(6), speed(6)],
            letters: [speed(24), speed(24), speed(24), speed(24)],
            locals: [speed(24), speed(24)],
            clients: speed(4),
            repairs: speed(6),
        }
    }
}

impl Swarm {
    pub fn drawn(chance: &mut Chance) -> Swarm {
        let mut budgets = [0; FAULTS.len()];
        for (fault, budget) in FAULTS.iter().zip(&mut budgets) {
            let (often, most) = match fault {
                Fault::Lose => (2, 12),
                Fault::Repeat | Fault::Reorder | Fault::Stray => (3, 6),
                Fault::ForceService | Fault::ServeAlone | Fault::LoseData => (8, 1),
                Fault::Sicken => (8, 2),
                Fault::ChangeMirror => (5, 4),
                Fault::ChangeWitness | Fault::Suspend | Fault::LoseState => (4, 2),
                Fault::CrashAgent | Fault::CrashHost | Fault::Exit => (2, 3),
                Fault::Stall | Fault::Cut | Fault::CutStream | Fault::Failover => (3, 3),
            };
            if chance.one_in(often) {
                *budget = 1 + chance.below(most) as u8;
            }
        }
        Swarm { budgets, rarity: 10 + chance.below(150), moods: 20 + chance.below(300) }
    }

    /// A walk with these faults only, `most` of each.
    #[must_use]
    pub fn only(mut self, faults: &[Fault], most: u8) -> Swarm {
        for (fault, budget) in FAULTS.iter().zip(&mut self.budgets) {
            *budget = if faults.contains(fault) { most } else { 0 };
        }
        self
    }

    /// The same walk without this fault.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Swarm {
        self.budgets[fault as usize] = 0;
        self
    }

    fn has(&self, fault: Fault) -> bool {
        self.budgets[fault as usize] > 0
    }
}

/// One walk on its way.
#[derive(Clone, Debug)]
pub struct Walk {
    pub world: World,
    pub trace: Trace,
    swarm: Swarm,
    mood: Mood,
    chance: Chance,
    /// The second half of a fault that takes two events.
    next: Option<Event>,
    choices: Vec<(Event, u32)>,
    outlook: Vec<(Event, u64)>,
}

impl Walk {
    pub fn new(world: World, trace: Trace, swarm: Swarm, mut chance: Chance) -> Walk {
        Walk {
            mood: Mood::drawn(&mut chance),
            world,
            trace,
            swarm,
            chance,
            next: None,
            choices: Vec::new(),
            outlook: Vec::new(),
        }
    }

    /// One step: an action is drawn, written down and done.
    pub fn step(&mut self) -> Result<Option<Event>, Violation> {
        if self.chance.one_in(self.swarm.moods) {
            self.mood = Mood::drawn(&mut self.chance);
        }
        let event = match self.next.take() {
            Some(event) => Some(event),
            None if self.chance.one_in(self.swarm.rarity) => self.fault(),
            None => None,
        };
        let Some(event) = event.or_else(|| self.choose()) else {
            // Everything stands still: another mood.
            self.mood = Mood::drawn(&mut self.chance);
            return Ok(None);
        };
        self.trace.events.push(event);
        apply_soundly(&mut self.world, event)?;
        Ok(Some(event))
    }

    fn choose(&mut self) -> Option<Event> {
        self.outlook.clear();
        self.world.outlook(&mut self.outlook);
        self.choices.clear();
        for (event, _) in &self.outlook {
            let weight = match event {
                Event::Tick(seat) => self.mood.ticks[seat.index()],
                Event::Deliver(letter) => self.mood.letters[letter.to.index()],
                Event::At(Local::Probe | Local::ShutDownLate, _) => 1,
                Event::At(_, partner) => self.mood.locals[crate::seat::side(*partner)],
                Event::Advance(_)
                | Event::Repeat(_)
                | Event::Stray(_)
                | Event::Late(_)
                | Event::Lose(_)
                | Event::To(..)
                | Event::Cut(..)
                | Event::Heal(..)
                | Event::CutStream
                | Event::HealStream
                | Event::Ask(..) => 1,
            };
            self.choices.push((*event, weight));
        }
        for place in 0..self.world.net.strays.len() {
            self.choices.push((Event::Late(place as u8), 1));
        }
        self.add_clients();
        self.add_repairs();
        draw(&self.choices, &mut self.chance)
    }

    fn add_clients(&mut self) {
        for partner in [Partner::First, Partner::Second] {
            for local in [Local::Write, Local::Insert, Local::Begin, Local::Finish, Local::Tell] {
                let full = self.world.ledger.commits.len() == COMMITS && local != Local::Tell;
                if !full && self.world.can(local, partner) {
                    self.choices.push((Event::At(local, partner), self.mood.clients));
                }
            }
        }
    }

    /// Whatever is broken can be put right.
    fn add_repairs(&mut self) {
        let weight = self.mood.repairs;
        for seat in Seat::ALL {
            let host = &self.world.hosts[seat.index()];
            let spare = seat == Seat::Wit2 && !self.swarm.has(Fault::ChangeWitness);
            let known = self.world.setup.witness || seat.partner().is_some();
            if host.session.is_none() && known && !spare {
                self.choices.push((Event::To(Blow::Restart, seat), weight));
            }
            if host.disk.stalled {
                self.choices.push((Event::To(Blow::Unstall, seat), weight));
            }
            for other in Seat::ALL {
                if other > seat && self.world.net.is_cut(seat, other) {
                    self.choices.push((Event::Heal(seat, other), 1));
                }
            }
        }
        if self.world.net.stream_cut.is_some() {
            self.choices.push((Event::HealStream, 1));
        }
        for partner in [Partner::First, Partner::Second] {
            let server = &self.world.servers[crate::seat::side(partner)];
            if !server.healthy {
                self.choices.push((Event::At(Local::Recover, partner), 1));
            }
        }
    }

    fn fault(&mut self) -> Option<Event> {
        let on: Vec<Fault> = FAULTS.into_iter().filter(|fault| self.swarm.has(*fault)).collect();
        if on.is_empty() {
            return None;
        }
        let fault = on[self.chance.below(on.len() as u64) as usize];
        let event = self.event_of(fault)?;
        self.swarm.budgets[fault as usize] -= 1;
        Some(event)
    }

    /// What `fault` means in this world now, if it can happen.
    fn event_of(&mut self, fault: Fault) -> Option<Event> {
        let seat = Seat::ALL[self.chance.below(SEATS as u64) as usize];
        let other = Seat::ALL[self.chance.below(SEATS as u64) as usize];
        let partner = if self.chance.one_in(2) { Partner::First } else { Partner::Second };
        let at = |local: Local, world: &World| {
            world.can(local, partner).then_some(Event::At(local, partner))
        };
        let host = &self.world.hosts[seat.index()];
        let running = host.session.is_some();
        let ask = |what: Request| Some(Event::Ask(partner, what));
        match fault {
            Fault::Lose => self.letter(0).map(Event::Lose),
            Fault::Stray => self.letter(0).map(Event::Stray),
            Fault::Repeat => self.letter(0).map(Event::Repeat),
            Fault::Reorder => {
                let index = 1 + self.chance.below(3) as u8;
                self.letter(index).map(Event::Deliver)
            }
            Fault::CrashAgent => running.then_some(Event::To(Blow::CrashAgent, seat)),
            Fault::CrashHost => running.then_some(Event::To(Blow::CrashHost, seat)),
            Fault::Exit => at(Local::Exit, &self.world),
            Fault::LoseState => {
                if !self.may_lose_state(seat) {
                    return None;
                }
                let loss = Event::To(Blow::LoseState, seat);
                if !running {
                    return Some(loss);
                }
                self.next = Some(loss);
                Some(Event::To(Blow::CrashAgent, seat))
            }
            Fault::LoseData => at(Local::LoseData, &self.world),
            Fault::Stall => running.then_some(Event::To(Blow::Stall, seat)),
            Fault::Cut => (seat != other).then_some(Event::Cut(seat, other)),
            Fault::CutStream => Some(Event::CutStream),
            Fault::ForceService => ask(Request::ForceService),
            Fault::Failover => ask(Request::Failover { to: None }),
            Fault::Suspend => {
                let suspend = self.chance.one_in(2);
                ask(if suspend { Request::Suspend } else { Request::Resume })
            }
            Fault::ChangeWitness => {
                let witness = [None, Seat::Wit1.witness(), Seat::Wit2.witness()];
                let to = witness[self.chance.below(3) as usize];
                ask(Request::ChangeWitness { to })
            }
            Fault::ServeAlone => ask(Request::ServeAlone),
            Fault::Sicken => at(Local::Sicken, &self.world),
            Fault::ChangeMirror => {
                let sole = self.world.ledger.newest_record();
                let sole = sole.is_some_and(|record| record.members.sole().is_some());
                let add = sole != self.chance.one_in(4);
                ask(if add { Request::AddMirror } else { Request::RemoveMirror })
            }
        }
    }

    /// The protocol bears the loss of one disk at a time, in a session with a witness.
    fn may_lose_state(&self, seat: Seat) -> bool {
        let others = Seat::ALL.into_iter().filter(|other| *other != seat && *other != Seat::Wit2);
        let mut whole = others.map(|other| self.world.saved(other).record.is_some());
        self.world.setup.witness && seat != Seat::Wit2 && whole.all(|whole| whole)
    }

    fn letter(&mut self, index: u8) -> Option<Letter> {
        self.choices.clear();
        for from in Seat::ALL {
            for to in Seat::ALL {
                if self.world.net.channel(from, to).len() > usize::from(index) {
                    self.choices.push((Event::Lose(Letter { from, to, index }), 1));
                }
            }
        }
        match draw(&self.choices, &mut self.chance) {
            Some(Event::Lose(letter)) => Some(letter),
            Some(_) | None => None,
        }
    }
}

fn draw(choices: &[(Event, u32)], chance: &mut Chance) -> Option<Event> {
    let total: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = chance.below(total);
    for (event, weight) in choices {
        if left < u64::from(*weight) {
            return Some(*event);
        }
        left -= u64::from(*weight);
    }
    None
}
