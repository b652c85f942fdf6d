//! Getting a certificate: the side that asks (`join`, `renew`) and the side that gives (`service`).
//!
//! One connection, one question, one answer, each with a deadline. Whoever joins knows nothing but
//! the token: it names the authority, and no other one is talked to.

mod renewal;
mod service;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use trust::{Answer, Ask, Certificate, Credentials, Expected, Place, Refusal, Role, Token};

pub(crate) use renewal::Renewal;
pub use renewal::keep_renewed;
pub use service::{Service, serve};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error("the authority's service is not reached at {address}: {error}")]
    Unreached { address: String, error: io::Error },
    #[error("the authority's service at {address}: {}", words(error))]
    Broken { address: String, error: io::Error },
    #[error("the authority's service at {0} does not answer")]
    Silent(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "the token says {token}, but the certificate that came is of {found}: the authority and \
         this program do not go together"
    )]
    SomethingElse { token: String, found: String },
    #[error("nobody knows where the authority's service is: name it with --authority HOST:PORT")]
    NoAddress,
}

fn words(error: &io::Error) -> String {
    trust::explain::of_io(error).unwrap_or_else(|| error.to_string())
}

/// Gets the certificate that `token` promises, and puts it into `place`. May be repeated.
///
/// # Errors
/// See `EnrolError`.
pub async fn join(
    token: &Token,
    address: Option<&str>,
    place: &Place,
) -> Result<Certificate, EnrolError> {
    let address = address.or(token.authority.as_deref()).ok_or(EnrolError::NoAddress)?;
    let key = place.next_key()?;
    let request = key.request(&token.name)?;
    let connector = TlsConnector::from(trust::join_client(&token.deployment, token.fingerprint)?);
    let exchange = async {
        let tcp = reach(address).await?;
        let broken = |error| EnrolError::Broken { address: address.to_owned(), error };
        let mut stream = connector.connect(trust::server_name(), tcp).await.map_err(broken)?;
        let connection = stream.get_ref().1;
        let binding = trust::binding(|to, label, context| {
            connection.export_keying_material(to, label, context)
        })?;
        let proof = token.proof(&binding, &request);
        let ask = Ask::Join { token: token.id, request, proof };
        say(&mut stream, &ask.to_bytes()).await.map_err(broken)?;
        Ok::<_, EnrolError>(Answer::from_bytes(&hear(&mut stream).await.map_err(broken)?)?)
    };
    let answer =
        timeout(PATIENCE, exchange).await.map_err(|_| EnrolError::Silent(address.to_owned()))??;
    let (certificate, authority) = granted(answer)?;
    let found = Certificate::read(&certificate)?;
    let wanted = trust::Identity::new(&token.deployment, token.role, &token.name)?;
    if found.identity != wanted || Certificate::read(&authority)?.fingerprint != token.fingerprint {
        let (token, found) = (wanted.to_string(), found.identity.to_string());
        return Err(EnrolError::SomethingElse { token, found });
    }
    place.install(&key, &certificate, &authority)?;
    place.set_authority_address(address)?;
    Ok(found)
}

/// Gets another certificate over the one that is in force.
///
/// # Errors
/// See `EnrolError`.
pub async fn renew(place: &Place, own: &Credentials) -> Result<Certificate, EnrolError> {
    let address = place.authority_address().ok_or(EnrolError::NoAddress)?;
    let key = place.next_key()?;
    let request = key.request(&own.identity().name)?;
    let expected = Expected { name: None, roles: &[Role::Authority] };
    let connector = TlsConnector::from(own.client(expected)?);
    let exchange = async {
        let tcp = reach(&address).await?;
        let broken = |error| EnrolError::Broken { address: address.clone(), error };
        let mut stream = connector.connect(trust::server_name(), tcp).await.map_err(broken)?;
        say(&mut stream, &Ask::Renew { request }.to_bytes()).await.map_err(broken)?;
        Ok::<_, EnrolError>(Answer::from_bytes(&hear(&mut stream).await.map_err(broken)?)?)
    };
    let answer =
        timeout(PATIENCE, exchange).await.map_err(|_| EnrolError::Silent(address.clone()))??;
    let (certificate, authority) = granted(answer)?;
    let found = Certificate::read(&certificate)?;
    if found.identity != *own.identity() {
        let (token, found) = (own.identity().to_string(), found.identity.to_string());
        return Err(EnrolError::SomethingElse { token, found });
    }
    place.install(&key, &certificate, &authority)?;
    Ok(found)
}

fn granted(answer: Answer) -> Result<(Vec<u8>, Vec<u8>), EnrolError> {
    match answer {
        Answer::Granted { certificate, authority } => Ok((certificate, authority)),
        Answer::Refused(refusal) => Err(refusal.into()),
    }
}

async fn reach(address: &str) -> Result<TcpStream, EnrolError> {
    TcpStream::connect(address)
        .await
        .map_err(|error| EnrolError::Unreached { address: address.to_owned(), error })
}

/// `bytes` have their length in them.
async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > trust::LIMIT {
        return Err(io::Error::other("it says more than an answer can be"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
