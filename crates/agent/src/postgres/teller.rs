//! Where the driver and its parts tell what happened: facts to the session, the condition to
//! people.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use session::{Ailment, Fact, Term};
use tokio::sync::{mpsc, watch};

use super::condition::{Condition, Problem, Progress};
use super::error::Error;

#[derive(Clone, Debug)]
pub struct Teller {
    facts: mpsc::Sender<Fact>,
    /// The ailments that last, one bit each: it is healthy only when none does.
    ailments: Arc<AtomicU8>,
    condition: watch::Sender<Condition>,
}

impl Teller {
    pub fn new(facts: mpsc::Sender<Fact>) -> (Teller, watch::Receiver<Condition>) {
        let (condition, seen) = watch::channel(Condition::default());
        (Teller { facts, ailments: Arc::default(), condition }, seen)
    }

    /// Waits while the session's queue is full. An ended session hears nothing any more.
    pub async fn fact(&self, fact: Fact) {
        tracing::debug!(?fact, "PostgreSQL");
        let _ = self.facts.send(fact).await;
    }

    pub async fn unhealthy(&self, ailment: Ailment) {
        self.ailments.fetch_or(bit(ailment), Ordering::SeqCst);
        self.fact(Fact::Unhealthy(ailment)).await;
    }

    /// This ailment is over. The session hears of it when no other lasts.
    pub async fn cured(&self, ailment: Ailment) {
        let before = self.ailments.fetch_and(!bit(ailment), Ordering::SeqCst);
        if before == bit(ailment) {
            self.fact(Fact::Healthy).await;
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut Condition)) {
        self.condition.send_if_modified(|condition| {
            let before = condition.clone();
            change(condition);
            *condition != before
        });
    }

    /// The term in which clients are let in.
    pub fn admitted(&self) -> Option<Term> {
        self.condition.borrow().admitted.as_ref().map(|admitted| admitted.term)
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

    /// What stands in the way now. It is logged when it changes, not with every attempt.
    pub fn problem(&self, error: &Error) {
        let problem = Some(Problem::from(error));
        let stands = self.condition.borrow().problem == problem;
        if stands {
            tracing::debug!(%error, "PostgreSQL, again");
        } else {
            tracing::warn!(%error, hint = error.hint(), "PostgreSQL");
        }
        self.change(|condition| condition.problem = problem);
    }

    pub fn no_problem(&self) {
        self.change(|condition| condition.problem = None);
    }
}

fn bit(ailment: Ailment) -> u8 {
    match ailment {
        Ailment::Storage => 1,
        Ailment::Unresponsive => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_cure_does_not_hide_another_ailment() {
        let (facts, mut told) = mpsc::channel(8);
        let (teller, _condition) = Teller::new(facts);
        teller.unhealthy(Ailment::Storage).await;
        teller.unhealthy(Ailment::Unresponsive).await;
        teller.cured(Ailment::Unresponsive).await;
        teller.cured(Ailment::Unresponsive).await;
        teller.cured(Ailment::Storage).await;
        drop(teller);
        let mut all = Vec::new();
        while let Some(fact) = told.recv().await {
            all.push(fact);
        }
        let ailing = [Ailment::Storage, Ailment::Unresponsive].map(Fact::Unhealthy);
        assert_eq!(all, [ailing[0], ailing[1], Fact::Healthy]);
    }
}
