//! Whom to ask: the processes of a deployment, and what each has of the published document.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::admin::{
    Refusal, Request, Response, TopologyAnswer, TopologyCopy, TopologyHeader, TopologyKind,
    TopologyRequest, TopologyShown,
};
use topology::Checked;

use super::Known;
use crate::admin::{self, AskError};
use crate::deployment::{self, MemberEntry};
use crate::output::hinted;

/// How long a process may take to show its copy.
const LOOK: Duration = Duration::from_secs(3);

/// One process, and where it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    pub name: String,
    pub address: String,
    pub kind: TopologyKind,
}

/// A deployment as commands know it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Site {
    pub deployment: String,
    pub processes: Vec<Process>,
}

impl Site {
    /// Those of a document.
    pub fn of(document: &Checked) -> Site {
        let parts = document.deployment_parts();
        let entry = |kind| {
            move |address: &topology::derive::Address| Process {
                name: address.name.clone(),
                address: format!("{}:{}", address.host, address.port),
                kind,
            }
        };
        let servers = parts.servers.iter().map(entry(TopologyKind::Server));
        let witnesses = parts.witnesses.iter().map(entry(TopologyKind::Witness));
        let front_ends = parts.front_ends.iter().map(|it| &it.address);
        let front_ends = front_ends.map(entry(TopologyKind::FrontEnd));
        Site {
            deployment: parts.name.clone(),
            processes: servers.chain(witnesses).chain(front_ends).collect(),
        }
    }

    /// That of the deployment file, or of the document that is named as such.
    pub fn known(known: Known<'_>) -> anyhow::Result<Site> {
        let found = deployment::find(known)?.deployment;
        let witnesses: Vec<&String> = found.pools.iter().flat_map(|pool| &pool.witness).collect();
        let members = found.members.iter().map(|member| Process {
            name: member.name.clone(),
            address: member.address.clone(),
            kind: match witnesses.contains(&&member.name) {
                true => TopologyKind::Witness,
                false => TopologyKind::Server,
            },
        });
        let front_ends = found.front_ends.iter().map(|front_end| Process {
            name: front_end.name.clone(),
            address: front_end.address.clone(),
            kind: TopologyKind::FrontEnd,
        });
        Ok(Site { processes: members.chain(front_ends).collect(), deployment: found.name })
    }

    /// These, and those of `others` whose names are not among them.
    pub fn with(mut self, others: Site) -> Site {
        let new = others.processes.into_iter().filter(|other| self.process(&other.name).is_none());
        let new: Vec<Process> = new.collect();
        self.processes.extend(new);
        self
    }

    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    pub async fn ask(
        &self,
        process: &Process,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, AskError> {
        let member = MemberEntry { name: process.name.clone(), address: process.address.clone() };
        admin::ask(&self.deployment, &member, request, deadline).await
    }

    /// Asks all processes that `wanted` accepts the same, side by side.
    pub async fn ask_all(
        &self,
        request: &Request,
        deadline: Duration,
        wanted: impl Fn(&Process) -> bool,
    ) -> BTreeMap<String, Result<Response, AskError>> {
        let mut tasks = Vec::new();
        for process in self.processes.iter().filter(|process| wanted(process)) {
            let (site, process, request) = (
                Site { deployment: self.deployment.clone(), processes: Vec::new() },
                process.clone(),
                request.clone(),
            );
            tasks.push(tokio::task::spawn_local(async move {
                let answer = site.ask(&process, &request, deadline).await;
                (process.name, answer)
            }));
        }
        let mut answers = BTreeMap::new();
        for task in tasks {
            answers.extend(task.await);
        }
        answers
    }

    /// What each process has; those that do not answer, or know no documents, are left out.
    pub async fn shown(&self, document: bool) -> BTreeMap<String, TopologyShown> {
        let what = TopologyRequest::Show { version: None, document };
        let answers = self.ask_all(&Request::Topology(what), LOOK, |_| true).await;
        let shown = answers.into_iter().filter_map(|(name, answer)| match answer {
            Ok(Response::Topology(TopologyAnswer::Shown(shown))) => Some((name, shown)),
            Ok(_) | Err(_) => None,
        });
        shown.collect()
    }

    /// The newest version that anybody has.
    pub async fn newest(&self) -> Option<TopologyCopy> {
        let shown = self.shown(true).await.into_values();
        let copies = shown.filter_map(|shown| {
            Some(TopologyCopy { header: shown.header?, document: shown.document? })
        });
        copies.max_by_key(|copy| copy.header.version)
    }

    /// The first answer that is one, in the order of the processes.
    pub async fn first_answer<T>(
        &self,
        what: TopologyRequest,
        pick: impl Fn(TopologyAnswer) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut refused: Option<Refusal> = None;
        let answers = self.ask_all(&Request::Topology(what), LOOK, Process::is_member).await;
        for process in &self.processes {
            match answers.get(&process.name) {
                Some(Ok(Response::Topology(answer))) => {
                    if let Some(found) = pick(answer.clone()) {
                        return Ok(found);
                    }
                }
                Some(Err(AskError::Refused(refusal))) => refused = Some(refusal.clone()),
                Some(Ok(_) | Err(AskError::Silent { .. })) | None => {}
            }
        }
        Err(match refused {
            Some(refusal) => AskError::Refused(refusal).into(),
            None => nobody(self),
        })
    }
}

impl Process {
    pub fn is_member(&self) -> bool {
        match self.kind {
            TopologyKind::Server | TopologyKind::Witness => true,
            TopologyKind::FrontEnd | TopologyKind::Unnamed => false,
        }
    }
}

fn nobody(site: &Site) -> anyhow::Error {
    let names: Vec<&str> = site.processes.iter().map(|process| process.name.as_str()).collect();
    hinted(
        format!("no process of {} can tell: asked were {}", site.deployment, names.join(", ")),
        "nothing may have been published yet; or see whether they run: backstay pool status",
    )
}

/// When and by whom, as people read it.
pub fn who(header: &TopologyHeader) -> String {
    let author = if header.author.is_empty() { "somebody" } else { &header.author };
    let comment = match header.comment.as_str() {
        "" => String::new(),
        comment => format!(": {comment}"),
    };
    format!(
        "version {} was published by {author} on {}{comment}",
        header.version,
        protocol::admin::at_text(header.published_ms)
    )
}
