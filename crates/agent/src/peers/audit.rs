//! The audit trail: who changed what, as lines of JSON that are durable before the answer leaves.
//!
//! A change is noted when it is asked, before anything happens, and once more with its outcome. A
//! disk that does not take the line keeps nobody from a failover at night: after a moment we go
//! on, and the log says so.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use protocol::admin::{Request, Response, TopologyAnswer, at_text};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::visitor::Visitor;
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(1);
/// Lines that wait for the disk.
const WAITING: usize = 64;
/// A longer request is noted without its details.
const LONGEST: usize = 1_024;

#[derive(Clone, Debug)]
pub(super) struct Audit(mpsc::Sender<Line>);

#[derive(Debug)]
struct Line {
    text: String,
    done: oneshot::Sender<io::Result<()>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    at: String,
    at_ms: u64,
    who: &'a str,
    role: &'a str,
    what: serde_json::Value,
    outcome: &'a str,
}

impl Audit {
    /// Goes on where the file at `path` ends.
    pub fn open(path: &Path) -> io::Result<Audit> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let (lines, to_write) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(file, to_write))?;
        Ok(Audit(lines))
    }

    /// Durable when it returns, unless the log says otherwise.
    pub async fn note(&self, visitor: &Visitor, request: &Request, outcome: &str) {
        let at_ms = clock::wall_ms();
        let identity = visitor.identity();
        let entry = Entry {
            at: at_text(at_ms),
            at_ms,
            who: identity.map_or("", |identity| identity.name.as_str()),
            role: identity.map_or("", |identity| identity.role.as_str()),
            what: shown(request),
            outcome,
        };
        let mut text = serde_json::to_string(&entry).expect("it has string keys only");
        text.push('\n');
        let (done, written) = oneshot::channel();
        let failure = match self.0.try_send(Line { text, done }) {
            Err(_) => "too many lines wait".to_owned(),
            Ok(()) => match timeout(PATIENCE, written).await {
                Ok(Ok(Ok(()))) => return,
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) | Err(_) => "the disk does not answer".to_owned(),
            },
        };
        tracing::error!(
            failure,
            who = entry.who,
            what = %entry.what,
            outcome,
            "the audit trail does not take this"
        );
    }
}

/// What was asked; of a long one only what it is, and what it is about.
fn shown(request: &Request) -> serde_json::Value {
    let mut value = serde_json::to_value(request).expect("a request has string keys only");
    if let Some(fields) = value.as_object_mut()
        && request.to_bytes().len() > LONGEST
    {
        fields.retain(|name, _| {
            matches!(name.as_str(), "request" | "pool" | "what" | "base" | "comment")
        });
    }
    value
}

/// In a word, or the code of the refusal.
pub(super) fn outcome(response: &Response) -> &str {
    match response {
        Response::Done { .. } => "done",
        Response::Begun { .. } => "begun",
        Response::Refused(refusal) => &refusal.code,
        Response::Topology(answer) => of_topology(answer),
        Response::Status(_)
        | Response::Plan(_)
        | Response::Preview(_)
        | Response::History { .. }
        | Response::Route(_)
        | Response::FrontEnd(_)
        | Response::Preflight(_) => "answered",
    }
}

fn of_topology(answer: &TopologyAnswer) -> &'static str {
    match answer {
        TopologyAnswer::Published { .. } => "published",
        TopologyAnswer::Outdated { .. } => "outdated",
        TopologyAnswer::Faulty { .. } => "faulty",
        TopologyAnswer::Handed { .. } => "handed",
        TopologyAnswer::Shown(_)
        | TopologyAnswer::History { .. }
        | TopologyAnswer::Replication(_)
        | TopologyAnswer::Newer { .. }
        | TopologyAnswer::Nothing { .. } => "answered",
    }
}

fn write(mut file: File, mut lines: mpsc::Receiver<Line>) {
    while let Some(Line { text, done }) = lines.blocking_recv() {
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        let _ = done.send(written);
    }
}
