//! What can be seen of a server that does not take connections (yet).
//!
//! PostgreSQL writes into its lock file when it takes connections: asking would cost it a process
//! each time. A standby whose transactions at the time of the crash had too many subtransactions
//! never takes any: it is known by a startup process that has nothing left to do.

use std::fs;
use std::time::Duration;

use session::{Lsn, Position};
use tokio::time::Instant;

use super::control::Control;
use super::error::Error;
use super::instance::Instance;
use super::replication::parse_lsn;
use super::timelines;

/// How long the startup process must have had nothing to do.
const STILL: Duration = Duration::from_secs(1);
/// What it uses up in that time while it only looks for new WAL; in ticks of 10 ms.
const IDLE_TICKS: u64 = 4;
/// Looking at processes has a cost of its own.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether the lock file of the server with this process id says that it takes connections.
pub fn takes_connections(instance: &Instance, pid: u32) -> bool {
    let text = fs::read_to_string(instance.data_dir.join("postmaster.pid"));
    let text = text.unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
}

/// Watches whether the startup process has come to the end of the WAL.
#[derive(Debug)]
pub struct Stillness {
    postmaster: u32,
    looked: Instant,
    /// Since when nothing has moved, and what the process had used up by then.
    since: Option<(Instant, Work)>,
}

/// What a process was doing, and how much processor time it has had.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    title: String,
    ticks: u64,
}

impl Stillness {
    pub fn of(postmaster: u32) -> Stillness {
        Stillness { postmaster, looked: Instant::now(), since: None }
    }

    /// Whether it has had nothing to do for a while.
    pub fn is_still(&mut self) -> bool {
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        let Some(now) = startup_process(self.postmaster) else {
            self.since = None;
            return false;
        };
        match &self.since {
            Some((since, then))
                if then.title == now.title && now.ticks <= then.ticks + IDLE_TICKS =>
            {
                since.elapsed() >= STILL
            }
            Some(_) | None => {
                self.since = Some((Instant::now(), now));
                false
            }
        }
    }
}

/// The postmaster's startup process; `None` if it has none, or if that works right now.
fn startup_process(postmaster: u32) -> Option<Work> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
    children.ok()?.split_whitespace().find_map(|pid| {
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        if !title.contains("startup") {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name: state, then ten numbers, then the ticks in user and kernel mode.
        let mut words = stat.rsplit_once(')')?.1.split_whitespace();
        let state = words.next()?;
        let mut ticks = words.skip(10).map_while(|word| word.parse::<u64>().ok());
        let ticks = ticks.next()? + ticks.next()?;
        (state == "S").then(|| Work { title: title.trim_end_matches('\0').to_owned(), ticks })
    })
}

/// Where the WAL of a copy ends that cannot be asked, by PostgreSQL's own reading of it.
pub fn end_of_wal(instance: &Instance) -> Result<Position, Error> {
    let control = Control::read(instance)?;
    let timeline = control.timeline();
    let start = if control.checkpoint.timeline == timeline {
        control.checkpoint.lsn
    } else {
        timelines::fork_of(instance, timeline)?.lsn
    };
    let program = instance.program("pg_waldump");
    let out = instance
        .os_user
        .command(&program)
        .arg("--quiet")
        .arg(format!("--path={}", instance.wal_dir().display()))
        .arg(format!("--timeline={}", timeline.0))
        .arg(format!("--start={start}"))
        .current_dir("/")
        .output()
        .map_err(Error::io("run", &program))?;
    let end = invalid_record(&String::from_utf8_lossy(&out.stderr)).unwrap_or(start);
    Ok(Position { timeline, lsn: end.max(control.min_recovery.lsn) })
}

/// The position of the first record that is none, from what `pg_waldump` complains of last.
fn invalid_record(complaint: &str) -> Option<Lsn> {
    let words = complaint.split_whitespace().rev();
    words.map(|word| word.trim_matches([':', ',', ';'])).find_map(parse_lsn)
}

/// Refuses a port that another program listens on.
pub fn check_port(instance: &Instance) -> Result<(), Error> {
    for host in instance.listen.split(',').map(str::trim) {
        let host = match host {
            "*" => "0.0.0.0",
            "localhost" => "127.0.0.1",
            host => host,
        };
        let Err(error) = std::net::TcpListener::bind((host, instance.port)) else { continue };
        let port = instance.port;
        return Err(match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::refused(
                format!("port {port} on {host} is in use by another program"),
                format!("stop it (ss -ltnp 'sport = :{port}' names it), or set another port"),
            ),
            _ => Error::refused(
                format!("PostgreSQL cannot listen on {host}:{port}: {error}"),
                "set listen to an address of this machine",
            ),
        });
    }
    Ok(())
}

/// Where the lines of a server that is about to run, or of an adopted one from now on, begin.
pub fn log_length(instance: &Instance) -> u64 {
    fs::metadata(instance.log_file()).map_or(0, |meta| meta.len())
}

/// The last telling lines that PostgreSQL wrote since `begin`; all, if the log was emptied since.
pub fn log_since(instance: &Instance, begin: u64) -> String {
    const LINES: usize = 4;
    let text = fs::read(instance.log_file()).unwrap_or_default();
    let new = text.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or(&text);
    let new = String::from_utf8_lossy(new);
    let lines: Vec<&str> = new.lines().filter_map(telling).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// Whether these lines say that the data themselves are broken, so that only a fresh copy helps. A
/// start fails for many other reasons (a setting, a module, room, rights): the data are good then.
pub fn shows_damage(log: &str) -> bool {
    const SURROUNDINGS: [&str; 6] = [
        "No space left on device",
        "Disk quota exceeded",
        "Permission denied",
        "Read-only file system",
        "Too many open files",
        "Cannot allocate memory",
    ];
    const DAMAGE: [&str; 14] = [
        "PANIC:",
        "could not locate a valid checkpoint record",
        "could not locate required checkpoint record",
        "could not find redo location",
        "invalid checkpoint record",
        "is not a child of this server's history",
        "does not contain minimum recovery point",
        "WAL ends before",
        "contains incorrect checksum",
        "contains invalid data",
        "invalid data in file",
        "invalid page in block",
        "could not access status of transaction",
        "is not a valid data directory",
    ];
    // Files of the data are named from the data directory on; a module or a certificate is not.
    let missing = ["base/", "global/", "pg_xact/", "pg_multixact/"]
        .iter()
        .any(|dir| log.contains(&format!("could not open file \"{dir}")))
        && log.contains("No such file or directory");
    !SURROUNDINGS.iter().any(|reason| log.contains(reason))
        && (missing || DAMAGE.iter().any(|words| log.contains(words)))
}

/// What a line says, without time and process, so that the same reason reads the same each time.
fn telling(line: &str) -> Option<&str> {
    let levels = ["FATAL:", "PANIC:", "ERROR:", "HINT:", "DETAIL:"];
    // Only tells somebody else that it starts or stops.
    if line.contains("the database system is ") {
        return None;
    }
    let begin = levels.iter().filter_map(|level| line.find(level)).min()?;
    line.get(begin..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_broken_data_are_damage() {
        for damage in [
            "PANIC:  could not locate a valid checkpoint record",
            "FATAL:  requested timeline 3 is not a child of this server's history",
            "FATAL:  could not open file \"global/pg_filenode.map\": No such file or directory",
        ] {
            assert!(shows_damage(damage), "{damage}");
        }
        for other in [
            "",
            "FATAL:  could not access file \"no_module\": No such file or directory",
            "FATAL:  could not load server certificate file \"a.crt\": No such file or directory",
            "PANIC:  could not write to file \"pg_wal/xlogtemp.9\": No space left on device",
            "FATAL:  configuration file \"/files/postgresql.conf\" contains errors",
            "FATAL:  recovery aborted because of insufficient parameter settings",
        ] {
            assert!(!shows_damage(other), "{other}");
        }
    }

    #[test]
    fn the_same_reason_reads_the_same_each_time() {
        let line = "2026-11-22 23:43:40.822 UTC [27096] FATAL:  could not write lock file";
        assert_eq!(telling(line), Some("FATAL:  could not write lock file"));
        assert_eq!(telling("2026-11-22 23:43:40.822 UTC [27096] LOG:  starting"), None);
    }

    #[test]
    fn the_end_of_wal_is_found_in_the_complaint() {
        let complaint = "pg_waldump: error: error in WAL record at 0/1753928: \
                         invalid record length at 0/17539A0: wanted 24, got 0\n";
        assert_eq!(invalid_record(complaint), Some(Lsn(0x0175_39A0)));
        assert_eq!(invalid_record(""), None);
    }
}
