//! Administrators' requests to a seat: those that only read are answered here; the others become
//! requests to the session, which answers through an output.

use protocol::admin::words::{self, Code};
use protocol::admin::{
    Check, DatumShown, FailoverPlan, ForcePreview, PositionShown, Refusal, Request, Response,
};
use session::{Answer, Instant, Member, Obstacle, Partner, Position, Protection, Term, View, Why};

use crate::seat::Seat;
use crate::status;

const HISTORY_LIMIT: usize = 200;

/// What the loop does with a request.
pub(crate) enum Course {
    Answer(Response),
    /// Ask the session.
    Ask {
        what: session::Request,
        done: &'static str,
        begun: &'static str,
    },
    Create,
}

impl From<Refusal> for Course {
    fn from(refusal: Refusal) -> Course {
        Course::Answer(refusal.into())
    }
}

/// What becomes of `request` at `seat`. Requests to the process as a whole never come here.
pub(crate) fn course(seat: &Seat, now: Instant, request: &Request) -> Course {
    let ask = |what, done, begun| Course::Ask { what, done, begun };
    match request {
        Request::CreateSession { .. } => create(seat),
        Request::Failover { to, dry_run, .. } => failover(seat, now, to.as_deref(), *dry_run),
        Request::ForceService { accept_data_loss: false, .. } => preview(seat, now),
        Request::ForceService { accept_data_loss: true, .. } => ask(
            session::Request::ForceService,
            "service is forced",
            "service is being forced: the status tells when this server serves",
        ),
        Request::Suspend { .. } => ask(
            session::Request::Suspend,
            "mirroring is suspended: the pool runs exposed",
            "mirroring is being suspended: the pool will run exposed",
        ),
        Request::Resume { discard_this_side: false, .. } => ask(
            session::Request::Resume,
            "mirroring is resumed",
            "mirroring is being resumed: the mirror catches up",
        ),
        Request::Resume { discard_this_side: true, .. } => ask(
            session::Request::DiscardThisSide,
            "this side is given up: it follows the other one",
            "this side is being given up: it will follow the other one",
        ),
        Request::ChangeWitness { to, .. } => change_witness(seat, to.as_deref()),
        Request::ServeAlone { .. } => ask(
            session::Request::ServeAlone,
            "this server serves alone",
            "this server is about to serve alone",
        ),
        Request::Learn { .. } => ask(
            session::Request::LearnFromPrincipal,
            "this member has learnt the session from the principal",
            "this member will learn the session from the principal alone",
        ),
        Request::History { after, limit, .. } => {
            let limit = limit.map_or(HISTORY_LIMIT, |limit| limit as usize);
            Course::Answer(Response::History {
                entries: seat.history.after(*after, limit.min(HISTORY_LIMIT)),
                newest: seat.history.newest(),
            })
        }
        Request::Status { .. }
        | Request::Shutdown { .. }
        | Request::Follow { .. }
        | Request::Drained { .. }
        | Request::Topology(_)
        | Request::Preflight { .. }
        | Request::Audit { .. } => Code::UnknownRequest.refusal(None).into(),
    }
}

/// The session's answer in words.
pub(crate) fn answered(
    seat: &Seat,
    answer: Answer,
    done: &'static str,
    begun: &'static str,
) -> Response {
    match answer {
        Answer::Done => Response::Done { sentence: done.to_owned() },
        Answer::Begun => Response::Begun {
            sentence: begun.to_owned(),
            term: term(seat).0,
            history: seat.history.newest(),
        },
        Answer::Refused(why) => words::why(why).into(),
    }
}

fn term(seat: &Seat) -> Term {
    seat.session.durable().record_id().unwrap_or_default().term
}

/// Only a member that never had the session, and to whom nobody shows one, may begin it: one that
/// lost its state must learn instead (R10).
fn create(seat: &Seat) -> Course {
    if seat.creating {
        return words::why(Why::Busy).into();
    }
    if seat.is_created() {
        return Code::SessionExists.refusal(None).into();
    }
    if let Some(seen) = seat.seen
        && seen != session::RecordId::default()
    {
        let detail = format!("another member shows its record of term {}", seen.term);
        return Code::SessionExists.refusal(Some(detail)).into();
    }
    Course::Create
}

fn change_witness(seat: &Seat, to: Option<&str>) -> Course {
    let to = match to {
        None => None,
        Some(name) => match seat.part.witness_named(name) {
            Some(id) => Some(id),
            None => return Code::UnknownWitness.refusal(Some(name.to_owned())).into(),
        },
    };
    Course::Ask {
        what: session::Request::ChangeWitness { to },
        done: "the witness is changed",
        begun: "the witness is being changed: the status tells when the new one counts",
    }
}

fn failover(seat: &Seat, now: Instant, to: Option<&str>, dry_run: bool) -> Course {
    let Member::Partner(me) = seat.part.me else {
        return Code::NotAPartner.refusal(None).into();
    };
    let to = match to {
        None => None,
        Some(name) => match seat.part.partner_named(name) {
            Some(partner) => Some(partner),
            None => return Code::UnknownServer.refusal(Some(name.to_owned())).into(),
        },
    };
    if dry_run {
        return Course::Answer(Response::Plan(plan(seat, now, me, to)));
    }
    Course::Ask {
        what: session::Request::Failover { to },
        done: "the failover is done",
        begun: "the failover has begun",
    }
}

fn plan(seat: &Seat, now: Instant, me: Partner, to: Option<Partner>) -> FailoverPlan {
    let view = seat.session.view(now);
    let lacks = |obstacle: Obstacle| view.obstacles.contains(&obstacle);
    let check = |code: &str, met: bool, met_words: &str, why: Why| Check {
        code: code.to_owned(),
        met,
        sentence: if met { met_words.to_owned() } else { words::why(why).sentence },
    };
    let serves = view.serving;
    let to = to.unwrap_or(me.other());
    let mirrored = view.record.is_some_and(|record| record.protection == Protection::Mirrored);
    let checks = vec![
        check("serves", serves, "this server serves the pool", Why::NotPrincipal),
        check("other", to != me, "the other server is to serve", Why::AlreadyPrincipal),
        check(
            "not_suspended",
            !lacks(Obstacle::Suspended),
            "mirroring is not suspended",
            Why::Suspended,
        ),
        check("mirrored", mirrored, "every acknowledged commit is on both disks", Why::NotMirrored),
        check(
            "streaming",
            !lacks(Obstacle::MirrorNotStreaming) && view.mirror.is_some(),
            "the mirror is streaming",
            Why::MirrorNotStreaming,
        ),
    ];
    FailoverPlan {
        pool: seat.part.pool.clone(),
        from: seat.part.name_of(Member::Partner(me)),
        to: seat.part.name_of(Member::Partner(to)),
        possible: checks.iter().all(|check| check.met),
        checks,
    }
}

fn preview(seat: &Seat, now: Instant) -> Course {
    let Member::Partner(me) = seat.part.me else {
        return Code::NotAPartner.refusal(None).into();
    };
    let view = seat.session.view(now);
    let own = own_data(seat, &view, me);
    let other_position = seat.other_data.map(|(position, _)| position);
    let other = DatumShown {
        server: seat.part.name_of(Member::Partner(me.other())),
        position: other_position.map(Into::into),
        timeline: other_position.map(|position| position.timeline.0),
        valid: None,
        seen_ms_ago: seat.other_data.map(|(_, at)| status::ms(now.since(at))),
        promotions: own.promotions.clone(),
    };
    let mirrored = view.record.is_some_and(|record| record.protection == Protection::Mirrored);
    let should_hold = mirrored || view.record.is_some_and(|record| record.principal == me);
    // The record speaks of data that may have been replaced by older ones since.
    let nothing_should_be_lost = should_hold && own.valid.unwrap_or(false);
    let refusal = if view.serving {
        Some(words::why(Why::AlreadyPrincipal))
    } else if view.data.is_none_or(|data| data.touched) {
        Some(words::why(Why::NoData))
    } else {
        None
    };
    let sentence = match view.data {
        Some(data) if should_hold && !data.valid => format!(
            "{}'s data end at {} on timeline {}, and had once reached at least {}: an old copy \
             was found in their place, so nobody can tell whether they hold every acknowledged \
             commit",
            own.server,
            own.position.as_ref().map_or("an unknown position", |position| &position.lsn),
            own.timeline.unwrap_or_default(),
            data.flushed,
        ),
        Some(_) | None => preview_sentence(&own, &other, nothing_should_be_lost),
    };
    let protected = view.protected.map(|protected| {
        let timeline = view.position.map(|position| position.timeline).unwrap_or_default();
        PositionShown::from(Position { timeline, lsn: protected.lsn })
    });
    Course::Answer(Response::Preview(ForcePreview {
        pool: seat.part.pool.clone(),
        server: own.server.clone(),
        own,
        other,
        protected,
        nothing_should_be_lost,
        refusal,
        sentence,
    }))
}

fn own_data(seat: &Seat, view: &View, me: Partner) -> DatumShown {
    let position = view.position.or(view.data.map(|data| data.flushed));
    DatumShown {
        server: seat.part.name_of(Member::Partner(me)),
        position: position.map(Into::into),
        timeline: position.map(|position| position.timeline.0),
        valid: Some(view.data.is_some_and(|data| data.valid)),
        seen_ms_ago: Some(0),
        promotions: seat.session.durable().promotions.values().copied().map(Into::into).collect(),
    }
}

fn preview_sentence(own: &DatumShown, other: &DatumShown, nothing_should_be_lost: bool) -> String {
    let ends = |datum: &DatumShown| match &datum.position {
        Some(position) => format!("{} on timeline {}", position.lsn, position.timeline),
        None => "an unknown position".to_owned(),
    };
    if nothing_should_be_lost {
        return format!(
            "{}'s data end at {}; by the record, every acknowledged commit is in them",
            own.server,
            ends(own)
        );
    }
    format!(
        "{}'s data end at {}; {}'s were last known to end at {}: what {} acknowledged beyond \
         {}'s data would be lost",
        own.server,
        ends(own),
        other.server,
        ends(other),
        other.server,
        own.server
    )
}
