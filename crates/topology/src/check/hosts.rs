//! Hosts: which machines there are, and who shares one.

use std::net::IpAddr;

use crate::diagnostic::{Family, Report, Rule, meant};
use crate::place::Placed;
use crate::resolve::Method;

use super::world::{Kind, World, address, host_key, is_loopback, is_same_host, shared};
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "host-characters",
        Family::Hosts,
        host_characters,
        [
            "A host is neither a host name nor an IP address: it holds a port, a scheme, spaces \
             or nothing at all.",
            "Other machines connect to this host as it is written.",
            "Write a host name or an IP address alone; ports have fields of their own.",
        ],
    ),
    error(
        "host-unroutable",
        Family::Hosts,
        host_unroutable,
        [
            "A host is an address that nobody can connect to: 0.0.0.0, ::, multicast, broadcast \
             or link-local.",
            "Such addresses are for listening, or mean something else on every machine.",
            "Write the address or the name under which other machines reach this one.",
        ],
    ),
    error(
        "host-loopback",
        Family::Hosts,
        host_loopback,
        [
            "Some hosts are this machine (localhost, 127.0.0.1), and others are not.",
            "Localhost is another machine for each who connects to it.",
            "Write the name under which the others reach this machine.",
        ],
    ),
    warning(
        "all-on-loopback",
        Family::Hosts,
        all_on_loopback,
        [
            "All hosts are this machine.",
            "That is good for trying things out: the machine's end is the end of everything.",
            "Write the names of real machines before anything depends on it.",
        ],
    ),
    error(
        "pool-same-host-twice",
        Family::Hosts,
        pool_same_host_twice,
        [
            "A pool's principal and mirror are one server, or two servers on one host.",
            "A mirror on the machine that it is to replace is lost together with it.",
            "Name a server on another machine.",
        ],
    ),
    error(
        "witness-on-partner-host",
        Family::Hosts,
        witness_on_partner_host,
        [
            "A pool's witness is on the host of its principal or mirror.",
            "When that machine fails, two of the three votes fail with it, and the other partner \
             may not serve although it is healthy.",
            "Name a witness on a third machine; a small one is enough.",
        ],
    ),
    warning(
        "two-servers-one-host",
        Family::Hosts,
        two_servers_one_host,
        [
            "Two servers are on one host.",
            "One agent serves all pools of a machine; a second one hides that both fail together.",
            "Keep one [[server]] for the machine, and name it in all its pools.",
        ],
    ),
    warning(
        "front-end-on-partner-host",
        Family::Hosts,
        front_end_on_partner_host,
        [
            "A Front End is on the host of its own pool's principal or mirror.",
            "It is lost at the very moment for which it is there.",
            "Run it on another machine: a small one, or the applications' own.",
        ],
    ),
    warning(
        "server-without-pool",
        Family::Hosts,
        server_without_pool,
        [
            "A server belongs to no pool.",
            "Its agent has nothing to do; perhaps a name is misspelt elsewhere.",
            "Name it in a pool, or take it out.",
        ],
    ),
    error(
        "os-user-root",
        Family::Hosts,
        os_user_root,
        [
            "PostgreSQL is to run as root.",
            "PostgreSQL refuses to start as root.",
            "Name another user; \"postgres\" is usual.",
        ],
    ),
    error(
        "versions-differ",
        Family::Hosts,
        versions_differ,
        [
            "The two servers of a pool are given different major versions of PostgreSQL.",
            "One cannot replay what the other writes.",
            "Give both the same pg_bin_dir, or leave it out on both.",
        ],
    ),
];

/// Every host that is written, clusters included, and whether its table could be read.
fn hosts<'a>(world: &World<'a>) -> Vec<&'a Placed<String>> {
    let document = world.document;
    let servers = document.servers.iter().map(|it| (&it.table, "host", &it.host));
    let witnesses = document.witnesses.iter().map(|it| (&it.table, "host", &it.host));
    let front_ends = world.front_ends().map(|(_, it)| (&it.table, "host", &it.host));
    let clusters = document.pools.iter().filter_map(|pool| pool.cluster.as_ref());
    let clusters = clusters.map(|it| (&it.table, "name", &it.name));
    let all = servers.chain(witnesses).chain(front_ends).chain(clusters);
    all.filter(|(table, field, _)| !table.is_broken(field)).map(|(_, _, host)| host).collect()
}

fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    // Four numbers with dots would be an address if they were right.
    let looks_like_address =
        name.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !looks_like_address
}

fn host_characters(world: &World<'_>, report: &mut Report) {
    for host in hosts(world) {
        if address(host).is_some() && !host.starts_with('[') || is_host_name(host) {
            continue;
        }
        let found = report.at(&host.span, format!("{:?} is no host", host.value));
        if let Some((bare, port)) = host.rsplit_once(':')
            && port.chars().all(|c| c.is_ascii_digit())
            && (is_host_name(bare) || address(bare).is_some())
        {
            let bare = bare.trim_matches(['[', ']']);
            found.remedy(format!("Write {bare:?} here; the port has a field of its own."));
        }
    }
}

fn host_unroutable(world: &World<'_>, report: &mut Report) {
    for host in hosts(world) {
        let nobody = match address(host) {
            Some(IpAddr::V4(it)) => {
                it.is_unspecified() || it.is_multicast() || it.is_broadcast() || it.is_link_local()
            }
            Some(IpAddr::V6(it)) => {
                it.is_unspecified() || it.is_multicast() || it.is_unicast_link_local()
            }
            None => false,
        };
        if nobody {
            report.at(&host.span, format!("nobody can connect to {host}"));
        }
    }
}

fn host_loopback(world: &World<'_>, report: &mut Report) {
    let hosts = hosts(world);
    let Some(real) = hosts.iter().find(|host| !is_loopback(host)) else { return };
    for host in hosts.iter().filter(|host| is_loopback(host)) {
        report
            .at(&host.span, format!("{host} is another machine for each who connects to it"))
            .related(&real.span, "this host is another machine");
    }
}

fn all_on_loopback(world: &World<'_>, report: &mut Report) {
    if world.is_local
        && let Some(first) = world.processes.first()
    {
        report.at(&first.host.span, "the whole deployment is on one machine");
    }
}

fn pool_same_host_twice(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        let (Some(principal), Some(mirror)) = (&pool.principal, &pool.mirror) else { continue };
        if principal == mirror {
            report
                .at(&mirror.span, format!("pool {} names {mirror} twice", pool.name))
                .label("the mirror")
                .related(&principal.span, "the principal");
            continue;
        }
        let hosts = world.hosts_of(pool);
        let [(_, one), (_, other)] = hosts.as_slice() else { continue };
        if is_same_host(one, other) && !world.is_local {
            let message =
                format!("principal and mirror of pool {} are on one host, {other}", pool.name);
            report
                .at(&mirror.span, message)
                .related(&one.span, format!("the host of {principal}"))
                .related(&other.span, format!("the host of {mirror}"));
        }
    }
}

fn witness_on_partner_host(world: &World<'_>, report: &mut Report) {
    if world.is_local {
        return;
    }
    for pool in world.mirrored() {
        let spare = pool.spare_witnesses.iter().flatten();
        for name in world.document.witness_of(pool).into_iter().chain(spare) {
            let Some(witness) = world.document.witness(name) else { continue };
            let hosts = world.hosts_of(pool);
            let same = hosts.iter().find(|(_, host)| is_same_host(host, &witness.host));
            if let Some((server, host)) = same {
                let message =
                    format!("witness {name} of pool {} is on the host of {server}", pool.name);
                report
                    .at(&name.span, message)
                    .related(&witness.host.span, format!("the host of {name}"))
                    .related(&host.span, format!("the host of {server}"));
            }
        }
    }
}

fn two_servers_one_host(world: &World<'_>, report: &mut Report) {
    if world.is_local {
        return;
    }
    let servers = world.processes.iter().filter(|process| process.kind == Kind::Server);
    let servers = servers.filter(|server| !server.host.is_empty());
    for group in shared(servers.map(|server| (host_key(server.host), server))) {
        for again in &group[1..] {
            let message =
                format!("{} and {} are one machine, {}", group[0].name, again.name, again.host);
            report.at(&again.host.span, message).related(&group[0].host.span, "the other one");
        }
    }
}

fn front_end_on_partner_host(world: &World<'_>, report: &mut Report) {
    if world.is_local {
        return;
    }
    for (pool, front_end) in world.front_ends() {
        for (server, host) in world.hosts_of(pool) {
            if is_same_host(host, &front_end.host) {
                let message = format!("Front End {} is on the host of {server}", front_end.name);
                report
                    .at(&front_end.host.span, message)
                    .related(&host.span, format!("the host of {server}"));
            }
        }
    }
}

fn server_without_pool(world: &World<'_>, report: &mut Report) {
    let used: Vec<&str> =
        world.pools().flat_map(|pool| pool.partners()).map(|name| name.value.as_str()).collect();
    for server in &world.document.servers {
        let name = server.name.value.as_str();
        // A misspelt name is told where it is misspelt.
        let is_meant = used
            .iter()
            .any(|used| world.document.server(used).is_none() && meant(used, [name]).is_some());
        if !name.is_empty() && !used.contains(&name) && !is_meant {
            report.at(&server.name.span, format!("server {} belongs to no pool", server.name));
        }
    }
}

fn os_user_root(world: &World<'_>, report: &mut Report) {
    let servers = world.document.servers.iter().filter_map(|server| server.os_user.as_ref());
    for user in servers.chain(&world.document.defaults.os_user) {
        if matches!(user.value.as_str(), "root" | "0") {
            report.at(&user.span, "PostgreSQL does not run as root");
        }
    }
}

/// The major version in a path such as `/usr/lib/postgresql/15/bin` or `/usr/pgsql-15/bin`.
fn major(path: &str) -> Option<u32> {
    let mut parts = path.rsplit('/').filter_map(|part| {
        let number = ["pgsql-", "postgresql-", "postgresql@", "postgresql"]
            .iter()
            .find_map(|before| part.strip_prefix(before))
            .unwrap_or(part);
        number.parse().ok()
    });
    parts.find(|number| (9..100).contains(number))
}

fn versions_differ(world: &World<'_>, report: &mut Report) {
    for pool in world.pools().filter(|pool| pool.method() == Some(Method::Mirroring)) {
        let written: Vec<_> = pool
            .partners()
            .filter_map(|name| world.document.server(name))
            .filter_map(|server| {
                let dir = world.document.pg_bin_dir_of(server)?;
                Some((server, dir, major(dir)?))
            })
            .collect();
        let [(one, first, older), (other, second, newer)] = written.as_slice() else { continue };
        if older != newer {
            let message = format!(
                "pool {} would run PostgreSQL {older} on {} and {newer} on {}",
                pool.name, one.name, other.name
            );
            report.at(&second.span, message).related(&first.span, format!("of {}", one.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_host_name, major};

    #[test]
    fn host_names_are_told_from_everything_else() {
        for name in ["be1", "be1.example.com", "be1.example.com.", "a_b", "3com"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["", "be1:7022", "http://be1", "be 1", "-a", "a..b", "10.0.0.999", "."] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn the_version_is_read_from_usual_paths() {
        assert_eq!(major("/usr/lib/postgresql/15/bin"), Some(15));
        assert_eq!(major("/usr/pgsql-17/bin"), Some(17));
        assert_eq!(major("/opt/postgres/bin"), None);
    }
}
