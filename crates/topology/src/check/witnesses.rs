//! Witnesses: who has one, and how many share it.

use std::collections::BTreeSet;

use crate::diagnostic::{Family, Report, Rule, meant};
use crate::document::Pool;
use crate::resolve::Method;

use super::warning;
use super::world::{World, listed};

pub(super) const RULES: &[Rule] = &[
    warning(
        "no-witness",
        Family::Witnesses,
        no_witness,
        [
            "A mirrored pool has no witness.",
            "Failover will be manual: when the principal is lost, the pool is not served until a \
             person decides, and nothing but the mirror's word counts then.",
            "Add a [[witness]] on a third machine, and name it in the pool or in defaults.",
        ],
    ),
    warning(
        "witness-shared",
        Family::Witnesses,
        witness_shared,
        [
            "One witness serves several pairs of servers.",
            "That works, and is less resilient than a witness for each: while it is away, none of \
             them fails over by itself.",
            "Watch that witness well, or add a second one and share the pools out.",
        ],
    ),
    warning(
        "witness-without-pool",
        Family::Witnesses,
        witness_without_pool,
        [
            "A witness serves no pool.",
            "It has nothing to do; perhaps a name is misspelt elsewhere.",
            "Name it in a pool or in defaults, or take it out.",
        ],
    ),
];

fn no_witness(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        let broken =
            pool.table.is_broken("witness") || world.document.defaults.table.is_broken("witness");
        if world.document.witness_of(pool).is_none() && !broken {
            let place = pool.witness.as_ref().map_or(&pool.name.span, |none| &none.span);
            report.at(place, format!("pool {} has no witness", pool.name));
        }
    }
}

/// The two servers of a pool, in a fixed order.
fn pair(pool: &Pool) -> BTreeSet<&str> {
    pool.partners().map(|name| name.value.as_str()).collect()
}

fn witness_shared(world: &World<'_>, report: &mut Report) {
    for witness in &world.document.witnesses {
        let pools: Vec<&Pool> = world
            .mirrored()
            .filter(|pool| {
                let named = world.document.witness_of(pool);
                named.is_some_and(|name| *name == witness.name)
            })
            .collect();
        let pairs: BTreeSet<BTreeSet<&str>> = pools.iter().map(|pool| pair(pool)).collect();
        if pairs.len() < 2 {
            continue;
        }
        let message = format!(
            "witness {} serves {} pairs of servers in {} pools",
            witness.name,
            pairs.len(),
            pools.len()
        );
        let found = report.at(&witness.name.span, message);
        if pools.len() <= 8 {
            let names: Vec<&str> = pools.iter().map(|pool| pool.name.value.as_str()).collect();
            found.label(format!("for {}", listed(&names)));
        }
    }
}

fn witness_without_pool(world: &World<'_>, report: &mut Report) {
    for witness in &world.document.witnesses {
        let is_named = world.pools().any(|pool| {
            let spare = pool.spare_witnesses.iter().flatten().any(|name| *name == witness.name);
            spare || world.document.witness_of(pool) == Some(&witness.name)
        });
        let is_default = world.document.defaults.witness.as_ref() == Some(&witness.name);
        let waits = is_default && world.document.pools_by(Method::Mirroring).next().is_none();
        // A misspelt name is told where it is misspelt.
        let is_meant = world.pools().filter_map(|pool| pool.witness.as_ref()).any(|named| {
            world.document.witness(named).is_none()
                && meant(named, [&*witness.name.value]).is_some()
        });
        if !is_named && !waits && !is_meant && !witness.name.is_empty() {
            report.at(&witness.name.span, format!("witness {} serves no pool", witness.name));
        }
    }
}
