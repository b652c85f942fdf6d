//! Faults: which processes a word means, and what is done to them.
//!
//! A role is looked up when the fault is played. `thaw principal` and `restart principal` mean the
//! host that `freeze principal` or `kill principal` hit, as long as it is still frozen or dead,
//! though another host is principal by now.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::plan::{Kind, MemberFiles, POOL, Plan};
use super::process::{Life, Process};
use super::supervise::{agent, family, kill_all, postmaster};
use super::{control, process};
use crate::admin;
use crate::output::hinted;

/// Which part of a member a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of its processes.
    Host,
    /// Its PostgreSQL alone.
    Postgres,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub member: MemberFiles,
    pub part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Kill,
    Freeze,
    Thaw,
    Restart,
}

const NOT_KNOWN: &str =
    "name principal, mirror, witness, server, front-end, or a member: be1, be2, wit1, fe1";

impl Target {
    pub fn host(member: MemberFiles) -> Target {
        Target { member, part: Part::Host }
    }

    pub fn postgres(member: MemberFiles) -> Target {
        Target { member, part: Part::Postgres }
    }

    /// What a person calls it.
    pub fn words(&self) -> String {
        match (self.part, self.member.kind) {
            (Part::Postgres, _) => format!("the PostgreSQL of {}", self.member.name),
            (Part::Host, Kind::Server) => {
                format!("{} (its agent and its PostgreSQL)", self.member.name)
            }
            (Part::Host, Kind::Witness | Kind::FrontEnd) => self.member.name.clone(),
        }
    }

    fn processes(&self) -> Vec<Process> {
        match self.part {
            Part::Host => family(&self.member),
            Part::Postgres => {
                let roots: Vec<Process> = postmaster(&self.member).into_iter().collect();
                process::with_descendants(&roots)
            }
        }
    }

    /// Ends its processes at once. Of PostgreSQL alone it is the postmaster that is killed: its
    /// children see that and end by themselves, as after any crash.
    pub fn kill(&self) -> anyhow::Result<usize> {
        let processes = match self.part {
            Part::Host => self.processes(),
            Part::Postgres => postmaster(&self.member).into_iter().collect(),
        };
        kill_all(&processes)?;
        Ok(processes.len())
    }

    /// Freezes its processes, and those that were started meanwhile.
    pub fn freeze(&self) -> anyhow::Result<usize> {
        for _ in 0..10 {
            let awake: Vec<Process> =
                self.processes().into_iter().filter(|one| one.life() == Life::Runs).collect();
            if awake.is_empty() {
                break;
            }
            awake.iter().try_for_each(|process| process.signal(Signal::STOP))?;
        }
        Ok(self.processes().len())
    }

    pub fn thaw(&self) -> anyhow::Result<usize> {
        let processes = self.processes();
        processes.iter().try_for_each(|process| process.signal(Signal::CONT))?;
        Ok(processes.len())
    }

    fn is_down(&self) -> bool {
        match self.part {
            Part::Host => agent(&self.member).is_none(),
            Part::Postgres => postmaster(&self.member).is_none(),
        }
    }

    fn is_frozen(&self) -> bool {
        self.processes().iter().any(|process| process.life() == Life::Frozen)
    }
}

/// The processes that `word` means for `deed`.
pub async fn resolve(dir: &Path, plan: &Plan, word: &str, deed: Deed) -> anyhow::Result<Target> {
    let members = plan.members(dir);
    let named = |name: &str| members.iter().find(|member| member.name == name).cloned();
    if let Some(member) = named(word) {
        return Ok(Target::host(member));
    }
    let part = if word == "server" { Part::Postgres } else { Part::Host };
    let hit = memory(dir).remove(word).and_then(|name| named(&name));
    if let Some(target) = hit.map(|member| Target { member, part }) {
        let still = match deed {
            Deed::Kill | Deed::Freeze => false,
            Deed::Thaw => target.is_frozen(),
            Deed::Restart => target.is_down() || target.is_frozen(),
        };
        if still {
            return Ok(target);
        }
    }
    let name = match word {
        "witness" => {
            plan.witness.as_ref().map(|witness| witness.name.clone()).ok_or_else(|| {
                hinted("this demo has no witness", "it was started with --without-witness")
            })?
        }
        "front-end" => {
            plan.front_end.as_ref().map(|front_end| front_end.name.clone()).ok_or_else(|| {
                hinted("this demo has no Front End yet", "it gets one when it is started again")
            })?
        }
        "principal" | "mirror" | "server" => partner(plan, word).await?,
        _ => return Err(hinted(format!("{word:?} is nothing in this demo"), NOT_KNOWN)),
    };
    let member = named(&name).ok_or_else(|| hinted(format!("no member {name:?}"), NOT_KNOWN))?;
    remember(dir, word, &name);
    Ok(Target { member, part })
}

async fn partner(plan: &Plan, word: &str) -> anyhow::Result<String> {
    let deployment = plan.deployment();
    let picture = admin::picture(&deployment, deployment.pool(POOL)?).await?;
    let found = match word {
        "mirror" => picture.mirror,
        _ => picture.principal,
    };
    found.ok_or_else(|| {
        hinted(
            format!("nobody serves right now, so nobody is {word}"),
            "wait until somebody serves (backstay pool status), or name the member: be1 or be2",
        )
    })
}

fn memory_file(dir: &Path) -> PathBuf {
    dir.join("faults.json")
}

/// Which member each word meant last.
fn memory(dir: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(memory_file(dir)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Forgetting it would only cost a convenience, so failing to write it is no error.
fn remember(dir: &Path, word: &str, name: &str) {
    let mut known = memory(dir);
    known.insert(word.to_owned(), name.to_owned());
    if let Ok(text) = serde_json::to_string(&known) {
        let _ = fs::write(memory_file(dir), text);
    }
}

/// Starts a member again, through the supervisor.
pub async fn restart(dir: &Path, target: &Target) -> anyhow::Result<()> {
    control::ask(dir, &control::Ask::Restart { name: target.member.name.clone() }).await
}
