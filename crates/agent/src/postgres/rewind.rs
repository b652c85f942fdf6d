//! Taking back what a former principal wrote after the fork, by `pg_rewind`.
//!
//! What will be thrown away is kept aside first: the WAL from the fork on, and a list of the
//! transactions in it. `pg_rewind` runs only after the new principal's `CHECKPOINT`, because
//! before that its control file still names the old timeline and PostgreSQL 14 and 15 find
//! "no rewind required". When it says so here, where a rewind is known to be required, that is a
//! failure, and a fresh copy is made instead.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use session::{Position, Timeline};
use tokio::time::{Instant, sleep};

use super::access::{make_dir, write_file};
use super::clone::{self, Unfinished};
use super::control::Control;
use super::create;
use super::error::Error;
use super::instance::Instance;
use super::pairing;
use super::settings::Upstream;
use super::tool;
use crate::clock;

/// How long the new principal's `CHECKPOINT` is waited for before the way back is tried anew.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(60);
const CHECKPOINT_TICK: Duration = Duration::from_millis(20);
/// How many rewinds' worth of discarded WAL is kept, and how many segments of each.
const KEPT_REWINDS: usize = 3;
const KEPT_SEGMENTS: usize = 16;
const KEPT_LIST: usize = 1 << 20;

/// What a rewind throws away: the WAL of `own`'s history from `from` up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    pub from: Position,
    pub end: Position,
}

/// Waits until the new principal's control file names `timeline`.
pub async fn checkpointed(
    instance: &Instance,
    upstream: &Upstream,
    timeline: Timeline,
) -> Result<(), Error> {
    const DOING: &str = "waiting for the new principal's CHECKPOINT";
    let connection = pairing::connect(instance, upstream).await?;
    let begun = Instant::now();
    loop {
        let found = connection.one("SELECT timeline_id FROM pg_control_checkpoint()").await;
        let found = found.map_err(Error::sql(DOING))?;
        if found.as_deref() == Some(timeline.to_string().as_str()) {
            return Ok(());
        }
        if begun.elapsed() > CHECKPOINT_PATIENCE {
            return Err(Error::Late { doing: DOING });
        }
        sleep(CHECKPOINT_TICK).await;
    }
}

/// Keeps the WAL aside that will be thrown away, and says where. The oldest such folders go.
pub fn keep_aside(
    instance: &Instance,
    control: &Control,
    discarded: &Discarded,
) -> Result<PathBuf, Error> {
    let all = instance.files_dir.join("discarded");
    make_dir(instance, &all, 0o700)?;
    let dir = all.join(clock::wall_ms().to_string());
    make_dir(instance, &dir, 0o700)?;
    let Discarded { from, end } = discarded;
    let text = format!(
        "from {} on timeline {}\nto {} on timeline {}\n",
        from.lsn, from.timeline, end.lsn, end.timeline
    );
    write_file(instance, &dir.join("range"), &text)?;
    let (first, last) = (from.lsn.0 / control.segment_size, end.lsn.0 / control.segment_size);
    let mut kept = 0;
    for (name, timeline, number) in segments(instance, control)? {
        let thrown = timeline >= from.timeline && timeline <= end.timeline;
        if thrown && (first..=last).contains(&number) && kept < KEPT_SEGMENTS {
            let (source, target) = (instance.wal_dir().join(&name), dir.join(&name));
            fs::copy(&source, &target).map_err(Error::io("copy", &source))?;
            kept += 1;
        }
    }
    list_transactions(instance, &dir, discarded)?;
    prune(&all)?;
    Ok(dir)
}

/// Writes down which transactions ended in the discarded WAL. Only for people to read, so a
/// range that `pg_waldump` cannot read to its end is no failure.
fn list_transactions(instance: &Instance, dir: &Path, discarded: &Discarded) -> Result<(), Error> {
    let program = instance.program("pg_waldump");
    let out = instance
        .os_user
        .command(&program)
        .arg(format!("--path={}", instance.wal_dir().display()))
        .arg(format!("--timeline={}", discarded.end.timeline))
        .arg(format!("--start={}", discarded.from.lsn))
        .arg(format!("--end={}", discarded.end.lsn))
        .args(["--rmgr=Transaction", "--limit=5000"])
        .current_dir("/")
        .output()
        .map_err(Error::io("run", &program))?;
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    if text.len() > KEPT_LIST {
        let cut = (0..=KEPT_LIST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
    write_file(instance, &dir.join("transactions"), &text)
}

/// The WAL segments with their timelines and numbers, the earliest first.
fn segments(instance: &Instance, control: &Control) -> Result<Vec<(String, Timeline, u64)>, Error> {
    let dir = instance.wal_dir();
    let per_id = 0x1_0000_0000 / control.segment_size;
    let mut found: Vec<_> = fs::read_dir(&dir)
        .map_err(Error::io("read", &dir))?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| name.len() == 24)?;
            let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
            let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
            let number = u64::from(high) * per_id + u64::from(low);
            Some((name, Timeline(timeline), number))
        })
        .collect();
    found.sort_by_key(|(_, timeline, number)| (*number, *timeline));
    Ok(found)
}

fn prune(all: &Path) -> Result<(), Error> {
    let mut dirs: Vec<_> = fs::read_dir(all)
        .map_err(Error::io("read", all))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    dirs.sort();
    for old in &dirs[..dirs.len().saturating_sub(KEPT_REWINDS)] {
        fs::remove_dir_all(old).map_err(Error::io("remove", old))?;
    }
    Ok(())
}

/// Rewinds the stopped data directory. After an error it may not be whole: `Unfinished` says so.
/// Dropping it ends the rewinding.
pub async fn run(instance: &Instance, upstream: &Upstream) -> Result<(), Error> {
    tool::end_orphans(&instance.data_dir).await;
    drop(pairing::connect(instance, upstream).await?);
    Unfinished::Rewind.write(instance)?;
    let mut target = OsString::from("--target-pgdata=");
    target.push(&instance.data_dir);
    let arguments = [
        target,
        format!("--source-server={}", clone::source(instance, upstream)).into(),
        "--no-ensure-shutdown".into(),
        "--no-sync".into(),
    ];
    let (mut needless, mut begun) = (false, false);
    let rewound = tool::run(instance, "pg_rewind", &arguments, |line| {
        needless |= line.contains("no rewind required");
        // Said before the first byte is written.
        begun |= line.contains("rewinding from last common checkpoint");
    })
    .await;
    if !begun {
        // Nothing was touched: these data are as whole as before.
        Unfinished::clear(instance)?;
    }
    rewound?;
    if needless {
        return Err(Error::unexpected(
            "rewinding",
            "pg_rewind found nothing to do, although the data has diverged",
        ));
    }
    settle(instance)?;
    tool::flush_volumes(vec![instance.data_dir.clone(), instance.wal_dir()]).await?;
    Unfinished::clear(instance)
}

/// Puts back what is this server's own, and takes away what its source must not have brought.
fn settle(instance: &Instance) -> Result<(), Error> {
    create::mark_data(instance)?;
    create::put_standby_signal(instance)?;
    // Slots are positions on the history that was just left.
    let slots = instance.data_dir.join("pg_replslot");
    create::empty(&slots)?;
    for name in ["postmaster.opts", "postmaster.pid", "recovery.signal"] {
        let path = instance.data_dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    create::sync_dir(&instance.data_dir)
}
