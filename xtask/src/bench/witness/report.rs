//! The figures, as a table for people, as JSON, and against the goals.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::options::Options;
use crate::output;

/// What a witness may take of one core.
const SHARE: f64 = 0.5;
const MEMORY: u64 = 200_000_000;
/// From the request for a vote to the answer.
const VOTE: Duration = Duration::from_millis(20);

/// What was seen in a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Calm {
    pub seconds: f64,
    /// Of one core, of the witness and of the simulator.
    pub share: f64,
    pub own_share: f64,
    /// Of a second, to the witness and from it.
    pub messages: [f64; 2],
    pub frames: [f64; 2],
    pub bytes: [f64; 2],
    pub disturbances: u64,
    pub memory: u64,
}

/// In order.
#[derive(Clone, Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// The least one that so many hundredths are not above.
    fn percentile(&self, hundredths: usize) -> Duration {
        let rank = (self.0.len() * hundredths).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    fn cell(&self) -> String {
        let ms = |hundredths| self.percentile(hundredths).as_secs_f64() * 1_000.0;
        format!("{:.1}, {:.1}, {:.1} ms", ms(50), ms(99), ms(100))
    }

    fn json(&self) -> Value {
        let us = |hundredths| self.percentile(hundredths).as_micros() as u64;
        json!({ "count": self.0.len(), "median_us": us(50), "p99_us": us(99), "worst_us": us(100) })
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    pub sessions: usize,
    pub each: usize,
    pub hosts: usize,
    pub listening: Duration,
    pub ready: Duration,
    pub calm: Calm,
    /// While sessions failed over.
    pub busy: Calm,
    pub votes: Times,
    pub of_host: Times,
    pub flushes: Times,
    pub peak: u64,
    pub ledger: u64,
    pub listening_again: Duration,
    pub back: Duration,
    pub memory_again: u64,
}

impl Row {
    pub fn line(&self) -> String {
        format!(
            "{:.1} % of a core (simulator {:.0} %), {:.1} MB, vote {}",
            self.calm.share * 100.0,
            self.calm.own_share * 100.0,
            megabytes(self.calm.memory),
            self.votes.cell()
        )
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |missed: bool, what: String| {
            if missed {
                faults.push(format!("{} sessions on {} hosts: {what}", self.sessions, self.hosts));
            }
        };
        let share = self.calm.share;
        fault(share > SHARE, format!("{:.1} % of a core", share * 100.0));
        let memory = self.peak.max(self.memory_again);
        fault(memory > MEMORY, format!("{:.1} MB", megabytes(memory)));
        let vote = self.votes.percentile(99);
        fault(vote > VOTE, format!("{:.1} ms for a vote (p99)", vote.as_secs_f64() * 1_000.0));
        fault(
            self.calm.disturbances > 0,
            format!("{} changes of roles that nobody asked for", self.calm.disturbances),
        );
        faults
    }

    fn json(&self) -> Value {
        let calm = |calm: &Calm| {
            json!({
                "seconds": calm.seconds,
                "share": calm.share,
                "simulator_share": calm.own_share,
                "messages_per_second": calm.messages,
                "frames_per_second": calm.frames,
                "bytes_per_second": calm.bytes,
                "disturbances": calm.disturbances,
                "memory": calm.memory,
            })
        };
        json!({
            "sessions": self.sessions,
            "sessions_per_pair": self.each,
            "hosts": self.hosts,
            "listening_ms": self.listening.as_millis() as u64,
            "ready_ms": self.ready.as_millis() as u64,
            "calm": calm(&self.calm),
            "elections": calm(&self.busy),
            "vote": self.votes.json(),
            "votes_of_a_host": self.of_host.json(),
            "flush": self.flushes.json(),
            "peak_memory": self.peak,
            "ledger_bytes": self.ledger,
            "restart_listening_ms": self.listening_again.as_millis() as u64,
            "restart_heard_ms": self.back.as_millis() as u64,
            "restart_memory": self.memory_again,
        })
    }
}

#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
    profile: &'static str,
    phases: &'static str,
}

impl Report {
    pub fn new(options: &Options) -> Report {
        let (profile, phases) = (options.profile.name, options.phases.name());
        Report { rows: Vec::new(), profile, phases }
    }

    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn show(&self) {
        output::data(
            "| sessions | hosts | CPU of a core | while failing over | memory, peak | messages/s \
             in, out | frames/s in, out | kB/s in, out | vote: median, p99, worst | all of a host \
             | restart: listens, heard by all, memory | simulator |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|",
        );
        for row in &self.rows {
            let two = |[to, from]: [f64; 2]| format!("{to:.0}, {from:.0}");
            let cells = [
                row.sessions.to_string(),
                row.hosts.to_string(),
                format!("{:.1} %", row.calm.share * 100.0),
                format!("{:.1} %", row.busy.share * 100.0),
                format!("{:.1}, {:.1} MB", megabytes(row.calm.memory), megabytes(row.peak)),
                two(row.calm.messages),
                two(row.calm.frames),
                two(row.calm.bytes.map(|bytes| bytes / 1_000.0)),
                row.votes.cell(),
                row.of_host.cell(),
                format!(
                    "{:.2} s, {:.1} s, {:.1} MB",
                    row.listening_again.as_secs_f64(),
                    row.back.as_secs_f64(),
                    megabytes(row.memory_again)
                ),
                format!("{:.0} %", row.calm.own_share * 100.0),
            ];
            output::data(format_args!("| {} |", cells.join(" | ")));
        }
        if let Some(row) = self.rows.last() {
            output::data(format_args!(
                "\nProfile {}, heartbeats of a host's sessions {}. Making a sector durable takes \
                 this machine {} (median, p99, worst). The ledger's file of {} sessions: {:.1} MB.",
                self.profile,
                self.phases,
                row.flushes.cell(),
                row.sessions,
                megabytes(row.ledger)
            ));
        }
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({
            "profile": self.profile,
            "phases": self.phases,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "points": rows,
        })
    }

    /// # Errors
    /// A goal was missed.
    pub fn judge(&self) -> Result<()> {
        let faults: Vec<String> = self.rows.iter().flat_map(Row::faults).collect();
        if faults.is_empty() {
            return Ok(());
        }
        bail!(
            "the witness takes more than it may ({:.0} % of a core, {:.0} MB, {} ms for a vote):\
             \n  {}",
            SHARE * 100.0,
            megabytes(MEMORY),
            VOTE.as_millis(),
            faults.join("\n  ")
        )
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Times;

    #[test]
    fn the_99th_of_a_hundred_is_the_second_worst() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(times.percentile(99), Duration::from_millis(99));
        assert_eq!(times.percentile(50), Duration::from_millis(50));
        assert_eq!(times.percentile(100), Duration::from_millis(100));
        assert_eq!(Times::of(Vec::new()).percentile(99), Duration::ZERO);
    }
}
