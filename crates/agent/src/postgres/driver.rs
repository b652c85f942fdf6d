//! The driver of one local PostgreSQL: performs the session's orders, reports facts.
//!
//! It decides nothing about roles. One order is worked on at a time, in the order in which they
//! came; `Stop` ends whatever is being worked on, and a new role ends `Follow`. What may take for
//! ever (the barrier, the checkpoint) runs beside. While an order is worked on, the probe, the
//! guard and the process handle go on being heard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session::{Ailment, Fact, Found, MirrorSeen, Order, Partner, Position, Term};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::canary;
use super::clone::{self, Unfinished};
use super::condition::{Condition, State};
use super::create::{self, DataDir, Lock};
use super::error::Error;
use super::follow::{self, Follow};
use super::guard::{Guard, GuardEvent};
use super::instance::Instance;
use super::probe::{self, Probed, Seen};
use super::promotion;
use super::replication::parse_lsn;
use super::server::{InRecovery, Mode, Server};
use super::settings::{Listen, Upstream};
use super::teller::Teller;

const QUEUE: usize = 64;
/// The rest before a start that failed is tried again.
const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How long a standby has to shut down cleanly where nothing depends on it.
const POLITE_STOP: Duration = Duration::from_secs(3);

/// Handle of a driver. Dropping it ends the driver and leaves PostgreSQL running.
#[derive(Debug)]
pub struct Driver {
    condition: watch::Receiver<Condition>,
    task: JoinHandle<()>,
}

impl Driver {
    /// `owner` is this partner; `partner` is where the other one's PostgreSQL is. Sends
    /// `Fact::Found` first, and waits as long as the server cannot be owned: the condition says
    /// why.
    pub fn spawn(
        instance: Instance,
        owner: Partner,
        orders: mpsc::Receiver<Order>,
        facts: mpsc::Sender<Fact>,
        partner: Upstream,
    ) -> Driver {
        let (teller, condition) = Teller::new(facts);
        let task = tokio::spawn(run(Arc::new(instance), owner, orders, teller, partner));
        Driver { condition, task }
    }

    /// What it is doing, for people.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    instance: Arc<Instance>,
    owner: Partner,
    orders: mpsc::Receiver<Order>,
    teller: Teller,
    partner: Upstream,
) {
    let (exits, exited) = mpsc::channel(QUEUE);
    let (lock, mut server) = own(&instance, &teller, &exits).await;
    let found = find(&mut server, &teller).await;
    teller.change(|condition| condition.version = Some(server.version()));
    let (seen, probed) = mpsc::channel(QUEUE);
    let mut probes = JoinSet::new();
    probes.spawn(probe::run(Arc::clone(&instance), server.life(), seen));
    probes.spawn(canary::report(Arc::clone(&instance), teller.clone()));
    let (touch_sender, touch) = mpsc::channel(QUEUE);
    let ears = Ears {
        instance: Arc::clone(&instance),
        teller: teller.clone(),
        life: server.life(),
        guard: server.pid().map(|_| Guard::spawn(&instance)),
        exited,
        probed,
        late: false,
        asked: JoinSet::new(),
    };
    teller.fact(Fact::Found(found)).await;
    let inbox = Inbox { orders, queue: VecDeque::new(), touch: touch_sender };
    let worker = Worker { server, touch, teller, owner, partner, tasks: JoinSet::new() };
    work(worker, ears, inbox).await;
    drop((lock, probes));
}

/// Tries until the data directory can be owned.
async fn own(
    instance: &Arc<Instance>,
    teller: &Teller,
    exits: &mpsc::Sender<u32>,
) -> (Lock, Server) {
    loop {
        let owned = create::lock(instance)
            .and_then(|lock| Ok((lock, Server::new(Arc::clone(instance), exits.clone())?)));
        match owned {
            Ok(owned) => {
                teller.no_problem();
                return owned;
            }
            Err(error) => teller.problem(&error),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn find(server: &mut Server, teller: &Teller) -> Found {
    loop {
        match find_once(server).await {
            Ok(found) => {
                teller.no_problem();
                return found;
            }
            Err(error) => teller.problem(&error),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn find_once(server: &mut Server) -> Result<Found, Error> {
    clone::finish_swap(server.instance())?;
    let unfinished = Unfinished::read(server.instance()).is_some();
    if unfinished || server.data()? == DataDir::Nothing {
        server.stop().await;
        return Ok(Found::Nothing);
    }
    if !server.adopt().await? {
        return Ok(Found::Stopped);
    }
    let (recovery, position) = server.state().await?;
    let incarnation = server.incarnation(position.timeline).await?;
    match recovery {
        InRecovery::Standby => Ok(Found::Standby { incarnation, position }),
        InRecovery::Primary => {
            // The former agent may have died between the promotion and this.
            create::put_standby_signal(server.instance())?;
            Ok(Found::Primary { incarnation, position })
        }
    }
}

/// The orders that were not worked on yet.
struct Inbox {
    orders: mpsc::Receiver<Order>,
    queue: VecDeque<Order>,
    touch: mpsc::Sender<Term>,
}

/// What happens while an order is worked on.
struct Ears {
    instance: Arc<Instance>,
    teller: Teller,
    life: watch::Receiver<Option<u32>>,
    guard: Option<Guard>,
    exited: mpsc::Receiver<u32>,
    probed: mpsc::Receiver<Probed>,
    /// A probe was not answered in time.
    late: bool,
    asked: JoinSet<()>,
}

/// What was heard that the one who listens must act on.
enum Heard {
    Nothing,
    /// The server with this process id ended, and nobody had ordered that.
    Exited(u32),
}

impl Ears {
    async fn hear(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(pid) = self.exited.recv() => {
                tracing::warn!(pid, "PostgreSQL ended");
                self.guard = None;
                self.teller.fact(Fact::Exited).await;
                return Heard::Exited(pid);
            }
            event = guard_event(&mut self.guard) => {
                let fact = match event {
                    GuardEvent::Opened => Fact::GuardOpened,
                    GuardEvent::Closed => Fact::GuardClosed,
                    GuardEvent::Lost => Fact::GuardLost,
                };
                self.teller.fact(fact).await;
            }
            Ok(()) = self.life.changed() => self.lives(),
            Some(probed) = self.probed.recv() => self.seen(probed).await,
            Some(_) = self.asked.join_next() => {}
        }
        Heard::Nothing
    }

    fn lives(&mut self) {
        let pid = *self.life.borrow_and_update();
        self.guard = pid.map(|_| Guard::spawn(&self.instance));
        self.late = false;
        self.teller.change(|condition| {
            condition.pid = pid;
            condition.state = if pid.is_some() { State::Standby } else { State::Stopped };
            (condition.mirror_flushed, condition.mirror_replayed) = (None, None);
        });
    }

    async fn seen(&mut self, probed: Probed) {
        if *self.life.borrow() != Some(probed.pid) {
            return;
        }
        if probed.seen == Seen::Late {
            self.late = true;
            self.teller.change(|condition| condition.state = State::Unresponsive);
            self.teller.fact(Fact::Unhealthy(Ailment::Unresponsive)).await;
            return;
        }
        if self.late {
            self.late = false;
            self.teller.fact(Fact::Healthy).await;
        }
        self.teller.change(|condition| show(condition, probed));
        match probed.seen {
            Seen::Primary { mirror, .. } => self.teller.fact(Fact::MirrorSeen(mirror)).await,
            Seen::Standby { position, .. } => {
                self.teller.fact(Fact::PositionSeen { position }).await;
            }
            Seen::Late => {}
        }
    }

    fn open_guard(&self) -> bool {
        self.guard.as_ref().inspect(|guard| guard.open()).is_some()
    }

    fn close_guard(&self) -> bool {
        self.guard.as_ref().inspect(|guard| guard.close()).is_some()
    }
}

fn show(condition: &mut Condition, probed: Probed) {
    condition.pid = Some(probed.pid);
    match probed.seen {
        Seen::Primary { mirror, end, mirror_replayed } => {
            condition.state = State::Primary;
            condition.flushed = Some(end);
            condition.replayed = None;
            condition.mirror_replayed = mirror_replayed;
            condition.mirror_flushed = match mirror {
                MirrorSeen::Streaming { flushed, .. } => Some(flushed),
                MirrorSeen::Away => None,
            };
        }
        Seen::Standby { position, replayed, .. } => {
            condition.state = State::Standby;
            condition.timeline = Some(position.timeline);
            condition.flushed = Some(position.lsn);
            condition.replayed = Some(replayed);
            (condition.mirror_flushed, condition.mirror_replayed) = (None, None);
        }
        Seen::Late => {}
    }
}

async fn guard_event(guard: &mut Option<Guard>) -> GuardEvent {
    match guard {
        Some(guard) => guard.event().await,
        None => std::future::pending().await,
    }
}

/// What an arriving order does to the one that is being worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Waits,
    Ends,
    /// It is done at once, beside the other.
    Beside,
}

fn effect(current: &Order, arriving: &Order) -> Effect {
    let follows = matches!(current, Order::Follow { .. });
    let prepares = matches!(current, Order::PreparePromotion { .. });
    match arriving {
        Order::Stop => Effect::Ends,
        Order::Touch { .. } => Effect::Beside,
        Order::OpenGuard | Order::CloseGuard | Order::ReadPosition if follows => Effect::Beside,
        Order::OpenGuard | Order::CloseGuard | Order::ReadPosition => Effect::Waits,
        Order::RunAlone { .. } | Order::Follow { .. } | Order::ShutDown { .. } => {
            if follows || prepares { Effect::Ends } else { Effect::Waits }
        }
        Order::PreparePromotion { .. }
        | Order::Promote { .. }
        | Order::CommitBarrier { .. }
        | Order::AdmitClients { .. } => {
            if follows {
                Effect::Ends
            } else {
                Effect::Waits
            }
        }
    }
}

async fn work(mut worker: Worker, mut ears: Ears, mut inbox: Inbox) {
    loop {
        let order = match inbox.queue.pop_front() {
            Some(order) => order,
            None => tokio::select! {
                biased;
                order = inbox.orders.recv() => match order {
                    Some(order) => order,
                    None => return,
                },
                heard = ears.hear() => {
                    if let Heard::Exited(_) = heard {
                        worker.clean_up().await;
                    }
                    continue;
                }
            },
        };
        tracing::debug!(?order, "PostgreSQL is to");
        perform(order, &mut worker, &mut ears, &mut inbox).await;
    }
}

async fn perform(order: Order, worker: &mut Worker, ears: &mut Ears, inbox: &mut Inbox) {
    if beside(&order, worker.server.sql().ok(), ears, inbox).await {
        return;
    }
    if matches!(order, Order::Stop | Order::ShutDown { .. }) {
        ears.guard = None;
        worker.tasks.shutdown().await;
    }
    let sql = worker.server.sql().ok().cloned();
    let mut exited = None;
    {
        let working = worker.perform(order);
        tokio::pin!(working);
        loop {
            tokio::select! {
                biased;
                () = &mut working => break,
                arriving = inbox.orders.recv() => {
                    let Some(arriving) = arriving else { return };
                    match effect(&order, &arriving) {
                        Effect::Ends => {
                            if arriving == Order::Stop {
                                inbox.queue.clear();
                            }
                            inbox.queue.push_back(arriving);
                            break;
                        }
                        Effect::Beside => {
                            beside(&arriving, sql.as_ref(), ears, inbox).await;
                        }
                        Effect::Waits => inbox.queue.push_back(arriving),
                    }
                }
                heard = ears.hear() => {
                    if let Heard::Exited(pid) = heard {
                        exited = Some(pid);
                        if matches!(order, Order::Follow { .. }) {
                            break;
                        }
                    }
                }
            }
        }
    }
    worker.teller.doing("");
    if exited.is_some() && exited == worker.server.pid() {
        worker.clean_up().await;
    }
}

/// Does what needs no work on the server. `false`: the order is not of that kind.
async fn beside(
    order: &Order,
    sql: Option<&Arc<super::sql::Connection>>,
    ears: &mut Ears,
    inbox: &Inbox,
) -> bool {
    match order {
        Order::Touch { term } => {
            // More than one answer to one question is of no use.
            let _ = inbox.touch.try_send(*term);
        }
        Order::OpenGuard => {
            if !ears.open_guard() {
                ears.teller.fact(Fact::GuardLost).await;
            }
        }
        Order::CloseGuard => {
            if !ears.close_guard() {
                ears.teller.fact(Fact::GuardClosed).await;
            }
        }
        Order::ReadPosition => {
            if let Some(sql) = sql.cloned() {
                let patience = ears.instance.probe_timeout;
                let teller = ears.teller.clone();
                ears.asked.spawn(async move {
                    if let Ok(Some(fact)) = timeout(patience, read_position(&sql)).await {
                        teller.fact(fact).await;
                    }
                });
            }
        }
        Order::RunAlone { .. }
        | Order::Follow { .. }
        | Order::PreparePromotion { .. }
        | Order::Promote { .. }
        | Order::CommitBarrier { .. }
        | Order::AdmitClients { .. }
        | Order::Stop
        | Order::ShutDown { .. } => return false,
    }
    true
}

/// Of a primary: a position that covers every commit so far, and that is flushed because a small
/// commit follows it. Of a standby: what it has received or replayed, whichever is further.
async fn read_position(sql: &super::sql::Connection) -> Option<Fact> {
    let row = sql
        .row(
            "SELECT r, CASE WHEN r THEN GREATEST(pg_last_wal_receive_lsn(), \
             pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END, \
             CASE WHEN r THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver), \
             (SELECT timeline_id FROM pg_control_checkpoint()), \
             (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::text \
             ELSE 'x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END \
             FROM pg_is_in_recovery() r",
        )
        .await
        .ok()?;
    let lsn = row.get(1)?.as_deref().and_then(parse_lsn)?;
    let timeline = row.get(2)?.as_deref()?;
    if let Some(digits) = timeline.strip_prefix('x') {
        sql.run("SELECT pg_logical_emit_message(true, 'backstay', 'level')").await.ok()?;
        let timeline = session::Timeline(u32::from_str_radix(digits, 16).ok()?);
        return Some(Fact::PositionRead { position: Position { timeline, lsn } });
    }
    let timeline = session::Timeline(timeline.parse().ok()?);
    Some(Fact::PositionSeen { position: Position { timeline, lsn } })
}

/// Works on orders.
struct Worker {
    server: Server,
    touch: mpsc::Receiver<Term>,
    teller: Teller,
    owner: Partner,
    partner: Upstream,
    /// The barrier and the checkpoint.
    tasks: JoinSet<()>,
}

impl Worker {
    async fn perform(&mut self, order: Order) {
        match order {
            Order::RunAlone { reachable } => self.run_alone(reachable).await,
            Order::Follow { term, upstream, timeline, own } => {
                if upstream == self.owner {
                    tracing::error!(%term, "a partner was ordered to follow itself");
                    return;
                }
                while self.touch.try_recv().is_ok() {}
                let upstream_at = self.partner.clone();
                let follow =
                    Follow { term, upstream: upstream_at, partner: upstream, timeline, own };
                follow::run(&mut self.server, &follow, &mut self.touch, &self.teller).await;
            }
            Order::PreparePromotion { term } => self.prepare(term).await,
            Order::Promote { term, timeline, fork } => {
                self.teller.doing("promoting");
                let promoted = promotion::promote(&mut self.server, timeline, fork).await;
                let fact = match promoted {
                    Ok(promoted) => Fact::Promoted {
                        term,
                        incarnation: promoted.incarnation,
                        fork: promoted.fork,
                    },
                    Err(error) => {
                        self.teller.problem(&error);
                        Fact::PromotionFailed { term }
                    }
                };
                self.teller.fact(fact).await;
            }
            Order::CommitBarrier { promotion } => self.commit_barrier(promotion),
            Order::AdmitClients { term } => self.admit_clients(term).await,
            Order::Stop => {
                self.teller.doing("stopping");
                self.server.stop().await;
                self.teller.fact(Fact::Stopped).await;
            }
            Order::ShutDown { deadline } => self.shut_down(deadline).await,
            Order::Touch { .. } | Order::OpenGuard | Order::CloseGuard | Order::ReadPosition => {}
        }
    }

    /// Tries until it runs.
    async fn run_alone(&mut self, reachable: bool) {
        self.tasks.shutdown().await;
        let listen = if reachable { Listen::Port } else { Listen::SocketOnly };
        let mut rest = FIRST_REST;
        loop {
            self.teller.doing("starting as a standby without upstream");
            match self.run_alone_once(listen).await {
                Ok(fact) => {
                    self.teller.no_problem();
                    self.teller.fact(fact).await;
                    return;
                }
                Err(error) => self.teller.problem(&error),
            }
            sleep(rest).await;
            rest = LONGEST_REST.min(rest * 2);
        }
    }

    async fn run_alone_once(&mut self, listen: Listen) -> Result<Fact, Error> {
        let server = &mut self.server;
        let fits = server.mode().is_some_and(|mode| mode.listen == listen);
        if server.is_standby().await {
            if fits {
                server.isolate().await?;
            } else {
                server.shut_down(POLITE_STOP).await?;
                server.start(Mode::alone(listen)).await?;
            }
        } else {
            server.start(Mode::alone(listen)).await?;
        }
        server.replayed().await?;
        let (_, position) = server.state().await?;
        let incarnation = server.incarnation(position.timeline).await?;
        Ok(Fact::Started { incarnation, position })
    }

    async fn prepare(&mut self, term: Term) {
        self.teller.doing("preparing the promotion");
        let fact = match promotion::prepare(&mut self.server).await {
            Ok(prepared) => Fact::PromotionPrepared {
                term,
                position: prepared.position,
                boundary: prepared.boundary,
                newest: prepared.newest,
            },
            Err(error) => {
                self.teller.problem(&error);
                Fact::PromotionFailed { term }
            }
        };
        self.teller.fact(fact).await;
    }

    fn commit_barrier(&mut self, promotion: session::Promotion) {
        let connection = self.server.take_barrier();
        let instance = Arc::clone(self.server.instance());
        let teller = self.teller.clone();
        self.tasks.spawn(async move {
            let begun = Instant::now();
            promotion::commit_barrier(&instance, connection, promotion).await;
            tracing::info!(took = ?begun.elapsed(), "the barrier is committed");
            teller.fact(Fact::BarrierCommitted { term: promotion.term }).await;
        });
    }

    async fn admit_clients(&mut self, term: Term) {
        while let Err(error) = promotion::admit_clients(&mut self.server).await {
            self.teller.problem(&error);
            if self.server.sql().map_or(true, |sql| sql.is_closed()) {
                return;
            }
            sleep(FIRST_REST).await;
        }
        self.teller.no_problem();
        let connection = self.server.take_spare();
        let instance = Arc::clone(self.server.instance());
        let teller = self.teller.clone();
        self.tasks.spawn(async move {
            promotion::checkpoint(&instance, connection).await;
            teller.fact(Fact::Checkpointed { term }).await;
        });
        if let Err(error) = self.server.open_spares().await {
            self.teller.problem(&error);
        }
    }

    async fn shut_down(&mut self, deadline: Duration) {
        self.teller.doing("shutting down");
        let begun = Instant::now();
        // Sessions go on writing meanwhile, and the checkpoint of the shutdown has little to do.
        if let Ok(sql) = self.server.sql() {
            let _ = timeout(deadline / 2, sql.run("CHECKPOINT")).await;
        }
        let left = deadline.saturating_sub(begun.elapsed());
        let down = self.server.shut_down(left).await;
        let end = down.and_then(|control| match control {
            Some(control) => control.checkpoint_end(self.server.instance()).map(Some),
            None => Ok(None),
        });
        let fact = match end {
            Ok(Some(position)) => Fact::ShutDown { position },
            Ok(None) => Fact::ShutDownLate,
            Err(error) => {
                self.teller.problem(&error);
                Fact::ShutDownLate
            }
        };
        tracing::info!(took = ?begun.elapsed(), ?fact, "shut down");
        self.teller.fact(fact).await;
    }

    /// After an unexpected end: nothing of the server may stay.
    async fn clean_up(&mut self) {
        self.tasks.shutdown().await;
        self.server.stop().await;
    }
}
