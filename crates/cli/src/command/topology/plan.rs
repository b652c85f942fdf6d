//! `topology plan`: what publishing would change, and what the servers say about it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use protocol::admin::TopologyCopy;
use serde::Serialize;
use topology::plan::{Facts, Plan};
use topology::{Checked, Diagnostic, examine};

use super::Known;
use super::document::Text;
use super::gather;
use super::preflight::{self, Finding, Looked};
use super::site::Site;
use crate::deployment;
use crate::output::{self, Colour};

/// A document on its way to being published, with all that is known about it.
pub struct Prospect {
    pub text: Text,
    pub document: Checked,
    pub warnings: Vec<Diagnostic>,
    /// What is published now.
    pub published: Option<TopologyCopy>,
    /// Everybody of both documents.
    pub site: Site,
    pub plan: Plan,
    pub findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Shown<'a> {
    document: &'a str,
    base: u64,
    possible: bool,
    findings: &'a [Finding],
    plan: &'a Plan,
}

impl Prospect {
    pub async fn of(known: Known<'_>, text: Text) -> anyhow::Result<Prospect> {
        let (document, warnings) = text.checked()?;
        let mut site = Site::of(&document);
        // Who was removed from the document may be all who know the one before.
        if known.is_some()
            && let Ok(found) = deployment::find(known)
            && found.deployment.name == site.deployment
        {
            site = site.with(Site::known(known)?);
        }
        let published = site.newest().await;
        let old = match &published {
            None => None,
            Some(copy) => Some(examine(&copy.document).checked().ok().with_context(|| {
                format!(
                    "understand the published version {}: this command is older than the servers",
                    copy.header.version
                )
            })?),
        };
        if let Some(old) = &old {
            site = site.with(Site::of(old));
        }
        let (mut gathered, looked) =
            tokio::join!(gather::gather(&site), preflight::look(&site, &document));
        gather::add_seen(&mut gathered.facts, &looked.seen);
        let plan = topology::plan::plan(old.as_ref(), &document, &gathered.facts);
        let own = Site::of(&document);
        let mut findings = preflight::unreachable(&own, &plan, &gathered);
        findings.extend(preflight::findings(&document, &plan, &named(&own, looked)));
        Ok(Prospect { text, document, warnings, published, site, plan, findings })
    }

    pub fn base(&self) -> u64 {
        self.published.as_ref().map_or(0, |copy| copy.header.version)
    }

    pub fn is_possible(&self) -> bool {
        self.plan.refusals.is_empty() && !self.findings.iter().any(|found| found.is_error)
    }

    /// The published document is this one.
    pub fn is_published(&self) -> bool {
        self.published.as_ref().is_some_and(|copy| copy.document == self.text.text)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(Shown {
            document: &self.text.name,
            base: self.base(),
            possible: self.is_possible(),
            findings: &self.findings,
            plan: &self.plan,
        })
    }

    pub fn text(&self, colour: Colour) -> String {
        let mut text = String::new();
        for found in &self.warnings {
            let label = colour.warning("warning:");
            text.push_str(&format!("{label} {} [{}]\n", found.message, found.rule.id));
        }
        text.push_str(&preflight::text(&self.findings, colour));
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&match self.base() {
            0 => format!("{} would be the first version:\n", self.text.name),
            base => format!("{} against the published version {base}:\n", self.text.name),
        });
        text.push_str(&self.plan.text());
        text
    }
}

/// Who is to leave is asked nothing of.
fn named(own: &Site, mut looked: Looked) -> Looked {
    looked.seen.retain(|name, _| own.process(name).is_some());
    looked
}

pub async fn run(known: Known<'_>, file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let prospect = Prospect::of(known, Text::read(file)?).await?;
    if json {
        output::json(&prospect.json())?;
    } else {
        output::data(&prospect.text(Colour::for_stdout()));
    }
    Ok(if prospect.is_possible() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The conditions of a document that is published already: whatever is not as it says.
pub fn standing(document: &Checked) -> Plan {
    topology::plan::plan(None, document, &Facts::default())
}
