//! Names: of the deployment, sites, processes and pools.

use crate::diagnostic::{Family, Report, Rule};
use crate::document::FORMAT;
use crate::place::{Placed, Table};

use super::world::{World, shared};
use super::{error, warning};

const LONGEST: usize = 63;

pub(super) const RULES: &[Rule] = &[
    error(
        "format-unsupported",
        Family::Names,
        format_unsupported,
        [
            "The document says no format, or one that this version does not know.",
            "Fields may mean something else in another format.",
            "Write format = 1, or use the version of Backstay that wrote the document.",
        ],
    ),
    error(
        "name-characters",
        Family::Names,
        name_characters,
        [
            "A name is empty, or has characters other than letters, digits, '-', '_' and '.'.",
            "Names appear in files, directories, certificates, on command lines and in messages.",
            "Use letters, digits, '-', '_' and '.', beginning with a letter or a digit.",
        ],
    ),
    error(
        "name-too-long",
        Family::Names,
        name_too_long,
        [
            "A name has more than 63 characters.",
            "PostgreSQL and certificates cut longer names off.",
            "Choose a name of at most 63 characters.",
        ],
    ),
    error(
        "name-twice",
        Family::Names,
        name_twice,
        [
            "Two processes have the same name: servers, witnesses and Front Ends share one list.",
            "A process is known by its name alone: its certificate bears it, and a vote or a \
             command must reach one process and no other.",
            "Rename one of them; a process that is only listed twice is listed once instead.",
        ],
    ),
    error(
        "pool-twice",
        Family::Names,
        pool_twice,
        [
            "Two pools have the same name.",
            "A pool's name is the name of its session, its directories and its place in commands.",
            "Rename one of them, or join the two tables.",
        ],
    ),
    error(
        "site-twice",
        Family::Names,
        site_twice,
        [
            "Two sites have the same name.",
            "It would be open which of them a server stands in.",
            "Rename one of them, or take it out.",
        ],
    ),
    warning(
        "names-by-case",
        Family::Names,
        names_by_case,
        [
            "Two names differ only in capital letters.",
            "Whoever reads them aloud at night gets the wrong server.",
            "Give one of them a name of its own.",
        ],
    ),
];

fn format_unsupported(world: &World<'_>, report: &mut Report) {
    match &world.document.format {
        Some(format) if format.value == FORMAT => {}
        Some(format) => {
            report.at(&format.span, format!("format {format} is not known to this version"));
        }
        None if world.document.table.is_broken("format") => {}
        None => {
            report.everywhere("the document does not say its format");
        }
    }
}

/// Every name that the rules of names are about, with what bears it.
fn names<'a>(world: &World<'a>) -> Vec<(&'static str, &'a Placed<String>)> {
    let document = world.document;
    let written = |table: &Table, field: &str| !table.is_broken(field);
    let mut names = Vec::new();
    if written(&document.table, "deployment") {
        names.push(("deployment", &document.deployment));
    }
    let sites = document.sites.iter().map(|it| ("site", &it.table, &it.name));
    let servers = document.servers.iter().map(|it| ("server", &it.table, &it.name));
    let witnesses = document.witnesses.iter().map(|it| ("witness", &it.table, &it.name));
    let pools = document.pools.iter().map(|it| ("pool", &it.table, &it.name));
    let front_ends = world.front_ends().map(|(_, it)| ("Front End", &it.table, &it.name));
    let all = sites.chain(servers).chain(witnesses).chain(pools).chain(front_ends);
    names.extend(
        all.filter(|(_, table, _)| written(table, "name")).map(|(kind, _, name)| (kind, name)),
    );
    names
}

fn name_characters(world: &World<'_>, report: &mut Report) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    for (kind, name) in names(world) {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if name.is_empty() {
            report.at(&name.span, format!("the name of a {kind} is empty"));
        } else if !starts_well || !name.chars().all(plain) {
            let message = format!("{:?} cannot be the name of a {kind}", name.value);
            report.at(&name.span, message);
        }
    }
}

fn name_too_long(world: &World<'_>, report: &mut Report) {
    for (kind, name) in names(world) {
        let length = name.chars().count();
        if length > LONGEST {
            report.at(&name.span, format!("the name of a {kind} has {length} characters"));
        }
    }
}

fn twice<'a>(
    report: &mut Report,
    what: &str,
    all: impl Iterator<Item = (&'static str, &'a Placed<String>)>,
) {
    let named = all.filter(|(_, name)| !name.is_empty());
    for group in shared(named.map(|(kind, name)| (name.value.as_str(), (kind, name)))) {
        let (first_kind, first) = group[0];
        for (kind, again) in &group[1..] {
            report
                .at(&again.span, format!("{what} are called {again}"))
                .label(format!("a {kind}"))
                .related(&first.span, format!("the other one is here: a {first_kind}"));
        }
    }
}

fn name_twice(world: &World<'_>, report: &mut Report) {
    let all = world.processes.iter().map(|process| (process.kind.words(), process.name));
    twice(report, "two processes", all);
}

fn pool_twice(world: &World<'_>, report: &mut Report) {
    twice(report, "two pools", world.pools().map(|pool| ("pool", &pool.name)));
}

fn site_twice(world: &World<'_>, report: &mut Report) {
    twice(report, "two sites", world.document.sites.iter().map(|site| ("site", &site.name)));
}

fn names_by_case(world: &World<'_>, report: &mut Report) {
    let all = names(world).into_iter().map(|(kind, name)| {
        // A pool may be called as a server; two pools may not differ by their capitals only.
        let family = if matches!(kind, "site" | "pool" | "deployment") { kind } else { "process" };
        ((family, name.to_ascii_lowercase()), name)
    });
    for group in shared(all) {
        for again in &group[1..] {
            if again.value != group[0].value {
                report
                    .at(&again.span, format!("{again} and {} differ in case only", group[0]))
                    .related(&group[0].span, "the other one is here");
            }
        }
    }
}
