//! Pools that come, go and change as a whole; their databases, access and times.

use std::collections::BTreeSet;

use super::partners::stays;
use super::view::{Both, PoolView};
use super::{Condition, Effect, Stage, Work};
use crate::resolve::Method;

/// Whether a pool's other changes are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Course {
    GoesOn,
    Ends,
}

pub(super) fn added(work: &mut Work<'_>, after: &PoolView<'_>) {
    let name = after.name();
    let databases: BTreeSet<String> =
        after.document.databases_of(after.pool).into_iter().map(|it| it.name).collect();
    let sentence = match (after.method, after.first, after.second) {
        (Method::Clustering, _, _) => format!("the cluster behind {name} is registered"),
        (Method::Mirroring | Method::None, Some(first), Some(second)) => {
            format!("{name} is set up on {first}, mirrored on {second}")
        }
        (Method::Mirroring | Method::None, first, _) => {
            format!("{name} is set up on {}", first.unwrap_or("no server"))
        }
    };
    let bytes = work.facts.size(name);
    let change = work.add(Stage::Begin, "pool_added", sentence);
    change.pool(name).effect(Effect::NoInterruption);
    change.of(after.members().chain(after.front_ends()));
    if after.method == Method::Clustering {
        change.remark("nothing is set up there: the cluster's own tools did that");
        return;
    }
    if let Some(witness) = after.witness {
        change.remark(format!("{witness} is its witness"));
    }
    if !databases.is_empty() {
        let names: Vec<&str> = databases.iter().map(String::as_str).collect();
        change.remark(format!("databases: {}", names.join(", ")));
    }
    let pool = name.to_owned();
    match (after.first, after.second) {
        (Some(first), None) => {
            change.done_when(Condition::Alone { pool: pool.clone(), server: first.to_owned() });
        }
        (_, Some(second)) => {
            change.effect(Effect::FreshCopy { to: second.to_owned(), bytes });
            let servers = after.partners().map(str::to_owned).collect();
            change.done_when(Condition::Mirrored { pool: pool.clone(), servers });
            let witness = after.witness.map(str::to_owned);
            change.done_when(Condition::Witness { pool: pool.clone(), witness });
        }
        (None, None) => {}
    }
    change.done_when(Condition::Databases { pool, names: databases });
}

pub(super) fn removed(work: &mut Work<'_>, before: &PoolView<'_>) {
    let name = before.name();
    let is_store = work
        .old
        .and_then(|old| old.central_management.as_ref())
        .is_some_and(|store| *store == before.pool.name);
    let sentence = match before.method {
        Method::Clustering => format!("the cluster behind {name} is registered no more"),
        Method::Mirroring | Method::None => format!("{name} is given up"),
    };
    let change = work.add(Stage::Leave, "pool_removed", sentence);
    change.pool(name);
    if before.method == Method::Clustering {
        change.remark("the cluster goes on: Backstay never ran it");
    } else {
        change.effect(Effect::EndsService);
    }
    for front_end in before.front_ends() {
        change.effect(Effect::EndsClientSessions { front_end: front_end.to_owned() });
    }
    for (server, part) in &before.parts {
        change.remark(stays(server, &part.data_dir));
    }
    if is_store {
        change.remark("it holds the published documents: they are copied to the new store first");
    }
    for process in before.members() {
        change.processes.push(process.to_owned());
        change.done.push(Condition::Left { pool: name.to_owned(), process: process.to_owned() });
    }
}

pub(super) fn method(work: &mut Work<'_>, both: &Both<'_>) -> Course {
    let (before, after) = (both.before.method, both.after.method);
    let name = both.name();
    let clusters = [before, after].into_iter().filter(|it| *it == Method::Clustering).count();
    match clusters {
        // Between mirroring and none only the mirror comes or goes.
        0 => Course::GoesOn,
        1 => {
            work.refuse(
                "method_changed",
                Some(name),
                format!("{name} cannot change from {} to {}", before.name(), after.name()),
                "the data are in one place and not in the other, and nothing here copies them \
                 between a cluster and Backstay's servers",
                &[
                    "add a pool of another name with the new method, and publish",
                    "move the data there by dump and restore, and point the applications to it",
                    "take this pool out, and publish",
                ],
            );
            Course::Ends
        }
        _ => {
            cluster(work, both);
            front_ends_only(work, both);
            Course::Ends
        }
    }
}

fn cluster(work: &mut Work<'_>, both: &Both<'_>) {
    if both.before.pool.cluster == both.after.pool.cluster {
        return;
    }
    let name = both.name();
    let Some(cluster) = &both.after.pool.cluster else { return };
    let sentence = format!("the cluster behind {name} is looked for at {}", cluster.name);
    let change = work.add(Stage::Adjust, "cluster_moved", sentence);
    change.pool(name).effect(Effect::NoInterruption).of(both.after.front_ends());
    change.remark("client sessions are led there as they become idle or lose their server");
}

fn front_ends_only(work: &mut Work<'_>, both: &Both<'_>) {
    super::front_ends::changed(work, both);
    pair(work, both);
}

/// Databases, access, times, and what only people read.
pub(super) fn details(work: &mut Work<'_>, both: &Both<'_>) {
    databases(work, both);
    access(work, both);
    times(work, both);
    pair(work, both);
}

fn databases(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    let of = |view: &PoolView<'_>| view.document.databases_of(view.pool);
    let (before, after) = (of(&both.before), of(&both.after));
    let is_in = |all: &[crate::derive::Database], name: &str| all.iter().any(|it| it.name == name);
    let new: BTreeSet<String> =
        after.iter().filter(|it| !is_in(&before, &it.name)).map(|it| it.name.clone()).collect();
    if !new.is_empty() {
        let names: Vec<&str> = new.iter().map(String::as_str).collect();
        let sentence = format!("databases are made in {name}: {}", names.join(", "));
        let change = work.add(Stage::Adjust, "databases_added", sentence);
        change.pool(name).effect(Effect::NoInterruption).of(both.after.partners());
        change.remark("one that is there already is left as it is");
        change.done_when(Condition::Databases { pool: name.to_owned(), names: new });
    }
    let gone: Vec<&str> =
        before.iter().filter(|it| !is_in(&after, &it.name)).map(|it| it.name.as_str()).collect();
    if !gone.is_empty() {
        let sentence = format!("databases of {name} are named no more: {}", gone.join(", "));
        let change = work.add(Stage::Leave, "databases_removed", sentence);
        change.pool(name).effect(Effect::NoInterruption).of(both.after.partners());
        change.remark(
            "they are never dropped: they stay in the pool, and stay mirrored, until somebody \
             drops them there",
        );
    }
    for (new, old) in
        after.iter().filter_map(|new| Some((new, before.iter().find(|old| old.name == new.name)?)))
    {
        if new.owner != old.owner {
            work.plan.notes.push(format!(
                "the owner of {} in {name} is changed by nobody: ALTER DATABASE does it",
                new.name
            ));
        }
        if new.schema != old.schema && new.schema.is_some() {
            work.plan.notes.push(format!(
                "a schema is applied once, when the database is made: {} of {name} stays as it is",
                new.name
            ));
        }
    }
}

fn access(work: &mut Work<'_>, both: &Both<'_>) {
    if both.staying().all(|(_, before, after)| before.client_access == after.client_access) {
        return;
    }
    let name = both.name();
    let sentence = format!("the access rules of {name} change");
    let change = work.add(Stage::Adjust, "client_access", sentence);
    change.pool(name).effect(Effect::NoInterruption).of(both.after.partners());
    change.remark("by a reload: who is connected stays connected");
}

fn times(work: &mut Work<'_>, both: &Both<'_>) {
    let same = both
        .staying()
        .all(|(_, before, after)| (&before.profile, before.times) == (&after.profile, after.times));
    if same {
        return;
    }
    let name = both.name();
    let sentence = match both.before.document.profile_of(both.before.pool) {
        old if old == both.after.document.profile_of(both.after.pool) => {
            format!("the times of {name} change")
        }
        old => {
            let new = both.after.document.profile_of(both.after.pool);
            format!("the times of {name} change from profile {old} to {new}")
        }
    };
    let processes: Vec<String> = both.after.members().map(str::to_owned).collect();
    let change = work.add(Stage::Adjust, "times", sentence);
    change.pool(name).effect(Effect::AfterAgentRestart { processes });
    change.of(both.after.members());
    change.remark(
        "until then each member keeps the shorter lease and the longer detection time of both: \
         safe in every mixture",
    );
}

fn pair(work: &mut Work<'_>, both: &Both<'_>) {
    if both.before.pool.pair == both.after.pool.pair {
        return;
    }
    let name = both.name();
    let sentence = match &both.after.pool.pair {
        Some(pair) => format!("{name} and {pair} are paired"),
        None => format!("{name} is paired with no other pool"),
    };
    work.add(Stage::Adjust, "pair", sentence).pool(name).effect(Effect::NoInterruption);
}
