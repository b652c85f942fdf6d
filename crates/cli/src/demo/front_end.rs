//! The demo's Front End: its configuration, a certificate of its own, and whether it serves.
//!
//! The certificate is made once and signed by nobody: clients get TLS that hides what they say
//! (`sslmode=require`), and can check the address only if they are given this certificate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use gateway::config::{
    FrontEndFile, Limits, LoweredCommit, Pooling, Replication, ServerAddress, ServerTls, Times,
    TlsFiles,
};
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_postgres::NoTls;

use super::plan::{HOST, Kind, MemberFiles, POOL, Plan, ServerPlan};
use super::supervise::agent;
use super::{setup, status};
use crate::clock;

/// The pool is served by now: what is left is to look up one user, and to log in.
const SERVE_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Writes what the Front End reads.
pub fn files(dir: &Path, plan: &Plan, member: &MemberFiles) -> anyhow::Result<()> {
    certificate(member)?;
    setup::write_toml(&member.config(), &config(dir, plan, member))
}

/// Made at the first start; the key comes last, so that half a pair is made anew.
fn certificate(member: &MemberFiles) -> anyhow::Result<()> {
    if member.key().exists() && member.certificate().exists() {
        return Ok(());
    }
    let names = vec![HOST.to_string(), "localhost".to_owned()];
    let mut wanted = CertificateParams::new(names).context("make a certificate")?;
    wanted.distinguished_name.push(DnType::CommonName, format!("Backstay demo, {}", member.name));
    let key = KeyPair::generate().context("make a key")?;
    let made = wanted.self_signed(&key).context("make a certificate")?;
    fs::write(member.certificate(), made.pem())
        .with_context(|| format!("write {}", member.certificate().display()))?;
    setup::write_private(&member.key(), &key.serialize_pem())
}

fn config(dir: &Path, plan: &Plan, member: &MemberFiles) -> FrontEndFile {
    let server = |server: &ServerPlan| ServerAddress {
        name: server.name.clone(),
        address: format!("{HOST}:{}", server.member_port),
    };
    FrontEndFile {
        name: member.name.clone(),
        deployment: plan.deployment().name,
        pool: POOL.to_owned(),
        listen: format!("{HOST}:{}", member.front_end_port.unwrap_or_default()),
        admin_listen: format!("{HOST}:{}", member.member_port),
        state_dir: member.state_dir(),
        first: server(&plan.servers[0]),
        second: server(&plan.servers[1]),
        password_file: setup::front_end_password_file(dir),
        tls: Some(TlsFiles { certificate: member.certificate(), key: member.key() }),
        server_tls: ServerTls::default(),
        pooling: Pooling::default(),
        replication: Replication::default(),
        lowered_commit: LoweredCommit::default(),
        trust: Vec::new(),
        limits: Limits::default(),
        times: Times::default(),
    }
}

/// Waits until a client can log in through the Front End; otherwise it says why not. That is no
/// failure: the pool is served, and its servers can be reached directly.
pub async fn wait_until_it_serves(dir: &Path, plan: &Plan) -> Option<String> {
    let strings = plan.front_end_strings()?;
    let member = plan.members(dir).into_iter().find(|one| one.kind == Kind::FrontEnd)?;
    let deadline = clock::now() + SERVE_DEADLINE;
    loop {
        let attempt = tokio_postgres::connect(&strings.uri, NoTls);
        let problem = match tokio::time::timeout(SERVE_DEADLINE, attempt).await {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => "no answer".to_owned(),
        };
        if agent(&member).is_none() {
            let log = status::tail(&member.log(), 5).unwrap_or_default();
            return Some(format!("the Front End {} ended:\n{log}", member.name));
        }
        if clock::now() > deadline {
            return Some(format!(
                "the Front End {} lets nobody in yet: {problem}; its log: {}",
                member.name,
                member.log().display()
            ));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
