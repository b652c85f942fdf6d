//! Who owns the state directory: the process that holds the lock on a file in it.
//!
//! The system frees the lock when the process ends, however it ends. Whoever holds it listens on a
//! socket beside it for the process that will take its place; only its own user can reach that.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::net::UnixListener;

const LOCK: &str = "lock";
const POST: &str = "handover";

/// The lock is held until this is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
    post: PathBuf,
}

/// Where the holder of the lock listens.
pub fn post_path(state_dir: &Path) -> PathBuf {
    state_dir.join(POST)
}

impl Claim {
    /// `None`: another process holds it.
    pub fn take(state_dir: &Path) -> io::Result<Option<Claim>> {
        let path = state_dir.join(LOCK);
        let open =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let lock = open?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Claim { _lock: lock, post: post_path(state_dir) })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Listens for the process that will take over. Without that, this one serves all the same.
    pub fn listen(&self) -> Option<UnixListener> {
        let bound = self.clear().and_then(|()| UnixListener::bind(&self.post)).and_then(|post| {
            std::fs::set_permissions(&self.post, Permissions::from_mode(0o600))?;
            Ok(post)
        });
        let told = |error: &io::Error| {
            tracing::warn!(
                path = %self.post.display(), %error,
                "cannot listen for a process that takes over: a restart will refuse clients"
            );
        };
        bound.inspect_err(told).ok()
    }

    fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.post) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Before the lock is free: afterwards it is another one's.
        let _gone = self.clear();
    }
}
