//! The model check and the replay of its traces: both live in `sim`, this only calls them.

use std::path::Path;

use anyhow::{Result, bail};

#[derive(Clone, Copy, Debug)]
pub enum Depth {
    /// What `make test` runs: about a minute.
    Bounded,
    /// Long random walks, for as long as one likes to wait.
    Deep,
}

pub fn search(depth: Depth) -> Result<()> {
    bail!("the model check ({depth:?}) is not built yet")
}

pub fn replay(file: &Path) -> Result<()> {
    bail!("the replay of {} is not built yet", file.display())
}
