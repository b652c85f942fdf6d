//! What publishing a document would change, and what that costs.
//!
//! A plan is made of the published document, the new one and what the processes say now. Nothing
//! is performed from it: every process converges by itself once it has the new document. The plan
//! is what people read before they say yes, and its conditions are how the end is recognised. What
//! would leave a pool without its data, or cannot be done in one step, is refused with the steps
//! that lead there.

mod contexts;
mod difference;
mod done;
mod effect;
mod facts;
mod front_ends;
mod partners;
mod places;
mod pools;
mod settings;
#[cfg(test)]
mod tests;
mod view;
mod witnesses;

use serde::Serialize;

use crate::check::Checked;

pub use difference::{Difference, difference, difference_text};
pub use done::{Condition, Progress};
pub use effect::{Effect, size_words};
pub use facts::{Context, Facts, PoolFacts, ProcessFacts};

use view::{Both, PoolView};

/// All that publishing would do, in the order in which it happens.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// With one of these the document cannot be published.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing and is no change.
    pub notes: Vec<String>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    #[serde(skip)]
    stage: Stage,
    /// Stable, for programs.
    pub code: &'static str,
    /// `None`: not about one pool.
    pub pool: Option<String>,
    /// What becomes different.
    pub sentence: String,
    pub effects: Vec<Effect>,
    /// Who has to do with it.
    pub processes: Vec<String>,
    /// What stays as it is, and what is left to people.
    pub remarks: Vec<String>,
    /// It is done when all of these hold.
    pub done: Vec<Condition>,
}

/// What cannot be done, or not at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// Stable, for programs.
    pub code: &'static str,
    pub pool: Option<String>,
    pub sentence: String,
    pub cause: String,
    /// The way there, step by step.
    pub steps: Vec<String>,
}

/// Changes that make a pool safer come before those that cost it protection, and what is given up
/// comes last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Arrive,
    Begin,
    Protect,
    Adjust,
    Move,
    Reduce,
    Leave,
}

/// The plan from `old` (`None`: nothing has been published) to `new`.
pub fn plan(old: Option<&Checked>, new: &Checked, facts: &Facts) -> Plan {
    let mut work = Work { old, new, facts, plan: Plan::default() };
    work.deployment();
    if !work.plan.refusals.is_empty() {
        return work.plan;
    }
    places::processes(&mut work);
    for pool in &new.pools {
        let after = PoolView::of(new, pool);
        match old.and_then(|old| Some(PoolView::of(old, old.pool(&pool.name)?))) {
            None => pools::added(&mut work, &after),
            Some(before) => work.pool(&Both { before, after }),
        }
    }
    if let Some(old) = old {
        for gone in old.pools.iter().filter(|pool| new.pool(&pool.name).is_none()) {
            pools::removed(&mut work, &PoolView::of(old, gone));
        }
    }
    places::store(&mut work);
    work.plan.changes.sort_by_key(|change| change.stage);
    work.plan
}

/// A plan in the making.
struct Work<'a> {
    old: Option<&'a Checked>,
    new: &'a Checked,
    facts: &'a Facts,
    plan: Plan,
}

impl Work<'_> {
    fn deployment(&mut self) {
        let Some(old) = self.old else { return };
        if old.deployment != self.new.deployment {
            self.refuse(
                "deployment_renamed",
                None,
                format!("the deployment {} cannot become {}", old.deployment, self.new.deployment),
                "every process and every certificate bears the deployment's name, and refuses \
                 those of another one",
                &["keep the name", "or set up a new deployment under the new one"],
            );
        }
        if old.sites != self.new.sites {
            self.plan.notes.push("sites have changed; only checks look at them".to_owned());
        }
    }

    /// A pool that is in both documents.
    fn pool(&mut self, both: &Both<'_>) {
        if pools::method(self, both) == pools::Course::Ends {
            return;
        }
        partners::changed(self, both);
        witnesses::changed(self, both);
        settings::changed(self, both);
        places::directories(self, both);
        places::ports(self, both);
        pools::details(self, both);
        front_ends::changed(self, both);
        let (name, first) = (both.name(), both.after.first);
        let is_refused = |refusal: &Refusal| refusal.pool.as_deref() == Some(name);
        if self.plan.refusals.iter().any(is_refused) {
            return;
        }
        if let (Some(serves), Some(first)) = (self.facts.principal(name), first)
            && serves != first
            && both.after.partners().any(|partner| partner == serves)
        {
            self.plan.notes.push(format!(
                "{serves} serves {name} now, and goes on: `principal = \"{first}\"` speaks of the \
                 first set-up only. To change sides: backstay pool failover {name}"
            ));
        }
    }

    fn add(&mut self, stage: Stage, code: &'static str, sentence: String) -> &mut Change {
        let at = self.plan.changes.len();
        self.plan.changes.push(Change {
            stage,
            code,
            pool: None,
            sentence,
            effects: Vec::new(),
            processes: Vec::new(),
            remarks: Vec::new(),
            done: Vec::new(),
        });
        &mut self.plan.changes[at]
    }

    fn refuse(
        &mut self,
        code: &'static str,
        pool: Option<&str>,
        sentence: String,
        cause: &str,
        steps: &[&str],
    ) {
        self.plan.refusals.push(Refusal {
            code,
            pool: pool.map(str::to_owned),
            sentence,
            cause: cause.to_owned(),
            steps: steps.iter().map(|&step| step.to_owned()).collect(),
        });
    }
}

impl Change {
    fn pool(&mut self, pool: &str) -> &mut Change {
        self.pool = Some(pool.to_owned());
        self
    }

    fn effect(&mut self, effect: Effect) -> &mut Change {
        self.effects.push(effect);
        self
    }

    /// These have to do with it, and must have the new document.
    fn of<'a>(&mut self, processes: impl IntoIterator<Item = &'a str>) -> &mut Change {
        for process in processes {
            if self.processes.iter().any(|known| known == process) {
                continue;
            }
            self.processes.push(process.to_owned());
            self.done.push(Condition::Informed { process: process.to_owned() });
        }
        self
    }

    fn remark(&mut self, remark: impl Into<String>) -> &mut Change {
        self.remarks.push(remark.into());
        self
    }

    fn done_when(&mut self, condition: Condition) -> &mut Change {
        self.done.push(condition);
        self
    }
}

impl Plan {
    /// There is nothing to do, and nothing against it.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.refusals.is_empty()
    }

    /// The plan as people read it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for refusal in &self.refusals {
            text.push_str(&refusal.text());
        }
        for (index, change) in self.changes.iter().enumerate() {
            text.push_str(&format!("{}. {}\n", index + 1, change.sentence));
            let effects: Vec<String> = change.effects.iter().map(Effect::words).collect();
            if !effects.is_empty() {
                text.push_str(&format!("   {}\n", effects.join("; ")));
            }
            for remark in &change.remarks {
                text.push_str(&format!("   {remark}\n"));
            }
        }
        if self.is_empty() {
            text.push_str("nothing would change\n");
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }
}

impl Refusal {
    pub fn text(&self) -> String {
        let mut text = format!("refused: {}\n   because {}\n", self.sentence, self.cause);
        for (index, step) in self.steps.iter().enumerate() {
            text.push_str(&format!("   step {}: {step}\n", index + 1));
        }
        text
    }
}
