//! Keeps the copy: takes newer versions, follows other servers when they change, and answers.

use std::cell::RefCell;
use std::rc::Rc;

use copies::{Shelf, Unusable, Usable};
use protocol::admin::words::Code;
use protocol::admin::{
    Response, TopologyAnswer, TopologyCopy, TopologyRequest, TopologyShown, TopologySource,
    TopologyStanding,
};
use protocol::handshake::Introduction;
use tokio::sync::futures::Notified;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinHandle, spawn_local};

use super::{parts, pull};
use crate::clock;
use crate::config::{FrontEnd, FrontEndFile, OwnFile, ServerAddress};
use crate::papers::Papers;
use crate::route::Pool;

const HISTORY: u32 = 200;

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Keeper {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    own: OwnFile,
    me: Introduction,
    papers: Papers,
    shelf: Shelf,
    current: RefCell<Option<Usable>>,
    standing: RefCell<TopologyStanding>,
    changed: Notify,
    /// One version is taken after the other.
    taking: Mutex<()>,
    /// What this process runs with, and the view that it feeds.
    running: RefCell<Option<(FrontEndFile, Pool)>>,
    pulls: RefCell<Vec<(ServerAddress, JoinHandle<()>)>>,
}

/// Why a version is not in force.
enum NotTaken {
    Unusable(String),
    Disk(String),
}

impl Keeper {
    /// With the newest copy on the disk that can be used, if there is one.
    pub fn open(own: OwnFile, papers: Papers) -> Keeper {
        let shelf = Shelf::in_state_dir(&own.state_dir);
        if shelf.is_damaged() {
            let dir = shelf.dir().display();
            tracing::error!(%dir, "the copy of the topology is damaged; it will be pulled again");
        }
        let me = Introduction {
            deployment: own.deployment.clone(),
            host: own.name.clone(),
            run: u64::from(std::process::id()),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let standing =
            TopologyStanding { process: own.name.clone(), ..TopologyStanding::default() };
        let shared = Shared {
            own,
            me,
            papers,
            shelf,
            current: RefCell::default(),
            standing: RefCell::new(standing),
            changed: Notify::new(),
            taking: Mutex::new(()),
            running: RefCell::default(),
            pulls: RefCell::default(),
        };
        let keeper = Keeper { shared: Rc::new(shared) };
        for copy in keeper.shared.shelf.copies() {
            let version = copy.header.version;
            match keeper.usable(copy) {
                Ok((usable, wanted)) => {
                    keeper.put_in_force(usable, wanted.as_ref());
                    break;
                }
                Err(error) => {
                    tracing::warn!(version, error, "a copy of the topology is not used");
                }
            }
        }
        keeper
    }

    pub fn introduction(&self) -> &Introduction {
        &self.shared.me
    }

    pub fn papers(&self) -> &Papers {
        &self.shared.papers
    }

    pub fn standing(&self) -> TopologyStanding {
        self.shared.standing.borrow().clone()
    }

    /// Ends at the next change of the copy or of how it stands, counted from the call on.
    pub fn changed(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    /// What this process is to run with; `None`: no copy names it.
    pub fn wanted(&self) -> Option<FrontEndFile> {
        let current = self.shared.current.borrow();
        let current = current.as_ref()?;
        parts::wanted(&self.shared.own, &current.document).ok().flatten()
    }

    /// This process runs with `config` from now on; `pool` follows the servers.
    pub fn runs(&self, config: &FrontEnd, pool: &Pool) {
        *self.shared.running.borrow_mut() = Some((config.file.clone(), pool.clone()));
        self.apply();
    }

    fn usable(&self, copy: TopologyCopy) -> Result<(Usable, Option<FrontEndFile>), String> {
        let own = &self.shared.own;
        let usable = Usable::new(copy, &own.deployment).map_err(|error| error.to_string())?;
        let wanted = parts::wanted(own, &usable.document)?;
        if let Some(file) = &wanted {
            FrontEnd::try_from(file.clone()).map_err(|error| error.to_string())?;
        }
        Ok((usable, wanted))
    }

    /// A version came. True: it is in force, or will never be.
    pub(super) async fn pulled(&self, copy: TopologyCopy) -> bool {
        let _one = self.shared.taking.lock().await;
        let version = copy.header.version;
        if version <= self.shared.standing.borrow().knows() {
            return true;
        }
        let (is_settled, problem) = match self.take(copy).await {
            Ok(()) => return true,
            Err(NotTaken::Unusable(error)) => {
                tracing::error!(version, error, "goes on with the topology that it has");
                (true, format!("version {version} is not used: {error}"))
            }
            Err(NotTaken::Disk(error)) => {
                tracing::error!(version, error, "the topology cannot be stored here");
                (false, error)
            }
        };
        {
            let mut standing = self.shared.standing.borrow_mut();
            standing.refused = is_settled.then_some(version);
            standing.problem = Some(problem);
        }
        self.shared.changed.notify_waiters();
        is_settled
    }

    async fn take(&self, copy: TopologyCopy) -> Result<(), NotTaken> {
        let (usable, wanted) = self.usable(copy).map_err(NotTaken::Unusable)?;
        let (shelf, stored) = (self.shared.shelf.clone(), usable.copy.clone());
        let put = tokio::task::spawn_blocking(move || shelf.put(&stored)).await;
        match put {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(NotTaken::Disk(error.to_string())),
            Err(error) => return Err(NotTaken::Disk(error.to_string())),
        }
        self.put_in_force(usable, wanted.as_ref());
        Ok(())
    }

    fn put_in_force(&self, usable: Usable, wanted: Option<&FrontEndFile>) {
        let header = usable.copy.header.clone();
        tracing::info!(version = header.version, author = header.author, "the topology");
        {
            let mut standing = self.shared.standing.borrow_mut();
            standing.have = header.version;
            standing.digest = Some(header.digest);
            standing.since_ms = self.shared.shelf.since_ms().or_else(|| Some(clock::wall_ms()));
            standing.refused = None;
            standing.problem = wanted.is_none().then(|| {
                "the topology does not name this Front End: it goes on as before".to_owned()
            });
        }
        *self.shared.current.borrow_mut() = Some(usable);
        self.apply();
    }

    /// Makes what runs here as the copy says, as far as that can be done without a restart.
    fn apply(&self) {
        let partners = match self.shared.current.borrow().as_ref() {
            Some(current) => parts::store_partners(&current.document),
            None => Vec::new(),
        };
        let mut running = self.shared.running.borrow_mut();
        if let (Some((file, pool)), Some(wanted)) = (running.as_mut(), self.wanted()) {
            if (&file.first, &file.second) != (&wanted.first, &wanted.second)
                && file.pool == wanted.pool
            {
                tracing::info!("the pool's servers are others: they are followed from now on");
                let servers = [wanted.first.clone(), wanted.second.clone()];
                pool.set_servers(servers);
                file.first = wanted.first.clone();
                file.second = wanted.second.clone();
            }
            let differs = (*file != wanted).then(|| {
                "some of it counts from the next start on: start a second process of this Front \
                 End, which takes over from this one"
                    .to_owned()
            });
            self.shared.standing.borrow_mut().problem = differs;
        }
        drop(running);
        self.pull_from(partners);
        self.shared.changed.notify_waiters();
    }

    /// Asks these processes from now on, and nobody else.
    fn pull_from(&self, partners: Vec<ServerAddress>) {
        let mut pulls = self.shared.pulls.borrow_mut();
        pulls.retain(|(partner, task)| {
            let stays = partners.contains(partner);
            if !stays {
                task.abort();
            }
            stays
        });
        for partner in partners {
            if !pulls.iter().any(|(known, _)| *known == partner) {
                let task = spawn_local(pull::run(self.clone(), partner.clone()));
                pulls.push((partner, task));
            }
        }
    }

    /// What a command asks.
    pub async fn answer(&self, what: TopologyRequest) -> Response {
        match what {
            TopologyRequest::Show { version, document } => self.show(version, document).await,
            TopologyRequest::History { before, limit } => {
                let copies = self.kept().await.into_iter().map(|copy| copy.header);
                let older = copies.filter(|it| before.is_none_or(|before| it.version < before));
                let limit = limit.unwrap_or(HISTORY).min(HISTORY) as usize;
                let versions = older.take(limit).collect();
                let source = TopologySource::Copies;
                Response::Topology(TopologyAnswer::History { versions, source })
            }
            TopologyRequest::Hand { copy } => self.handed(copy).await,
            TopologyRequest::Publish { .. } => Code::NotStore.refusal(None).into(),
            TopologyRequest::Replication | TopologyRequest::Follow { .. } => {
                Code::FrontEnd.refusal(None).into()
            }
        }
    }

    /// All copies on the disk, read beside the client sessions.
    async fn kept(&self) -> Vec<TopologyCopy> {
        let shelf = self.shared.shelf.clone();
        tokio::task::spawn_blocking(move || shelf.copies()).await.unwrap_or_default()
    }

    async fn show(&self, version: Option<u64>, document: bool) -> Response {
        let copy = match version {
            None => self.shared.current.borrow().as_ref().map(|usable| usable.copy.clone()),
            Some(version) => {
                let mut kept = self.kept().await.into_iter();
                let Some(copy) = kept.find(|copy| copy.header.version == version) else {
                    return Code::UnknownVersion.refusal(Some(version.to_string())).into();
                };
                Some(copy)
            }
        };
        let (header, text) = match copy {
            Some(copy) => (Some(copy.header), document.then_some(copy.document)),
            None => (None, None),
        };
        Response::Topology(TopologyAnswer::Shown(TopologyShown {
            process: self.shared.own.name.clone(),
            source: TopologySource::Copies,
            header,
            document: text,
            standing: self.standing(),
        }))
    }

    async fn handed(&self, copy: TopologyCopy) -> Response {
        let _one = self.shared.taking.lock().await;
        let (version, have) = (copy.header.version, self.shared.standing.borrow().have);
        if version <= have {
            return Code::OlderVersion.refusal(Some(format!("it has version {have}"))).into();
        }
        let header = copy.header.clone();
        if let Err(unusable) = Usable::new(copy.clone(), &self.shared.own.deployment) {
            return match unusable {
                Unusable::Damaged => Code::DamagedCopy.refusal(None).into(),
                Unusable::OtherDeployment { found, .. } => {
                    Code::ForeignDocument.refusal(Some(found)).into()
                }
                Unusable::Faulty(findings) => {
                    Response::Topology(TopologyAnswer::Faulty { findings })
                }
            };
        }
        match self.take(copy).await {
            Ok(()) => Response::Topology(TopologyAnswer::Handed { header }),
            Err(NotTaken::Unusable(error) | NotTaken::Disk(error)) => {
                Code::NotTaken.refusal(Some(error)).into()
            }
        }
    }
}
