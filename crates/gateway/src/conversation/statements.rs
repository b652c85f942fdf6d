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
    /// Its text could not be read: it may be anything.
    pub unread: bool,
    /// The server side that has it, by its serial.
    pub on: u64,
    /// The server has said so.
    pub taken: bool,
    /// Which of the Parse messages made it.
    pub number: u64,
}

#[derive(Debug, Default)]
pub struct Statements {
    /// What each name means; behind it what it will mean if the server takes that, too.
    named: HashMap<Box<[u8]>, Vec<Statement>>,
    unnamed: Vec<Statement>,
    bytes: usize,
    numbers: u64,
    /// There were more than can be kept.
    pub overflow: bool,
}

impl Statements {
    pub fn get(&self, name: &[u8]) -> Option<&Statement> {
        let named = || self.named.get(name).and_then(|meanings| meanings.last());
        if name.is_empty() { self.unnamed.last() } else { named() }
    }

    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Statement> {
        self.meanings(name).and_then(|meanings| meanings.last_mut())
    }

    fn meanings(&mut self, name: &[u8]) -> Option<&mut Vec<Statement>> {
        if name.is_empty() { Some(&mut self.unnamed) } else { self.named.get_mut(name) }
    }

    /// The number of the Parse message that makes it.
    pub fn put(&mut self, name: &[u8], statement: Statement) -> u64 {
        self.numbers += 1;
        let statement = Statement { number: self.numbers, ..statement };
        if !name.is_empty() {
            self.bytes += statement.parse.len();
            self.overflow |= self.bytes > LIMIT;
        }
        match self.meanings(name) {
            Some(meanings) => meanings.push(statement),
            None => {
                self.named.insert(name.into(), vec![statement]);
            }
        }
        self.numbers
    }

    /// The server has taken the statement.
    pub fn confirm(&mut self, name: &[u8], number: u64) {
        let Some(meanings) = self.meanings(name) else {
            return;
        };
        let Some(index) = meanings.iter().position(|meaning| meaning.number == number) else {
            return;
        };
        meanings[index].taken = true;
        let gone = meanings.drain(..index).map(|former| former.parse.len()).sum();
        self.forget_bytes(name, gone);
    }

    /// The server has refused the statement, or passed over it.
    pub fn refuse(&mut self, name: &[u8], number: u64) {
        let Some(meanings) = self.meanings(name) else {
            return;
        };
        let Some(index) = meanings.iter().position(|meaning| meaning.number == number) else {
            return;
        };
        // What had no name before is gone, if this one was not passed over.
        let first = if name.is_empty() { 0 } else { index };
        let gone = meanings.drain(first..=index).map(|refused| refused.parse.len()).sum();
        let last = meanings.is_empty();
        self.forget_bytes(name, gone);
        if last {
            self.named.remove(name);
        }
    }

    pub fn remove(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed.clear();
        } else if let Some(old) = self.named.remove(name) {
            self.forget_bytes(name, old.iter().map(|meaning| meaning.parse.len()).sum());
        }
    }

    fn forget_bytes(&mut self, name: &[u8], count: usize) {
        self.bytes -= if name.is_empty() { 0 } else { count };
    }

    /// No answer will come to what the server has not answered for.
    pub fn cut_off(&mut self) {
        self.unnamed.retain(|meaning| meaning.taken);
        let mut bytes = 0;
        self.named.retain(|_, meanings| {
            meanings.retain(|meaning| meaning.taken);
            bytes += meanings.iter().map(|meaning| meaning.parse.len()).sum::<usize>();
            !meanings.is_empty()
        });
        self.bytes = bytes;
    }

    /// A simple query destroys the unnamed statement.
    pub fn forget_unnamed(&mut self) {
        self.unnamed.clear();
    }

    pub fn clear(&mut self) {
        *self = Statements { numbers: self.numbers, ..Statements::default() };
    }
}
