//! The end of a standby's replay: when there is nothing left that it could apply.
//!
//! Positions would be no test, since the one that was received may lie inside a record; what the
//! startup process waits for tells.

use tokio::time::{Instant, sleep};

use super::error::Error;
use super::server::{RECEIVER_TIMEOUT, Server, TICK};

impl Server {
    /// Waits until the standby has replayed all WAL that it has. One that goes on
    /// streaming never comes to an end, which is an error.
    pub async fn replayed(&self) -> Result<(), Error> {
        const DOING: &str = "waiting for the replay";
        if self.is_mute() {
            return Ok(());
        }
        let sql = self.sql()?;
        let mut moved = Instant::now();
        loop {
            let row = sql.row(REPLAY).await.map_err(Error::sql(DOING))?;
            let column = |i: usize| row.get(i).and_then(Option::as_deref);
            if column(0) == Some("RecoveryRetrieveRetryInterval") {
                return Ok(());
            }
            if column(1).is_none() {
                return Err(Error::unexpected(DOING, "it is no standby any more"));
            }
            if column(0) != Some("RecoveryWalStream") {
                moved = Instant::now();
            } else if moved.elapsed() > RECEIVER_TIMEOUT {
                return Err(Error::unexpected(DOING, "it goes on streaming"));
            }
            if column(1) == Some("t") {
                tracing::warn!("the replay was paused and is resumed");
                sql.run("SELECT pg_wal_replay_resume()").await.map_err(Error::sql(DOING))?;
            }
            sleep(TICK).await;
        }
    }
}

const REPLAY: &str = "SELECT (SELECT wait_event FROM pg_stat_get_activity(NULL) \
    WHERE backend_type = 'startup'), \
    CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() <> 'not paused' END";
