//! What has happened to a session, for people: lines of JSON in the state directory.
//!
//! The newest entries are kept in memory, too, and served from there. Each session has one file,
//! which is moved aside once when it has grown; a thread of its own writes them, so that a slow
//! disk holds nobody up. Losing the last lines in a power cut is harmless: no decision reads them.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use protocol::admin::{HistoryEntry, HistoryKind, PhaseTime, at_text, words};
use session::{Event, Instant, Phase, RecordId, Term};

/// Lines that wait for the writer. What finds no room is not written.
const WAITING: usize = 1_024;
const FILE_LIMIT: u64 = 1024 * 1024;

/// When something happened: by the session's clock, and for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub now: Instant,
    pub wall_ms: u64,
}

/// The history of one session.
#[derive(Debug)]
pub(crate) struct History {
    session: String,
    member: String,
    entries: VecDeque<HistoryEntry>,
    /// How many entries are kept in memory.
    keep: usize,
    number: u64,
    phases: Phases,
    scribe: Scribe,
}

/// The phases of the promotion that is going on.
#[derive(Debug, Default)]
struct Phases {
    term: Term,
    last: Option<Instant>,
    times: Vec<PhaseTime>,
}

impl History {
    /// The history that goes on where the file in `dir` ends.
    pub(crate) fn open(
        dir: &Path,
        session: &str,
        member: &str,
        keep: usize,
        scribe: Scribe,
    ) -> History {
        let mut entries = VecDeque::new();
        for path in [aside(&file(dir, session)), file(dir, session)] {
            let text = fs::read_to_string(path).unwrap_or_default();
            for entry in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
                push(&mut entries, entry, keep);
            }
        }
        let number = entries.back().map_or(0, |entry: &HistoryEntry| entry.number);
        History {
            session: session.to_owned(),
            member: member.to_owned(),
            entries,
            keep,
            number,
            phases: Phases::default(),
            scribe,
        }
    }

    pub(crate) fn newest(&self) -> u64 {
        self.number
    }

    pub(crate) fn after(&self, after: Option<u64>, limit: usize) -> Vec<HistoryEntry> {
        let newer: Vec<&HistoryEntry> =
            self.entries.iter().filter(|entry| after.is_none_or(|n| entry.number > n)).collect();
        let skip = newer.len().saturating_sub(limit);
        newer.into_iter().skip(skip).cloned().collect()
    }

    /// Keeps `event`. `term` is the record's; `silence`: how long the other partner was not heard.
    pub(crate) fn tell(
        &mut self,
        when: When,
        event: Event,
        term: Term,
        silence: Option<std::time::Duration>,
    ) {
        match event {
            Event::RoleChanged { from, to, term, cause } => {
                let (code, because) = words::cause(cause);
                let sentence = format!(
                    "{} is {} in term {term}, was {}: {because}",
                    self.member,
                    words::role(to),
                    words::role(from)
                );
                let entry = HistoryEntry {
                    cause: Some(code.to_owned()),
                    from: Some(words::role(from).to_owned()),
                    to: Some(words::role(to).to_owned()),
                    ..self.entry(when, HistoryKind::RoleChanged, term, sentence)
                };
                self.keep(entry);
            }
            Event::RecordChanged { id, cause } => self.record(when, id, cause),
            Event::Reached { phase, term } => self.reached(when, phase, term, silence),
            Event::Alarm(alarm) => {
                let (code, sentence) = words::alarm(alarm);
                let entry = HistoryEntry {
                    cause: Some(code.to_owned()),
                    ..self.entry(when, HistoryKind::Alarm, term, sentence)
                };
                self.keep(entry);
            }
        }
    }

    /// Keeps that the process started, or stops.
    pub(crate) fn process(&mut self, when: When, term: Term, sentence: &str) {
        let entry = self.entry(when, HistoryKind::Process, term, sentence.to_owned());
        self.keep(entry);
    }

    fn record(&mut self, when: When, id: RecordId, cause: session::Cause) {
        let (code, because) = words::cause(cause);
        let sentence = format!("record {} of term {} took effect: {because}", id.revision, id.term);
        let entry = HistoryEntry {
            cause: Some(code.to_owned()),
            to: Some(format!("{}.{}", id.term, id.revision)),
            ..self.entry(when, HistoryKind::RecordChanged, id.term, sentence)
        };
        self.keep(entry);
    }

    fn reached(
        &mut self,
        when: When,
        phase: Phase,
        term: Term,
        silence: Option<std::time::Duration>,
    ) {
        // Whoever detects does not know the term yet that it will be elected for.
        if phase == Phase::Detected || (self.phases.term != term && phase != Phase::Elected) {
            self.phases = Phases::default();
        }
        self.phases.term = term;
        let took = match self.phases.last {
            Some(last) => when.now.since(last),
            None => silence.unwrap_or_default(),
        };
        self.phases.last = Some(when.now);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let name = words::phase(phase);
        self.phases.times.push(PhaseTime { phase: name.to_owned(), ms: us / 1_000, us });
        let sentence = format!("{name} for term {term} after {}.{:03} ms", us / 1_000, us % 1_000);
        let entry = HistoryEntry {
            to: Some(name.to_owned()),
            ..self.entry(when, HistoryKind::Phase, term, sentence)
        };
        self.keep(entry);
        if phase == Phase::Established {
            let phases = std::mem::take(&mut self.phases).times;
            let total_us: u64 = phases.iter().skip(1).map(|phase| phase.us).sum();
            let sentence = format!(
                "{} serves term {term}: {} ms from the decision to the first write",
                self.member,
                total_us / 1_000
            );
            let entry = HistoryEntry {
                phases,
                total_ms: Some(total_us / 1_000),
                to: Some(self.member.clone()),
                ..self.entry(when, HistoryKind::Failover, term, sentence)
            };
            self.keep(entry);
        }
    }

    fn entry(&self, when: When, kind: HistoryKind, term: Term, sentence: String) -> HistoryEntry {
        HistoryEntry {
            number: self.number + 1,
            at_ms: when.wall_ms,
            at: at_text(when.wall_ms),
            member: self.member.clone(),
            kind,
            term: term.0,
            cause: None,
            from: None,
            to: None,
            sentence,
            phases: Vec::new(),
            total_ms: None,
        }
    }

    fn keep(&mut self, entry: HistoryEntry) {
        self.number = entry.number;
        if let Ok(line) = serde_json::to_string(&entry) {
            self.scribe.write(&self.session, line);
        }
        push(&mut self.entries, entry, self.keep);
    }
}

fn push(entries: &mut VecDeque<HistoryEntry>, entry: HistoryEntry, keep: usize) {
    if entries.len() >= keep {
        entries.pop_front();
    }
    entries.push_back(entry);
}

fn file(dir: &Path, session: &str) -> PathBuf {
    dir.join(format!("{session}.history.jsonl"))
}

fn aside(file: &Path) -> PathBuf {
    file.with_extension("jsonl.1")
}

/// Hands lines to the thread that writes them.
#[derive(Clone, Debug)]
pub(crate) struct Scribe(SyncSender<(String, String)>);

impl Scribe {
    /// # Errors
    /// The directory cannot be made, or no thread started.
    pub(crate) fn start(dir: &Path) -> io::Result<Scribe> {
        fs::create_dir_all(dir)?;
        let (lines, to_write) = sync_channel(WAITING);
        let dir = dir.to_owned();
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_lines(&dir, &to_write))?;
        Ok(Scribe(lines))
    }

    fn write(&self, session: &str, line: String) {
        let _ = self.0.try_send((session.to_owned(), line));
    }
}

fn write_lines(dir: &Path, lines: &Receiver<(String, String)>) {
    let mut complained = false;
    while let Ok((session, line)) = lines.recv() {
        let path = file(dir, &session);
        match append(&path, &line) {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                tracing::warn!(path = %path.display(), %error, "the history cannot be written");
                complained = true;
            }
            Err(_) => {}
        }
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    if file.metadata()?.len() > FILE_LIMIT {
        fs::rename(path, aside(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> When {
        When { now: Instant::from_micros(ms * 1_000), wall_ms: 1_000_000 + ms }
    }

    fn history(dir: &Path) -> History {
        let scribe = Scribe::start(dir).unwrap();
        History::open(dir, "pool01", "be2", 100, scribe)
    }

    fn wait_for_lines(dir: &Path, count: usize) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(file(dir, "pool01")).unwrap_or_default().lines().count() < count {
            assert!(std::time::Instant::now() < deadline, "the history was not written");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_failover_tells_how_long_each_phase_took() {
        let dir = std::env::temp_dir().join(format!("backstay-history-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let mut history = history(&dir);
        let term = Term(3);
        let phases = [
            (0, Phase::Detected),
            (4, Phase::Elected),
            (40, Phase::Prepared),
            (65, Phase::Promoted),
            (70, Phase::Established),
        ];
        for (ms, phase) in phases {
            let silence = Some(Duration::from_millis(2_000));
            history.tell(at(ms), Event::Reached { phase, term }, term, silence);
        }
        let entries = history.after(None, 100);
        let last = entries.last().unwrap();
        assert_eq!((last.kind, last.total_ms), (HistoryKind::Failover, Some(70)));
        let times: Vec<u64> = last.phases.iter().map(|phase| phase.ms).collect();
        assert_eq!(times, [2_000, 4, 36, 25, 5]);
        wait_for_lines(&dir, entries.len());
        let again = self::history(&dir);
        assert_eq!(again.after(Some(4), 100), entries[4..]);
        assert_eq!(again.newest(), history.newest());
        fs::remove_dir_all(&dir).unwrap();
    }
}
