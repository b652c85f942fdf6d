//! A search for bytes that make a reader panic or hang: `cargo xtask fuzz wire`.
//!
//! Recorded streams (`fuzz/`) and what our own writers write are changed a little, again and again,
//! and given to every reader of bytes that come from outside. A finding is cut down, saved, and
//! printed with the line that plays it again. The readers are compiled in by the feature `fuzz`
//! only: a build without it runs Cargo once more.

use anyhow::Result;
#[cfg(not(feature = "fuzz"))]
use anyhow::bail;

#[cfg(feature = "fuzz")]
mod engine;
#[cfg(feature = "fuzz")]
mod mutate;
#[cfg(feature = "fuzz")]
mod seeds;
#[cfg(feature = "fuzz")]
mod targets;

#[cfg(feature = "fuzz")]
pub use engine::wire;

/// What `make test` runs.
const BRIEF: [&str; 4] = ["--seconds", "5", "--seed", "1"];

#[cfg(not(feature = "fuzz"))]
pub fn wire(words: &[&str]) -> Result<()> {
    if !again(words).status()?.success() {
        bail!("the search did not end well");
    }
    Ok(())
}

/// A few seconds, always the same cases.
pub fn briefly() -> Result<()> {
    wire(&BRIEF)
}

#[cfg(not(feature = "fuzz"))]
fn again(words: &[&str]) -> std::process::Command {
    let arguments = ["run", "--quiet", "--package", "xtask", "--features", "fuzz", "--"];
    let mut cargo = crate::run::cargo(&arguments);
    cargo.args(["fuzz", "wire"]).args(words);
    cargo
}
