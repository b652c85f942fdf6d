//! What one witness takes that serves thousands of sessions, and how soon it decides a failover.
//!
//! The witness is a real process with its ledger on this machine's disk. Its partners are simulated
//! in this one: each session has two real session cores over a modelled PostgreSQL, each host one
//! TLS connection with a certificate of its own, and what the two hosts of a pair say to each other
//! stays in memory. The simulator's own processor time is shown beside. Linux only.
//!
//! It is compiled in, optimised, by the feature `witness` only: a build without it runs Cargo once
//! more.

#[cfg(feature = "witness")]
mod deployment;
#[cfg(feature = "witness")]
mod measure;
#[cfg(feature = "witness")]
mod options;
#[cfg(feature = "witness")]
mod pair;
#[cfg(feature = "witness")]
mod postgres;
#[cfg(feature = "witness")]
mod report;
#[cfg(feature = "witness")]
mod wire;

#[cfg(feature = "witness")]
pub use measure::witness;

/// # Errors
/// It was not measured, or a goal was missed.
#[cfg(not(feature = "witness"))]
pub fn witness(arguments: &[&str]) -> anyhow::Result<()> {
    let words = ["run", "--quiet", "--release", "--package", "xtask", "--features", "witness"];
    let mut cargo = crate::run::cargo(&words);
    cargo.args(["--", "bench", "witness"]).args(arguments);
    // Takes the place of this process, so that the answer is given once.
    Err(std::os::unix::process::CommandExt::exec(&mut cargo).into())
}
