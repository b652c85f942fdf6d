//! What counts where the document is silent.
//!
//! The order is always the same: what the pool says, then what the server says, then `defaults`,
//! then the value here. Rules and derived configurations both ask here, so that they agree.

use std::collections::BTreeMap;
use std::time::Duration;

use session::Timing;

use crate::document::{Document, FrontEnd, Pool, Server, Times, Witness};
use crate::place::Placed;

pub const MEMBER_PORT: u16 = 7022;
pub const POSTGRES_PORT: u16 = 5432;
pub const FRONT_END_PORT: u16 = 6432;
pub const ADMIN_PORT: u16 = 7023;
pub const ROOT: &str = "/srv/backstay";
pub const STATE_DIR: &str = "/var/lib/backstay";
pub const SOCKET_DIR: &str = "/run/postgresql";
pub const OS_USER: &str = "postgres";
pub const POSTGRES_LISTEN: &str = "*";
pub const SLOT_WAL_KEEP: &str = "1GB";
pub const SERVER_CONNECTIONS: u32 = 90;
pub const CLIENTS: u32 = 10_000;
pub const HOLD_S: u32 = 60;
pub const STANDBY_READS_AFTER_S: u32 = 10;
pub const RESILIENCY_AFTER_S: u32 = 30 * 60;
pub const DRAIN_MS: u32 = 1_000;

/// How a pool's back end is kept available.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Mirroring,
    Clustering,
    None,
}

impl Method {
    pub const ALL: [Method; 3] = [Method::Mirroring, Method::Clustering, Method::None];

    pub fn name(self) -> &'static str {
        match self {
            Method::Mirroring => "mirroring",
            Method::Clustering => "clustering",
            Method::None => "none",
        }
    }
}

/// The three sets of times, by name.
pub fn profile(name: &str) -> Option<Timing> {
    match name {
        "fast" => Some(Timing::FAST),
        "standard" => Some(Timing::STANDARD),
        "tolerant" => Some(Timing::TOLERANT),
        _ => None,
    }
}

impl Pool {
    /// `None` if what is written is no method.
    pub fn method(&self) -> Option<Method> {
        match &self.method {
            None if self.table.is_broken("method") => None,
            None => Some(Method::Mirroring),
            Some(written) => Method::ALL.into_iter().find(|method| method.name() == written.value),
        }
    }

    /// The names of its servers, the first principal first.
    pub fn partners(&self) -> impl Iterator<Item = &Placed<String>> {
        self.principal.iter().chain(&self.mirror)
    }

    /// PostgreSQL's port on one of its servers.
    pub fn port_at(&self, server: &str) -> u16 {
        let own = self.port_on.iter().find(|(name, _)| name.value == server);
        own.map_or_else(
            || self.port.as_ref().map_or(POSTGRES_PORT, |port| port.value),
            |(_, port)| port.value,
        )
    }
}

impl Server {
    pub fn member_port(&self) -> u16 {
        self.port.as_ref().map_or(MEMBER_PORT, |port| port.value)
    }

    pub fn state_dir(&self) -> &str {
        self.state_dir.as_ref().map_or(STATE_DIR, |dir| dir)
    }
}

impl Witness {
    pub fn member_port(&self) -> u16 {
        self.port.as_ref().map_or(MEMBER_PORT, |port| port.value)
    }
}

impl Document {
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name.value == name)
    }

    pub fn witness(&self, name: &str) -> Option<&Witness> {
        self.witnesses.iter().find(|witness| witness.name.value == name)
    }

    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name.value == name)
    }

    /// Pools of one method.
    pub fn pools_by(&self, method: Method) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |pool| pool.method() == Some(method))
    }

    /// The name of a mirrored pool's witness, wherever it is written.
    pub fn witness_of<'a>(&'a self, pool: &'a Pool) -> Option<&'a Placed<String>> {
        if pool.method() != Some(Method::Mirroring) {
            return pool.witness.as_ref().filter(|name| !name.is_empty());
        }
        let named = match &pool.witness {
            Some(name) => Some(name),
            None if pool.table.is_broken("witness") => None,
            None => self.defaults.witness.as_ref(),
        };
        named.filter(|name| !name.is_empty())
    }

    pub fn profile_of<'a>(&'a self, pool: &'a Pool) -> &'a str {
        pool.profile.as_ref().or(self.defaults.profile.as_ref()).map_or("standard", |name| name)
    }

    /// The pool's times, one by one.
    pub fn times_of(&self, pool: &Pool) -> Times {
        let own = &pool.times;
        let all = &self.defaults.times;
        let pick = |own: &Option<Placed<u32>>, all: &Option<Placed<u32>>| {
            own.as_ref().or(all.as_ref()).cloned()
        };
        Times {
            table: own.table.clone(),
            heartbeat_ms: pick(&own.heartbeat_ms, &all.heartbeat_ms),
            lease_ms: pick(&own.lease_ms, &all.lease_ms),
            detection_ms: pick(&own.detection_ms, &all.detection_ms),
            partner_timeout_ms: pick(&own.partner_timeout_ms, &all.partner_timeout_ms),
            stop_margin_ms: pick(&own.stop_margin_ms, &all.stop_margin_ms),
            shutdown_timeout_ms: pick(&own.shutdown_timeout_ms, &all.shutdown_timeout_ms),
            handover_timeout_ms: pick(&own.handover_timeout_ms, &all.handover_timeout_ms),
            drain_ms: pick(&own.drain_ms, &all.drain_ms),
        }
    }

    /// The session's waits; `None` where the profile is unknown.
    pub fn timing_of(&self, pool: &Pool) -> Option<Timing> {
        let mut timing = profile(self.profile_of(pool))?;
        let times = self.times_of(pool);
        let set = |time: &mut Duration, written: &Option<Placed<u32>>| {
            if let Some(ms) = written {
                *time = Duration::from_millis(u64::from(ms.value));
            }
        };
        set(&mut timing.heartbeat, &times.heartbeat_ms);
        set(&mut timing.lease, &times.lease_ms);
        set(&mut timing.detection, &times.detection_ms);
        set(&mut timing.partner_timeout, &times.partner_timeout_ms);
        set(&mut timing.stop_margin, &times.stop_margin_ms);
        set(&mut timing.shutdown_timeout, &times.shutdown_timeout_ms);
        set(&mut timing.handover_timeout, &times.handover_timeout_ms);
        timing.vote_timeout = timing.heartbeat * 2;
        Some(timing)
    }

    pub fn client_access_of<'a>(&'a self, pool: &'a Pool) -> &'a [Placed<String>] {
        pool.client_access.as_ref().or(self.defaults.client_access.as_ref()).map_or(&[], |it| it)
    }

    /// PostgreSQL's settings of a pool on one server, with the places of their values.
    pub fn settings_at<'a>(
        &'a self,
        pool: &'a Pool,
        server: &str,
    ) -> BTreeMap<&'a str, &'a Placed<String>> {
        let here = pool.settings_on.iter().filter(|on| on.server.value == server);
        let all = self.defaults.settings.iter().chain(&pool.settings);
        all.chain(here.flat_map(|on| &on.settings))
            .map(|(name, value)| (name.as_str(), value))
            .collect()
    }

    /// The place under which a pool's files are on a server.
    pub fn root_of<'a>(&'a self, pool: &'a Pool, server: Option<&'a Server>) -> &'a str {
        let written = pool.root.as_ref().or(server.and_then(|server| server.root.as_ref()));
        written.or(self.defaults.root.as_ref()).map_or(ROOT, |root| root)
    }

    pub fn data_dir_of(&self, pool: &Pool, server: Option<&Server>) -> String {
        match &pool.data_dir {
            Some(dir) => dir.value.clone(),
            None => self.below_root(pool, server, "data"),
        }
    }

    pub fn files_dir_of(&self, pool: &Pool, server: Option<&Server>) -> String {
        match &pool.files_dir {
            Some(dir) => dir.value.clone(),
            None => self.below_root(pool, server, "backstay"),
        }
    }

    fn below_root(&self, pool: &Pool, server: Option<&Server>, what: &str) -> String {
        let root = self.root_of(pool, server).trim_end_matches('/');
        format!("{root}/{}/{what}", pool.name)
    }

    pub fn os_user_of<'a>(&'a self, server: &'a Server) -> &'a str {
        server.os_user.as_ref().or(self.defaults.os_user.as_ref()).map_or(OS_USER, |user| user)
    }

    pub fn pg_bin_dir_of<'a>(&'a self, server: &'a Server) -> Option<&'a Placed<String>> {
        server.pg_bin_dir.as_ref().or(self.defaults.pg_bin_dir.as_ref())
    }

    pub fn front_end_port(&self, front_end: &FrontEnd) -> u16 {
        let all = &self.defaults.front_end.port;
        front_end.options.port.as_ref().or(all.as_ref()).map_or(FRONT_END_PORT, |port| port.value)
    }

    pub fn admin_port(&self, front_end: &FrontEnd) -> u16 {
        let all = &self.defaults.front_end.admin_port;
        front_end.options.admin_port.as_ref().or(all.as_ref()).map_or(ADMIN_PORT, |port| port.value)
    }

    /// A number of a Front End, from its own table, the defaults, or `otherwise`.
    pub fn front_end_number(
        &self,
        front_end: &FrontEnd,
        pick: fn(&crate::document::FrontEndOptions) -> &Option<Placed<u32>>,
        otherwise: u32,
    ) -> u32 {
        let all = pick(&self.defaults.front_end);
        pick(&front_end.options).as_ref().or(all.as_ref()).map_or(otherwise, |it| it.value)
    }
}
