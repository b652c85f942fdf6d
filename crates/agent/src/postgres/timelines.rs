//! Timeline history files in `pg_wal`.
//!
//! Timeline ids are owned like terms (3.4): ids that must not be taken are skipped by an empty
//! history file, which makes PostgreSQL believe that they are taken. The files stay, because a
//! mirror asks its principal for every history file up to the timeline that it follows. Only
//! those of a promotion that never happened are removed before a start: with an empty file above
//! its own timeline a standby waits for WAL of that timeline for ever, and replays nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use session::{Lsn, Position, Timeline};

use super::control::{Control, segment_name};
use super::create::sync_dir;
use super::error::Error;
use super::history::History;
use super::instance::Instance;

const SUFFIX: &str = ".history";

pub fn file_name(timeline: Timeline) -> String {
    format!("{:08X}{SUFFIX}", timeline.0)
}

/// All history files of `pg_wal` with their sizes.
fn files(instance: &Instance) -> Result<BTreeMap<Timeline, u64>, Error> {
    let dir = instance.wal_dir();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))?.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(id) = id.and_then(|id| u32::from_str_radix(id, 16).ok()) {
            found.insert(Timeline(id), entry.metadata().map_or(0, |meta| meta.len()));
        }
    }
    Ok(found)
}

/// The highest timeline id that this copy of the data knows to be used or skipped.
pub fn newest(instance: &Instance, current: Timeline) -> Result<Timeline, Error> {
    Ok(files(instance)?.into_keys().max().map_or(current, |id| id.max(current)))
}

/// The newest timeline that really exists: skipped ids have empty files.
pub fn newest_real(instance: &Instance) -> Result<Option<Timeline>, Error> {
    Ok(files(instance)?.into_iter().filter(|(_, size)| *size > 0).map(|(id, _)| id).max())
}

/// The timeline of the WAL at `lsn` in this copy: of the segments that hold it, the newest one's.
/// PostgreSQL itself says `told`, which lags behind from the end of its receiver to its next
/// restart point.
pub fn at(instance: &Instance, lsn: Lsn, told: Timeline) -> Timeline {
    let Ok(entries) = fs::read_dir(instance.wal_dir()) else { return told };
    let holds = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.len() == 24)?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let size = entry.metadata().ok()?.len();
        let begin = (number(&name[8..16])? << 32) + number(&name[16..])? * size;
        let inside = begin < lsn.0 && lsn.0 <= begin + size;
        inside.then_some(Timeline(u32::from_str_radix(&name[..8], 16).ok()?))
    };
    entries.flatten().filter_map(holds).fold(told, Timeline::max)
}

/// Makes sure that a promotion from `current` gets exactly `wanted`.
pub fn skip_to(instance: &Instance, current: Timeline, wanted: Timeline) -> Result<(), Error> {
    let known = files(instance)?;
    if wanted <= current || known.keys().any(|id| *id >= wanted) {
        return Err(Error::unexpected(
            "preparing the timeline",
            format!("timeline {wanted} cannot follow on {current}: it is used already"),
        ));
    }
    let dir = instance.wal_dir();
    for id in (current.0 + 1..wanted.0).map(Timeline).filter(|id| !known.contains_key(id)) {
        let path = dir.join(file_name(id));
        let file = File::create(&path).map_err(Error::io("make", &path))?;
        instance.os_user.own(&path)?;
        file.sync_all().map_err(Error::io("flush", &path))?;
    }
    sync_dir(&dir)
}

/// Removes the empty files above the newest timeline that really exists, `current` or later.
pub fn remove_unused_skips(instance: &Instance, current: Timeline) -> Result<(), Error> {
    let known = files(instance)?;
    let real = known.iter().filter(|(_, size)| **size > 0).map(|(id, _)| *id).max();
    let real = real.map_or(current, |id| id.max(current));
    let dir = instance.wal_dir();
    let unused = known.iter().filter(|(id, size)| **size == 0 && **id > real);
    let mut removed = false;
    for (id, _) in unused {
        let path = dir.join(file_name(*id));
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        removed = true;
    }
    if removed { sync_dir(&dir) } else { Ok(()) }
}

/// Completes the first segment of the newest timeline, as far as it is a copy of the timeline
/// before. A receiver begins a new timeline at the beginning of a segment, and PostgreSQL reads
/// the newest timeline's segment only: if the receiver was ended early, this copy would end too
/// early, or have no checkpoint.
pub fn complete_segment(instance: &Instance, control: &Control) -> Result<(), Error> {
    let Some(newest) = newest_real(instance)? else { return Ok(()) };
    let Ok(fork) = fork_of(instance, newest) else { return Ok(()) };
    let end = fork.lsn.0;
    let begin = end.saturating_sub(1) / control.segment_size * control.segment_size;
    let path = |timeline| {
        let number = begin / control.segment_size;
        instance.wal_dir().join(segment_name(timeline, number, control))
    };
    let path_after = path(newest);
    let after = File::options().read(true).write(true).open(&path_after);
    let (Ok(before), Ok(after)) = (File::open(path(fork.timeline)), after) else { return Ok(()) };
    let size = usize::try_from(control.page_size).unwrap_or(8192);
    let (mut old, mut new) = (vec![0; size], vec![0; size]);
    let mut completed = 0_u64;
    for page in (begin..end).step_by(size) {
        if !holds_page(&before, page, begin, &mut old) || holds_page(&after, page, begin, &mut new)
        {
            continue;
        }
        if let Some(rest) = usize::try_from(end - page).ok().and_then(|used| old.get_mut(used..)) {
            rest.fill(0);
        }
        after.write_all_at(&old, page - begin).map_err(Error::io("complete", &path_after))?;
        completed += 1;
    }
    if completed > 0 {
        tracing::warn!(segment = %path_after.display(), pages = completed, "WAL is completed");
        after.sync_all().map_err(Error::io("flush", &path_after))?;
    }
    Ok(())
}

/// Reads the page of WAL at `page` from the file of the segment that begins at `begin`. Whether it
/// is that page: each one has its own position in its header.
fn holds_page(segment: &File, page: u64, begin: u64, buffer: &mut [u8]) -> bool {
    segment.read_exact_at(buffer, page - begin).is_ok()
        && buffer.get(8..16) == Some(page.to_ne_bytes().as_slice())
}

/// The history of `timeline`.
pub fn history_of(instance: &Instance, timeline: Timeline) -> Result<History, Error> {
    if timeline == Timeline::INITIAL {
        return Ok(History::initial());
    }
    let path = instance.wal_dir().join(file_name(timeline));
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    History::parse(timeline, &text)
        .ok_or_else(|| Error::unexpected("reading a timeline's history", "it is damaged"))
}

/// Where the history file says that `timeline` begins.
pub fn fork_of(instance: &Instance, timeline: Timeline) -> Result<Position, Error> {
    let path = instance.wal_dir().join(file_name(timeline));
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    History::parse(timeline, &text)
        .and_then(|history| history.begin())
        .ok_or_else(|| Error::unexpected("reading a timeline's history", "it is empty or damaged"))
}
