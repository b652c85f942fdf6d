//! From text to document, with everything that is wrong on the way.
//!
//! Reading never stops at a mistake: a value of the wrong type is told and left out, an unknown
//! field is told and passed over. Only where the text is no TOML at all is the rest not judged,
//! since nobody knows then to which table a line belongs. No text makes it panic.

mod fields;
mod rules;
mod tables;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::place::{Span, within};

use fields::Fields;
pub(crate) use rules::{RULES, is_secret};

/// What a text says.
#[derive(Debug)]
pub(crate) struct Reading {
    pub document: Document,
    pub diagnostics: Vec<Diagnostic>,
    /// False where the text is no TOML: then the document is whatever could be recognised.
    pub is_whole: bool,
}

pub(crate) fn read(text: &str) -> Reading {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let mut is_whole = true;
    for error in errors {
        let place = error.span().map(|span| within(text, &span));
        if error.message().starts_with("duplicate key") {
            diagnostics.push(duplicate(text, &root, place));
        } else {
            is_whole = false;
            diagnostics.push(Diagnostic::new(
                &rules::SYNTAX,
                place,
                format!("this is not understood: {}", error.message()),
            ));
        }
    }
    if !is_whole {
        return Reading { document: Document::default(), diagnostics, is_whole };
    }
    let mut fields = Fields::new(root.get_ref(), root.span(), "the document");
    let document = tables::document(&mut fields);
    diagnostics.append(&mut fields.found);
    Reading { document, diagnostics, is_whole }
}

fn duplicate(text: &str, root: &Spanned<DeTable<'_>>, place: Option<Span>) -> Diagnostic {
    let key = place.clone().map_or("", |place| &text[place]);
    let mut found =
        Diagnostic::new(&rules::DUPLICATE_KEY, place.clone(), format!("{key} is written twice"));
    let before = place.map_or(0, |place| place.start);
    let name = key.trim_matches(['"', '\'']);
    if let Some(first) = last_before(root.get_ref(), name, before) {
        found.related(&first, "the other one is here");
    }
    found
}

/// The last place before `before` where a field of this name is written.
fn last_before(table: &DeTable<'_>, name: &str, before: usize) -> Option<Span> {
    let mut last: Option<Span> = None;
    let mut consider = |place: Option<Span>| {
        if let Some(place) = place
            && place.start < before
            && last.as_ref().is_none_or(|last| last.start < place.start)
        {
            last = Some(place);
        }
    };
    for (key, value) in table {
        if key.get_ref() == name {
            consider(Some(key.span()));
        }
        match value.get_ref() {
            DeValue::Table(table) => consider(last_before(table, name, before)),
            DeValue::Array(array) => {
                for entry in array {
                    if let DeValue::Table(table) = entry.get_ref() {
                        consider(last_before(table, name, before));
                    }
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
    last
}
