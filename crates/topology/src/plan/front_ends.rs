//! Front Ends that come, go and change.

use super::view::Both;
use super::{Effect, Stage, Work};
use crate::derive::FrontEndParts;

pub(super) fn changed(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    for front_end in both.after.front_ends() {
        let before = both.before.document.front_end_parts(front_end);
        let after = both.after.document.front_end_parts(front_end);
        match (before, after) {
            (None, Some(_)) => {
                let sentence = format!("the Front End {front_end} of {name} is added");
                let change = work.add(Stage::Protect, "front_end_added", sentence);
                change.pool(name).effect(Effect::NoInterruption).of([front_end]);
            }
            (Some(before), Some(after)) => one(work, name, &before, &after),
            (None | Some(_), None) => {}
        }
    }
    for gone in both.before.front_ends() {
        if both.after.document.front_end_parts(gone).is_none() {
            let sentence = format!("the Front End {gone} of {name} is named no more");
            let change = work.add(Stage::Leave, "front_end_removed", sentence);
            change.pool(name).effect(Effect::EndsClientSessions { front_end: gone.to_owned() });
            change.remark("its process takes no clients until somebody stops it");
        }
    }
}

/// Everything of it that it listens at, or that its client sessions were begun with.
fn fixed(parts: &FrontEndParts) -> (&str, &str, u16, u16) {
    (&parts.pool, &parts.host, parts.port, parts.admin_port)
}

fn one(work: &mut Work<'_>, pool: &str, before: &FrontEndParts, after: &FrontEndParts) {
    let name = &after.name;
    if fixed(before) != fixed(after) {
        let sentence = match before.pool == after.pool {
            true => format!(
                "the Front End {name} listens at {}:{} (commands: {}; was {}:{}, {})",
                after.host,
                after.port,
                after.admin_port,
                before.host,
                before.port,
                before.admin_port
            ),
            false => format!("the Front End {name} moves from {} to {pool}", before.pool),
        };
        let change = work.add(Stage::Adjust, "front_end_moved", sentence);
        change.pool(pool).effect(Effect::EndsClientSessions { front_end: name.clone() });
        change.of([name.as_str()]);
        change.remark("it has to be restarted for that");
        return;
    }
    // Who its servers are follows from other changes, and is taken over while it runs.
    let settled = FrontEndParts { back_end: after.back_end.clone(), ..before.clone() };
    if settled != *after {
        let sentence = format!("the settings of the Front End {name} change");
        let change = work.add(Stage::Adjust, "front_end_settings", sentence);
        change.pool(pool).effect(Effect::NoInterruption).of([name.as_str()]);
        change.remark("client sessions that are there go on as they began");
    }
}
