//! The programs of `tests/clients`, run side by side, and what each of their clients told so far.
//!
//! A program's working directory is that of the test, so that it ends with the test's demo at the
//! latest. What it says apart from events goes to a file, and into the text of a failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than the gateway holds a statement.
const PATIENCE: Duration = Duration::from_secs(75);
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// What one client, that is one connection, told.
#[derive(Clone, Default, Debug)]
pub struct Client {
    pub acknowledged: Vec<i64>,
    pub failed: Vec<Failure>,
    pub lost: Option<String>,
    pub ended: Option<Value>,
}

/// Rows that were written as one, and were refused.
#[derive(Clone, Debug)]
pub struct Failure {
    pub numbers: Vec<i64>,
    pub sqlstate: String,
    pub text: String,
}

#[derive(Default, Debug)]
pub struct Told {
    clients: Mutex<BTreeMap<String, Client>>,
    more: Condvar,
}

impl Told {
    pub fn take(&self, event: &Value) {
        let numbers =
            |of: &Value| of.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let mut clients = self.clients.lock().unwrap();
        let client = clients.entry(text(&event["client"])).or_default();
        if event["acknowledged"].is_array() {
            let mut numbers: Vec<i64> = numbers(&event["acknowledged"]);
            client.acknowledged.append(&mut numbers);
        } else if event["failed"].is_array() {
            client.failed.push(Failure {
                numbers: numbers(&event["failed"]),
                sqlstate: text(&event["sqlstate"]),
                text: text(&event["text"]),
            });
        } else if event["lost"].is_array() {
            client.lost = Some(text(&event["text"]));
        } else {
            client.ended = Some(event["ended"].clone());
        }
        self.more.notify_all();
    }

    pub fn now(&self) -> BTreeMap<String, Client> {
        self.clients.lock().unwrap().clone()
    }

    /// Waits until `good` holds of every client in `names`; the names of the others otherwise.
    fn wait(
        &self,
        names: &[&str],
        good: impl Fn(&str, &Client) -> bool,
    ) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut clients = self.clients.lock().unwrap();
        loop {
            let is_good = |name: &str| clients.get(name).is_some_and(|client| good(name, client));
            let missing: Vec<String> =
                names.iter().filter(|name| !is_good(name)).map(|name| (*name).to_owned()).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if missing.is_empty() || left.is_zero() {
                return if missing.is_empty() { Ok(()) } else { Err(missing) };
            }
            clients = self.wait_for_more(clients, left);
        }
    }

    fn wait_for_more<'a>(
        &self,
        clients: MutexGuard<'a, BTreeMap<String, Client>>,
        left: Duration,
    ) -> MutexGuard<'a, BTreeMap<String, Client>> {
        self.more.wait_timeout(clients, left).unwrap().0
    }
}

/// A program at work, in a directory of a test.
struct Program {
    child: Child,
    reader: Option<JoinHandle<()>>,
    said: PathBuf,
}

/// All programs, and the Rust clients of this process.
pub struct Programs {
    pub told: Arc<Told>,
    names: Vec<&'static str>,
    programs: Vec<Program>,
    rust: Option<crate::clients_rust::Clients>,
}

impl Programs {
    /// `names`: of all the clients that must take part.
    pub fn start(
        commands: Vec<Command>,
        uri: &str,
        dir: &Path,
        names: &[&'static str],
    ) -> Programs {
        let told = Arc::new(Told::default());
        let programs = commands
            .into_iter()
            .enumerate()
            .map(|(at, command)| Program::start(command, uri, dir, at, &told))
            .collect();
        let rust = crate::clients_rust::Clients::start(uri, Arc::clone(&told));
        Programs { told, names: names.to_vec(), programs, rust: Some(rust) }
    }

    /// Waits until every client has some more rows acknowledged.
    #[track_caller]
    pub fn go_on(&self, when: &str) {
        let before = self.told.now();
        let count = |name: &str| before.get(name).map_or(0, |client| client.acknowledged.len());
        let waited = self
            .told
            .wait(&self.names, |name, client| client.acknowledged.len() >= count(name) + 10);
        if let Err(missing) = waited {
            panic!("{when}: these do not go on: {missing:?}\n{}", self.explain(&missing));
        }
    }

    /// Closes their standard input; waits until each has looked at what its connection knows.
    /// Gives what they told, and what they said besides.
    #[track_caller]
    pub fn finish(mut self) -> (BTreeMap<String, Client>, String) {
        for program in &mut self.programs {
            drop(program.child.stdin.take());
        }
        if let Some(rust) = self.rust.take() {
            rust.finish();
        }
        let over = |_: &str, client: &Client| client.ended.is_some() || client.lost.is_some();
        if let Err(missing) = self.told.wait(&self.names, over) {
            panic!("these do not end: {missing:?}\n{}", self.explain(&missing));
        }
        for program in &mut self.programs {
            let status = program.child.wait().unwrap();
            program.reader.take().unwrap().join().unwrap();
            assert!(status.success(), "{status}: {}", program.words());
        }
        (self.told.now(), self.programs.iter().map(Program::words).collect())
    }

    fn explain(&self, names: &[String]) -> String {
        let told = self.told.now();
        let mut text = String::new();
        let one = |failure: &Failure| format!("{failure:?}");
        for name in names {
            let client = told.get(name).cloned().unwrap_or_default();
            let Client { acknowledged, failed, lost, .. } = client;
            let count = acknowledged.len();
            let first = failed.first().map(one);
            let last = (failed.len() > 1).then(|| failed.last().map(one));
            text.push_str(&format!(
                "{name}: {count} rows, lost {lost:?}, {} failures, from {first:?} to {last:?}\n",
                failed.len()
            ));
        }
        for program in &self.programs {
            text.push_str(&program.words());
        }
        text
    }
}

impl Program {
    fn start(mut command: Command, uri: &str, dir: &Path, at: usize, told: &Arc<Told>) -> Program {
        let said = dir.join(format!("program-{at}.said"));
        let mut child = command
            .arg(uri)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask prepare tests"));
        let (lines, told) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(told));
        let reader = std::thread::spawn(move || {
            for line in lines.lines() {
                told.take(&serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        Program { child, reader: Some(reader), said }
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of `tests/clients`.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The distribution's Python, which has the distribution's libraries; another one otherwise.
pub fn python() -> Command {
    let own = Path::new("/usr/bin/python3");
    Command::new(if own.exists() { own } else { Path::new("python3") })
}

/// Builds what must be built, in `dir`, and says how each program is run.
pub fn commands(dir: &Path) -> Vec<Command> {
    let mut psycopg = python();
    psycopg.arg(source("python/with_psycopg.py"));
    let mut asyncpg = python();
    asyncpg.arg(source("python/with_asyncpg.py"));
    let mut node = Command::new("node");
    node.arg(source("javascript/writer.js")).env("NODE_PATH", "/usr/share/nodejs");
    let mut java = Command::new("java");
    java.args(["-cp", JDBC]).arg(source("java/Writer.java"));
    vec![psycopg, asyncpg, node, java, Command::new(c(dir)), Command::new(go(dir))]
}

fn c(dir: &Path) -> PathBuf {
    let program = dir.join("writer-c");
    let places = Command::new("pg_config").args(["--includedir", "--libdir"]).output().unwrap();
    let places = String::from_utf8(places.stdout).unwrap();
    let (include, lib) = places.trim().split_once('\n').unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", &format!("-I{include}"), &format!("-L{lib}"), "-o"]);
    build(cc.arg(&program).arg(source("c/writer.c")).arg("-lpq"));
    program
}

/// With the libraries of the distribution, which need no network.
fn go(dir: &Path) -> PathBuf {
    let program = dir.join("writer-go");
    let mut go = Command::new("go");
    go.env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
    build(go.arg("build").arg("-o").arg(&program).arg(source("go/writer.go")));
    program
}

fn build(command: &mut Command) {
    let told = command.output();
    let told =
        told.unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask prepare tests"));
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
