//! The audit trail: who changed what, as lines of JSON that are durable before the answer leaves.
//!
//! A change is noted when it is asked, before anything happens, and once more with its outcome. A
//! disk that does not take the line keeps nobody from a failover at night: after a moment we go
//! on, and the log says so.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::{AuditEntry, AuditTrail, Code, Request, Response, TopologyAnswer, at_text};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::visitor::Visitor;
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(1);
/// Lines that wait for the disk.
const WAITING: usize = 64;
/// A longer request is noted without its details.
const LONGEST: usize = 1_024;

/// Entries in one answer, if nobody says how many.
const SHOWN: usize = 1_000;
const MOST_SHOWN: usize = 2_000;
/// So much of the file's end is looked at, and of that no more is shown than an answer can hold.
const LOOKED_AT: u64 = 16 * 1024 * 1024;
const ANSWERED: usize = 2 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Audit {
    lines: mpsc::Sender<Line>,
    path: Arc<Path>,
}

#[derive(Debug)]
struct Line {
    text: String,
    done: oneshot::Sender<io::Result<()>>,
}

impl Audit {
    /// Goes on where the file at `path` ends.
    pub fn open(path: &Path) -> io::Result<Audit> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let (lines, to_write) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(file, to_write))?;
        Ok(Audit { lines, path: path.into() })
    }

    /// The newest part of the trail.
    pub async fn show(&self, since_ms: Option<u64>, limit: Option<u32>) -> Response {
        let path = Arc::clone(&self.path);
        let limit = limit.map_or(SHOWN, |limit| (limit as usize).min(MOST_SHOWN));
        let read = move || tail(&path).map(|tail| trail(&tail, since_ms.unwrap_or(0), limit));
        let problem = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(trail)) => return Response::Audit(trail),
            Ok(Err(error)) => format!("{}: {error}", self.path.display()),
            Err(_) => "the process ends".to_owned(),
        };
        Code::NoAudit.refusal(Some(problem)).into()
    }

    /// Durable when it returns, unless the log says otherwise.
    pub async fn note(&self, visitor: &Visitor, request: &Request, outcome: &str) {
        let at_ms = clock::wall_ms();
        let identity = visitor.identity();
        let entry = AuditEntry {
            at: at_text(at_ms),
            at_ms,
            who: identity.map_or_else(String::new, |identity| identity.name.clone()),
            role: identity.map_or_else(String::new, |identity| identity.role.to_string()),
            what: shown(request),
            outcome: outcome.to_owned(),
        };
        let mut text = serde_json::to_string(&entry).expect("it has string keys only");
        text.push('\n');
        let (done, written) = oneshot::channel();
        let failure = match self.lines.try_send(Line { text, done }) {
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
        | Response::Preflight(_)
        | Response::Audit(_) => "answered",
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

/// The end of the file, and whether it is all of it.
fn tail(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(LOOKED_AT);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(LOOKED_AT).read_to_end(&mut bytes)?;
    Ok((bytes, skipped == 0))
}

/// The newest `limit` entries of `tail` that are not older than `since_ms`. A line that is cut, or
/// that somebody else wrote, is passed over.
fn trail((tail, whole): &(Vec<u8>, bool), since_ms: u64, limit: usize) -> AuditTrail {
    let mut trail = AuditTrail { entries: Vec::new(), more: !whole };
    let mut size = 0;
    for line in tail.rsplit(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<AuditEntry>(line) else { continue };
        if entry.at_ms < since_ms {
            // A clock that was set back may have older entries behind this one.
            continue;
        }
        size += line.len();
        if trail.entries.len() == limit || size > ANSWERED {
            trail.more = true;
            break;
        }
        trail.entries.push(entry);
    }
    trail.entries.reverse();
    trail
}

fn write(mut file: File, mut lines: mpsc::Receiver<Line>) {
    while let Some(Line { text, done }) = lines.blocking_recv() {
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        let _ = done.send(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: u64) -> String {
        let what = serde_json::json!({"request": "suspend", "pool": "p"});
        let (who, role) = ("anna".to_owned(), "administrator".to_owned());
        let outcome = "done".to_owned();
        let entry = AuditEntry { at: at_text(at_ms), at_ms, who, role, what, outcome };
        serde_json::to_string(&entry).unwrap() + "\n"
    }

    #[test]
    fn the_newest_lines_come_in_their_order_and_it_is_said_if_there_are_more() {
        let file: String = (1..=5).map(line).collect();
        let whole = (file.into_bytes(), true);
        let times = |trail: &AuditTrail| -> Vec<u64> {
            trail.entries.iter().map(|entry| entry.at_ms).collect()
        };
        let all = trail(&whole, 0, 9);
        assert_eq!((times(&all), all.more), (vec![1, 2, 3, 4, 5], false));
        let newest = trail(&whole, 0, 2);
        assert_eq!((times(&newest), newest.more), (vec![4, 5], true));
        let late = trail(&whole, 4, 2);
        assert_eq!((times(&late), late.more), (vec![4, 5], false));
    }

    #[test]
    fn a_line_that_is_cut_costs_no_other() {
        let cut = (format!("{}{}{}", &line(1)[9..], line(2), &line(3)[..20]).into_bytes(), false);
        let shown = trail(&cut, 0, 9);
        assert_eq!(shown.entries.len(), 1);
        assert!(shown.more);
    }
}
