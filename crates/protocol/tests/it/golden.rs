//! The very bytes, and the very JSON. A change here is a change of the published form: it is only
//! right if something was appended.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use protocol::{admin, convert, frame, handshake};
use session::{
    Body, Boundary, Data, Durable, Forced, Identity, Incarnation, Instant, Lsn, Member, Members,
    Message, Mirroring, Other, Partner, Position, Promotion, Protected, Protection, Reach, Record,
    RecordId, Refusal, Report, Shown, Stamp, Term, Timeline, Verdict, WitnessId, Xid,
};

fn hex(bytes: &[u8], expected: Expect) {
    let lines: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

fn position() -> Position {
    Position { timeline: Timeline(3), lsn: Lsn(0x300_0060) }
}

fn promotion() -> Promotion {
    Promotion {
        term: Term(4),
        timeline: Timeline(4),
        fork: position(),
        boundary: Boundary::Known(Xid(760)),
        established: true,
    }
}

fn record() -> Record {
    let forced = Forced {
        term: Term(4),
        parent: RecordId { term: Term(3), revision: 1 },
        parent_protection: Protection::Mirrored,
        fork: position(),
    };
    Record {
        id: RecordId { term: Term(4), revision: 2 },
        principal: Partner::First,
        protection: Protection::Exposed,
        mirroring: Mirroring::Active,
        members: Members::Changing { old: Some(WitnessId(9)), new: None },
        forced: Some(forced),
    }
}

fn message(body: Body) -> Vec<u8> {
    convert::message_to_bytes(&Message {
        from: Member::FIRST,
        to: Member::Witness(WitnessId(9)),
        identity: Identity(0x1122),
        promise: Term(4),
        record: Some(record()),
        body,
    })
}

#[test]
fn a_heartbeat() {
    let stamp = Stamp { run: 5, sent: Instant::from_micros(1_000_000) };
    let report = Report {
        serving: true,
        can_vote: true,
        sees_witness: false,
        position: Some(position()),
        protected: Some(Protected { term: Term(4), lsn: Lsn(0x300_0060) }),
        checkpointed: true,
        lineage: 77,
        promotions: vec![promotion()],
    };
    hex(
        &message(Body::Heartbeat { stamp, report }),
        expect![[r#"
        00000109a2220401040200010001010900010403010003e08080180005c0843d
        0101000103e08080180104e0808018014d01040403e080801800f80501"#]],
    );
}

#[test]
fn votes() {
    let reach = Reach(Protected { term: Term(2), lsn: Lsn(256) });
    hex(
        &message(Body::VoteAsked { term: Term(6), position: position(), reach }),
        expect![[r#"
        00000109a2220401040200010001010900010403010003e0808018070603e080
        8018028002"#]],
    );
    let verdict = Verdict::Refused(Refusal::LeaseRuns);
    hex(
        &message(Body::VoteAnswered { term: Term(6), verdict, asked_by: Identity(8) }),
        expect!["00000109a2220401040200010001010900010403010003e08080180806010508"],
    );
}

#[test]
fn the_last_kind_of_message() {
    let remembered = Shown { promise: Term(4), record: Some(RecordId::default()) };
    hex(
        &message(Body::StateAnswered { nonce: 3, remembered, promotions: vec![promotion()] }),
        expect![[r#"
            00000109a2220401040200010001010900010403010003e08080180d03040100
            0001040403e080801800f80501"#]],
    );
}

#[test]
fn a_stored_state() {
    let other = Other {
        identity: Some(Identity(2)),
        dropped: BTreeSet::from([Identity(1)]),
        shown: Shown { promise: Term(4), record: None },
    };
    let data = Data {
        valid: true,
        promoted: Some((Term(4), Incarnation { started: 99, timeline: Timeline(4) })),
        flushed: position(),
        touched: false,
        suspension: session::Suspension::No,
    };
    let durable = Durable {
        identity: Identity(7),
        promise: Term(6),
        record: Some(record()),
        resigned: Some(Term(2)),
        promotions: BTreeMap::from([(Term(4), promotion())]),
        others: BTreeMap::from([(Member::SECOND, other)]),
        data: Some(data),
    };
    hex(
        &convert::durable_to_bytes(&durable),
        expect![[r#"
            01070601040200010001010900010403010003e0808018010201040403e08080
            1800f8050101000101020101040001010104630403e08080180000"#]],
    );
}

#[test]
fn an_introduction() {
    let me = handshake::Introduction {
        deployment: "demo".into(),
        host: "be1".into(),
        run: 300,
        software: "0.1.0".into(),
    };
    let mut bytes = Vec::new();
    let hello = me.hello(handshake::Role::Member, "be2").to_bytes();
    frame::write(frame::Kind::Hello, &hello, &mut bytes).unwrap();
    hex(&bytes, expect!["0000001a01010101000464656d6f0362653103626532ac0205302e312e30"]);
}

#[test]
fn requests_and_refusals() {
    let requests = [
        admin::Request::Status { pool: None },
        admin::Request::Failover { pool: "pool01".into(), to: Some("be2".into()), dry_run: true },
        admin::Request::Shutdown { stop_postgres: true },
    ];
    let text: Vec<String> = requests
        .iter()
        .map(|request| {
            let bytes = request.to_bytes();
            assert_eq!(admin::Request::from_bytes(&bytes).as_ref(), Ok(request));
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    expect![[r#"
        {"request":"status"}
        {"request":"failover","pool":"pool01","to":"be2","dry_run":true}
        {"request":"shutdown","stop_postgres":true}"#]]
    .assert_eq(&text.join("\n"));
    let refused = admin::Response::from(admin::words::why(session::Why::NotMirrored));
    expect![[r#"{"response":"refused","code":"not_mirrored","sentence":"the pool runs exposed: the mirror does not hold every acknowledged commit","hint":"wait until `pool status` says synchronized"}"#]].assert_eq(&String::from_utf8(refused.to_bytes()).unwrap());
}

#[test]
fn an_unknown_request_is_refused_and_not_guessed() {
    let refusal = admin::Request::from_bytes(br#"{"request":"make_tea"}"#).unwrap_err();
    assert_eq!(refusal.code, "unknown_request");
    let typo = br#"{"request":"force_service","pool":"p","accept_dataloss":true}"#;
    assert_eq!(admin::Request::from_bytes(typo).unwrap_err().code, "unknown_request");
}

#[test]
fn what_is_said_of_the_topology() {
    let standing =
        admin::TopologyStanding { process: "wit1".into(), have: 3, ..Default::default() };
    let follow = admin::TopologyRequest::Follow { standing, wait_ms: 5_000 };
    let show = admin::TopologyRequest::Show { version: Some(2), document: true };
    let requests = [follow, show, admin::TopologyRequest::Replication];
    let text: Vec<String> = requests
        .into_iter()
        .map(|request| {
            let request = admin::Request::Topology(request);
            let bytes = request.to_bytes();
            assert_eq!(admin::Request::from_bytes(&bytes).as_ref(), Ok(&request));
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    expect![[r#"
        {"request":"topology","what":"follow","standing":{"process":"wit1","have":3},"wait_ms":5000}
        {"request":"topology","what":"show","version":2,"document":true}
        {"request":"topology","what":"replication"}"#]]
    .assert_eq(&text.join("\n"));
    let header = admin::TopologyHeader {
        version: 3,
        published_ms: 1_763_870_400_000,
        author: "ann".into(),
        comment: "a second pool".into(),
        digest: "00ff".into(),
    };
    let copy = admin::TopologyCopy { header, document: "format = 1\n".into() };
    let newer = admin::Response::Topology(admin::TopologyAnswer::Newer { copy });
    let bytes = newer.to_bytes();
    assert_eq!(admin::Response::from_bytes(&bytes).unwrap(), newer);
    expect![[r#"{"response":"topology","what":"newer","copy":{"header":{"version":3,"published_ms":1763870400000,"author":"ann","comment":"a second pool","digest":"00ff"},"document":"format = 1\n"}}"#]].assert_eq(&String::from_utf8(bytes).unwrap());
    let more = br#"{"request":"topology","what":"publish","base":1,"docment":"x"}"#;
    assert_eq!(admin::Request::from_bytes(more).unwrap_err().code, "unknown_request");
}
