//! The thread that writes the ledger's file, and changes to a new one when it is full.
//!
//! A new file begins with the newest state of every session. It is written under another name,
//! flushed, and renamed over the old one: at every moment exactly one file is the ledger.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::Sender;

use super::log::{self, BATCH_LIMIT, Contents, Damage, Entry, SECTOR};
use super::{Flushed, Outcome};

/// Bytes of entries after which a batch takes no more.
pub(super) const BATCH_BYTES: usize = 1024 * 1024;
/// A new file has room for the states that it begins with, so many times, and for this much more.
const ROOM: usize = 4;
const LEAST: usize = 1024 * 1024;
/// The first entry of a file, under no session's name, tells the file's length.
const LENGTH: &str = "";

#[derive(Debug, Default)]
pub(super) struct Batch {
    pub entries: Vec<Entry>,
    pub flushed: Vec<Flushed>,
}

#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    file: File,
    length: usize,
    /// Where the next batch goes, and its number.
    end: usize,
    batch: u64,
    states: BTreeMap<String, Vec<u8>>,
}

impl Writer {
    /// Begins a new file with `states`.
    pub(super) fn create(dir: &Path, states: BTreeMap<String, Vec<u8>>) -> io::Result<Writer> {
        let entries =
            |length: usize| {
                let length = (length as u64).to_le_bytes().to_vec();
                let mut entries = vec![Entry { session: LENGTH.to_owned(), state: length }];
                entries.extend(states.iter().map(|(session, state)| Entry {
                    session: session.clone(),
                    state: state.clone(),
                }));
                entries
            };
        let bytes: usize = entries(0).iter().map(size).sum();
        if bytes > BATCH_LIMIT {
            return Err(io::Error::other("there are more sessions than a ledger can hold"));
        }
        let begin = log::encode(0, &entries(0)).len();
        let length = (begin * ROOM + LEAST).next_multiple_of(SECTOR);
        let mut content = log::encode(0, &entries(length));
        let end = content.len();
        content.resize(length, 0);
        let file = replace(dir, &content)?;
        Ok(Writer { dir: dir.to_owned(), file, length, end, batch: 1, states })
    }

    /// Writes batch after batch until nobody sends any more, or until one fails.
    pub(super) fn run(mut self, batches: &Receiver<Batch>, told: &Sender<Outcome>) {
        while let Ok(Batch { entries, flushed }) = batches.recv() {
            let result = self.write(entries);
            let failed = result.is_err();
            let outcome = result.map(|()| flushed);
            if told.blocking_send(outcome).is_err() || failed {
                return;
            }
        }
    }

    fn write(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let sectors = log::encode(self.batch, &entries);
        for Entry { session, state } in entries {
            self.states.insert(session, state);
        }
        if self.end + sectors.len() > self.length {
            // The new file begins with the newest states, these included.
            *self = Writer::create(&self.dir, std::mem::take(&mut self.states))?;
            return Ok(());
        }
        self.file.write_all_at(&sectors, self.end as u64)?;
        self.file.sync_data()?;
        self.end += sectors.len();
        self.batch += 1;
        Ok(())
    }
}

fn size(entry: &Entry) -> usize {
    entry.session.len() + entry.state.len() + 8
}

/// Puts a file with `content` in the ledger's place, durably.
fn replace(dir: &Path, content: &[u8]) -> io::Result<File> {
    let (new, path) = (dir.join("ledger.new"), dir.join("ledger"));
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all_at(content, 0)?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// The newest states in a file of `length` bytes that could be read.
pub(super) fn check(found: Contents, length: usize) -> Result<BTreeMap<String, Vec<u8>>, Damage> {
    let mut states = BTreeMap::new();
    for entry in found.batches.into_iter().flatten() {
        states.insert(entry.session, entry.state);
    }
    let told = states.remove(LENGTH).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    if told.map(u64::from_le_bytes) != Some(length as u64) {
        return Err(Damage::CutShort);
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_replaced_and_nothing_is_lost() {
        let dir = std::env::temp_dir().join(format!("backstay-writer-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut writer = Writer::create(&dir, BTreeMap::new()).unwrap();
        let rounds = 2 * LEAST / SECTOR / 40;
        for round in 0..rounds {
            let state = vec![round as u8; 40 * SECTOR];
            writer.write(vec![Entry { session: format!("s{}", round % 3), state }]).unwrap();
        }
        let bytes = std::fs::read(dir.join("ledger")).unwrap();
        let states = check(log::decode(&bytes, 0).unwrap(), bytes.len()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(states, writer.states);
        assert_eq!(states[&format!("s{}", (rounds - 1) % 3)][0], (rounds - 1) as u8);
    }
}
