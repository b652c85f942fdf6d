//! Durable promises and records of all sessions of this process.
//!
//! One thread writes for the whole process: what many sessions want to keep while a flush is going
//! on is kept by the next one, together (group commit). The newest state of a session stands for
//! those before it. A failed flush is final: nothing can be promised any more, so the process must
//! fence and end. Damage is noticed at the start and told as lost state (R10), never as truth.

pub(crate) mod log;
mod writer;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use protocol::convert::{self, Malformed};
use rustix::fs::{FlockOperation, flock};
use session::Durable;
use tokio::sync::mpsc;

use log::{Damage, Entry};
use writer::Writer;

/// Why the ledger cannot be opened. What it says of its state is never guessed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{what} {}: {error}", path.display())]
    File { what: &'static str, path: PathBuf, error: io::Error },
    #[error(
        "the state directory {} is in use by another process: two agents must not share it; stop \
         the other one, or give this one a directory of its own",
        .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "the state of session {session} was written by a newer version ({version}): start that \
         version, or a newer one"
    )]
    Newer { session: String, version: u8 },
}

/// What the ledger held when it was opened.
#[derive(Debug)]
pub enum Found {
    New,
    Whole,
    /// Nothing of it may be believed; the file is kept aside as `kept`.
    Damaged {
        how: String,
        kept: PathBuf,
    },
}

/// How far a session's states are durable: all up to this ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flushed {
    pub session: String,
    pub ticket: u64,
}

/// The result of one flush.
pub type Outcome = Result<Vec<Flushed>, io::Error>;

#[derive(Debug)]
pub struct Opened {
    pub ledger: Ledger,
    /// One outcome per flush. After an error there is none.
    pub outcomes: mpsc::Receiver<Outcome>,
    pub found: Found,
    pub states: BTreeMap<String, Durable>,
    /// Sessions whose state could be read but not be understood: lost, too.
    pub senseless: Vec<(String, Malformed)>,
}

/// States that wait for the next flush. Bounded: one for each session.
#[derive(Debug)]
pub struct Ledger {
    waiting: BTreeMap<String, (u64, Vec<u8>)>,
    in_flight: bool,
    writer: std::sync::mpsc::SyncSender<writer::Batch>,
    /// Held as long as the ledger is: no other process may open it.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// See `LedgerError`. Damage is no error: it is told in `Opened::found`.
    pub fn open(dir: &Path) -> Result<Opened, LedgerError> {
        std::fs::create_dir_all(dir).map_err(file_error("cannot make", dir))?;
        let lock = lock(dir)?;
        let path = dir.join("ledger");
        let (found, entries) = load(&path)?;
        let mut states = BTreeMap::new();
        let mut senseless = Vec::new();
        let mut keep = BTreeMap::new();
        for (session, bytes) in entries {
            match convert::durable_from_bytes(&bytes) {
                Ok(durable) => {
                    states.insert(session.clone(), durable);
                    keep.insert(session, bytes);
                }
                Err(Malformed::UnknownVersion(version)) => {
                    return Err(LedgerError::Newer { session, version });
                }
                Err(malformed) => senseless.push((session, malformed)),
            }
        }
        let writer =
            Writer::create(dir, keep).map_err(file_error("cannot write the ledger in", dir))?;
        let (batches, to_write) = std::sync::mpsc::sync_channel(1);
        let (told, outcomes) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&to_write, &told))
            .map_err(file_error("cannot start the writer of", dir))?;
        let ledger =
            Ledger { waiting: BTreeMap::new(), in_flight: false, writer: batches, _lock: lock };
        Ok(Opened { ledger, outcomes, found, states, senseless })
    }

    /// Makes `durable` durable. An outcome with this ticket, or a higher one, says when it is.
    pub fn persist(&mut self, session: &str, ticket: u64, durable: &Durable) {
        self.persist_bytes(session, ticket, convert::durable_to_bytes(durable));
    }

    fn persist_bytes(&mut self, session: &str, ticket: u64, bytes: Vec<u8>) {
        let before = self.waiting.insert(session.to_owned(), (ticket, bytes));
        assert!(before.is_none_or(|(before, _)| before < ticket), "tickets grow");
        self.flush();
    }

    /// To be called after each outcome: what has gathered meanwhile is written next.
    pub fn go_on(&mut self) {
        self.in_flight = false;
        self.flush();
    }

    /// Nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        !self.in_flight && self.waiting.is_empty()
    }

    fn flush(&mut self) {
        if self.in_flight || self.waiting.is_empty() {
            return;
        }
        let mut batch = writer::Batch::default();
        let mut size = 0;
        while let Some((session, (ticket, state))) = self.waiting.pop_first() {
            size += session.len() + state.len() + 8;
            batch.flushed.push(Flushed { session: session.clone(), ticket });
            batch.entries.push(Entry { session, state });
            if size > writer::BATCH_BYTES {
                break;
            }
        }
        // One batch is in flight at most, so there is room. If the writer has ended after an
        // error, its last outcome has told so.
        let _ = self.writer.try_send(batch);
        self.in_flight = true;
    }
}

/// What the file at `path` says, or how it is damaged; a damaged file is moved aside.
fn load(path: &Path) -> Result<(Found, BTreeMap<String, Vec<u8>>), LedgerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Found::New, BTreeMap::new()));
        }
        Err(error) => return Err(file_error("cannot read", path)(error)),
    };
    let damage = match log::decode(&bytes, 0).and_then(|found| writer::check(found, bytes.len())) {
        Ok(states) => return Ok((Found::Whole, states)),
        Err(damage) => damage,
    };
    let kept = set_aside(path, damage)?;
    Ok((Found::Damaged { how: damage.to_string(), kept }, BTreeMap::new()))
}

/// Keeps a damaged file for whoever wants to look at it; only the newest one.
fn set_aside(path: &Path, damage: Damage) -> Result<PathBuf, LedgerError> {
    let kept = path.with_extension("damaged");
    tracing::error!(path = %path.display(), kept = %kept.display(), %damage, "ledger is damaged");
    std::fs::rename(path, &kept).map_err(file_error("cannot move aside", path))?;
    Ok(kept)
}

fn lock(dir: &Path) -> Result<File, LedgerError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(file_error("cannot open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse(dir.to_owned())),
        Err(error) => Err(file_error("cannot lock", &path)(error.into())),
    }
}

fn file_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |error| LedgerError::File { what, path: path.clone(), error }
}
