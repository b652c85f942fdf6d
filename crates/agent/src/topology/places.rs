//! Where the partners of pools are, by the document.

use std::collections::BTreeMap;

use protocol::admin::TopologyFinding;
use topology::document::Pool;
use topology::resolve::Method;
use topology::{Checked, Lines};

use crate::config::Address;

/// The agents of the pool that holds the Central Management store.
pub(super) fn store_partners(document: &Checked) -> Vec<Address> {
    let pool = document.central_management.as_ref().and_then(|name| document.pool(name));
    let servers = pool.into_iter().flat_map(Pool::partners);
    let servers = servers.filter_map(|name| document.server(name));
    let addresses = servers.map(|server| Address {
        name: server.name.value.clone(),
        host: server.host.value.clone(),
        port: server.member_port(),
    });
    addresses.collect()
}

/// A pool's servers keep their places: who was written first is the first to the session for ever,
/// whoever serves. Everything else may change.
pub(super) fn changed(before: &Checked, after: &Checked, text: &str) -> Vec<TopologyFinding> {
    let lines = Lines::new(text);
    let places = |pool: &Pool| {
        let named =
            |name: &Option<topology::Placed<String>>| name.as_ref().map(|name| name.value.clone());
        [named(&pool.principal), named(&pool.mirror)]
    };
    let former: BTreeMap<&str, [Option<String>; 2]> = before
        .pools
        .iter()
        .filter(|pool| pool.method() != Some(Method::Clustering))
        .map(|pool| (pool.name.as_str(), places(pool)))
        .collect();
    let mut findings = Vec::new();
    for pool in &after.pools {
        let Some([first, second]) = former.get(pool.name.as_str()) else { continue };
        let [now_first, now_second] = places(pool);
        let moved = |was: &Option<String>, is: &Option<String>| was.is_some() && was == is;
        let server = if moved(first, &now_second) {
            first
        } else if moved(second, &now_first) {
            second
        } else {
            continue;
        };
        let server = server.as_deref().unwrap_or_default();
        let at = pool.principal.as_ref().map(|written| lines.point(written.span.start));
        findings.push(TopologyFinding {
            rule: "partner-keeps-its-place".to_owned(),
            is_error: true,
            message: format!(
                "server {server} of pool {} was {} and would become {}",
                pool.name,
                if moved(first, &now_second) { "principal" } else { "mirror" },
                if moved(first, &now_second) { "mirror" } else { "principal" },
            ),
            cause: "The document says who is principal after the first set-up alone; the servers \
                    keep these places for ever, whoever serves."
                .to_owned(),
            remedy: "Leave the names in their places. To change who serves: backstay pool \
                     failover. To replace a server, put the new one into its place."
                .to_owned(),
            line: at.and_then(|at| u32::try_from(at.line).ok()),
            column: at.and_then(|at| u32::try_from(at.column).ok()),
        });
    }
    findings
}
