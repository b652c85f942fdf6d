//! What the gateway shows of itself to people and programs.

use std::net::SocketAddr;
use std::rc::Rc;

use protocol::admin::{
    FrontEndMode, FrontEndPrincipal, FrontEndServer, FrontEndStandby, FrontEndStatus, at_text,
};
use protocol::handshake::Introduction;

use crate::clock::{self, Moment};
use crate::config::FrontEnd;
use crate::counters::Counters;
use crate::mode::{Mode, Modes};
use crate::registry::Registry;
use crate::route::{Pool, Snapshot};

/// As many users and databases are named.
const MOST_SHOWN: usize = 20;

/// Everything that the status is made of.
#[derive(Debug)]
pub struct Status {
    name: String,
    deployment: String,
    pool_name: String,
    listen: SocketAddr,
    started: Moment,
    pool: Pool,
    modes: Modes,
    counters: Rc<Counters>,
    registry: Rc<Registry>,
}

impl Status {
    /// `listen` is where clients really connect.
    pub fn new(
        config: &FrontEnd,
        listen: SocketAddr,
        pool: Pool,
        modes: Modes,
        counters: Rc<Counters>,
        registry: Rc<Registry>,
    ) -> Status {
        Status {
            name: config.file.name.clone(),
            deployment: config.file.deployment.clone(),
            pool_name: config.file.pool.clone(),
            listen,
            started: clock::now(),
            pool,
            modes,
            counters,
            registry,
        }
    }

    pub fn introduction(&self) -> Introduction {
        Introduction {
            deployment: self.deployment.clone(),
            host: self.name.clone(),
            run: u64::from(std::process::id()),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub(super) fn is_of(&self, pool: Option<&str>) -> bool {
        pool.is_none_or(|pool| pool == self.pool_name)
    }

    pub fn shown(&self) -> FrontEndStatus {
        let now = clock::now();
        let snapshot = self.pool.current();
        let mode = self.modes.current();
        let (lasted, mode_since_ms) = self.modes.lasted();
        let (affected, affected_count) = self.registry.affected(mode != Mode::Normal, MOST_SHOWN);
        let principal = snapshot.principal.as_ref().map(|it| FrontEndPrincipal {
            server: it.member.clone(),
            address: address(&it.host, it.port),
            term: it.term,
            timeline: it.timeline,
            handing_over: it.handing_over,
            lease_left_ms: clock::ms(self.pool.lease_left(now)),
        });
        let standby = snapshot.standby.as_ref().map(|it| FrontEndStandby {
            server: it.member.clone(),
            address: address(&it.host, it.port),
            complete: it.complete,
        });
        FrontEndStatus {
            name: self.name.clone(),
            deployment: self.deployment.clone(),
            pool: self.pool_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: clock::ms(now.since(self.started)),
            listen: self.listen.to_string(),
            mode: shown(mode),
            mode_since_ms,
            mode_since: at_text(mode_since_ms),
            mode_for_ms: clock::ms(lasted),
            without_principal_ms: snapshot
                .without_principal_since
                .map(|since| clock::ms(now.since(since))),
            sentence: sentence(mode, &snapshot, &self.counters),
            principal,
            standby,
            highest_term: snapshot.highest_term,
            servers: self.servers(now),
            client_sessions: self.counters.client_sessions(),
            affected,
            affected_count,
            server_connections: self.counters.server_connections(),
            counters: self.counters.shown(),
        }
    }

    fn servers(&self, now: Moment) -> Vec<FrontEndServer> {
        let members = self.pool.members().into_iter().filter(|member| !member.name.is_empty());
        let seen = members.map(|member| FrontEndServer {
            name: member.name,
            address: member.address,
            connected: member.connected,
            heard_ms_ago: member.heard.map(|heard| clock::ms(now.since(heard))),
            problem: member.problem,
        });
        seen.collect()
    }
}

/// host:port, with an IPv6 address in brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn shown(mode: Mode) -> FrontEndMode {
    match mode {
        Mode::Normal => FrontEndMode::Normal,
        Mode::WithoutPrincipal { .. } => FrontEndMode::WithoutPrincipal,
        Mode::StandbyReads { .. } => FrontEndMode::StandbyReads,
        Mode::Resiliency { .. } => FrontEndMode::Resiliency,
    }
}

fn sentence(mode: Mode, snapshot: &Snapshot, counters: &Counters) -> String {
    let all = counters.sessions.get();
    let sessions = match all {
        1 => "1 client session".to_owned(),
        _ => format!("{all} client sessions"),
    };
    let waiting = format!("{} of {sessions} waiting", counters.waiting.get());
    let standby = snapshot.standby.as_ref().map(|it| it.member.as_str());
    match (mode, &snapshot.principal, standby) {
        (Mode::Normal, Some(principal), _) if principal.handing_over => {
            format!("{} is about to hand over; {waiting}", principal.member)
        }
        (Mode::Normal, Some(principal), _) => format!("{} serves; {sessions}", principal.member),
        (Mode::Normal | Mode::WithoutPrincipal { .. } | Mode::StandbyReads { .. }, _, None)
        | (Mode::Normal | Mode::WithoutPrincipal { .. }, _, Some(_)) => {
            format!("nobody serves; {waiting}")
        }
        (Mode::StandbyReads { .. }, _, Some(standby)) => format!(
            "nobody serves; {standby} answers statements that only read, the others wait: {waiting}"
        ),
        (Mode::Resiliency { .. }, _, Some(standby)) => format!(
            "Resiliency mode: {standby} answers statements that only read, all others are refused \
             at once; {sessions} affected"
        ),
        (Mode::Resiliency { .. }, _, None) => format!(
            "Resiliency mode: nobody serves and no standby can be read, so statements are refused \
             at once; {sessions} affected"
        ),
    }
}
