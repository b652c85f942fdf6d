//! A test that hangs ends its whole run, with its name and without leaving servers behind.
//!
//! Every wait of a test has a deadline of its own, much shorter; this one is for the waits that
//! nobody thought of, such as a statement that waits for a mirror, or the end of a runtime. A
//! test is watched from its first fixture until its thread is gone.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Several times what the slowest test takes beside all others, on a machine with other work too.
const LONGEST: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Test {
    thread: ThreadId,
    name: String,
    begun: Instant,
    /// What the test's processes work in.
    dirs: Vec<PathBuf>,
}

static TESTS: Mutex<Vec<Test>> = Mutex::new(Vec::new());

fn tests() -> MutexGuard<'static, Vec<Test>> {
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the watch over a test when its thread ends, which is after its runtime has.
struct Watched(ThreadId);

impl Drop for Watched {
    fn drop(&mut self) {
        tests().retain(|test| test.thread != self.0);
    }
}

thread_local! {
    static WATCHED: Watched = begin();
}

fn begin() -> Watched {
    static WATCHER: Once = Once::new();
    WATCHER.call_once(|| drop(thread::spawn(watch_all)));
    let thread = thread::current();
    let name = thread.name().unwrap_or("a test without a name").to_owned();
    tests().push(Test { thread: thread.id(), name, begun: Instant::now(), dirs: Vec::new() });
    Watched(thread.id())
}

/// Every fixture calls this with the directory that its processes will work in.
pub fn watch(dir: &Path) {
    WATCHED.with(|watched| {
        let mut tests = tests();
        let test = tests.iter_mut().find(|test| test.thread == watched.0);
        test.unwrap().dirs.push(dir.to_owned());
    });
}

fn watch_all() {
    loop {
        thread::park_timeout(LOOK_EVERY);
        let late = tests()
            .iter()
            .find(|test| test.begun.elapsed() > LONGEST)
            .map(|test| format!("\n{} hangs: it runs for {:?}\n", test.name, test.begun.elapsed()));
        let Some(late) = late else { continue };
        // Not by a macro: their output would be kept with that of the test which began this.
        let _ = std::io::stderr().write_all(late.as_bytes());
        for pid in tests().iter().flat_map(|test| &test.dirs).flat_map(|dir| processes_of(dir)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::process::exit(101);
    }
}

/// Every process that was started with a path below `dir`, or works there; not this one.
pub fn processes_of(dir: &Path) -> Vec<Pid> {
    let text = dir.to_str().unwrap();
    let listed = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let works_in = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(text) || works_in.starts_with(dir)
    })
    .filter_map(Pid::from_raw)
    .filter(|pid| *pid != rustix::process::getpid())
    .collect()
}
