//! Names that point to something: each must point to what is there.

use crate::diagnostic::{Diagnostic, Family, Report, Rule, meant};
use crate::place::{Placed, Table};

use super::error;
use super::world::{World, listed};

pub(super) const RULES: &[Rule] = &[
    error(
        "unknown-server",
        Family::References,
        unknown_server,
        [
            "A pool names a server that the document does not have.",
            "Its address and its site are unknown.",
            "Correct the name, or add a [[server]] of this name.",
        ],
    ),
    error(
        "unknown-witness",
        Family::References,
        unknown_witness,
        [
            "A pool or the defaults name a witness that the document does not have.",
            "Its address is unknown; without a witness nothing would fail over by itself.",
            "Correct the name, or add a [[witness]] of this name.",
        ],
    ),
    error(
        "unknown-site",
        Family::References,
        unknown_site,
        [
            "A process stands in a site that the document does not have.",
            "A misspelt site looks like one of its own, and the rules about sites would be \
             deceived.",
            "Correct the name, or add a [[site]] of this name.",
        ],
    ),
    error(
        "unknown-pool",
        Family::References,
        unknown_pool,
        [
            "central_management or a pool's pair names a pool that the document does not have.",
            "There is no such pool to hold the store or to stand in.",
            "Correct the name, or add a [[pool]] of this name.",
        ],
    ),
    error(
        "not-a-partner",
        Family::References,
        not_a_partner,
        [
            "settings_on or port_on of a pool names a server that is none of its own.",
            "The values would apply to nobody.",
            "Name the pool's principal or mirror, or take the entry out.",
        ],
    ),
];

fn names<'a>(all: impl Iterator<Item = &'a Placed<String>>) -> Vec<&'a str> {
    all.map(|name| name.value.as_str()).filter(|name| !name.is_empty()).collect()
}

/// What to write instead: a name that is close, or those that there are.
fn suggest(found: &mut Diagnostic, name: &str, known: &[&str], section: &str) {
    if let Some(close) = meant(name, known.iter().copied()) {
        found.remedy(format!("Did you mean {close}? Otherwise add a [[{section}]] {name}."));
    } else if !known.is_empty() && known.len() <= 8 {
        let known = listed(known);
        found
            .remedy(format!("There are {known}: name one of them, or add a [[{section}]] {name}."));
    }
}

fn unknown_server(world: &World<'_>, report: &mut Report) {
    // One whose name could not be read may be the one that is meant.
    if world.document.servers.iter().any(|server| server.table.is_broken("name")) {
        return;
    }
    let known = names(world.document.servers.iter().map(|server| &server.name));
    for pool in world.pools() {
        for name in pool.partners().filter(|name| !known.contains(&name.value.as_str())) {
            let found = report.at(&name.span, format!("there is no server {name}"));
            match world.document.witness(name) {
                Some(witness) => {
                    found
                        .related(&witness.name.span, format!("{name} is a witness"))
                        .cause("A witness holds no data.")
                        .remedy("Name a server.");
                }
                None => suggest(found, name, &known, "server"),
            }
        }
    }
}

fn unknown_witness(world: &World<'_>, report: &mut Report) {
    if world.document.witnesses.iter().any(|witness| witness.table.is_broken("name")) {
        return;
    }
    let known = names(world.document.witnesses.iter().map(|witness| &witness.name));
    let of_pools = world
        .pools()
        .flat_map(|pool| pool.witness.iter().chain(pool.spare_witnesses.iter().flatten()));
    for name in of_pools.chain(&world.document.defaults.witness) {
        if name.is_empty() || known.contains(&name.value.as_str()) {
            continue;
        }
        let found = report.at(&name.span, format!("there is no witness {name}"));
        match world.document.server(name) {
            Some(server) => {
                found
                    .related(&server.name.span, format!("{name} is a server"))
                    .cause(
                        "A witness is a process of its own, on a machine that fails with none of \
                         the partners.",
                    )
                    .remedy("Add a [[witness]] on a third machine, and name it here.");
            }
            None => suggest(found, name, &known, "witness"),
        }
    }
}

fn unknown_site(world: &World<'_>, report: &mut Report) {
    if world.document.sites.iter().any(|site| site.table.is_broken("name")) {
        return;
    }
    let known = names(world.document.sites.iter().map(|site| &site.name));
    for name in world.processes.iter().filter_map(|process| process.site) {
        if !known.contains(&name.value.as_str()) {
            let found = report.at(&name.span, format!("there is no site {name}"));
            suggest(found, name, &known, "site");
        }
    }
}

fn unknown_pool(world: &World<'_>, report: &mut Report) {
    if world.pools().any(|pool| pool.table.is_broken("name")) {
        return;
    }
    let known = names(world.pools().map(|pool| &pool.name));
    let pairs = world.pools().filter_map(|pool| pool.pair.as_ref());
    for name in world.document.central_management.iter().chain(pairs) {
        if !known.contains(&name.value.as_str()) {
            let found = report.at(&name.span, format!("there is no pool {name}"));
            suggest(found, name, &known, "pool");
        }
    }
}

fn not_a_partner(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let is_unsure = |table: &Table| table.is_broken("principal") || table.is_broken("mirror");
        if is_unsure(&pool.table) {
            continue;
        }
        let known = names(pool.partners());
        let on = pool.settings_on.iter().map(|on| &on.server);
        for name in on.chain(pool.port_on.iter().map(|(name, _)| name)) {
            if !known.contains(&name.value.as_str()) {
                let found =
                    report.at(&name.span, format!("{name} is no server of pool {}", pool.name));
                if let Some(close) = meant(name, known.iter().copied()) {
                    found.remedy(format!("Did you mean {close}?"));
                }
            }
        }
    }
}
