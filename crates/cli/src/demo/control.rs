//! How other commands reach the demo's supervisor: one line of JSON each way on a Unix socket.
//!
//! Only what needs the supervisor goes this way: a process that it starts is its child, is stopped
//! with it, and is reaped by it. Faults are played directly, without anybody's help.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::place;
use crate::output::{hint, hinted};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    Restart { name: String },
    Stop,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Answer {
    /// Why it was not done.
    problem: Option<String>,
    hint: Option<String>,
}

/// Begins to listen, in the place of a supervisor that is gone.
pub fn listen(dir: &Path) -> anyhow::Result<UnixListener> {
    let path = place::control_socket(dir);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Caller {
    pub ask: Ask,
    stream: UnixStream,
}

impl Caller {
    /// Reads what a caller wants. One that says nothing is dropped.
    pub async fn hear(stream: UnixStream) -> Option<Caller> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        timeout(Duration::from_secs(1), reader.read_line(&mut line)).await.ok()?.ok()?;
        let ask = serde_json::from_str(&line).ok()?;
        Some(Caller { ask, stream: reader.into_inner() })
    }

    pub async fn answer(mut self, outcome: &anyhow::Result<()>) {
        let problem = outcome.as_ref().err().map(|error| format!("{error:#}"));
        let hint = outcome.as_ref().err().and_then(hint).map(str::to_owned);
        if let Ok(mut line) = serde_json::to_string(&Answer { problem, hint }) {
            line.push('\n');
            let _ = timeout(Duration::from_secs(1), self.stream.write_all(line.as_bytes())).await;
        }
    }
}

/// Asks the supervisor of the demo in `dir`.
pub async fn ask(dir: &Path, ask: &Ask) -> anyhow::Result<()> {
    let path = place::control_socket(dir);
    let Ok(mut stream) = UnixStream::connect(&path).await else {
        return Err(hinted(
            format!("no demo runs in {}", dir.display()),
            "start it: backstay demo (what is left of the last one goes on)",
        ));
    };
    let mut line = serde_json::to_string(ask)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await.context("speak to the demo")?;
    let mut answer = String::new();
    timeout(DEADLINE, BufReader::new(stream).read_line(&mut answer))
        .await
        .context("wait for the demo")?
        .context("listen to the demo")?;
    let answer: Answer = serde_json::from_str(&answer).context("understand the demo")?;
    match (answer.problem, answer.hint) {
        (None, _) => Ok(()),
        (Some(problem), Some(hint)) => Err(hinted(problem, hint)),
        (Some(problem), None) => anyhow::bail!(problem),
    }
}
