//! Certificates between PostgreSQL servers: the agent's own, with which its PostgreSQL shows who it
//! is and Backstay's roles log in over the network, without a password.
//!
//! PostgreSQL's user may not read the agent's directory, so it has a copy in the files directory:
//! key and certificate in one file, which is replaced as a whole. It is compared with the agent's
//! every few seconds, so that a renewed certificate or a revoked name is in force soon after. If
//! the agent's own cannot be used, the copy stays as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::rustls::ClientConfig;
use trust::{Expected, Identity, Place, Role};

use super::access::{self, write_file};
use super::adopt;
use super::driver::Configured;
use super::error::Error;
use super::instance::{FRONT_END, Instance, ROLE};
use super::settings::Upstream;
use super::sql::{Commits, Connection};

/// The maps of `pg_ident.conf` for certificates.
pub const PARTNER_MAP: &str = "backstay_partner";
pub const FRONT_END_MAP: &str = "backstay_front_end";

const LOOK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(3);
/// PostgreSQL shows no more of a subject.
const SHOWN: usize = 63;

/// Who this server's process is, and who the other partner's is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    pub place: Place,
    pub deployment: String,
    /// The name of the other partner's server.
    pub partner: Option<String>,
    /// The Front Ends that may connect; `None`: all of the deployment.
    pub front_ends: Option<BTreeSet<String>>,
}

impl Tls {
    /// For a process whose certificate lies in `place`; `None` if none is there.
    pub fn of(place: Place, deployment: &str, partner: Option<String>) -> Option<Tls> {
        let deployment = deployment.to_owned();
        place.exists().then_some(Tls { place, deployment, partner, front_ends: None })
    }

    /// How the partner's PostgreSQL is connected to: it must be the partner's, whatever answers.
    pub fn client(&self) -> Result<Arc<ClientConfig>, trust::Error> {
        let expected = Expected { name: self.partner.clone(), roles: &[Role::Server] };
        self.place.load()?.postgres_client(expected)
    }

    /// The partner, if it may connect.
    fn partner(&self) -> Option<Identity> {
        let name = self.partner.as_ref().filter(|name| !self.place.revoked().contains(*name))?;
        Identity::new(&self.deployment, Role::Server, name).ok()
    }

    /// The Front Ends that are named and may connect.
    fn front_ends(&self) -> Option<Vec<Identity>> {
        let revoked = self.place.revoked();
        let named =
            self.front_ends.as_ref()?.iter().filter(|name| !revoked.contains(name.as_str()));
        let identity = |name: &String| Identity::new(&self.deployment, Role::FrontEnd, name).ok();
        Some(named.filter_map(identity).collect())
    }

    /// Lines of `pg_ident.conf`: whose certificates may be which of Backstay's roles.
    pub fn idents(&self) -> String {
        let mut text = String::new();
        if let Some(partner) = self.partner() {
            let _ = writeln!(text, "{PARTNER_MAP} \"{}\" {ROLE}", partner.to_subject());
        }
        if let Some(front_ends) = self.front_ends() {
            for front_end in front_ends {
                let subject = front_end.to_subject();
                let _ = writeln!(text, "{FRONT_END_MAP} \"{subject}\" {FRONT_END}");
            }
            return text;
        }
        let revoked = self.place.revoked();
        let plain = |name: &&String| trust::check_name("the name", name).is_ok();
        let names: Vec<_> = revoked.iter().filter(plain).map(|name| escaped(name)).collect();
        let except =
            if names.is_empty() { String::new() } else { format!("(?!({}),)", names.join("|")) };
        let deployment = escaped(&self.deployment);
        let _ = writeln!(
            text,
            "{FRONT_END_MAP} \"/^CN={except}[^,=]+,OU={},O={deployment}$\" {FRONT_END}",
            Role::FrontEnd
        );
        text
    }

    /// Ends the connections of Backstay's own roles by certificates that may not connect any more.
    fn end_removed(&self) -> String {
        let shown = |identity: &Identity| {
            let Identity { deployment, role, name } = identity;
            let mut subject = format!("/O={deployment}/OU={role}/CN={name}");
            subject.truncate(SHOWN);
            super::sql::literal(&subject)
        };
        let front_end = |name: &String| Identity::new(&self.deployment, Role::FrontEnd, name).ok();
        let revoked: Vec<_> =
            self.place.revoked().iter().filter_map(front_end).map(|found| shown(&found)).collect();
        let revoked = if revoked.is_empty() { "NULL".to_owned() } else { revoked.join(",") };
        let partner = self.partner().map_or("NULL".to_owned(), |partner| shown(&partner));
        let others = match self.front_ends() {
            None => "false".to_owned(),
            Some(named) => {
                let prefix = format!("/O={}/OU={}/CN=", self.deployment, Role::FrontEnd);
                let mut named: Vec<_> = named.iter().map(shown).collect();
                named.push("''".to_owned());
                format!(
                    "starts_with(ssl_client_dn, {}) AND ssl_client_dn NOT IN ({})",
                    super::sql::literal(&prefix),
                    named.join(",")
                )
            }
        };
        format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_get_activity(NULL) \
             WHERE ssl AND (usesysid = {own} AND ssl_client_dn IS DISTINCT FROM {partner} \
             OR usesysid <> {own} AND (ssl_client_dn IN ({revoked}) OR {others}))",
            own = super::sql::OWN_ROLE,
        )
    }
}

/// For a regular expression in quotation marks.
fn escaped(name: &str) -> String {
    name.replace('.', "[.]")
}

/// The key and its certificate, for PostgreSQL's user.
fn identity_file(instance: &Instance) -> PathBuf {
    instance.files_dir.join("identity.pem")
}

fn authority_file(instance: &Instance) -> PathBuf {
    instance.files_dir.join("authority.pem")
}

/// Whether the administrator has a certificate of his own in force, for clients. Backstay's cannot
/// stand beside it: PostgreSQL shows everybody the same. What comes with Debian's package is none.
pub fn others_in_force(instance: &Instance) -> bool {
    let is_certificate =
        |name: &str| ["ssl_cert_file", "ssl_key_file", "ssl_ca_file"].contains(&name);
    if instance.settings.keys().any(|name| is_certificate(name) || name == "ssl") {
        return true;
    }
    let former = std::fs::read_to_string(adopt::former_config(&instance.files_dir));
    former.unwrap_or_default().lines().any(|line| {
        let mut words = line.split(['=', ' ', '\t']).filter(|word| !word.is_empty());
        words.next().is_some_and(is_certificate) && !line.contains("ssl-cert-snakeoil")
    })
}

/// Puts the copy in its place, where it is missing or another one. Returns whether it has changed.
fn copy(instance: &Instance, tls: &Tls) -> Result<bool, Error> {
    let (identity, authority) = tls.place.texts().map_err(|error| {
        Error::unexpected("copying the certificate for PostgreSQL", error.to_string())
    })?;
    let mut changed = false;
    for (path, text) in [(authority_file(instance), authority), (identity_file(instance), identity)]
    {
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            write_file(instance, &path, &text)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Makes sure that PostgreSQL's programs have the certificate. Without the agent's own the copy is
/// used that is there.
pub fn prepare(instance: &Instance) {
    let copied = instance.tls().map_or(Ok(false), |tls| copy(instance, tls));
    if let Err(error) = copied {
        tracing::warn!(%error, "PostgreSQL goes on with the certificate that it has");
    }
}

/// The settings with which PostgreSQL shows its certificate. Without one it goes on without TLS:
/// clients that ask for none are served all the same.
pub fn settings(instance: &Instance) -> Vec<(&'static str, String)> {
    if instance.tls().is_none() {
        return Vec::new();
    }
    prepare(instance);
    let (identity, authority) = (identity_file(instance), authority_file(instance));
    if !identity.exists() || !authority.exists() {
        return Vec::new();
    }
    let path = |path: &Path| path.display().to_string();
    let mut all = vec![
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", path(&identity)),
        ("ssl_key_file", path(&identity)),
        ("ssl_ca_file", path(&authority)),
    ];
    if !instance.settings.contains_key("ssl_min_protocol_version") {
        all.push(("ssl_min_protocol_version", "TLSv1.2".to_owned()));
    }
    all
}

/// Words of a connection string to the partner's PostgreSQL; it begins with host and port. The
/// partner is known by its name where its address is given, and else by its host name.
pub fn words(instance: &Instance, upstream: &Upstream) -> Option<String> {
    let tls = instance.tls()?;
    let word = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let file = |path: &Path| word(&path.display().to_string());
    let (host, port) = (word(&upstream.host), upstream.port);
    let whom = match (&tls.partner, upstream.host.parse::<IpAddr>()) {
        (Some(partner), Ok(_)) => format!("hostaddr={host} port={port} host={}", word(partner)),
        (_, Ok(_) | Err(_)) => format!("host={host} port={port}"),
    };
    let (identity, authority) = (identity_file(instance), authority_file(instance));
    Some(format!(
        "{whom} sslmode=verify-full sslrootcert={} sslcert={identity} sslkey={identity} \
         ssl_min_protocol_version=TLSv1.3 gssencmode=disable",
        file(&authority),
        identity = file(&identity),
    ))
}

/// Keeps the copy the same as the agent's certificate, and removed names out. Never ends.
pub async fn keep(mut configured: watch::Receiver<Configured>, life: watch::Receiver<Option<u32>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut idents) = (None, None);
    loop {
        let instance = Arc::clone(&configured.borrow_and_update().instance);
        let pid = *life.borrow();
        if let (Some(tls), Some(pid)) = (instance.tls(), pid) {
            let failed =
                renew(&instance, tls, pid, &mut idents).await.err().map(|error| error.to_string());
            if let Some(error) = failed.as_ref().filter(|_| failed != told) {
                tracing::warn!(error, "PostgreSQL's certificates could not be looked after");
            }
            told = failed;
        }
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = configured.changed() => {}
        }
    }
}

/// Brings what has changed into force.
async fn renew(
    instance: &Instance,
    tls: &Tls,
    pid: u32,
    in_force: &mut Option<String>,
) -> Result<(), Error> {
    const DOING: &str = "ending the connections of removed names";
    let (copied, idents) = (copy(instance, tls)?, tls.idents());
    if !copied && in_force.as_ref() == Some(&idents) {
        return Ok(());
    }
    access::write_idents(instance)?;
    tracing::info!("PostgreSQL is given changed certificates or names");
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::HUP);
    }
    let sql = timeout(PATIENCE, Connection::open(instance, Commits::Local)).await;
    // Nobody gets in any more by what was in force before.
    let sql = sql.map_err(|_| Error::Late { doing: DOING })?.map_err(Error::sql(DOING))?;
    let ended = sql.one(&tls.end_removed()).await.map_err(Error::sql(DOING))?;
    if ended.as_deref() != Some("0") {
        tracing::info!(ended, "ended connections of names that were removed");
    }
    *in_force = Some(idents);
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use expect_test::expect;

    use super::*;
    use crate::postgres::instance::tests::instance;

    pub fn tls() -> Tls {
        Tls {
            place: Place::new("/nowhere"),
            deployment: "test.example".to_owned(),
            partner: Some("be2".to_owned()),
            front_ends: None,
        }
    }

    #[test]
    fn only_the_partner_and_front_ends_have_backstays_roles() {
        expect![[r#"
            backstay_partner "CN=be2,OU=server,O=test.example" backstay
            backstay_front_end "/^CN=[^,=]+,OU=front-end,O=test[.]example$" backstay_front_end
        "#]]
        .assert_eq(&tls().idents());
    }

    #[test]
    fn of_front_ends_that_are_named_no_other_one_is_let_in() {
        let front_ends = Some(["fe1".to_owned(), "fe2".to_owned()].into());
        expect![[r#"
            backstay_partner "CN=be2,OU=server,O=test.example" backstay
            backstay_front_end "CN=fe1,OU=front-end,O=test.example" backstay_front_end
            backstay_front_end "CN=fe2,OU=front-end,O=test.example" backstay_front_end
        "#]]
        .assert_eq(&Tls { front_ends, ..tls() }.idents());
        let none = Tls { front_ends: Some(BTreeSet::new()), ..tls() };
        assert!(!none.idents().contains("front-end"));
    }

    #[test]
    fn the_partner_is_looked_for_under_its_name_or_its_host_name() {
        let mut instance = instance();
        instance.tls = Some(tls());
        let words = |host: &str| {
            let upstream = Upstream { host: host.to_owned(), port: 5433 };
            words(&instance, &upstream).unwrap().split(" sslmode").next().unwrap().to_owned()
        };
        assert_eq!(words("10.0.0.2"), "hostaddr='10.0.0.2' port=5433 host='be2'");
        assert_eq!(words("be2.example.com"), "host='be2.example.com' port=5433");
    }

    #[test]
    fn a_certificate_of_the_administrators_stays() {
        let mut instance = instance();
        instance.tls = Some(tls());
        assert!(instance.tls().is_some());
        instance.settings.insert("ssl_cert_file".to_owned(), "/etc/pool.crt".to_owned());
        assert!(instance.tls().is_none());
    }
}
