//! After a document was stored: who has done what, until everything is as the document says.
//!
//! The processes do everything by themselves, with one exception: that a new pool is set up is an
//! administrator's word, and is given here, as `pool create` gives it. Nothing is lost if this
//! ends at any moment: publishing the same document again goes on here.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use protocol::admin::{MemberStatus, Request, Response, Role, SessionStatus};
use topology::Checked;
use topology::plan::{Condition, Facts, Plan, Progress};
use topology::resolve::Method;

use super::gather::{self, Gathered};
use super::preflight;
use super::site::Site;
use crate::admin::{AskError, CREATE_DEADLINE};
use crate::clock;
use crate::output::{self, hinted};

const PAUSE: Duration = Duration::from_millis(200);
/// What is waited for is told again so often, and whenever it changes.
const REMINDER: Duration = Duration::from_secs(10);

pub struct Watch<'a> {
    pub site: &'a Site,
    pub document: &'a Checked,
    pub plan: &'a Plan,
    pub version: u64,
    pub json: bool,
    pub wait: Option<Duration>,
    /// How to go on watching.
    pub again: String,
}

impl Watch<'_> {
    /// Until every change is done.
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let begun = clock::now();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let (mut told, mut told_at) = (String::new(), begun);
        loop {
            let look = async {
                let gathered = gather::gather(self.site).await;
                self.set_up(&gathered).await?;
                anyhow::Ok(gathered)
            };
            let gathered = tokio::select! {
                gathered = look => gathered?,
                _ = &mut interrupted => return self.left(),
            };
            let waits = self.look(gathered.facts, &mut done).await?;
            let Some(waits) = waits else {
                if !self.json {
                    output::data(&format!("version {} is in force", self.version));
                }
                return Ok(ExitCode::SUCCESS);
            };
            let now = clock::now();
            if waits != told || now.duration_since(told_at) >= REMINDER {
                output::talk(&format!("waiting: {waits}"));
                (told, told_at) = (waits.clone(), now);
            }
            if self.wait.is_some_and(|wait| now.duration_since(begun) >= wait) {
                return Err(hinted(
                    format!("not done in time: {waits}"),
                    format!("the servers go on by themselves; watch on: {}", self.again),
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = &mut interrupted => return self.left(),
            }
        }
    }

    fn left(&self) -> anyhow::Result<ExitCode> {
        output::talk(&format!(
            "no longer watched; version {} is published, and the servers go on by themselves\n\
             to watch on: {}",
            self.version, self.again
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// What is waited for; `None`: nothing is.
    async fn look(
        &self,
        mut facts: Facts,
        done: &mut BTreeSet<usize>,
    ) -> anyhow::Result<Option<String>> {
        let mut has_looked = false;
        let mut waits = None;
        for (index, change) in self.plan.changes.iter().enumerate() {
            if done.contains(&index) {
                continue;
            }
            let (mut first, mut needs_look) = (None, false);
            for condition in &change.done {
                needs_look |= matches!(condition, Condition::Databases { .. });
                if let Progress::Waits(text) = condition.look(&facts, self.version) {
                    first.get_or_insert(text);
                }
            }
            // Databases are looked for only once all the rest is there.
            if first.is_none() && needs_look && !has_looked {
                let looked = preflight::look(self.site, self.document).await;
                gather::add_seen(&mut facts, &looked.seen);
                has_looked = true;
            }
            if first.is_none() && needs_look {
                for condition in &change.done {
                    if let Progress::Waits(text) = condition.look(&facts, self.version) {
                        first.get_or_insert(text);
                    }
                }
            }
            match first {
                Some(text) => {
                    waits.get_or_insert(text);
                }
                None => {
                    done.insert(index);
                    self.tell_done(index)?;
                }
            }
        }
        Ok(waits)
    }

    fn tell_done(&self, index: usize) -> anyhow::Result<()> {
        let change = &self.plan.changes[index];
        if self.json {
            return output::json_line(&serde_json::json!({
                "done": change.code,
                "pool": change.pool,
                "sentence": change.sentence,
            }));
        }
        let all = self.plan.changes.len();
        output::data(&format!("done {}/{all}: {}", index + 1, change.sentence));
        Ok(())
    }

    /// Says the word for each pool whose members all wait for it.
    async fn set_up(&self, gathered: &Gathered) -> anyhow::Result<()> {
        for pool in &self.document.pools {
            if pool.method() == Some(Method::Clustering) {
                continue;
            }
            let witness = self.document.witness_of(pool);
            let names: Vec<&str> =
                pool.partners().chain(witness).map(|name| name.as_str()).collect();
            for name in waiting(&names, &pool.name, gathered) {
                let Some(process) = self.site.process(name) else { continue };
                let request = Request::CreateSession { pool: pool.name.value.clone() };
                match self.site.ask(process, &request, CREATE_DEADLINE).await {
                    Ok(Response::Done { sentence } | Response::Begun { sentence, .. }) => {
                        output::talk(&format!("{name}: {} of {}", sentence, pool.name));
                    }
                    Ok(_) => {}
                    Err(AskError::Refused(refusal)) if refusal.code == "session_exists" => {}
                    // It is asked again at the next look.
                    Err(AskError::Silent { .. }) => return Ok(()),
                    Err(error @ AskError::Refused(_)) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Members that a new pool's session is to be created on, the first principal first. Nobody may
/// know of anything that was ever served: then it is no new pool.
fn waiting<'a>(names: &[&'a str], pool: &str, gathered: &Gathered) -> Vec<&'a str> {
    let session = |name: &str| -> Option<&SessionStatus> {
        let status: &MemberStatus = gathered.members.get(name)?;
        status.sessions.iter().find(|session| session.pool == pool)
    };
    let mut waiting = Vec::new();
    for name in names {
        match session(name) {
            None => return Vec::new(),
            Some(session) if session.role == Role::NotCreated => waiting.push(*name),
            Some(session) if session.term <= 1 => {}
            Some(_) => return Vec::new(),
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn gathered(sessions: &[(&str, &str, u64)]) -> Gathered {
        let member = |role: &str, term: u64| {
            serde_json::from_value::<MemberStatus>(serde_json::json!({
                "process": "x", "kind": "server", "version": "1", "pid": 1, "uptime_ms": 1,
                "deployment": "d",
                "sessions": [{
                    "pool": "p", "member": "x", "role": role, "serving": false, "term": term,
                    "promise": term, "mirroring": "disconnected", "guard_open": false,
                    "others": [], "obstacles": [], "alarms": [],
                    "automatic_failover": { "armed": false, "sentence": "" }
                }]
            }))
            .unwrap()
        };
        let members =
            sessions.iter().map(|(name, role, term)| ((*name).to_owned(), member(role, *term)));
        Gathered { facts: Facts::default(), members: members.collect(), silent: BTreeMap::new() }
    }

    #[test]
    fn a_session_is_created_only_where_nobody_knows_of_service() {
        let names = ["be1", "be2", "wit1"];
        let new = |name| (name, "not_created", 0);
        let all = gathered(&[new("be1"), new("be2"), new("wit1")]);
        assert_eq!(waiting(&names, "p", &all), names);
        let begun = gathered(&[("be1", "principal", 1), new("be2"), new("wit1")]);
        assert_eq!(waiting(&names, "p", &begun), ["be2", "wit1"]);
        let served = gathered(&[("be1", "principal", 7), new("be2"), new("wit1")]);
        assert_eq!(waiting(&names, "p", &served), [""; 0]);
        let away = gathered(&[new("be1"), new("wit1")]);
        assert_eq!(waiting(&names, "p", &away), [""; 0]);
        assert_eq!(waiting(&names, "q", &all), [""; 0]);
    }
}
