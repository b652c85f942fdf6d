//! Strategies for every value that a member could send or keep.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use session::{
    Body, Boundary, Data, Durable, Forced, Identity, Incarnation, Instant, Level, Lsn, Member,
    Members, Message, Mirroring, Other, Partner, Position, Promotion, Protected, Protection, Reach,
    Record, RecordId, Refusal, Report, Shown, Stamp, Term, Timeline, Verdict, WitnessId, Xid,
};

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u32, u64)>()
        .prop_map(|(timeline, lsn)| Position { timeline: Timeline(timeline), lsn: Lsn(lsn) })
}

fn protected() -> impl Strategy<Value = Protected> {
    (term(), any::<u64>()).prop_map(|(term, lsn)| Protected { term, lsn: Lsn(lsn) })
}

fn partner() -> impl Strategy<Value = Partner> {
    prop_oneof![Just(Partner::First), Just(Partner::Second)]
}

fn member() -> impl Strategy<Value = Member> {
    prop_oneof![
        partner().prop_map(Member::Partner),
        any::<u64>().prop_map(|id| Member::Witness(WitnessId(id)))
    ]
}

fn record_id() -> impl Strategy<Value = RecordId> {
    (term(), any::<u32>()).prop_map(|(term, revision)| RecordId { term, revision })
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![Just(Protection::Mirrored), Just(Protection::Exposed)]
}

fn members() -> impl Strategy<Value = Members> {
    let witness = || option::of(any::<u64>().prop_map(WitnessId));
    prop_oneof![
        witness().prop_map(Members::Settled),
        (witness(), witness()).prop_map(|(old, new)| Members::Changing { old, new }),
        partner().prop_map(Members::Sole),
    ]
}

fn forced() -> impl Strategy<Value = Forced> {
    (term(), record_id(), protection(), position()).prop_map(
        |(term, parent, parent_protection, fork)| Forced { term, parent, parent_protection, fork },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let mirroring = prop_oneof![Just(Mirroring::Active), Just(Mirroring::Suspended)];
    (record_id(), partner(), protection(), mirroring, members(), option::of(forced())).prop_map(
        |(id, principal, protection, mirroring, members, forced)| {
            let protection = members.sole().map_or(protection, |_| Protection::Exposed);
            let principal = members.sole().unwrap_or(principal);
            let mirrored = protection == Protection::Mirrored;
            Record {
                id,
                principal,
                protection,
                mirroring: if mirrored { Mirroring::Active } else { mirroring },
                members,
                forced: forced.filter(|_| !mirrored),
            }
        },
    )
}

fn promotion() -> impl Strategy<Value = Promotion> {
    let boundary = prop_oneof![
        any::<u64>().prop_map(|xid| Boundary::Known(Xid(xid))),
        Just(Boundary::Unknown)
    ];
    (term(), any::<u32>(), position(), boundary, any::<bool>()).prop_map(
        |(term, timeline, fork, boundary, established)| Promotion {
            term,
            timeline: Timeline(timeline),
            fork,
            boundary,
            established,
        },
    )
}

fn shown() -> impl Strategy<Value = Shown> {
    (term(), option::of(record_id())).prop_map(|(promise, record)| Shown { promise, record })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    any::<(u64, u64)>().prop_map(|(run, sent)| Stamp { run, sent: Instant::from_micros(sent) })
}

fn report() -> impl Strategy<Value = Report> {
    (
        any::<(bool, bool, bool, bool, u64)>(),
        option::of(position()),
        option::of(protected()),
        vec(promotion(), 0..5),
    )
        .prop_map(|(plain, position, protected, promotions)| {
            let (serving, can_vote, sees_witness, checkpointed, lineage) = plain;
            Report {
                serving,
                can_vote,
                sees_witness,
                position,
                protected,
                checkpointed,
                lineage,
                promotions,
            }
        })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Granted),
        proptest::sample::select(vec![
            Refusal::TermNotNew,
            Refusal::VoterServes,
            Refusal::RecordIsOlder,
            Refusal::NotEligible,
            Refusal::BehindProtected,
            Refusal::LeaseRuns,
            Refusal::VoterUnsure,
            Refusal::NotYours,
        ])
        .prop_map(Verdict::Refused)
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let id = record_id;
    let reach = || protected().prop_map(Reach);
    let level = prop_oneof![Just(Level::Reached), Just(Level::NotReached)];
    prop_oneof![
        (stamp(), report()).prop_map(|(stamp, report)| Body::Heartbeat { stamp, report }),
        (stamp(), report()).prop_map(|(stamp, report)| Body::HeartbeatAnswered { stamp, report }),
        Just(Body::Proposed),
        id().prop_map(|id| Body::Accepted { id }),
        id().prop_map(|id| Body::ProposalRefused { id }),
        (term(), position(), reach()).prop_map(|(term, position, reach)| Body::PreVoteAsked {
            term,
            position,
            reach
        }),
        (term(), verdict()).prop_map(|(term, verdict)| Body::PreVoteAnswered { term, verdict }),
        (term(), position(), reach()).prop_map(|(term, position, reach)| Body::VoteAsked {
            term,
            position,
            reach
        }),
        (term(), verdict(), any::<u64>()).prop_map(|(term, verdict, asked_by)| {
            Body::VoteAnswered { term, verdict, asked_by: Identity(asked_by) }
        }),
        (term(), option::of(position()))
            .prop_map(|(term, handover)| Body::Resigned { term, handover }),
        (id(), position()).prop_map(|(id, position)| Body::LevelAsked { id, position }),
        (id(), position(), level).prop_map(|(id, position, level)| Body::LevelAnswered {
            id,
            position,
            level
        }),
        any::<u64>().prop_map(|nonce| Body::StateAsked { nonce }),
        (any::<u64>(), shown(), vec(promotion(), 0..5)).prop_map(
            |(nonce, remembered, promotions)| Body::StateAnswered { nonce, remembered, promotions }
        ),
    ]
}

pub fn message() -> impl Strategy<Value = Message> {
    (member(), member(), any::<u64>(), term(), option::of(record()), body())
        .prop_filter("a member does not write to itself", |parts| parts.0 != parts.1)
        .prop_map(|(from, to, identity, promise, record, body)| Message {
            from,
            to,
            identity: Identity(identity),
            promise,
            record,
            body,
        })
}

fn other() -> impl Strategy<Value = Other> {
    let identity = || any::<u64>().prop_map(Identity);
    (option::of(identity()), btree_set(identity(), 0..3), shown()).prop_map(
        |(identity, dropped, shown): (_, BTreeSet<_>, _)| Other { identity, dropped, shown },
    )
}

fn data() -> impl Strategy<Value = Data> {
    let incarnation = any::<(u64, u32)>()
        .prop_map(|(started, timeline)| Incarnation { started, timeline: Timeline(timeline) });
    (any::<bool>(), option::of((term(), incarnation)), position(), any::<bool>()).prop_map(
        |(valid, promoted, flushed, touched)| Data {
            valid,
            promoted,
            flushed,
            touched,
            suspension: if touched {
                session::Suspension::Unjudged
            } else {
                session::Suspension::No
            },
        },
    )
}

pub fn durable() -> impl Strategy<Value = Durable> {
    (
        any::<(u64, u64)>(),
        option::of(record()),
        option::of(term()),
        vec(promotion(), 0..5),
        btree_map(member(), other(), 0..3),
        option::of(data()),
    )
        .prop_map(|((identity, promise), record, resigned, promotions, others, data)| {
            Durable {
                identity: Identity(identity),
                promise: Term(promise).max(record.map_or(Term(0), |record| record.id.term)),
                record,
                resigned,
                promotions: promotions
                    .into_iter()
                    .map(|promotion| (promotion.term, promotion))
                    .collect::<BTreeMap<_, _>>(),
                others,
                data,
            }
        })
}
