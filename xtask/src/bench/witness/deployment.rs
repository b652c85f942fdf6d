//! The witness that is measured: an authority, certificates for everybody, its configuration, and
//! the process itself.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio_rustls::rustls::ClientConfig;
use trust::{Authority, Credentials, Expected, Key, Place, Role, Subject};

use super::options::Profile;
use crate::bench::process::{self, As, Interrupt, Running};
use crate::clock::Stopwatch;
use crate::run;

pub const DEPLOYMENT: &str = "bench";
/// Its name is above those of all hosts: so they dial, and it accepts.
pub const WITNESS: &str = "witness";
const DAY: Duration = Duration::from_hours(24);
const START: Duration = Duration::from_secs(60);
const FLUSHES: usize = 200;
const SECTOR: usize = 512;

pub fn host_name(host: usize) -> String {
    format!("be{host:05}")
}

pub fn pool_name(session: usize) -> String {
    format!("pool{session:05}")
}

#[derive(Debug)]
pub struct Deployment {
    dir: PathBuf,
    authority: Authority,
    pub port: u16,
    hosts: usize,
}

impl Deployment {
    /// Makes everything that the witness of so many sessions needs; `each` of them have the same
    /// two hosts.
    pub fn make(dir: &Path, sessions: usize, each: usize, profile: Profile) -> Result<Deployment> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let key = Key::generate()?;
        let pem = Authority::create(DEPLOYMENT, &key, agent::clock::wall())?;
        let authority = Authority::load(key, &pem)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
        let port = listener.local_addr()?.port();
        let hosts = sessions.div_ceil(each) * 2;
        let deployment = Deployment { dir: dir.to_owned(), authority, port, hosts };
        deployment.certify(&deployment.state_dir().join("trust"), Role::Witness, WITNESS)?;
        deployment.configure(sessions, each, profile)?;
        Ok(deployment)
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn certify(&self, dir: &Path, role: Role, name: &str) -> Result<Credentials> {
        let key = Key::generate()?;
        let subject = Subject { role, name: name.to_owned(), hosts: Vec::new() };
        let request = key.request(name)?;
        let certificate = self.authority.issue(&subject, &request, agent::clock::wall(), DAY)?;
        let place = Place::new(dir);
        place.install(&key, &certificate, self.authority.der())?;
        Ok(place.load()?)
    }

    /// How `host` dials the witness.
    pub fn dialling(&self, host: usize) -> Result<Arc<ClientConfig>> {
        let name = host_name(host);
        let credentials = self.certify(&self.dir.join("hosts").join(&name), Role::Server, &name)?;
        let expected = Expected { name: Some(WITNESS.to_owned()), roles: &[Role::Witness] };
        Ok(credentials.client(expected)?)
    }

    fn configure(&self, sessions: usize, each: usize, profile: Profile) -> Result<()> {
        let mut text = format!(
            "name = \"{WITNESS}\"\ndeployment = \"{DEPLOYMENT}\"\nlisten = \"127.0.0.1:{}\"\n\
             state_dir = {:?}\n",
            self.port,
            self.state_dir()
        );
        for session in 0..sessions {
            let hosts = hosts_of(session, each);
            writeln!(text, "\n[[pool]]\nname = \"{}\"", pool_name(session))?;
            writeln!(text, "profile = \"{}\"", profile.name)?;
            for (partner, host) in ["first", "second"].into_iter().zip(hosts) {
                // Never dialled: the name is as good as any.
                let name = host_name(host);
                writeln!(text, "{partner} = {{ name = \"{name}\", host = \"{name}.invalid\" }}")?;
            }
        }
        let file = self.dir.join("witness.toml");
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Starts the witness; gives the time until it listened.
    pub fn start(&self, binary: &Path, interrupt: &Interrupt) -> Result<(Running, Duration)> {
        let files = process::files_for(u32::try_from(self.hosts)?)?;
        let mut command = process::bound(binary, As::Ourselves, files.as_deref());
        command.args(["witness", "--config"]).arg(self.dir.join("witness.toml"));
        let watch = Stopwatch::start();
        let mut running = Running::start(WITNESS, &mut command, &self.log())?;
        let listens = interrupt.wait(START, || {
            running.expect_alive().with_context(|| process::tail(&self.log()))?;
            process::listens(self.port)
        })?;
        if !listens {
            bail!("the witness does not listen; {}", process::tail(&self.log()));
        }
        Ok((running, watch.elapsed()))
    }

    /// The bytes of the ledger's file.
    pub fn ledger_bytes(&self) -> Result<u64> {
        let file = self.state_dir().join("ledger");
        let found = std::fs::metadata(&file);
        Ok(found.with_context(|| format!("look at {}", file.display()))?.len())
    }

    /// The times that this machine's disk takes to make a sector durable.
    pub fn flushes(&self) -> Result<Vec<Duration>> {
        let path = self.dir.join("flushed");
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&vec![0; FLUSHES * SECTOR])?;
        file.sync_all()?;
        let mut times = Vec::new();
        for number in 0..FLUSHES {
            let watch = Stopwatch::start();
            file.write_all_at(&[1; SECTOR], (number * SECTOR) as u64)?;
            file.sync_data()?;
            times.push(watch.elapsed());
        }
        Ok(times)
    }
}

/// The hosts of the first and of the second partner. Principals are on both hosts of a pair.
pub fn hosts_of(session: usize, each: usize) -> [usize; 2] {
    let pair = session / each;
    let first = session % 2;
    [pair * 2 + first, pair * 2 + (1 - first)]
}

/// This process may have so many connections.
pub fn allow_connections(count: usize) -> Result<()> {
    let Some(files) = process::files_for(u32::try_from(count)?)? else { return Ok(()) };
    let pid = std::process::id().to_string();
    let nofile = format!("--nofile={files}");
    run::read(Command::new("prlimit").args(["--pid", &pid, &nofile])).map(drop)
}
