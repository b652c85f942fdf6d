//! Promotion, step by step (section 3.4 of the protocol).
//!
//! The order of the steps is the point: nothing more can be acknowledged upstream once the
//! receiver is gone, everything acknowledged is replayed before the boundary is read, and the
//! timeline gets the number that was written down before. No step waits in long intervals.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use session::{Boundary, Incarnation, Lsn, Position, Promotion, Timeline, Xid};
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::control::Control;
use super::create::{flush_standby_signal, make_standby_signal};
use super::error::Error;
use super::instance::{Instance, MIRROR_NAME};
use super::replication::parse_lsn;
use super::server::{InRecovery, Mode, Server, TICK};
use super::settings::Listen;
use super::sql::{Commits, Connection};
use super::timelines;

/// How long PostgreSQL may take to read its rules of access.
const ACCESS_TIMEOUT: Duration = Duration::from_millis(500);

/// What steps 1 to 3 found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub position: Position,
    pub boundary: Boundary,
    /// The highest timeline id that this copy of the data knows of.
    pub newest: Timeline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    pub incarnation: Incarnation,
    pub fork: Position,
}

/// Steps 1 to 3: no receiver, no clients, everything replayed, boundary read.
pub async fn prepare(server: &mut Server) -> Result<Prepared, Error> {
    let begun = Instant::now();
    let reachable = server.mode().is_some_and(|mode| mode.listen == Listen::Port);
    let answers = server.sql().is_ok() || server.is_mute();
    if !answers || !reachable {
        server.start(Mode::alone(Listen::Port)).await?;
    }
    server.open_spares().await?;
    server.isolate().await?;
    if server.is_mute() {
        return prepare_mute(server).await;
    }
    let isolated = begun.elapsed();
    try_make_slot(server.sql()?).await;
    settle(server).await?;
    complete_segment(server).await?;
    let replayed = begun.elapsed();
    let (recovery, ended) = server.state().await?;
    if recovery == InRecovery::Primary {
        return Err(Error::unexpected("preparing the promotion", "it is a primary already"));
    }
    let (lsn, boundary) = boundary(server.sql()?).await?;
    let position = Position { timeline: ended.timeline, lsn };
    let newest = timelines::newest(server.instance(), ended.timeline)?;
    tracing::info!(?isolated, ?replayed, total = ?begun.elapsed(), "prepared a promotion");
    Ok(Prepared { position, boundary, newest })
}

/// Waits until everything is replayed and no receiver is left.
async fn settle(server: &Server) -> Result<(), Error> {
    // A receiver that was just being started when the reload came lives for a moment.
    loop {
        server.replayed().await?;
        if !server.has_receiver().await? {
            return Ok(());
        }
        sleep(TICK).await;
    }
}

/// A promotion reads the last record again, from the newest timeline's segment, and panics if the
/// receiver was ended before it had got there; its reports of what is flushed begin at the replay
/// position all the same.
async fn complete_segment(server: &Server) -> Result<(), Error> {
    let less = server.sql()?.one("SELECT pg_last_wal_receive_lsn() < pg_last_wal_replay_lsn()");
    let less = less.await.map_err(Error::sql("comparing what was received and replayed"))?;
    if less.as_deref() != Some("t") {
        return Ok(());
    }
    let instance = Arc::clone(server.instance());
    let completed = tokio::task::spawn_blocking(move || {
        timelines::complete_segment(&instance, &Control::read(&instance)?)
    });
    completed.await.map_err(|error| Error::unexpected("completing the WAL", error.to_string()))?
}

/// Steps 1 to 3 where no hot standby opens: the boundary cannot be read.
async fn prepare_mute(server: &Server) -> Result<Prepared, Error> {
    let (_, position) = server.state().await?;
    let newest = timelines::newest(server.instance(), position.timeline)?;
    Ok(Prepared { position, boundary: Boundary::Unknown, newest })
}

/// Replay position and boundary, in one statement.
async fn boundary(sql: &Connection) -> Result<(Lsn, Boundary), Error> {
    const DOING: &str = "reading the boundary";
    let row = sql
        .row("SELECT pg_last_wal_replay_lsn(), pg_snapshot_xmax(pg_current_snapshot())")
        .await
        .map_err(Error::sql(DOING))?;
    let column = |i: usize| row.get(i).and_then(Option::as_deref);
    let lsn = column(0).and_then(parse_lsn);
    let lsn = lsn.ok_or_else(|| Error::unexpected(DOING, "there is no replay position"))?;
    let xid = column(1).and_then(|text| text.parse().ok());
    Ok((lsn, xid.map_or(Boundary::Unknown, |xid| Boundary::Known(Xid(xid)))))
}

/// A promotion does not depend on the slot: the probe makes it as soon as that can be.
async fn try_make_slot(sql: &Connection) {
    if let Err(error) = make_slot(sql).await {
        tracing::warn!(%error, "the mirror's slot is made later");
    }
}

/// A fresh slot for the mirror-to-be. It keeps the WAL since the last restart point, which is
/// what the returning partner needs to be rewound.
async fn make_slot(sql: &Connection) -> Result<(), Error> {
    const DOING: &str = "making the mirror's slot";
    let drop = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_get_replication_slots() \
         WHERE slot_name = '{MIRROR_NAME}' AND NOT active"
    );
    let make = format!("SELECT pg_create_physical_replication_slot('{MIRROR_NAME}', true)");
    sql.run(&drop).await.map_err(Error::sql(DOING))?;
    sql.run(&make).await.map_err(Error::sql(DOING))
}

/// Steps 4 and 5: promotes to exactly `timeline`, forking at `fork`.
pub async fn promote(
    server: &mut Server,
    timeline: Timeline,
    fork: Position,
) -> Result<Promoted, Error> {
    const DOING: &str = "promoting";
    let begun = Instant::now();
    let (recovery, ended) = server.state().await?;
    let ready = if server.is_mute() {
        ended
    } else {
        let (replayed, _) = boundary(server.sql()?).await?;
        Position { timeline: ended.timeline, lsn: replayed }
    };
    if recovery == InRecovery::Primary || ready != fork {
        return Err(Error::unexpected(DOING, format!("it is at {ready}, not at {fork}")));
    }
    timelines::skip_to(server.instance(), ended.timeline, timeline)?;
    signal_promotion(server)?;
    let signalled = begun.elapsed();
    if server.is_mute() {
        server.unmute().await?;
        try_make_slot(server.sql()?).await;
    }
    loop {
        let standby = server.sql()?.one("SELECT pg_is_in_recovery()").await;
        if standby.map_err(Error::sql(DOING))?.as_deref() == Some("f") {
            break;
        }
        sleep(TICK).await;
    }
    keep_standby_signal(server.instance())?;
    let (_, now) = server.state().await?;
    if now.timeline != timeline {
        return Err(Error::unexpected(
            DOING,
            format!("it went to timeline {} instead of {timeline}", now.timeline),
        ));
    }
    let fork = timelines::fork_of(server.instance(), timeline)?;
    let incarnation = server.incarnation(timeline).await?;
    tracing::info!(?signalled, total = ?begun.elapsed(), "promoted");
    Ok(Promoted { incarnation, fork })
}

/// Puts the file back that the promotion has consumed; flushed beside, to lose no time.
fn keep_standby_signal(instance: &Arc<Instance>) -> Result<(), Error> {
    make_standby_signal(instance)?;
    let instance = Arc::clone(instance);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = flush_standby_signal(&instance) {
            tracing::error!(%error, "standby.signal may not outlive a crash of this machine");
        }
    });
    Ok(())
}

fn signal_promotion(server: &Server) -> Result<(), Error> {
    let instance: &Instance = server.instance();
    let path = instance.data_dir.join("promote");
    File::create(&path).map_err(Error::io("make", &path))?;
    instance.os_user.own(&path)?;
    server.signal(Signal::USR1);
    Ok(())
}

/// Step 6: returns when the barrier is committed, which may take for ever.
pub async fn commit_barrier(
    instance: &Instance,
    mut connection: Option<Connection>,
    promotion: Promotion,
) {
    let boundary = match promotion.boundary {
        Boundary::Known(xid) => xid.0.to_string(),
        Boundary::Unknown => "unknown".to_owned(),
    };
    let statement = format!(
        "SELECT pg_logical_emit_message(true, 'backstay', \
         'term {} timeline {} boundary {boundary}')",
        promotion.term, promotion.timeline
    );
    loop {
        if let Some(usable) = connection.take() {
            let before = usable.cancelled_waits();
            match usable.run(&statement).await {
                // A wait that was cancelled ends as success, with a warning.
                Ok(()) if usable.cancelled_waits() == before => return,
                Ok(()) => {
                    tracing::warn!("somebody cancelled the barrier's wait; it is committed again");
                    connection = Some(usable);
                    continue;
                }
                Err(error) => tracing::warn!(%error, "the barrier was not committed"),
            }
        }
        connection = Connection::open(instance, Commits::Wait).await.ok();
        if connection.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Lets clients in, having ended those that had slipped in before. Those of an adopted server were
/// let in by the former agent and stay.
pub async fn admit_clients(server: &mut Server) -> Result<(), Error> {
    if server.mode().is_none_or(|mode| mode.access == Access::Closed) {
        server.end_clients().await?;
    }
    let before = loaded(server.sql()?).await?;
    server.set_access(Access::Open)?;
    // Whoever is told now that clients are let in must not be turned away by the old rules. A
    // backend that has read its settings again shows that the postmaster is at it, too: it takes
    // nobody in meanwhile.
    let begun = Instant::now();
    while loaded(server.sql()?).await? == before {
        if begun.elapsed() > ACCESS_TIMEOUT {
            tracing::warn!("the new rules of access are not known to be in force");
            break;
        }
        sleep(TICK).await;
    }
    Ok(())
}

/// When the settings were last read.
async fn loaded(sql: &Connection) -> Result<Option<String>, Error> {
    let loaded = sql.one("SELECT extract(epoch FROM pg_conf_load_time())").await;
    loaded.map_err(Error::sql("reading when the settings were read"))
}

/// Returns when a `CHECKPOINT` is complete.
pub async fn checkpoint(instance: &Instance, mut connection: Option<Connection>) {
    loop {
        if let Some(usable) = connection.take() {
            match usable.run("CHECKPOINT").await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the checkpoint after a promotion failed"),
            }
        }
        sleep(Duration::from_millis(100)).await;
        connection = Connection::open(instance, Commits::Local).await.ok();
    }
}
