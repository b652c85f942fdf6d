//! Ports: two processes cannot listen at one port of one host.

use std::collections::BTreeSet;

use crate::diagnostic::{Family, Report, Rule};
use crate::place::{Placed, Span, Table};
use crate::resolve::Method;

use super::world::{World, host_key, shared};
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "port-collision",
        Family::Hosts,
        port_collision,
        [
            "Two processes would listen at one port of one host: agents, witnesses, PostgreSQL \
             servers, Front Ends.",
            "The second one to start would find the port taken, perhaps only after the next \
             reboot.",
            "Give one of them another port.",
        ],
    ),
    error(
        "port-zero",
        Family::Hosts,
        port_zero,
        [
            "A port is 0.",
            "Port 0 is a port that the system chooses, another one at each start.",
            "Write the port at which the others connect.",
        ],
    ),
    warning(
        "port-privileged",
        Family::Hosts,
        port_privileged,
        [
            "PostgreSQL or a Front End is to listen below port 1024.",
            "Only root may listen there, and neither of them runs as root.",
            "Choose a port from 1024 on.",
        ],
    ),
];

/// A port that somebody listens at.
struct Door<'a> {
    host: &'a str,
    port: u16,
    /// Such as "PostgreSQL of pool orders on be1".
    whose: String,
    /// Where the port is written, or who needs it where it is a default.
    place: &'a Span,
}

fn doors<'a>(world: &World<'a>) -> Vec<Door<'a>> {
    let document = world.document;
    let place = |port: &'a Option<Placed<u16>>, table: &'a Table| {
        port.as_ref().map_or(&table.span, |port| &port.span)
    };
    let mut doors = Vec::new();
    for it in &document.servers {
        doors.push(Door {
            host: &it.host,
            port: it.member_port(),
            whose: format!("the agent of {}", it.name),
            place: place(&it.port, &it.table),
        });
    }
    for it in &document.witnesses {
        doors.push(Door {
            host: &it.host,
            port: it.member_port(),
            whose: format!("witness {}", it.name),
            place: place(&it.port, &it.table),
        });
    }
    for pool in world.pools().filter(|pool| pool.method() != Some(Method::Clustering)) {
        let is_mirrored = pool.method() == Some(Method::Mirroring);
        // A pool that names a server twice has been told so.
        let mirror = pool.mirror.iter().filter(|name| pool.principal.as_ref() != Some(*name));
        for name in pool.principal.iter().chain(mirror.filter(|_| is_mirrored)) {
            let Some(server) = document.server(name) else { continue };
            let own = pool.port_on.iter().find(|(on, _)| on == name).map(|(_, port)| &port.span);
            doors.push(Door {
                host: &server.host,
                port: pool.port_at(name),
                whose: format!("PostgreSQL of pool {} on {name}", pool.name),
                place: own.unwrap_or_else(|| place(&pool.port, &pool.table)),
            });
        }
    }
    for (_, it) in world.front_ends() {
        doors.push(Door {
            host: &it.host,
            port: document.front_end_port(it),
            whose: format!("clients of Front End {}", it.name),
            place: place(&it.options.port, &it.table),
        });
        doors.push(Door {
            host: &it.host,
            port: document.admin_port(it),
            whose: format!("commands to Front End {}", it.name),
            place: place(&it.options.admin_port, &it.table),
        });
    }
    doors
}

fn port_collision(world: &World<'_>, report: &mut Report) {
    let doors = doors(world);
    let known = doors.iter().filter(|door| !door.host.is_empty() && door.port != 0);
    // Two pools on the same two servers collide on both; it is told once.
    let mut told = BTreeSet::new();
    for group in shared(known.map(|door| ((host_key(door.host), door.port), door))) {
        let first = group[0];
        for again in &group[1..] {
            if !told.insert((first.place.start, again.place.start)) {
                continue;
            }
            let message = format!("port {} of {} is needed twice", again.port, again.host);
            report
                .at(again.place, message)
                .label(format!("for {}", again.whose))
                .related(first.place, format!("for {}", first.whose));
        }
    }
}

/// Ports as they are written, with whose they are.
fn written<'a>(world: &World<'a>) -> Vec<(&'static str, &'a Placed<u16>)> {
    let document = world.document;
    let agents = document.servers.iter().filter_map(|it| it.port.as_ref());
    let witnesses = document.witnesses.iter().filter_map(|it| it.port.as_ref());
    let pools = world.pools().flat_map(|pool| {
        let cluster = pool.cluster.iter().filter_map(|cluster| cluster.port.as_ref());
        pool.port.iter().chain(pool.port_on.iter().map(|(_, port)| port)).chain(cluster)
    });
    let options = world.front_ends().map(|(_, it)| &it.options);
    let options = options.chain([&document.defaults.front_end]);
    let front_ends = options.flat_map(|it| it.port.iter().chain(&it.admin_port));
    let members = agents.chain(witnesses).map(|port| ("an agent", port));
    let members = members.chain(pools.map(|port| ("PostgreSQL", port)));
    members.chain(front_ends.map(|port| ("a Front End", port))).collect()
}

fn port_zero(world: &World<'_>, report: &mut Report) {
    for (_, port) in written(world).into_iter().filter(|(_, port)| port.value == 0) {
        report.at(&port.span, "0 is no port to connect to");
    }
}

fn port_privileged(world: &World<'_>, report: &mut Report) {
    for (whose, port) in written(world) {
        if whose != "an agent" && (1..1024).contains(&port.value) {
            report.at(&port.span, format!("{whose} may not listen at port {port}"));
        }
    }
}
