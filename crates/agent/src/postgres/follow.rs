//! Following a principal: the way back, then watching the stream for as long as it is ordered.
//!
//! `Streaming` is told only when the receiver has really heard from the principal, on the
//! principal's timeline, and the replay is past the fork. Safe to drop at any moment.

use std::time::Duration;

use session::{Fact, Lsn, Partner, Position, Promotion, Term, Timeline};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::access::Access;
use super::error::Error;
use super::instance::MIRROR_NAME;
use super::pairing;
use super::pidfd::ProcessHandle;
use super::rejoin;
use super::replication::parse_lsn;
use super::server::{Server, TICK};
use super::settings::Upstream;
use super::teller::Teller;
use super::timelines;

/// The rest before the way back is tried again after it failed.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);
/// A stream that does not begin within this time is looked into from the start.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    pub term: Term,
    pub upstream: Upstream,
    pub partner: Partner,
    pub timeline: Timeline,
    /// This partner's newest own promotion.
    pub own: Option<Promotion>,
}

/// Never ends by itself.
pub async fn run(
    server: &mut Server,
    follow: &Follow,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) {
    let mut rest = FIRST_REST;
    loop {
        match once(server, follow, touch, teller).await {
            Ok(()) => rest = FIRST_REST,
            Err(error) => {
                teller.problem(&error);
                sleep(rest).await;
                rest = LONGEST_REST.min(rest * 2);
            }
        }
    }
}

/// From the way back to the loss of a stream that did not come back by itself.
async fn once(
    server: &mut Server,
    follow: &Follow,
    touch: &mut mpsc::Receiver<Term>,
    teller: &Teller,
) -> Result<(), Error> {
    let upstream = pairing::connect(server.instance(), &follow.upstream).await?;
    pairing::check_major(server.version().major, &upstream).await?;
    rejoin::run(server, follow, touch, teller).await?;
    teller.doing("waiting for the stream");
    let mut stream = match stream_begins(server, follow).await {
        Err(Error::Late { .. }) if server.lacks_wal() => {
            tracing::warn!("the principal has no longer the WAL that this copy needs");
            rejoin::copy(server, follow, touch, teller).await?;
            rejoin::start(server, follow).await?;
            stream_begins(server, follow).await?
        }
        begun => begun?,
    };
    pairing::check_collations(server.version().major, server.sql()?, &upstream).await?;
    drop_own_slot(server).await?;
    // From here on it is a mirror, and a mirror may be read from.
    server.set_access(Access::Open)?;
    loop {
        teller.doing("");
        teller.no_problem();
        teller.fact(Fact::Streaming { term: follow.term, position: stream.position }).await;
        let watched = watch_stream(server, stream.receiver).await;
        teller.fact(Fact::StreamLost { term: follow.term }).await;
        watched?;
        // The standby tries again by itself, every wal_retrieve_retry_interval.
        stream = stream_begins(server, follow).await?;
    }
}

struct Stream {
    receiver: u32,
    position: Position,
}

/// The receiver's first message from the principal sets the time of its sending apart from the
/// time of its receipt; until then both are the receiver's start.
const STREAM: &str = "SELECT w.pid, w.received_tli, \
    GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), pg_last_wal_replay_lsn() \
    FROM pg_stat_wal_receiver w WHERE w.status = 'streaming' \
    AND w.last_msg_send_time IS DISTINCT FROM w.last_msg_receipt_time";

async fn stream_begins(server: &Server, follow: &Follow) -> Result<Stream, Error> {
    const DOING: &str = "waiting for the stream from the principal";
    let begun = Instant::now();
    loop {
        let row = server.sql()?.row(STREAM).await.map_err(Error::sql(DOING))?;
        let column = |i: usize| row.get(i).and_then(Option::as_deref);
        let receiver: Option<u32> = column(0).and_then(|text| text.parse().ok());
        let timeline = column(1).and_then(|text| text.parse().ok()).map(Timeline);
        let flushed = column(2).and_then(parse_lsn);
        let replayed = column(3).and_then(parse_lsn);
        if let (Some(receiver), Some(lsn), Some(replayed)) = (receiver, flushed, replayed)
            && timeline == Some(follow.timeline)
            && replayed >= fork(server, follow.timeline)?
        {
            let position = Position { timeline: follow.timeline, lsn };
            return Ok(Stream { receiver, position });
        }
        if begun.elapsed() > STREAM_PATIENCE {
            return Err(Error::Late { doing: DOING });
        }
        sleep(TICK * 2).await;
    }
}

fn fork(server: &Server, timeline: Timeline) -> Result<Lsn, Error> {
    if timeline == Timeline::INITIAL {
        return Ok(Lsn(0));
    }
    Ok(timelines::fork_of(server.instance(), timeline)?.lsn)
}

/// Returns when the stream is lost: at once if the receiver ends, else with the next look.
async fn watch_stream(server: &Server, receiver: u32) -> Result<(), Error> {
    let Ok(handle) = ProcessHandle::open(receiver) else { return Ok(()) };
    loop {
        if timeout(server.instance().probe_interval, handle.gone()).await.is_ok() {
            return Ok(());
        }
        let row = server.sql()?.row(STREAM).await.map_err(Error::sql("watching the stream"))?;
        let now = row.first().and_then(Option::as_deref);
        if now != Some(receiver.to_string().as_str()) {
            return Ok(());
        }
    }
}

/// A former principal's slot for its mirror would keep WAL for nobody.
async fn drop_own_slot(server: &Server) -> Result<(), Error> {
    let statement = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_get_replication_slots() \
         WHERE slot_name = '{MIRROR_NAME}' AND NOT active"
    );
    server.sql()?.run(&statement).await.map_err(Error::sql("dropping the former mirror's slot"))
}
