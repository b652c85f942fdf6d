//! The document as rules look at it: who stands on which machine.

use std::net::IpAddr;

use crate::document::{Document, FrontEnd, Pool};
use crate::place::Placed;
use crate::resolve::Method;

/// What a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Server,
    Witness,
    FrontEnd,
}

impl Kind {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::Server => "server",
            Kind::Witness => "witness",
            Kind::FrontEnd => "Front End",
        }
    }
}

/// One process of the deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process<'a> {
    pub kind: Kind,
    pub name: &'a Placed<String>,
    pub host: &'a Placed<String>,
    pub site: Option<&'a Placed<String>>,
}

#[derive(Debug)]
pub(crate) struct World<'a> {
    pub document: &'a Document,
    pub processes: Vec<Process<'a>>,
    /// Everything is on this machine: a demo. Rules about machines that fail together keep silent.
    pub is_local: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(document: &'a Document) -> World<'a> {
        let servers = document.servers.iter().map(|it| Process {
            kind: Kind::Server,
            name: &it.name,
            host: &it.host,
            site: it.site.as_ref(),
        });
        let witnesses = document.witnesses.iter().map(|it| Process {
            kind: Kind::Witness,
            name: &it.name,
            host: &it.host,
            site: it.site.as_ref(),
        });
        let front_ends = document.pools.iter().flat_map(|pool| &pool.front_ends);
        let front_ends = front_ends.map(|it| Process {
            kind: Kind::FrontEnd,
            name: &it.name,
            host: &it.host,
            site: it.site.as_ref(),
        });
        let processes: Vec<Process<'a>> = servers.chain(witnesses).chain(front_ends).collect();
        let is_local =
            !processes.is_empty() && processes.iter().all(|process| is_loopback(process.host));
        World { document, processes, is_local }
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &'a Pool> + use<'a> {
        self.document.pools.iter()
    }

    pub(crate) fn mirrored(&self) -> impl Iterator<Item = &'a Pool> + use<'a> {
        self.document.pools_by(Method::Mirroring)
    }

    pub(crate) fn front_ends(&self) -> impl Iterator<Item = (&'a Pool, &'a FrontEnd)> + use<'a> {
        self.pools().flat_map(|pool| pool.front_ends.iter().map(move |it| (pool, it)))
    }

    /// The names of a pool's servers and their hosts, where they are known.
    pub(crate) fn hosts_of(&self, pool: &'a Pool) -> Vec<(&'a Placed<String>, &'a Placed<String>)> {
        let known = |name: &'a Placed<String>| {
            self.document.server(name).map(|server| (name, &server.host))
        };
        pool.partners().filter_map(known).collect()
    }
}

/// Whether two ways to write a host name mean the same machine, as far as the text shows.
pub(crate) fn is_same_host(one: &str, other: &str) -> bool {
    if one.is_empty() || other.is_empty() {
        return false;
    }
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.')),
        (Some(_), None) | (None, Some(_)) => is_loopback(one) && is_loopback(other),
    }
}

/// A host name in the form that makes equal hosts equal texts.
pub(crate) fn host_key(host: &str) -> String {
    match address(host) {
        Some(address) => address.to_string(),
        None if is_loopback(host) => "127.0.0.1".to_owned(),
        None => host.trim_end_matches('.').to_ascii_lowercase(),
    }
}

pub(crate) fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

pub(crate) fn is_loopback(host: &str) -> bool {
    match address(host) {
        Some(address) => address.is_loopback(),
        None => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host == "localhost"
                || host.ends_with(".localhost")
                || host == "localhost.localdomain"
                || host == "ip6-localhost"
        }
    }
}

/// Things that share a key, in the order of the document; keys that only one thing has are left
/// out.
pub(crate) fn shared<K: Ord, T>(all: impl IntoIterator<Item = (K, T)>) -> Vec<Vec<T>> {
    let mut groups: std::collections::BTreeMap<K, Vec<T>> = std::collections::BTreeMap::new();
    for (key, thing) in all {
        groups.entry(key).or_default().push(thing);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// "one", "one and two", "one, two and three".
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [before @ .., last] => {
            let before: Vec<&str> = before.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", before.join(", "), last.as_ref())
        }
    }
}
