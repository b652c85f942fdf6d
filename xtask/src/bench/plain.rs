//! A primary and a synchronous standby, set up by hand as PostgreSQL's manual says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock::Stopwatch;
use crate::{output, postgres, run};

const USER: &str = "postgres";
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Plain {
    programs: PathBuf,
    servers: Vec<PathBuf>,
    uri: String,
}

impl Plain {
    pub fn start(programs: &Path, dir: &Path, settings: &[(String, String)]) -> Result<Plain> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        if postgres::is_root() {
            run::pass(Command::new("chown").arg(USER).arg(dir))?;
        }
        let [first, second] = super::free_ports()?;
        let uri = format!("postgresql://{USER}@127.0.0.1:{first}/{USER}");
        let mut pair = Plain { programs: programs.to_path_buf(), servers: Vec::new(), uri };
        let (primary, standby) = (dir.join("primary"), dir.join("standby"));
        let mut initdb = pair.program("initdb");
        initdb.args(["--auth=trust", "--username", USER, "--data-checksums", "--pgdata"]);
        run::read(initdb.arg(&primary))?;
        let names = ("synchronous_standby_names".to_owned(), "standby".to_owned());
        let settings: Vec<_> = settings.iter().cloned().chain([names]).collect();
        pair.run_server(&primary, first, &settings)?;
        let upstream = format!("host=127.0.0.1 port={first} user={USER} application_name=standby");
        let mut copy = pair.program("pg_basebackup");
        copy.args(["--checkpoint=fast", "--write-recovery-conf", "--dbname", &upstream]);
        run::read(copy.arg("--pgdata").arg(&standby))?;
        pair.run_server(&standby, second, &settings)?;
        pair.wait_until_synchronous()?;
        Ok(pair)
    }

    fn wait_until_synchronous(&self) -> Result<()> {
        let watch = Stopwatch::start();
        let query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        while watch.elapsed() < DEADLINE {
            let mut psql = Command::new(self.programs.join("psql"));
            let count = run::read(psql.args(["-X", "-A", "-t", "-c", query]).arg(&self.uri))?;
            if count.trim() == "1" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the plain pair did not become synchronous within {DEADLINE:?}")
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// A program of PostgreSQL, never as root.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        if !postgres::is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", USER, "--"]).arg(program).current_dir("/");
        command
    }

    fn run_server(&mut self, data: &Path, port: u16, settings: &[(String, String)]) -> Result<()> {
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n"
        );
        for (name, value) in settings {
            text += &format!("{name} = '{value}'\n");
        }
        let own = data.with_extension("conf");
        std::fs::write(&own, &text).with_context(|| format!("write {}", own.display()))?;
        let options = format!("-c config_file={} -D {}", own.display(), data.display());
        // The server keeps its output open, so it must not be ours.
        let log = data.with_extension("log");
        let mut start = self.program("pg_ctl");
        start.args(["start", "--silent", "--wait", "--options", &options]);
        start.arg("--pgdata").arg(data).arg("--log").arg(&log);
        self.servers.push(data.to_path_buf());
        run::pass(start.stdout(Stdio::null()))
            .with_context(|| format!("the server's log is {}", log.display()))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        for data in self.servers.iter().rev() {
            let mut stop = self.program("pg_ctl");
            stop.args(["stop", "--silent", "--mode=immediate", "--pgdata"]).arg(data);
            if let Err(error) = run::read(&mut stop) {
                output::failed(&error);
            }
        }
    }
}
