//! The fields of one table, taken out one by one.
//!
//! Whoever reads a table asks for its fields by name; what was asked for is what the table knows,
//! and what is left over in the end is unknown. Each mistake is told once: a field that could not
//! be read, or whose name is misspelt, does not count as missing.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, meant};
use crate::document::ServerSettings;
use crate::place::{Placed, Span, Table};

use super::rules::{MISSING_FIELD, OUT_OF_RANGE, SECRET, UNKNOWN_FIELD, WRONG_TYPE, is_secret};

/// What people write who know other tools.
const SYNONYMS: &[(&str, &str)] = &[
    ("primary", "principal"),
    ("master", "principal"),
    ("leader", "principal"),
    ("secondary", "mirror"),
    ("standby", "mirror"),
    ("replica", "mirror"),
    ("arbiter", "witness"),
    ("monitor", "witness"),
    ("address", "host"),
    ("hostname", "host"),
    ("fqdn", "host"),
    ("ip", "host"),
    ("postgres_port", "port"),
    ("data_directory", "data_dir"),
    ("pg_hba", "client_access"),
    ("hba", "client_access"),
    ("parameters", "settings"),
    ("mode", "method"),
    ("type", "method"),
    ("servers", "server"),
    ("witnesses", "witness"),
    ("pools", "pool"),
    ("sites", "site"),
    ("databases", "database"),
    ("front_ends", "front_end"),
    ("frontend", "front_end"),
];

/// What a setting may be, in words.
pub(super) const SETTING: &str = "a text, a whole number, or true or false";

pub(super) struct Fields<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    /// Such as "a pool".
    what: &'static str,
    asked: Vec<&'static str>,
    needed: Vec<&'static str>,
    broken: Vec<String>,
    pub(super) found: Vec<Diagnostic>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(table: &'a DeTable<'a>, span: Span, what: &'static str) -> Fields<'a> {
        Fields {
            table,
            span,
            what,
            asked: Vec::new(),
            needed: Vec::new(),
            broken: Vec::new(),
            found: Vec::new(),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(name);
        self.table.get(name)
    }

    fn wrong(&mut self, name: &'static str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        self.broken.push(name.to_owned());
        let message = format!("{name} wants {wanted}, not {}", kind(value.get_ref()));
        let mut found = Diagnostic::new(&WRONG_TYPE, Some(value.span()), message);
        found.label(format!("this is {}", kind(value.get_ref())));
        found.remedy(format!("Write {wanted}."));
        self.found.push(found);
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<Placed<String>> {
        let value = self.take(name)?;
        let text = text_of(value);
        if text.is_none() {
            self.wrong(name, value, "a text in quotes");
        }
        text
    }

    /// What to do about a field that could not be read, where its kind alone does not say it.
    pub(super) fn hint(&mut self, name: &str, remedy: &str) {
        if self.broken.last().is_some_and(|broken| broken == name)
            && let Some(found) = self.found.last_mut()
        {
            found.remedy(remedy);
        }
    }

    /// A text without which the table means nothing; empty if it is missing.
    pub(super) fn needed(&mut self, name: &'static str) -> Placed<String> {
        self.needed.push(name);
        let text = self.text(name);
        text.unwrap_or_else(|| Placed::new(String::new(), self.span.clone()))
    }

    pub(super) fn whole<T: TryFrom<i64>>(
        &mut self,
        name: &'static str,
        range: &str,
    ) -> Option<Placed<T>> {
        let value = self.take(name)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong(name, value, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.broken.push(name.to_owned());
            let message = format!("{name} = {integer} is outside of {range}");
            let mut found = Diagnostic::new(&OUT_OF_RANGE, Some(value.span()), message);
            found.remedy(format!("Write a number from {range}."));
            self.found.push(found);
        }
        Some(Placed::new(number?, value.span()))
    }

    pub(super) fn port(&mut self, name: &'static str) -> Option<Placed<u16>> {
        self.whole(name, "0 to 65535")
    }

    pub(super) fn count(&mut self, name: &'static str) -> Option<Placed<u32>> {
        self.whole(name, "0 to 4294967295")
    }

    pub(super) fn truth(&mut self, name: &'static str) -> Option<Placed<bool>> {
        let value = self.take(name)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong(name, value, "true or false");
        }
        Some(Placed::new(truth?, value.span()))
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<Placed<String>>> {
        const WANTED: &str = "a list of texts, such as [\"one\", \"two\"]";
        let value = self.take(name)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(name, value, WANTED);
            return None;
        };
        let mut texts = Vec::new();
        for entry in array {
            match text_of(entry) {
                Some(text) => texts.push(text),
                None => self.wrong(name, entry, "texts in quotes"),
            }
        }
        Some(texts)
    }

    /// A table within this one.
    pub(super) fn table<T>(
        &mut self,
        name: &'static str,
        what: &'static str,
        read: fn(&mut Fields<'a>) -> T,
    ) -> Option<T> {
        let value = self.take(name)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(name, value, "a table, such as { field = \"value\" }");
            return None;
        };
        Some(self.inner(table, value.span(), what, read))
    }

    /// A list of tables, as `[[name]]` writes it.
    pub(super) fn tables<T>(
        &mut self,
        name: &'static str,
        what: &'static str,
        read: fn(&mut Fields<'a>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(array) => self.each(name, what, array, read),
            DeValue::Table(table) => {
                self.wrong(name, value, "a list of tables");
                if let Some(found) = self.found.last_mut() {
                    found.remedy(format!("Write [[{name}]], with two brackets: {what} each."));
                }
                vec![self.inner(table, value.span(), what, read)]
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                self.wrong(name, value, "a list of tables");
                Vec::new()
            }
        }
    }

    fn each<T>(
        &mut self,
        name: &'static str,
        what: &'static str,
        array: &'a DeArray<'a>,
        read: fn(&mut Fields<'a>) -> T,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => all.push(self.inner(table, entry.span(), what, read)),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => self.wrong(name, entry, "tables, such as { name = \"x\" }"),
            }
        }
        all
    }

    fn inner<T>(
        &mut self,
        table: &'a DeTable<'a>,
        span: Span,
        what: &'static str,
        read: fn(&mut Fields<'a>) -> T,
    ) -> T {
        let mut inner = Fields::new(table, span, what);
        let value = read(&mut inner);
        self.found.append(&mut inner.found);
        value
    }

    /// A table whose fields people name themselves, in the order of its lines.
    pub(super) fn free<T>(
        &mut self,
        name: &'static str,
        wanted: &'static str,
        read: fn(&Spanned<DeValue<'a>>) -> Option<T>,
    ) -> Vec<(Placed<String>, T)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(name, value, "a table, such as { name = \"value\" }");
            return Vec::new();
        };
        self.entries(name, wanted, table, read)
    }

    /// Settings by the servers that they are for.
    pub(super) fn settings_on(&mut self, name: &'static str) -> Vec<ServerSettings> {
        const WANTED: &str = "a table of settings, such as { work_mem = \"64MB\" }";
        let Some(value) = self.take(name) else { return Vec::new() };
        let DeValue::Table(servers) = value.get_ref() else {
            self.wrong(name, value, "a table, such as { be1 = { work_mem = \"64MB\" } }");
            return Vec::new();
        };
        let mut all = Vec::new();
        for (key, value) in servers {
            let server = Placed::new(key.get_ref().clone().into_owned(), key.span());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let settings = self.entries(name, SETTING, table, setting_of);
                    all.push(ServerSettings { server, settings });
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => self.wrong_entry(name, &server, value, WANTED),
            }
        }
        all.sort_by_key(|on| on.server.span.start);
        all
    }

    fn entries<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        table: &'a DeTable<'a>,
        read: fn(&Spanned<DeValue<'a>>) -> Option<T>,
    ) -> Vec<(Placed<String>, T)> {
        let mut all = Vec::new();
        for (key, value) in table {
            let key = Placed::new(key.get_ref().clone().into_owned(), key.span());
            match read(value) {
                Some(read) => all.push((key, read)),
                None => self.wrong_entry(name, &key, value, wanted),
            }
        }
        all.sort_by_key(|(key, _)| key.span.start);
        all
    }

    fn wrong_entry(&mut self, name: &str, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let message = format!("{key} in {name} wants {wanted}, not {}", kind(value.get_ref()));
        let mut found = Diagnostic::new(&WRONG_TYPE, Some(value.span()), message);
        found.label(format!("this is {}", kind(value.get_ref())));
        found.remedy(format!("Write {wanted}."));
        self.found.push(found);
    }

    /// Tells of fields that nobody asked for and of those that are missing. Called last.
    pub(super) fn finish(&mut self) -> Table {
        let mut unknown: Vec<(String, Span)> = self
            .table
            .keys()
            .filter(|key| !self.asked.contains(&key.get_ref().as_ref()))
            .map(|key| (key.get_ref().clone().into_owned(), key.span()))
            .collect();
        unknown.sort_by_key(|(_, span)| span.start);
        for (name, span) in unknown {
            let found = self.unknown(&name, span);
            self.found.push(found);
        }
        for name in self.needed.clone() {
            if self.table.get(name).is_none() && !self.broken.iter().any(|it| it == name) {
                let message = format!("{} has no {name}", self.what);
                let mut found = Diagnostic::new(&MISSING_FIELD, Some(self.span.clone()), message);
                found.remedy(format!("Add {name} = \"…\"."));
                self.broken.push(name.to_owned());
                self.found.push(found);
            }
        }
        Table { span: self.span.clone(), broken: std::mem::take(&mut self.broken) }
    }

    fn unknown(&mut self, name: &str, span: Span) -> Diagnostic {
        if is_secret(name) {
            let message = format!("{name} looks like a secret");
            return Diagnostic::new(&SECRET, Some(span), message);
        }
        let message = format!("{} has no field {name}", self.what);
        let mut found = Diagnostic::new(&UNKNOWN_FIELD, Some(span), message);
        let free = |known: &&&'static str| self.table.get(**known).is_none();
        let lower = name.to_ascii_lowercase();
        let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours);
        let close = synonym
            .filter(|ours| self.asked.contains(ours))
            .or_else(|| meant(&lower, self.asked.iter().filter(free).copied()));
        if let Some(close) = close {
            found.remedy(format!("Did you mean {close}?"));
            self.broken.push(close.to_owned());
        }
        found
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> &[&'static str] {
        &self.asked
    }
}

pub(super) fn text_of(value: &Spanned<DeValue<'_>>) -> Option<Placed<String>> {
    value.get_ref().as_str().map(|text| Placed::new(text.to_owned(), value.span()))
}

pub(super) fn port_of(value: &Spanned<DeValue<'_>>) -> Option<Placed<u16>> {
    let integer = value.get_ref().as_integer()?;
    let port = u16::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    Some(Placed::new(port, value.span()))
}

/// A setting's value as PostgreSQL reads it.
pub(super) fn setting_of(value: &Spanned<DeValue<'_>>) -> Option<Placed<String>> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()?.to_string()
        }
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(true) => "on".to_owned(),
        DeValue::Boolean(false) => "off".to_owned(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    };
    Some(Placed::new(text, value.span()))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
