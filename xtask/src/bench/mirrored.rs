//! A pool that Backstay mirrors: the demo, in the background.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::process::{self, As, Interrupt, Running};
use crate::{output, run};

/// What decides about speed; the plain pair gets the same values.
const SETTINGS: [&str; 16] = [
    "autovacuum",
    "checkpoint_completion_target",
    "checkpoint_timeout",
    "fsync",
    "full_page_writes",
    "max_connections",
    "max_wal_size",
    "min_wal_size",
    "shared_buffers",
    "synchronous_commit",
    "wal_buffers",
    "wal_compression",
    "wal_level",
    "wal_log_hints",
    "wal_sync_method",
    "wal_receiver_status_interval",
];

const DEADLINE: Duration = Duration::from_secs(60);
/// Two servers have to be made, on whatever disk.
const READY_DEADLINE: Duration = Duration::from_secs(300);

/// Stopping it ends its supervisor too.
#[derive(Debug)]
pub struct Mirrored {
    binary: PathBuf,
    dir: PathBuf,
    deployment: String,
    uri: String,
    supervisor: Running,
}

impl Mirrored {
    /// Starts the demo in `dir` and waits until it is mirrored.
    pub fn start(binary: &Path, dir: &Path, interrupt: &Interrupt) -> Result<Mirrored> {
        // Not detached: the kernel ends it with this process, and it ends the others.
        let mut demo = process::bound(binary, As::Ourselves, None);
        demo.args(["demo", "--supervise", "--dir"]).arg(dir);
        let log = dir.with_extension("log");
        let mut pool = Mirrored {
            binary: binary.to_path_buf(),
            dir: dir.to_path_buf(),
            deployment: String::new(),
            uri: String::new(),
            supervisor: Running::start("the demo", &mut demo, &log)?,
        };
        let is_ready = || {
            pool.supervisor.expect_alive().with_context(|| process::tail(&log))?;
            Ok(dir.join("ready").exists())
        };
        if !interrupt.wait(READY_DEADLINE, is_ready)? {
            bail!("the demo is not ready after {READY_DEADLINE:?}; {}", process::tail(&log));
        }
        let status = pool.status()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        pool.deployment = text(&status["deployment"]).context("the status names no deployment")?;
        pool.uri = text(&status["connection"]["uri"]).context("the status has no address")?;
        if !interrupt.wait(DEADLINE, || Ok(pool.expect_mirrored().is_ok()))? {
            pool.expect_mirrored()?;
        }
        Ok(pool)
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// What the demo tells of itself.
    pub fn status(&self) -> Result<Value> {
        let status = run::read(&mut self.demo(&["status", "--json"]))?;
        serde_json::from_str(&status).context("parse the demo's status")
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("demo").args(arguments).arg("--dir").arg(&self.dir);
        command
    }

    /// A pool that runs exposed would be measured without its mirror.
    pub fn expect_mirrored(&self) -> Result<()> {
        let mut status = Command::new(&self.binary);
        status.args(["pool", "status", "pool01"]).env("BACKSTAY_DEPLOYMENT", &self.deployment);
        let output = status.output().with_context(|| format!("start {}", self.binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!("the pool is not mirrored, so there is nothing to compare:\n{said}");
        }
        Ok(())
    }

    /// The settings of its principal that the plain pair has to share.
    pub fn settings(&self, programs: &Path) -> Result<Vec<(String, String)>> {
        let names = SETTINGS.map(|name| format!("'{name}'")).join(",");
        let query = format!(
            "SELECT name || '=' || current_setting(name) FROM pg_settings WHERE name IN ({names})"
        );
        let mut psql = Command::new(programs.join("psql"));
        let text = run::read(psql.args(["-X", "-A", "-t", "-c", &query]).arg(&self.uri))?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        if let Err(error) = run::read(&mut self.demo(&["stop"])) {
            output::failed(&error);
        }
    }
}
