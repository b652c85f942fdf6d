//! Tokens, and what becomes of them.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use trust::{Again, Answer, Ask, Book, Certificate, Error, Key, Place, Reason, Role, Token};

use crate::rig::{DAY, Dir, book, shake, subject};

const HOUR: Duration = Duration::from_hours(1);

fn invite(book: &Book, name: &str) -> Token {
    book.invite(subject(Role::Server, name), HOUR, Again::Refuse, SystemTime::now()).unwrap()
}

/// Joins over a connection of its own.
fn join(book: &Book, token: &Token, key: &Key, now: SystemTime) -> Result<Certificate, Reason> {
    let client = trust::join_client(&token.deployment, token.fingerprint).unwrap();
    let own = book.own_credentials(SystemTime::now()).unwrap();
    let ends = shake(client, own.authority_server().unwrap());
    assert!(ends.agreed(), "{}", ends.error());
    let [mine, theirs] = [
        trust::binding(|to, label, context| ends.client.export_keying_material(to, label, context)),
        trust::binding(|to, label, context| ends.server.export_keying_material(to, label, context)),
    ]
    .map(Result::unwrap);
    let request = key.request(&token.name).unwrap();
    let proof = token.proof(&mine, &request);
    let ask = Ask::Join { token: token.id, request, proof };
    certificate(book.answer(&ask, None, &theirs, now))
}

fn certificate(answer: Answer) -> Result<Certificate, Reason> {
    match answer {
        Answer::Granted { certificate, .. } => Ok(Certificate::read(&certificate).unwrap()),
        Answer::Refused(refusal) => Err(refusal.reason),
    }
}

#[test]
fn a_token_is_good_once_but_a_lost_answer_can_be_asked_for_again() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let token = invite(&book, "be1");
    let key = Key::generate().unwrap();
    let first = join(&book, &token, &key, now).unwrap();
    assert_eq!(first.identity.to_string(), "server be1 of production");
    assert_eq!(join(&book, &token, &key, now).unwrap(), first);
    let thief = Key::generate().unwrap();
    assert_eq!(join(&book, &token, &thief, now), Err(Reason::Used));
}

#[test]
fn a_token_dies_by_time_by_revocation_and_by_a_change_of_its_secret() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let key = Key::generate().unwrap();
    let token = invite(&book, "be1");
    assert_eq!(join(&book, &token, &key, now + 2 * HOUR), Err(Reason::Expired));
    // Another token's secret under this one's number.
    let mut mixed = invite(&book, "be2");
    mixed.id = token.id;
    assert_eq!(join(&book, &mixed, &key, now), Err(Reason::UnknownToken));
    let mut unknown = token.clone();
    unknown.id = [0; 8];
    assert_eq!(join(&book, &unknown, &key, now), Err(Reason::UnknownToken));
    join(&book, &token, &key, now).unwrap();
    let again = book.invite(subject(Role::Server, "be1"), HOUR, Again::Replace, now).unwrap();
    book.revoke("be1").unwrap();
    assert_eq!(join(&book, &again, &key, now), Err(Reason::UnknownToken));
}

#[test]
fn a_proof_that_was_overheard_is_worth_nothing_on_another_connection() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let token = invite(&book, "be1");
    let request = Key::generate().unwrap().request("be1").unwrap();
    let proof = token.proof(&[1; 32], &request);
    let ask = Ask::Join { token: token.id, request, proof };
    let answer = book.answer(&ask, None, &[2; 32], now);
    assert_eq!(certificate(answer), Err(Reason::UnknownToken));
}

#[test]
fn a_name_is_given_once() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let [one, two] = [(); 2].map(|()| invite(&book, "be1"));
    join(&book, &one, &Key::generate().unwrap(), now).unwrap();
    let late = join(&book, &two, &Key::generate().unwrap(), now);
    assert_eq!(late, Err(Reason::NameTaken));
    let taken = book.invite(subject(Role::Witness, "be1"), HOUR, Again::Refuse, now);
    assert!(matches!(taken, Err(Error::NameTaken(name)) if name == "be1"));
    let again = book.invite(subject(Role::Server, "be1"), HOUR, Again::Replace, now).unwrap();
    join(&book, &again, &Key::generate().unwrap(), now).unwrap();
}

#[test]
fn another_authority_is_noticed_before_anything_is_told_to_it() {
    let dir = Dir::new();
    let [ours, theirs] = ["production", "production"].map(|name| book(&dir, name));
    let token = invite(&ours, "be1");
    let client = trust::join_client(&token.deployment, token.fingerprint).unwrap();
    let wrong = theirs.own_credentials(SystemTime::now()).unwrap();
    let ends = shake(client, wrong.authority_server().unwrap());
    let error = ends.error();
    assert!(error.contains("does not have the authority that the token names"), "{error}");
}

#[test]
fn who_has_a_certificate_renews_it_until_it_is_revoked_or_replaced() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let key = Key::generate().unwrap();
    let first = join(&book, &invite(&book, "be1"), &key, now).unwrap();
    let renew = |book: &Book, peer: Option<&Certificate>, now| {
        let request = Key::generate().unwrap().request("be1").unwrap();
        certificate(book.answer(&Ask::Renew { request }, peer, &[0; 32], now))
    };
    let second = renew(&book, Some(&first), now + 60 * DAY).unwrap();
    assert!(second.not_after > first.not_after + 59 * DAY);
    // The answer was lost: the one before is good for another attempt.
    renew(&book, Some(&first), now + 61 * DAY).unwrap();
    assert_eq!(renew(&book, None, now), Err(Reason::NoCertificate));
    let again = book.invite(subject(Role::Server, "be1"), HOUR, Again::Replace, now).unwrap();
    let newest = join(&book, &again, &Key::generate().unwrap(), now).unwrap();
    assert_eq!(renew(&book, Some(&first), now), Err(Reason::Revoked));
    renew(&book, Some(&newest), now).unwrap();
    book.revoke("be1").unwrap();
    assert_eq!(renew(&book, Some(&newest), now), Err(Reason::Revoked));
}

#[test]
fn a_place_keeps_its_key_to_itself_and_until_it_has_a_certificate() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let book = book(&dir, "production");
    let place = Place::new(dir.path().join("trust"));
    assert!(!place.exists());
    let key = place.next_key().unwrap();
    assert_eq!(place.next_key().unwrap().to_pem(), key.to_pem(), "a join is repeated with it");
    let request = key.request("be1").unwrap();
    let der = book.issue(subject(Role::Server, "be1"), &request, Again::Refuse, now).unwrap();
    place.install(&key, &der, book.authority().der()).unwrap();
    assert_eq!(place.load().unwrap().identity().name, "be1");
    assert_ne!(place.next_key().unwrap().to_pem(), key.to_pem(), "the next one gets its own");
    let file = dir.path().join("trust/identity.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(place.load().unwrap_err().to_string().contains("set its mode to 0600"));
}

#[test]
fn files_that_do_not_go_together_are_not_installed() {
    let (dir, now) = (Dir::new(), SystemTime::now());
    let [ours, theirs] = ["production", "production"].map(|name| book(&dir, name));
    let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let request = key.request("be1").unwrap();
    let der = ours.issue(subject(Role::Server, "be1"), &request, Again::Refuse, now).unwrap();
    let place = Place::new(dir.path().join("trust"));
    assert!(place.install(&other, &der, ours.authority().der()).is_err());
    assert!(place.install(&key, &der, theirs.authority().der()).is_err());
    assert!(!place.exists());
}
