//! Scenarios: a few commands, and the transcript of what follows from them, in one file that reads
//! like a play. Time is exact and the profile is the standard one.
//!
//! Commands are the events of a trace, and besides: `create witness|alone` for a session that was
//! just created, `synchronized witness|alone` for one that has run for five seconds, `run 3s`,
//! `write` (to whoever lets clients in), `tell`, `isolate be1`, `heal` (every link), `operator be1
//! failover` and `show`. Lines that begin with `|` are the transcript; `#` begins a remark.

use std::fmt::Write as _;

use session::Partner;

use crate::event::{Blow, Event, Local};
use crate::play::Play;
use crate::seat::Seat;
use crate::transcript::Transcript;
use crate::world::{Clocks, Setup, Violation, World};

/// A scenario that is being played.
#[derive(Debug)]
struct Stage {
    play: Play,
    transcript: Transcript,
}

/// Plays the commands in `text` and returns them with a fresh transcript.
pub fn play(text: &str) -> Result<String, String> {
    play_in(text, &|setup| setup).0
}

/// The same in a changed setup. A violation ends the scenario and is returned besides.
pub fn play_in(
    text: &str,
    adjust: &dyn Fn(Setup) -> Setup,
) -> (Result<String, String>, Option<Violation>) {
    let mut written = String::new();
    let mut stage = None;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('|') {
            continue;
        }
        let _ = writeln!(written, "{line}");
        let command = line.split('#').next().unwrap_or_default().trim();
        if command.is_empty() {
            continue;
        }
        let done = perform(&mut stage, command, adjust);
        if let Some(stage) = &mut stage {
            for line in stage.transcript.take() {
                let _ = writeln!(written, "| {line}");
            }
        }
        match done {
            Ok(()) => {}
            Err(Stop::Unknown(error)) => {
                return (Err(format!("line {}: {error}", number + 1)), None);
            }
            Err(Stop::Violated(violation)) => {
                let _ = writeln!(written, "| VIOLATED {violation}");
                return (Ok(written), Some(violation));
            }
        }
    }
    (Ok(written), None)
}

/// Why a command ends the scenario.
enum Stop {
    Unknown(String),
    Violated(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Violated(violation)
    }
}

fn perform(
    stage: &mut Option<Stage>,
    command: &str,
    adjust: &dyn Fn(Setup) -> Setup,
) -> Result<(), Stop> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["create", members] = words.as_slice() {
        let setup = adjust(Setup::new(*members == "witness", Clocks::Exact, 1));
        *stage = Some(Stage::created(setup)?);
        return Ok(());
    }
    if let ["synchronized", members] = words.as_slice() {
        let setup = adjust(Setup::new(*members == "witness", Clocks::Exact, 1));
        let stage = stage.insert(Stage::created(setup)?);
        stage.run(4_000_000)?;
        stage.client(Local::Write)?;
        stage.run(1_000_000)?;
        stage.transcript.take();
        stage.transcript.show(&stage.play.world);
        return Ok(());
    }
    let Some(stage) = stage else {
        return Err(Stop::Unknown("a scenario begins with `create` or `synchronized`".into()));
    };
    match words.as_slice() {
        ["run", span] => stage.run(micros(span).map_err(Stop::Unknown)?)?,
        ["write"] => stage.client(Local::Write)?,
        ["tell"] => stage.client(Local::Tell)?,
        ["show"] => stage.transcript.show(&stage.play.world),
        ["isolate", seat] => {
            let seat: Seat = seat.parse().map_err(Stop::Unknown)?;
            for other in stage.play.world.seats().iter().filter(|other| **other != seat) {
                stage.apply(Event::Cut(seat, *other))?;
            }
        }
        ["heal"] => stage.heal()?,
        ["operator", at, request @ ..] => {
            let line = format!("ask {at} {}", request.join(" "));
            stage.apply(line.parse().map_err(Stop::Unknown)?)?;
        }
        _ => stage.apply(command.parse().map_err(Stop::Unknown)?)?,
    }
    Ok(())
}

fn micros(text: &str) -> Result<u64, String> {
    let bad = |error| format!("{text}: {error}; write for example 3s or 250ms");
    if let Some(millis) = text.strip_suffix("ms") {
        return Ok(millis.parse::<u64>().map_err(bad)? * 1_000);
    }
    match text.strip_suffix('s') {
        Some(seconds) => Ok(seconds.parse::<u64>().map_err(bad)? * 1_000_000),
        None => Err(format!("{text}: write for example 3s or 250ms")),
    }
}

impl Stage {
    fn created(setup: Setup) -> Result<Stage, Stop> {
        let mut world = World::created(setup);
        world.listening = true;
        let transcript = Transcript::new(&world);
        let mut stage = Stage { play: Play::new(world), transcript };
        for seat in setup_seats(setup) {
            stage.apply(Event::To(Blow::Restart, *seat))?;
        }
        Ok(stage)
    }

    fn apply(&mut self, event: Event) -> Result<(), Violation> {
        let applied = self.play.apply(event);
        self.transcript.note(&self.play.world);
        applied
    }

    fn run(&mut self, span: u64) -> Result<(), Violation> {
        let end = self.play.world.now + span;
        let transcript = &mut self.transcript;
        let result = self.play.run_until(end, &mut |world, _| transcript.note(world));
        self.transcript.note(&self.play.world);
        result
    }

    fn client(&mut self, local: Local) -> Result<(), Violation> {
        for partner in [Partner::First, Partner::Second] {
            if self.play.world.can(local, partner) {
                self.apply(Event::At(local, partner))?;
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Violation> {
        for one in Seat::ALL {
            for other in Seat::ALL.into_iter().filter(|other| *other > one) {
                if self.play.world.net.is_cut(one, other) {
                    self.apply(Event::Heal(one, other))?;
                }
            }
        }
        if self.play.world.net.stream_cut.is_some() {
            self.apply(Event::HealStream)?;
        }
        Ok(())
    }
}

/// The spare witness is started when a scenario says so.
fn setup_seats(setup: Setup) -> &'static [Seat] {
    if setup.witness { &Seat::ALL[..3] } else { &Seat::ALL[..2] }
}
