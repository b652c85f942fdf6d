//! PostgreSQL's log file, kept from growing without end.
//!
//! The server holds it open for as long as it runs and appends to it, so a log that has grown too
//! long is copied aside and emptied in place. A few lines written in between may be lost.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::instance::Instance;

/// Above this size it is turned over; one former log is kept.
const LONGEST: u64 = 32 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks after the log; never ends.
pub async fn keep_short(instance: Arc<Instance>) {
    loop {
        sleep(LOOK_EVERY).await;
        let instance = Arc::clone(&instance);
        let turned = tokio::task::spawn_blocking(move || turn_over(&instance, LONGEST)).await;
        if let Ok(Err(error)) = turned {
            tracing::warn!(%error, "PostgreSQL's log cannot be kept short");
        }
    }
}

fn turn_over(instance: &Instance, longest: u64) -> std::io::Result<()> {
    let log = instance.log_file();
    if fs::metadata(&log).map_or(0, |meta| meta.len()) <= longest {
        return Ok(());
    }
    fs::copy(&log, former(instance))?;
    File::options().write(true).open(&log)?.set_len(0)
}

fn former(instance: &Instance) -> PathBuf {
    instance.log_file().with_extension("log.1")
}
