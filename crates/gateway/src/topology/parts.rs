//! From a document to the configuration of this Front End: what its own file could have said.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use topology::Checked;
use topology::derive::{self, BackEnd};

use crate::config::{
    FrontEndFile, Limits, LoweredCommit, OwnFile, Pooling, Replication, ServerAddress, ServerTls,
    Times, TlsFiles,
};

/// The configuration that `document` wants of the Front End with the file `own`; `None` if it does
/// not name it.
///
/// # Errors
/// What is wanted cannot be done here.
pub(super) fn wanted(own: &OwnFile, document: &Checked) -> Result<Option<FrontEndFile>, String> {
    let Some(parts) = document.front_end_parts(&own.name) else { return Ok(None) };
    let (first, second) = match &parts.back_end {
        BackEnd::Servers { first, second } => (server(first), second.as_ref().map(server)),
        BackEnd::Cluster { .. } => {
            return Err(format!(
                "pool {} is a cluster, and this version leads clients to mirrored pools only",
                parts.pool
            ));
        }
    };
    let is_local = parts.host == "localhost"
        || parts.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let everywhere = if is_local { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
    let listen = SocketAddr::from((everywhere, parts.port)).to_string();
    let ms = |seconds: u32| u64::from(seconds) * 1_000;
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Some(FrontEndFile {
        name: own.name.clone(),
        deployment: own.deployment.clone(),
        pool: parts.pool.clone(),
        listen: own.listen.clone().unwrap_or(listen),
        admin_listen: own.admin_listen.clone(),
        state_dir: own.state_dir.clone(),
        first,
        second: second.unwrap_or_else(ServerAddress::none),
        password_file: own.password_file(),
        tls: parts.tls.map(|(certificate, key)| TlsFiles {
            certificate: PathBuf::from(certificate),
            key: PathBuf::from(key),
        }),
        server_tls: ServerTls::default(),
        pooling: match parts.pooling.as_str() {
            "transaction" => Pooling::Transaction,
            _session => Pooling::Session,
        },
        replication: match parts.replication.as_str() {
            "pass" => Replication::Pass,
            _refuse => Replication::Refuse,
        },
        lowered_commit: match parts.lowered_commit.as_str() {
            "warn" => LoweredCommit::Warn,
            _refuse => LoweredCommit::Refuse,
        },
        trust: own.trust.clone(),
        limits: Limits {
            clients: count(parts.clients),
            server_connections: count(parts.server_connections),
            held: count(parts.clients),
            ..Limits::default()
        },
        times: Times {
            hold_ms: ms(parts.hold_s),
            standby_reads_after_ms: ms(parts.standby_reads_after_s),
            resiliency_after_ms: ms(parts.resiliency_after_s),
            drain_ms: ms(parts.drain_s),
            ..Times::default()
        },
    }))
}

/// The agents of the pool that holds the Central Management store: names, and where they listen.
pub(super) fn store_partners(document: &Checked) -> Vec<ServerAddress> {
    let pool = document.central_management.as_ref().and_then(|name| document.pool(name));
    let servers = pool.into_iter().flat_map(topology::document::Pool::partners);
    let servers = servers.filter_map(|name| document.server(name));
    let addresses = servers.map(|server| ServerAddress {
        name: server.name.value.clone(),
        address: at(&server.host, server.member_port()),
    });
    addresses.collect()
}

fn server(partner: &derive::Partner) -> ServerAddress {
    let agent = &partner.agent;
    ServerAddress { name: agent.name.clone(), address: at(&agent.host, agent.port) }
}

/// host:port, with an IPv6 address in brackets.
fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
