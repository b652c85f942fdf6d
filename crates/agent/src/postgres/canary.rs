//! The write canary: a small flushed write to each volume, every second, in a thread of its own.
//!
//! A volume that hangs gives no error and answers no deadline, so nothing that must go on may ever
//! write to it and wait. The canary's thread does, and only it hangs: the watching task sees that
//! it is late, reports it once, and takes the thread up again when the volume answers.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use session::Ailment;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::clock;

use super::condition::{Problem, Storage, StorageAils};
use super::instance::Instance;
use super::os_user::OsUser;
use super::teller::Teller;

const FILE: &str = "backstay.canary";
/// With less than one WAL segment PostgreSQL may have to stop at any moment.
const SEGMENT: u64 = 16 << 20;
/// Warn when less than this part of a volume is free, or less than that many bytes.
const LEAST_FREE_PERCENT: u64 = 5;
const LEAST_FREE: u64 = 512 << 20;
const QUEUE: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From the end of one round of writes to the next.
    pub interval: Duration,
    /// How long a round may take.
    pub deadline: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { interval: Duration::from_secs(1), deadline: Duration::from_secs(2) }
    }
}

/// What changed. Each is told once, not with every write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CanaryEvent {
    /// A write failed or is late, in words for people.
    Failing(String),
    /// Writes end in time again.
    Well,
    /// Little room is left on a volume, in words for people.
    NearlyFull(String),
    /// There is room again.
    Roomy,
}

/// Dropping it ends the watching; a thread that hangs in a write ends when the write does.
#[derive(Debug)]
pub struct Canary {
    events: mpsc::Receiver<CanaryEvent>,
    task: JoinHandle<()>,
}

impl Canary {
    pub fn spawn(instance: &Instance, pace: Pace) -> io::Result<Canary> {
        let (data_dir, wal_dir) = (instance.data_dir.clone(), instance.wal_dir());
        let owner = instance.os_user.clone();
        Canary::watching(move || volumes(&data_dir, &wal_dir), Some(owner), pace)
    }

    /// Watches the volumes of the directories that `dirs` names for each round. The files are
    /// given to `owner`: a base backup fails on a file that PostgreSQL's user cannot read.
    pub fn watching(
        dirs: impl Fn() -> Vec<PathBuf> + Send + 'static,
        owner: Option<OsUser>,
        pace: Pace,
    ) -> io::Result<Canary> {
        let (begins, begun) = mpsc::channel(1);
        let (results, seen) = mpsc::channel(1);
        let (teller, events) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("canary".to_owned())
            .spawn(move || write_rounds(dirs, owner.as_ref(), begun, &results))?;
        let task = tokio::spawn(watch(pace, begins, seen, teller));
        Ok(Canary { events, task })
    }

    /// The next change; `None` if the canary has ended. Safe to drop at any moment.
    pub async fn event(&mut self) -> Option<CanaryEvent> {
        self.events.recv().await
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells the session and people what the canary sees. Never ends by itself.
pub async fn report(instance: Arc<Instance>, teller: Teller) {
    let mut canary = match Canary::spawn(&instance, Pace::default()) {
        Ok(canary) => canary,
        Err(error) => {
            tracing::error!(%error, "the volumes are not watched");
            return;
        }
    };
    while let Some(event) = canary.event().await {
        let storage = |ails: StorageAils, text: String, hint: &str| {
            tracing::warn!(text, hint, "storage");
            let problem = Problem { text, hint: Some(hint.to_owned()) };
            let storage = Storage { ails, problem, since_ms: clock::wall_ms() };
            teller.change(|condition| condition.storage = Some(storage));
        };
        match event {
            CanaryEvent::Failing(text) => {
                storage(StorageAils::Failing, text, "check the volume and the system's log");
                teller.unhealthy(Ailment::Storage).await;
            }
            CanaryEvent::NearlyFull(text) => {
                storage(StorageAils::Full, text, "free some space on it, or enlarge it");
            }
            CanaryEvent::Well => {
                teller.change(|condition| condition.storage = None);
                teller.cured(Ailment::Storage).await;
            }
            CanaryEvent::Roomy => teller.change(|condition| condition.storage = None),
        }
    }
}

/// The directories to write to: the data directory, and that of the WAL if it is on a volume of
/// its own. None while there is no cluster, because what makes one wants an empty directory.
fn volumes(data_dir: &Path, wal_dir: &Path) -> Vec<PathBuf> {
    if !data_dir.join("PG_VERSION").exists() {
        return Vec::new();
    }
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let apart = device(wal_dir).is_some() && device(wal_dir) != device(data_dir);
    let wal_dir = apart.then(|| wal_dir.to_owned());
    [data_dir.to_owned()].into_iter().chain(wal_dir).collect()
}

/// What one round of writes showed.
struct Round {
    failure: Option<String>,
    nearly_full: Option<String>,
}

/// The thread: a round for each word, until nobody gives it any more.
fn write_rounds(
    dirs: impl Fn() -> Vec<PathBuf>,
    owner: Option<&OsUser>,
    mut begun: mpsc::Receiver<()>,
    results: &mpsc::Sender<Round>,
) {
    while begun.blocking_recv().is_some() {
        let dirs = dirs();
        let failure = dirs.iter().find_map(|dir| write(dir, owner).err());
        let nearly_full = dirs.iter().find_map(|dir| nearly_full(dir));
        if results.blocking_send(Round { failure, nearly_full }).is_err() {
            return;
        }
    }
}

fn write(dir: &Path, owner: Option<&OsUser>) -> Result<(), String> {
    let path = dir.join(FILE);
    let flags = i32::try_from(OFlags::DSYNC.bits()).unwrap_or(0);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(&[b'.'; 512])?;
            file.metadata()
        });
    let meta = match written {
        Ok(meta) => meta,
        // A full volume does not fail: it is told as such, and PostgreSQL goes on as it can.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
        Err(error) => return Err(format!("cannot write to {}: {error}", path.display())),
    };
    match owner {
        Some(owner) if meta.uid() != owner.uid => owner.own(&path).map_err(|e| e.to_string()),
        Some(_) | None => Ok(()),
    }
}

/// In words that change only when it becomes worse or better, not with every megabyte.
fn nearly_full(dir: &Path) -> Option<String> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let (free, total) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
    let least = LEAST_FREE.min(total / 100 * LEAST_FREE_PERCENT);
    let (volume, total) = (dir.display(), total >> 20);
    if free < SEGMENT.min(least) {
        Some(format!("the volume of {volume} is full: next to nothing of its {total} MB is free"))
    } else if free < least {
        let least = least >> 20;
        Some(format!(
            "the volume of {volume} is nearly full: less than {least} of {total} MB are free"
        ))
    } else {
        None
    }
}

async fn watch(
    pace: Pace,
    begins: mpsc::Sender<()>,
    mut seen: mpsc::Receiver<Round>,
    teller: mpsc::Sender<CanaryEvent>,
) {
    let (mut failing, mut full) = (None, None);
    loop {
        if begins.send(()).await.is_err() {
            return;
        }
        let late = sleep_until(Instant::now() + pace.deadline);
        let round = tokio::select! {
            biased;
            round = seen.recv() => round,
            () = late => {
                let text = format!("a write did not end within {:?}", pace.deadline);
                tell(&teller, &mut failing, Some(text), CanaryEvent::Failing, CanaryEvent::Well);
                // However long it takes: the thread does nothing else.
                seen.recv().await
            }
        };
        let Some(round) = round else { return };
        tell(&teller, &mut failing, round.failure, CanaryEvent::Failing, CanaryEvent::Well);
        tell(&teller, &mut full, round.nearly_full, CanaryEvent::NearlyFull, CanaryEvent::Roomy);
        sleep_until(Instant::now() + pace.interval).await;
    }
}

/// Tells the change from good to bad, to something else that is bad, and back. A queue that nobody
/// reads is retried next time.
fn tell(
    teller: &mpsc::Sender<CanaryEvent>,
    before: &mut Option<String>,
    now: Option<String>,
    bad: impl FnOnce(String) -> CanaryEvent,
    good: CanaryEvent,
) {
    if *before == now {
        return;
    }
    let event = match &now {
        Some(text) => bad(text.clone()),
        None => good,
    };
    if teller.try_send(event).is_ok() {
        *before = now;
    }
}
