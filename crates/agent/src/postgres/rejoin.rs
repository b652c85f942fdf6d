//! The way back: what has to happen to this copy of the data before it can follow (3.5).
//!
//! `decide` compares what this copy has with the upstream's timeline history: it follows as it
//! is, is rewound, or is replaced by a fresh copy. Positions alone decide nothing: a partner that
//! was promoted to a timeline which is not in the upstream's history has diverged. Nothing is
//! touched before the session has said so with `Order::Touch`. Safe to drop, and to kill, at any
//! moment; then it starts over.

use std::sync::Arc;
use std::time::Duration;

use session::{Fact, Position, Term, Touch};
use tokio::sync::mpsc;

use super::access::Access;
use super::clone::{self, Unfinished};
use super::control::Control;
use super::create::DataDir;
use super::error::Error;
use super::follow::Follow;
use super::history::History;
use super::instance::{Instance, ROLE};
use super::replication::{Connection, Endpoint, Login, ReplicationError};
use super::rewind::{self, Discarded};
use super::server::{InRecovery, Mode, Server};
use super::settings::{Listen, Upstream};
use super::startup;
use super::teller::Teller;
use super::timelines;

/// How long a clean shutdown of a standby without clients may take.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);
const UPSTREAM_DEADLINE: Duration = Duration::from_secs(5);

/// What has to happen, and why, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The data is part of the upstream's history.
    Follow,
    Rewind {
        why: String,
    },
    Copy {
        why: String,
    },
}

/// Brings this server to where it streams from the upstream, or is about to. It runs then.
pub async fn run(
    server: &mut Server,
    follow: &Follow,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) -> Result<(), Error> {
    match decide(server, follow, teller).await? {
        Plan::Follow => {}
        Plan::Rewind { why } => {
            tracing::info!(why, "the data is rewound");
            rewind_or_copy(server, follow, touch, teller).await?;
        }
        Plan::Copy { why } => {
            tracing::info!(why, "the data is replaced by a fresh copy");
            copy(server, follow, touch, teller).await?;
        }
    }
    teller.doing("starting as a standby");
    start(server, follow).await
}

/// Learns what this copy has, and what it is missing. May start PostgreSQL without upstream and
/// without clients, so that a crashed one replays to its end; changes nothing otherwise.
pub async fn decide(server: &mut Server, follow: &Follow, teller: &Teller) -> Result<Plan, Error> {
    teller.doing("comparing this copy with the principal's history");
    server.end_dropped_start().await;
    clone::finish_swap(server.instance())?;
    let unfinished = match Unfinished::read(server.instance()) {
        Some(Unfinished::Rewind) => Some("a rewind was not finished"),
        Some(Unfinished::Copy) => Some("a copy was not finished"),
        // Finished just now.
        Some(Unfinished::Swap) | None => None,
    };
    if let Some(why) = unfinished {
        return Ok(Plan::Copy { why: why.to_owned() });
    }
    if server.data()? == DataDir::Nothing {
        return Ok(Plan::Copy { why: "there is no data here yet".to_owned() });
    }
    let control = Control::read(server.instance())?;
    let history = upstream_history(server.instance(), follow, &control).await?;
    if let Some(why) = own_promotion_is_lost(server.instance(), follow, &history)? {
        return Ok(Plan::Rewind { why });
    }
    let position = match position(server, &control).await {
        Ok(position) => position,
        Err(Error::Exited { log, .. }) if startup::shows_damage(&log) => {
            return Ok(Plan::Copy { why: format!("the data here are damaged: {log}") });
        }
        // Whatever else keeps it from starting leaves the data good.
        Err(error) => return Err(error),
    };
    let certain = timelines::newest_real(server.instance())?.is_none_or(|newest| {
        // A newer history file may be of a timeline that the control file does not show yet.
        newest <= position.timeline || history.contains(newest)
    });
    if certain && history.holds(position) {
        return Ok(Plan::Follow);
    }
    let fork = history.fork_of(position.timeline);
    let fork = fork.map_or("nowhere".to_owned(), |fork| fork.to_string());
    Ok(Plan::Rewind {
        why: format!(
            "this copy ends at {position}, and the principal left that timeline at {fork}"
        ),
    })
}

/// A promotion of this partner that really happened and is not part of the upstream's history.
fn own_promotion_is_lost(
    instance: &Instance,
    follow: &Follow,
    history: &History,
) -> Result<Option<String>, Error> {
    let Some(own) = follow.own else {
        return Ok(None);
    };
    // It is written down before it happens, and the history file comes first when it does.
    let path = instance.wal_dir().join(timelines::file_name(own.timeline));
    let happened = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > 0);
    let lost = happened && !history.contains(own.timeline);
    Ok(lost.then(|| {
        format!("this partner's own timeline {} is not in the principal's history", own.timeline)
    }))
}

/// Where this copy ends, all of its WAL replayed. A server that was shut down cleanly as a
/// primary need not run for that.
async fn position(server: &mut Server, control: &Control) -> Result<Position, Error> {
    if server.pid().is_none() && control.is_shut_down() {
        return control.checkpoint_end(server.instance());
    }
    replay_alone(server).await?;
    Ok(server.state().await?.1)
}

/// Makes sure that it runs as a standby, and has replayed all of its own WAL.
async fn replay_alone(server: &mut Server) -> Result<(), Error> {
    let running = if server.pid().is_some() { server.state().await.ok() } else { None };
    if !matches!(running, Some((InRecovery::Standby, _))) {
        server.start(Mode::alone(Listen::SocketOnly)).await?;
    }
    if server.mode().is_none_or(|mode| mode.upstream.is_none()) {
        server.replayed().await?;
    }
    Ok(())
}

async fn upstream_history(
    instance: &Instance,
    follow: &Follow,
    control: &Control,
) -> Result<History, Error> {
    const DOING: &str = "asking the principal for its history";
    let failed = |error: ReplicationError| Error::unexpected(DOING, error.to_string());
    let mut connection =
        Connection::log_in(&login(instance, &follow.upstream)).await.map_err(failed)?;
    let system = connection.identify_system().await.map_err(failed)?;
    if system.identifier != control.system_identifier {
        return Err(Error::refused(
            format!(
                "the data in {} is of another origin than the principal's",
                instance.data_dir.display()
            ),
            "if it is not needed, remove the data directory: a fresh copy is made then",
        ));
    }
    if system.position.timeline != follow.timeline {
        let (has, wanted) = (system.position.timeline, follow.timeline);
        return Err(Error::unexpected(
            DOING,
            format!("it is on timeline {has}, not yet on {wanted}"),
        ));
    }
    connection.timeline_history(follow.timeline).await.map_err(failed)
}

pub(super) fn login(instance: &Instance, upstream: &Upstream) -> Login {
    Login {
        endpoint: Endpoint::Tcp { host: upstream.host.clone(), port: upstream.port },
        role: ROLE.to_owned(),
        secret: Some(instance.secret_file.clone()),
        tls: instance.tls().cloned(),
        application_name: "backstay_question".to_owned(),
        deadline: UPSTREAM_DEADLINE,
    }
}

/// Rewinds this copy; replaces it if that fails.
async fn rewind_or_copy(
    server: &mut Server,
    follow: &Follow,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) -> Result<(), Error> {
    teller.doing("replaying to the end of this copy");
    let Some((control, end)) = settle(server).await? else {
        return copy(server, follow, touch, teller).await;
    };
    let instance = Arc::clone(server.instance());
    let history = upstream_history(&instance, follow, &control).await?;
    if own_promotion_is_lost(&instance, follow, &history)?.is_none() && history.holds(end) {
        // Now that it was stopped cleanly its position is certain, and it had not diverged.
        return Ok(());
    }
    teller.doing("waiting for the principal's checkpoint");
    rewind::checkpointed(&instance, &follow.upstream, follow.timeline).await?;
    keep_aside(&instance, &control, &history, end).await?;
    allowed(follow, Touch::Rewind, touch, teller).await?;
    teller.doing("rewinding");
    match rewind::run(&instance, &follow.upstream).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::info!(%error, "the rewind failed; the data is replaced by a fresh copy");
            clone::run(&instance, &follow.upstream, teller).await
        }
    }
}

/// Replays to the end and stops it cleanly, as `pg_rewind` demands. `None`: the data are damaged.
async fn settle(server: &mut Server) -> Result<Option<(Control, Position)>, Error> {
    const STOPPING: &str = "stopping the standby cleanly before the rewind";
    let control = Control::read(server.instance())?;
    if server.pid().is_none() && control.is_shut_down() {
        let end = control.checkpoint_end(server.instance())?;
        return Ok(Some((control, end)));
    }
    if server.mode().is_some_and(|mode| mode.upstream.is_some()) {
        server.isolate().await?;
    }
    match replay_alone(server).await {
        Ok(()) => {}
        Err(Error::Exited { log, .. }) if startup::shows_damage(&log) => return Ok(None),
        Err(error) => return Err(error),
    }
    let replayed = server.state().await?.1.lsn;
    if let Ok(sql) = server.sql() {
        // However slow the disk is: the shutdown itself has little to write then.
        sql.run("CHECKPOINT").await.map_err(Error::sql(STOPPING))?;
    }
    let Some(control) = server.shut_down(SHUTDOWN_PATIENCE).await? else {
        return Err(Error::Late { doing: STOPPING });
    };
    let lsn = replayed.max(control.min_recovery.lsn);
    let timeline = control.timeline();
    Ok(Some((control, Position { timeline, lsn })))
}

async fn keep_aside(
    instance: &Arc<Instance>,
    control: &Control,
    history: &History,
    end: Position,
) -> Result<(), Error> {
    let own = timelines::history_of(instance, end.timeline)?;
    let discarded = Discarded { from: history.common_with(&own, end.lsn), end };
    let (instance, control) = (Arc::clone(instance), control.clone());
    let kept = tokio::task::spawn_blocking(move || {
        let kept = rewind::keep_aside(&instance, &control, &discarded);
        (discarded, kept)
    });
    let (discarded, kept) = kept
        .await
        .map_err(|error| Error::unexpected("keeping the discarded WAL", error.to_string()))?;
    let (from, end, kept) = (discarded.from, discarded.end, kept?);
    tracing::info!(%from, %end, kept = %kept.display(), "WAL after the fork is taken back");
    Ok(())
}

/// Replaces this copy by a fresh one, once that is allowed; nothing runs then.
pub async fn copy(
    server: &mut Server,
    follow: &Follow,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) -> Result<(), Error> {
    allowed(follow, Touch::Copy, touch, teller).await?;
    server.stop().await;
    let instance = Arc::clone(server.instance());
    clone::run(&instance, &follow.upstream, teller).await
}

/// Waits until the session has written down that this copy no longer counts as valid.
async fn allowed(
    follow: &Follow,
    what: Touch,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) -> Result<(), Error> {
    teller.fact(Fact::TouchNeeded { term: follow.term, touch: what }).await;
    while let Some(term) = touch.recv().await {
        if term == follow.term {
            return Ok(());
        }
    }
    Err(Error::unexpected("waiting for leave to touch the data", "the agent is ending"))
}

/// Runs it as a standby that streams from the upstream.
pub async fn start(server: &mut Server, follow: &Follow) -> Result<(), Error> {
    let mode = Mode {
        listen: Listen::Port,
        access: Access::Closed,
        upstream: Some(follow.upstream.clone()),
    };
    if server.mode().is_some_and(|now| now.listen == mode.listen) && server.is_standby().await {
        server.set_upstream(mode.upstream)
    } else {
        server.start(mode).await
    }
}
