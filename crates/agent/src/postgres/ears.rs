//! What the driver hears of the running PostgreSQL, whatever it is working on: its end, the guard,
//! the probe, answers to questions. Each becomes a fact for the session, at once.

use std::sync::Arc;

use session::{Ailment, Fact, MirrorSeen, Position};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::condition::{Condition, State};
use super::guard::{Guard, GuardEvent};
use super::instance::Instance;
use super::probe::{Probed, Seen};
use super::replication::parse_lsn;
use super::sql::Connection;
use super::teller::Teller;
use super::timelines;

/// What happens while an order is worked on.
pub struct Ears {
    pub instance: Arc<Instance>,
    pub teller: Teller,
    pub life: watch::Receiver<Option<u32>>,
    pub open: watch::Receiver<bool>,
    pub guard: Option<Guard>,
    pub exited: mpsc::Receiver<u32>,
    pub probed: mpsc::Receiver<Probed>,
    /// A probe was not answered in time, and none has been since.
    pub late: bool,
    pub asked: JoinSet<()>,
}

/// What was heard that the one who listens must act on.
pub enum Heard {
    Nothing,
    /// The server with this process id ended, and nobody had ordered that.
    Exited(u32),
}

impl Ears {
    /// Waits for the next thing, and tells the session of it.
    pub async fn hear(&mut self) -> Heard {
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
            Ok(()) = self.open.changed() => self.opens(),
            Some(probed) = self.probed.recv() => self.seen(probed).await,
            Some(_) = self.asked.join_next() => {}
        }
        Heard::Nothing
    }

    fn lives(&mut self) {
        let pid = *self.life.borrow_and_update();
        self.guard = pid.map(|_| Guard::spawn(&self.instance));
        self.teller.change(|condition| {
            condition.pid = pid;
            condition.state = if pid.is_some() { State::Standby } else { State::Stopped };
            (condition.mirror_flushed, condition.mirror_replayed) = (None, None);
            if pid.is_none() {
                condition.close();
            }
        });
    }

    fn opens(&mut self) {
        let open = *self.open.borrow_and_update();
        self.teller.change(|condition| condition.open = open);
    }

    async fn seen(&mut self, probed: Probed) {
        if *self.life.borrow() != Some(probed.pid) {
            return;
        }
        if probed.seen == Seen::Late {
            self.late = true;
            self.teller.change(|condition| condition.state = State::Unresponsive);
            self.teller.unhealthy(Ailment::Unresponsive).await;
            return;
        }
        if self.late {
            self.late = false;
            self.teller.cured(Ailment::Unresponsive).await;
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

    pub async fn open_guard(&self) {
        match &self.guard {
            Some(guard) => guard.open(),
            None => self.teller.fact(Fact::GuardLost).await,
        }
    }

    pub async fn close_guard(&self) {
        match &self.guard {
            Some(guard) => guard.close(),
            None => self.teller.fact(Fact::GuardClosed).await,
        }
    }

    /// Reads the position; no answer within the deadline is none.
    pub fn read_position(&mut self, sql: Option<&Arc<Connection>>, number: u32) {
        let Some(sql) = sql.cloned() else { return };
        let (instance, teller) = (Arc::clone(&self.instance), self.teller.clone());
        let patience = instance.probe_timeout;
        self.asked.spawn(async move {
            if let Ok(Some(fact)) = timeout(patience, read_position(&instance, &sql, number)).await
            {
                teller.fact(fact).await;
            }
        });
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

/// Of a primary: a position that covers every commit so far, and that is flushed because a small
/// commit follows it. Of a standby: what it has received or replayed, whichever is further.
async fn read_position(instance: &Instance, sql: &Connection, number: u32) -> Option<Fact> {
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
        return Some(Fact::PositionRead { number, position: Position { timeline, lsn } });
    }
    let timeline = timelines::at(instance, lsn, session::Timeline(timeline.parse().ok()?));
    Some(Fact::PositionSeen { position: Position { timeline, lsn } })
}
