//! Front Ends: how many, where, and what they are told.

use crate::diagnostic::{Family, Report, Rule, meant};
use crate::document::{FrontEnd, FrontEndOptions};
use crate::place::{Placed, Span};
use crate::resolve::{HOLD_S, RESILIENCY_AFTER_S, STANDBY_READS_AFTER_S};

use super::world::{World, host_key, shared};
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    warning(
        "no-front-end",
        Family::FrontEnds,
        no_front_end,
        [
            "A mirrored pool has no Front End.",
            "Applications must know both servers themselves, and every failover ends their \
             connections.",
            "Add [[pool.front_end]] entries, at least three.",
        ],
    ),
    warning(
        "one-front-end",
        Family::FrontEnds,
        one_front_end,
        [
            "A pool has one Front End only.",
            "When it is lost, no client reaches the pool, although the pool is served.",
            "Add Front Ends on other machines, and name all of them in connection strings.",
        ],
    ),
    warning(
        "two-front-ends-only",
        Family::FrontEnds,
        two_front_ends_only,
        [
            "A pool has two Front Ends only.",
            "While one of them is being updated, the other is the only way in.",
            "Add a third one.",
        ],
    ),
    warning(
        "front-ends-share-host",
        Family::FrontEnds,
        front_ends_share_host,
        [
            "Two Front Ends of one pool are on one host.",
            "They are lost together.",
            "Put them on different machines.",
        ],
    ),
    error(
        "front-end-choice",
        Family::FrontEnds,
        front_end_choice,
        [
            "pooling, replication or lowered_commit of a Front End has an unknown value.",
            "The Front End would not start.",
            "Write one of the values that the field has.",
        ],
    ),
    error(
        "front-end-lets-nobody-in",
        Family::FrontEnds,
        front_end_lets_nobody_in,
        [
            "A Front End may have no client sessions, or no server connections.",
            "It would let nobody in.",
            "Write a number above 0.",
        ],
    ),
    error(
        "front-end-times-order",
        Family::FrontEnds,
        front_end_times_order,
        [
            "A Front End would be in Resiliency mode before it reads from a standby.",
            "Resiliency mode is what comes when reading from a standby goes on for long.",
            "Make resiliency_after_s longer than standby_reads_after_s.",
        ],
    ),
    warning(
        "hold-shorter-than-failover",
        Family::FrontEnds,
        hold_shorter_than_failover,
        [
            "Statements wait at a Front End for less time than a failover takes.",
            "Clients would see errors in every failover that they could have waited through.",
            "Make hold_s longer.",
        ],
    ),
    warning(
        "lowered-commit-allowed",
        Family::FrontEnds,
        lowered_commit_allowed,
        [
            "Clients may lower synchronous_commit with a mere warning.",
            "What such a client was told is committed can be lost in a failover.",
            "Write lowered_commit = \"refuse\", unless that loss is accepted.",
        ],
    ),
    error(
        "tls-half",
        Family::FrontEnds,
        tls_half,
        [
            "A Front End has a certificate without a key, or a key without a certificate.",
            "TLS needs both.",
            "Add the missing one, or take both out.",
        ],
    ),
];

fn no_front_end(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        if pool.front_ends.is_empty() && !pool.table.is_broken("front_end") {
            report.at(&pool.name.span, format!("pool {} has no Front End", pool.name));
        }
    }
}

fn one_front_end(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        if let [only] = pool.front_ends.as_slice() {
            report.at(&only.name.span, format!("{} is the only way into {}", only.name, pool.name));
        }
    }
}

fn two_front_ends_only(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        if let [one, other] = pool.front_ends.as_slice() {
            let message = format!("pool {} has only {} and {}", pool.name, one.name, other.name);
            report.at(&other.name.span, message);
        }
    }
}

fn front_ends_share_host(world: &World<'_>, report: &mut Report) {
    if world.is_local {
        return;
    }
    for pool in world.pools() {
        let known = pool.front_ends.iter().filter(|it| !it.host.is_empty());
        for group in shared(known.map(|it| (host_key(&it.host), it))) {
            for again in &group[1..] {
                let message = format!("{} and {} are lost together", group[0].name, again.name);
                report
                    .at(&again.host.span, message)
                    .related(&group[0].host.span, format!("the host of {}", group[0].name));
            }
        }
    }
}

/// The options of each Front End and of the defaults.
fn options<'a>(world: &World<'a>) -> impl Iterator<Item = &'a FrontEndOptions> {
    let own = world.front_ends().map(|(_, front_end)| &front_end.options);
    own.chain([&world.document.defaults.front_end])
}

fn front_end_choice(world: &World<'_>, report: &mut Report) {
    for options in options(world) {
        for (field, value, choices) in [
            ("pooling", &options.pooling, ["session", "transaction"]),
            ("replication", &options.replication, ["refuse", "pass"]),
            ("lowered_commit", &options.lowered_commit, ["refuse", "warn"]),
        ] {
            let Some(value) = value else { continue };
            if choices.contains(&value.value.as_str()) {
                continue;
            }
            let found = report.at(&value.span, format!("{field} cannot be {:?}", value.value));
            match meant(&value.to_ascii_lowercase(), choices) {
                Some(close) => found.remedy(format!("Did you mean {close:?}?")),
                None => found.remedy(format!("Write {:?} or {:?}.", choices[0], choices[1])),
            };
        }
    }
}

fn front_end_lets_nobody_in(world: &World<'_>, report: &mut Report) {
    for options in options(world) {
        let both = options.clients.iter().chain(&options.server_connections);
        for number in both.filter(|number| number.value == 0) {
            report.at(&number.span, "0 lets nobody in");
        }
    }
}

/// A Front End's number and where it is written, if it is.
fn number<'a>(
    world: &World<'a>,
    front_end: &'a FrontEnd,
    pick: fn(&FrontEndOptions) -> &Option<Placed<u32>>,
    otherwise: u32,
) -> (u32, Option<&'a Span>) {
    let all = &world.document.defaults.front_end;
    let written = pick(&front_end.options).as_ref().or(pick(all).as_ref());
    (written.map_or(otherwise, |it| it.value), written.map(|it| &it.span))
}

fn front_end_times_order(world: &World<'_>, report: &mut Report) {
    let mut told = Vec::new();
    for (_, it) in world.front_ends() {
        let (reads, reads_at) =
            number(world, it, |options| &options.standby_reads_after_s, STANDBY_READS_AFTER_S);
        let (resiliency, resiliency_at) =
            number(world, it, |options| &options.resiliency_after_s, RESILIENCY_AFTER_S);
        let place = resiliency_at.or(reads_at).unwrap_or(&it.name.span);
        if resiliency < reads && !told.contains(&place) {
            told.push(place);
            let message = format!(
                "Resiliency mode after {resiliency} s comes before reads from a standby, after \
                 {reads} s"
            );
            let found = report.at(place, message);
            if let Some(other) = reads_at.filter(|other| *other != place) {
                found.related(other, "standby_reads_after_s is here");
            }
        }
    }
}

fn hold_shorter_than_failover(world: &World<'_>, report: &mut Report) {
    /// What a failover takes besides detection: preparing, promoting, the first commit.
    const REST_MS: u128 = 3_000;
    let mut told = Vec::new();
    for pool in world.mirrored() {
        let Some(timing) = world.document.timing_of(pool) else { continue };
        let needed = timing.detection.as_millis() * 2 + REST_MS;
        for it in &pool.front_ends {
            let (hold, place) = number(world, it, |options| &options.hold_s, HOLD_S);
            let place = place.unwrap_or(&it.name.span);
            if u128::from(hold) * 1_000 < needed && !told.contains(&place) {
                told.push(place);
                let seconds = needed.div_ceil(1_000);
                let message =
                    format!("{hold} s is too short to wait for a failover of pool {}", pool.name);
                report
                    .at(place, message)
                    .remedy(format!("Set hold_s to {seconds} or more; 60 is the default."));
            }
        }
    }
}

fn lowered_commit_allowed(world: &World<'_>, report: &mut Report) {
    for options in options(world) {
        if let Some(choice) = &options.lowered_commit
            && choice.value == "warn"
        {
            report.at(&choice.span, "acknowledged commits of such clients can be lost");
        }
    }
}

fn tls_half(world: &World<'_>, report: &mut Report) {
    let all = &world.document.defaults.front_end;
    for (_, it) in world.front_ends() {
        let certificate = it.options.tls_certificate.as_ref().or(all.tls_certificate.as_ref());
        let key = it.options.tls_key.as_ref().or(all.tls_key.as_ref());
        let (lone, missing) = match (certificate, key) {
            (Some(lone), None) => (lone, "tls_key"),
            (None, Some(lone)) => (lone, "tls_certificate"),
            (Some(_), Some(_)) | (None, None) => continue,
        };
        if !it.options.table.is_broken(missing) && !it.table.is_broken(missing) {
            report.at(&lone.span, format!("Front End {} has no {missing}", it.name));
        }
    }
}
