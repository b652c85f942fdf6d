//! What the agent does with the store while its PostgreSQL serves the store's pool.
//!
//! It opens the store anew with each term and after each failure. Before anything in it is shown,
//! a commit of its own has been waited for: so nothing is ever handed on that a failover could take
//! back. What the process itself has and the store lacks, it puts in.

use std::sync::Arc;
use std::time::Duration;

use copies::Shelf;
use protocol::admin::words::Code;
use protocol::admin::{Refusal, TopologyAnswer, TopologyCopy, TopologyHeader};
use session::Term;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::desk::Newest;
use super::pull::Pulled;
use super::store::{Published, Store, StoreError};
use crate::postgres::{Condition, Instance};
use crate::route::Routes;

const RETRY: Duration = Duration::from_secs(1);

/// What is wanted of the store.
#[derive(Debug)]
pub(super) enum Job {
    Publish { copy: Box<TopologyCopy>, answer: oneshot::Sender<Result<TopologyAnswer, Refusal>> },
    Headers { before: Option<u64>, limit: u32, answer: oneshot::Sender<Vec<TopologyHeader>> },
    Copy { version: u64, answer: oneshot::Sender<Option<TopologyCopy>> },
}

#[derive(Debug)]
pub(super) struct Serving {
    pub server: String,
    pub shelf: Shelf,
    pub routes: Routes,
    /// The pool that holds the store, by this process's copy.
    pub pool: watch::Receiver<Option<String>>,
    /// This process's own copy.
    pub own: watch::Receiver<Newest>,
    pub jobs: mpsc::Receiver<Job>,
    pub found: mpsc::Sender<Pulled>,
    /// Whether the store is open here.
    pub is_open: watch::Sender<bool>,
}

/// The PostgreSQL of the store's pool here, as long as clients are let in.
struct BackEnd {
    instance: Arc<Instance>,
    /// The pool, and the term that its server serves in.
    reign: (String, Term),
}

/// An open store.
struct Open {
    store: Store,
    /// Of the back end that it was opened on.
    reign: (String, Term),
    newest: u64,
}

impl Serving {
    /// Until the process ends.
    pub async fn run(mut self) {
        let mut open: Option<Open> = None;
        let mut complained = false;
        loop {
            let (back_end, condition) = self.back_end();
            let reign = back_end.as_ref().map(|back_end| &back_end.reign);
            let own = self.own.borrow_and_update().as_ref().map_or(0, |own| own.header.version);
            if open.as_ref().is_some_and(|open| Some(&open.reign) != reign || open.newest < own) {
                open = None;
            }
            if let (Some(back_end), None) = (&back_end, &open) {
                match self.open(back_end).await {
                    Ok(opened) => {
                        tracing::info!(newest = opened.newest, "the store is open here");
                        complained = false;
                        open = Some(opened);
                    }
                    Err(error) if !complained => {
                        tracing::warn!(%error, "the Central Management store cannot be opened yet");
                        complained = true;
                    }
                    Err(_) => {}
                }
            }
            self.is_open.send_if_modified(|is_open| {
                std::mem::replace(is_open, open.is_some()) != open.is_some()
            });
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => open = self.perform(job, open.take()).await,
                    None => return,
                },
                () = changed(condition) => {}
                () = self.routes.changed() => {}
                Ok(()) = self.pool.changed() => {}
                Ok(()) = self.own.changed() => {}
                () = sleep(RETRY), if back_end.is_some() && open.is_none() => {}
            }
        }
    }

    fn back_end(&mut self) -> (Option<BackEnd>, Option<watch::Receiver<Condition>>) {
        let Some(pool) = self.pool.borrow_and_update().clone() else { return (None, None) };
        let Some((instance, mut condition)) = self.routes.postgres(&pool) else {
            return (None, None);
        };
        let admitted = condition.borrow_and_update().admitted.clone();
        let back_end = admitted.map(|admitted| BackEnd { instance, reign: (pool, admitted.term) });
        (back_end, Some(condition))
    }

    async fn open(&self, back_end: &BackEnd) -> Result<Open, StoreError> {
        let store = Store::open(&back_end.instance).await?;
        store.settle(&self.server).await?;
        let mut newest = store.copy(None).await?;
        let stored = newest.as_ref().map_or(0, |newest| newest.header.version);
        let own = self.own.borrow().clone();
        if own.is_some_and(|own| own.header.version > stored) {
            let mut copies = self.shelf.copies();
            copies.reverse();
            for copy in &copies {
                store.keep(copy).await?;
            }
            store.settle(&self.server).await?;
            newest = store.copy(None).await?;
        }
        let version = newest.as_ref().map_or(0, |newest| newest.header.version);
        if let Some(newest) = newest {
            self.tell(newest).await;
        }
        Ok(Open { store, reign: back_end.reign.clone(), newest: version })
    }

    async fn tell(&self, copy: TopologyCopy) {
        let _ = self.found.send(Pulled { copy: Arc::new(copy), taken: None }).await;
    }

    /// What is left of the store afterwards: after a failure it is opened anew.
    async fn perform(&self, job: Job, open: Option<Open>) -> Option<Open> {
        let mut open = open?;
        match job {
            Job::Publish { copy, answer } => {
                let (answered, is_sound) = self.publish(&mut open, &copy).await;
                let _ = answer.send(answered);
                is_sound.then_some(open)
            }
            Job::Headers { before, limit, answer } => {
                let headers = open.store.headers(before, limit).await.ok()?;
                let _ = answer.send(headers);
                Some(open)
            }
            Job::Copy { version, answer } => {
                let copy = open.store.copy(Some(version)).await.ok()?;
                let _ = answer.send(copy);
                Some(open)
            }
        }
    }

    /// False: nobody knows what the store holds now.
    async fn publish(
        &self,
        open: &mut Open,
        copy: &TopologyCopy,
    ) -> (Result<TopologyAnswer, Refusal>, bool) {
        match open.store.publish(copy).await {
            Published::Done => {
                let header = copy.header.clone();
                tracing::info!(version = header.version, author = header.author, "published");
                open.newest = header.version;
                self.tell(copy.clone()).await;
                (Ok(TopologyAnswer::Published { header }), true)
            }
            Published::Outdated => match self.winner(&open.store, copy).await {
                Ok(answer) => (Ok(answer), true),
                Err(error) => (Err(in_doubt(&error)), false),
            },
            Published::InDoubt(error) => {
                tracing::warn!(%error, "it is not known whether a version is published");
                (Err(in_doubt(&error)), false)
            }
        }
    }

    /// Another one was published before, or the very same.
    async fn winner(
        &self,
        store: &Store,
        copy: &TopologyCopy,
    ) -> Result<TopologyAnswer, StoreError> {
        store.settle(&self.server).await?;
        let newest = store.copy(None).await?;
        let Some(newest) = newest else {
            return Err(StoreError::Cancelled);
        };
        let is_same = newest.header.version == copy.header.version
            && newest.header.digest == copy.header.digest;
        let header = newest.header.clone();
        self.tell(newest).await;
        Ok(if is_same {
            TopologyAnswer::Published { header }
        } else {
            TopologyAnswer::Outdated { newest: header }
        })
    }
}

fn in_doubt(error: &StoreError) -> Refusal {
    Code::PublishInDoubt.refusal(Some(error.to_string()))
}

async fn changed(condition: Option<watch::Receiver<Condition>>) {
    if let Some(mut condition) = condition
        && condition.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
