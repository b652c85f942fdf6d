//! Who this process is to others, and where handshakes are made.
//!
//! The certificate lies in a directory and is read again when it changes: new connections use the
//! new one, those that are open go on. If the new files cannot be used, the old ones stay in force
//! and the log says why. Handshakes are made on a thread of their own, so that whoever dials us,
//! and however often, costs the sessions' loop nothing. `revoked` in the same directory names,
//! one on each line, whose certificates are refused although their time is not over.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::MemberKind;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use trust::{Credentials, Expected, Identity, Place, Role, Stamp};

use super::audit::Audit;
use crate::clock;
use crate::config::Process;
use crate::enrol::Renewal;
use crate::error::Error;

const LOOK: Duration = Duration::from_secs(2);
const AUDIT: &str = "audit.jsonl";
/// Members dial members.
const MEMBERS: &[Role] = &[Role::Server, Role::Witness];

/// Certificates on every connection. Cheap to clone; the thread ends with the last one.
#[derive(Clone, Debug)]
pub struct Security {
    in_force: watch::Receiver<Arc<InForce>>,
    anteroom: Arc<Anteroom>,
    audit: Option<Audit>,
}

/// What one state of the directory amounts to.
#[derive(Debug)]
struct InForce {
    credentials: Credentials,
    server: Arc<ServerConfig>,
    revoked: BTreeSet<String>,
}

/// A thread with a runtime of its own.
#[derive(Debug)]
struct Anteroom {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

/// The certificate cannot be used, or no thread could be started.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error("cannot start the thread for handshakes: {0}")]
    Thread(#[from] io::Error),
    #[error("cannot keep the audit trail {}: {error}", path.display())]
    Audit { path: PathBuf, error: io::Error },
    #[error(
        "the certificate in {place} is of {found}, but this process is {wanted}: let it join \
         under its own name (backstay join)"
    )]
    OtherIdentity { place: String, found: String, wanted: String },
}

impl Security {
    /// Who `process` is to others. Without a certificate it listens to its own machine alone.
    ///
    /// # Errors
    /// The certificate cannot be used, or there is none where one is needed.
    pub(crate) fn of(process: &Process, kind: MemberKind) -> Result<Option<Security>, Error> {
        let place = Place::new(process.state_dir.join("trust"));
        if place.exists() {
            let role = match kind {
                MemberKind::Server => Role::Server,
                MemberKind::Witness => Role::Witness,
            };
            let security = Security::open(place.clone())?;
            security.must_be(&place, &process.deployment, role, &process.name)?;
            return Ok(Some(security.audited(&process.state_dir)?));
        }
        if process.listen.ip().is_loopback() {
            return Ok(None);
        }
        Err(Error::NoCertificate { address: process.listen, place: place.dir().to_owned() })
    }

    /// Reads who the process is, and goes on watching it.
    ///
    /// # Errors
    /// See `SecurityError`.
    pub fn open(place: Place) -> Result<Security, SecurityError> {
        let stamp = place.stamp();
        let in_force = Arc::new(read(&place)?);
        let anteroom = Arc::new(Anteroom::start()?);
        let (to_force, in_force) = watch::channel(in_force);
        anteroom.handle.spawn(look_after(place, stamp, to_force));
        Ok(Security { in_force, anteroom, audit: None })
    }

    /// Keeps an audit trail in `dir`.
    ///
    /// # Errors
    /// The directory takes no file.
    pub fn audited(mut self, dir: &Path) -> Result<Security, SecurityError> {
        let path = dir.join(AUDIT);
        let opened = Audit::open(&path);
        self.audit = Some(opened.map_err(|error| SecurityError::Audit { path, error })?);
        Ok(self)
    }

    pub(super) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// # Errors
    /// It is not the certificate of this process.
    pub fn must_be(
        &self,
        place: &Place,
        deployment: &str,
        role: Role,
        name: &str,
    ) -> Result<(), SecurityError> {
        let in_force = self.in_force.borrow();
        let found = in_force.credentials.identity();
        if (found.deployment.as_str(), found.role, found.name.as_str()) == (deployment, role, name)
        {
            return Ok(());
        }
        Err(SecurityError::OtherIdentity {
            place: place.dir().display().to_string(),
            found: found.to_string(),
            wanted: format!("{role} {name} of {deployment}"),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.anteroom.handle
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.borrow().server)
    }

    pub(super) fn is_revoked(&self, identity: &Identity) -> bool {
        self.in_force.borrow().revoked.contains(&identity.name)
    }

    /// Returns when `identity` is revoked.
    pub(super) async fn revocation(&self, identity: &Identity) {
        let mut in_force = self.in_force.clone();
        let revoked = in_force.wait_for(|in_force| in_force.revoked.contains(&identity.name));
        if revoked.await.is_err() {
            // Nobody looks any more, because the process ends.
            std::future::pending::<()>().await;
        }
    }

    /// What is left of this process's certificate.
    pub(super) fn left(&self) -> Duration {
        self.in_force.borrow().credentials.own().left(clock::wall())
    }

    /// Runs `work` on the thread for handshakes; it ends with the caller's wait.
    pub(super) async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, &self.anteroom.handle);
        match tasks.join_next().await {
            Some(Ok(done)) => Ok(done),
            Some(Err(_)) | None => Err(io::Error::other("the handshake was given up")),
        }
    }
}

/// One peer's configuration to dial it, made anew when the certificate is.
#[derive(Debug)]
pub(super) struct Dialling {
    security: Security,
    peer: String,
    made: Option<(Arc<InForce>, Arc<ClientConfig>)>,
}

impl Dialling {
    pub fn new(security: Security, peer: &str) -> Dialling {
        Dialling { security, peer: peer.to_owned(), made: None }
    }

    pub fn security(&self) -> &Security {
        &self.security
    }

    pub fn config(&mut self) -> Result<Arc<ClientConfig>, trust::Error> {
        let in_force = Arc::clone(&self.security.in_force.borrow());
        if let Some((from, config)) = &self.made
            && Arc::ptr_eq(from, &in_force)
        {
            return Ok(Arc::clone(config));
        }
        let expected = Expected { name: Some(self.peer.clone()), roles: MEMBERS };
        let config = in_force.credentials.client(expected)?;
        self.made = Some((in_force, Arc::clone(&config)));
        Ok(config)
    }
}

impl Anteroom {
    fn start() -> io::Result<Anteroom> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("handshakes".to_owned()).spawn(move || {
            // Threads inherit the loop's priority, which is not meant for strangers.
            let _ = rustix::process::setpriority_process(None, 0);
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Anteroom { handle, _end: end })
    }
}

fn read(place: &Place) -> Result<InForce, trust::Error> {
    let credentials = place.load()?;
    let server = credentials.server()?;
    Ok(InForce { credentials, server, revoked: place.revoked() })
}

/// Until nobody needs it any more.
async fn look_after(place: Place, mut seen: Stamp, in_force: watch::Sender<Arc<InForce>>) {
    let mut renewal = Renewal::new(place.clone());
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = in_force.closed() => return,
        }
        let found = place.stamp();
        if found != seen {
            // Noted either way: broken files are told once.
            seen = found;
            match read(&place) {
                Ok(read) => {
                    tracing::info!(place = %place.dir().display(), "read the changed certificate");
                    in_force.send_replace(Arc::new(read));
                }
                Err(error) => tracing::warn!(
                    %error,
                    "cannot use the changed certificate, and go on with the one before"
                ),
            }
        }
        let now = Arc::clone(&in_force.borrow());
        renewal.look(&now.credentials).await;
    }
}
