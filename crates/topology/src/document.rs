//! The document of a deployment, as it is written.
//!
//! Every value knows its place. What is absent is `None` here; `resolve` says what then counts.
//! The texts on the fields are what editors show: they are the descriptions of the JSON Schema and
//! of the page of all fields. Whatever the fields could hold that makes no sense is found by the
//! rules in `check`, not here.

use schemars::JsonSchema;

use crate::place::{Placed, Table};

/// The format that this version reads and writes.
pub const FORMAT: i64 = 1;

type Text = Placed<String>;

/// The topology of a deployment.
#[derive(Clone, PartialEq, Eq, Default, Debug, JsonSchema)]
#[schemars(deny_unknown_fields, title = "Backstay topology")]
pub struct Document {
    #[schemars(skip)]
    pub table: Table,
    /// The format of this document: 1.
    #[schemars(required, extend("const" = 1))]
    pub format: Option<Placed<i64>>,
    /// The name of the deployment. Processes of another deployment are refused.
    pub deployment: Text,
    /// The pool whose back end holds the Central Management store: the published documents.
    #[schemars(required)]
    pub central_management: Option<Text>,
    /// Values for all pools and servers that do not say otherwise.
    #[schemars(default)]
    pub defaults: Defaults,
    /// Places that fail together: a building, a data centre.
    #[schemars(rename = "site", default)]
    pub sites: Vec<Site>,
    /// Back-end servers: machines with an agent that owns PostgreSQL servers.
    #[schemars(rename = "server", default)]
    pub servers: Vec<Server>,
    /// Witnesses: machines with the third vote of any number of pools.
    #[schemars(rename = "witness", default)]
    pub witnesses: Vec<Witness>,
    /// Pools: what applications connect to; each has one back end.
    #[schemars(rename = "pool", default)]
    pub pools: Vec<Pool>,
}

/// Values for all pools and servers that do not say otherwise.
#[derive(Clone, PartialEq, Eq, Default, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Defaults {
    #[schemars(skip)]
    pub table: Table,
    /// See the pool's `profile`.
    #[schemars(extend("enum" = ["fast", "standard", "tolerant"]))]
    pub profile: Option<Text>,
    /// The witness of each mirrored pool that names none.
    pub witness: Option<Text>,
    /// A pool's files go to ROOT/POOL/data and ROOT/POOL/backstay. Default: /srv/backstay.
    pub root: Option<Text>,
    /// See the pool's `client_access`.
    pub client_access: Option<Vec<Text>>,
    /// PostgreSQL's settings for all pools; a pool's own go above them, one by one.
    #[schemars(with = "std::collections::BTreeMap<String, Setting>", default)]
    pub settings: Vec<(Text, Text)>,
    /// Times for all pools; a pool's own go above them, one by one.
    #[schemars(default)]
    pub times: Times,
    /// Values for all Front Ends.
    #[schemars(default)]
    pub front_end: FrontEndOptions,
    /// The user that PostgreSQL runs as. Default: postgres.
    pub os_user: Option<Text>,
    /// Where `postgres` is. Default: the agent finds it.
    pub pg_bin_dir: Option<Text>,
}

/// A place that fails as a whole.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Site {
    #[schemars(skip)]
    pub table: Table,
    /// Its name.
    pub name: Text,
    /// For people.
    pub description: Option<Text>,
}

/// A machine with an agent.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Server {
    #[schemars(skip)]
    pub table: Table,
    /// Its name: the one in its certificate and in its own configuration file.
    pub name: Text,
    /// Host name or IP address, the same for members, clients and Front Ends.
    pub host: Text,
    /// The site it stands in.
    pub site: Option<Text>,
    /// Where its agent listens for members and commands. Default: 7022.
    pub port: Option<Placed<u16>>,
    /// The user that PostgreSQL runs as here. Default: that of `defaults`.
    pub os_user: Option<Text>,
    /// Where `postgres` is on this server. Default: that of `defaults`.
    pub pg_bin_dir: Option<Text>,
    /// The addresses that PostgreSQL listens at here, separated by commas. Default: "*", all.
    pub postgres_listen: Option<Text>,
    /// Where this server's pools have their files, instead of the `root` of `defaults`.
    pub root: Option<Text>,
    /// The agent's state directory, as its own file says; only checked here. Default:
    /// /var/lib/backstay.
    pub state_dir: Option<Text>,
}

/// A machine with a witness.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Witness {
    #[schemars(skip)]
    pub table: Table,
    /// Its name: the one in its certificate and in its own configuration file.
    pub name: Text,
    /// Host name or IP address.
    pub host: Text,
    /// The site it stands in.
    pub site: Option<Text>,
    /// Where it listens for members and commands. Default: 7022.
    pub port: Option<Placed<u16>>,
}

/// A pool: a back end, its databases, and the Front Ends before it.
#[derive(Clone, PartialEq, Eq, Default, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pool {
    #[schemars(skip)]
    pub table: Table,
    /// Its name.
    pub name: Text,
    /// How its back end is kept available: `mirroring` (two servers, synchronously), `clustering`
    /// (a cluster on shared storage that its own tools set up) or `none` (one server). Default:
    /// mirroring.
    #[schemars(extend("enum" = ["mirroring", "clustering", "none"]))]
    pub method: Option<Text>,
    /// The server that is principal after the first set-up; with method `none` the only one.
    pub principal: Option<Text>,
    /// The server that is mirror after the first set-up.
    pub mirror: Option<Text>,
    /// The witness: with it, failover is automatic. Default: that of `defaults`; "" is none.
    pub witness: Option<Text>,
    /// Further witnesses that this one may be replaced with by command.
    pub spare_witnesses: Option<Vec<Text>>,
    /// PostgreSQL's port on both servers. Default: 5432.
    pub port: Option<Placed<u16>>,
    /// PostgreSQL's port on one server where it differs, by the server's name.
    #[schemars(with = "std::collections::BTreeMap<String, u16>", default)]
    pub port_on: Vec<(Text, Placed<u16>)>,
    /// The pool that stands in for this one when its site is lost; it must name this one as well.
    pub pair: Option<Text>,
    /// This pool holds the user store: rtcxds, rtcshared and rtcab. Default: false.
    pub users: Option<Placed<bool>>,
    /// Applications that bring databases: `response-group` (rgsconfig, rgsdyn) and `call-park`
    /// (cpsdyn).
    #[schemars(with = "Option<Vec<Application>>")]
    pub applications: Option<Vec<Text>>,
    /// Its times as a set: `fast`, `standard` or `tolerant`. Default: standard.
    #[schemars(extend("enum" = ["fast", "standard", "tolerant"]))]
    pub profile: Option<Text>,
    /// Times that differ from the profile's.
    #[schemars(default)]
    pub times: Times,
    /// PostgreSQL's settings, on both servers.
    #[schemars(with = "std::collections::BTreeMap<String, Setting>", default)]
    pub settings: Vec<(Text, Text)>,
    /// PostgreSQL's settings on one server where they differ, by the server's name.
    #[schemars(
        with = "std::collections::BTreeMap<String, std::collections::BTreeMap<String, Setting>>",
        default
    )]
    pub settings_on: Vec<ServerSettings>,
    /// Lines of `pg_hba.conf` for clients. Default: those of `defaults`; without them everybody by
    /// scram-sha-256.
    pub client_access: Option<Vec<Text>>,
    /// Where this pool's files go, as ROOT/POOL/data and ROOT/POOL/backstay, on both servers.
    pub root: Option<Text>,
    /// PostgreSQL's data directory. Default: ROOT/POOL/data.
    pub data_dir: Option<Text>,
    /// Backstay's own files about this PostgreSQL. Default: ROOT/POOL/backstay.
    pub files_dir: Option<Text>,
    /// For PostgreSQL's Unix socket. Default: /run/postgresql.
    pub socket_dir: Option<Text>,
    /// Locale of a new database cluster. Default: C.UTF-8 where the system has it.
    pub locale: Option<Text>,
    /// The most WAL that a principal keeps for an absent mirror, with unit. Default: 1GB.
    pub slot_wal_keep: Option<Text>,
    /// Method `clustering`: where the cluster is.
    pub cluster: Option<Cluster>,
    /// Databases of this pool, besides those that applications and stores bring.
    #[schemars(rename = "database", default)]
    pub databases: Vec<Database>,
    /// Front Ends of this pool.
    #[schemars(rename = "front_end", default)]
    pub front_ends: Vec<FrontEnd>,
}

/// PostgreSQL's settings on one server of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSettings {
    pub server: Text,
    pub settings: Vec<(Text, Text)>,
}

/// A cluster on shared storage. Its own tools set it up and fail it over; Backstay watches it and
/// leads clients to it.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cluster {
    #[schemars(skip)]
    pub table: Table,
    /// Its virtual host name or address: the one that follows the active server.
    pub name: Text,
    /// PostgreSQL's port there. Default: 5432.
    pub port: Option<Placed<u16>>,
}

/// A database.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Database {
    #[schemars(skip)]
    pub table: Table,
    /// Its name.
    pub name: Text,
    /// The role that owns it; made if missing. Default: the database's name.
    pub owner: Option<Text>,
    /// What it is for, in a few words for people.
    pub purpose: Option<Text>,
    /// An SQL file beside the document, applied once after the database was made.
    pub schema: Option<Text>,
}

/// A Front End of a pool.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FrontEnd {
    #[schemars(skip)]
    pub table: Table,
    /// Its name: the one in its certificate and in its own configuration file.
    pub name: Text,
    /// Host name or IP address.
    pub host: Text,
    /// The site it stands in.
    pub site: Option<Text>,
    #[schemars(flatten)]
    pub options: FrontEndOptions,
}

/// What a Front End and the defaults for Front Ends may both say.
#[derive(Clone, PartialEq, Eq, Default, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FrontEndOptions {
    #[schemars(skip)]
    pub table: Table,
    /// Where clients connect. Default: 6432.
    pub port: Option<Placed<u16>>,
    /// Where commands ask for its status. Default: 7023.
    pub admin_port: Option<Placed<u16>>,
    /// How long a client session keeps its server connection: `session` or `transaction`.
    /// Default: session.
    #[schemars(extend("enum" = ["session", "transaction"]))]
    pub pooling: Option<Text>,
    /// Replication connections: `refuse` or `pass`. Default: refuse.
    #[schemars(extend("enum" = ["refuse", "pass"]))]
    pub replication: Option<Text>,
    /// A client that sets `synchronous_commit` below `on`: `refuse` or `warn`. Default: refuse.
    #[schemars(extend("enum" = ["refuse", "warn"]))]
    pub lowered_commit: Option<Text>,
    /// Client sessions in all. Default: 10000.
    pub clients: Option<Placed<u32>>,
    /// Server connections in all. Default: 90.
    pub server_connections: Option<Placed<u32>>,
    /// How long a statement or a log-in waits for a principal, in seconds. Default: 60.
    pub hold_s: Option<Placed<u32>>,
    /// How long without a principal until a surviving copy answers what only reads, in seconds.
    /// Default: 10.
    pub standby_reads_after_s: Option<Placed<u32>>,
    /// How long without a principal until Resiliency mode, in seconds. Default: 1800.
    pub resiliency_after_s: Option<Placed<u32>>,
    /// How long client sessions may go on after this process was replaced, in seconds; 0: for
    /// ever. Default: 0.
    pub drain_s: Option<Placed<u32>>,
    /// The certificate for clients, PEM, on the Front End's machine. Default: clients are offered
    /// no TLS.
    pub tls_certificate: Option<Text>,
    /// The key of `tls_certificate`, PEM, on the Front End's machine.
    pub tls_key: Option<Text>,
}

/// Times that differ from the profile's, in milliseconds.
#[derive(Clone, PartialEq, Eq, Default, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Times {
    #[schemars(skip)]
    pub table: Table,
    /// Time between two signs of life.
    pub heartbeat_ms: Option<Placed<u32>>,
    /// How long an answered heartbeat lets its sender serve.
    pub lease_ms: Option<Placed<u32>>,
    /// Silence of the principal after which its mirror stands. At least the lease and 10 % more.
    pub detection_ms: Option<Placed<u32>>,
    /// Silence after which the mirror counts as lost, and the pool goes on exposed.
    pub partner_timeout_ms: Option<Placed<u32>>,
    /// How long before the end of its lease a principal begins to stop.
    pub stop_margin_ms: Option<Placed<u32>>,
    /// How long the clean shutdown of a manual failover may take.
    pub shutdown_timeout_ms: Option<Placed<u32>>,
    /// How long the old principal waits for its mirror in a manual failover.
    pub handover_timeout_ms: Option<Placed<u32>>,
    /// How long a manual failover waits for the transactions of Front Ends; 0: not at all.
    /// Default: 1000.
    pub drain_ms: Option<Placed<u32>>,
}

/// A setting's value: a text, a whole number or a truth value; units in the text.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it describes what is read as text")]
enum Setting {
    Text(String),
    Number(i64),
    Real(f64),
    Truth(bool),
}

/// An application that brings databases.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it describes what is read as text")]
enum Application {
    ResponseGroup,
    CallPark,
}

impl Default for Text {
    fn default() -> Text {
        Placed::new(String::new(), 0..0)
    }
}

/// The JSON Schema of the document, for editors.
pub fn schema() -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft07()
        .with_transform(schemars::transform::RecursiveTransform(without_null));
    settings.into_generator().into_root_schema_for::<Document>().to_value()
}

/// TOML has no null: an optional field is absent.
fn without_null(schema: &mut schemars::Schema) {
    let is_null = |kind: &serde_json::Value| kind["type"] == "null";
    if let Some(kinds) = schema.remove("anyOf") {
        let kinds = kinds.as_array().into_iter().flatten().filter(|kind| !is_null(kind));
        let kinds: Vec<_> = kinds.cloned().collect();
        let key = if kinds.len() == 1 { "allOf" } else { "anyOf" };
        schema.insert(key.to_owned(), kinds.into());
    }
    let Some(types) = schema.get("type").and_then(|types| types.as_array()) else { return };
    let types: Vec<_> = types.iter().filter(|kind| *kind != "null").cloned().collect();
    if let [only] = types.as_slice() {
        schema.insert("type".to_owned(), only.clone());
    }
}
