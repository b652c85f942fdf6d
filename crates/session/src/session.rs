//! `Session`: the one door to the core.

use alloc::vec::Vec;

use crate::durable::Durable;
use crate::input::Input;
use crate::output::Output;
use crate::term::Member;
use crate::time::{Instant, Timing};
use crate::view::View;

/// What a session is told when it starts, and never again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    pub me: Member,
    pub timing: Timing,
    /// Seeds the delays between candidacies.
    pub seed: u64,
    /// Tells this process from every other run of it.
    pub run: u64,
}

/// One member's part in one session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    config: Config,
    durable: Durable,
}

impl Session {
    /// A member that starts with the state it found on its disk, and what it does first.
    pub fn start(now: Instant, config: Config, durable: Durable) -> (Session, Vec<Output>) {
        let _ = now;
        (Session { config, durable }, Vec::new())
    }

    /// Takes in what happened and orders what follows from it.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Output> {
        let _ = (now, input);
        Vec::new()
    }

    /// When `Input::TimePassed` is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    pub fn view(&self, now: Instant) -> View {
        let _ = (now, self.config);
        unreachable!("replaced when the core is written")
    }
}
