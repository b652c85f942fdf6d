//! Mirrors that come, go and move; principals that are named anew.
//!
//! In the sessions a server is the pool's first or its second one, whoever serves. It cannot
//! change from one to the other, and at least one of the two has to stay: it has the data.

use std::collections::BTreeSet;

use super::view::Both;
use super::{Change, Condition, Effect, Stage, Work};

pub(super) fn changed(work: &mut Work<'_>, both: &Both<'_>) {
    let (before, after) = (&both.before, &both.after);
    let came_first = after.first.filter(|_| after.first != before.first);
    let crossing = (after.first.is_some() && after.first == before.second)
        || (after.second.is_some() && after.second == before.first);
    if crossing {
        return refuse_crossing(work, both);
    }
    let stays = before.partners().any(|server| after.partners().any(|other| other == server));
    match (stays, before.second) {
        (true, _) => {}
        (false, Some(_)) => return refuse_both_new(work, both),
        (false, None) => return refuse_only_server(work, both),
    }
    match (before.second, after.second) {
        (None, Some(mirror)) => added(work, both, mirror),
        (Some(mirror), None) => removed(work, both, mirror),
        (Some(from), Some(to)) if from != to => moved(work, both, from, to),
        (None | Some(_), None | Some(_)) => {}
    }
    if let (Some(to), Some(from)) = (came_first, before.first) {
        moved(work, both, from, to);
    }
}

fn refuse_only_server(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    let from = both.before.first.unwrap_or_default();
    let to: Vec<&str> = both.after.partners().collect();
    work.refuse(
        "only_server_replaced",
        Some(name),
        format!("{} cannot take the place of {from} in {name}", to.join(" and ")),
        &format!("the data are on {from} alone"),
        &[
            &format!("leave {from} as the principal, name the new server as mirror, and publish"),
            &format!(
                "wait until the pool is mirrored; then {from} can be replaced, and the pool stays \
                 mirrored"
            ),
        ],
    );
}

fn refuse_crossing(work: &mut Work<'_>, both: &Both<'_>) {
    let (before, after) = (&both.before, &both.after);
    let name = both.name();
    let exchanged = before.first == after.second && before.second == after.first;
    if exchanged {
        return work.refuse(
            "partners_exchanged",
            Some(name),
            format!("principal and mirror of {name} cannot be exchanged in the document"),
            "principal and mirror there say who was what at the first set-up; who serves now is \
             the session's decision",
            &[
                "leave the document as it was",
                &format!("to change sides: backstay pool failover {name}"),
            ],
        );
    }
    let crosses = after.first.filter(|_| after.first == before.second).or(after.second);
    let crosses = crosses.unwrap_or_default();
    let (field, other) = match after.first == before.second {
        true => ("mirror", "principal"),
        false => ("principal", "mirror"),
    };
    work.refuse(
        "partner_crosses",
        Some(name),
        format!("{crosses} cannot become the {other} of {name} in the document"),
        "a server keeps the place in its pool that it had at the first set-up; the place says \
         nothing about who serves",
        &[
            &format!("leave {field} = \"{crosses}\", and put another server into `{other}`"),
            &format!("to change sides: backstay pool failover {name}"),
        ],
    );
}

fn refuse_both_new(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    let serves = work.facts.principal(name).map(str::to_owned);
    let gone: Vec<&str> = both.before.partners().collect();
    let first = match serves.as_deref().filter(|serves| both.before.second == Some(*serves)) {
        Some(_) => "principal",
        None => "mirror",
    };
    work.refuse(
        "both_partners_replaced",
        Some(name),
        format!("both servers of {name} cannot be replaced at once"),
        &format!("the data are on {} only, and one of them has to give them", gone.join(" and ")),
        &[
            &format!("replace the {first} only, and publish"),
            "wait until the pool is mirrored again, and then replace the other one",
        ],
    );
}

/// What every new partner means.
fn copied<'c>(
    change: &'c mut Change,
    both: &Both<'_>,
    to: &str,
    bytes: Option<u64>,
) -> &'c mut Change {
    let servers: BTreeSet<String> = both.after.partners().map(str::to_owned).collect();
    change
        .pool(both.name())
        .effect(Effect::FreshCopy { to: to.to_owned(), bytes })
        .of(both.after.members())
        .done_when(Condition::Mirrored { pool: both.name().to_owned(), servers })
}

fn added(work: &mut Work<'_>, both: &Both<'_>, mirror: &str) {
    let name = both.name();
    let bytes = work.facts.size(name);
    let sentence = format!("{mirror} becomes the mirror of {name}, which had none");
    let change = work.add(Stage::Protect, "mirror_added", sentence);
    change.effect(Effect::NoInterruption);
    copied(change, both, mirror, bytes);
}

fn removed(work: &mut Work<'_>, both: &Both<'_>, mirror: &str) {
    let name = both.name();
    let serves = work.facts.principal(name) == Some(mirror);
    let remains = both.after.first.unwrap_or_default();
    let sentence = format!("{mirror} leaves {name}: {remains} serves it alone");
    let data_dir = both.before.parts.get(mirror).map(|part| part.data_dir.clone());
    let change = work.add(Stage::Reduce, "mirror_removed", sentence);
    change.pool(name);
    if serves {
        change.effect(Effect::ManualFailover);
        change.remark(format!("{mirror} serves now, and hands over to {remains} first"));
    }
    change.effect(Effect::UnprotectedFromNowOn);
    change.of(both.after.partners().chain([mirror]));
    if let Some(data_dir) = data_dir {
        change.remark(stays(mirror, &data_dir));
    }
    change.done_when(Condition::Alone { pool: name.to_owned(), server: remains.to_owned() });
    change.done_when(Condition::Left { pool: name.to_owned(), process: mirror.to_owned() });
}

fn moved(work: &mut Work<'_>, both: &Both<'_>, from: &str, to: &str) {
    let name = both.name();
    let bytes = work.facts.size(name);
    let serves =
        work.facts.principal(name).map_or(both.before.first == Some(from), |it| it == from);
    let sentence = format!("{to} takes the place of {from} in {name}");
    let data_dir = both.before.parts.get(from).map(|part| part.data_dir.clone());
    let stayer = both.after.partners().find(|server| *server != to).unwrap_or_default();
    let change = work.add(Stage::Move, "partner_moved", sentence);
    if serves {
        change.effect(Effect::ManualFailover);
        change.remark(format!("{from} serves now, and hands over to {stayer} first"));
    } else {
        change.effect(Effect::NoInterruption);
    }
    copied(change, both, to, bytes);
    change.effect(Effect::ExposedMeanwhile);
    change.of([from]);
    if let Some(data_dir) = data_dir {
        change.remark(stays(from, &data_dir));
    }
    change.done_when(Condition::Left { pool: name.to_owned(), process: from.to_owned() });
}

/// Nothing is ever deleted.
pub(super) fn stays(server: &str, data_dir: &str) -> String {
    format!("its data stay on {server} in {data_dir}: remove them by hand when nobody needs them")
}
