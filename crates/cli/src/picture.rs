//! What a pool looks like: the answers of its members, merged.
//!
//! Members may contradict each other for a moment, or not answer at all. The principal's word
//! counts for everything that only the principal can know; of two that call themselves principal
//! the one with the newer term is believed, and the other is shown as an alarm. What this module
//! makes is what `pool status --json` prints: see docs/json.md.

use protocol::admin::{
    AutomaticFailover, FrontEndStatus, MemberStatus, MirrorStatus, MirroringState, Obstacle,
    Protection, Role, SessionStatus,
};
use serde::Serialize;

use crate::deployment::PoolEntry;

/// What one member said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct Heard {
    pub name: String,
    pub address: String,
    pub answer: Result<MemberStatus, String>,
}

/// What one Front End said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct HeardFrontEnd {
    pub name: String,
    pub address: String,
    pub answer: Result<FrontEndStatus, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Served, and every acknowledged commit is on both disks.
    Mirrored,
    /// Served, and acknowledged commits are on the principal's disk alone.
    Exposed,
    NotServed,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Picture {
    pub pool: String,
    pub state: State,
    /// The state in words.
    pub sentence: String,
    pub principal: Option<String>,
    pub mirror: Option<String>,
    pub term: u64,
    pub protection: Option<Protection>,
    pub mirroring: Option<MirroringState>,
    pub lease_left_ms: Option<u64>,
    pub streaming: Option<bool>,
    pub not_flushed_bytes: Option<u64>,
    pub not_replayed_bytes: Option<u64>,
    pub witness: Option<WitnessPicture>,
    pub automatic_failover: AutomaticFailover,
    pub obstacles: Vec<Obstacle>,
    pub alarms: Vec<AlarmPicture>,
    pub members: Vec<MemberPicture>,
    /// Those that the deployment names. They have no part in the pool's state.
    pub front_ends: Vec<FrontEndPicture>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WitnessPicture {
    pub name: String,
    /// The principal hears it; unknown while nobody serves.
    pub connected: Option<bool>,
    pub heard_ms_ago: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AlarmPicture {
    pub code: String,
    pub sentence: String,
    /// Who raised it; absent: this command.
    pub member: Option<String>,
    pub since_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MemberPicture {
    pub name: String,
    pub address: String,
    pub answered: bool,
    /// Why it did not answer.
    pub problem: Option<String>,
    pub version: Option<String>,
    pub pid: Option<u32>,
    pub uptime_ms: Option<u64>,
    pub session: Option<SessionStatus>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FrontEndPicture {
    pub name: String,
    pub address: String,
    pub answered: bool,
    /// Why it did not answer.
    pub problem: Option<String>,
    pub status: Option<FrontEndStatus>,
}

impl MemberPicture {
    pub fn role(&self) -> Option<Role> {
        self.session.as_ref().map(|session| session.role)
    }
}

impl Picture {
    /// Merges what the members of `pool` said.
    pub fn of(pool: &PoolEntry, heard: Vec<Heard>) -> Picture {
        let members: Vec<MemberPicture> =
            heard.into_iter().map(|one| member_picture(&pool.name, one)).collect();
        let principal = principal(&members);
        let session = principal.and_then(|member| member.session.as_ref());
        let spokesman = session.or_else(|| spokesman(&members));
        let record = spokesman.and_then(|session| session.record.as_ref());
        let protection = record.map(|record| record.protection);
        let state = match (session.is_some_and(|session| session.serving), protection) {
            (true, Some(Protection::Mirrored)) => State::Mirrored,
            (true, _) => State::Exposed,
            (false, _) => State::NotServed,
        };
        let mirror_seen = session.and_then(|session| session.mirror);
        let witness = witness(pool, session);
        let principal_name = principal.map(|member| member.name.clone());
        let term = members.iter().filter_map(|member| member.session.as_ref());
        let term = session.map_or_else(|| term.map(|s| s.term).max().unwrap_or(0), |s| s.term);
        Picture {
            pool: pool.name.clone(),
            state,
            sentence: sentence(state, pool, session, &members),
            mirror: principal_name.as_deref().and_then(|name| other_partner(pool, name)),
            alarms: alarms(&members, principal),
            automatic_failover: automatic_failover(state, spokesman, &members),
            obstacles: spokesman.map(|session| session.obstacles.clone()).unwrap_or_default(),
            principal: principal_name,
            term,
            protection,
            mirroring: spokesman.map(|session| session.mirroring),
            lease_left_ms: session.and_then(|session| session.lease_left_ms),
            streaming: mirror_seen.map(|seen| seen.streaming),
            not_flushed_bytes: mirror_seen.and_then(|seen| seen.not_flushed_bytes),
            not_replayed_bytes: not_replayed(mirror_seen, principal, &members),
            witness,
            members,
            front_ends: Vec::new(),
        }
    }

    pub fn with_front_ends(mut self, heard: Vec<HeardFrontEnd>) -> Picture {
        self.front_ends = heard.into_iter().map(front_end_picture).collect();
        self
    }

    pub fn served(&self) -> bool {
        self.state != State::NotServed
    }

    /// Mirrored, streaming, and ready for the next fault.
    pub fn redundant(&self) -> bool {
        self.state == State::Mirrored && self.streaming == Some(true)
    }

    pub fn member(&self, name: &str) -> Option<&MemberPicture> {
        self.members.iter().find(|member| member.name == name)
    }
}

fn member_picture(pool: &str, heard: Heard) -> MemberPicture {
    let Heard { name, address, answer } = heard;
    match answer {
        Ok(status) => {
            let session = status.sessions.into_iter().find(|session| session.pool == pool);
            MemberPicture {
                name,
                address,
                answered: true,
                problem: session
                    .is_none()
                    .then(|| "it has no part in this pool: check its configuration".to_owned()),
                version: Some(status.version),
                pid: Some(status.pid),
                uptime_ms: Some(status.uptime_ms),
                session,
            }
        }
        Err(problem) => MemberPicture {
            name,
            address,
            answered: false,
            problem: Some(problem),
            version: None,
            pid: None,
            uptime_ms: None,
            session: None,
        },
    }
}

fn front_end_picture(heard: HeardFrontEnd) -> FrontEndPicture {
    let HeardFrontEnd { name, address, answer } = heard;
    let (status, problem) = match answer {
        Ok(status) => (Some(status), None),
        Err(problem) => (None, Some(problem)),
    };
    FrontEndPicture { name, address, answered: status.is_some(), problem, status }
}

fn claims(member: &MemberPicture) -> Option<(bool, u64)> {
    let session = member.session.as_ref()?;
    (session.role == Role::Principal).then_some((session.serving, session.term))
}

/// The member that serves, or would if it could: serving before idle, newer term first.
fn principal(members: &[MemberPicture]) -> Option<&MemberPicture> {
    members.iter().filter(|member| claims(member).is_some()).max_by_key(|member| claims(member))
}

/// Who knows most while nobody serves: the partner with the newest record.
fn spokesman(members: &[MemberPicture]) -> Option<&SessionStatus> {
    let sessions = members.iter().filter_map(|member| member.session.as_ref());
    sessions
        .filter(|session| session.postgres.is_some())
        .max_by_key(|session| session.record.as_ref().map(|record| (record.term, record.revision)))
}

/// `None`: the pool has one server.
fn other_partner(pool: &PoolEntry, name: &str) -> Option<String> {
    let other = if pool.first == name { &pool.second } else { &pool.first };
    (!other.is_empty()).then(|| other.clone())
}

/// The witness by the principal's record, which may differ from the deployment file.
fn witness(pool: &PoolEntry, session: Option<&SessionStatus>) -> Option<WitnessPicture> {
    let recorded = session.and_then(|session| session.record.as_ref());
    let name = match recorded {
        Some(record) => record.members.witness.clone()?,
        None => pool.witness.clone()?,
    };
    let seen = session.and_then(|session| session.others.iter().find(|other| other.name == name));
    Some(WitnessPicture {
        connected: seen.map(|other| other.connected),
        heard_ms_ago: seen.and_then(|other| other.heard_ms_ago),
        name,
    })
}

/// The mirror itself knows best what it has replayed.
fn not_replayed(
    seen: Option<MirrorStatus>,
    principal: Option<&MemberPicture>,
    members: &[MemberPicture],
) -> Option<u64> {
    if let Some(bytes) = seen.and_then(|seen| seen.not_replayed_bytes) {
        return Some(bytes);
    }
    let end = principal?.session.as_ref()?.postgres.as_ref()?.position.as_ref()?.bytes;
    let mirror = members.iter().find(|member| member.role() == Some(Role::Mirror))?;
    let replayed = mirror.session.as_ref()?.postgres.as_ref()?.replayed.as_ref()?.bytes;
    Some(end.saturating_sub(replayed))
}

fn automatic_failover(
    state: State,
    session: Option<&SessionStatus>,
    members: &[MemberPicture],
) -> AutomaticFailover {
    let unarmed =
        |sentence: String| AutomaticFailover { armed: false, sentence, estimate_ms: None };
    match (state, session) {
        (State::Mirrored | State::Exposed, Some(session)) => session.automatic_failover.clone(),
        (State::NotServed, Some(session)) => unarmed(what_is_missing(session, members)),
        (_, None) => unarmed("not known: no server of the pool answers".to_owned()),
    }
}

/// Why nobody serves, and what would change that.
fn what_is_missing(session: &SessionStatus, members: &[MemberPicture]) -> String {
    let answering = members.iter().filter(|member| member.session.is_some()).count();
    let there =
        |name: &str| members.iter().any(|member| member.name == name && member.session.is_some());
    let outdated = |name: &str| {
        let session = members.iter().find(|member| member.name == name);
        let alarms = session.and_then(|member| member.session.as_ref()).map(|one| &one.alarms);
        alarms.is_some_and(|alarms| alarms.iter().any(|alarm| alarm.code == "data_behind"))
    };
    let problem = |name: &str| {
        let found = members.iter().find(|member| member.name == name);
        found?.session.as_ref()?.postgres.as_ref()?.problem.clone()
    };
    match &session.record {
        None => "nobody serves: the session is not set up on this member, or its state is lost"
            .to_owned(),
        Some(record) if record.protection == Protection::Exposed && !there(&record.principal) => {
            format!(
                "nobody serves: {} alone is sure to hold every acknowledged commit, so the pool \
                 waits for it (or for forced service)",
                record.principal
            )
        }
        Some(record) if record.protection == Protection::Exposed && outdated(&record.principal) => {
            format!(
                "nobody serves: {0} alone held every acknowledged commit, and its data are older \
                 than they were; put its newest data back if there are any, then force service \
                 on {0}",
                record.principal
            )
        }
        Some(record)
            if record.protection == Protection::Exposed && problem(&record.principal).is_some() =>
        {
            format!(
                "nobody serves: {} alone is sure to hold every acknowledged commit, and its \
                 PostgreSQL is kept from running: {}",
                record.principal,
                problem(&record.principal).unwrap_or_default()
            )
        }
        Some(record) if record.members.witness.is_none() && there(&record.principal) => format!(
            "nobody serves: without a witness {} serves again once the other server answers, or \
             when told to (pool serve-alone)",
            record.principal
        ),
        Some(_) if answering < 2 => "nobody serves: one member alone elects nobody, so the pool \
             waits for another one (or for forced service)"
            .to_owned(),
        Some(_) => {
            "nobody serves: the members that answer should elect somebody in a moment".to_owned()
        }
    }
}

fn sentence(
    state: State,
    pool: &PoolEntry,
    principal: Option<&SessionStatus>,
    members: &[MemberPicture],
) -> String {
    match (state, principal) {
        (State::Mirrored, Some(session)) => format!(
            "{} serves, and every acknowledged commit is on both servers' disks",
            session.member
        ),
        (State::Exposed, Some(session)) => match other_partner(pool, &session.member) {
            Some(other) => format!(
                "{} serves alone: acknowledged commits are on its disk only until {other} mirrors \
                 again",
                session.member
            ),
            None => format!("{} serves, and the pool has no mirror", session.member),
        },
        (State::NotServed, _) | (_, None) => {
            if let Some(words) = no_answer(members) {
                return words;
            }
            let words: Vec<String> = members.iter().map(member_words).collect();
            format!("nobody serves: {}", words.join(", "))
        }
    }
}

/// Whoever is not let in, or has no network, learns nothing about the pool: the reason is told.
fn no_answer(members: &[MemberPicture]) -> Option<String> {
    let first = members.first().filter(|_| members.iter().all(|member| !member.answered))?;
    let problem = first.problem.as_deref().unwrap_or("no answer");
    Some(format!("no member answers, so nobody knows who serves: {}: {problem}", first.name))
}

fn member_words(member: &MemberPicture) -> String {
    match (member.role(), member.answered) {
        (Some(role), _) => format!("{} is {}", member.name, role_words(role)),
        (None, true) => format!("{} has no part in the pool", member.name),
        (None, false) => format!("{} does not answer", member.name),
    }
}

/// A role as a person says it.
pub fn role_words(role: Role) -> &'static str {
    match role {
        Role::Witness => "witness",
        Role::Waiting => "waiting",
        Role::Mirror => "mirror",
        Role::Candidate => "candidate",
        Role::Becoming => "becoming principal",
        Role::Principal => "principal",
        Role::Amnesiac => "without its state",
        Role::Suspended => "suspended",
        Role::NotCreated => "not set up",
    }
}

fn alarms(members: &[MemberPicture], principal: Option<&MemberPicture>) -> Vec<AlarmPicture> {
    let mut alarms = Vec::new();
    for member in members {
        let raised = member.session.iter().flat_map(|session| &session.alarms);
        alarms.extend(raised.map(|alarm| AlarmPicture {
            code: alarm.code.clone(),
            sentence: alarm.sentence.clone(),
            member: Some(member.name.clone()),
            since_ms: Some(alarm.since_ms),
        }));
        let is_believed = principal.is_some_and(|believed| believed.name == member.name);
        if claims(member).is_some_and(|(serving, _)| serving) && !is_believed {
            alarms.push(AlarmPicture {
                code: "older_principal".to_owned(),
                sentence: format!(
                    "{} still calls itself principal, of an older term: it can acknowledge no \
                     commit, and stops as soon as it notices",
                    member.name
                ),
                member: None,
                since_ms: None,
            });
        }
    }
    alarms
}

#[cfg(test)]
mod tests;
