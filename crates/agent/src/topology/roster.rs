//! Who has which version, as others told it to this process since it started.

use std::collections::{BTreeMap, BTreeSet};

use protocol::admin::{TopologyHeader, TopologyHolder, TopologyKind, TopologyStanding};
use session::Instant;
use topology::Checked;

use super::desk::Report;
use crate::status;

/// Names that are kept; a deployment has far fewer.
const LIMIT: usize = 4_096;

#[derive(Debug)]
struct Heard {
    standing: TopologyStanding,
    at: Instant,
    connections: usize,
}

#[derive(Default, Debug)]
pub(super) struct Roster(BTreeMap<String, Heard>);

impl Roster {
    pub fn note(&mut self, report: Report, now: Instant) {
        match report {
            Report::Came(standing) => {
                if let Some(heard) = self.told(standing, now) {
                    heard.connections += 1;
                }
            }
            Report::Told(standing) => {
                self.told(standing, now);
            }
            Report::Left(process) => {
                if let Some(heard) = self.0.get_mut(&process) {
                    heard.connections = heard.connections.saturating_sub(1);
                    heard.at = now;
                }
            }
        }
    }

    fn told(&mut self, standing: TopologyStanding, now: Instant) -> Option<&mut Heard> {
        let process = standing.process.clone();
        if self.0.len() >= LIMIT && !self.0.contains_key(&process) {
            return None;
        }
        let new = || Heard { standing: standing.clone(), at: now, connections: 0 };
        let heard = self.0.entry(process).or_insert_with(new);
        heard.at = now;
        heard.standing = standing.clone();
        Some(heard)
    }

    /// Every process of `document`, then those that nobody names.
    pub fn holders(
        &self,
        document: Option<&Checked>,
        newest: Option<&TopologyHeader>,
        own: &TopologyStanding,
        now: Instant,
    ) -> Vec<TopologyHolder> {
        let mut named: Vec<(String, TopologyKind)> = Vec::new();
        if let Some(document) = document {
            let servers =
                document.servers.iter().map(|it| (it.name.value.clone(), TopologyKind::Server));
            let witnesses =
                document.witnesses.iter().map(|it| (it.name.value.clone(), TopologyKind::Witness));
            let front_ends = document.pools.iter().flat_map(|pool| &pool.front_ends);
            let front_ends = front_ends.map(|it| (it.name.value.clone(), TopologyKind::FrontEnd));
            named.extend(servers.chain(witnesses).chain(front_ends));
        }
        let known: BTreeSet<&String> = named.iter().map(|(name, _)| name).collect();
        let unnamed = self.0.keys().filter(|name| !known.contains(name));
        let unnamed: Vec<_> = unnamed.map(|name| (name.clone(), TopologyKind::Unnamed)).collect();
        named.extend(unnamed);
        named.into_iter().map(|(name, kind)| self.holder(name, kind, newest, own, now)).collect()
    }

    fn holder(
        &self,
        name: String,
        kind: TopologyKind,
        newest: Option<&TopologyHeader>,
        own: &TopologyStanding,
        now: Instant,
    ) -> TopologyHolder {
        let is_me = name == own.process;
        let heard = self.0.get(&name).filter(|_| !is_me);
        let mut standing =
            if is_me { Some(own.clone()) } else { heard.map(|heard| heard.standing.clone()) };
        let has = |standing: &TopologyStanding| {
            newest.is_some_and(|newest| {
                standing.have == newest.version && standing.digest.as_ref() == Some(&newest.digest)
            })
        };
        if let (Some(standing), Some(newest)) = (&mut standing, newest)
            && standing.problem.is_none()
            && standing.have == newest.version
            && !has(standing)
        {
            standing.problem = Some(format!(
                "it was handed another document as version {} while the store was away: publish \
                 a new version",
                newest.version
            ));
        }
        TopologyHolder {
            name,
            kind,
            is_current: standing.as_ref().is_some_and(|it| has(it) && it.problem.is_none()),
            is_connected: is_me || heard.is_some_and(|heard| heard.connections > 0),
            seen_ms_ago: match heard {
                Some(heard) => Some(status::ms(now.since(heard.at))),
                None => is_me.then_some(0),
            },
            standing,
        }
    }
}
