//! How the answers of members merge, in the cases where they do not simply agree.

use super::*;
use expect_test::expect;

fn pool() -> PoolEntry {
    PoolEntry {
        name: "pool01".to_owned(),
        first: "be1".to_owned(),
        second: "be2".to_owned(),
        witness: Some("wit1".to_owned()),
        profile: None,
    }
}

fn session(member: &str, role: &str, serving: bool, term: u64, protection: &str) -> SessionStatus {
    serde_json::from_value(serde_json::json!({
        "pool": "pool01", "member": member, "role": role, "serving": serving, "term": term,
        "promise": term,
        "record": {
            "term": term, "revision": 1, "principal": "be1", "protection": protection,
            "mirroring": "active",
            "members": {"first": "be1", "second": "be2", "witness": "wit1", "changing": false},
        },
        "mirroring": "synchronized", "guard_open": false, "lease_left_ms": 1500,
        "others": [{"name": "wit1", "heard_ms_ago": 20, "connected": true}],
        "obstacles": [],
        "automatic_failover": {"armed": true, "sentence": "armed", "estimate_ms": 2100},
        "alarms": [],
    }))
    .unwrap()
}

fn heard(name: &str, session: Option<SessionStatus>) -> Heard {
    let answer = session.map(|session| MemberStatus {
        process: name.to_owned(),
        kind: protocol::admin::MemberKind::Server,
        version: "0.1.0".to_owned(),
        pid: 7,
        uptime_ms: 1,
        deployment: "demo".to_owned(),
        sessions: vec![session],
    });
    Heard {
        name: name.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        answer: answer.ok_or_else(|| "it is not reached".to_owned()),
    }
}

#[test]
fn the_principal_speaks_for_the_pool() {
    let picture = Picture::of(
        &pool(),
        vec![
            heard("be1", Some(session("be1", "principal", true, 4, "mirrored"))),
            heard("be2", Some(session("be2", "mirror", false, 4, "mirrored"))),
            heard("wit1", None),
        ],
    );
    assert_eq!(picture.state, State::Mirrored);
    assert_eq!(
        (picture.principal.as_deref(), picture.mirror.as_deref()),
        (Some("be1"), Some("be2"))
    );
    assert_eq!(picture.witness.unwrap().connected, Some(true));
    assert!(!picture.members[2].answered);
    expect!["be1 serves, and every acknowledged commit is on both servers' disks"]
        .assert_eq(&picture.sentence);
}

#[test]
fn an_exposed_principal_is_shown_as_such() {
    let picture = Picture::of(
        &pool(),
        vec![
            heard("be1", Some(session("be1", "principal", true, 4, "exposed"))),
            heard("be2", None),
        ],
    );
    assert_eq!(picture.state, State::Exposed);
    assert!(!picture.redundant());
}

#[test]
fn of_two_principals_the_newer_one_is_believed_and_the_other_is_an_alarm() {
    let picture = Picture::of(
        &pool(),
        vec![
            heard("be1", Some(session("be1", "principal", true, 4, "mirrored"))),
            heard("be2", Some(session("be2", "principal", true, 5, "exposed"))),
        ],
    );
    assert_eq!(picture.principal.as_deref(), Some("be2"));
    assert_eq!(picture.alarms[0].code, "older_principal");
}

#[test]
fn a_pool_that_nobody_serves_says_who_is_missing() {
    let picture = Picture::of(
        &pool(),
        vec![
            heard("be1", None),
            heard("be2", Some(session("be2", "waiting", false, 4, "exposed"))),
            heard("wit1", None),
        ],
    );
    assert_eq!(picture.state, State::NotServed);
    assert_eq!(picture.term, 4);
    expect!["nobody serves: be1 does not answer, be2 is waiting, wit1 does not answer"]
        .assert_eq(&picture.sentence);
}
