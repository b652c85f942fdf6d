//! The search for a violated invariant, and the replay of a trace. Both live in `sim`.
//!
//! They are compiled in by the feature `search` only: a build without it runs Cargo once more.

#[cfg(not(feature = "search"))]
use std::path::Path;

#[cfg(not(feature = "search"))]
use anyhow::Result;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// About a minute; the tests of `sim` do as much.
    Bounded,
    /// Long random walks on all processors: ten minutes, or as many as are given.
    Deep { minutes: u64 },
}

impl Depth {
    pub const DEEP: Depth = Depth::Deep { minutes: 10 };
}

#[cfg(not(feature = "search"))]
pub fn search(depth: Depth) -> Result<()> {
    match depth {
        Depth::Bounded => again(&["model".as_ref()]),
        Depth::Deep { minutes } => {
            again(&["model".as_ref(), "--deep".as_ref(), minutes.to_string().as_ref()])
        }
    }
}

#[cfg(not(feature = "search"))]
pub fn replay(file: &Path) -> Result<()> {
    again(&["replay".as_ref(), std::path::absolute(file)?.as_os_str()])
}

#[cfg(not(feature = "search"))]
fn again(words: &[&std::ffi::OsStr]) -> Result<()> {
    let arguments = ["run", "--quiet", "--package", "xtask", "--features", "search", "--"];
    let mut cargo = crate::run::cargo(&arguments);
    // Takes the place of this process, so that the answer is given once.
    Err(std::os::unix::process::CommandExt::exec(cargo.args(words)).into())
}

#[cfg(feature = "search")]
pub use searching::{replay, search};

#[cfg(feature = "search")]
mod searching {
    use std::hash::{BuildHasher as _, RandomState};
    use std::path::Path;
    use std::time::Duration;

    use anyhow::{Context as _, Result, anyhow, bail};
    use sim::{Budget, Report, Trace, Violation};

    use super::Depth;
    use crate::clock::Stopwatch;
    use crate::output;

    pub fn search(depth: Depth) -> Result<()> {
        let watch = Stopwatch::start();
        let report = match depth {
            Depth::Bounded => {
                let seed = 1;
                let budget =
                    Budget { seed, states: 40_000, walks: 4_000, steps: 1_500, simulations: 400 };
                sim::model::run(budget)
            }
            Depth::Deep { minutes } => {
                // Another search each time; a violation is kept as a trace, so no seed is needed.
                let seed = RandomState::new().hash_one(0);
                let limit = Duration::from_secs(minutes * 60);
                sim::model::deep(seed, &mut |report| {
                    output::progress(describe(report, watch));
                    watch.elapsed() < limit
                })
            }
        };
        output::data(describe(&report, watch));
        output::data(&report);
        match report.found {
            Some((trace, violation)) => violated(&trace, &violation),
            None => Ok(()),
        }
    }

    fn describe(report: &Report, watch: Stopwatch) -> String {
        let seconds = watch.elapsed().as_secs_f64();
        let rate = report.steps as f64 / seconds.max(0.001);
        format!("{} steps in {seconds:.0} s ({rate:.0} per second)", report.steps)
    }

    fn violated(trace: &Trace, violation: &Violation) -> Result<()> {
        let dir = crate::target().join("traces");
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let file = dir.join("violation.trace");
        output::say("reducing the trace ...");
        std::fs::write(&file, trace.reduced().to_text())
            .with_context(|| format!("write {}", file.display()))?;
        bail!("{violation}\n\n    cargo xtask replay {}\n", file.display())
    }

    pub fn replay(file: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("read the trace {}", file.display()))?;
        sim::replay(&text, &mut |line| output::data(line)).map_err(|error| anyhow!("{error}"))
    }
}
