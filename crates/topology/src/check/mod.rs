//! The rules, all evaluated at once.
//!
//! One rule is one function in the file of its family; `rules` lists all of them, those of the
//! reading included. A rule reads the document and tells what it finds: it changes nothing, knows
//! nothing of the other rules, and asks no server. A rule keeps silent about what another one
//! tells already: an unknown name is told once, not once more for each thing that follows from it.

mod access;
mod databases;
mod directories;
mod front_ends;
mod hosts;
mod methods;
mod names;
mod pairs;
mod ports;
mod references;
mod settings;
mod sites;
mod store;
mod times;
mod witnesses;
mod world;

use crate::diagnostic::{Diagnostic, Family, Report, Rule, Severity};
use crate::document::Document;
use crate::read;

pub(crate) use world::World;

const FAMILIES: &[&[Rule]] = &[
    names::RULES,
    references::RULES,
    methods::RULES,
    hosts::RULES,
    ports::RULES,
    sites::RULES,
    witnesses::RULES,
    pairs::RULES,
    store::RULES,
    times::RULES,
    settings::RULES,
    databases::RULES,
    directories::RULES,
    front_ends::RULES,
    access::RULES,
];

/// Every rule there is.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    read::RULES.iter().copied().chain(FAMILIES.iter().flat_map(|family| family.iter()))
}

/// A document, and everything that is to be said about it.
#[derive(Clone, Debug)]
pub struct Examined {
    pub document: Document,
    /// In the order of their places, errors and warnings mixed.
    pub diagnostics: Vec<Diagnostic>,
}

/// A document without errors. Only such a one is derived from, planned and published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked(Document);

impl Examined {
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|found| found.is_error()).count()
    }

    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }

    /// # Errors
    /// All diagnostics, if one of them is an error.
    pub fn checked(self) -> Result<Checked, Vec<Diagnostic>> {
        if self.errors() == 0 { Ok(Checked(self.document)) } else { Err(self.diagnostics) }
    }
}

impl std::ops::Deref for Checked {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.0
    }
}

/// Reads and checks a document.
pub fn examine(text: &str) -> Examined {
    let read::Reading { document, mut diagnostics, is_whole } = read::read(text);
    if is_whole {
        let world = World::new(&document);
        for rule in FAMILIES.iter().flat_map(|family| family.iter()) {
            let mut report = Report::new(rule);
            if let Some(run) = rule.run {
                run(&world, &mut report);
            }
            diagnostics.append(&mut report.into_found());
        }
    }
    let place = |found: &Diagnostic| found.place.as_ref().map_or(0, |place| place.start);
    diagnostics.sort_by_key(|found| (place(found), found.rule.severity));
    Examined { document, diagnostics }
}

type Run = fn(&World<'_>, &mut Report);

const fn error(
    id: &'static str,
    family: Family,
    run: Run,
    [finds, why, remedy]: [&'static str; 3],
) -> Rule {
    Rule { id, family, severity: Severity::Error, finds, why, remedy, run: Some(run) }
}

const fn warning(
    id: &'static str,
    family: Family,
    run: Run,
    [finds, why, remedy]: [&'static str; 3],
) -> Rule {
    Rule { id, family, severity: Severity::Warning, finds, why, remedy, run: Some(run) }
}
