//! Makes cases, plays them, watches them, and says what it found.
//!
//! A worker plays the cases while the main thread watches it: a case that takes more than a second
//! of its processor is a finding like a panic, and one that never ends is a finding, too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::mutate::{Chance, mutate};
use super::seeds;
use super::targets::Target;
use crate::clock::{Stopwatch, processor};
use crate::output;

/// What one case may take of its processor.
const LONGEST: Duration = Duration::from_secs(1);
/// After so long a case will not end, on the busiest machine.
const FOR_EVER: Duration = Duration::from_secs(60);
/// After so many findings a search has shown enough.
const ENOUGH: usize = 20;

#[derive(Clone)]
struct Options {
    limit: Duration,
    seed: u64,
    targets: Vec<Target>,
}

impl Options {
    fn read(all: &[Target], words: &[&str]) -> Result<Options> {
        use std::hash::{BuildHasher as _, RandomState};
        let mut options = Options {
            limit: Duration::from_secs(60),
            seed: RandomState::new().hash_one(0) >> 32,
            targets: all.to_vec(),
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else { bail!("{} needs a value", pair[0]) };
            let number = || value.parse().with_context(|| format!("{name} {value}: no number"));
            match *name {
                "--minutes" => options.limit = Duration::from_secs(60 * number()?),
                "--seconds" => options.limit = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--only" => {
                    let target =
                        Target::named(value).ok_or_else(|| anyhow!("no reader {value}"))?;
                    options.targets = vec![target];
                }
                _other => {
                    bail!(
                        "unknown: {name}; there are --minutes, --seconds, --seed, --only, --replay"
                    )
                }
            }
        }
        Ok(options)
    }
}

/// `cargo xtask fuzz wire …`.
///
/// # Errors
/// The arguments make no sense, or something was found.
pub fn wire(words: &[&str]) -> Result<()> {
    chore(&Target::WIRE, words)
}

/// `cargo xtask fuzz protocol …`.
///
/// # Errors
/// The arguments make no sense, or something was found.
pub fn protocol(words: &[&str]) -> Result<()> {
    chore(&Target::PROTOCOL, words)
}

fn chore(targets: &[Target], words: &[&str]) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        LAST.with(|last| *last.borrow_mut() = panic.to_string().replace('\n', " "));
    }));
    if let ["--replay", file] = words {
        return replay(file.as_ref());
    }
    search(&Options::read(targets, words)?)
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What is wrong with a case.
fn play(target: Target, case: &[u8]) -> Option<String> {
    let before = processor();
    let played = catch_unwind(AssertUnwindSafe(|| target.read(case)));
    let took = processor().saturating_sub(before);
    match played {
        Err(_) => Some(LAST.with(RefCell::take)),
        Ok(()) if took > LONGEST => Some(format!("took {:.1} s", took.as_secs_f64())),
        Ok(()) => None,
    }
}

fn replay(file: &Path) -> Result<()> {
    let case = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let target = name.split('-').next().and_then(Target::named);
    let target = target.ok_or_else(|| anyhow!("the name of a case begins with its target"))?;
    match play(target, &case) {
        Some(what) => bail!("{}: {what}", target.name()),
        None => {
            output::data(format_args!("{} reads it without a fault", target.name()));
            Ok(())
        }
    }
}

enum News {
    Found { file: PathBuf, what: String },
    Played(u64),
}

type Current = Arc<Mutex<(u64, Target, Vec<u8>)>>;

fn search(options: &Options) -> Result<()> {
    let watch = Stopwatch::start();
    let first = options.targets.first().context("there is nothing to search")?;
    let current: Current = Arc::new(Mutex::new((0, *first, Vec::new())));
    let (sender, news) = channel();
    let worker = {
        let (current, options) = (Arc::clone(&current), options.clone());
        std::thread::spawn(move || work(&current, &sender, &options))
    };
    let (found, played) = observe(&news, &current, watch)?;
    worker.join().map_err(|_| anyhow!("the search itself failed: {:?}", found))??;
    output::data(format_args!(
        "{played} cases for {} readers in {:.0} s, seed {}: {} found",
        options.targets.len(),
        watch.elapsed().as_secs_f64(),
        options.seed,
        match found.len() {
            0 => "nothing".to_owned(),
            count => count.to_string(),
        }
    ));
    if found.is_empty() { Ok(()) } else { bail!("{}", found.join("\n")) }
}

/// Until the worker ends, or hangs.
fn observe(
    news: &Receiver<News>,
    current: &Current,
    watch: Stopwatch,
) -> Result<(Vec<String>, u64)> {
    let (mut found, mut played) = (Vec::new(), 0);
    let (mut number, mut since) = (0, watch.elapsed());
    loop {
        match news.recv_timeout(Duration::from_secs(1)) {
            Ok(News::Found { file, what }) => found.push(told(&file, &what)),
            Ok(News::Played(count)) => {
                played = count;
                output::progress(format_args!("{played} cases, {} found", found.len()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok((found, played)),
        }
        let now = current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 != number {
            (number, since) = (now.0, watch.elapsed());
        } else if watch.elapsed().saturating_sub(since) > FOR_EVER {
            let file = save(now.1, &now.2)?;
            bail!("{}", told(&file, "does not end"));
        }
    }
}

fn told(file: &Path, what: &str) -> String {
    // Either chore knows every reader.
    format!("{what}\n    cargo xtask fuzz wire --replay {}", file.display())
}

fn work(current: &Current, news: &Sender<News>, options: &Options) -> Result<()> {
    let watch = Stopwatch::start();
    let mut chance = Chance::new(options.seed);
    let mut known = BTreeSet::new();
    let all: Result<Vec<_>> =
        options.targets.iter().map(|target| Ok((*target, seeds::of(*target)?))).collect();
    let all = all?;
    let mut played = 0;
    while watch.elapsed() < options.limit && known.len() < ENOUGH {
        for (target, seeds) in &all {
            let mut case = chance.pick(seeds).clone();
            // The seeds themselves come first, in so far as chance has it.
            if played > 1_000 {
                let other = chance.pick(seeds);
                mutate(&mut chance, &mut case, other);
            }
            played += 1;
            *current.lock().unwrap_or_else(PoisonError::into_inner) =
                (played, *target, case.clone());
            if let Some(what) = play(*target, &case)
                && known.insert(place(*target, &what))
            {
                let case = reduce(*target, case, &what);
                news.send(News::Found { file: save(*target, &case)?, what })?;
            }
        }
        if played % 1_000 < options.targets.len() as u64 {
            news.send(News::Played(played))?;
        }
    }
    news.send(News::Played(played))?;
    Ok(())
}

/// What makes two findings the same: the target, and where it failed.
fn place(target: Target, what: &str) -> String {
    let place = what.split(": ").next().unwrap_or_default();
    let place = if what.starts_with("took") { "took" } else { place };
    format!("{} {place}", target.name())
}

/// Takes away what the finding does not need.
fn reduce(target: Target, mut case: Vec<u8>, what: &str) -> Vec<u8> {
    let same = |case: &[u8]| {
        play(target, case).is_some_and(|other| place(target, &other) == place(target, what))
    };
    let mut size = case.len().next_power_of_two();
    while size > 0 {
        let mut at = 0;
        while at < case.len() {
            let mut shorter = case.clone();
            shorter.drain(at..(at + size).min(case.len()));
            if same(&shorter) {
                case = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    case
}

fn save(target: Target, case: &[u8]) -> Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let dir = crate::target().join("fuzz");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let mut hasher = DefaultHasher::new();
    case.hash(&mut hasher);
    let file = dir.join(format!("{}-{:016x}", target.name(), hasher.finish()));
    std::fs::write(&file, case).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
