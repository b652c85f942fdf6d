//! The probe: looks at the running PostgreSQL over a connection of its own.
//!
//! It sends what it saw at a steady pace, and at once when the mirror's walsender, or the own
//! receiver, ends: their processes are watched. An answer that does not come within the deadline
//! is reported while the probe goes on waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session::{Lsn, MirrorSeen, Position, Timeline};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, Statement};

use super::access;
use super::instance::{GUARD_NAME, Instance, MIRROR_NAME};
use super::pidfd::ProcessHandle;
use super::replication::parse_lsn;
use super::sql::{Commits, Connection, OWN_ROLE};
use super::timelines;

const RECONNECT: Duration = Duration::from_millis(50);
/// Every so many probes the probe also looks after the slot and for strangers.
const CARE_EVERY: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Primary {
        mirror: MirrorSeen,
        end: Lsn,
        mirror_replayed: Option<Lsn>,
    },
    Standby {
        position: Position,
        replayed: Lsn,
        streaming: bool,
    },
    /// A probe was not answered in time.
    Late,
}

/// What was seen of the server with this process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    pub pid: u32,
    pub seen: Seen,
}

/// Probes whatever server lives, until `seen` is closed.
pub async fn run(
    instance: Arc<Instance>,
    mut life: watch::Receiver<Option<u32>>,
    closed: Arc<AtomicBool>,
    seen: mpsc::Sender<Probed>,
) {
    loop {
        let pid = *life.borrow_and_update();
        let ended = async {
            // The server is gone or another one, or the driver has ended.
            let _ = life.changed().await;
        };
        match pid {
            Some(pid) => tokio::select! {
                () = ended => {}
                () = probe(&instance, pid, &closed, &seen) => return,
            },
            None => ended.await,
        }
        if life.has_changed().is_err() || seen.is_closed() {
            return;
        }
    }
}

/// Returns when nobody listens any more.
async fn probe(
    instance: &Arc<Instance>,
    pid: u32,
    closed: &AtomicBool,
    seen: &mpsc::Sender<Probed>,
) {
    loop {
        let Some((connection, statement)) = connect(instance, pid, seen).await else { return };
        let mut round: u32 = 0;
        let mut watched: Option<(i32, ProcessHandle)> = None;
        loop {
            let answer = connection.client().query_one(&statement, &[]);
            let Some(answer) = patient(instance, pid, seen, answer).await else { return };
            // A new connection may be kept out by a lock; one that works is not given up.
            let row = match answer {
                Ok(row) => row,
                Err(_) if connection.is_closed() => break,
                Err(error) => {
                    tracing::debug!(%error, "a probe failed");
                    sleep(instance.probe_interval).await;
                    continue;
                }
            };
            let Some(what) = read(instance, &row) else {
                tracing::debug!(?row, "a probe was answered, but not as it should be");
                sleep(instance.probe_interval).await;
                continue;
            };
            if seen.send(Probed { pid, seen: what }).await.is_err() {
                return;
            }
            watch_process(&row, &mut watched);
            if closed.load(Ordering::SeqCst)
                && patient(instance, pid, seen, keep_out(&connection)).await.is_none()
            {
                return;
            }
            if round.is_multiple_of(CARE_EVERY) && matches!(what, Seen::Primary { .. }) {
                let care = patient(instance, pid, seen, care(&connection));
                if care.await.is_none() {
                    return;
                }
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = sleep(instance.probe_interval) => {}
                () = gone(&watched) => watched = None,
            }
        }
        sleep(RECONNECT).await;
    }
}

/// Awaits an answer; reports once if it is late. `None`: nobody listens any more.
async fn patient<T>(
    instance: &Instance,
    pid: u32,
    seen: &mpsc::Sender<Probed>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(answer);
    match timeout(instance.probe_timeout, &mut answer).await {
        Ok(answer) => Some(answer),
        Err(_) => {
            seen.send(Probed { pid, seen: Seen::Late }).await.ok()?;
            Some(answer.await)
        }
    }
}

async fn connect(
    instance: &Arc<Instance>,
    pid: u32,
    seen: &mpsc::Sender<Probed>,
) -> Option<(Connection, Statement)> {
    let attempt = async {
        loop {
            if let Ok(connection) = Connection::open(instance, Commits::Local).await
                && let Ok(statement) = connection.client().prepare(PROBE).await
            {
                return (connection, statement);
            }
            sleep(RECONNECT).await;
        }
    };
    patient(instance, pid, seen, attempt).await
}

/// One row: role; a primary's end, its mirror's confirmed and replayed positions; a standby's
/// received and replayed positions and timeline; the process to watch. It reads no view over
/// `pg_authid` or `pg_database`: a commit that waits for the mirror can hold those locked.
/// The mirror's walsender is one of this very role, by its number.
const PROBE: &str = "SELECT r, \
    CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END::text, \
    m.flush_lsn::text, m.replay_lsn::text, \
    CASE WHEN r THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END::text, \
    CASE WHEN r THEN pg_last_wal_replay_lsn() END::text, \
    CASE WHEN r THEN GREATEST(w.received_tli, \
      (SELECT timeline_id FROM pg_control_checkpoint()), \
      (SELECT min_recovery_end_timeline FROM pg_control_recovery())) END, \
    w.status, COALESCE(m.pid, w.pid) \
    FROM pg_is_in_recovery() r \
    LEFT JOIN LATERAL (SELECT s.pid, s.flush_lsn, s.replay_lsn \
      FROM pg_stat_get_wal_senders() s JOIN pg_stat_get_activity(NULL) a ON a.pid = s.pid \
      WHERE a.application_name = 'backstay_mirror' AND a.usesysid = \
        (SELECT own.usesysid FROM pg_stat_get_activity(pg_backend_pid()) own) \
      AND s.state = 'streaming' AND NOT r ORDER BY flush_lsn DESC NULLS LAST LIMIT 1) m ON true \
    LEFT JOIN pg_stat_wal_receiver w ON r";

fn read(instance: &Instance, row: &Row) -> Option<Seen> {
    let lsn = |i: usize| row.try_get::<_, Option<&str>>(i).ok().flatten().and_then(parse_lsn);
    if row.try_get::<_, bool>(0).ok()? {
        let timeline = row.try_get::<_, Option<i32>>(6).ok()??;
        let told = Timeline(u32::try_from(timeline).ok()?);
        let received = lsn(4)?;
        let timeline = timelines::at(instance, received, told);
        let status = row.try_get::<_, Option<&str>>(7).ok()?;
        let position = Position { timeline, lsn: received };
        Some(Seen::Standby { position, replayed: lsn(5)?, streaming: status == Some("streaming") })
    } else {
        let end = lsn(1)?;
        let mirror = match lsn(2) {
            Some(flushed) => MirrorSeen::Streaming { flushed, end },
            None => MirrorSeen::Away,
        };
        Some(Seen::Primary { mirror, end, mirror_replayed: lsn(3) })
    }
}

fn watch_process(row: &Row, watched: &mut Option<(i32, ProcessHandle)>) {
    let pid = row.try_get::<_, Option<i32>>(8).ok().flatten();
    if watched.as_ref().map(|(pid, _)| *pid) != pid {
        *watched = pid.and_then(|pid| {
            let handle = ProcessHandle::open(u32::try_from(pid).ok()?).ok()?;
            Some((pid, handle))
        });
    }
}

async fn gone(watched: &Option<(i32, ProcessHandle)>) {
    match watched {
        Some((_, handle)) => handle.gone().await,
        None => std::future::pending().await,
    }
}

/// Ends clients that were in the middle of their log-in when the door was closed: nobody sees them
/// before they are through.
async fn keep_out(connection: &Connection) {
    match connection.one(&access::end_clients()).await {
        Ok(Some(count)) if count != "0" => {
            tracing::info!(count, "clients that had slipped in were ended");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "clients cannot be kept out"),
    }
}

/// Makes the mirror's slot anew if its WAL was given up, and ends walsenders that bear one of our
/// names but are not ours: they would acknowledge commits.
async fn care(connection: &Connection) {
    let slot = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_get_replication_slots() \
         WHERE slot_name = '{MIRROR_NAME}' AND wal_status = 'lost' AND NOT active"
    );
    let missing = format!(
        "SELECT pg_create_physical_replication_slot('{MIRROR_NAME}', true) WHERE NOT EXISTS \
         (SELECT FROM pg_get_replication_slots() WHERE slot_name = '{MIRROR_NAME}')"
    );
    let strangers = format!(
        "SELECT a.usesysid, pg_terminate_backend(a.pid) FROM pg_stat_get_wal_senders() s \
         JOIN pg_stat_get_activity(NULL) a ON a.pid = s.pid \
         WHERE a.application_name IN ('{MIRROR_NAME}', '{GUARD_NAME}') \
         AND a.usesysid <> {OWN_ROLE}"
    );
    for statement in [slot, missing] {
        if let Err(error) = connection.run(&statement).await {
            tracing::warn!(%error, "the mirror's slot cannot be looked after");
        }
    }
    match connection.row(&strangers).await {
        Ok(row) => {
            if let Some(Some(role)) = row.first() {
                tracing::error!(role, "a stranger replicated under one of our names and was ended");
            }
        }
        Err(error) => tracing::warn!(%error, "walsenders cannot be listed"),
    }
}
