//! What each process needs to know of a checked document.
//!
//! Pure functions: the same document gives the same values, whoever asks. A process derives its
//! own part from its own copy. First and second of a pool are the principal and the mirror as
//! written, and stay so whoever serves: roles are decided by the session, not here.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalogue::brought_to;
use crate::check::Checked;
use crate::document::{FrontEnd, FrontEndOptions, Pool, Server};
use crate::place::Placed;
use crate::resolve::{
    CLIENTS, DRAIN_MS, HOLD_S, Method, POSTGRES_LISTEN, POSTGRES_PORT, RESILIENCY_AFTER_S,
    SERVER_CONNECTIONS, SLOT_WAL_KEEP, SOCKET_DIR, STANDBY_READS_AFTER_S,
};

/// Where a process listens for members and commands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Address {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A partner of a pool: its agent, and its PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Partner {
    pub agent: Address,
    pub postgres_port: u16,
}

/// All that one server's agent does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerParts {
    pub deployment: String,
    pub me: Address,
    pub os_user: String,
    /// `None`: the agent finds it.
    pub pg_bin_dir: Option<String>,
    pub parts: Vec<ServerPart>,
}

/// One pool on one server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerPart {
    pub pool: String,
    pub profile: String,
    pub times: Times,
    /// The principal of the first set-up.
    pub first: Partner,
    /// `None`: the pool has one server.
    pub second: Option<Partner>,
    pub witness: Option<Address>,
    pub spare_witnesses: Vec<Address>,
    pub data_dir: String,
    pub files_dir: String,
    pub socket_dir: String,
    /// `listen_addresses` while clients or the partner may come.
    pub postgres_listen: String,
    pub locale: Option<String>,
    pub slot_wal_keep: String,
    pub settings: BTreeMap<String, String>,
    /// Empty: everybody by scram-sha-256.
    pub client_access: Vec<String>,
    /// Those that are brought first, then the document's own, as written.
    pub databases: Vec<Database>,
    /// The names of its Front Ends.
    pub front_ends: Vec<String>,
    /// This pool holds the Central Management store.
    pub holds_store: bool,
}

/// A database of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Database {
    pub name: String,
    pub owner: String,
    pub purpose: Option<String>,
    /// An SQL file beside the document, applied once.
    pub schema: Option<String>,
    pub source: Option<crate::catalogue::Source>,
}

/// Times that differ from the profile's, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Times {
    pub heartbeat_ms: Option<u32>,
    pub lease_ms: Option<u32>,
    pub detection_ms: Option<u32>,
    pub partner_timeout_ms: Option<u32>,
    pub stop_margin_ms: Option<u32>,
    pub shutdown_timeout_ms: Option<u32>,
    pub handover_timeout_ms: Option<u32>,
    pub drain_ms: u32,
}

/// All that one witness does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WitnessParts {
    pub deployment: String,
    pub me: Address,
    pub sessions: Vec<WitnessSession>,
}

/// One session that a witness votes in, or may come to vote in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WitnessSession {
    pub pool: String,
    pub profile: String,
    pub times: Times,
    pub first: Address,
    pub second: Address,
    /// False: it is a spare one.
    pub is_wanted: bool,
}

/// A Front End's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FrontEndParts {
    pub deployment: String,
    pub name: String,
    pub pool: String,
    pub host: String,
    pub port: u16,
    pub admin_port: u16,
    pub back_end: BackEnd,
    pub pooling: String,
    pub replication: String,
    pub lowered_commit: String,
    pub clients: u32,
    pub server_connections: u32,
    pub hold_s: u32,
    pub standby_reads_after_s: u32,
    pub resiliency_after_s: u32,
    pub drain_s: u32,
    /// Certificate and key, on the Front End's machine.
    pub tls: Option<(String, String)>,
}

/// What a Front End leads its clients to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackEnd {
    /// The agents that tell who serves: first and second, or one.
    Servers { first: Partner, second: Option<Partner> },
    /// A cluster: its virtual name and PostgreSQL's port.
    Cluster { host: String, port: u16 },
}

/// What commands need to find everybody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Deployment {
    pub name: String,
    pub central_management: String,
    pub servers: Vec<Address>,
    pub witnesses: Vec<Address>,
    pub pools: Vec<PoolEntry>,
    /// Where Front Ends listen for commands.
    pub front_ends: Vec<FrontEndEntry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PoolEntry {
    pub name: String,
    pub method: Method,
    pub first: Option<String>,
    pub second: Option<String>,
    pub witness: Option<String>,
    pub pair: Option<String>,
    pub profile: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FrontEndEntry {
    pub pool: String,
    pub address: Address,
}

impl Checked {
    /// What the agent of the server `name` does; `None` if the document has no such server.
    pub fn server_parts(&self, name: &str) -> Option<ServerParts> {
        let server = self.server(name)?;
        let parts = self.pools.iter().filter(|pool| {
            pool.method() != Some(Method::Clustering)
                && pool.partners().any(|partner| partner.value == name)
        });
        Some(ServerParts {
            deployment: self.deployment.value.clone(),
            me: server_address(server),
            os_user: self.os_user_of(server).to_owned(),
            pg_bin_dir: self.pg_bin_dir_of(server).map(|dir| dir.value.clone()),
            parts: parts.filter_map(|pool| self.server_part(pool, server)).collect(),
        })
    }

    fn server_part(&self, pool: &Pool, server: &Server) -> Option<ServerPart> {
        let settings = self.settings_at(pool, &server.name);
        let settings =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.value.clone()));
        let text = |value: &Option<Placed<String>>| value.as_ref().map(|value| value.value.clone());
        let lines = self.client_access_of(pool).iter();
        let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
        Some(ServerPart {
            pool: pool.name.value.clone(),
            profile: self.profile_of(pool).to_owned(),
            times: self.derived_times(pool),
            first: self.partner(pool, pool.principal.as_ref()?)?,
            second: pool.mirror.as_ref().and_then(|mirror| self.partner(pool, mirror)),
            witness: self.witness_of(pool).and_then(|name| self.witness_address(name)),
            spare_witnesses: self.spare_witnesses(pool),
            data_dir: self.data_dir_of(pool, Some(server)),
            files_dir: self.files_dir_of(pool, Some(server)),
            socket_dir: text(&pool.socket_dir).unwrap_or_else(|| SOCKET_DIR.to_owned()),
            postgres_listen: text(&server.postgres_listen)
                .unwrap_or_else(|| POSTGRES_LISTEN.to_owned()),
            locale: text(&pool.locale),
            slot_wal_keep: text(&pool.slot_wal_keep).unwrap_or_else(|| SLOT_WAL_KEEP.to_owned()),
            settings: settings.collect(),
            client_access: lines.map(|line| line.value.clone()).collect(),
            databases: self.databases_of(pool),
            front_ends: pool.front_ends.iter().map(|it| it.name.value.clone()).collect(),
            holds_store: self.holds_store(pool),
        })
    }

    /// All databases of a pool, those that are brought first.
    pub fn databases_of(&self, pool: &Pool) -> Vec<Database> {
        let brought = brought_to(self, pool).into_iter().map(|brought| Database {
            name: brought.name.to_owned(),
            owner: brought.owner.to_owned(),
            purpose: Some(brought.purpose.to_owned()),
            schema: None,
            source: Some(brought.source),
        });
        let own = pool.databases.iter().map(|own| Database {
            name: own.name.value.clone(),
            owner: own.owner.as_ref().unwrap_or(&own.name).value.clone(),
            purpose: own.purpose.as_ref().map(|purpose| purpose.value.clone()),
            schema: own.schema.as_ref().map(|schema| schema.value.clone()),
            source: None,
        });
        brought.chain(own).collect()
    }

    /// What the witness `name` does; `None` if the document has no such witness.
    pub fn witness_parts(&self, name: &str) -> Option<WitnessParts> {
        let sessions = self.pools_by(Method::Mirroring).filter_map(|pool| {
            let is_wanted = self.witness_of(pool).is_some_and(|wanted| wanted.value == name);
            let mut spare = pool.spare_witnesses.iter().flatten();
            if !is_wanted && !spare.any(|spare| spare.value == name) {
                return None;
            }
            Some(WitnessSession {
                pool: pool.name.value.clone(),
                profile: self.profile_of(pool).to_owned(),
                times: self.derived_times(pool),
                first: self.partner(pool, pool.principal.as_ref()?)?.agent,
                second: self.partner(pool, pool.mirror.as_ref()?)?.agent,
                is_wanted,
            })
        });
        Some(WitnessParts {
            deployment: self.deployment.value.clone(),
            me: self.witness_address(name)?,
            sessions: sessions.collect(),
        })
    }

    /// What the Front End `name` does; `None` if the document has no such Front End.
    pub fn front_end_parts(&self, name: &str) -> Option<FrontEndParts> {
        let mut all = self
            .pools
            .iter()
            .flat_map(|pool| pool.front_ends.iter().map(move |front_end| (pool, front_end)));
        let (pool, front_end) = all.find(|(_, front_end)| front_end.name.value == name)?;
        let back_end = match &pool.cluster {
            Some(cluster) => BackEnd::Cluster {
                host: cluster.name.value.clone(),
                port: cluster.port.as_ref().map_or(POSTGRES_PORT, |port| port.value),
            },
            None => BackEnd::Servers {
                first: self.partner(pool, pool.principal.as_ref()?)?,
                second: pool.mirror.as_ref().and_then(|mirror| self.partner(pool, mirror)),
            },
        };
        Some(self.front_end_part(pool, front_end, back_end))
    }

    fn front_end_part(
        &self,
        pool: &Pool,
        front_end: &FrontEnd,
        back_end: BackEnd,
    ) -> FrontEndParts {
        let text = |pick: fn(&FrontEndOptions) -> &Option<Placed<String>>, otherwise: &str| {
            let written =
                pick(&front_end.options).as_ref().or(pick(&self.defaults.front_end).as_ref());
            written.map_or_else(|| otherwise.to_owned(), |text| text.value.clone())
        };
        let certificate = text(|options| &options.tls_certificate, "");
        FrontEndParts {
            deployment: self.deployment.value.clone(),
            name: front_end.name.value.clone(),
            pool: pool.name.value.clone(),
            host: front_end.host.value.clone(),
            port: self.front_end_port(front_end),
            admin_port: self.admin_port(front_end),
            back_end,
            pooling: text(|options| &options.pooling, "session"),
            replication: text(|options| &options.replication, "refuse"),
            lowered_commit: text(|options| &options.lowered_commit, "refuse"),
            clients: self.front_end_number(front_end, |options| &options.clients, CLIENTS),
            server_connections: self.front_end_number(
                front_end,
                |options| &options.server_connections,
                SERVER_CONNECTIONS,
            ),
            hold_s: self.front_end_number(front_end, |options| &options.hold_s, HOLD_S),
            standby_reads_after_s: self.front_end_number(
                front_end,
                |options| &options.standby_reads_after_s,
                STANDBY_READS_AFTER_S,
            ),
            resiliency_after_s: self.front_end_number(
                front_end,
                |options| &options.resiliency_after_s,
                RESILIENCY_AFTER_S,
            ),
            drain_s: self.front_end_number(front_end, |options| &options.drain_s, 0),
            tls: (!certificate.is_empty())
                .then(|| (certificate, text(|options| &options.tls_key, ""))),
        }
    }

    /// What commands need.
    pub fn deployment_parts(&self) -> Deployment {
        let witnesses = self.witnesses.iter();
        let pools = self.pools.iter().filter_map(|pool| {
            let text = |name: &Option<Placed<String>>| name.as_ref().map(|name| name.value.clone());
            Some(PoolEntry {
                name: pool.name.value.clone(),
                method: pool.method()?,
                first: text(&pool.principal),
                second: text(&pool.mirror),
                witness: self.witness_of(pool).map(|name| name.value.clone()),
                pair: text(&pool.pair),
                profile: self.profile_of(pool).to_owned(),
            })
        });
        let front_ends = self.pools.iter().flat_map(|pool| {
            pool.front_ends.iter().map(|front_end| FrontEndEntry {
                pool: pool.name.value.clone(),
                address: Address {
                    name: front_end.name.value.clone(),
                    host: front_end.host.value.clone(),
                    port: self.admin_port(front_end),
                },
            })
        });
        let store = self.central_management.as_ref();
        Deployment {
            name: self.deployment.value.clone(),
            central_management: store.map(|store| store.value.clone()).unwrap_or_default(),
            servers: self.servers.iter().map(server_address).collect(),
            witnesses: witnesses.filter_map(|it| self.witness_address(&it.name)).collect(),
            pools: pools.collect(),
            front_ends: front_ends.collect(),
        }
    }

    fn holds_store(&self, pool: &Pool) -> bool {
        self.central_management.as_ref() == Some(&pool.name)
    }

    fn partner(&self, pool: &Pool, name: &str) -> Option<Partner> {
        let server = self.server(name)?;
        Some(Partner { agent: server_address(server), postgres_port: pool.port_at(name) })
    }

    fn witness_address(&self, name: &str) -> Option<Address> {
        let witness = self.witness(name)?;
        Some(Address {
            name: witness.name.value.clone(),
            host: witness.host.value.clone(),
            port: witness.member_port(),
        })
    }

    fn spare_witnesses(&self, pool: &Pool) -> Vec<Address> {
        let wanted = self.witness_of(pool);
        let spare = pool.spare_witnesses.iter().flatten();
        let mut all: Vec<Address> = spare
            .filter(|name| Some(*name) != wanted)
            .filter_map(|name| self.witness_address(name))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn derived_times(&self, pool: &Pool) -> Times {
        let times = self.times_of(pool);
        let ms = |time: &Option<Placed<u32>>| time.as_ref().map(|time| time.value);
        Times {
            heartbeat_ms: ms(&times.heartbeat_ms),
            lease_ms: ms(&times.lease_ms),
            detection_ms: ms(&times.detection_ms),
            partner_timeout_ms: ms(&times.partner_timeout_ms),
            stop_margin_ms: ms(&times.stop_margin_ms),
            shutdown_timeout_ms: ms(&times.shutdown_timeout_ms),
            handover_timeout_ms: ms(&times.handover_timeout_ms),
            drain_ms: ms(&times.drain_ms).unwrap_or(DRAIN_MS),
        }
    }
}

fn server_address(server: &Server) -> Address {
    Address {
        name: server.name.value.clone(),
        host: server.host.value.clone(),
        port: server.member_port(),
    }
}
