//! The Front End's SQL gateway: any PostgreSQL client connects to it as if to PostgreSQL, and
//! hardly notices a failover.
//!
//! One task per client session (`client`) walks the messages of both sides (`conversation`), has a
//! server connection from `servers` while it needs one, and learns from `route` who the principal
//! is. What was cut off by a failover is judged in `in_doubt`; what the next principal must be told
//! of a client session is kept in `restore`. Everything runs on one thread.

mod client;
mod clock;
pub mod config;
mod conversation;
mod counters;
mod dial;
mod exchange;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod handover;
mod house;
mod in_doubt;
mod listener;
mod login;
mod lookup;
mod mode;
mod papers;
mod refusal;
mod registry;
mod relay;
mod restore;
mod route;
mod servers;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod topology;
mod verifiers;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};

use crate::clock::Moment;
use crate::config::{ConfigError, FrontEnd, FrontEndFile, Own, OwnFile};
use crate::counters::Counters;
use crate::dial::Dialler;
use crate::handover::{Entrance, HandoverError};
use crate::house::{House, SCRATCH};
use crate::login::Door;
use crate::lookup::{Lookup, LookupError};
use crate::mode::Modes;
use crate::papers::{Papers, PapersError};
use crate::registry::Registry;
use crate::route::Pool;
use crate::status::{Shown, Status};
use crate::tls::{Tls, TlsError};
use crate::topology::Keeper;
use crate::verifiers::{Ask, Patience, Verifiers};

/// How often client sessions that take nothing are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a process whose sockets are another's looks whether its clients have left.
const LOOK: Duration = Duration::from_millis(100);
/// How long client sessions may take to hear that the gateway ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("cannot make the directory {}: {error}", path.display())]
    StateDir { path: std::path::PathBuf, error: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Papers(#[from] PapersError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address} for commands: {error}")]
    Commands { address: SocketAddr, error: std::io::Error },
}

/// Runs the gateway by its own file until `shutdown`, or until a command ends it. If the file
/// leaves the rest to the topology and there is no copy yet, it waits for one.
///
/// # Errors
/// See `Error`.
pub async fn run_by(
    own: Own,
    shutdown: impl Future<Output = ()> + Unpin + 'static,
) -> Result<(), Error> {
    match own {
        Own::Whole(config) => run(*config, shutdown).await,
        Own::ByTopology(own) => in_local_set(live_by_topology(own, shutdown)).await,
    }
}

/// Runs the gateway until `shutdown`, or until a command ends it.
///
/// # Errors
/// See `Error`.
pub async fn run(
    config: FrontEnd,
    shutdown: impl Future<Output = ()> + 'static,
) -> Result<(), Error> {
    in_local_set(live(config, None, shutdown)).await
}

async fn in_local_set(
    life: impl Future<Output = Result<(), Error>> + 'static,
) -> Result<(), Error> {
    let tasks = LocalSet::new();
    // A task like the others: what the set waits for itself is polled with each of their wake-ups.
    let living = tasks.spawn_local(life);
    match tasks.run_until(living).await {
        Ok(ended) => ended,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// As the copy of the topology says, once there is one.
async fn live_by_topology(
    own: OwnFile,
    mut shutdown: impl Future<Output = ()> + Unpin,
) -> Result<(), Error> {
    make_state_dir(&own.state_dir)?;
    let address = own.commands()?;
    let papers = Papers::of(&own.deployment, &own.name, &own.state_dir, address)?;
    let keeper = Keeper::open(own, papers.clone());
    let Some(file) = wait_for_a_copy(&keeper, &papers, address, &mut shutdown).await? else {
        return Ok(());
    };
    live(FrontEnd::try_from(file)?, Some(keeper), shutdown).await
}

/// Answers commands until the copy says what this Front End is to be. `None`: it is to end.
async fn wait_for_a_copy(
    keeper: &Keeper,
    papers: &Papers,
    address: SocketAddr,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
) -> Result<Option<FrontEndFile>, Error> {
    if let Some(file) = keeper.wanted() {
        return Ok(Some(file));
    }
    tracing::info!("this Front End waits for the topology: publish a document that names it");
    let listener =
        TcpListener::bind(address).await.map_err(|error| Error::Commands { address, error })?;
    let (_open, is_open) = watch::channel(true);
    let entrance = Entrance::new(Rc::new(listener), is_open);
    let shown = Shown { status: None, topology: Some(keeper.clone()) };
    let me = keeper.introduction().clone();
    let (end, mut ended) = oneshot::channel();
    let answering = spawn_local(status::serve(entrance, me, shown, papers.clone(), end));
    let file = loop {
        let changed = keeper.changed();
        if let Some(file) = keeper.wanted() {
            break Some(file);
        }
        tokio::select! {
            () = changed => {}
            () = &mut *shutdown => break None,
            _asked = &mut ended => break None,
        }
    };
    // Whoever has just handed it over hears that it was taken.
    sleep(LOOK).await;
    answering.abort();
    let _closed = answering.await;
    Ok(file)
}

async fn live(
    config: FrontEnd,
    keeper: Option<Keeper>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    make_state_dir(&config.file.state_dir)?;
    let tls = config.file.tls.as_ref().map(Tls::load).transpose()?;
    let papers = Papers::open(&config)?;
    let (mut held, links) = handover::arrive(&config).await?;
    let (clients, commands) = held.entrances();
    let address = clients.address().unwrap_or(config.listen);
    let pool = Pool::follow(&config, &papers);
    if let Some(keeper) = &keeper {
        keeper.runs(&config, &pool);
    }
    let mode = Modes::follow(&pool, &config.file.times);
    let counters = Rc::new(Counters::default());
    let (door, dialler) = ways(&config, tls, &papers, &pool);
    let registry = Rc::<Registry>::default();
    let (counted, seats) = (Rc::clone(&counters), Rc::clone(&registry));
    let status = Status::new(&config, address, pool.clone(), mode.clone(), counted, seats);
    let (me, shown) = (status.introduction(), Shown { status: Some(status), topology: keeper });
    let (end, mut ended) = oneshot::channel();
    let house = Rc::new(House {
        config,
        pool,
        mode,
        counters,
        servers: Default::default(),
        dialler,
        registry,
        door,
        scratch: vec![0; SCRATCH].into(),
        greetings: Default::default(),
        busy: Default::default(),
        abandoned: Default::default(),
        opening: Default::default(),
        connections: Default::default(),
        links,
        ending: Default::default(),
    });
    let answering = spawn_local(status::serve(commands, me, shown, papers, end));
    spawn_local(follow_route(Rc::clone(&house)));
    spawn_local(sweep(Rc::clone(&house)));
    let accepting = spawn_local(listener::serve(Rc::clone(&house), clients));
    held.serving(&house.links).await;
    tracing::info!(%address, "the Front End takes clients");
    let mut shutdown = pin!(shutdown);
    let after = tokio::select! {
        () = &mut shutdown => None,
        _asked = &mut ended => None,
        after = held.given_away(&house.door.verifiers, &house.links) => Some(after),
    };
    held.close();
    let _closed = timeout(LAST_WORDS, async { tokio::join!(accepting, answering) }).await;
    house.door.verifiers.stop_writing().await;
    drop(held);
    if let Some(after) = after {
        outlive(&house, after, async {
            tokio::select! {
                () = shutdown => {}
                Ok(()) = ended => {}
            }
        })
        .await;
    }
    dismiss(&house).await;
    tracing::info!("the Front End ends");
    Ok(())
}

/// Serves the clients that are here, while another process takes the new ones.
async fn outlive(house: &Rc<House>, after: UnixStream, asked: impl Future<Output = ()>) {
    tracing::info!(
        connections = house.connections.get(),
        "another process of this Front End takes clients now; this one ends with its last one"
    );
    spawn_local(handover::pass_cancels(Rc::clone(house), after));
    tokio::select! {
        () = asked => {}
        () = drained(house) => {}
    }
}

/// Tells the clients that are left that the gateway ends.
async fn dismiss(house: &House) {
    house.ending.set(true);
    house.registry.end_all();
    let deadline = Instant::now() + LAST_WORDS;
    while house.registry.count() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
}

fn make_state_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::StateDir { path: path.to_owned(), error })
}

/// Waits until the last client has left, for as long as clients may stay.
async fn drained(house: &House) {
    let limit = house.config.file.times.drain_ms;
    let deadline = (limit > 0).then(|| Instant::now() + Duration::from_millis(limit));
    while house.connections.get() > 0 && deadline.is_none_or(|at| Instant::now() < at) {
        sleep(LOOK).await;
    }
}

/// How clients come in, and how servers are connected to.
fn ways(config: &FrontEnd, tls: Option<Tls>, papers: &Papers, pool: &Pool) -> (Door, Dialler) {
    let dialler = Dialler::new(papers.clone(), config.file.server_tls);
    let asks = ask(config, dialler.clone(), pool);
    let verifiers = Verifiers::open(&config.file.state_dir, asks);
    (Door { tls, verifiers, trust: config.file.trust.clone() }, dialler)
}

/// How it is found out how users log in.
fn ask(config: &FrontEnd, dialler: Dialler, pool: &Pool) -> Ask {
    let patience = config.file.times.connect();
    let lookup = Rc::new(Lookup::new(&config.password, dialler, patience));
    let (pool, hold) = (pool.clone(), config.file.times.hold());
    Box::new(move |user, patience| {
        let (lookup, pool) = (Rc::clone(&lookup), pool.clone());
        Box::pin(async move {
            let deadline = Instant::now() + hold;
            loop {
                let changed = pool.changed();
                let snapshot = pool.current();
                if let Some(principal) = &snapshot.principal {
                    let asked = lookup.ask(principal, &user).await;
                    match (asked, patience) {
                        (Ok(row), _) => return Ok(row),
                        (Err(error), Patience::None) => return Err(error),
                        (Err(error), Patience::Hold) if Instant::now() >= deadline => {
                            return Err(error);
                        }
                        (Err(_), Patience::Hold) => sleep(Duration::from_millis(50)).await,
                    }
                    continue;
                }
                if patience == Patience::None || timeout_at(deadline, changed).await.is_err() {
                    return Err(LookupError::NoPrincipal);
                }
            }
        })
    })
}

/// Tells all client sessions of each change of the route.
async fn follow_route(house: Rc<House>) {
    loop {
        let changed = house.pool.changed();
        let term = house.pool.current().principal.as_ref().map(|found| found.term);
        house.servers.clear_except(term);
        house.registry.wake_all();
        house.report_drained();
        changed.await;
    }
}

/// Ends client sessions that take nothing.
async fn sweep(house: Rc<House>) {
    let mut ticks = interval(SWEEP);
    let patience = house.config.file.times.slow_client();
    loop {
        ticks.tick().await;
        let now = clock::now();
        let alone = house.pool.current().without_principal_since;
        let hold = house.config.file.times.hold();
        let abandoned = alone.is_some_and(|since| now.since(since) >= hold);
        if abandoned != house.abandoned.replace(abandoned) {
            house.registry.wake_all();
        }
        let span = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        house.registry.end_stuck(Moment::from_nanos(now.nanos().saturating_sub(span)));
    }
}
