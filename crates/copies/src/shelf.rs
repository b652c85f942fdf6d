//! The directory in which a process keeps its copies.
//!
//! `current` is the copy in force, `version-N` are those before it. A file is a line that says what
//! it is, the header, the digest of the header, and the document. A new one is written beside the
//! old one, flushed, and put into its place in one step, so that there is always a whole one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use protocol::admin::{TopologyCopy, TopologyHeader};

use crate::{digest, is_whole};

/// So many copies before the one in force are kept.
const KEPT: usize = 20;
const MAGIC: &str = "backstay topology copy 1";
const CURRENT: &str = "current";
const NEW: &str = "current.new";
const FORMER: &str = "version-";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {error}", path.display())]
pub struct ShelfError {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// In `state_dir` of a process.
    pub fn in_state_dir(state_dir: &Path) -> Shelf {
        Shelf { dir: state_dir.join("topology") }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The copies on the disk that are whole, the newest first. Whatever else lies there is passed
    /// over: it is replaced when the next version comes.
    pub fn copies(&self) -> Vec<TopologyCopy> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name == CURRENT || name.starts_with(FORMER))
        });
        let mut copies: Vec<TopologyCopy> = named.filter_map(|entry| read(&entry.path())).collect();
        copies.sort_by_key(|copy| std::cmp::Reverse(copy.header.version));
        copies.dedup_by_key(|copy| copy.header.version);
        copies
    }

    /// One of the copies that were kept.
    pub fn copy(&self, version: u64) -> Option<TopologyCopy> {
        self.copies().into_iter().find(|copy| copy.header.version == version)
    }

    /// The newest copy in the directory is there but is no whole one.
    pub fn is_damaged(&self) -> bool {
        let path = self.dir.join(CURRENT);
        path.exists() && read(&path).is_none()
    }

    /// When the copy in force was put there, in milliseconds since 1970.
    pub fn since_ms(&self) -> Option<u64> {
        let changed = fs::metadata(self.dir.join(CURRENT)).and_then(|found| found.modified());
        let since = changed.ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }

    /// Puts a copy in force. When this returns, it survives a crash.
    ///
    /// # Errors
    /// The disk does not take it; the one before stays in force.
    pub fn put(&self, copy: &TopologyCopy) -> Result<(), ShelfError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| self.failed("make", &self.dir, error))?;
        let (current, new) = (self.dir.join(CURRENT), self.dir.join(NEW));
        write(&new, copy).map_err(|error| self.failed("write", &new, error))?;
        if let Some(before) = read(&current) {
            let former = self.dir.join(former(before.header.version));
            match fs::hard_link(&current, &former) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.failed("keep", &former, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&new, &current).map_err(|error| self.failed("replace", &current, error))?;
        self.flush()?;
        self.clear_away();
        Ok(())
    }

    fn flush(&self) -> Result<(), ShelfError> {
        let flushed = File::open(&self.dir).and_then(|dir| dir.sync_all());
        flushed.map_err(|error| self.failed("flush", &self.dir, error))
    }

    /// One copy too many does no harm.
    fn clear_away(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut former: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(FORMER))
            .map(|entry| entry.path())
            .collect();
        former.sort_unstable();
        let surplus = former.len().saturating_sub(KEPT);
        for path in former.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }

    fn failed(&self, doing: &'static str, path: &Path, error: io::Error) -> ShelfError {
        ShelfError { doing, path: path.to_owned(), error }
    }
}

/// Sorted by name, they are sorted by version.
fn former(version: u64) -> String {
    format!("{FORMER}{version:020}")
}

fn write(path: &Path, copy: &TopologyCopy) -> io::Result<()> {
    let header = serde_json::to_string(&copy.header).map_err(io::Error::other)?;
    let sum = digest(header.as_bytes());
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(format!("{MAGIC}\n{header}\n{sum}\n{}", copy.document).as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Option<TopologyCopy> {
    let text = fs::read_to_string(path).ok()?;
    let (magic, rest) = text.split_once('\n')?;
    let (header, rest) = rest.split_once('\n')?;
    let (sum, document) = rest.split_once('\n')?;
    if magic != MAGIC || sum != digest(header.as_bytes()) {
        return None;
    }
    let header: TopologyHeader = serde_json::from_str(header).ok()?;
    let copy = TopologyCopy { header, document: document.to_owned() };
    is_whole(&copy).then_some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal;

    struct Place(Shelf);

    impl Place {
        fn new(name: &str) -> Place {
            let dir = std::env::temp_dir().join(format!("h5-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Place(Shelf::in_state_dir(&dir))
        }

        fn current(&self) -> PathBuf {
            self.0.dir.join(CURRENT)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.dir.parent().unwrap_or(&self.0.dir));
        }
    }

    fn version(number: u64) -> TopologyCopy {
        seal(number, 17, "ann", "line\nbreaks", format!("# {number}\n\nformat = 1\n"))
    }

    #[test]
    fn what_was_put_is_found_again_and_what_was_before_is_kept() {
        let place = Place::new("kept");
        assert_eq!(place.0.copies(), []);
        for number in 1..=25 {
            place.0.put(&version(number)).unwrap();
        }
        let found: Vec<u64> = place.0.copies().iter().map(|copy| copy.header.version).collect();
        let wanted: Vec<u64> = (5..=25).rev().collect();
        assert_eq!(found, wanted);
        assert_eq!(place.0.copy(9), Some(version(9)));
        assert!(!place.0.is_damaged());
    }

    #[test]
    fn a_torn_or_altered_copy_is_never_used() {
        let place = Place::new("torn");
        place.0.put(&version(1)).unwrap();
        place.0.put(&version(2)).unwrap();
        let whole = fs::read(place.current()).unwrap();
        for length in 0..whole.len() {
            fs::write(place.current(), &whole[..length]).unwrap();
            assert_eq!(place.0.copies(), [version(1)], "cut at {length}");
            assert!(place.0.is_damaged());
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(place.current(), &altered).unwrap();
            assert_eq!(place.0.copies(), [version(1)], "altered at {at}");
        }
        place.0.put(&version(3)).unwrap();
        assert_eq!(place.0.copies(), [version(3), version(1)]);
    }

    #[test]
    fn a_copy_that_could_not_be_written_leaves_the_one_before_in_force() {
        let place = Place::new("full");
        place.0.put(&version(1)).unwrap();
        fs::create_dir(place.0.dir.join(NEW)).unwrap();
        assert!(place.0.put(&version(2)).is_err());
        assert_eq!(place.0.copies(), [version(1)]);
    }
}
