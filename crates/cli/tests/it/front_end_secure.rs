//! A Front End and servers with certificates: what is between them is encrypted, and works as
//! ever.

use std::path::Path;

use crate::front_end::{Session, until};
use crate::stage::Demo;

const TLS: &str = "SELECT ssl::text || ' ' || version || ' ' || client_dn FROM pg_stat_ssl";

/// Another certificate, as a renewal would bring it.
fn renew(demo: &Demo, name: &str, role: &str, place: &Path) {
    let authority = demo.place.path().join("demo/authority");
    let (authority, place) = (authority.to_str().unwrap(), place.to_str().unwrap());
    let issue = ["authority", "--dir", authority, "issue", "--name", name, "--role", role];
    let args: Vec<&str> = issue.iter().chain(&["--out", place, "--again"]).copied().collect();
    demo.run(&args).expect(0);
}

fn start(name: &str) -> Demo {
    let demo = Demo::start(name, &["--profile", "fast"]);
    demo.wait_until_armed();
    demo
}

#[test]
fn with_certificates_everything_behind_the_front_end_is_encrypted() {
    let demo = start("fe-secure");
    let principal = demo.pool()["principal"].as_str().unwrap().to_owned();
    let mirror = if principal == "be1" { "be2" } else { "be1" };
    let stream = "SELECT client_dn FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) \
                  WHERE application_name = 'backstay_mirror'";
    let subject = |role: &str, name: &str| format!("/O=demo/OU={role}/CN={name}");
    assert_eq!(demo.superuser(&principal, stream), subject("server", mirror));

    // Nobody is known yet: the Front End asks the principal how this user logs in.
    demo.superuser(&principal, "CREATE ROLE late LOGIN PASSWORD 'right'");
    let session = Session::open(&demo.front_end_uri("late", "right")).unwrap();
    let own = format!("{TLS} WHERE pid = pg_backend_pid()");
    let shown = format!("true TLSv1.3 {}", subject("front-end", "fe1"));
    assert_eq!(session.value(&own), shown);
    let asks =
        format!("{TLS} JOIN pg_stat_activity USING (pid) WHERE usename = 'backstay_front_end'");
    assert_eq!(demo.superuser(&principal, &asks), shown);
    assert!(Session::open(&demo.front_end_uri("late", "wrong")).is_err());
    // More than one record of TLS, both ways.
    let large = "x".repeat(3 << 20);
    assert_eq!(
        session.value(&format!("SELECT length('{large}') || repeat('y', 3000000)")).len(),
        3_000_007
    );
    let waits = session.send("SELECT pg_sleep(600)");
    session.cancel();
    assert_eq!(waits.answer().err().unwrap().sqlstate, "57014");

    demo.superuser(&principal, "CREATE TABLE t (x int); GRANT ALL ON t TO late");
    for x in 0..10 {
        session.ask(&format!("INSERT INTO t VALUES ({x})")).unwrap();
    }
    demo.demo("kill", &[&principal]).expect(0);
    session.ask("INSERT INTO t VALUES (10)").unwrap();
    assert_eq!(session.value(&own), shown);
    demo.demo("restart", &[&principal]).expect(0);
    demo.wait_until_armed();
    assert_eq!(demo.superuser(mirror, stream), subject("server", &principal));
    assert_eq!(session.value("SELECT count(*) FROM t"), "11");
    who_is_known_gets_in_while_nobody_serves(&demo);
}

fn who_is_known_gets_in_while_nobody_serves(demo: &Demo) {
    demo.demo("kill", &["wit1"]).expect(0);
    let principal = demo.pool()["principal"].as_str().unwrap().to_owned();
    demo.demo("kill", &[&principal]).expect(0);
    until("nobody serves", || demo.front_end_status()["mode"] != "normal");
    let session = Session::open(&demo.front_end_uri("late", "right")).unwrap();
    demo.demo("restart", &["wit1"]).expect(0);
    demo.demo("restart", &[&principal]).expect(0);
    assert_eq!(session.value("SELECT count(*) FROM t"), "11");
}

#[test]
fn renewed_certificates_lose_no_connection() {
    let demo = start("fe-renew");
    let session = Session::open(&crate::clients::front_end(&demo)).unwrap();
    session.ask("CREATE TABLE t (x int)").unwrap();
    let before = session.value("SELECT pg_backend_pid()");
    for (name, role) in [("be1", "server"), ("be2", "server"), ("fe1", "front-end")] {
        let home = demo.place.path().join("demo").join(name);
        let own = home.join("state/trust");
        renew(&demo, name, role, &own);
        let (own, copy) = (own.join("identity.pem"), home.join("postgres/files/identity.pem"));
        until("PostgreSQL has the new certificate", || {
            session.ask("INSERT INTO t VALUES (1)").unwrap();
            role != "server" || std::fs::read(&copy).unwrap() == std::fs::read(&own).unwrap()
        });
    }
    assert_eq!(session.value("SELECT pg_backend_pid()"), before);
    let next = Session::open(&crate::clients::front_end(&demo)).unwrap();
    assert_eq!(next.value("SELECT count(*) FROM t"), session.value("SELECT count(*) FROM t"));
}
