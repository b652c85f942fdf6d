//! TLS towards clients, and the stream of a client or a server that is with or without it.
//!
//! One certificate and its key, read from PEM files. They are read again when a client comes after
//! they have changed, so that a renewed certificate needs no restart; if the new ones cannot be
//! used, the old ones stay in force and the log says why. The hash of the certificate, to which
//! clients bind their log-in, changes together with it.

mod end_point;

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::config::TlsFiles;

/// What a client must name that begins with TLS at once (RFC 7301).
pub const ALPN: &[u8] = b"postgresql";

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("{path} holds no {what} in PEM form: {error}")]
    NoPem { path: String, what: &'static str, error: String },
    #[error("the certificate {certificate} and the key {key} cannot be used: {error}")]
    Unusable { certificate: String, key: String, error: rustls::Error },
}

/// How clients are let in by TLS.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: RefCell<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Option<Stamp>,
    use_it: Usable,
}

#[derive(Clone)]
struct Usable {
    acceptor: TlsAcceptor,
    end_point: Option<Rc<[u8]>>,
}

impl std::fmt::Debug for Usable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usable").field("end_point", &self.end_point).finish_non_exhaustive()
    }
}

/// What tells one state of both files from another.
type Stamp = [(u64, i64, i64, u64); 2];

impl Tls {
    /// # Errors
    /// See `TlsError`.
    pub fn load(files: &TlsFiles) -> Result<Tls, TlsError> {
        let loaded = Loaded { stamp: stamp(files), use_it: read(files)? };
        Ok(Tls { files: files.clone(), loaded: RefCell::new(loaded) })
    }

    /// The handshake. With it comes what the client may bind its log-in to: the hash of the
    /// certificate that this client was shown.
    pub async fn accept(
        &self,
        socket: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Rc<[u8]>>)> {
        let Usable { acceptor, end_point } = self.newest();
        let stream = acceptor.accept(socket).await?;
        Ok((TlsStream::from(stream), end_point))
    }

    /// What is in force, after a look at the files.
    fn newest(&self) -> Usable {
        let mut loaded = self.loaded.borrow_mut();
        let found = stamp(&self.files);
        if found != loaded.stamp {
            // Noted either way: a broken file is told once, and not to every client.
            loaded.stamp = found;
            match read(&self.files) {
                Ok(usable) => {
                    tracing::info!(
                        certificate = %self.files.certificate.display(),
                        "read the changed certificate"
                    );
                    loaded.use_it = usable;
                }
                Err(error) => tracing::warn!(
                    %error,
                    "cannot use the changed certificate, and go on with the one before"
                ),
            }
        }
        loaded.use_it.clone()
    }
}

fn stamp(files: &TlsFiles) -> Option<Stamp> {
    let one = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
    };
    Some([one(&files.certificate)?, one(&files.key)?])
}

fn read(files: &TlsFiles) -> Result<Usable, TlsError> {
    let bytes = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| TlsError::Unreadable { path: path.display().to_string(), error })
    };
    let no_pem = |path: &Path, what, error: String| TlsError::NoPem {
        path: path.display().to_string(),
        what,
        error,
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| no_pem(&files.certificate, "certificate", error.to_string()))?;
    let Some(own) = chain.first() else {
        return Err(no_pem(&files.certificate, "certificate", "it has none".to_owned()));
    };
    let end_point = end_point::hash(own).map(Rc::from);
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|error| no_pem(&files.key, "private key", error.to_string()))?;
    let acceptor = acceptor(chain, key).map_err(|error| TlsError::Unusable {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        error,
    })?;
    Ok(Usable { acceptor, end_point })
}

/// The one place that knows who provides the cryptography.
fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // PostgreSQL resumes no TLS connection either, so no client asks for the means.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client's connection, or one to a server.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn is_tls(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(_) => true,
        }
    }
}

impl Stream {
    /// What a log-in to this server may be bound to: the hash of the certificate that it has shown.
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = self else { return None };
        let shown = stream.get_ref().1.peer_certificates()?;
        end_point::hash(shown.first()?)
    }

    /// Tells the peer that nothing more comes, as far as that can be done at once. PostgreSQL's log
    /// takes a connection without such an end for a broken one.
    pub fn part(&mut self) {
        let Stream::Tls(stream) = self else { return };
        let mut last = Vec::new();
        let socket = match stream.as_mut() {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                while session.wants_write() && session.write_tls(&mut last).is_ok() {}
                socket
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                while session.wants_write() && session.write_tls(&mut last).is_ok() {}
                socket
            }
        };
        let _told = socket.try_write(&last);
    }

    /// The peer has sent nothing and has not closed.
    pub fn is_quiet(&mut self) -> bool {
        let nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let mut byte = [0];
        match self {
            Stream::Plain(socket) => nothing(socket.try_read(&mut byte)),
            // Neither deciphered bytes nor others. Whatever is read here ends the connection.
            Stream::Tls(stream) => {
                let deciphered = match stream.as_mut() {
                    TlsStream::Client(stream) => stream.get_mut().1.reader().read(&mut byte),
                    TlsStream::Server(stream) => stream.get_mut().1.reader().read(&mut byte),
                };
                nothing(deciphered) && nothing(stream.get_ref().0.try_read(&mut byte))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory of its own, which goes away with the value.
    #[derive(Debug)]
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        pub fn new(name: &str) -> Scratch {
            let random = u64::from_be_bytes(crate::login::random::bytes());
            let path = std::env::temp_dir().join(format!("backstay-gateway-{name}-{random:x}"));
            std::fs::create_dir(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Writes a new certificate for `localhost`; returns where, and the certificate itself.
    pub fn certificate(dir: &Path) -> (TlsFiles, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        (files, made.cert.der().clone())
    }

    #[test]
    fn a_changed_certificate_is_read_again_and_a_broken_one_is_not() {
        let dir = Scratch::new("tls");
        let (files, first) = certificate(&dir.0);
        let tls = Tls::load(&files).unwrap();
        assert_eq!(tls.newest().end_point.as_deref(), end_point::hash(&first).as_deref());
        let (_, second) = certificate(&dir.0);
        let of_second = end_point::hash(&second);
        assert_ne!(of_second, end_point::hash(&first));
        assert_eq!(tls.newest().end_point.as_deref(), of_second.as_deref());
        std::fs::write(&files.key, "no key").unwrap();
        assert_eq!(tls.newest().end_point.as_deref(), of_second.as_deref());
        assert!(matches!(Tls::load(&files), Err(TlsError::NoPem { what: "private key", .. })));
    }
}
