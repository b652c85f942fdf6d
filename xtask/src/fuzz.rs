//! A search for bytes that make a reader panic or hang: `cargo xtask fuzz wire` for what clients
//! and PostgreSQL say, `cargo xtask fuzz protocol` for what Backstay's processes say to each other.
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
pub use engine::{protocol, wire};

/// What `make test` runs.
const BRIEF: [&str; 4] = ["--seconds", "5", "--seed", "1"];

#[cfg(not(feature = "fuzz"))]
pub fn wire(words: &[&str]) -> Result<()> {
    again("wire", words)
}

#[cfg(not(feature = "fuzz"))]
pub fn protocol(words: &[&str]) -> Result<()> {
    again("protocol", words)
}

/// A few seconds of each, always the same cases.
pub fn briefly() -> Result<()> {
    wire(&BRIEF)?;
    protocol(&BRIEF)
}

#[cfg(not(feature = "fuzz"))]
fn again(what: &str, words: &[&str]) -> Result<()> {
    let arguments = ["run", "--quiet", "--package", "xtask", "--features", "fuzz", "--"];
    let mut cargo = crate::run::cargo(&arguments);
    if !cargo.args(["fuzz", what]).args(words).status()?.success() {
        bail!("the search did not end well");
    }
    Ok(())
}
