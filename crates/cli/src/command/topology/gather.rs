//! How the deployment is now, as far as plans and their ends are concerned.
//!
//! Everybody is asked side by side. Whoever does not answer is left out; a plan says then what it
//! cannot know.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::admin::{
    CopyProgress, MemberStatus, PreflightSeen, Protection, Request, Response, Role, SessionStatus,
    TopologyKind,
};
use topology::plan::{Context, Facts, PoolFacts, ProcessFacts};

use super::site::Site;
use crate::admin::AskError;
use crate::show;

const LOOK: Duration = Duration::from_secs(2);

/// What all processes say of themselves.
pub struct Gathered {
    pub facts: Facts,
    /// By process; those that answered.
    pub members: BTreeMap<String, MemberStatus>,
    /// Why the others did not.
    pub silent: BTreeMap<String, String>,
}

pub async fn gather(site: &Site) -> Gathered {
    let asked = Request::Status { pool: None };
    let (answers, shown) = tokio::join!(site.ask_all(&asked, LOOK, |_| true), site.shown(false));
    let mut gathered =
        Gathered { facts: Facts::default(), members: BTreeMap::new(), silent: BTreeMap::new() };
    for (name, answer) in answers {
        let mut process = ProcessFacts::default();
        match answer {
            Ok(Response::Status(status)) => {
                process.parts = status.sessions.iter().map(|part| part.pool.clone()).collect();
                gathered.members.insert(name.clone(), status);
            }
            Ok(Response::FrontEnd(_)) => {}
            Ok(_) => {
                gathered.silent.insert(name, "it answers something else than asked".to_owned());
                continue;
            }
            Err(AskError::Silent { text, .. }) => {
                gathered.silent.insert(name, text);
                continue;
            }
            // A Front End that waits for its first copy.
            Err(AskError::Refused(refusal)) if refusal.code == "no_topology" => {}
            Err(AskError::Refused(refusal)) => {
                gathered.silent.insert(name, refusal.sentence);
                continue;
            }
        }
        match shown.get(&name) {
            Some(shown) => {
                process.version = shown.header.as_ref().map(|header| header.version);
                process.problem = shown.standing.problem.clone();
            }
            None => {
                // A Front End that knows no documents works from its own file.
                let kind = site.process(&name).map(|process| process.kind);
                process.has_own_file = kind == Some(TopologyKind::FrontEnd);
            }
        }
        gathered.facts.processes.insert(name, process);
    }
    gathered.facts.pools = pools(&gathered.members);
    gathered
}

/// Each pool as whoever serves it says; while nobody does, as whoever was in the newest term.
fn pools(members: &BTreeMap<String, MemberStatus>) -> BTreeMap<String, PoolFacts> {
    let mut best: BTreeMap<&str, &SessionStatus> = BTreeMap::new();
    let sessions = || members.values().flat_map(|member| &member.sessions);
    for session in sessions().filter(|session| session.record.is_some()) {
        let rank = |session: &SessionStatus| {
            (session.serving, session.term, session.role != Role::Witness)
        };
        let held = best.entry(&session.pool).or_insert(session);
        if rank(session) > rank(held) {
            *held = session;
        }
    }
    best.into_iter()
        .map(|(pool, session)| {
            let mut facts = of(session);
            for other in sessions().filter(|other| other.pool == pool) {
                if let Some(doing) = doing(other) {
                    facts.doing.insert(other.member.clone(), doing);
                }
            }
            (pool.to_owned(), facts)
        })
        .collect()
}

fn of(session: &SessionStatus) -> PoolFacts {
    let Some(record) = &session.record else { return PoolFacts::default() };
    let is_alone = session.mirroring == protocol::admin::MirroringState::NotMirrored;
    let streams = session.mirror.is_some_and(|mirror| mirror.streaming);
    let servers = match is_alone {
        true => vec![record.principal.clone()],
        false => vec![record.members.first.clone(), record.members.second.clone()],
    };
    let waits = ["change_waits", "agent_restart_waits", "settings_wait"];
    let waits = waits.into_iter().filter_map(|code| {
        session.alarms.iter().find(|alarm| alarm.code == code).map(|alarm| alarm.sentence.clone())
    });
    PoolFacts {
        principal: Some(record.principal.clone()),
        is_served: session.serving,
        is_mirrored: session.serving && record.protection == Protection::Mirrored && streams,
        is_alone,
        servers: servers.into_iter().collect(),
        witness: record.members.witness.clone(),
        is_changing: record.members.changing,
        waits: waits.collect(),
        ..PoolFacts::default()
    }
}

/// What its PostgreSQL is busy with.
fn doing(session: &SessionStatus) -> Option<String> {
    let postgres = session.postgres.as_ref()?;
    if let Some(problem) = &postgres.problem {
        return Some(problem.clone());
    }
    let doing = postgres.doing.clone()?;
    Some(match postgres.progress {
        Some(CopyProgress { done_bytes, total_bytes: Some(total), .. }) => {
            format!("{doing}, {} of {}", show::bytes(done_bytes), show::bytes(total))
        }
        Some(_) | None => doing,
    })
}

/// Adds what only a look at the machines tells.
pub fn add_seen(facts: &mut Facts, seen: &BTreeMap<String, PreflightSeen>) {
    for (process, seen) in seen {
        for part in &seen.parts {
            let Some(pool) = facts.pools.get_mut(&part.pool) else { continue };
            if pool.principal.as_ref() == Some(process) {
                pool.size = part.data_bytes;
                pool.databases = part.databases.clone().map(|names| names.into_iter().collect());
                let contexts = part.contexts.iter();
                pool.contexts =
                    contexts.map(|(name, it)| (name.clone(), Context::of(it))).collect();
            }
        }
    }
}
