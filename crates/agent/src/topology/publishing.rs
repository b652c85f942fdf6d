//! A new version is asked for: what is looked at before the store is, and who has it if not we.

use std::time::Duration;

use copies::Unusable;
use protocol::admin::words::Code;
use protocol::admin::{
    COMMENT_LIMIT, DOCUMENT_LIMIT, Refusal, Request, Response, TopologyAnswer, TopologyCopy,
    TopologyRequest,
};
use protocol::frame::Kind;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::keeper::{Work, ask};
use super::places;
use super::serving::Job;
use crate::clock;
use crate::peers::{ChannelError, Visits};

/// How long another partner may take to say whether it has the store.
const PATIENCE: Duration = Duration::from_secs(2);

impl Work {
    pub(super) fn publish(
        &mut self,
        base: u64,
        document: String,
        author: &str,
        comment: &str,
        answer: oneshot::Sender<Response>,
    ) {
        let copy = match self.new_version(base, document, author, comment) {
            Ok(copy) => Box::new(copy),
            Err(response) => {
                let _ = answer.send(*response);
                return;
            }
        };
        let Some(jobs) = self.open_store() else {
            self.refuse_for_want_of_the_store(answer);
            return;
        };
        self.tasks.spawn(async move {
            let published = ask(&jobs, |answer| Job::Publish { copy, answer }).await;
            let response = match published {
                Some(Ok(answer)) => Response::Topology(answer),
                Some(Err(refusal)) => refusal.into(),
                None => Code::StoreAway.refusal(None).into(),
            };
            let _ = answer.send(response);
        });
    }

    fn new_version(
        &self,
        base: u64,
        document: String,
        author: &str,
        comment: &str,
    ) -> Result<TopologyCopy, Box<Response>> {
        let refuse = |response: Response| Err(Box::new(response));
        let too_long = |text: &str| text.chars().count() > COMMENT_LIMIT;
        if document.len() > DOCUMENT_LIMIT || too_long(author) || too_long(comment) {
            return refuse(Code::DocumentTooLarge.refusal(None).into());
        }
        let checked = match copies::check(&document, &self.me.deployment) {
            Ok(checked) => checked,
            Err(unusable) => return refuse(refused(unusable)),
        };
        if let Some(current) = &self.current {
            let findings = places::changed(&current.document, &checked, &document);
            if !findings.is_empty() {
                return refuse(Response::Topology(TopologyAnswer::Faulty { findings }));
            }
        }
        let (author, comment) = (plain(author), plain(comment));
        let version = base.saturating_add(1);
        Ok(copies::seal(version, clock::wall_ms(), &author, &comment, document))
    }

    /// Says who has the store, or why nobody does.
    fn refuse_for_want_of_the_store(&mut self, answer: oneshot::Sender<Response>) {
        let Some(current) = &self.current else {
            let _ = answer.send(Code::NoTopology.refusal(None).into());
            return;
        };
        let partners = places::store_partners(&current.document).into_iter();
        let others = partners.filter(|partner| partner.name != self.me.host);
        let visits: Vec<Visits> =
            others.map(|other| Visits::new(&self.me, self.security.as_ref(), other)).collect();
        self.tasks.spawn(async move {
            let _ = answer.send(who_has_the_store(visits).await.into());
        });
    }
}

async fn who_has_the_store(others: Vec<Visits>) -> Refusal {
    let mut reasons = Vec::new();
    for mut other in others {
        let name = other.peer().to_owned();
        match timeout(PATIENCE, has_the_store(&mut other)).await {
            Ok(Ok(true)) => return Code::NotStore.refusal(Some(format!("ask {name}"))),
            Ok(Ok(false)) => reasons.push(format!("{name} does not serve it")),
            Ok(Err(error)) => reasons.push(format!("{name} is not reached: {error}")),
            Err(_) => reasons.push(format!("{name} does not answer")),
        }
    }
    Code::StoreAway.refusal((!reasons.is_empty()).then(|| reasons.join("; ")))
}

async fn has_the_store(other: &mut Visits) -> Result<bool, ChannelError> {
    let mut channel = other.connect().await?;
    let request = Request::Topology(TopologyRequest::Replication);
    channel.put(Kind::Request, &request.to_bytes())?;
    let frame = channel.receive().await?;
    match Response::from_bytes(&frame.payload) {
        Ok(Response::Topology(TopologyAnswer::Replication(told))) => Ok(told.is_store),
        Ok(_) | Err(_) => Err(ChannelError::NoIntroduction),
    }
}

pub(super) fn refused(unusable: Unusable) -> Response {
    match unusable {
        Unusable::Damaged => Code::DamagedCopy.refusal(None).into(),
        Unusable::OtherDeployment { found, .. } => {
            Code::ForeignDocument.refusal(Some(found)).into()
        }
        Unusable::Faulty(findings) => Response::Topology(TopologyAnswer::Faulty { findings }),
    }
}

/// Shown on terminals, and put into lines of logs.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
