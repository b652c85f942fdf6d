//! Where a command finds who its administrator is.
//!
//! `--trust DIR` or `BACKSTAY_TRUST` names the directory; without them it is the deployment's own
//! under the user's configuration. Where there is none, commands speak without TLS, which members
//! answer on loopback addresses alone.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use agent::enrol;
use agent::peers::{ChannelError, Transport};
use anyhow::Context as _;
use tokio::time::timeout;
use trust::{Credentials, Expected, Place, Role};

use crate::admin;
use crate::clock;
use crate::output::{self, hinted};

/// Nobody waits longer for his certificate to be renewed while he asks for something else.
const RENEWAL: Duration = Duration::from_millis(300);

/// Commands ask these.
const ASKED: &[Role] = &[Role::Server, Role::Witness, Role::FrontEnd];

/// What the command line said; set once, before anything is asked.
static NAMED: OnceLock<PathBuf> = OnceLock::new();

pub fn name(dir: Option<PathBuf>) {
    if let Some(dir) = dir {
        let _ = NAMED.set(dir);
    }
}

/// The directory of everything that an administrator has of `deployment`.
pub fn home(deployment: &str) -> anyhow::Result<PathBuf> {
    Ok(homes()?.join(deployment))
}

/// The directory of all deployments.
pub fn homes() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
    let config = config.ok_or_else(|| {
        hinted("HOME is not set, so there is no place for certificates", "name one with --dir DIR")
    })?;
    Ok(config.join("backstay"))
}

/// The administrator's certificate for `deployment`; `None`: there is none, and none was named.
pub fn find(deployment: &str) -> anyhow::Result<Option<Credentials>> {
    let named = NAMED.get().cloned();
    let place = match (&named, home(deployment)) {
        (Some(dir), _) => Place::new(dir),
        (None, Ok(dir)) => Place::new(dir),
        (None, Err(_)) => return Ok(None),
    };
    if named.is_none() && !place.exists() {
        return Ok(None);
    }
    let credentials = place.load().context("use the administrator's certificate")?;
    let found = &credentials.identity().deployment;
    if !deployment.is_empty() && found != deployment {
        return Err(hinted(
            format!("the certificate in {} is of deployment {found:?}", place.dir().display()),
            format!("name the directory of a certificate of {deployment:?} with --trust DIR"),
        ));
    }
    Ok(Some(credentials))
}

/// Renews the administrator's certificate when it is time to: nothing else of his runs all day.
/// Tried once by each command; a person is told when it gets late.
pub async fn renew_if_due(credentials: &Credentials) {
    static TRIED: OnceLock<()> = OnceLock::new();
    if !credentials.own().renewal_is_due(clock::wall()) || TRIED.set(()).is_err() {
        return;
    }
    let deployment = &credentials.identity().deployment;
    let Some(dir) = NAMED.get().cloned().or_else(|| home(deployment).ok()) else { return };
    let renewed = timeout(RENEWAL, enrol::renew(&Place::new(dir), credentials)).await;
    if matches!(renewed, Ok(Ok(_))) {
        return;
    }
    let days = credentials.own().left(clock::wall()).as_secs() / (24 * 60 * 60);
    output::talk(&format!(
        "your certificate is good for {days} more days, and is renewed while `backstay authority \
         serve` runs"
    ));
}

/// Secures a connection to `member`, if there is a certificate for it.
pub async fn secure(
    transport: Transport,
    credentials: Option<&Credentials>,
    member: &str,
) -> anyhow::Result<Transport> {
    let Some(credentials) = credentials else { return Ok(transport) };
    let expected = Expected { name: Some(member.to_owned()), roles: ASKED };
    let config = credentials.client(expected)?;
    transport.secure(config).await.map_err(|error| admin::said(ChannelError::Io(error)))
}
