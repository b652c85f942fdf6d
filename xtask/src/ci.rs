//! All that continuous integration runs, and what `make test` runs.
//!
//! The stages go from cheap to dear, each is timed, and the tests come last so that their summary
//! lines are what remains on the screen. One build profile throughout: a second one would cost
//! minutes of compiling and prove nothing more.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::Stopwatch;
use crate::{fuzz, output, prepare, run, tidy};

struct Stage {
    name: &'static str,
    took: Duration,
}

pub fn run() -> Result<()> {
    let mut stages = Vec::new();
    let mut results = Vec::new();
    let outcome = all(&mut stages, &mut results);
    summarise(&stages, &results);
    outcome
}

fn all(stages: &mut Vec<Stage>, results: &mut Vec<String>) -> Result<()> {
    let why = "the tests run real servers, 14 or newer, and real clients of six languages";
    timed(stages, "PostgreSQL", why, prepare::tests)?;
    timed(stages, "format", "cargo fmt --check", || {
        run::pass(&mut run::cargo(&["fmt", "--all", "--check"]))
    })?;
    timed(stages, "tidy", "crate edges, sizes, names, licences", tidy::run)?;
    timed(stages, "lints", "cargo clippy, every warning is an error", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
        run::pass(run::cargo(&arguments).args(["--quiet", "--", "-D", "warnings"]))
    })?;
    timed(stages, "build", "everything that the tests need", || {
        run::pass(&mut run::cargo(&["test", "--workspace", "--locked", "--no-run", "--quiet"]))
    })?;
    timed(
        stages,
        "fuzz",
        "bytes that nobody should send, to every reader of bytes",
        fuzz::briefly,
    )?;
    timed(stages, "tests", "all crates, the model check, and real PostgreSQL servers", || {
        let arguments = ["test", "--workspace", "--locked", "--no-fail-fast"];
        let is_result = |line: &str| line.starts_with("test result:");
        let (lines, passed) = run::watch(&mut run::cargo(&arguments), is_result)?;
        *results = lines;
        if !passed {
            bail!(
                "some tests failed; the first failure is explained above its `test result:` line"
            );
        }
        Ok(())
    })
}

fn timed(
    stages: &mut Vec<Stage>,
    name: &'static str,
    why: &str,
    stage: impl FnOnce() -> Result<()>,
) -> Result<()> {
    output::heading(name, why);
    let watch = Stopwatch::start();
    let outcome = stage();
    stages.push(Stage { name, took: watch.elapsed() });
    outcome
}

fn summarise(stages: &[Stage], results: &[String]) {
    output::heading("summary", "");
    for Stage { name, took } in stages {
        output::say(format_args!("{name:>12}  {:>6.1} s", took.as_secs_f64()));
    }
    let total: Duration = stages.iter().map(|stage| stage.took).sum();
    output::say(format_args!("{:>12}  {:>6.1} s", "all", total.as_secs_f64()));
    if !results.is_empty() {
        let sum = |word| results.iter().map(|line| count(line, word)).sum::<u64>();
        output::data(format_args!(
            "\ntest result: {}. {} passed; {} failed; {} ignored (all {} test programs together)",
            if sum("failed") == 0 { "ok" } else { "FAILED" },
            sum("passed"),
            sum("failed"),
            sum("ignored"),
            results.len(),
        ));
    }
}

/// The number before `word` in a line such as `test result: ok. 3 passed; 0 failed; ...`.
fn count(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ';']).filter(|part| !part.is_empty()).collect();
    let number = words.windows(2).find(|pair| pair[1] == word).map(|pair| pair[0]);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered";
        assert_eq!((count(line, "passed"), count(line, "failed")), (12, 3));
        assert_eq!((count(line, "ignored"), count(line, "absent")), (1, 0));
    }
}
