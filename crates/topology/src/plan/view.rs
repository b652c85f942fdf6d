//! One pool of one document with all defaults resolved, so that two can be compared.

use std::collections::BTreeMap;

use crate::check::Checked;
use crate::derive::ServerPart;
use crate::document::Pool;
use crate::resolve::Method;

pub(super) struct PoolView<'a> {
    pub document: &'a Checked,
    pub pool: &'a Pool,
    pub method: Method,
    /// The document's principal.
    pub first: Option<&'a str>,
    /// The document's mirror.
    pub second: Option<&'a str>,
    pub witness: Option<&'a str>,
    /// What each of its servers is given.
    pub parts: BTreeMap<&'a str, ServerPart>,
}

/// A pool before and after.
pub(super) struct Both<'a> {
    pub before: PoolView<'a>,
    pub after: PoolView<'a>,
}

impl<'a> PoolView<'a> {
    pub fn of(document: &'a Checked, pool: &'a Pool) -> PoolView<'a> {
        let method = pool.method().unwrap_or(Method::Mirroring);
        let has_servers = method != Method::Clustering;
        let server = |name: &'a Option<crate::Placed<String>>| {
            name.as_ref().map(|name| name.as_str()).filter(|_| has_servers)
        };
        let parts = pool.partners().filter(|_| has_servers).filter_map(|name| {
            let all = document.server_parts(name)?.parts;
            let part = all.into_iter().find(|part| part.pool == pool.name.value)?;
            Some((name.as_str(), part))
        });
        PoolView {
            document,
            pool,
            method,
            first: server(&pool.principal),
            second: server(&pool.mirror),
            witness: document.witness_of(pool).map(|name| name.as_str()),
            parts: parts.collect(),
        }
    }

    pub fn name(&self) -> &'a str {
        &self.pool.name
    }

    pub fn partners(&self) -> impl Iterator<Item = &'a str> {
        [self.first, self.second].into_iter().flatten()
    }

    /// Servers and the witness.
    pub fn members(&self) -> impl Iterator<Item = &'a str> {
        self.partners().chain(self.witness)
    }

    pub fn front_ends(&self) -> impl Iterator<Item = &'a str> {
        self.pool.front_ends.iter().map(|front_end| front_end.name.as_str())
    }
}

impl<'a> Both<'a> {
    pub fn name(&self) -> &'a str {
        self.after.name()
    }

    /// Servers that are in it before and after, with what each was and is given.
    pub fn staying(&self) -> impl Iterator<Item = (&'a str, &ServerPart, &ServerPart)> {
        self.after.parts.iter().filter_map(|(server, after)| {
            let before = self.before.parts.get(server)?;
            Some((*server, before, after))
        })
    }
}
