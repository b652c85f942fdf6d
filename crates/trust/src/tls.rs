//! Configurations of TLS: version 1.3 alone, certificates on both sides, one authority.
//!
//! A connection that is resumed shows the certificate of the first one again, which rustls does
//! not check anew: whoever accepts asks `Credentials::peer` on every connection, and that looks at
//! the time. Few tickets, in a small memory: members connect seldom.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use crate::certificate::Certificate;
use crate::error::Error;
use crate::identity::{Identity, Role};
use crate::verify::{Clients, Pinned, Servers};

const MEMBERS: &[u8] = b"backstay";
const AUTHORITY: &[u8] = b"backstay-authority";
const POSTGRESQL: &[u8] = b"postgresql";
/// Connections that can be resumed.
const SESSIONS: usize = 512;
const EXPORTER: &[u8] = b"EXPORTER-backstay-join";
pub const EXPORTER_LENGTH: usize = 32;

/// What both ends of one connection know, and nobody in between.
pub type Exporter = [u8; EXPORTER_LENGTH];

/// Whom a connection must reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// `None`: anybody of these roles.
    pub name: Option<String>,
    pub roles: &'static [Role],
}

impl Expected {
    /// # Errors
    /// It is somebody else.
    pub fn check(&self, found: &Identity) -> Result<(), Error> {
        if let Some(wanted) = self.name.as_ref().filter(|wanted| **wanted != found.name) {
            let (found, wanted) = (found.name.clone(), wanted.clone());
            return Err(Error::OtherName { found, wanted });
        }
        if self.roles.contains(&found.role) {
            return Ok(());
        }
        let wanted: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        Err(Error::OtherRole { found: found.role.as_str(), wanted: wanted.join(" or ") })
    }
}

/// A certificate with its key, and the authority of both.
pub struct Credentials {
    own: Certificate,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: CertificateDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Credentials {
    /// `identity`: the key and its certificate.
    ///
    /// # Errors
    /// They cannot be read, or do not go together.
    pub fn from_pem(identity: &str, authority: &str) -> Result<Credentials, Error> {
        let key = PrivateKeyDer::from_pem_slice(identity.as_bytes())
            .map_err(|error| Error::Pem { what: "key", error: error.to_string() })?;
        let certificate = pem("certificate", identity)?;
        Credentials::new(key, certificate, pem("authority's certificate", authority)?)
    }

    fn new(
        key: PrivateKeyDer<'static>,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Credentials, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let own = Certificate::read(&certificate)?;
        let credentials = Credentials {
            own,
            chain: vec![certificate],
            key,
            authority,
            roots: Arc::new(roots),
            provider: Arc::new(ring::default_provider()),
        };
        // Finds out whether the key is the certificate's, and the certificate the authority's.
        credentials.client(Expected { name: None, roles: &Role::ALL })?;
        let clients = credentials.clients()?;
        match clients.verify_client_cert(&credentials.chain[0], &[], UnixTime::now()) {
            // One whose time is over can be read still: others say so when it is shown.
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(credentials)
    }

    pub fn own(&self) -> &Certificate {
        &self.own
    }

    /// Of the authority's public key, as tokens name it.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub fn authority_fingerprint(&self) -> Result<[u8; 32], Error> {
        Ok(Certificate::read(&self.authority)?.fingerprint)
    }

    pub fn identity(&self) -> &Identity {
        &self.own.identity
    }

    fn clients(&self) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
        );
        builder.build().map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))
    }

    /// For a port where everybody must show a certificate of this deployment.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let verifier =
            Clients { inner: self.clients()?, deployment: self.own.identity.deployment.clone() };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![MEMBERS.to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    /// For the port of the authority's service: whoever joins has no certificate yet, and whoever
    /// renews shows one.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn authority_server(&self) -> Result<Arc<ServerConfig>, Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
        );
        let inner = builder
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
        let verifier = Clients { inner, deployment: self.own.identity.deployment.clone() };
        let chain = vec![self.chain[0].clone(), self.authority.clone()];
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, self.key.clone_key())?;
        config.alpn_protocols = vec![AUTHORITY.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For connections to whoever is `expected`. To be kept as long as the certificate is: it
    /// remembers what is needed to resume.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn client(&self, expected: Expected) -> Result<Arc<ClientConfig>, Error> {
        let alpn = if expected.roles == [Role::Authority] { AUTHORITY } else { MEMBERS };
        self.client_for(expected, alpn, Resumption::in_memory_sessions(1))
    }

    /// For connections to the PostgreSQL of whoever is `expected`, which resumes none.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn postgres_client(&self, expected: Expected) -> Result<Arc<ClientConfig>, Error> {
        self.client_for(expected, POSTGRESQL, Resumption::disabled())
    }

    fn client_for(
        &self,
        expected: Expected,
        alpn: &[u8],
        resumption: Resumption,
    ) -> Result<Arc<ClientConfig>, Error> {
        let verifier = Servers {
            provider: Arc::clone(&self.provider),
            roots: Arc::clone(&self.roots),
            deployment: self.own.identity.deployment.clone(),
            expected,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        config.resumption = resumption;
        Ok(Arc::new(config))
    }

    /// Who is at the other end of a connection, whose certificates the handshake has checked.
    ///
    /// # Errors
    /// There is no certificate, or its time is over.
    pub fn peer(
        certificates: Option<&[CertificateDer<'_>]>,
        now: SystemTime,
    ) -> Result<Certificate, Error> {
        let first = certificates.and_then(<[_]>::first).ok_or(Error::NoCertificate)?;
        let found = Certificate::read(first)?;
        if found.left(now).is_zero() {
            return Err(Error::Expired { name: found.identity.name });
        }
        Ok(found)
    }
}

fn pem(what: &'static str, text: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| Error::Pem { what, error: error.to_string() })
}

/// For somebody who has nothing but a token.
///
/// # Errors
/// TLS 1.3 is not to be had.
pub fn join_client(deployment: &str, fingerprint: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        Pinned { provider: Arc::clone(&provider), deployment: deployment.to_owned(), fingerprint };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![AUTHORITY.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that rustls wants for a connection. It is neither sent nor checked.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("backstay").expect("it is a name")
}

/// What binds a proof to one connection (RFC 8446, 7.5). `export`: the connection's
/// `export_keying_material`.
///
/// # Errors
/// The handshake is not complete.
pub fn binding(
    export: impl FnOnce(Exporter, &[u8], Option<&[u8]>) -> Result<Exporter, rustls::Error>,
) -> Result<Exporter, Error> {
    Ok(export([0; EXPORTER_LENGTH], EXPORTER, None)?)
}
