//! The method of a pool's back end, and what goes with each.

use crate::diagnostic::{Family, Report, Rule, meant};
use crate::document::Pool;
use crate::place::Span;
use crate::resolve::Method;

use super::world::{World, listed};
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    warning(
        "no-pool",
        Family::Methods,
        no_pool,
        ["The document has no pool.", "Nothing would be served.", "Add a [[pool]]."],
    ),
    error(
        "method-asynchronous",
        Family::Methods,
        method_asynchronous,
        [
            "A pool asks for asynchronous mirroring, in whatever spelling.",
            "Asynchronous mirroring loses acknowledged commits in every failover. Backstay \
             mirrors synchronously; when the mirror is away the pool goes on exposed, and says so.",
            "Write method = \"mirroring\".",
        ],
    ),
    error(
        "method-unknown",
        Family::Methods,
        method_unknown,
        [
            "A pool has a method that is neither mirroring nor clustering nor none.",
            "A pool's back end is kept available in exactly one of these ways.",
            "Write \"mirroring\" (two servers, without shared storage), \"clustering\" (a cluster \
             on shared storage that its own tools set up) or \"none\" (one server).",
        ],
    ),
    error(
        "pool-without-principal",
        Family::Methods,
        pool_without_principal,
        [
            "A pool names no principal.",
            "No server would hold its databases.",
            "Add principal = \"NAME\" with the name of a [[server]].",
        ],
    ),
    error(
        "mirroring-without-mirror",
        Family::Methods,
        mirroring_without_mirror,
        [
            "A pool of method mirroring names no mirror.",
            "One server alone mirrors nothing: its loss is the loss of the pool.",
            "Add mirror = \"NAME\" with another server, or write method = \"none\".",
        ],
    ),
    error(
        "mirror-without-mirroring",
        Family::Methods,
        mirror_without_mirroring,
        [
            "A pool of method none names a mirror or a witness.",
            "With one server there is nothing to mirror and nothing to vote on.",
            "Write method = \"mirroring\", or take the mirror and the witness out.",
        ],
    ),
    error(
        "cluster-missing",
        Family::Methods,
        cluster_missing,
        [
            "A pool of method clustering does not say where the cluster is.",
            "Front Ends would not know where to lead clients.",
            "Add cluster = { name = \"VIRTUAL-NAME\", port = 5432 }.",
        ],
    ),
    error(
        "cluster-with-members",
        Family::Methods,
        cluster_with_members,
        [
            "A pool of method clustering names servers, directories, ports, times or settings.",
            "The cluster's own tools set it up and fail it over; nothing of it is ever set from \
             here.",
            "Keep cluster, database and front_end, and take the other fields out; or write method \
             = \"mirroring\" if Backstay is to keep it available.",
        ],
    ),
    error(
        "cluster-not-asked-for",
        Family::Methods,
        cluster_not_asked_for,
        [
            "A pool has a cluster but another method.",
            "A pool's back end is kept available in exactly one way.",
            "Write method = \"clustering\", or take the cluster out.",
        ],
    ),
    warning(
        "cluster-databases-not-made",
        Family::Methods,
        cluster_databases,
        [
            "A pool of method clustering has databases or applications.",
            "They are listed for people and for Front Ends; nothing of a cluster is made from \
             here.",
            "Make them with the cluster's own tools.",
        ],
    ),
];

fn no_pool(world: &World<'_>, report: &mut Report) {
    if world.document.pools.is_empty() {
        report.everywhere("the document has no pool");
    }
}

/// Whether a method means asynchronous mirroring, however it is spelt.
fn is_asynchronous(method: &str) -> bool {
    let plain: String =
        method.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    // "High performance" is what SQL Server calls it; "high safety" is the synchronous one.
    plain.contains("async")
        || plain.contains("highperformance")
        || plain.contains("nosync")
        || plain == "performance"
        || meant(&plain, ["asynchronous", "async"]).is_some()
            && meant(&plain, ["synchronous", "sync"]).is_none()
}

fn method_asynchronous(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        if let Some(method) = &pool.method
            && is_asynchronous(method)
        {
            let message = format!("pool {} asks for asynchronous mirroring", pool.name);
            report.at(&method.span, message).label("Backstay mirrors synchronously only");
        }
    }
}

fn method_unknown(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let Some(method) = &pool.method else { continue };
        if pool.method().is_some() || is_asynchronous(method) {
            continue;
        }
        let message = format!("pool {} has the unknown method {:?}", pool.name, method.value);
        let found = report.at(&method.span, message);
        let names = Method::ALL.map(Method::name);
        let lower = method.to_ascii_lowercase();
        let other = match lower.as_str() {
            "mirrored" | "mirror" | "synchronous" | "sync" => Some("mirroring"),
            "cluster" | "clustered" | "fci" => Some("clustering"),
            "single" | "standalone" | "" => Some("none"),
            _ => None,
        };
        if let Some(close) = other.or_else(|| meant(&lower, names)) {
            found.remedy(format!("Did you mean {close:?}?"));
        }
    }
}

fn pool_without_principal(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let wants = matches!(pool.method(), Some(Method::Mirroring | Method::None));
        if wants && pool.principal.is_none() && !pool.table.is_broken("principal") {
            report.at(&pool.table.span, format!("pool {} has no principal", pool.name));
        }
    }
}

fn mirroring_without_mirror(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        if pool.mirror.is_none() && !pool.table.is_broken("mirror") {
            let message = format!("pool {} is to be mirrored and has no mirror", pool.name);
            let found = report.at(&pool.table.span, message);
            if let Some(method) = &pool.method {
                found.related(&method.span, "the method is chosen here");
            }
        }
    }
}

fn mirror_without_mirroring(world: &World<'_>, report: &mut Report) {
    for pool in world.document.pools_by(Method::None) {
        let witness = pool.witness.as_ref().filter(|name| !name.is_empty());
        for (what, name) in [("mirror", pool.mirror.as_ref()), ("witness", witness)] {
            let Some(name) = name else { continue };
            let message = format!("pool {} has method none and names a {what}", pool.name);
            let found = report.at(&name.span, message);
            if let Some(method) = &pool.method {
                found.related(&method.span, "the method is chosen here");
            }
        }
    }
}

fn cluster_missing(world: &World<'_>, report: &mut Report) {
    for pool in world.document.pools_by(Method::Clustering) {
        if pool.cluster.is_none() && !pool.table.is_broken("cluster") {
            report.at(&pool.table.span, format!("pool {} does not name its cluster", pool.name));
        }
    }
}

/// Fields that make no sense for a cluster, with their places.
fn members(pool: &Pool) -> Vec<(&'static str, &Span)> {
    let texts = [
        ("principal", &pool.principal),
        ("mirror", &pool.mirror),
        ("witness", &pool.witness),
        ("root", &pool.root),
        ("data_dir", &pool.data_dir),
        ("files_dir", &pool.files_dir),
        ("socket_dir", &pool.socket_dir),
        ("locale", &pool.locale),
        ("slot_wal_keep", &pool.slot_wal_keep),
        ("profile", &pool.profile),
    ];
    let texts = texts
        .into_iter()
        .filter_map(|(field, value)| value.as_ref().map(|value| (field, &value.span)));
    let port = pool.port.iter().map(|port| ("port", &port.span));
    let port_on = pool.port_on.first().map(|(server, _)| ("port_on", &server.span));
    let spare = pool.spare_witnesses.iter().flatten().take(1);
    let spare = spare.map(|name| ("spare_witnesses", &name.span));
    let settings = pool.settings.first().map(|(name, _)| ("settings", &name.span));
    let on = pool.settings_on.first().map(|on| ("settings_on", &on.server.span));
    let access = pool.client_access.iter().flatten().take(1);
    let access = access.map(|line| ("client_access", &line.span));
    let times = (pool.times != crate::document::Times::default())
        .then_some(("times", &pool.times.table.span));
    texts
        .chain(spare)
        .chain(port)
        .chain(port_on)
        .chain(settings)
        .chain(on)
        .chain(access)
        .chain(times)
        .collect()
}

fn cluster_with_members(world: &World<'_>, report: &mut Report) {
    for pool in world.document.pools_by(Method::Clustering) {
        let found = members(pool);
        let Some((_, place)) = found.first() else { continue };
        let names: Vec<&str> = found.iter().map(|(field, _)| *field).collect();
        let message = format!("pool {} is a cluster and says {}", pool.name, listed(&names));
        let diagnostic = report.at(place, message);
        for (field, place) in &found[1..] {
            diagnostic.related(place, format!("{field} is here"));
        }
        if let Some(method) = &pool.method {
            diagnostic.related(&method.span, "the method is chosen here");
        }
    }
}

fn cluster_not_asked_for(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let Some(method) = pool.method() else { continue };
        if let Some(cluster) = &pool.cluster
            && method != Method::Clustering
        {
            let message =
                format!("pool {} has a cluster, and its method is {}", pool.name, method.name());
            let found = report.at(&cluster.table.span, message);
            if let Some(method) = &pool.method {
                found.related(&method.span, "the method is chosen here");
            }
        }
    }
}

fn cluster_databases(world: &World<'_>, report: &mut Report) {
    for pool in world.document.pools_by(Method::Clustering) {
        let applications = pool.applications.iter().flatten().map(|name| &name.span);
        let users = pool.users.iter().filter(|users| users.value).map(|users| &users.span);
        let databases = pool.databases.iter().map(|database| &database.name.span);
        if let Some(place) = databases.chain(users).chain(applications).next() {
            let message =
                format!("the databases of pool {} are not made in its cluster", pool.name);
            report.at(place, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_asynchronous;

    #[test]
    fn asynchronous_mirroring_is_known_by_every_name() {
        for name in [
            "asynchronous",
            "async",
            "Async-Mirroring",
            "ASYNCHRONOUS",
            "asyncronous",
            "mirroring-async",
            "high-performance",
            "High Performance",
            "highperformance",
            "a-synchronous",
        ] {
            assert!(is_asynchronous(name), "{name}");
        }
        for name in ["synchronous", "sync", "mirroring", "clustering", "none", "high-safety", ""] {
            assert!(!is_asynchronous(name), "{name}");
        }
    }
}
