//! Where the members' port takes what is asked about the topology.

use std::sync::Arc;

use protocol::admin::words::Code;
use protocol::admin::{Response, TopologyCopy, TopologyRequest, TopologyStanding};
use tokio::sync::{mpsc, oneshot, watch};

const ASKS: usize = 64;
const REPORTS: usize = 4_096;

/// The newest version that may be handed on.
pub(super) type Newest = Option<Arc<TopologyCopy>>;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(super) struct Ask {
    pub what: TopologyRequest,
    /// The name in the certificate of whoever asks.
    pub visitor: Option<String>,
    pub answer: oneshot::Sender<Response>,
}

/// What others say of their copies.
#[derive(Debug)]
pub(super) enum Report {
    Came(TopologyStanding),
    Told(TopologyStanding),
    /// The connection of this process has ended.
    Left(String),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    asks: mpsc::Sender<Ask>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) newest: watch::Receiver<Newest>,
}

/// The keeper's side.
#[derive(Debug)]
pub(super) struct Inbox {
    pub asks: mpsc::Receiver<Ask>,
    pub reports: mpsc::Receiver<Report>,
    pub newest: watch::Sender<Newest>,
}

impl Desk {
    pub(super) fn new() -> (Desk, Inbox) {
        let (to_ask, asks) = mpsc::channel(ASKS);
        let (to_report, reports) = mpsc::channel(REPORTS);
        let (newest, shown) = watch::channel(None);
        let desk = Desk { asks: to_ask, reports: to_report, newest: shown };
        (desk, Inbox { asks, reports, newest })
    }

    pub(crate) async fn ask(&self, what: TopologyRequest, visitor: Option<String>) -> Response {
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(Ask { what, visitor, answer }).is_err() {
            return Code::TooBusy.refusal(None).into();
        }
        answered.await.unwrap_or_else(|_| Code::Unanswered.refusal(None).into())
    }
}
