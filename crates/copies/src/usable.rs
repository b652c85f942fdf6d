//! Whether a process may work as a copy says.

use protocol::admin::{TopologyCopy, TopologyFinding};
use topology::{Checked, Diagnostic, examine};

use crate::{findings, is_whole};

/// A copy that may be used, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usable {
    pub copy: TopologyCopy,
    pub document: Checked,
}

/// Why a copy is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is torn or was altered: its document is not the one that its header speaks of")]
    Damaged,
    #[error("it is of the deployment \"{found}\", and this process of \"{wanted}\"")]
    OtherDeployment { found: String, wanted: String },
    #[error("this version of Backstay finds errors in it: {}", first(.0))]
    Faulty(Vec<TopologyFinding>),
}

impl Usable {
    /// # Errors
    /// See `Unusable`.
    pub fn new(copy: TopologyCopy, deployment: &str) -> Result<Usable, Unusable> {
        if !is_whole(&copy) {
            return Err(Unusable::Damaged);
        }
        let document = check(&copy.document, deployment)?;
        Ok(Usable { copy, document })
    }
}

/// A document that may be published in `deployment`.
///
/// # Errors
/// See `Unusable`.
pub fn check(text: &str, deployment: &str) -> Result<Checked, Unusable> {
    let told = |found: Vec<Diagnostic>| Unusable::Faulty(findings(text, &found));
    let document = examine(text).checked().map_err(told)?;
    let found = &document.deployment.value;
    if found != deployment {
        let (found, wanted) = (found.clone(), deployment.to_owned());
        return Err(Unusable::OtherDeployment { found, wanted });
    }
    Ok(document)
}

fn first(findings: &[TopologyFinding]) -> String {
    let errors: Vec<&TopologyFinding> = findings.iter().filter(|found| found.is_error).collect();
    let Some(first) = errors.first() else { return String::new() };
    let place = first.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let more = match errors.len() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    format!("{place}{} ({}){more}", first.message, first.rule)
}
