//! Databases, their owners, and the applications that bring some.

use crate::catalogue::{APPLICATIONS, brought_to};
use crate::diagnostic::{Family, Report, Rule, meant};
use crate::document::{Database, Pool};
use crate::place::Placed;

use super::world::{World, shared};
use super::{error, warning};

/// PostgreSQL cuts longer names off.
const LONGEST: usize = 63;
const RESERVED: [&str; 4] = ["postgres", "template0", "template1", "backstay"];
const RESERVED_OWNERS: [&str; 6] =
    ["postgres", "backstay", "backstay_front_end", "public", "none", "current_user"];

pub(super) const RULES: &[Rule] = &[
    error(
        "database-name",
        Family::Databases,
        database_name,
        [
            "The name of a database or of its owner is empty or has control characters.",
            "PostgreSQL or its clients do not accept it.",
            "Choose a name of visible characters.",
        ],
    ),
    error(
        "database-name-too-long",
        Family::Databases,
        database_name_too_long,
        [
            "The name of a database or of its owner is longer than 63 bytes.",
            "PostgreSQL cuts longer names off in silence, and two of them may become one.",
            "Choose a shorter name.",
        ],
    ),
    error(
        "database-reserved",
        Family::Databases,
        database_reserved,
        [
            "A database is called as one that PostgreSQL or Backstay has already.",
            "It is there already, and belongs to nobody's application.",
            "Choose another name.",
        ],
    ),
    error(
        "database-twice",
        Family::Databases,
        database_twice,
        [
            "A pool has two databases of one name.",
            "All databases of a pool live in one PostgreSQL server.",
            "Rename one of them, or take it out.",
        ],
    ),
    error(
        "database-brought",
        Family::Databases,
        database_brought,
        [
            "A pool lists a database that an application or a store brings already.",
            "It is made with its own owner and purpose; a second entry would contradict that.",
            "Take the entry out, or choose another name.",
        ],
    ),
    error(
        "owner-reserved",
        Family::Databases,
        owner_reserved,
        [
            "A database is to be owned by a role that is PostgreSQL's or Backstay's own.",
            "Such roles may do more than an application should; a leak in it would open the whole \
             server.",
            "Name a role of the application's own; it is made if it is missing.",
        ],
    ),
    error(
        "application-unknown",
        Family::Databases,
        application_unknown,
        [
            "An application is not one of those that bring databases.",
            "Nobody knows which databases it needs.",
            "Write \"response-group\" or \"call-park\", or list the databases themselves with \
             [[pool.database]].",
        ],
    ),
    warning(
        "application-twice",
        Family::Databases,
        application_twice,
        [
            "A pool lists an application twice.",
            "It brings its databases once.",
            "Take one of them out.",
        ],
    ),
    error(
        "schema-outside",
        Family::Databases,
        schema_outside,
        [
            "A database's schema is not a file beside the document.",
            "It is read when the document is published and travels with it.",
            "Put the file beside the document or below, and write its relative path without \
             \"..\".",
        ],
    ),
];

fn databases<'a>(world: &World<'a>) -> impl Iterator<Item = (&'a Pool, &'a Database)> {
    world.pools().flat_map(|pool| pool.databases.iter().map(move |database| (pool, database)))
}

/// Names of databases and owners, as far as they are written.
fn names<'a>(world: &World<'a>) -> impl Iterator<Item = (&'static str, &'a Placed<String>)> {
    databases(world).flat_map(|(_, database)| {
        let name = (!database.table.is_broken("name")).then_some(("database", &database.name));
        name.into_iter().chain(database.owner.iter().map(|owner| ("role", owner)))
    })
}

fn database_name(world: &World<'_>, report: &mut Report) {
    for (kind, name) in names(world) {
        if name.is_empty() {
            report.at(&name.span, format!("the name of a {kind} is empty"));
        } else if name.chars().any(char::is_control) {
            report.at(&name.span, format!("{:?} cannot be the name of a {kind}", name.value));
        }
    }
}

fn database_name_too_long(world: &World<'_>, report: &mut Report) {
    for (kind, name) in names(world).filter(|(_, name)| name.len() > LONGEST) {
        report.at(&name.span, format!("the name of a {kind} has {} bytes", name.len()));
    }
}

fn database_reserved(world: &World<'_>, report: &mut Report) {
    for (_, database) in databases(world) {
        let name = &database.name;
        if RESERVED.contains(&name.value.as_str()) {
            report.at(&name.span, format!("the database {name} is there already"));
        }
    }
}

fn database_twice(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let all = pool.databases.iter().map(|database| &database.name);
        let all = all.filter(|name| !name.is_empty());
        for group in shared(all.map(|name| (name.value.as_str(), name))) {
            for again in &group[1..] {
                report
                    .at(&again.span, format!("pool {} has two databases {again}", pool.name))
                    .related(&group[0].span, "the other one is here");
            }
        }
    }
}

fn database_brought(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        for brought in brought_to(world.document, pool) {
            let own = pool.databases.iter().find(|own| own.name.value == brought.name);
            if let Some(own) = own {
                let message = format!("{} of pool {} is brought already", brought.name, pool.name);
                report
                    .at(&own.name.span, message)
                    .label(format!("{} brings it", brought.source.words()));
            }
        }
    }
}

fn owner_reserved(world: &World<'_>, report: &mut Report) {
    for (_, database) in databases(world) {
        let Some(owner) = &database.owner else { continue };
        if RESERVED_OWNERS.contains(&owner.value.as_str()) || owner.starts_with("pg_") {
            report.at(&owner.span, format!("{owner} cannot own the database {}", database.name));
        }
    }
}

fn application_unknown(world: &World<'_>, report: &mut Report) {
    let known = || APPLICATIONS.iter().map(|(name, _)| *name);
    for name in world.pools().flat_map(|pool| pool.applications.iter().flatten()) {
        if !known().any(|known| known == name.value) {
            let found = report.at(&name.span, format!("there is no application {:?}", name.value));
            let plain = name.to_ascii_lowercase().replace(['_', ' '], "-");
            if let Some(close) = meant(&plain, known()) {
                found.remedy(format!("Did you mean {close:?}?"));
            }
        }
    }
}

fn application_twice(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let all = pool.applications.iter().flatten();
        for group in shared(all.map(|name| (name.value.as_str(), name))) {
            for again in &group[1..] {
                report
                    .at(&again.span, format!("pool {} lists {again} twice", pool.name))
                    .related(&group[0].span, "the other one is here");
            }
        }
    }
}

fn schema_outside(world: &World<'_>, report: &mut Report) {
    for (_, database) in databases(world) {
        let Some(schema) = &database.schema else { continue };
        let outside = schema.is_empty()
            || schema.starts_with(['/', '~'])
            || schema.contains('\\')
            || schema.split('/').any(|part| part == "..");
        if outside {
            report.at(&schema.span, format!("{:?} is not beside the document", schema.value));
        }
    }
}
