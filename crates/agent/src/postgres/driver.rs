//! The driver of one local PostgreSQL: performs the session's orders, reports facts.
//!
//! It decides nothing about roles. One order is worked on at a time, in the order in which they
//! came; `Stop` ends whatever is being worked on, and a new role ends `Follow`. What may take for
//! ever (the barrier, the checkpoint) runs beside. While an order is worked on, the probe, the
//! guard and the process handle go on being heard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use session::{Fact, Found, Order, Partner, Term};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::canary;
use super::certificates;
use super::clone::{self, Unfinished};
use super::condition::{Condition, State};
use super::create::{self, DataDir, Lock};
use super::drain::Drain;
use super::ears::{Ears, Heard};
use super::error::Error;
use super::guard::Guard;
use super::instance::Instance;
use super::log_file;
use super::probe;
use super::server::{InRecovery, Server};
use super::settings::Upstream;
use super::sql::Connection;
use super::teller::Teller;
use super::worker::Worker;

const QUEUE: usize = 64;

/// What a driver is given, and may be given anew while it runs. Paths and the port stay.
#[derive(Clone, Debug)]
pub struct Configured {
    pub instance: Arc<Instance>,
    /// The other partner's PostgreSQL; `None`: the pool has one server.
    pub partner: Option<Upstream>,
    pub drain: Drain,
}

/// Handle of a driver. Dropping it ends the driver and leaves PostgreSQL running.
#[derive(Debug)]
pub struct Driver {
    condition: watch::Receiver<Condition>,
    task: JoinHandle<()>,
}

impl Driver {
    /// `owner` is this partner; `lock` is that of the data directory, if it could be had. Sends
    /// `Fact::Found` first, and waits as long as the server cannot be owned: the condition says
    /// why.
    pub fn spawn(
        configured: watch::Receiver<Configured>,
        lock: Option<Arc<Lock>>,
        owner: Partner,
        orders: mpsc::Receiver<Order>,
        facts: mpsc::Sender<Fact>,
    ) -> Driver {
        let (teller, condition) = Teller::new(facts);
        let task = tokio::spawn(run(configured, lock, owner, orders, teller));
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
    mut configured: watch::Receiver<Configured>,
    lock: Option<Arc<Lock>>,
    owner: Partner,
    orders: mpsc::Receiver<Order>,
    teller: Teller,
) {
    let Configured { instance, partner, drain } = configured.borrow_and_update().clone();
    let (exits, exited) = mpsc::channel(QUEUE);
    let (lock, mut server) = own(&instance, lock, &teller, &exits).await;
    let found = find(&mut server, &teller).await;
    teller.change(|condition| {
        condition.version = Some(server.version());
        match found {
            Found::Nothing => condition.state = State::Absent,
            Found::Stopped => {}
            Found::Standby { position, .. } | Found::Primary { position, .. } => {
                condition.timeline = Some(position.timeline);
            }
        }
        condition.open = *server.open().borrow();
    });
    let (seen, probed) = mpsc::channel(QUEUE);
    let mut probes = JoinSet::new();
    probes.spawn(probe::run(Arc::clone(&instance), server.life(), server.closed(), seen));
    probes.spawn(certificates::keep(configured.clone(), server.life()));
    probes.spawn(log_file::keep_short(Arc::clone(&instance)));
    probes.spawn(canary::report(Arc::clone(&instance), teller.clone()));
    let (touch_sender, touch) = mpsc::channel(QUEUE);
    let ears = Ears {
        instance: Arc::clone(&instance),
        teller: teller.clone(),
        life: server.life(),
        open: server.open(),
        guard: server.pid().map(|_| Guard::spawn(&instance)),
        exited,
        probed,
        late: false,
        asked: JoinSet::new(),
    };
    teller.fact(Fact::Found(found)).await;
    if matches!(found, Found::Standby { .. } | Found::Primary { .. }) {
        // It was started with what the former agent was given.
        configured.mark_changed();
    }
    let inbox = Inbox { orders, queue: VecDeque::new(), touch: touch_sender, configured };
    let worker = Worker { server, touch, teller, owner, partner, drain, tasks: JoinSet::new() };
    tokio::select! {
        () = work(worker, ears, inbox) => {}
        () = failure(&mut probes) => {}
    }
    drop((lock, probes));
}

/// Ends when one of the tasks has failed an assertion: its last word would be believed for ever.
async fn failure(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// Tries until the data directory can be owned.
async fn own(
    instance: &Arc<Instance>,
    mut lock: Option<Arc<Lock>>,
    teller: &Teller,
    exits: &mpsc::Sender<u32>,
) -> (Arc<Lock>, Server) {
    loop {
        let locked = match lock.take() {
            Some(lock) => Ok(lock),
            None => create::lock(instance).map(Arc::new),
        };
        let owned = locked
            .inspect(|locked| lock = Some(Arc::clone(locked)))
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
    configured: watch::Receiver<Configured>,
}

/// Ends when the driver is given something new, which stays new until it is looked at.
async fn reconfigured(configured: &mut watch::Receiver<Configured>) {
    if configured.changed().await.is_err() {
        std::future::pending().await
    }
    configured.mark_changed();
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
    // Clients are in already: what the guard is waited for may be what holds the work up.
    let admits = matches!(current, Order::AdmitClients { .. });
    let prepares = matches!(current, Order::PreparePromotion { .. });
    match arriving {
        Order::Stop => Effect::Ends,
        Order::Touch { .. } => Effect::Beside,
        Order::OpenGuard | Order::CloseGuard | Order::ReadPosition { .. } if follows || admits => {
            Effect::Beside
        }
        Order::OpenGuard | Order::CloseGuard | Order::ReadPosition { .. } => Effect::Waits,
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
        if inbox.configured.has_changed().unwrap_or(false) {
            let configured = inbox.configured.borrow_and_update().clone();
            worker.configure(configured);
        }
        let order = match inbox.queue.pop_front() {
            Some(order) => order,
            None => tokio::select! {
                biased;
                order = inbox.orders.recv() => match order {
                    Some(order) => order,
                    None => return,
                },
                () = reconfigured(&mut inbox.configured) => continue,
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
    let for_ever = matches!(order, Order::Follow { .. });
    {
        let working = worker.perform(order);
        tokio::pin!(working);
        loop {
            tokio::select! {
                biased;
                () = &mut working => break,
                arriving = inbox.orders.recv() => {
                    let Some(arriving) = arriving else { return };
                    let admits = matches!(order, Order::AdmitClients { .. });
                    let waits = admits && !inbox.queue.is_empty();
                    match effect(&order, &arriving) {
                        Effect::Beside if waits => {
                            inbox.queue.push_back(arriving);
                        }
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
                // What follows for ever begins anew with what is new; the rest is soon done.
                () = reconfigured(&mut inbox.configured), if for_ever => {
                    inbox.queue.push_front(order);
                    break;
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
    sql: Option<&Arc<Connection>>,
    ears: &mut Ears,
    inbox: &Inbox,
) -> bool {
    match order {
        Order::Touch { term } => {
            // More than one answer to one question is of no use.
            let _ = inbox.touch.try_send(*term);
        }
        Order::OpenGuard => {
            ears.open_guard().await;
        }
        Order::CloseGuard => {
            ears.close_guard().await;
        }
        Order::ReadPosition { number } => ears.read_position(sql, *number),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_and_one_that_ends_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        let patience = Duration::from_millis(20);
        assert!(tokio::time::timeout(patience, failure(&mut tasks)).await.is_err());
        tasks.spawn(async { panic!("the test's own") });
        failure(&mut tasks).await;
    }

    #[test]
    fn a_stop_ends_everything_and_a_new_role_ends_the_following() {
        let term = Term(3);
        let timeline = session::Timeline(3);
        let follow = Order::Follow { term, upstream: Partner::First, timeline, own: None };
        let prepare = Order::PreparePromotion { term };
        let alone = Order::RunAlone { reachable: true };
        for current in [follow, prepare, alone, Order::ShutDown { deadline: Duration::ZERO }] {
            assert_eq!(effect(&current, &Order::Stop), Effect::Ends, "{current:?}");
        }
        assert_eq!(effect(&follow, &prepare), Effect::Ends);
        assert_eq!(effect(&follow, &Order::Touch { term }), Effect::Beside);
        assert_eq!(effect(&prepare, &follow), Effect::Ends);
        assert_eq!(effect(&Order::AdmitClients { term }, &Order::OpenGuard), Effect::Beside);
        assert_eq!(effect(&alone, &prepare), Effect::Waits);
    }
}
