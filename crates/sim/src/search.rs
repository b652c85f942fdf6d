//! Breadth-first search over the real core: every order of events within small budgets, from a
//! prepared world. States are told apart by a 64-bit hash.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use session::Partner;

use crate::event::{Blow, Event, Local};
use crate::play::apply_soundly;
use crate::seat::{SEATS, Seat};
use crate::trace::{Start, Trace, prepare};
use crate::world::{Setup, Violation, World};

/// How often each kind of disturbance may happen on one path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    pub ticks: [u8; SEATS],
    pub writes: u8,
    pub losses: u8,
    pub repeats: u8,
    pub agent_crashes: u8,
    pub host_crashes: u8,
    pub exits: u8,
    /// How many different states are looked at.
    pub states: usize,
}

impl Bounds {
    pub fn small(states: usize) -> Bounds {
        Bounds {
            ticks: [3; SEATS],
            writes: 1,
            losses: 1,
            repeats: 0,
            agent_crashes: 1,
            host_crashes: 0,
            exits: 0,
            states,
        }
    }
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    pub states: usize,
    pub steps: u64,
    pub depth: u32,
    pub sights: u32,
    pub found: Option<(Trace, Violation)>,
}

struct Node {
    world: World,
    bounds: Bounds,
    place: u32,
    depth: u32,
}

/// Searches from `start` until a violation, the end of all paths, or the limit of states.
pub fn search(setup: Setup, start: Start, bounds: Bounds) -> Searched {
    let mut searched = Searched::default();
    let trace = |events| Trace { setup, start, events };
    let world = match prepare(setup, start) {
        Ok(world) => world,
        Err(violation) => {
            searched.found = Some((trace(Vec::new()), violation));
            return searched;
        }
    };
    let mut known = HashSet::new();
    let mut paths: Vec<(u32, Event)> = vec![(0, Event::CutStream)];
    let mut frontier = VecDeque::from([Node { world, bounds, place: 0, depth: 0 }]);
    let mut choices = Vec::new();
    while let Some(node) = frontier.pop_front() {
        choices.clear();
        choose(&node, &mut choices);
        for (event, left) in &choices {
            let mut world = node.world.clone();
            searched.steps += 1;
            let applied = apply_soundly(&mut world, *event);
            searched.sights |= world.sights;
            if let Err(violation) = applied {
                let mut events = path(&paths, node.place);
                events.push(*event);
                searched.found = Some((trace(events), violation));
                return searched;
            }
            if !known.insert(digest(&world, left)) {
                continue;
            }
            paths.push((node.place, *event));
            let place = paths.len() as u32 - 1;
            searched.depth = node.depth + 1;
            searched.states = known.len();
            if known.len() >= bounds.states {
                return searched;
            }
            frontier.push_back(Node { world, bounds: *left, place, depth: node.depth + 1 });
        }
    }
    searched
}

fn path(paths: &[(u32, Event)], mut place: u32) -> Vec<Event> {
    let mut events = Vec::new();
    while place != 0 {
        let (before, event) = paths[place as usize];
        events.push(event);
        place = before;
    }
    events.reverse();
    events
}

/// A choice and what it leaves of the bounds, or nothing if they do not allow it.
fn spend(
    bounds: &Bounds,
    event: Event,
    of: impl FnOnce(&mut Bounds) -> &mut u8,
) -> Option<(Event, Bounds)> {
    let mut left = *bounds;
    let budget = of(&mut left);
    *budget = budget.checked_sub(1)?;
    Some((event, left))
}

fn choose(node: &Node, choices: &mut Vec<(Event, Bounds)>) {
    let (world, bounds) = (&node.world, &node.bounds);
    let mut outlook = Vec::new();
    world.outlook(&mut outlook);
    for (event, _) in outlook {
        match event {
            Event::Tick(seat) => {
                choices.extend(spend(bounds, event, |it| &mut it.ticks[seat.index()]));
            }
            Event::Deliver(letter) => {
                choices.push((event, *bounds));
                choices.extend(spend(bounds, Event::Lose(letter), |it| &mut it.losses));
                choices.extend(spend(bounds, Event::Repeat(letter), |it| &mut it.repeats));
            }
            // Two probes with nothing between them show the same.
            Event::At(Local::Probe, partner) if probed(world, partner) => {}
            Event::Advance(_)
            | Event::Repeat(_)
            | Event::Stray(_)
            | Event::Late(_)
            | Event::Lose(_)
            | Event::At(..)
            | Event::To(..)
            | Event::Cut(..)
            | Event::Heal(..)
            | Event::CutStream
            | Event::HealStream
            | Event::Ask(..) => choices.push((event, *bounds)),
        }
    }
    for seat in Seat::ALL {
        let host = &world.hosts[seat.index()];
        if host.session.is_some() {
            let crash = Event::To(Blow::CrashAgent, seat);
            choices.extend(spend(bounds, crash, |it| &mut it.agent_crashes));
            let crash = Event::To(Blow::CrashHost, seat);
            choices.extend(spend(bounds, crash, |it| &mut it.host_crashes));
        } else if seat != Seat::Wit2 {
            choices.push((Event::To(Blow::Restart, seat), *bounds));
        }
    }
    for partner in [Partner::First, Partner::Second] {
        for (local, of) in [
            (Local::Write, (|it| &mut it.writes) as fn(&mut Bounds) -> &mut u8),
            (Local::Exit, |it| &mut it.exits),
        ] {
            if world.can(local, partner) {
                choices.extend(spend(bounds, Event::At(local, partner), of));
            }
        }
        if world.can(Local::Tell, partner) {
            choices.push((Event::At(Local::Tell, partner), *bounds));
        }
    }
}

/// The last fact on its way to the session is what a probe would show.
fn probed(world: &World, partner: Partner) -> bool {
    let side = crate::seat::side(partner);
    let last = world.rooms[side].facts.back().map(|(fact, _)| *fact);
    last.is_some() && last == world.servers[side].probe()
}

fn digest(world: &World, bounds: &Bounds) -> u64 {
    let mut hasher = Mixer(0);
    world.hash(&mut hasher);
    bounds.hash(&mut hasher);
    hasher.finish()
}

/// A fast hash without defence against hostile input: there is none here.
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
