//! PostgreSQL's settings: which are taken over at once, and which wait for a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Context;
use super::view::Both;
use super::{Effect, Stage, Work, contexts};

/// One setting whose value changes on some server.
type Change<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

pub(super) fn changed(work: &mut Work<'_>, both: &Both<'_>) {
    let mut found: BTreeMap<&str, BTreeSet<Change<'_>>> = BTreeMap::new();
    for (_, before, after) in both.staying() {
        let names: BTreeSet<&String> =
            before.settings.keys().chain(after.settings.keys()).collect();
        for name in names {
            let (old, new) = (before.settings.get(name), after.settings.get(name));
            if old != new {
                let change = (name.as_str(), old.map(String::as_str), new.map(String::as_str));
                found.entry(name).or_default().insert(change);
            }
        }
        if before.slot_wal_keep != after.slot_wal_keep {
            let (old, new) = (before.slot_wal_keep.as_str(), after.slot_wal_keep.as_str());
            let name = "slot_wal_keep";
            found.entry(name).or_default().insert((name, Some(old), Some(new)));
        }
        if before.locale != after.locale {
            work.plan.notes.push(format!(
                "locale is that of a new database cluster: {} stays as it was made",
                both.name()
            ));
        }
    }
    let known = work.facts.pools.get(both.name()).cloned();
    let context = |name: &str| match name {
        // Given on PostgreSQL's command line.
        "slot_wal_keep" => Context::Restart,
        _ => contexts::of(name, known.as_ref()),
    };
    let (mut reloaded, mut restarted, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for change in found.values().flatten() {
        match context(change.0) {
            Context::Reload => reloaded.push(*change),
            Context::Restart => restarted.push(*change),
            Context::Unknown => unknown.push(*change),
        }
    }
    reload(work, both, &reloaded);
    restart(work, both, &restarted);
    if !unknown.is_empty() {
        let sentence = format!("settings of {}: {}", both.name(), words(&unknown));
        let change = work.add(Stage::Adjust, "settings_unknown", sentence);
        change.pool(both.name()).effect(Effect::NoInterruption).of(both.after.partners());
        change.remark(
            "whether PostgreSQL takes them over by a reload is not known here; `pool status` tells \
             afterwards if a restart is waited for",
        );
    }
}

fn words(changes: &[Change<'_>]) -> String {
    let one = |(name, old, new): &Change<'_>| match (old, new) {
        (None, Some(new)) => format!("{name} = {new}"),
        (Some(old), Some(new)) => format!("{name} = {new} (was {old})"),
        (Some(old), None) => format!("{name} as PostgreSQL has it (was {old})"),
        (None, None) => (*name).to_owned(),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn reload(work: &mut Work<'_>, both: &Both<'_>, changes: &[Change<'_>]) {
    if changes.is_empty() {
        return;
    }
    let sentence = format!("settings of {}: {}", both.name(), words(changes));
    let change = work.add(Stage::Adjust, "settings_reloaded", sentence);
    change.pool(both.name()).effect(Effect::NoInterruption).of(both.after.partners());
}

fn restart(work: &mut Work<'_>, both: &Both<'_>, changes: &[Change<'_>]) {
    if changes.is_empty() {
        return;
    }
    let name = both.name();
    let principal_first =
        |(name, old, new): &Change<'_>| contexts::is_principal_first(name, *old, *new);
    let effect = match both.after.second {
        None => Effect::AfterRestart,
        Some(_) if changes.iter().any(principal_first) => Effect::AfterFailoverAndMirrorRestart,
        Some(_) => Effect::AfterMirrorRestartAndFailover,
    };
    let sentence = format!("settings of {name} that take a restart: {}", words(changes));
    let change = work.add(Stage::Adjust, "settings_restart", sentence);
    change.pool(name).effect(effect).of(both.after.partners());
    change.remark("nothing is restarted by publishing; `pool status` shows what waits");
}
