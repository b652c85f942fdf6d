//! Asks one partner of the store's pool for a newer version, as long as it is one.
//!
//! As members do it: the connection is kept, an answer comes when there is a newer version or after
//! some seconds, and after a loss it is tried again about each second.

use std::time::Duration;

use protocol::admin::{Request, Response, TopologyAnswer, TopologyRequest};
use protocol::frame::Kind;
use protocol::handshake::Role;
use tokio::time::{sleep, timeout};

use super::keeper::Keeper;
use crate::config::ServerAddress;
use crate::route::line::{Line, LineError};

const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may be held.
const HOLD: Duration = Duration::from_secs(5);
/// How much longer one may take before the partner counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(500);

/// Until the task is ended.
pub(super) async fn run(keeper: Keeper, partner: ServerAddress) {
    let mut complained = false;
    loop {
        let error = match connect(&keeper, &partner).await {
            Ok(mut line) => {
                complained = false;
                match converse(&keeper, &mut line).await {
                    Ok(never) => match never {},
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !complained {
            tracing::debug!(partner = partner.name, %error, "the topology cannot be asked for");
            complained = true;
        }
        sleep(RETRY + spread()).await;
    }
}

/// Up to a second, so that not all Front Ends come at one moment.
fn spread() -> Duration {
    let mut bytes = [0; 2];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let chance = drawn.map_or(0, |_| u16::from_le_bytes(bytes) % 1_000);
    Duration::from_millis(u64::from(chance))
}

async fn connect(keeper: &Keeper, partner: &ServerAddress) -> Result<Line, LineError> {
    let hello = keeper.introduction().hello(Role::Administrator, &partner.name);
    let dialled = Line::dial(&partner.address, &hello, keeper.papers());
    timeout(CONNECT, dialled).await.map_err(|_| LineError::Silent)?
}

async fn converse(keeper: &Keeper, line: &mut Line) -> Result<std::convert::Infallible, LineError> {
    loop {
        let changed = keeper.changed();
        let wait_ms = u32::try_from(HOLD.as_millis()).unwrap_or(u32::MAX);
        let standing = keeper.standing();
        let request = Request::Topology(TopologyRequest::Follow { standing, wait_ms });
        line.send(Kind::Request, &request.to_bytes()).await?;
        let answer = tokio::select! {
            answer = timeout(HOLD + PATIENCE, line.answer()) => {
                answer.map_err(|_| LineError::Silent)??
            }
            // What it stands at now is told at once; the answer may come later.
            () = changed => continue,
        };
        match answer {
            Response::Topology(TopologyAnswer::Newer { copy }) => {
                if !keeper.pulled(copy).await {
                    sleep(RETRY).await;
                }
            }
            Response::Topology(TopologyAnswer::Nothing { .. }) => {}
            Response::Refused(refusal) => return Err(refusal.into()),
            _other => return Err(LineError::Senseless("answers something else than asked")),
        }
    }
}
