//! The search for a violated invariant, and the replay of a trace. Both live in `sim`.
//!
//! They are compiled in by the feature `search` only: a build without it runs Cargo once more.

use std::path::Path;

use anyhow::Result;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// What `make test` runs: about a minute.
    Bounded,
    /// Long random walks, for as long as one likes to wait.
    Deep,
}

#[cfg(not(feature = "search"))]
pub fn search(depth: Depth) -> Result<()> {
    match depth {
        Depth::Bounded => again(&["model".as_ref()]),
        Depth::Deep => again(&["model".as_ref(), "--deep".as_ref()]),
    }
}

#[cfg(not(feature = "search"))]
pub fn replay(file: &Path) -> Result<()> {
    again(&["replay".as_ref(), std::path::absolute(file)?.as_os_str()])
}

#[cfg(not(feature = "search"))]
fn again(words: &[&std::ffi::OsStr]) -> Result<()> {
    let arguments = ["run", "--quiet", "--package", "xtask", "--features", "search", "--"];
    crate::run::pass(crate::run::cargo(&arguments).args(words))
}

#[cfg(feature = "search")]
pub fn search(depth: Depth) -> Result<()> {
    anyhow::bail!("the model check ({depth:?}) is not built yet")
}

#[cfg(feature = "search")]
pub fn replay(file: &Path) -> Result<()> {
    anyhow::bail!("the replay of {} is not built yet", file.display())
}
