//! Pairs of pools: each stands in for the other when a site is lost.

use crate::diagnostic::{Family, Report, Rule};
use crate::document::Pool;

use super::world::World;
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "pair-with-itself",
        Family::Pairs,
        pair_with_itself,
        [
            "A pool is paired with itself.",
            "It cannot stand in for itself.",
            "Name another pool, or take the pair out.",
        ],
    ),
    error(
        "pair-not-mutual",
        Family::Pairs,
        pair_not_mutual,
        [
            "A pool names a pair that does not name it.",
            "A pair stands in for each other, one to one: otherwise two pools could come to lean \
             on a third that was never sized for both.",
            "Name each of the two in the other.",
        ],
    ),
    error(
        "pair-methods-differ",
        Family::Pairs,
        pair_methods_differ,
        [
            "Two paired pools have different methods.",
            "What one of them can do in an emergency, the other cannot: a mirrored pool fails \
             over by other rules than a cluster.",
            "Give both the same method, or pair each with a pool of its own kind.",
        ],
    ),
    warning(
        "pair-shares-servers",
        Family::Pairs,
        pair_shares_servers,
        [
            "Two paired pools have a server in common.",
            "The loss of that server touches both, so that neither is whole when it has to stand \
             in.",
            "Put them on different servers.",
        ],
    ),
];

/// Pools with the pools that they are paired with, where those are known and others.
fn pairs<'a>(world: &World<'a>) -> Vec<(&'a Pool, &'a Pool)> {
    world
        .pools()
        .filter_map(|pool| {
            let other = world.document.pool(pool.pair.as_ref()?)?;
            let is_known = !pool.table.is_broken("name") && other.name != pool.name;
            is_known.then_some((pool, other))
        })
        .collect()
}

/// The same without doubles: of two pools that name each other, the later one comes first.
fn pairs_once<'a>(world: &World<'a>) -> Vec<(&'a Pool, &'a Pool)> {
    let is_later = |pool: &Pool, other: &Pool| pool.name.span.start > other.name.span.start;
    pairs(world)
        .into_iter()
        .filter(|(pool, other)| is_later(pool, other) || other.pair.as_ref() != Some(&pool.name))
        .collect()
}

fn pair_with_itself(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        if let Some(pair) = &pool.pair
            && *pair == pool.name
        {
            report.at(&pair.span, format!("pool {pair} is paired with itself"));
        }
    }
}

fn pair_not_mutual(world: &World<'_>, report: &mut Report) {
    for (pool, other) in pairs(world) {
        let Some(pair) = &pool.pair else { continue };
        match &other.pair {
            Some(back) if *back == pool.name => {}
            Some(back) => {
                report
                    .at(&pair.span, format!("pool {pair} is paired with {back}, not with this one"))
                    .related(&back.span, format!("{pair} names {back}"));
            }
            None if other.table.is_broken("pair") => {}
            None => {
                report
                    .at(&pair.span, format!("pool {pair} does not name {} as its pair", pool.name))
                    .related(&other.name.span, "the other pool")
                    .remedy(format!("Add pair = \"{}\" to pool {pair}.", pool.name));
            }
        }
    }
}

fn pair_methods_differ(world: &World<'_>, report: &mut Report) {
    for (pool, other) in pairs_once(world) {
        let (Some(own), Some(theirs), Some(pair)) = (pool.method(), other.method(), &pool.pair)
        else {
            continue;
        };
        if own != theirs {
            let message = format!(
                "the pair {} and {pair} mixes methods: {} and {}",
                pool.name,
                own.name(),
                theirs.name()
            );
            let found = report.at(&pair.span, message);
            for (pool, method) in [(pool, &pool.method), (other, &other.method)] {
                let place = method.as_ref().map_or(&pool.name.span, |method| &method.span);
                found.related(place, format!("the method of {}", pool.name));
            }
        }
    }
}

fn pair_shares_servers(world: &World<'_>, report: &mut Report) {
    for (pool, other) in pairs_once(world) {
        let common = pool.partners().find_map(|name| {
            other.partners().find(|theirs| *theirs == name).map(|theirs| (name, theirs))
        });
        if let Some((name, theirs)) = common {
            let message = format!("the paired pools {} and {} share {name}", pool.name, other.name);
            report.at(&name.span, message).related(&theirs.span, "the other pool names it here");
        }
    }
}
