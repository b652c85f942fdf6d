//! Makes sure that the real clients of the tests are on this machine: languages and libraries.
//!
//! They come from the system's own packages, so that one question installs all of them and nothing
//! of this repository has to be updated when they are. What is missing is named; on a terminal a
//! person is asked, elsewhere it is installed when that takes no password, and otherwise the exact
//! commands are printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{output, postgres, run};

/// A language with its library, as the tests use it.
struct Client {
    what: &'static str,
    /// Debian's and Ubuntu's.
    packages: &'static str,
    is_here: fn() -> bool,
}

const CLIENTS: [Client; 5] = [
    Client {
        what: "Python with psycopg 3 and asyncpg",
        packages: "python3-psycopg python3-asyncpg",
        is_here: python_is_here,
    },
    Client {
        what: "Node.js with node-postgres",
        packages: "nodejs node-pg",
        is_here: node_is_here,
    },
    Client {
        what: "a JDK with PostgreSQL's JDBC driver in /usr/share/java",
        packages: "default-jdk-headless libpostgresql-jdbc-java",
        is_here: java_is_here,
    },
    Client {
        what: "libpq's headers, and pg_config",
        packages: "libpq-dev",
        is_here: libpq_is_here,
    },
    Client {
        what: "Go with pgx v4 in /usr/share/gocode",
        packages: "golang-go golang-github-jackc-pgx-v4-dev",
        is_here: go_is_here,
    },
];

const JAVASCRIPT: &str = "crates/cli/tests/clients/javascript";

/// Whether a command takes root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    Root,
    Nothing,
}

/// A command that installs something.
#[derive(Clone, Debug)]
pub struct Step {
    line: String,
    needs: Needs,
}

impl Step {
    pub fn new(line: impl Into<String>, needs: Needs) -> Step {
        Step { line: line.into(), needs }
    }

    fn shown(&self) -> String {
        match self.needs {
            Needs::Root if !postgres::is_root() => format!("sudo {}", self.line),
            Needs::Root | Needs::Nothing => self.line.clone(),
        }
    }
}

/// All that the tests need: PostgreSQL and the clients.
pub fn tests() -> Result<()> {
    postgres::prepare()?;
    let missing = missing();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|client| client.what).collect();
        output::say(format_args!("The tests use real clients. Missing: {}.", names.join("; ")));
        install("the clients of the tests", &steps(&missing)?)?;
    }
    let missing = self::missing();
    if let Some(client) = missing.first() {
        bail!("{} was installed ({}), but cannot be used", client.what, client.packages);
    }
    let names: Vec<&str> = CLIENTS.iter().map(|client| client.what).collect();
    output::say(format_args!("real clients: {}", names.join("; ")));
    Ok(())
}

fn missing() -> Vec<&'static Client> {
    CLIENTS.iter().filter(|client| !(client.is_here)()).collect()
}

fn steps(missing: &[&Client]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    // Debian's node-pg does not go with a Node.js from elsewhere; that one brings npm.
    let by_npm = |client: &Client| client.packages.contains("node-pg") && exists("npm");
    if missing.iter().any(|client| by_npm(client)) {
        let line = format!("npm ci --ignore-scripts --no-audit --no-fund --prefix {JAVASCRIPT}");
        steps.push(Step::new(line, Needs::Nothing));
    }
    let others = missing.iter().filter(|client| !by_npm(client));
    let packages: Vec<&str> = others.clone().map(|client| client.packages).collect();
    if packages.is_empty() {
        return Ok(steps);
    }
    if !exists("apt-get") {
        let names: Vec<String> = others.map(|client| format!("  - {}", client.what)).collect();
        bail!(
            "these can be installed by this program on Debian and Ubuntu only; \
             please install them yourself:\n{}",
            names.join("\n")
        );
    }
    let packages = packages.join(" ");
    steps.push(Step::new("apt-get update", Needs::Root));
    let line = format!("apt-get install -y --no-install-recommends {packages}");
    steps.push(Step::new(line, Needs::Root));
    Ok(steps)
}

/// Runs the steps, if a person allows it or nobody has to.
pub fn install(what: &str, steps: &[Step]) -> Result<()> {
    let shown = steps.iter().map(Step::shown).collect::<Vec<String>>().join(" && ");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let allowed = if terminal {
        output::confirm(&format!("Install it now?  ({shown})"))
    } else {
        steps.iter().all(|step| step.shown() == step.line) || sudo_asks_nothing()
    };
    if !allowed {
        bail!("{what} is needed; install it with:\n\n    {shown}\n");
    }
    for step in steps {
        let line = step.shown();
        output::say(format_args!("+ {line}"));
        let mut words = line.split_whitespace();
        let mut child = Command::new(words.next().unwrap_or("false"));
        child.args(words).env("DEBIAN_FRONTEND", "noninteractive").current_dir(crate::root());
        // The package manager talks much; on a terminal a person may want to see it move.
        if !terminal {
            child.stdout(Stdio::null());
        }
        run::pass(&mut child).with_context(|| format!("install {what} with:\n    {shown}"))?;
    }
    Ok(())
}

pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn sudo_asks_nothing() -> bool {
    succeeds(Command::new("sudo").args(["-n", "true"]))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The distribution's own, as in the tests: its libraries are not another Python's.
fn python_is_here() -> bool {
    let own = Path::new("/usr/bin/python3");
    let python = if own.exists() { own } else { Path::new("python3") };
    succeeds(Command::new(python).args(["-c", "import psycopg, asyncpg"]))
}

fn node_is_here() -> bool {
    let mut node = Command::new("node");
    node.args(["-e", "require('pg')"]).env("NODE_PATH", "/usr/share/nodejs");
    succeeds(node.current_dir(crate::root().join(JAVASCRIPT)))
}

fn java_is_here() -> bool {
    Path::new("/usr/share/java/postgresql.jar").exists() && exists("java") && exists("javac")
}

fn libpq_is_here() -> bool {
    let place = run::read(Command::new("pg_config").arg("--includedir")).unwrap_or_default();
    PathBuf::from(place.trim()).join("libpq-fe.h").exists()
}

fn go_is_here() -> bool {
    exists("go") && Path::new("/usr/share/gocode/src/github.com/jackc/pgx/v4").exists()
}
