//! Who comes in, and who does not.

use std::time::SystemTime;

use rustls::HandshakeKind;
use trust::{Credentials, Expected, Role};

use crate::rig::{DAY, Dir, Ends, book, credentials, shake};

const MEMBERS: &[Role] = &[Role::Server, Role::Witness];

fn anybody() -> Expected {
    Expected { name: None, roles: MEMBERS }
}

fn dial(from: &Credentials, to: &Credentials, expected: Expected) -> Ends {
    shake(from.client(expected).unwrap(), to.server().unwrap())
}

#[test]
fn two_members_of_one_deployment_know_each_other() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let [one, two] = ["be1", "be2"].map(|name| credentials(&book, Role::Server, name, now));
    let expected = Expected { name: Some("be2".into()), ..anybody() };
    let ends = dial(&one, &two, expected);
    assert!(ends.agreed(), "{}", ends.error());
    let peer = Credentials::peer(ends.server.peer_certificates(), now).unwrap();
    assert_eq!(peer.identity.to_string(), "server be1 of production");
    assert_eq!(ends.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn whoever_is_not_whom_one_dials_is_found_out() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let one = credentials(&book, Role::Server, "be1", now);
    let two = credentials(&book, Role::Server, "be2", now);
    let other_name = Expected { name: Some("be3".into()), ..anybody() };
    assert!(dial(&one, &two, other_name).error().contains("this is be2, not be3"));
    let front_end = credentials(&book, Role::FrontEnd, "fe1", now);
    assert!(dial(&one, &front_end, anybody()).error().contains("role front-end"));
    let administrator = credentials(&book, Role::Administrator, "ann", now);
    assert!(!dial(&one, &administrator, anybody()).agreed(), "it may not listen");
}

#[test]
fn another_authority_is_refused_on_either_side() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    // Of the same name, as somebody would make it who wants to get in.
    let [ours, theirs] = ["production", "production"].map(|name| book(&dir, name));
    let member = credentials(&ours, Role::Server, "be1", now);
    let stranger = credentials(&theirs, Role::Server, "be2", now);
    let out = dial(&member, &stranger, anybody());
    assert!(out.client_error.is_some(), "a member sees that it reached a stranger");
    let server = member.server().unwrap();
    // One who does not care whom he reaches.
    let careless = theirs.own_credentials(now).unwrap();
    let inward = shake(careless.client(anybody()).unwrap(), server);
    assert!(!inward.agreed());
}

#[test]
fn an_outdated_certificate_is_refused_even_if_the_connection_was_resumed() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let member = credentials(&book, Role::Server, "be1", now);
    let outdated = credentials(&book, Role::Server, "be2", now - 91 * DAY);
    let ends = dial(&outdated, &member, anybody());
    let error = ends.error();
    assert!(error.contains("expired"), "{error}");
    let good = credentials(&book, Role::Server, "be3", now);
    let ends = dial(&good, &member, anybody());
    let later = Credentials::peer(ends.server.peer_certificates(), now + 91 * DAY);
    assert!(later.unwrap_err().to_string().contains("be3 is outdated"));
}

#[test]
fn a_second_connection_is_resumed_and_shows_the_same_identity() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let [one, two] = ["be1", "be2"].map(|name| credentials(&book, Role::Server, name, now));
    let (client, server) = (one.client(anybody()).unwrap(), two.server().unwrap());
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let ends = shake(client.clone(), server.clone());
        assert!(ends.agreed(), "{}", ends.error());
        assert_eq!(ends.server.handshake_kind(), Some(kind));
        let peer = Credentials::peer(ends.server.peer_certificates(), now).unwrap();
        assert_eq!(peer.identity.name, "be1");
    }
}

#[test]
fn without_a_certificate_nobody_comes_in() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let member = credentials(&book, Role::Server, "be1", now);
    // A client that knows the authority's service, and has no certificate.
    let fingerprint = book.authority().certificate().fingerprint;
    let nobody = trust::join_client("production", fingerprint).unwrap();
    let ends = shake(nobody, member.server().unwrap());
    assert!(!ends.agreed());
}
