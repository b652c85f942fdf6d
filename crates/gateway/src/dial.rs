//! Connections to the pool's PostgreSQL servers: with TLS wherever this Front End has a
//! certificate.
//!
//! The server must show the certificate of the member that the route names, whatever answers at its
//! address, and is shown this Front End's. Without a certificate nothing is encrypted.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use wire::startup::{SSL_REQUEST, push_request};

use crate::config::ServerTls;
use crate::papers::Papers;
use crate::tls::Stream;

/// How the servers are connected to.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    papers: Papers,
    wanted: ServerTls,
}

impl Dialler {
    pub fn new(papers: Papers, wanted: ServerTls) -> Dialler {
        Dialler { papers, wanted }
    }

    /// The server's side of `prepare` is done before the handshake.
    ///
    /// # Errors
    /// It is not reached, offers no TLS, or is not `member`.
    pub async fn dial(
        &self,
        member: &str,
        (host, port): (&str, u16),
        prepare: impl FnOnce(&TcpStream) -> io::Result<()>,
    ) -> io::Result<Stream> {
        let mut socket = TcpStream::connect((host, port)).await?;
        prepare(&socket)?;
        let config = match self.wanted {
            ServerTls::Require => self.papers.postgres_client(member).map_err(io::Error::other)?,
            ServerTls::Off => None,
        };
        let Some(config) = config else { return Ok(Stream::Plain(socket)) };
        let mut request = Vec::new();
        push_request(&mut request, SSL_REQUEST);
        socket.write_all(&request).await?;
        if socket.read_u8().await? != b'S' {
            return Err(io::Error::other("the server offers no TLS, which server_tls asks for"));
        }
        let secured = TlsConnector::from(config).connect(trust::server_name(), socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::from(secured))))
    }
}
