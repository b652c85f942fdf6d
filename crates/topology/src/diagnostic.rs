//! What is wrong with a document, or unwise: where, why, and what to do.
//!
//! A rule says in general what it finds; a diagnostic is one case of it. Its cause and its remedy
//! are the rule's own unless the case knows better. Ids are stable: scripts and pages name them.

use crate::check::World;
use crate::place::Span;

/// Errors keep a document from being published; warnings do not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// What rules are about; the page of all rules has a section for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    Reading,
    Names,
    References,
    Methods,
    Hosts,
    Sites,
    Witnesses,
    Pairs,
    Store,
    Times,
    Settings,
    Databases,
    Directories,
    FrontEnds,
    Access,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    pub id: &'static str,
    pub family: Family,
    pub severity: Severity,
    /// What it finds, as a sentence.
    pub finds: &'static str,
    /// Why that cannot work, or is unwise.
    pub why: &'static str,
    pub remedy: &'static str,
    /// `None`: found while the document is read.
    pub(crate) run: Option<fn(&World<'_>, &mut Report)>,
}

/// One case of a rule.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub rule: &'static Rule,
    /// What is wrong, as a sentence without its full stop.
    pub message: String,
    /// `None`: the document as a whole.
    pub place: Option<Span>,
    /// What stands at the place, if that needs words.
    pub label: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
    pub cause: String,
    pub remedy: String,
}

/// Another place, and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Related {
    pub place: Span,
    pub note: String,
}

impl Diagnostic {
    pub fn new(rule: &'static Rule, place: Option<Span>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            rule,
            // A thing whose name is missing leaves a gap.
            message: message.into().replace("  ", " "),
            place,
            label: None,
            related: Vec::new(),
            cause: rule.why.to_owned(),
            remedy: rule.remedy.to_owned(),
        }
    }

    pub fn is_error(&self) -> bool {
        self.rule.severity == Severity::Error
    }

    pub(crate) fn label(&mut self, label: impl Into<String>) -> &mut Diagnostic {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn related(&mut self, place: &Span, note: impl Into<String>) -> &mut Diagnostic {
        self.related.push(Related { place: place.clone(), note: note.into() });
        self
    }

    pub(crate) fn cause(&mut self, cause: impl Into<String>) -> &mut Diagnostic {
        self.cause = cause.into();
        self
    }

    pub(crate) fn remedy(&mut self, remedy: impl Into<String>) -> &mut Diagnostic {
        self.remedy = remedy.into();
        self
    }
}

/// Where one rule tells what it finds.
#[derive(Debug)]
pub(crate) struct Report {
    rule: &'static Rule,
    found: Vec<Diagnostic>,
}

impl Report {
    pub(crate) fn new(rule: &'static Rule) -> Report {
        Report { rule, found: Vec::new() }
    }

    pub(crate) fn at(&mut self, place: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Some(place.clone()), message)
    }

    /// Of the document as a whole.
    pub(crate) fn everywhere(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.push(None, message)
    }

    fn push(&mut self, place: Option<Span>, message: impl Into<String>) -> &mut Diagnostic {
        let at = self.found.len();
        self.found.push(Diagnostic::new(self.rule, place, message));
        &mut self.found[at]
    }

    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }
}

/// The known name that `name` was probably meant to be.
pub(crate) fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = if name.chars().count() < 4 { 1 } else { 2 };
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
