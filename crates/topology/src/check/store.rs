//! The Central Management store: which pool holds the published documents.

use crate::diagnostic::{Family, Report, Rule};
use crate::document::Pool;
use crate::place::Placed;
use crate::resolve::Method;

use super::world::World;
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "store-missing",
        Family::Store,
        store_missing,
        [
            "No pool holds the Central Management store.",
            "Published documents live in a database of one pool; without it nothing can be \
             published.",
            "Add central_management = \"POOL\" at the top, with a mirrored pool.",
        ],
    ),
    error(
        "store-twice",
        Family::Store,
        store_twice,
        [
            "A second pool would hold the Central Management store: it has a database of that \
             name.",
            "There is one store. With two, nobody could say which document counts.",
            "Take the database out, or rename it.",
        ],
    ),
    error(
        "store-in-cluster",
        Family::Store,
        store_in_cluster,
        [
            "The Central Management store is in a pool of method clustering.",
            "The agent that is the pool's principal keeps the store; a cluster has no agent.",
            "Name a mirrored pool.",
        ],
    ),
    warning(
        "store-not-mirrored",
        Family::Store,
        store_not_mirrored,
        [
            "The Central Management store is in a pool of one server.",
            "When that server is lost, the history of documents is lost with it; processes go on \
             with their own copies.",
            "Name a mirrored pool.",
        ],
    ),
];

fn store<'a>(world: &World<'a>) -> Option<(&'a Placed<String>, &'a Pool)> {
    let name = world.document.central_management.as_ref()?;
    Some((name, world.document.pool(name)?))
}

fn store_missing(world: &World<'_>, report: &mut Report) {
    let document = world.document;
    let is_broken = document.table.is_broken("central_management");
    if document.central_management.is_none() && !is_broken && !document.pools.is_empty() {
        let mirrored = world.mirrored().map(|pool| &pool.name).find(|name| !name.is_empty());
        let found = report.everywhere("no pool holds the Central Management store");
        if let Some(name) = mirrored {
            found.remedy(format!("Add central_management = \"{name}\" at the top."));
        }
    }
}

fn store_twice(world: &World<'_>, report: &mut Report) {
    let Some((place, store)) = store(world) else { return };
    for pool in world.pools().filter(|pool| pool.name != store.name) {
        for database in pool.databases.iter().filter(|database| database.name.value == "xds") {
            let message =
                format!("pool {} would hold a second Central Management store", pool.name);
            report
                .at(&database.name.span, message)
                .related(&place.span, format!("the store is in pool {}", store.name));
        }
    }
}

fn store_in_cluster(world: &World<'_>, report: &mut Report) {
    if let Some((place, store)) = store(world)
        && store.method() == Some(Method::Clustering)
    {
        let found = report.at(&place.span, format!("pool {place} is a cluster"));
        if let Some(method) = &store.method {
            found.related(&method.span, "its method is chosen here");
        }
    }
}

fn store_not_mirrored(world: &World<'_>, report: &mut Report) {
    if let Some((place, store)) = store(world)
        && store.method() == Some(Method::None)
    {
        report.at(&place.span, format!("pool {place} has one server only"));
    }
}
