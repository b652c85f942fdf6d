//! Where in the document something is written.
//!
//! Every value that was read knows its place, so that whatever is said about it can show its line.
//! Two values are equal if what they say is equal, wherever it stands. Values that a default
//! supplies have no place.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Bytes of the document, from the first to the one after the last.
pub type Span = Range<usize>;

/// A value together with its place.
#[derive(Clone)]
pub struct Placed<T> {
    pub value: T,
    pub span: Span,
}

impl<T> Placed<T> {
    pub fn new(value: T, span: Span) -> Placed<T> {
        Placed { value, span }
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Placed<T> {
    fn eq(&self, other: &Placed<T>) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Placed<T> {}

impl<T: fmt::Debug> fmt::Debug for Placed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

impl<T: fmt::Display> fmt::Display for Placed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

/// The schema of a value does not speak of its place.
impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// What is known of a table besides its values.
#[derive(Clone, Default, Debug)]
pub struct Table {
    /// Its heading, or the whole of an inline table.
    pub span: Span,
    /// Fields that are written but could not be read: a finding tells of them, so that nothing
    /// need complain that they are missing.
    pub broken: Vec<String>,
}

impl Table {
    pub fn is_broken(&self, field: &str) -> bool {
        self.broken.iter().any(|broken| broken == field)
    }
}

/// Where a table stands is no part of what it says.
impl PartialEq for Table {
    fn eq(&self, _: &Table) -> bool {
        true
    }
}

impl Eq for Table {}

/// Lines of a text, to turn bytes into lines and columns.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// A line and a column, both from 1; the column counts characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Point {
    pub line: usize,
    pub column: usize,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Lines<'a> {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    pub fn point(&self, byte: usize) -> Point {
        let byte = floor(self.text, byte);
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts[line - 1];
        Point { line, column: self.text[start..byte].chars().count() + 1 }
    }
}

/// `span` as a part of `text` that can be cut out: within it, and between characters.
pub fn within(text: &str, span: &Span) -> Span {
    let start = floor(text, span.start);
    let end = floor(text, span.end.max(span.start));
    start..end
}

fn floor(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let lines = Lines::new("eins\nzwölf\n");
        assert_eq!(lines.point(0), Point { line: 1, column: 1 });
        assert_eq!(lines.point(4), Point { line: 1, column: 5 });
        assert_eq!(lines.point(9), Point { line: 2, column: 4 });
        assert_eq!(lines.point(99), Point { line: 3, column: 1 });
    }

    #[test]
    fn a_span_never_cuts_a_character() {
        assert_eq!(within("ö", &(1..2)), 0..2);
        assert_eq!(within("ö", &(1..1)), 0..0);
        assert_eq!(within("ab", &(1..9)), 1..2);
    }
}
