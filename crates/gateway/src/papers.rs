//! Who this Front End is to members and to commands: its certificate, in `trust` of the state
//! directory.
//!
//! The files are looked at whenever a connection is made, so that a renewed certificate needs no
//! restart; if the new ones cannot be used, the old ones stay in force and the log says why.
//! Without a certificate nothing is encrypted, and commands are answered on loopback alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use trust::{Certificate, Credentials, Expected, Identity, Place, Role, Stamp};

use crate::clock;
use crate::config::FrontEnd;

/// The certificate cannot be used, or there is none where one is needed.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error(
        "this Front End has no certificate (there is none in {}), so admin_listen may be a \
         loopback address alone, and not {address}; let it join the deployment: backstay join",
        place.display()
    )]
    Missing { place: PathBuf, address: SocketAddr },
    #[error(
        "the certificate in {} is of {found}, but this process is {wanted}: let it join under its \
         own name (backstay join)",
        place.display()
    )]
    OtherIdentity { place: PathBuf, found: String, wanted: String },
}

/// A connection, whatever carries it.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug> Duplex for T {}

/// `None`: there is no certificate.
#[derive(Clone, Debug, Default)]
pub struct Papers(Option<Rc<Watched>>);

#[derive(Debug)]
struct Watched {
    place: Place,
    loaded: RefCell<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    credentials: Credentials,
    server: Arc<ServerConfig>,
    revoked: BTreeSet<String>,
    /// By the member that is dialled: what is needed to resume is kept in it.
    clients: BTreeMap<String, Arc<ClientConfig>>,
    /// By the member whose PostgreSQL is dialled.
    postgres_clients: BTreeMap<String, Arc<ClientConfig>>,
}

impl Papers {
    /// # Errors
    /// See `PapersError`.
    pub fn open(config: &FrontEnd) -> Result<Papers, PapersError> {
        let file = &config.file;
        Papers::of(&file.deployment, &file.name, &file.state_dir, config.admin_listen)
    }

    /// # Errors
    /// See `PapersError`.
    pub fn of(
        deployment: &str,
        name: &str,
        state_dir: &Path,
        address: SocketAddr,
    ) -> Result<Papers, PapersError> {
        let place = Place::new(state_dir.join("trust"));
        if !place.exists() {
            return match address.ip().is_loopback() {
                true => Ok(Papers::default()),
                false => Err(PapersError::Missing { place: place.dir().to_owned(), address }),
            };
        }
        let stamp = place.stamp();
        let loaded = Loaded::read(&place, stamp)?;
        let found = loaded.credentials.identity();
        let wanted = trust::Identity::new(deployment, Role::FrontEnd, name)?;
        if *found != wanted {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            return Err(PapersError::OtherIdentity {
                place: place.dir().to_owned(),
                found,
                wanted,
            });
        }
        Ok(Papers(Some(Rc::new(Watched { place, loaded: RefCell::new(loaded) }))))
    }

    /// Secures a connection to `member`, if there is a certificate for it.
    pub async fn dialled(
        &self,
        stream: TcpStream,
        member: &str,
    ) -> std::io::Result<Box<dyn Duplex>> {
        let Some(watched) = &self.0 else { return Ok(Box::new(stream)) };
        let config = watched.client(member).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(config);
        let secured = connector.connect(trust::server_name(), stream).await?;
        if watched.is_revoked(member) {
            let sentence = format!("the certificate of {member} was revoked here");
            return Err(std::io::Error::other(sentence));
        }
        Ok(Box::new(TlsStream::from(secured)))
    }

    /// How the PostgreSQL of `member` is connected to, if there is a certificate for it.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn postgres_client(&self, member: &str) -> Result<Option<Arc<ClientConfig>>, trust::Error> {
        self.0.as_ref().map(|watched| watched.postgres_client(member)).transpose()
    }

    /// Whether somebody's certificate is refused although its time is not over.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.is_revoked(&identity.name))
    }

    /// There are certificates, and so there are handshakes.
    pub fn are_there(&self) -> bool {
        self.0.is_some()
    }

    /// Secures a connection that somebody has made; with whose certificate.
    pub async fn accepted(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(Box<dyn Duplex>, Option<Certificate>)> {
        let Some(watched) = &self.0 else { return Ok((Box::new(stream), None)) };
        let acceptor = TlsAcceptor::from(watched.server());
        let secured = acceptor.accept(stream).await?;
        let peer = Credentials::peer(secured.get_ref().1.peer_certificates(), clock::wall())
            .map_err(std::io::Error::other)?;
        Ok((Box::new(TlsStream::from(secured)), Some(peer)))
    }
}

impl Watched {
    fn client(&self, member: &str) -> Result<Arc<ClientConfig>, trust::Error> {
        self.look();
        let mut loaded = self.loaded.borrow_mut();
        if let Some(config) = loaded.clients.get(member) {
            return Ok(Arc::clone(config));
        }
        let expected = Expected { name: Some(member.to_owned()), roles: &[Role::Server] };
        let config = loaded.credentials.client(expected)?;
        loaded.clients.insert(member.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn postgres_client(&self, member: &str) -> Result<Arc<ClientConfig>, trust::Error> {
        self.look();
        let mut loaded = self.loaded.borrow_mut();
        if let Some(config) = loaded.postgres_clients.get(member) {
            return Ok(Arc::clone(config));
        }
        let expected = Expected { name: Some(member.to_owned()), roles: &[Role::Server] };
        let config = loaded.credentials.postgres_client(expected)?;
        loaded.postgres_clients.insert(member.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn is_revoked(&self, name: &str) -> bool {
        self.look();
        self.loaded.borrow().revoked.contains(name)
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.look();
        Arc::clone(&self.loaded.borrow().server)
    }

    fn look(&self) {
        let found = self.place.stamp();
        let mut loaded = self.loaded.borrow_mut();
        if loaded.stamp == found {
            return;
        }
        // Noted either way: broken files are told once.
        loaded.stamp = found;
        match Loaded::read(&self.place, found) {
            Ok(read) => *loaded = read,
            Err(error) => tracing::warn!(
                %error,
                "cannot use the changed certificate, and go on with the one before"
            ),
        }
    }
}

impl Loaded {
    fn read(place: &Place, stamp: Stamp) -> Result<Loaded, trust::Error> {
        let credentials = place.load()?;
        let server = credentials.server()?;
        Ok(Loaded {
            stamp,
            credentials,
            server,
            revoked: place.revoked(),
            clients: BTreeMap::new(),
            postgres_clients: BTreeMap::new(),
        })
    }
}
