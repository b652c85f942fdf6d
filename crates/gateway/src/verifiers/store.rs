//! The copy of the verifiers on disk.
//!
//! It is written whole, beside the former one, and takes its place when it is durable; nobody but
//! the gateway's own user may read it. What cannot be read is empty: the principal will tell again.
//! Writing has a task of its own and the disk a thread, so that no client waits for either.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use wire::scram::Key;

use super::{Row, Verifiers};
use crate::login::random;

pub const FILE: &str = "verifiers";

#[derive(Serialize, Deserialize)]
pub struct Stored {
    /// What the verifiers of users who do not exist are made from.
    pub stand_in: Key,
    pub users: BTreeMap<String, Row>,
}

/// What is on disk; or, if that is nothing, a new beginning, which is not on disk yet (`false`).
pub fn read(state_dir: &Path) -> (Stored, bool) {
    let path = state_dir.join(FILE);
    let found = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) => Err(error),
    };
    match found {
        Ok(stored) => (stored, true),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(
                    path = %path.display(), %error,
                    "cannot read what is known of how users log in, and begin anew"
                );
            }
            (Stored { stand_in: random::bytes(), users: BTreeMap::new() }, false)
        }
    }
}

/// Writes after each change while `writes` says so, until the verifiers are gone.
pub async fn keep(
    state_dir: PathBuf,
    verifiers: Weak<Verifiers>,
    changed: Rc<Notify>,
    writes: Rc<Mutex<bool>>,
) {
    loop {
        changed.notified().await;
        let writes = writes.lock().await;
        let Some(stored) = verifiers.upgrade().map(|verifiers| Stored {
            stand_in: verifiers.stand_in,
            users: verifiers.rows().into_iter().collect(),
        }) else {
            return;
        };
        if !*writes {
            continue;
        }
        let dir = state_dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&dir, &stored)).await;
        if let Err(error) = written.map_err(io::Error::from).flatten() {
            tracing::warn!(
                path = %state_dir.join(FILE).display(), %error,
                "cannot write what is known of how users log in"
            );
        }
    }
}

fn write(state_dir: &Path, stored: &Stored) -> io::Result<()> {
    let bytes = serde_json::to_vec(stored)?;
    let beside = state_dir.join(format!("{FILE}.new"));
    // One that was left behind could be readable to others.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, state_dir.join(FILE))?;
    File::open(state_dir)?.sync_all()
}
