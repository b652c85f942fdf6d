//! A trace: the world's setup and the events, as text. It can be replayed step by step, and
//! reduced to the events that a violation needs.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use session::Output;

use crate::event::{Blow, Event};
use crate::play::{Play, apply_soundly};
use crate::seat::Seat;
use crate::world::{Clocks, Heard, Mischief, Setup, Violation, World};

/// Where a trace begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Start {
    /// Just created; nobody runs.
    Created,
    /// After six seconds of exact time: synchronized, with one commit.
    Mirrored,
    /// The same, and then the mirror was lost for three seconds: running exposed.
    Exposed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    pub setup: Setup,
    pub start: Start,
    pub events: Vec<Event>,
}

/// How long the prepared worlds run before a trace begins.
const PREPARED: u64 = 6_000_000;
const EXPOSED: u64 = 3_000_000;

/// The world that a trace of this setup begins in.
pub fn prepare(setup: Setup, start: Start) -> Result<World, Violation> {
    let world = World::created(setup);
    if start == Start::Created {
        return Ok(world);
    }
    let mut play = Play::new(world);
    play.world.setup.clocks = Clocks::Exact;
    for seat in play.world.seats() {
        play.apply(Event::To(Blow::Restart, *seat))?;
    }
    play.run_for(PREPARED)?;
    play.apply(Event::At(crate::event::Local::Write, session::Partner::First))?;
    play.run_for(1_000_000)?;
    if start == Start::Exposed {
        play.apply(Event::To(Blow::CrashHost, Seat::Be2))?;
        play.run_for(EXPOSED)?;
    }
    let mut world = play.world;
    if setup.clocks == Clocks::Free {
        world.free_clocks();
    }
    world.sights = 0;
    Ok(world)
}

impl Trace {
    /// Runs the trace; the violation it leads to and how many events that took.
    pub fn run(&self) -> Option<(usize, Violation)> {
        let mut world = match prepare(self.setup, self.start) {
            Ok(world) => world,
            Err(violation) => return Some((0, violation)),
        };
        for (index, event) in self.events.iter().enumerate() {
            if let Err(violation) = apply_soundly(&mut world, *event) {
                return Some((index + 1, violation));
            }
        }
        None
    }

    /// Drops events while the same invariant is still violated.
    #[must_use]
    pub fn reduced(&self) -> Trace {
        if self.setup.clocks == Clocks::Exact {
            return self.reduced_by_actions();
        }
        let mut best = self.clone();
        let Some((length, violation)) = best.run() else { return best };
        best.events.truncate(length);
        let mut chunk = best.events.len() / 2;
        while chunk > 0 {
            let mut from = 0;
            while from < best.events.len() {
                let mut events = best.events.clone();
                events.drain(from..(from + chunk).min(best.events.len()));
                let shorter = Trace { events, ..best.clone() };
                match shorter.run() {
                    Some((length, other)) if other.invariant == violation.invariant => {
                        best = shorter;
                        best.events.truncate(length);
                    }
                    Some(_) | None => from += chunk,
                }
            }
            chunk /= 2;
        }
        best
    }

    /// With exact clocks what happens of itself cannot be left out: only what was done to the world
    /// is dropped, and the world goes on by itself in between.
    fn reduced_by_actions(&self) -> Trace {
        let Some((_, violation)) = self.run() else { return self.clone() };
        let (actions, end) = self.actions();
        let Some(mut best) = self.played(&actions, end, &violation) else { return self.clone() };
        let mut kept = actions;
        let mut index = 0;
        while index < kept.len() {
            let mut fewer = kept.clone();
            fewer.remove(index);
            match self.played(&fewer, end, &violation) {
                Some(trace) => (best, kept) = (trace, fewer),
                None => index += 1,
            }
        }
        best
    }

    /// What was done to the world and when, and when the trace ends.
    fn actions(&self) -> (Vec<(u64, Event)>, u64) {
        let mut now = 0;
        let mut actions = Vec::new();
        for event in &self.events {
            match event {
                Event::Advance(to) => now = *to,
                Event::At(local, _) if crate::outlook::OF_ITSELF.contains(local) => {}
                Event::Tick(_) | Event::Deliver(_) => {}
                Event::At(..)
                | Event::Repeat(_)
                | Event::Stray(_)
                | Event::Late(_)
                | Event::Lose(_)
                | Event::To(..)
                | Event::Cut(..)
                | Event::Heal(..)
                | Event::CutStream
                | Event::HealStream
                | Event::Ask(..) => actions.push((now, *event)),
            }
        }
        (actions, now)
    }

    /// The trace of a play with these actions, if it violates the same invariant until `end`.
    fn played(&self, actions: &[(u64, Event)], end: u64, wanted: &Violation) -> Option<Trace> {
        let mut play = Play::new(prepare(self.setup, self.start).ok()?);
        let result = actions
            .iter()
            .try_for_each(|(time, action)| {
                let now = play.world.now;
                play.run_until((*time).max(now), &mut |_, _| {})?;
                play.apply(*action)
            })
            .and_then(|()| play.run_until(end.max(play.world.now), &mut |_, _| {}));
        let same = result.err().is_some_and(|found| found.invariant == wanted.invariant);
        same.then(|| Trace { events: play.trace, ..self.clone() })
    }

    /// The trace as a file, headed by what it leads to.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some((_, violation)) = self.run() {
            for line in violation.to_string().lines() {
                let _ = writeln!(text, "# {line}");
            }
        }
        let _ = writeln!(text, "{}", Header(self.setup, self.start));
        for event in &self.events {
            let _ = writeln!(text, "{event}");
        }
        text
    }
}

struct Header(Setup, Start);

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header(setup, start) = self;
        let members = if setup.witness { "witness" } else { "alone" };
        write!(f, "world {members} {:?} {start:?} {}", setup.clocks, setup.seed)?;
        if let Some(mischief) = setup.mischief {
            write!(f, " mischief={mischief:?}")?;
        }
        #[cfg(feature = "mutants")]
        if let Some(mutant) = setup.mutant {
            write!(f, " mutant={mutant:?}")?;
        }
        Ok(())
    }
}

fn header(line: &str) -> Result<(Setup, Start), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["world", members, clocks, start, seed, extra @ ..] = words.as_slice() else {
        return Err(format!("a trace begins with a line `world …`, not {line:?}"));
    };
    let clocks = match *clocks {
        "Exact" => Clocks::Exact,
        "Free" => Clocks::Free,
        other => return Err(format!("clocks are Exact or Free, not {other:?}")),
    };
    let start = match *start {
        "Created" => Start::Created,
        "Mirrored" => Start::Mirrored,
        "Exposed" => Start::Exposed,
        other => return Err(format!("a trace starts Created, Mirrored or Exposed, not {other:?}")),
    };
    let seed = seed.parse().map_err(|error| format!("seed {seed}: {error}"))?;
    let mut setup = Setup::new(*members == "witness", clocks, seed);
    for word in extra {
        setup.mischief = match *word {
            "mischief=AnsweredBeforeBarrier" => Some(Mischief::AnsweredBeforeBarrier),
            "mischief=FirstLaterBoundary" => Some(Mischief::FirstLaterBoundary),
            "mischief=UsedTimelineNotSkipped" => Some(Mischief::UsedTimelineNotSkipped),
            other => return Err(format!("this build cannot replay {other:?}")),
        };
    }
    Ok((setup, start))
}

impl FromStr for Trace {
    type Err = String;

    fn from_str(text: &str) -> Result<Trace, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        let (_, first) = lines.next().ok_or("the trace is empty")?;
        let (setup, start) = header(first)?;
        let events = lines.map(|(number, line)| {
            line.parse().map_err(|error| format!("line {}: {error}", number + 1))
        });
        Ok(Trace { setup, start, events: events.collect::<Result<_, String>>()? })
    }
}

/// Runs the trace in `text` again and describes every step: its event, what the session it reached
/// was told and ordered, and how the members changed.
pub fn replay(text: &str, show: &mut dyn FnMut(&str)) -> Result<(), String> {
    let trace: Trace = text.parse()?;
    let mut world = prepare(trace.setup, trace.start).map_err(|violation| violation.to_string())?;
    world.listening = true;
    for (index, event) in trace.events.iter().enumerate() {
        let before = world.clone();
        show(&format!("{:>4}  {event}", index + 1));
        let applied = apply_soundly(&mut world, *event);
        for (seat, heard) in &world.heard {
            match heard {
                Heard::Input(input) => show(&format!("        {seat} <- {input:?}")),
                Heard::Output(Output::Persist(_)) => show(&format!("        {seat} -> Persist")),
                Heard::Output(output) => show(&format!("        {seat} -> {output:?}")),
            }
        }
        for line in differences(&before, &world) {
            show(&format!("        {line}"));
        }
        if let Err(violation) = applied {
            show(&format!("VIOLATED {violation}"));
            return Ok(());
        }
    }
    show("no invariant was violated");
    Ok(())
}

/// What changed on the disks, in PostgreSQL and in the ledger.
fn differences(before: &World, after: &World) -> Vec<String> {
    let mut lines = Vec::new();
    for seat in Seat::ALL {
        let (old, new) = (before.saved(seat), after.saved(seat));
        if old.record != new.record || old.promise != new.promise || old.data != new.data {
            let record = new.record;
            lines.push(format!("{seat} * promise {}, {record:?}, {:?}", new.promise, new.data));
        }
    }
    for (index, (old, new)) in before.servers.iter().zip(&after.servers).enumerate() {
        let seat = Seat::ALL[index];
        let show = |server: &crate::postgres::Server| {
            format!(
                "{:?} run {} at {} released {} guard {:?} sender {:?} receiver {:?} clients {}",
                server.run,
                server.started,
                server.position(),
                server.released,
                server.guard,
                server.sender,
                server.receiver,
                server.clients,
            )
        };
        if old != new {
            lines.push(format!("{seat} PostgreSQL: {}", show(new)));
        }
    }
    let acknowledged = after.ledger.acknowledged & !before.ledger.acknowledged;
    if acknowledged != 0 {
        lines.push(format!("acknowledged: commits {acknowledged:#b}"));
    }
    lines
}
