//! Benchmarks that compare Backstay with what it stands on.

use anyhow::{Result, bail};

/// pgbench on plain synchronous replication and on a mirrored pool, in turns.
pub fn mirroring(_arguments: &[&str]) -> Result<()> {
    bail!("not built yet")
}
