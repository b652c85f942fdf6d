//! Simulation by exact time: faults at random moments, then everything is put right, and the pool
//! must come back by itself. What depends on clocks is judged here.

use session::{Members, Partner, Protection, Request};

use crate::chance::Chance;
use crate::event::{Blow, Event, Local};
use crate::play::Play;
use crate::seat::{Seat, side};
use crate::trace::{Start, Trace, prepare};
use crate::world::{Invariant, Seen, Setup, Violation, World};

const SECOND: u64 = 1_000_000;

/// How long a pool may take to serve again once all faults are over.
const COMES_BACK: u64 = 30 * SECOND;

/// One simulation by seed: what was seen, how many events it took, and what went wrong.
#[derive(Clone, Debug)]
pub struct Simulated {
    pub events: u64,
    pub sights: u32,
    pub found: Option<(Trace, Violation)>,
}

fn simulated(setup: Setup, played: (Play, Result<(), Violation>)) -> Simulated {
    let (play, result) = played;
    Simulated {
        events: play.trace.len() as u64,
        sights: play.world.sights,
        found: result.err().map(|violation| {
            (Trace { setup, start: Start::Mirrored, events: play.trace }, violation)
        }),
    }
}

/// Faults for some seconds, then peace.
pub fn simulate(setup: Setup) -> Simulated {
    let world = match prepare(setup, Start::Mirrored) {
        Ok(world) => world,
        Err(violation) => {
            return simulated(setup, (Play::new(World::created(setup)), Err(violation)));
        }
    };
    let mut play = Play::new(world);
    let result = disturb(&mut play, &mut Chance::new(setup.seed)).and_then(|()| settle(&mut play));
    simulated(setup, (play, result))
}

fn disturb(play: &mut Play, chance: &mut Chance) -> Result<(), Violation> {
    let faults = 1 + chance.below(8);
    let forced = chance.one_in(6);
    for _ in 0..faults {
        play.run_for(chance.below(4 * SECOND))?;
        client(play, chance)?;
        let event = fault(play, chance, forced);
        if let Some(event) = event {
            play.apply(event)?;
        }
        if chance.one_in(2) {
            play.run_for(chance.below(SECOND))?;
            client(play, chance)?;
            repair(play, chance)?;
        }
    }
    play.run_for(chance.below(4 * SECOND))
}

fn client(play: &mut Play, chance: &mut Chance) -> Result<(), Violation> {
    for partner in [Partner::First, Partner::Second] {
        for local in [Local::Write, Local::Tell] {
            if play.world.can(local, partner) && chance.one_in(2) {
                play.apply(Event::At(local, partner))?;
            }
        }
    }
    Ok(())
}

fn fault(play: &Play, chance: &mut Chance, forced: bool) -> Option<Event> {
    let seats = play.world.seats();
    let seats = &seats[..seats.len().min(3)];
    let seat = seats[chance.below(seats.len() as u64) as usize];
    let other = seats[chance.below(seats.len() as u64) as usize];
    let partner = if chance.one_in(2) { Partner::First } else { Partner::Second };
    let running = play.world.hosts[seat.index()].session.is_some();
    let world = &play.world;
    match chance.below(if forced { 13 } else { 12 }) {
        0 => running.then_some(Event::To(Blow::CrashAgent, seat)),
        1 => running.then_some(Event::To(Blow::CrashHost, seat)),
        2 => world.can(Local::Exit, partner).then_some(Event::At(Local::Exit, partner)),
        3 | 4 => (seat != other).then_some(Event::Cut(seat, other)),
        5 => world.net.stream_cut.is_none().then_some(Event::CutStream),
        6 => running.then_some(Event::To(Blow::Freeze, seat)),
        7 => Some(Event::Ask(partner, Request::Failover { to: None })),
        8 => running.then_some(Event::To(Blow::Stall, seat)),
        9 => Some(Event::Ask(
            partner,
            if chance.one_in(2) { Request::Suspend } else { Request::Resume },
        )),
        10 => witness_forgets(world),
        11 => Some(Event::Ask(partner, change_of_mirror(world, chance))),
        _ => Some(Event::Ask(partner, Request::ForceService)),
    }
}

fn change_of_mirror(world: &World, chance: &mut Chance) -> Request {
    let record = world.ledger.newest_record();
    let sole = record.is_some_and(|record| record.members.sole().is_some());
    if sole && !chance.one_in(4) { Request::AddMirror } else { Request::RemoveMirror }
}

/// The witness loses its disk while it does not run, and both partners have theirs.
fn witness_forgets(world: &World) -> Option<Event> {
    let down = world.hosts[Seat::Wit1.index()].session.is_none();
    let known = [Seat::Be1, Seat::Be2].into_iter().all(|seat| world.saved(seat).record.is_some());
    (world.setup.witness && down && known).then_some(Event::To(Blow::LoseState, Seat::Wit1))
}

/// One broken thing is put right.
fn repair(play: &mut Play, chance: &mut Chance) -> Result<(), Violation> {
    let repairs = repairs(&play.world);
    if repairs.is_empty() {
        return Ok(());
    }
    play.apply(repairs[chance.below(repairs.len() as u64) as usize])
}

fn repairs(world: &World) -> Vec<Event> {
    let mut repairs = Vec::new();
    for seat in Seat::ALL {
        let host = &world.hosts[seat.index()];
        if host.frozen {
            repairs.push(Event::To(Blow::Thaw, seat));
        }
        if host.disk.stalled {
            repairs.push(Event::To(Blow::Unstall, seat));
        }
        if host.session.is_none() && world.seats().contains(&seat) {
            repairs.push(Event::To(Blow::Restart, seat));
        }
        for other in Seat::ALL {
            if other > seat && world.net.is_cut(seat, other) {
                repairs.push(Event::Heal(seat, other));
            }
        }
    }
    if world.net.stream_cut.is_some() {
        repairs.push(Event::HealStream);
    }
    repairs
}

/// Everything is put right; then the pool serves again, and mirrored again, without a human.
fn settle(play: &mut Play) -> Result<(), Violation> {
    for event in repairs(&play.world) {
        play.apply(event)?;
    }
    play.run_for(COMES_BACK)?;
    let forced = play.world.has_seen(Seen::ForcedService);
    let record = play.world.ledger.newest_record();
    let alone = record.is_some_and(|record| record.members == Members::Settled(None));
    let sole = record.is_some_and(|record| record.members.sole().is_some());
    let serving = [Partner::First, Partner::Second].into_iter().find(|it| play.world.serves(*it));
    let Some(principal) = serving else {
        let excused = forced || alone;
        return if excused { Ok(()) } else { Err(not_back(&play.world, "nobody serves")) };
    };
    let write = Event::At(Local::Write, principal);
    let before = play.world.ledger.acknowledged;
    play.apply(write)?;
    play.run_for(SECOND)?;
    let full = play.world.ledger.commits.len() == crate::ledger::COMMITS;
    if play.world.ledger.acknowledged == before && !full && !forced {
        return Err(not_back(&play.world, "nothing is acknowledged"));
    }
    let suspended = record.is_some_and(|it| it.mirroring == session::Mirroring::Suspended);
    let mirrored = record.is_some_and(|record| record.protection == Protection::Mirrored);
    if mirrored || suspended || forced || sole {
        Ok(())
    } else {
        Err(not_back(&play.world, "the pool is not mirrored again"))
    }
}

fn not_back(world: &World, what: &str) -> Violation {
    let member = |seat: &Seat| {
        let host = &world.hosts[seat.index()];
        let role = host.session.as_ref().map(|session| session.view(world.clock(*seat)).role);
        let saved = world.saved(*seat);
        let server = seat.partner().map(|partner| {
            let server = &world.servers[side(partner)];
            let room = &world.rooms[side(partner)];
            format!(
                "{:?} at {}, {:?}, {:?}",
                server.run,
                server.position(),
                room.follow,
                saved.data
            )
        });
        format!("\n{seat}: {role:?}, promise {}, {:?}, {server:?}", saved.promise, saved.record)
    };
    let members: String = world.seats().iter().map(member).collect();
    Violation::new(Invariant::ThePoolComesBack, format!("{what}{members}"))
}

/// One link, or all links of the mirror or of the witness, are cut for a while and heal: nobody may
/// notice at the pool's door.
pub fn heal_a_link(setup: Setup) -> Simulated {
    let world = match prepare(setup, Start::Mirrored) {
        Ok(world) => world,
        Err(violation) => {
            return simulated(setup, (Play::new(World::created(setup)), Err(violation)));
        }
    };
    let mut chance = Chance::new(setup.seed);
    let mut play = Play::new(world);
    let result = cut_and_heal(&mut play, &mut chance);
    simulated(setup, (play, result))
}

fn cut_and_heal(play: &mut Play, chance: &mut Chance) -> Result<(), Violation> {
    let (one, two, three) =
        ((Seat::Be1, Seat::Be2), (Seat::Be1, Seat::Wit1), (Seat::Be2, Seat::Wit1));
    let links: &[(Seat, Seat)] = match chance.below(5) {
        0 => &[one],
        1 => &[two],
        2 => &[three],
        3 => &[one, three],
        _ => &[two, three],
    };
    let stream_too = links.contains(&one) && chance.one_in(2);
    let term = play.world.ledger.newest_record().map(|record| record.term());
    play.run_for(chance.below(SECOND))?;
    for (one, other) in links {
        play.apply(Event::Cut(*one, *other))?;
    }
    if stream_too {
        play.apply(Event::CutStream)?;
    }
    play.run_for(chance.below(12 * SECOND))?;
    for (one, other) in links {
        play.apply(Event::Heal(*one, *other))?;
    }
    if stream_too {
        play.apply(Event::HealStream)?;
    }
    play.run_for(12 * SECOND)?;
    let served = play.world.serves(Partner::First);
    let now = play.world.ledger.newest_record().map(|record| record.term());
    if served && now == term {
        return Ok(());
    }
    Err(Violation::new(
        Invariant::AHealedLinkCostsNoOutage,
        format!("{links:?} were cut and healed: from {term:?} to {now:?}, serving {served}"),
    ))
}
