//! TLS to the partner's PostgreSQL, with certificates on both sides.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use wire::startup::{SSL_REQUEST, push_request};

/// Asks for TLS on a new connection, and agrees on it.
pub async fn secured<S>(mut stream: S, config: Arc<ClientConfig>) -> io::Result<Encrypted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    push_request(&mut request, SSL_REQUEST);
    stream.write_all(&request).await?;
    if stream.read_u8().await? != b'S' {
        return Err(io::Error::other("PostgreSQL there does not offer TLS (yet)"));
    }
    Ok(Encrypted(TlsConnector::from(config).connect(trust::server_name(), stream).await?))
}

/// For a client library, which asks for TLS itself.
#[derive(Clone, Debug)]
pub struct Secure(pub Arc<ClientConfig>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Secure {
    type Stream = Encrypted<S>;
    type TlsConnect = Secure;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Secure, Infallible> {
        Ok(self.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Secure {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = TlsConnector::from(self.0).connect(trust::server_name(), stream);
        Box::pin(async { Ok(Encrypted(connecting.await?)) })
    }
}

#[derive(Debug)]
pub struct Encrypted<S: AsyncRead + AsyncWrite + Unpin>(TlsStream<S>);

/// Tells PostgreSQL that nothing more comes, as far as that can be done at once: its log takes a
/// connection without such an end for a broken one.
impl<S: AsyncRead + AsyncWrite + Unpin> Drop for Encrypted<S> {
    fn drop(&mut self) {
        let (stream, session) = self.0.get_mut();
        let mut last = Vec::new();
        session.send_close_notify();
        while session.wants_write() && session.write_tls(&mut last).is_ok() {}
        let mut context = Context::from_waker(Waker::noop());
        let _told = Pin::new(stream).poll_write(&mut context, &last);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
