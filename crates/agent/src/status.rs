//! What a process shows of itself: the session's view, PostgreSQL's condition and the names of the
//! configuration, put together. Only reads.

use std::time::Duration;

use protocol::admin::{
    Alarm, AutomaticFailover, CopyProgress, ForcedShown, Members, MirrorStatus, Obstacle,
    OtherStatus, PositionShown, PostgresStatus, RecordShown, Role, SessionStatus, words,
};
use session::{
    Instant, Lsn, Member, Members as Voters, MirrorSeen, Partner, Position, Record, View, WitnessId,
};

use crate::config::Part;
use crate::postgres::condition::{Problem, StorageAils};
use crate::postgres::{Condition, State};
use crate::seat::Seat;

/// From the decision to the first write, as measured on a small machine.
const PROMOTION: Duration = Duration::from_millis(300);

mod waiting;

/// One session as its member sees it.
pub(crate) fn of(seat: &Seat, now: Instant) -> SessionStatus {
    let view = seat.session.view(now);
    let mut part = seat.part.clone();
    part.members.extend(seat.former.clone());
    let part = &part;
    let condition = seat.door.as_ref().map(|door| door.condition.borrow().clone());
    let term = view.record.map_or(0, |record| record.id.term.0);
    let mut alarms = alarms(seat, &view);
    alarms.extend(condition.as_ref().and_then(full_volume));
    alarms.extend(waiting::notices(seat, &view, condition.as_ref()));
    SessionStatus {
        pool: part.pool.clone(),
        member: part.my_name(),
        role: if is_new(seat, &view) { Role::NotCreated } else { view.role.into() },
        serving: view.serving,
        term,
        promise: view.promise.0,
        record: view.record.map(|record| record_shown(part, &record)),
        mirroring: view.mirroring.into(),
        lease_left_ms: view.lease_left.map(ms),
        guard_open: view.guard_open,
        others: view
            .others
            .iter()
            .map(|other| OtherStatus {
                name: part.name_of(other.member),
                heard_ms_ago: other.heard.map(ms),
                connected: other.connected,
            })
            .collect(),
        mirror: view.mirror.map(|mirror| mirror_status(mirror, condition.as_ref())),
        postgres: condition.map(|condition| postgres_status(part, &view, condition)),
        obstacles: view
            .obstacles
            .iter()
            .map(|obstacle| {
                let (code, sentence) = words::obstacle(*obstacle);
                Obstacle { code: code.to_owned(), sentence: sentence.to_owned() }
            })
            .collect(),
        automatic_failover: automatic_failover(part, &view),
        alarms,
    }
}

/// No session has been created here, and nobody has shown one: this is not a loss.
fn is_new(seat: &Seat, view: &View) -> bool {
    view.record.is_none() && seat.seen.is_none()
}

fn automatic_failover(part: &Part, view: &View) -> AutomaticFailover {
    let estimate = ms(part.timing.detection + PROMOTION);
    let armed = view.obstacles.is_empty();
    AutomaticFailover {
        armed,
        sentence: words::automatic_failover(&view.obstacles, estimate),
        estimate_ms: armed.then_some(estimate),
    }
}

/// The alarms that stand; those that the view refutes have ended.
fn alarms(seat: &Seat, view: &View) -> Vec<Alarm> {
    let stands = |alarm: &&Alarm| match alarm.code.as_str() {
        "serving_forced" => view.record.is_some_and(|record| record.forced.is_some()),
        "side_suspended" => view.role == session::Role::Suspended,
        "data_behind" => view.data.is_none_or(|data| !data.valid),
        "state_restored" => view.record.is_none(),
        "witness_lost" => {
            view.record.is_some_and(|record| record.members.has_witness())
                && !view
                    .others
                    .iter()
                    .any(|other| matches!(other.member, Member::Witness(_)) && other.connected)
        }
        _ => true,
    };
    seat.alarms.values().filter(stands).cloned().collect()
}

/// PostgreSQL goes on without room as long as it can: this is no reason to change roles.
fn full_volume(condition: &Condition) -> Option<Alarm> {
    let storage = condition.storage.as_ref()?;
    match storage.ails {
        StorageAils::Full => Some(Alarm {
            code: "storage_full".to_owned(),
            sentence: match &storage.problem.hint {
                Some(hint) => format!("{}: {hint}", storage.problem.text),
                None => storage.problem.text.clone(),
            },
            since_ms: storage.since_ms,
        }),
        // The session raises that one.
        StorageAils::Failing => None,
    }
}

/// What stands in PostgreSQL's way, or else what its volume ails.
fn problem(condition: &Condition) -> Option<&Problem> {
    let failing = condition.storage.as_ref().filter(|found| found.ails == StorageAils::Failing);
    condition.problem.as_ref().or(failing.map(|storage| &storage.problem))
}

/// A principal whose data are gone does not follow anybody: they may come back.
fn missing_data(part: &Part, view: &View, condition: &Condition) -> Option<Problem> {
    let is_principal =
        view.record.is_some_and(|record| Member::Partner(record.principal) == part.me);
    let data_dir = &part.postgres.as_ref()?.data_dir;
    (condition.state == State::Absent && is_principal).then(|| Problem {
        text: format!(
            "there is no data in {}, though this server was the pool's principal",
            data_dir.display()
        ),
        hint: Some(
            "mount its volume, or put the data back, and start this agent again; if they are lost \
             for good, force service on the other server"
                .to_owned(),
        ),
    })
}

fn record_shown(part: &Part, record: &Record) -> RecordShown {
    let witness = |id: Option<WitnessId>| id.map(|id| part.name_of(Member::Witness(id)));
    let (now, next, changing) = match record.members {
        Voters::Settled(settled) => (settled, None, false),
        Voters::Changing { old, new } => (old, new, true),
        Voters::Sole(_) => (None, None, false),
    };
    RecordShown {
        term: record.id.term.0,
        revision: record.id.revision,
        principal: part.name_of(Member::Partner(record.principal)),
        protection: record.protection.into(),
        mirroring: record.mirroring.into(),
        members: Members {
            first: part.name_of(Member::Partner(Partner::First)),
            second: part.name_of(Member::Partner(Partner::Second)),
            witness: witness(now),
            changing,
            next_witness: witness(next),
        },
        forced: record.forced.map(|forced| ForcedShown {
            term: forced.term.0,
            parent_term: forced.parent.term.0,
            parent_revision: forced.parent.revision,
            fork: forced.fork.into(),
        }),
    }
}

fn mirror_status(mirror: MirrorSeen, condition: Option<&Condition>) -> MirrorStatus {
    match mirror {
        MirrorSeen::Away => {
            MirrorStatus { streaming: false, not_flushed_bytes: None, not_replayed_bytes: None }
        }
        MirrorSeen::Streaming { flushed, end } => MirrorStatus {
            streaming: true,
            not_flushed_bytes: Some(end.0.saturating_sub(flushed.0)),
            not_replayed_bytes: condition
                .and_then(|condition| condition.mirror_replayed)
                .map(|replayed| end.0.saturating_sub(replayed.0)),
        },
    }
}

fn postgres_status(part: &Part, view: &View, condition: Condition) -> PostgresStatus {
    let serves = view.promotion.filter(|_| view.serving).map(|promotion| promotion.timeline);
    let seen = condition.timeline.or(view.position.map(|position| position.timeline));
    let timeline = serves.or(seen);
    let at = |lsn: Option<Lsn>| -> Option<PositionShown> {
        Some(Position { timeline: timeline.unwrap_or_default(), lsn: lsn? }.into())
    };
    let state = match condition.state {
        State::Stopped => "stopped",
        State::Absent => "absent",
        State::Starting => "starting",
        State::Standby => "standby",
        State::Primary => "primary",
        State::Unresponsive => "unresponsive",
    };
    let configured = part.postgres.as_ref();
    let absent = missing_data(part, view, &condition);
    let problem = problem(&condition).cloned().or(absent);
    let text = |path: Option<&std::path::PathBuf>| {
        path.map(|path| path.display().to_string()).unwrap_or_default()
    };
    PostgresStatus {
        pid: condition.pid,
        state: state.to_owned(),
        host: part.members.get(&part.me).map(|me| me.host.clone()).unwrap_or_default(),
        port: configured.map_or(0, |postgres| postgres.port),
        data_dir: text(configured.map(|postgres| &postgres.data_dir)),
        socket_dir: text(configured.map(|postgres| &postgres.socket_dir)),
        version: condition.version.map(|version| version.to_string()),
        position: at(condition.flushed),
        replayed: at(condition.replayed),
        timeline: timeline.map(|timeline| timeline.0),
        data_valid: view.data.is_some_and(|data| data.valid),
        doing: Some(condition.doing).filter(|doing| !doing.is_empty()),
        progress: condition.progress.map(|progress| CopyProgress {
            done_bytes: progress.done,
            total_bytes: Some(progress.total).filter(|total| *total > 0),
            percent: percent(progress.done, progress.total),
        }),
        hint: problem.as_ref().and_then(|problem| problem.hint.clone()),
        problem: problem.map(|problem| problem.text),
    }
}

fn percent(done: u64, total: u64) -> Option<u8> {
    let percent = done.min(total).saturating_mul(100).checked_div(total)?;
    u8::try_from(percent).ok()
}

pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
