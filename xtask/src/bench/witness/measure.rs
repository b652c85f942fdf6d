//! The course of one measurement: start, become ready, be calm, fail over, lose a host, restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent::clock;
use anyhow::{Context as _, Result, bail};
use protocol::handshake::Introduction;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::deployment::{self, DEPLOYMENT, Deployment, hosts_of};
use super::options::{Options, Phases, Point};
use super::pair::{Ask, Pair, Plan};
use super::report::{Calm, Report, Row, Times};
use super::wire::{Traffic, Way, Wire};
use crate::bench::build;
use crate::bench::process::{self, Interrupt, Running};
use crate::clock::Stopwatch;
use crate::output;

/// Handshakes that the simulated hosts have going at one time.
const HANDSHAKES: usize = 64;
/// For all sessions to become ready.
const READY: Duration = Duration::from_secs(180);
/// Between becoming ready and the measurement.
const SETTLE: Duration = Duration::from_secs(3);
/// For a failover to end.
const DECIDED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

pub fn witness(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let binary = build(options.binary.as_deref())?;
    let interrupt = Interrupt::watch()?;
    let dir = std::env::temp_dir().join(format!("backstay-bench-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(&options);
    let mut outcome = Ok(());
    for (number, point) in options.points.iter().enumerate() {
        let own = dir.join(format!("point-{number}"));
        let run = Run { options: &options, binary: &binary, interrupt: &interrupt, point: *point };
        match runtime.block_on(run.measure(&own)) {
            Ok(row) => report.push(row),
            Err(error) => {
                outcome = Err(error.context(format!("measure {} sessions", point.sessions)));
                break;
            }
        }
    }
    let removed =
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()));
    report.show();
    if let Some(file) = &options.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    outcome.and(removed)?;
    report.judge()
}

struct Run<'a> {
    options: &'a Options,
    binary: &'a Path,
    interrupt: &'a Interrupt,
    point: Point,
}

/// The simulated hosts of all sessions.
struct Crowd {
    traffic: Arc<Traffic>,
    pairs: Vec<mpsc::Sender<Ask>>,
    tasks: JoinSet<Result<()>>,
}

impl Run<'_> {
    async fn measure(&self, dir: &Path) -> Result<Row> {
        let (sessions, each) = (self.point.sessions, self.options.each(self.point));
        let title = format!("{sessions} sessions, {each} on each pair of hosts");
        output::heading(&title, "");
        let deployment = Deployment::make(dir, sessions, each, self.options.profile)?;
        let hosts = sessions.div_ceil(each) * 2;
        deployment::allow_connections(hosts)?;
        let (mut running, listening) = deployment.start(self.binary, self.interrupt)?;
        let mut crowd = self.crowd(&deployment, hosts, each)?;
        let ready = self.wait_ready(&mut crowd, Duration::MAX).await?;
        output::say(format_args!("all serve after {:.1} s", ready.as_secs_f64()));
        self.rest(&mut crowd, SETTLE).await?;
        let length = Duration::from_secs(self.options.seconds);
        let calm = self.watch(&mut crowd, &running, length).await?;
        if calm.disturbances > 0 {
            output::say(format_args!("{} changes that nobody asked for", calm.disturbances));
        }
        let (votes, busy) = self.elections(&mut crowd, &running).await?;
        let of_host = self.lose_host(&mut crowd).await?;
        self.wait_ready(&mut crowd, Duration::MAX).await?;
        running.expect_alive()?;
        let peak = process::peak(running.pid())?;
        drop(running);
        let ledger = deployment.ledger_bytes()?;
        let again = Stopwatch::start();
        let (running, listening_again) = deployment.start(self.binary, self.interrupt)?;
        let back = self.wait_back(&mut crowd, again).await?;
        self.rest(&mut crowd, SETTLE).await?;
        let row = Row {
            sessions,
            each,
            hosts,
            listening,
            ready,
            calm,
            busy,
            votes: Times::of(votes),
            of_host: Times::of(of_host),
            flushes: Times::of(deployment.flushes()?),
            peak,
            ledger,
            listening_again,
            back,
            memory_again: process::resident(running.pid())?,
        };
        drop((crowd, running));
        output::say(row.line());
        Ok(row)
    }

    fn crowd(&self, deployment: &Deployment, hosts: usize, each: usize) -> Result<Crowd> {
        let traffic = Arc::new(Traffic::default());
        let gate = Arc::new(Semaphore::new(HANDSHAKES));
        let mut wires = Vec::new();
        for host in 0..hosts {
            self.interrupt.check()?;
            let me = Introduction {
                deployment: DEPLOYMENT.to_owned(),
                host: deployment::host_name(host),
                run: host as u64 + 1,
                software: "bench".to_owned(),
            };
            let config = deployment.dialling(host)?;
            let way = Way { me, config, port: deployment.port, gate: Arc::clone(&gate) };
            wires.push(Wire::new(way, Arc::clone(&traffic)));
        }
        let mut crowd = Crowd { traffic, pairs: Vec::new(), tasks: JoinSet::new() };
        let mut wires = wires.into_iter();
        let heartbeat = self.options.profile.timing.heartbeat;
        for pair in 0..hosts / 2 {
            let (Some(one), Some(other)) = (wires.next(), wires.next()) else { break };
            let first = pair * each;
            let sessions = each.min(self.point.sessions - first);
            let chance = |number: usize| heartbeat.mul_f64(fraction(number));
            // No two pairs of hosts have started at the same moment.
            let started = chance(pair + 5_000_000) * 4;
            let begins = (first..first + sessions).map(|session| match self.options.phases {
                Phases::Together => started,
                Phases::Spread => started + chance(session),
            });
            let (asks, asked) = mpsc::channel(64);
            let plan = Plan {
                first,
                sessions,
                wires: [one, other],
                timing: self.options.profile.timing,
                begins: begins.collect(),
                ahead: [pair * 2, pair * 2 + 1].map(|host| chance(host + 7_000_000) * 1_000),
                traffic: Arc::clone(&crowd.traffic),
                asks: asked,
            };
            crowd.tasks.spawn(Pair::new(plan).run());
            crowd.pairs.push(asks);
        }
        debug_assert_eq!(hosts_of(0, each)[0], 0, "the first wire of a pair is the lower host");
        Ok(crowd)
    }

    /// A pause in which the simulation goes on.
    async fn rest(&self, crowd: &mut Crowd, length: Duration) -> Result<()> {
        let begun = clock::now();
        loop {
            self.interrupt.check()?;
            if let Some(ended) = crowd.tasks.try_join_next() {
                ended??;
                bail!("a simulated pair of hosts has ended");
            }
            let left = length.saturating_sub(clock::now().since(begun));
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK)).await;
        }
    }

    async fn wait_ready(&self, crowd: &mut Crowd, within: Duration) -> Result<Duration> {
        let watch = Stopwatch::start();
        loop {
            let ready = crowd.ready(within).await;
            if ready == self.point.sessions {
                return Ok(watch.elapsed());
            }
            if watch.elapsed() > READY {
                bail!("only {ready} of {} sessions have become ready", self.point.sessions);
            }
            output::progress(format_args!("{ready} sessions are ready"));
            self.rest(crowd, LOOK).await?;
        }
    }

    /// Until every session has heard the witness that was started at `since`.
    async fn wait_back(&self, crowd: &mut Crowd, since: Stopwatch) -> Result<Duration> {
        loop {
            let within = since.elapsed();
            if crowd.ready(within).await == self.point.sessions {
                return Ok(since.elapsed());
            }
            if since.elapsed() > READY {
                bail!("not all sessions have heard the witness after its restart");
            }
            self.rest(crowd, LOOK).await?;
        }
    }

    async fn watch(&self, crowd: &mut Crowd, running: &Running, length: Duration) -> Result<Calm> {
        let begin = Looked::at(crowd, running)?;
        self.rest(crowd, length).await?;
        begin.until(crowd, running)
    }

    /// One session after the other loses its principal; the times from the request for the vote to
    /// the witness's answer.
    async fn elections(
        &self,
        crowd: &mut Crowd,
        running: &Running,
    ) -> Result<(Vec<Duration>, Calm)> {
        let begin = Looked::at(crowd, running)?;
        let (decided, mut answers) = mpsc::unbounded_channel();
        let each = self.options.each(self.point);
        // Never the same session twice before it is ready again: they are taken in an order that
        // looks random and comes to each of them.
        let wanted = self.options.elections.min(self.point.sessions);
        let mut order: Vec<usize> = (0..self.point.sessions).collect();
        order.sort_unstable_by(|a, b| fraction(*a).total_cmp(&fraction(*b)));
        for session in order.into_iter().take(wanted) {
            let ask = Ask::Lose { place: session % each, decided: decided.clone() };
            crowd.ask(session / each, ask).await;
            self.rest(crowd, Duration::from_millis(self.options.between_ms)).await?;
        }
        let times = self.gather(crowd, &mut answers, wanted).await?;
        Ok((times, begin.until(crowd, running)?))
    }

    /// All principals of one host at once.
    async fn lose_host(&self, crowd: &mut Crowd) -> Result<Vec<Duration>> {
        let (decided, mut answers) = mpsc::unbounded_channel();
        crowd.ask(crowd.pairs.len() / 2, Ask::LoseHost { decided }).await;
        let mut times = Vec::new();
        let begun = clock::now();
        while !answers.is_closed() {
            if clock::now().since(begun) > DECIDED {
                bail!("the failovers of a host's sessions did not end");
            }
            while let Ok(time) = answers.try_recv() {
                times.push(time);
            }
            self.rest(crowd, LOOK).await?;
        }
        while let Ok(time) = answers.try_recv() {
            times.push(time);
        }
        Ok(times)
    }

    async fn gather(
        &self,
        crowd: &mut Crowd,
        answers: &mut mpsc::UnboundedReceiver<Duration>,
        wanted: usize,
    ) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let begun = clock::now();
        loop {
            while let Ok(time) = answers.try_recv() {
                times.push(time);
            }
            if times.len() >= wanted {
                return Ok(times);
            }
            if clock::now().since(begun) > DECIDED {
                bail!("only {} of {wanted} failovers have ended", times.len());
            }
            self.rest(crowd, LOOK).await?;
        }
    }
}

impl Crowd {
    async fn ask(&self, pair: usize, ask: Ask) {
        // Gone only if it failed, which `rest` tells.
        let _ = self.pairs[pair].send(ask).await;
    }

    async fn ready(&self, within: Duration) -> usize {
        let (answer, mut answers) = mpsc::unbounded_channel();
        for pair in 0..self.pairs.len() {
            self.ask(pair, Ask::Ready { within, answer: answer.clone() }).await;
        }
        drop(answer);
        let mut ready = 0;
        while let Some(some) = answers.recv().await {
            ready += some;
        }
        ready
    }
}

/// All counters at one moment.
struct Looked {
    watch: Stopwatch,
    witness: Duration,
    own: Duration,
    counted: [u64; 8],
}

impl Looked {
    fn at(crowd: &Crowd, running: &Running) -> Result<Looked> {
        let own = process::processor_time(std::process::id())?;
        let witness = process::processor_time(running.pid())?;
        Ok(Looked { watch: Stopwatch::start(), witness, own, counted: crowd.traffic.all() })
    }

    fn until(&self, crowd: &Crowd, running: &Running) -> Result<Calm> {
        let end = Looked::at(crowd, running)?;
        let seconds = self.watch.elapsed().as_secs_f64();
        let mut counted = [0.0; 8];
        for (rate, (then, now)) in counted.iter_mut().zip(self.counted.iter().zip(end.counted)) {
            *rate = (now - then) as f64;
        }
        let [to, from, frames_to, frames_from, bytes_to, bytes_from, _, disturbances] = counted;
        Ok(Calm {
            seconds,
            share: (end.witness - self.witness).as_secs_f64() / seconds,
            own_share: (end.own - self.own).as_secs_f64() / seconds,
            messages: [to / seconds, from / seconds],
            frames: [frames_to / seconds, frames_from / seconds],
            bytes: [bytes_to / seconds, bytes_from / seconds],
            disturbances: disturbances as u64,
            memory: process::resident(running.pid())?,
        })
    }
}

impl Traffic {
    fn all(&self) -> [u64; 8] {
        [
            &self.messages_out,
            &self.messages_in,
            &self.frames_out,
            &self.frames_in,
            &self.bytes_out,
            &self.bytes_in,
            &self.votes,
            &self.disturbances,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// A number from 0 to 1 that looks random and is the same each time (Knuth's multiplier).
fn fraction(number: usize) -> f64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
