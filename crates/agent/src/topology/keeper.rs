//! Keeps this process's copy: takes newer versions, works from them, and answers what is asked.
//!
//! A newer version is checked, written to the disk, and only then used. One that cannot be used
//! leaves the one before in force, and the reason is told to whoever asks who has which version.

use std::collections::BTreeMap;
use std::sync::Arc;

use copies::{Shelf, Unusable, Usable};
use protocol::admin::words::Code;
use protocol::admin::{
    Response, TopologyAnswer, TopologyCopy, TopologyReplication, TopologyRequest, TopologyShown,
    TopologySource, TopologyStanding,
};
use protocol::handshake::Introduction;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::desk::{Ask, Desk, Inbox};
use super::parts::{Own, Wanted, fixed};
use super::places;
use super::publishing::refused;
use super::pull::{self, Pulled};
use super::roster::Roster;
use super::serving::{Job, Serving};
use crate::clock;
use crate::config::{Address, Change, Server, Witness};
use crate::error::Error;
use crate::house::random;
use crate::peers::{Security, Visits};
use crate::route::Routes;

const JOBS: usize = 16;
const PULLED: usize = 16;
const HISTORY: u32 = 200;

/// Dropped, all that it has started ends.
#[derive(Debug)]
pub(crate) struct Keeper {
    own: Own,
    shelf: Shelf,
    inbox: Inbox,
    current: Option<Usable>,
    started: Option<Box<Server>>,
    /// What the parts of this process are to be.
    change: Change,
    standing: TopologyStanding,
}

/// A keeper at work.
pub(super) struct Work {
    own: Own,
    pub(super) me: Introduction,
    shelf: Shelf,
    inbox: Inbox,
    pub(super) current: Option<Usable>,
    /// What the server started with; `None`: a witness.
    started: Option<Box<Server>>,
    change: Change,
    /// By the process's own file, unless it works from its copy.
    changes: mpsc::Sender<Change>,
    standing: watch::Sender<TopologyStanding>,
    current_shown: watch::Sender<super::desk::Newest>,
    store_pool: watch::Sender<Option<String>>,
    jobs: mpsc::Sender<Job>,
    store_is_open: watch::Receiver<bool>,
    roster: Roster,
    pub(super) security: Option<Security>,
    pulls: BTreeMap<String, (Address, AbortHandle)>,
    pulled: mpsc::Sender<Pulled>,
    pub(super) tasks: JoinSet<()>,
}

impl Keeper {
    /// A server's keeper; a file without pools gets those of its copy.
    ///
    /// # Errors
    /// There are copies, but none that can be used.
    pub(crate) fn of_server(config: &mut Server) -> Result<(Keeper, Desk), Error> {
        let (mut keeper, desk, wanted) = Keeper::open(Own::Server(Box::new(config.clone())))?;
        if let Some(Wanted { server: Some(server), .. }) = wanted {
            *config = *server;
        }
        keeper.started = Some(Box::new(config.clone()));
        Ok((keeper, desk))
    }

    /// A witness's keeper.
    ///
    /// # Errors
    /// There are copies, but none that can be used.
    pub(crate) fn of_witness(config: &mut Witness) -> Result<(Keeper, Desk), Error> {
        let (keeper, desk, wanted) = Keeper::open(Own::Witness(Box::new(config.clone())))?;
        if let Some(Wanted { witness: Some(witness), .. }) = wanted {
            *config = *witness;
        }
        Ok((keeper, desk))
    }

    fn open(own: Own) -> Result<(Keeper, Desk, Option<Wanted>), Error> {
        let process = own.process().clone();
        let shelf = Shelf::in_state_dir(&process.state_dir);
        if shelf.is_damaged() {
            let dir = shelf.dir().display();
            tracing::error!(%dir, "the copy of the topology is damaged; it will be pulled again");
        }
        let (desk, inbox) = Desk::new();
        let standing =
            TopologyStanding { process: process.name.clone(), ..TopologyStanding::default() };
        let change = Change::default();
        let mut keeper =
            Keeper { own, shelf, inbox, current: None, started: None, change, standing };
        let mut wanted = None;
        let mut reason = None;
        for copy in keeper.shelf.copies() {
            let version = copy.header.version;
            match keeper.usable(copy, &process.deployment) {
                Ok((usable, found)) => {
                    keeper.begin(usable, &found);
                    wanted = keeper.own.is_governed().then_some(found);
                    break;
                }
                Err(error) => {
                    tracing::warn!(version, error, "a copy of the topology is not used");
                    reason.get_or_insert((version, error));
                }
            }
        }
        if let (None, Some((version, error)), true) =
            (&keeper.current, &reason, keeper.own.is_governed())
        {
            return Err(Error::Refused(format!(
                "this process has copies of the topology and cannot use any: version {version}: \
                 {error}; update Backstay, or move {} away to begin without a copy",
                keeper.shelf.dir().display()
            )));
        }
        Ok((keeper, desk, wanted))
    }

    fn usable(&self, copy: TopologyCopy, deployment: &str) -> Result<(Usable, Wanted), String> {
        let usable = Usable::new(copy, deployment).map_err(|error| error.to_string())?;
        let wanted = self.own.wanted(&usable.document, &self.change)?;
        Ok((usable, wanted))
    }

    fn begin(&mut self, usable: Usable, wanted: &Wanted) {
        let header = &usable.copy.header;
        tracing::info!(version = header.version, "works from its copy of the topology");
        self.standing.have = header.version;
        self.standing.digest = Some(header.digest.clone());
        self.standing.since_ms = self.shelf.since_ms().or_else(|| Some(clock::wall_ms()));
        self.standing.problem = problem(&self.own, wanted);
        self.change = wanted.change.clone();
        self.current = Some(usable);
    }

    /// What the parts are to be at the start, unless the process's own file says it.
    pub(crate) fn change(&self) -> Option<Change> {
        (self.own.is_governed() && self.current.is_some()).then(|| self.change.clone())
    }

    /// Begins to work in the current runtime. `reloads` are the changes of the process's own file;
    /// what comes back are the changes that count.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn start(
        self,
        routes: Routes,
        security: Option<Security>,
        reloads: mpsc::Receiver<Change>,
    ) -> Result<(JoinSet<()>, mpsc::Receiver<Change>), Error> {
        let process = self.own.process();
        let me = Introduction {
            deployment: process.deployment.clone(),
            host: process.name.clone(),
            run: random()?,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (changes, changed) = mpsc::channel(1);
        let (jobs, to_do) = mpsc::channel(JOBS);
        let (pulled, incoming) = mpsc::channel(PULLED);
        let (store_pool, pool) = watch::channel(None);
        let (current_shown, own) = watch::channel(None);
        let (is_open, store_is_open) = watch::channel(false);
        let serving = Serving {
            server: process.name.clone(),
            shelf: self.shelf.clone(),
            routes,
            pool,
            own,
            jobs: to_do,
            found: pulled.clone(),
            is_open,
        };
        let mut work = Work {
            me,
            own: self.own,
            shelf: self.shelf,
            inbox: self.inbox,
            current: self.current,
            started: self.started,
            change: self.change,
            changes,
            standing: watch::Sender::new(self.standing),
            current_shown,
            store_pool,
            jobs,
            store_is_open,
            roster: Roster::default(),
            security,
            pulls: BTreeMap::new(),
            pulled,
            tasks: JoinSet::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serving.run());
        tasks.spawn(async move {
            work.show_current();
            work.run(reloads, incoming).await;
        });
        Ok((tasks, changed))
    }
}

/// What is to be said of a process that has `wanted` in force.
fn problem(own: &Own, wanted: &Wanted) -> Option<String> {
    if own.is_governed() {
        return wanted.problem.clone();
    }
    Some(
        "not used: this process's own file has [[pool]] sections, which count; take them out and \
         restart it"
            .to_owned(),
    )
}

impl Work {
    async fn run(
        &mut self,
        mut reloads: mpsc::Receiver<Change>,
        mut incoming: mpsc::Receiver<Pulled>,
    ) {
        loop {
            tokio::select! {
                Some(ask) = self.inbox.asks.recv() => self.answer(ask).await,
                Some(report) = self.inbox.reports.recv() => self.roster.note(report, clock::now()),
                Some(reload) = reloads.recv() => self.reloaded(reload).await,
                Some(Pulled { copy, taken }) = incoming.recv() => {
                    let is_taken = self.pulled(copy).await;
                    let _ = taken.map(|taken| taken.send(is_taken));
                }
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// The process's own file was read again. Where the copy counts, only what is retired in the
    /// file is looked at.
    async fn reloaded(&mut self, reload: Change) {
        if !self.own.is_governed() {
            let _ = self.changes.send(reload).await;
            return;
        }
        if !reload.wanted.is_empty() && self.current.is_none() {
            // No topology has come yet: from now on the file decides.
            self.own.have(&reload);
            let _ = self.changes.send(reload).await;
            return;
        }
        if !reload.wanted.is_empty() {
            tracing::error!(
                "this process works from its copy of the topology: [[pool]] sections in its own \
                 file count from the next start on"
            );
            return;
        }
        self.change.retired.extend(reload.retired);
        let _ = self.changes.send(self.change.clone()).await;
    }

    /// True: it is in force, or will never be.
    async fn pulled(&mut self, copy: Arc<TopologyCopy>) -> bool {
        let version = copy.header.version;
        self.inbox.newest.send_if_modified(|newest| {
            let is_newer = newest.as_ref().is_none_or(|newest| newest.header.version < version);
            if is_newer && copies::is_whole(&copy) {
                *newest = Some(Arc::clone(&copy));
            }
            is_newer
        });
        if version <= self.standing.borrow().knows() {
            return true;
        }
        match self.take((*copy).clone()).await {
            Ok(()) => true,
            Err(NotTaken::Unusable(error)) => {
                let problem = format!("version {version} is not used: {error}");
                tracing::error!(version, error, "goes on with the topology that it has");
                self.standing.send_modify(|standing| {
                    standing.refused = Some(version);
                    standing.problem = Some(problem);
                });
                true
            }
            Err(NotTaken::Disk(error)) => {
                tracing::error!(version, error, "the topology cannot be stored here");
                self.standing.send_modify(|standing| standing.problem = Some(error));
                false
            }
        }
    }

    async fn take(&mut self, copy: TopologyCopy) -> Result<(), NotTaken> {
        let deployment = self.own.process().deployment.clone();
        let unusable = |error: Unusable| NotTaken::Unusable(error.to_string());
        let usable = Usable::new(copy, &deployment).map_err(unusable)?;
        let wanted = self.own.wanted(&usable.document, &self.change).map_err(NotTaken::Unusable)?;
        let (shelf, stored) = (self.shelf.clone(), usable.copy.clone());
        let put = tokio::task::spawn_blocking(move || shelf.put(&stored)).await;
        match put {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(NotTaken::Disk(error.to_string())),
            Err(error) => return Err(NotTaken::Disk(error.to_string())),
        }
        let header = &usable.copy.header;
        tracing::info!(version = header.version, author = header.author, "a new topology");
        let fixed = self.started.as_ref().and_then(|started| fixed(started, &wanted));
        let problem = problem(&self.own, &wanted).or(fixed);
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the topology is not in force as it is written");
        }
        self.standing.send_modify(|standing| {
            standing.have = header.version;
            standing.digest = Some(header.digest.clone());
            standing.since_ms = Some(clock::wall_ms());
            standing.refused = None;
            standing.problem = problem;
        });
        self.current = Some(usable);
        self.show_current();
        if self.own.is_governed() {
            self.change = wanted.change;
            let _ = self.changes.send(self.change.clone()).await;
        }
        Ok(())
    }

    /// Those who work beside hear which copy counts now.
    fn show_current(&mut self) {
        let Some(usable) = &self.current else { return };
        let copy = Arc::new(usable.copy.clone());
        let version = copy.header.version;
        self.inbox.newest.send_if_modified(|newest| {
            let is_newer = newest.as_ref().is_none_or(|newest| newest.header.version < version);
            if is_newer {
                *newest = Some(Arc::clone(&copy));
            }
            is_newer
        });
        self.current_shown.send_replace(Some(copy));
        let pool = usable.document.central_management.as_ref().map(|pool| pool.value.clone());
        self.store_pool.send_if_modified(|before| {
            let is_other = *before != pool;
            *before = pool;
            is_other
        });
        self.pull_from(places::store_partners(&usable.document));
    }

    /// Asks these processes from now on, and nobody else.
    fn pull_from(&mut self, partners: Vec<Address>) {
        let partners: BTreeMap<String, Address> = partners
            .into_iter()
            .filter(|partner| partner.name != self.me.host)
            .map(|partner| (partner.name.clone(), partner))
            .collect();
        self.pulls.retain(|name, (address, task)| {
            let stays = partners.get(name) == Some(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, address) in partners {
            if self.pulls.contains_key(&name) {
                continue;
            }
            let visits = Visits::new(&self.me, self.security.as_ref(), address.clone());
            let (standing, pulled) = (self.standing.subscribe(), self.pulled.clone());
            let task = self.tasks.spawn(pull::run(visits, standing, pulled));
            self.pulls.insert(name, (address, task));
        }
    }

    async fn answer(&mut self, ask: Ask) {
        let Ask { what, visitor, answer } = ask;
        match what {
            TopologyRequest::Show { version, document } => self.show(version, document, answer),
            TopologyRequest::History { before, limit } => {
                self.history(before, limit.unwrap_or(HISTORY).min(HISTORY), answer);
            }
            TopologyRequest::Replication => {
                let replication = TopologyAnswer::Replication(self.replication());
                let _ = answer.send(Response::Topology(replication));
            }
            TopologyRequest::Publish { base, document, author, comment } => {
                let author = visitor.unwrap_or(author);
                self.publish(base, document, &author, &comment, answer);
            }
            TopologyRequest::Hand { copy } => {
                let _ = answer.send(self.handed(copy).await);
            }
            TopologyRequest::Follow { .. } => {
                let _ = answer.send(Code::UnknownRequest.refusal(None).into());
            }
        }
    }

    fn show(&mut self, version: Option<u64>, document: bool, answer: oneshot::Sender<Response>) {
        let standing = self.standing.borrow().clone();
        let process = self.me.host.clone();
        let shown = move |copy: Option<TopologyCopy>, source| {
            let (header, text) = match copy {
                Some(copy) => (Some(copy.header), document.then_some(copy.document)),
                None => (None, None),
            };
            let shown = TopologyShown { process, source, header, document: text, standing };
            Response::Topology(TopologyAnswer::Shown(shown))
        };
        let Some(version) = version else {
            let copy = self.current.as_ref().map(|usable| usable.copy.clone());
            let _ = answer.send(shown(copy, TopologySource::Copies));
            return;
        };
        let (jobs, shelf) = (self.open_store(), self.shelf.clone());
        self.tasks.spawn(async move {
            let stored = match jobs {
                Some(jobs) => ask(&jobs, |answer| Job::Copy { version, answer }).await,
                None => None,
            };
            let (copy, source) = match stored {
                Some(copy) => (copy, TopologySource::Store),
                None => (kept(move || shelf.copy(version)).await, TopologySource::Copies),
            };
            let response = match copy {
                Some(copy) => shown(Some(copy), source),
                None => Code::UnknownVersion.refusal(Some(version.to_string())).into(),
            };
            let _ = answer.send(response);
        });
    }

    fn history(&mut self, before: Option<u64>, limit: u32, answer: oneshot::Sender<Response>) {
        let (jobs, shelf) = (self.open_store(), self.shelf.clone());
        self.tasks.spawn(async move {
            let stored = match jobs {
                Some(jobs) => ask(&jobs, |answer| Job::Headers { before, limit, answer }).await,
                None => None,
            };
            let (versions, source) = match stored {
                Some(versions) => (versions, TopologySource::Store),
                None => {
                    let copies = kept(move || shelf.copies()).await;
                    let headers = copies.into_iter().map(|copy| copy.header);
                    let older =
                        headers.filter(|it| before.is_none_or(|before| it.version < before));
                    (older.take(limit as usize).collect(), TopologySource::Copies)
                }
            };
            let history = TopologyAnswer::History { versions, source };
            let _ = answer.send(Response::Topology(history));
        });
    }

    fn replication(&self) -> TopologyReplication {
        let newest = self.inbox.newest.borrow().clone();
        let deployment = &self.me.deployment;
        let document = newest.as_ref().and_then(|newest| {
            let known = self.current.as_ref().filter(|it| it.copy.header == newest.header);
            known.map(|usable| usable.document.clone()).or_else(|| {
                Usable::new((**newest).clone(), deployment).ok().map(|usable| usable.document)
            })
        });
        let header = newest.map(|newest| newest.header.clone());
        let standing = self.standing.borrow().clone();
        let processes =
            self.roster.holders(document.as_ref(), header.as_ref(), &standing, clock::now());
        TopologyReplication {
            process: self.me.host.clone(),
            is_store: *self.store_is_open.borrow(),
            newest: header,
            processes,
        }
    }

    async fn handed(&mut self, copy: TopologyCopy) -> Response {
        let (version, have) = (copy.header.version, self.standing.borrow().have);
        if version <= have {
            return Code::OlderVersion.refusal(Some(format!("it has version {have}"))).into();
        }
        if let Err(unusable) = Usable::new(copy.clone(), &self.me.deployment) {
            return refused(unusable);
        }
        let header = copy.header.clone();
        match self.take(copy).await {
            Ok(()) => Response::Topology(TopologyAnswer::Handed { header }),
            Err(NotTaken::Unusable(error) | NotTaken::Disk(error)) => {
                Code::NotTaken.refusal(Some(error)).into()
            }
        }
    }

    /// `None`: the store is not open here.
    pub(super) fn open_store(&self) -> Option<mpsc::Sender<Job>> {
        self.store_is_open.borrow().then(|| self.jobs.clone())
    }
}

/// Why a version is not in force.
enum NotTaken {
    Unusable(String),
    Disk(String),
}

/// `None`: the store was lost meanwhile.
pub(super) async fn ask<T>(
    jobs: &mpsc::Sender<Job>,
    job: impl FnOnce(oneshot::Sender<T>) -> Job,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    jobs.send(job(answer)).await.ok()?;
    answered.await.ok()
}

async fn kept<T: Default + Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}
