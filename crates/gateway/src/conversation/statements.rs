//! The client session's prepared statements, and on which server connection each of them is.
//!
//! The whole Parse message is kept, so that a statement can be made again on another server when
//! it is bound next. The memory of one client session's statements is bounded; what is above it
//! cannot be made again, and the session then cannot be carried over.

use std::collections::HashMap;
use std::rc::Rc;

use wire::sql::{Kind, Touches};

/// Bytes of Parse messages that are kept for one client session.
const LIMIT: usize = 4 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Statement {
    /// The Parse message as it is sent to a server.
    pub parse: Rc<[u8]>,
    pub kind: Kind,
    pub touches: Touches,
    pub calls: bool,
    /// The server side that has it, by its serial.
    pub on: u64,
    /// What the name meant before, until the server has taken this one.
    pub prior: Option<Box<Statement>>,
}

#[derive(Debug, Default)]
pub struct Statements {
    named: HashMap<Box<[u8]>, Statement>,
    unnamed: Option<Statement>,
    bytes: usize,
    /// There were more than can be kept.
    pub overflow: bool,
}

impl Statements {
    pub fn get(&self, name: &[u8]) -> Option<&Statement> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Statement> {
        if name.is_empty() { self.unnamed.as_mut() } else { self.named.get_mut(name) }
    }

    pub fn put(&mut self, name: &[u8], mut statement: Statement) {
        if name.is_empty() {
            self.unnamed = Some(statement);
            return;
        }
        self.bytes += statement.parse.len();
        self.overflow |= self.bytes > LIMIT;
        let prior = self.named.remove(name);
        statement.prior = prior.map(|prior| Box::new(Statement { prior: None, ..prior }));
        self.named.insert(name.into(), statement);
    }

    /// The server has taken the statement.
    pub fn confirm(&mut self, name: &[u8]) {
        if let Some(prior) = self.named.get_mut(name).and_then(|found| found.prior.take()) {
            self.bytes -= prior.parse.len();
        }
    }

    /// The server has refused the statement.
    pub fn refuse(&mut self, name: &[u8]) {
        if let Some(refused) = self.named.remove(name) {
            self.bytes -= refused.parse.len();
            if let Some(prior) = refused.prior {
                self.named.insert(name.into(), *prior);
            }
        }
    }

    pub fn remove(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(old) = self.named.remove(name) {
            self.bytes -= old.parse.len() + old.prior.map_or(0, |prior| prior.parse.len());
        }
    }

    /// A simple query destroys the unnamed statement.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    pub fn clear(&mut self) {
        *self = Statements::default();
    }
}
