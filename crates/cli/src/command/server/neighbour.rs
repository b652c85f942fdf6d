//! The agent on this very server: what it says, and how it is told that its file has changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agent::config::Server;
use anyhow::Context as _;
use protocol::admin::{MemberStatus, Request, Response, SessionStatus};
use rustix::process::{Pid, Signal, kill_process};

use crate::admin::{self, AskError};
use crate::clock;
use crate::deployment::MemberEntry;
use crate::output::hinted;

const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Neighbour {
    deployment: String,
    entry: MemberEntry,
}

impl Neighbour {
    /// The agent that runs, or would, with this configuration.
    pub fn of(server: &Server) -> Neighbour {
        let mut address = server.process.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let entry = MemberEntry { name: server.process.name.clone(), address: address.to_string() };
        Neighbour { deployment: server.process.deployment.clone(), entry }
    }

    /// `None`: it does not run, or does not answer.
    pub async fn look(&self) -> Option<MemberStatus> {
        let looked = admin::look(&self.deployment, &self.entry, admin::LOOK_DEADLINE).await;
        looked.ok()
    }

    /// What the agent answers to a change.
    pub async fn ask(&self, request: &Request) -> Result<Response, AskError> {
        admin::ask(&self.deployment, &self.entry, request, admin::CREATE_DEADLINE).await
    }

    /// Waits until the agent shows what is wanted of it.
    pub async fn wait(
        &self,
        what: &str,
        patience: Duration,
        good: impl Fn(Option<&MemberStatus>) -> bool,
    ) -> anyhow::Result<Option<MemberStatus>> {
        let deadline = clock::now() + patience;
        loop {
            let status = self.look().await;
            if good(status.as_ref()) {
                return Ok(status);
            }
            if clock::now() > deadline {
                return Err(hinted(
                    format!("after {} s still not so: {what}", patience.as_secs()),
                    format!(
                        "see the log of the agent {}; then give this command again",
                        self.entry.name
                    ),
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub fn session_of<'a>(status: &'a MemberStatus, pool: &str) -> Option<&'a SessionStatus> {
    status.sessions.iter().find(|session| session.pool == pool)
}

/// Has a running agent read its file again.
pub fn reload(status: &MemberStatus) -> anyhow::Result<()> {
    let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("the agent has no process id")?;
    kill_process(pid, Signal::HUP).context("tell the agent that its file has changed")
}
