//! Diagnostics as people read them, and as scripts do.
//!
//! The text looks like a compiler's: the line, a mark under the place, why, and what to do. It is
//! plain unless colours are asked for. Field names of the JSON form are stable.

use std::fmt::Write as _;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Severity};
use crate::place::{Lines, Point, Span, within};

/// So many are shown as text; whoever has more reads the first ones anyway.
const MOST: usize = 200;

/// Whether the text may hold escape sequences of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colours {
    Never,
    Always,
}

/// All diagnostics as text, and how many there are. `file` is what the document is called.
pub fn text(file: &str, source: &str, diagnostics: &[Diagnostic], colours: Colours) -> String {
    let renderer = match colours {
        Colours::Never => Renderer::plain(),
        Colours::Always => Renderer::styled(),
    };
    let mut text = String::new();
    for found in diagnostics.iter().take(MOST) {
        let _ = writeln!(text, "{}\n", one(&renderer, file, source, found));
    }
    if let Some(more) = diagnostics.len().checked_sub(MOST).filter(|more| *more > 0) {
        let _ = writeln!(text, "and {more} more, which are not shown\n");
    }
    let _ = writeln!(text, "{file}: {}", count(diagnostics));
    text
}

/// Such as "1 error, 2 warnings".
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|found| found.is_error()).count();
    let words = |number: usize, word: &str| match number {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    };
    format!("{}, {}", words(errors, "error"), words(diagnostics.len() - errors, "warning"))
}

fn one(renderer: &Renderer, file: &str, source: &str, found: &Diagnostic) -> String {
    let level = match found.rule.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&found.message).id(found.rule.id);
    let mut group = Group::with_title(title);
    if let Some(place) = &found.place {
        let primary = AnnotationKind::Primary.span(visible(source, place));
        let related = found.related.iter().map(|other| {
            AnnotationKind::Context.span(visible(source, &other.place)).label(&other.note)
        });
        let annotations: Vec<Annotation<'_>> =
            std::iter::once(primary.label(found.label.as_deref())).chain(related).collect();
        group = group.element(Snippet::source(source).path(file).annotations(annotations));
    }
    group = group.element(Level::NOTE.message(&found.cause));
    group = group.element(Level::HELP.message(&found.remedy));
    renderer.render(&[group])
}

/// A span that can be marked: within the text, and of its first line only, so that a long table
/// does not fill the screen.
fn visible(source: &str, span: &Span) -> Span {
    let span = within(source, span);
    let line = source[span.clone()].find('\n').map_or(span.end, |at| span.start + at);
    span.start..line
}

#[derive(Serialize)]
struct Case<'a> {
    rule: &'static str,
    /// Where the rule is explained, within the documentation.
    page: String,
    severity: Severity,
    message: &'a str,
    place: Option<Place>,
    label: Option<&'a str>,
    related: Vec<Other<'a>>,
    cause: &'a str,
    remedy: &'a str,
}

#[derive(Serialize)]
struct Place {
    start: Point,
    end: Point,
}

#[derive(Serialize)]
struct Other<'a> {
    place: Place,
    note: &'a str,
}

/// All diagnostics as a value. Lines and columns count from 1.
pub fn json(file: &str, source: &str, diagnostics: &[Diagnostic]) -> serde_json::Value {
    let lines = Lines::new(source);
    let place = |span: &Span| Place { start: lines.point(span.start), end: lines.point(span.end) };
    let case = |found: &Diagnostic| {
        serde_json::json!(Case {
            rule: found.rule.id,
            page: format!("topology/rules.md#{}", found.rule.id),
            severity: found.rule.severity,
            message: &found.message,
            place: found.place.as_ref().map(place),
            label: found.label.as_deref(),
            related: found
                .related
                .iter()
                .map(|other| Other { place: place(&other.place), note: &other.note })
                .collect(),
            cause: &found.cause,
            remedy: &found.remedy,
        })
    };
    let errors = diagnostics.iter().filter(|found| found.is_error()).count();
    serde_json::json!({
        "file": file,
        "errors": errors,
        "warnings": diagnostics.len() - errors,
        "diagnostics": diagnostics.iter().map(case).collect::<Vec<_>>(),
    })
}

/// All rules, for `--json` and for pages.
pub fn rules_json() -> serde_json::Value {
    let rules = crate::check::rules().map(|rule| {
        serde_json::json!({
            "rule": rule.id,
            "severity": rule.severity,
            "finds": rule.finds,
            "why": rule.why,
            "remedy": rule.remedy,
        })
    });
    rules.collect()
}
