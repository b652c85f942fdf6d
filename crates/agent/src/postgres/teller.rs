//! Where the driver and its parts tell what happened: facts to the session, the condition to
//! people.

use session::Fact;
use tokio::sync::{mpsc, watch};

use super::condition::{Condition, Problem, Progress};
use super::error::Error;

#[derive(Clone, Debug)]
pub struct Teller {
    facts: mpsc::Sender<Fact>,
    condition: watch::Sender<Condition>,
}

impl Teller {
    pub fn new(facts: mpsc::Sender<Fact>) -> (Teller, watch::Receiver<Condition>) {
        let (condition, seen) = watch::channel(Condition::default());
        (Teller { facts, condition }, seen)
    }

    /// Waits while the session's queue is full. An ended session hears nothing any more.
    pub async fn fact(&self, fact: Fact) {
        tracing::debug!(?fact, "PostgreSQL");
        let _ = self.facts.send(fact).await;
    }

    pub fn change(&self, change: impl FnOnce(&mut Condition)) {
        self.condition.send_if_modified(|condition| {
            let before = condition.clone();
            change(condition);
            *condition != before
        });
    }

    /// What is being done now; empty: nothing.
    pub fn doing(&self, what: &str) {
        self.change(|condition| {
            what.clone_into(&mut condition.doing);
            condition.progress = None;
        });
    }

    pub fn progress(&self, done: u64, total: u64) {
        self.change(|condition| condition.progress = Some(Progress { done, total }));
    }

    pub fn problem(&self, error: &Error) {
        tracing::warn!(%error, hint = error.hint(), "PostgreSQL");
        self.change(|condition| condition.problem = Some(Problem::from(error)));
    }

    pub fn no_problem(&self) {
        self.change(|condition| condition.problem = None);
    }
}
