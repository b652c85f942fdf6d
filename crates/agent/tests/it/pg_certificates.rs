//! Servers that know each other by certificates and have no password in common.

use std::path::PathBuf;
use std::time::SystemTime;

use agent::postgres::certificates::Tls;
use agent::postgres::instance::{FRONT_END, ROLE};
use agent::postgres::replication::{Connection, Endpoint, Login, ReplicationError};
use rustix::process::{Pid, Signal, kill_process};
use session::{Fact, Order, Partner, Term};
use trust::{Again, Book, Key, Place, Role, Subject};

use crate::cluster;
use crate::rig::{PATIENCE, Rig, Serving, eventually, one};

const WALSENDER: &str = "SELECT s.ssl::text || ' ' || s.version || ' ' || s.client_dn \
    FROM pg_stat_ssl s JOIN pg_stat_replication r USING (pid) \
    WHERE r.application_name = 'backstay_mirror'";

struct Authority {
    dir: PathBuf,
    book: Book,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let dir = cluster::scratch(&format!("{}-{name}", std::process::id()));
        let book = Book::init(&dir.join("authority"), "test", SystemTime::now()).unwrap();
        Authority { dir, book }
    }

    fn certify(&self, role: Role, name: &str) -> Place {
        let place = Place::new(self.dir.join(name));
        let key = Key::generate().unwrap();
        let subject = Subject { role, name: name.to_owned(), hosts: Vec::new() };
        let request = key.request(name).unwrap();
        let now = SystemTime::now();
        let certificate = self.book.issue(subject, &request, Again::Replace, now).unwrap();
        place.install(&key, &certificate, self.book.authority().der()).unwrap();
        place
    }

    fn tls(&self, role: Role, name: &str, partner: &str) -> Option<Tls> {
        Tls::of(self.certify(role, name), "test", Some(partner.to_owned()))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A principal that serves with its guard open, and a mirror that copied its data; no password.
async fn pair(authority: &Authority) -> (Rig, Rig, Serving) {
    let (mut first, mut second) = (Rig::new(), Rig::empty());
    second.owner = Partner::Second;
    first.partner_port = second.instance.port;
    second.partner_port = first.instance.port;
    first.instance.tls = authority.tls(Role::Server, "be1", "be2");
    second.instance.tls = authority.tls(Role::Server, "be2", "be1");
    for rig in [&mut first, &mut second] {
        rig.instance.front_end = true;
        std::fs::remove_file(&rig.instance.secret_file).unwrap();
    }
    first.drive().await;
    let serving = first.serve_alone(2).await;
    second.drive().await;
    returns(&mut second, &serving, Term(2)).await;
    (first, second, serving)
}

/// Follows, with leave to touch its data.
async fn returns(rig: &mut Rig, serving: &Serving, term: Term) {
    let (upstream, timeline) = (rig.owner.other(), serving.promotion.timeline);
    rig.order(Order::Follow { term, upstream, timeline, own: None }).await;
    let seen = |fact| match fact {
        Fact::TouchNeeded { .. } => Some(false),
        Fact::Streaming { .. } => Some(true),
        _ => None,
    };
    while !rig.wait("the way back", seen).await {
        rig.order(Order::Touch { term }).await;
    }
}

/// What comes of a log-in over the network.
async fn log_in(rig: &Rig, role: &str, tls: Option<Tls>) -> Result<Connection, ReplicationError> {
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: rig.instance.port };
    let login = Login {
        endpoint,
        role: role.to_owned(),
        secret: tls.is_none().then(|| crate::rig::seed().secret_file.clone()),
        tls,
        application_name: "stranger".to_owned(),
        deadline: PATIENCE,
    };
    Connection::log_in(&login).await
}

async fn is_refused(rig: &Rig, role: &str, tls: Option<Tls>) {
    let refused = log_in(rig, role, tls).await.unwrap_err();
    let ReplicationError::Refused { sqlstate, .. } = &refused else { panic!("{refused}") };
    assert_eq!(sqlstate, "28000", "{refused}");
}

fn kill(rig: &Rig) {
    let pid = i32::try_from(rig.postmaster().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_copy_the_stream_a_failover_and_a_rewind_go_by_certificates() {
    let authority = Authority::new("by-certificates");
    let (mut first, mut second, _serving) = pair(&authority).await;
    let sql = first.sql().await;
    assert_eq!(one(&sql, WALSENDER).await, "true TLSv1.3 /O=test/OU=server/CN=be2");
    sql.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    second.order(Order::Stop).await;
    second.until(Fact::Stopped).await;
    // Only the guard has it.
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    kill(&first);
    first.until(Fact::Exited).await;
    let next = second.serve_alone(3).await;
    returns(&mut first, &next, Term(3)).await;
    assert!(first.instance.files_dir.join("discarded").exists(), "it was rewound, not copied");
    let shown = one(&second.sql().await, WALSENDER).await;
    assert_eq!(shown, "true TLSv1.3 /O=test/OU=server/CN=be1");
}

#[tokio::test]
async fn nobody_but_the_partner_and_front_ends_comes_in_by_certificate() {
    let (authority, other) = (Authority::new("strangers"), Authority::new("others"));
    let (first, _second, _serving) = pair(&authority).await;
    log_in(&first, ROLE, authority.tls(Role::Server, "be2", "be1")).await.unwrap();
    // Another server of the deployment, a Front End and an administrator.
    is_refused(&first, ROLE, authority.tls(Role::Server, "be3", "be1")).await;
    is_refused(&first, ROLE, authority.tls(Role::FrontEnd, "fe1", "be1")).await;
    is_refused(&first, ROLE, authority.tls(Role::Administrator, "me", "be1")).await;
    is_refused(&first, FRONT_END, authority.tls(Role::FrontEnd, "fe1", "be1")).await;
    // The password that was valid once, without TLS.
    is_refused(&first, ROLE, None).await;
    // Each side refuses another authority's certificates, and this side another server's.
    let theirs = other.tls(Role::Server, "be2", "be1");
    let refused = log_in(&first, ROLE, theirs).await.unwrap_err();
    assert!(matches!(refused, ReplicationError::Tls { .. }), "{refused}");
    let expects_another = authority.tls(Role::Server, "be2", "be3");
    let refused = log_in(&first, ROLE, expects_another).await.unwrap_err();
    assert!(refused.to_string().contains("be1"), "{refused}");
}

#[tokio::test]
async fn renewal_loses_nothing_and_a_revoked_name_is_put_out() {
    let authority = Authority::new("renewal");
    let (mut first, mut second, _serving) = pair(&authority).await;
    let sql = first.sql().await;
    sql.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    let writer = {
        let sql = first.sql().await;
        tokio::spawn(async move {
            let mut written = 0;
            while sql.batch_execute("INSERT INTO t VALUES (1)").await.is_ok() {
                written += 1;
            }
            written
        })
    };
    second.facts_so_far();
    let serial = |rig: &Rig| std::fs::read_to_string(rig.instance.files_dir.join("identity.pem"));
    let before = (serial(&first).unwrap(), serial(&second).unwrap());
    authority.certify(Role::Server, "be1");
    authority.certify(Role::Server, "be2");
    eventually("both have the new ones", async || {
        serial(&first).unwrap() != before.0 && serial(&second).unwrap() != before.1
    })
    .await;
    log_in(&first, ROLE, second.instance.tls.clone()).await.unwrap();
    let count = one(&sql, "SELECT count(*) FROM t").await;
    eventually("writing goes on", async || one(&sql, "SELECT count(*) FROM t").await != count)
        .await;
    let lost = second.facts_so_far();
    assert!(!lost.iter().any(|fact| matches!(fact, Fact::StreamLost { .. })), "{lost:?}");

    std::fs::write(authority.dir.join("be1").join("revoked"), "be2\n").unwrap();
    second.until(Fact::StreamLost { term: Term(2) }).await;
    is_refused(&first, ROLE, second.instance.tls.clone()).await;
    second.drop_driver();
    kill(&first);
    first.until(Fact::Exited).await;
    assert!(writer.await.unwrap() > 0);
}

#[tokio::test]
async fn a_session_by_password_goes_over_to_certificates() {
    let authority = Authority::new("change-over");
    let (mut first, mut second) = (Rig::new(), Rig::empty());
    second.owner = Partner::Second;
    (first.partner_port, second.partner_port) = (second.instance.port, first.instance.port);
    first.drive().await;
    let serving = first.serve_alone(2).await;
    second.drive().await;
    returns(&mut second, &serving, Term(2)).await;
    let sql = first.sql().await;
    let plain = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_replication r USING (pid) \
                 WHERE r.application_name = 'backstay_mirror' AND NOT s.ssl";
    assert_eq!(one(&sql, plain).await, "1");
    // The mirror's agent is restarted first: the stream goes on.
    second.drop_driver();
    second.instance.tls = authority.tls(Role::Server, "be2", "be1");
    second.drive().await;
    assert_eq!(one(&sql, plain).await, "1");
    first.drop_driver();
    first.instance.tls = authority.tls(Role::Server, "be1", "be2");
    first.drive().await;
    assert_eq!(one(&sql, plain).await, "1");
    eventually("it offers TLS", async || one(&first.sql().await, "SHOW ssl").await == "on").await;
    log_in(&first, ROLE, None).await.unwrap();
    returns(&mut second, &serving, Term(2)).await;
    assert_eq!(one(&sql, WALSENDER).await, "true TLSv1.3 /O=test/OU=server/CN=be2");
}
