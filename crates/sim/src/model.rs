//! The model check: a small exhaustive search, swarm walks and timed simulations over the real
//! core, all by seed. The same budget always does the same.

use core::fmt;
use std::collections::BTreeMap;
use std::path::Path;

use crate::chance::Chance;
use crate::search::{Bounds, search};
use crate::simulate::{Simulated, heal_a_link, simulate};
use crate::trace::{Start, Trace, prepare};
use crate::walk::{Swarm, Walk};
use crate::world::{Clocks, Seen, Setup, Violation, World};

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    pub seed: u64,
    /// States of each exhaustive search.
    pub states: usize,
    pub walks: u64,
    /// Steps of each walk.
    pub steps: u64,
    pub simulations: u64,
}

/// What was tried, seen and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub steps: u64,
    pub states: usize,
    pub walks: u64,
    pub simulations: u64,
    pub kinds: BTreeMap<&'static str, u64>,
    /// In how many walks, searches and simulations each was seen.
    pub sights: BTreeMap<Seen, u64>,
    pub found: Option<(Trace, Violation)>,
}

impl Report {
    fn note(&mut self, sights: u32) {
        for sight in Seen::ALL {
            let seen = sights & (1 << sight as u32) != 0;
            *self.sights.entry(sight).or_default() += u64::from(seen);
        }
    }

    fn take(&mut self, simulated: Simulated) -> bool {
        self.steps += simulated.events;
        self.simulations += 1;
        self.note(simulated.sights);
        self.found = simulated.found;
        self.found.is_some()
    }

    /// The sights that no walk has come across.
    pub fn unseen(&self) -> Vec<Seen> {
        let seen = |sight: &Seen| self.sights.get(sight).is_some_and(|times| *times > 0);
        Seen::ALL.into_iter().filter(|sight| !seen(sight)).collect()
    }

    /// Writes the reduced trace of what was found into `folder`; how to replay it.
    pub fn keep(&self, folder: &Path) -> String {
        let Some((trace, violation)) = &self.found else { return "nothing was found".into() };
        let file = folder.join(format!("{}-{}.trace", violation.invariant, trace.setup.seed));
        match std::fs::write(&file, trace.reduced().to_text()) {
            Ok(()) => format!("cargo xtask replay {}", file.display()),
            Err(error) => format!("the trace could not be written to {}: {error}", file.display()),
        }
    }

    fn add(&mut self, other: Report) {
        self.steps += other.steps;
        self.states += other.states;
        self.walks += other.walks;
        self.simulations += other.simulations;
        for (kind, times) in other.kinds {
            *self.kinds.entry(kind).or_default() += times;
        }
        for (sight, times) in other.sights {
            *self.sights.entry(sight).or_default() += times;
        }
        self.found = self.found.take().or(other.found);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} steps: {} states searched, {} walks, {} simulations",
            self.steps, self.states, self.walks, self.simulations
        )?;
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        writeln!(f, "events: {}", kinds.join(", "))?;
        let sights: Vec<String> =
            self.sights.iter().map(|(sight, times)| format!("{sight:?} {times}")).collect();
        writeln!(f, "seen: {}", sights.join(", "))?;
        match &self.found {
            Some((_, violation)) => writeln!(f, "VIOLATED {violation}"),
            None => writeln!(f, "no invariant was violated"),
        }
    }
}

/// The check of `make test`.
pub fn run(budget: Budget) -> Report {
    let mut report = Report::default();
    for start in [Start::Mirrored, Start::Exposed] {
        let setup = Setup::new(true, Clocks::Free, budget.seed);
        let searched = search(setup, start, Bounds::small(budget.states));
        report.states += searched.states;
        report.steps += searched.steps;
        report.note(searched.sights);
        report.found = searched.found;
        if report.found.is_some() {
            return report;
        }
    }
    report.add(simulations(budget.seed, budget.simulations, &|setup| setup));
    if report.found.is_some() {
        return report;
    }
    report.add(walks(budget.seed, budget.walks, budget.steps, &|setup| setup, &|swarm| swarm));
    report
}

/// Timed simulations; every fifth one without a witness.
pub fn simulations(seed: u64, count: u64, adjust: &dyn Fn(Setup) -> Setup) -> Report {
    let mut report = Report::default();
    for number in 0..count {
        let seed = seed.wrapping_add(number);
        let witness = !number.is_multiple_of(5);
        if report.take(simulate(adjust(Setup::new(witness, Clocks::Exact, seed)))) {
            break;
        }
        let setup = adjust(Setup::new(true, Clocks::Exact, seed));
        if number.is_multiple_of(4) && report.take(heal_a_link(setup)) {
            break;
        }
    }
    report
}

/// Random walks with free clocks. `adjust` changes each walk's setup, `limit` its faults.
pub fn walks(
    seed: u64,
    count: u64,
    steps: u64,
    adjust: &dyn Fn(Setup) -> Setup,
    limit: &dyn Fn(Swarm) -> Swarm,
) -> Report {
    let mut report = Report::default();
    let mut starts: BTreeMap<(bool, u8), World> = BTreeMap::new();
    for number in 0..count {
        let mut chance = Chance::new(seed.wrapping_add(number).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let setup = adjust(Setup::new(!chance.one_in(4), Clocks::Free, seed));
        let (start, place) = match chance.below(4) {
            0 => (Start::Created, 0),
            1 => (Start::Exposed, 1),
            _ => (Start::Mirrored, 2),
        };
        let trace = Trace { setup, start, events: Vec::new() };
        let world = match starts.get(&(setup.witness, place)) {
            Some(world) => world.clone(),
            None => match prepare(setup, start) {
                Ok(world) => starts.entry((setup.witness, place)).or_insert(world).clone(),
                Err(violation) => {
                    report.found = Some((trace, violation));
                    return report;
                }
            },
        };
        let swarm = limit(Swarm::drawn(&mut chance));
        let mut walk = Walk::new(world, trace, swarm, chance);
        report.walks += 1;
        for _ in 0..steps {
            match walk.step() {
                Ok(Some(event)) => {
                    report.steps += 1;
                    *report.kinds.entry(event.kind()).or_default() += 1;
                }
                Ok(None) => {}
                Err(violation) => {
                    report.found = Some((walk.trace, violation));
                    return report;
                }
            }
        }
        report.note(walk.world.sights);
    }
    report
}

/// Long random walks on all processors, until a violation or until `go_on`, which is shown the
/// report after each round, says no.
pub fn deep(seed: u64, go_on: &mut dyn FnMut(&Report) -> bool) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut total = Report::default();
    let mut next = seed;
    loop {
        let round = |seed: u64| Budget {
            seed,
            states: if seed.is_multiple_of(64) { 40_000 } else { 1_000 },
            walks: 200,
            steps: 1_500,
            simulations: 40,
        };
        let reports: Vec<Report> = std::thread::scope(|scope| {
            let seeds = (0..threads).map(|thread| next.wrapping_add(thread * 1_000));
            let handles: Vec<_> = seeds.map(|it| scope.spawn(move || run(round(it)))).collect();
            let joined = handles.into_iter().filter_map(|handle| handle.join().ok());
            joined.collect()
        });
        next = next.wrapping_add(threads * 1_000);
        for report in reports {
            total.add(report);
        }
        if total.found.is_some() || !go_on(&total) {
            return total;
        }
    }
}
