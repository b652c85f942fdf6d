//! The write canary sees volumes that fail and volumes that hang.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::postgres::canary::{Canary, CanaryEvent, Pace};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const PACE: Pace =
    Pace { interval: Duration::from_millis(10), deadline: Duration::from_millis(100) };

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("backstay-it-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("backstay.canary")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn event(canary: &mut Canary) -> CanaryEvent {
    tokio::time::timeout(Duration::from_secs(5), canary.event()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_volume_that_refuses_writes_is_told_once_and_so_is_its_recovery() {
    let dir = Dir::new("canary-refuses");
    std::fs::create_dir(dir.file()).unwrap();
    let watched = vec![dir.0.clone()];
    let mut canary = Canary::watching(move || watched.clone(), None, PACE).unwrap();
    let CanaryEvent::Failing(text) = event(&mut canary).await else {
        panic!("not told as failing");
    };
    assert!(text.starts_with("cannot write to "), "{text}");
    std::fs::remove_dir(dir.file()).unwrap();
    assert_eq!(event(&mut canary).await, CanaryEvent::Well);
    assert!(dir.file().is_file());
}

/// A pipe that nobody reads hangs the writer as a dead volume does.
#[tokio::test]
async fn a_write_that_hangs_is_told_at_its_deadline_and_holds_nobody_up() {
    let dir = Dir::new("canary-hangs");
    mknodat(CWD, dir.file(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let watched = vec![dir.0.clone()];
    let mut canary = Canary::watching(move || watched.clone(), None, PACE).unwrap();
    let begun = Instant::now();
    let CanaryEvent::Failing(text) = event(&mut canary).await else {
        panic!("not told as failing");
    };
    assert!(text.contains("did not end within"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let reader = std::fs::File::open(dir.file()).unwrap();
    assert_eq!(event(&mut canary).await, CanaryEvent::Well);
    drop(canary);
    drop(reader);
}
