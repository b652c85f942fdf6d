//! Sites: what fails together.

use crate::diagnostic::{Family, Report, Rule};
use crate::place::Placed;

use super::warning;
use super::world::{World, listed};

pub(super) const RULES: &[Rule] = &[
    warning(
        "witness-in-partner-site",
        Family::Sites,
        witness_in_partner_site,
        [
            "A pool's partners are in two sites, and its witness is in one of them.",
            "When that site is lost, two of the three votes are lost with it, and the partner in \
             the other site does not serve although it is healthy.",
            "Put the witness in a third site, however small; or accept that the loss of this one \
             site needs a person.",
        ],
    ),
    warning(
        "pair-in-one-site",
        Family::Sites,
        pair_in_one_site,
        [
            "Two paired pools have all their servers in one site.",
            "A pair is for the loss of a site.",
            "Put one of the two pools in another site.",
        ],
    ),
    warning(
        "front-ends-in-one-site",
        Family::Sites,
        front_ends_in_one_site,
        [
            "A pool's servers are in two sites, and all its Front Ends in one.",
            "When that site is lost, the pool fails over, and no client can reach it.",
            "Put a Front End in each site.",
        ],
    ),
    warning(
        "site-not-said",
        Family::Sites,
        site_not_said,
        [
            "Some processes say their site, and others do not.",
            "The rules about sites cannot judge what they do not know.",
            "Add the site.",
        ],
    ),
    warning(
        "site-unused",
        Family::Sites,
        site_unused,
        [
            "Nothing stands in a site.",
            "Perhaps another name was meant where the site is used.",
            "Name it where it is meant, or take it out.",
        ],
    ),
];

/// The sites of the named servers, without doubles.
fn sites_of<'a>(
    world: &World<'a>,
    servers: impl Iterator<Item = &'a Placed<String>>,
) -> Vec<&'a str> {
    let mut sites: Vec<&str> = servers
        .filter_map(|name| world.document.server(name))
        .filter_map(|server| server.site.as_ref())
        .map(|site| site.value.as_str())
        .collect();
    sites.sort_unstable();
    sites.dedup();
    sites
}

fn witness_in_partner_site(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        let Some(name) = world.document.witness_of(pool) else { continue };
        let Some(witness) = world.document.witness(name) else { continue };
        let Some(site) = &witness.site else { continue };
        if sites_of(world, pool.partners()).len() < 2 {
            continue;
        }
        let same = pool
            .partners()
            .filter_map(|name| world.document.server(name))
            .find(|server| server.site.as_ref() == Some(site));
        let Some(server) = same else { continue };
        let message =
            format!("the witness of pool {} is in site {site}, as {} is", pool.name, server.name);
        let found = report.at(&name.span, message);
        found.related(&site.span, format!("{name} is in {site}"));
        if let Some(of_server) = &server.site {
            found.related(&of_server.span, format!("{} is in {site}", server.name));
        }
    }
}

fn pair_in_one_site(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let Some(pair) = &pool.pair else { continue };
        let Some(other) = world.document.pool(pair) else { continue };
        // Told once for both, at the later one.
        let is_first = pool.name.span.start < other.name.span.start;
        if other.name == pool.name || is_first && other.pair.as_ref() == Some(&pool.name) {
            continue;
        }
        let own = sites_of(world, pool.partners());
        if let [site] = own.as_slice()
            && own == sites_of(world, other.partners())
        {
            let message = format!("{} and {pair} are a pair in one site, {site}", pool.name);
            report.at(&pair.span, message).related(&other.name.span, "the other pool");
        }
    }
}

fn front_ends_in_one_site(world: &World<'_>, report: &mut Report) {
    for pool in world.pools().filter(|pool| pool.front_ends.len() > 1) {
        let partners = sites_of(world, pool.partners());
        let mut sites: Vec<Option<&str>> = pool
            .front_ends
            .iter()
            .map(|it| it.site.as_ref().map(|site| site.value.as_str()))
            .collect();
        sites.sort_unstable();
        sites.dedup();
        if let [Some(site)] = sites.as_slice()
            && partners.len() > 1
        {
            let message = format!("all Front Ends of pool {} are in site {site}", pool.name);
            let place = pool.front_ends[0].site.as_ref();
            let found = report.at(place.map_or(&pool.table.span, |site| &site.span), message);
            found.label(format!("the servers are in {}", listed(&partners)));
        }
    }
}

fn site_not_said(world: &World<'_>, report: &mut Report) {
    let Some(said) = world.processes.iter().find_map(|process| process.site) else { return };
    for process in world.processes.iter().filter(|process| process.site.is_none()) {
        // A Front End may stand anywhere: with the applications, for instance.
        if process.kind != super::world::Kind::FrontEnd {
            let kind = process.kind.words();
            report
                .at(&process.name.span, format!("{kind} {} says no site", process.name))
                .related(&said.span, "others do");
        }
    }
}

fn site_unused(world: &World<'_>, report: &mut Report) {
    for site in &world.document.sites {
        let is_used = world.processes.iter().any(|process| process.site == Some(&site.name));
        if !is_used && !site.name.is_empty() {
            report.at(&site.name.span, format!("nothing stands in site {}", site.name));
        }
    }
}
