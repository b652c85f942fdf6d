//! Times: of the session's lease rule, and of manual failovers.

use std::collections::BTreeSet;

use crate::diagnostic::{Family, Report, Rule, meant};
use crate::document::Times;
use crate::place::{Placed, Span};
use crate::resolve::profile;

use super::world::World;
use super::{error, warning};

const LONGEST_DRAIN_MS: u32 = 60_000;
const PROFILES: [&str; 3] = ["fast", "standard", "tolerant"];

pub(super) const RULES: &[Rule] = &[
    error(
        "profile-unknown",
        Family::Times,
        profile_unknown,
        [
            "A profile is neither fast nor standard nor tolerant.",
            "The profile holds the times by which the members decide.",
            "Write \"fast\" (one room), \"standard\" or \"tolerant\" (slow or crowded networks).",
        ],
    ),
    error(
        "times-break-lease-rule",
        Family::Times,
        times_break_lease_rule,
        [
            "Times of a pool do not fit together.",
            "A mirror may stand only when the old principal has certainly stopped: otherwise both \
             would take writes at once.",
            "Change the times so that they fit, or leave them to the profile.",
        ],
    ),
    warning(
        "fast-across-sites",
        Family::Times,
        fast_across_sites,
        [
            "A pool with the profile fast has its servers in two sites.",
            "Each pause of the line between them that is longer than the lease is an outage.",
            "Use the profile standard or tolerant.",
        ],
    ),
    warning(
        "detection-very-short",
        Family::Times,
        detection_very_short,
        [
            "A principal counts as lost after less than half a second of silence.",
            "A busy machine pauses that long now and then, and each pause would be a failover.",
            "Set detection_ms to 800 or more.",
        ],
    ),
    warning(
        "detection-very-long",
        Family::Times,
        detection_very_long,
        [
            "A principal counts as lost only after more than a minute of silence.",
            "Clients wait that long in each failover before anything happens.",
            "Use the profile tolerant, or a shorter detection_ms.",
        ],
    ),
    error(
        "drain-too-long",
        Family::Times,
        drain_too_long,
        [
            "A manual failover is to wait more than 60 s for transactions.",
            "Transactions that take so long are not waited for.",
            "Set drain_ms to 60000 or less.",
        ],
    ),
];

fn profile_unknown(world: &World<'_>, report: &mut Report) {
    let pools = world.pools().filter_map(|pool| pool.profile.as_ref());
    for name in pools.chain(&world.document.defaults.profile) {
        if profile(name).is_none() {
            let found = report.at(&name.span, format!("there is no profile {:?}", name.value));
            if let Some(close) = meant(&name.to_ascii_lowercase(), PROFILES) {
                found.remedy(format!("Did you mean {close:?}?"));
            }
        }
    }
}

/// The times that the lease rule is about, where they are written.
fn written(times: &Times) -> Vec<(&'static str, &Placed<u32>)> {
    [
        ("heartbeat_ms", &times.heartbeat_ms),
        ("lease_ms", &times.lease_ms),
        ("detection_ms", &times.detection_ms),
        ("stop_margin_ms", &times.stop_margin_ms),
    ]
    .into_iter()
    .filter_map(|(name, time)| time.as_ref().map(|time| (name, time)))
    .collect()
}

fn times_break_lease_rule(world: &World<'_>, report: &mut Report) {
    let mut told: BTreeSet<(usize, &'static str)> = BTreeSet::new();
    for pool in world.mirrored() {
        let Some(timing) = world.document.timing_of(pool) else { continue };
        let Some(fault) = timing.fault() else { continue };
        let own = written(&pool.times);
        let times = world.document.times_of(pool);
        let all = written(&times);
        let Some((_, place)) = own.first().or(all.first()) else { continue };
        if !told.insert((place.span.start, fault)) {
            continue;
        }
        let ms = |time: std::time::Duration| time.as_millis();
        let found = report.at(&place.span, format!("in pool {}, {fault}", pool.name));
        found.label(format!(
            "in force: heartbeat {}, lease {}, detection {}, stop margin {} ms",
            ms(timing.heartbeat),
            ms(timing.lease),
            ms(timing.detection),
            ms(timing.stop_margin)
        ));
        for (name, time) in all.iter().filter(|(_, time)| time.span != place.span) {
            found.related(&time.span, format!("{name} is here"));
        }
        let most = ms(timing.detection) * 10 / 11;
        if timing.lease_given() > timing.detection && most >= 3 * ms(timing.heartbeat) {
            found.remedy(format!(
                "Set lease_ms to {most} or less, or detection_ms to {} or more.",
                ms(timing.lease_given())
            ));
        }
    }
}

fn fast_across_sites(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        if world.document.profile_of(pool) != "fast" {
            continue;
        }
        let mut sites = pool
            .partners()
            .filter_map(|name| world.document.server(name))
            .filter_map(|server| server.site.as_ref());
        if let (Some(one), Some(other)) = (sites.next(), sites.next())
            && one != other
        {
            let profile = pool.profile.as_ref().or(world.document.defaults.profile.as_ref());
            let place = profile.map_or(&pool.name.span, |profile| &profile.span);
            let message = format!("pool {} is fast, and spans {one} and {other}", pool.name);
            report.at(place, message).related(&other.span, "the mirror's site");
        }
    }
}

/// Detection times that are written, each once, with the pool's place if it has none of its own.
fn detections<'a>(world: &World<'a>) -> Vec<&'a Placed<u32>> {
    let own = world.pools().filter_map(|pool| pool.times.detection_ms.as_ref());
    own.chain(&world.document.defaults.times.detection_ms).collect()
}

fn detection_very_short(world: &World<'_>, report: &mut Report) {
    for time in detections(world).into_iter().filter(|time| time.value < 500) {
        report.at(&time.span, format!("{time} ms of silence would be a failover"));
    }
}

fn detection_very_long(world: &World<'_>, report: &mut Report) {
    for time in detections(world).into_iter().filter(|time| time.value > 60_000) {
        let seconds = time.value / 1_000;
        report.at(&time.span, format!("a failover would begin after {seconds} s"));
    }
}

fn drain_too_long(world: &World<'_>, report: &mut Report) {
    let own = world.pools().map(|pool| &pool.times);
    for times in own.chain([&world.document.defaults.times]) {
        let places: Option<(&Placed<u32>, &Span)> =
            times.drain_ms.as_ref().map(|drain| (drain, &drain.span));
        if let Some((drain, place)) = places
            && drain.value > LONGEST_DRAIN_MS
        {
            report.at(place, format!("drain_ms is {drain}"));
        }
    }
}
