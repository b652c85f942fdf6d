//! Asks one partner of the store's pool for a newer version, for as long as it is one.
//!
//! The connection is kept; an answer comes when there is a newer version or after some seconds. A
//! change of how this process stands is told at once. After a loss it tries again about each
//! second, at a moment that differs from process to process.

use std::sync::Arc;
use std::time::Duration;

use protocol::admin::TopologyStanding;
use protocol::admin::{Request, Response, TopologyAnswer, TopologyCopy, TopologyRequest};
use protocol::frame::Kind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::house::random;
use crate::peers::{Channel, ChannelError, Visits};

/// How long an answer may be held.
const HOLD: Duration = Duration::from_secs(5);
/// How much longer one may take before the partner counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts, half a time more or less.
const RETRY: Duration = Duration::from_secs(1);

/// A version that came, and where to say whether it was taken.
#[derive(Debug)]
pub(super) struct Pulled {
    pub copy: Arc<TopologyCopy>,
    pub taken: Option<oneshot::Sender<bool>>,
}

/// Until it is aborted.
pub(super) async fn run(
    mut visits: Visits,
    mut standing: watch::Receiver<TopologyStanding>,
    pulled: mpsc::Sender<Pulled>,
) {
    let mut complained = false;
    loop {
        let ended = match visits.connect().await {
            Ok(channel) => {
                complained = false;
                converse(channel, &mut standing, &pulled).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended
            && !complained
        {
            tracing::debug!(partner = visits.peer(), %error, "the topology cannot be asked for");
            complained = true;
        }
        sleep(spread(RETRY)).await;
    }
}

/// `time`, half of it more or less.
fn spread(time: Duration) -> Duration {
    let chance = random().unwrap_or_default() % 1_000;
    time / 2 + time * u32::try_from(chance).unwrap_or_default() / 1_000
}

async fn converse(
    mut channel: Channel,
    standing: &mut watch::Receiver<TopologyStanding>,
    pulled: &mpsc::Sender<Pulled>,
) -> Result<(), ChannelError> {
    loop {
        let asked = standing.borrow_and_update().clone();
        let wait_ms = u32::try_from(HOLD.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Topology(TopologyRequest::Follow { standing: asked, wait_ms });
        channel.put(Kind::Request, &request.to_bytes())?;
        let late = Instant::now() + HOLD + PATIENCE;
        let answer = loop {
            tokio::select! {
                frame = channel.progress() => if let Some(frame) = frame? {
                    break Some(frame);
                },
                changed = standing.changed() => {
                    changed.map_err(|_| ChannelError::Closed)?;
                    break None;
                }
                () = sleep_until(late) => return Err(ChannelError::Late),
            }
        };
        let Some(answer) = answer else { continue };
        if answer.kind != Kind::Response {
            return Err(ChannelError::NoIntroduction);
        }
        match Response::from_bytes(&answer.payload) {
            Ok(Response::Topology(TopologyAnswer::Newer { copy })) => {
                if !hand_in(copy, pulled).await {
                    sleep(spread(RETRY)).await;
                }
            }
            Ok(Response::Topology(TopologyAnswer::Nothing { .. })) => {}
            // An older version of Backstay, or one that does not know this process.
            Ok(_) | Err(_) => return Err(ChannelError::NoIntroduction),
        }
    }
}

async fn hand_in(copy: TopologyCopy, pulled: &mpsc::Sender<Pulled>) -> bool {
    let (taken, is_taken) = oneshot::channel();
    let handed = pulled.send(Pulled { copy: Arc::new(copy), taken: Some(taken) }).await;
    handed.is_ok() && is_taken.await.unwrap_or(false)
}
