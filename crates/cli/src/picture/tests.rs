//! How the answers of members merge, in the cases where they do not simply agree.

use super::*;
use expect_test::expect;
use protocol::admin::{
    ClientSessionCounts, FrontEndAffected, FrontEndCounters, FrontEndMode, FrontEndPrincipal,
    FrontEndStandby, ServerConnectionCounts,
};

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
        port: None,
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

fn postgres(state: &str, port: u16) -> protocol::admin::PostgresStatus {
    serde_json::from_value(serde_json::json!({
        "pid": 77, "state": state, "host": "10.0.0.1", "port": port,
        "data_dir": "/srv/data", "socket_dir": "/run/backstay",
        "position": {"lsn": "0/3000060", "bytes": 50_331_744, "timeline": 2},
        "replayed": {"lsn": "0/3000000", "bytes": 50_331_648, "timeline": 2},
        "data_valid": true,
    }))
    .unwrap()
}

#[test]
fn a_mirrored_pool_reads_well() {
    let mut be1 = session("be1", "principal", true, 4, "mirrored");
    be1.postgres = Some(postgres("primary", 5432));
    be1.mirror = Some(MirrorStatus {
        streaming: true,
        not_flushed_bytes: Some(0),
        not_replayed_bytes: None,
    });
    let mut be2 = session("be2", "mirror", false, 4, "mirrored");
    be2.postgres = Some(postgres("standby", 5433));
    let answers = vec![heard("be1", Some(be1)), heard("be2", Some(be2)), heard("wit1", None)];
    let picture = Picture::of(&pool(), answers);
    assert_eq!(picture.not_replayed_bytes, Some(96));
    expect![[r#"
        pool01  MIRRORED  be1 serves, and every acknowledged commit is on both servers' disks

          term                4
          protection          mirrored
          mirroring           synchronized, streaming, 0 B not yet flushed, 96 B not yet replayed
          lease               1.5 s left, renewed with every heartbeat
          witness             wit1: connected, heard 20 ms ago
          automatic failover  armed

          MEMBER  ROLE       POSTGRESQL  ADDRESS        WAL          DOING
          be1     principal  primary     10.0.0.1:5432  0/3000060@2
          be2     mirror     standby     10.0.0.1:5433  0/3000060@2
          wit1    no answer  -           127.0.0.1:1    -

          note: wit1: it is not reached
    "#]]
    .assert_eq(&crate::show::picture(&picture, crate::output::Colour::Off));
}

#[test]
fn a_lost_witness_is_an_alarm_and_a_copy_shows_its_progress() {
    let mut be1 = session("be1", "principal", true, 4, "exposed");
    be1.mirroring = MirroringState::Synchronizing;
    be1.others[0].connected = false;
    be1.automatic_failover = AutomaticFailover {
        armed: false,
        sentence: "not armed: the witness does not answer".to_owned(),
        estimate_ms: None,
    };
    be1.alarms = vec![protocol::admin::Alarm {
        code: "witness_lost".to_owned(),
        sentence: "the witness is lost: service goes on, but without automatic failover".to_owned(),
        since_ms: 1,
    }];
    let mut be2 = session("be2", "waiting", false, 4, "exposed");
    let mut copying = postgres("absent", 5433);
    copying.doing = Some("copying the data from be1:".to_owned());
    copying.progress = Some(protocol::admin::CopyProgress {
        done_bytes: 30 << 20,
        total_bytes: Some(60 << 20),
        percent: Some(50),
    });
    copying.problem = Some("the volume is nearly full".to_owned());
    copying.hint = Some("make room".to_owned());
    be2.postgres = Some(copying);
    let picture = Picture::of(&pool(), vec![heard("be1", Some(be1)), heard("be2", Some(be2))]);
    expect![[r#"
        pool01  EXPOSED  be1 serves alone: acknowledged commits are on its disk only until be2 mirrors again

          ALARM the witness is lost: service goes on, but without automatic failover (be1)

          term                4
          protection          exposed
          mirroring           synchronizing
          lease               1.5 s left, renewed with every heartbeat
          witness             wit1: LOST, heard 20 ms ago
          automatic failover  not armed: the witness does not answer

          MEMBER  ROLE       POSTGRESQL  ADDRESS        WAL          DOING
          be1     principal  -           127.0.0.1:1    -
          be2     waiting    absent      10.0.0.1:5433  0/3000060@2  copying the data from be1: 30 MB of 60 MB (50 %)

          problem: be2: the volume is nearly full
          hint: make room
    "#]].assert_eq(&crate::show::picture(&picture, crate::output::Colour::Off));
}

fn front_end(mode: FrontEndMode, principal: Option<FrontEndPrincipal>) -> FrontEndStatus {
    FrontEndStatus {
        name: "fe1".to_owned(),
        deployment: "demo".to_owned(),
        pool: "pool01".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 9,
        uptime_ms: 70_000,
        listen: "10.0.0.9:5432".to_owned(),
        mode,
        mode_since_ms: 1_795_000_000_000,
        mode_since: "2026-11-18T11:06:40.000Z".to_owned(),
        mode_for_ms: 61_000,
        without_principal_ms: None,
        sentence: "nobody has served the pool for 1 min: 3 client sessions wait".to_owned(),
        principal,
        standby: Some(FrontEndStandby {
            server: "be2".to_owned(),
            address: "10.0.0.2:5432".to_owned(),
            complete: true,
        }),
        highest_term: 4,
        servers: Vec::new(),
        client_sessions: ClientSessionCounts { all: 12, active: 4, held: 3, with_server: 5 },
        affected: Vec::new(),
        affected_count: 0,
        server_connections: ServerConnectionCounts::default(),
        counters: FrontEndCounters::default(),
    }
}

#[test]
fn front_ends_are_shown_below_the_members_and_change_no_state() {
    let heard_front_end = |name: &str, answer: Result<FrontEndStatus, String>| HeardFrontEnd {
        name: name.to_owned(),
        address: "10.0.0.9:7022".to_owned(),
        answer,
    };
    let principal = FrontEndPrincipal {
        server: "be1".to_owned(),
        address: "10.0.0.1:5432".to_owned(),
        term: 4,
        timeline: 2,
        handing_over: false,
        lease_left_ms: 1_500,
    };
    let mut be1 = session("be1", "principal", true, 4, "mirrored");
    be1.postgres = Some(postgres("primary", 5432));
    let affected = |user: &str, client_sessions, held| FrontEndAffected {
        user: user.to_owned(),
        database: "orders".to_owned(),
        client_sessions,
        held,
    };
    let alone = FrontEndStatus {
        affected: vec![affected("shop", 11, 3), affected("clerk", 1, 0)],
        affected_count: 9,
        ..front_end(FrontEndMode::StandbyReads, None)
    };
    let picture = Picture::of(&pool(), vec![heard("be1", Some(be1))]).with_front_ends(vec![
        heard_front_end("fe1", Ok(front_end(FrontEndMode::Normal, Some(principal)))),
        heard_front_end("fe2", Ok(alone)),
        heard_front_end("fe3", Err("it is not reached".to_owned())),
    ]);
    assert_eq!(picture.state, State::Mirrored);
    let shown = crate::show::picture(&picture, crate::output::Colour::Off);
    // Without the margin, which the snapshot cannot show.
    let shown = shown[shown.find("  FRONT END").unwrap()..].replace("\n  ", "\n");
    expect![[r#"
          FRONT END  MODE                  SINCE          ADDRESS        CLIENT SESSIONS       SERVER
          fe1        normal                1 min 1 s ago  10.0.0.9:5432  12, 4 active, 3 held  be1
          fe2        reads from a standby  1 min 1 s ago  10.0.0.9:5432  12, 4 active, 3 held  be2 (standby)
          fe3        no answer             -              10.0.0.9:7022

          note: fe2: nobody has served the pool for 1 min: 3 client sessions wait
                shop in database orders: 11 client sessions, 3 held
                clerk in database orders: 1 client session
                and 7 more users and databases
          note: fe3: it is not reached
    "#]].assert_eq(shown.trim_start());
}
