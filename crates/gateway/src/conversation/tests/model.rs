//! A modelled PostgreSQL server: the protocol's rules, transactions, and a log of what was
//! committed. It knows a handful of statements, by their text.

use std::collections::HashMap;

use wire::frame::{push, split};

use super::super::{FAILED, IDLE, MAKE_ID_TEXT, OPEN};

/// What one commit made durable, and how many bytes had been sent before anybody could know.
#[derive(Clone, Debug)]
pub struct Committed {
    pub id: Option<u64>,
    pub rows: Vec<u32>,
    pub before: usize,
}

#[derive(Debug)]
struct Copy {
    extended: bool,
    rows: Vec<u32>,
    /// Statements of the same simple query that are still to run.
    rest: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Model {
    input: Vec<u8>,
    output: Vec<u8>,
    flushed: usize,
    pub taken: usize,
    pub status: u8,
    pub read_only: bool,
    skipping: bool,
    copy: Option<Copy>,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    rows: Vec<u32>,
    savepoint: Option<usize>,
    id: Option<u64>,
    next_id: u64,
    pub log: Vec<Committed>,
}

struct Failed;

impl Model {
    pub fn new(first_id: u64) -> Model {
        Model { status: IDLE, next_id: first_id, ..Model::default() }
    }

    /// Up to `count` bytes of what it has sent.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.flushed);
        self.flushed -= count;
        self.taken += count;
        self.output.drain(..count).collect()
    }

    pub fn has_output(&self) -> bool {
        self.flushed > 0
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Ok(Some(frame)) = split(&self.input, usize::MAX) {
            let (tag, body, size) = (frame.tag, frame.body.to_vec(), frame.size());
            self.input.drain(..size);
            self.message(tag, &body);
        }
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        push(&mut self.output, tag, |out| out.extend_from_slice(body));
    }

    fn flush(&mut self) {
        self.flushed = self.output.len();
    }

    fn done(&mut self, tag: &str) {
        self.say(b'C', format!("{tag}\0").as_bytes());
    }

    fn fail(&mut self, sqlstate: &str) -> Failed {
        self.say(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0Mmodelled\0\0").as_bytes());
        self.flush();
        self.copy = None;
        if self.status == OPEN {
            self.status = FAILED;
        } else if self.status == IDLE {
            self.rows.clear();
            self.id = None;
        }
        Failed
    }

    fn ready(&mut self) {
        self.say(b'Z', &[self.status]);
        self.flush();
    }

    fn commit(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let id = self.id.take();
        self.savepoint = None;
        let before = self.taken + self.output.len();
        if id.is_some() || !rows.is_empty() {
            self.log.push(Committed { id, rows, before });
        }
        self.portals.clear();
    }

    fn write(&mut self, row: u32) -> Result<(), Failed> {
        if self.read_only {
            return Err(self.fail("25006"));
        }
        self.id();
        self.rows.push(row);
        Ok(())
    }

    fn id(&mut self) -> u64 {
        let next = &mut self.next_id;
        *self.id.get_or_insert_with(|| {
            *next += 1;
            *next
        })
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.data(tag, body);
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let failed = match tag {
            b'Q' => return self.query(body),
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(body),
            b'C' => {
                let (kind, name) = (body[0], body[1..body.len() - 1].to_vec());
                if kind == b'S' {
                    self.statements.remove(&name);
                } else {
                    self.portals.remove(&name);
                }
                self.say(b'3', b"");
                Ok(())
            }
            b'H' => {
                self.flush();
                Ok(())
            }
            b'S' => {
                self.skipping = false;
                if self.status == IDLE {
                    self.commit();
                }
                return self.ready();
            }
            // What is left of a COPY that has failed.
            b'd' | b'c' | b'f' => Ok(()),
            _unknown => panic!("the server got {:?}", char::from(tag)),
        };
        self.skipping = failed.is_err();
    }

    fn data(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'd' => {
                let row = std::str::from_utf8(body).unwrap().trim().parse().unwrap();
                self.copy.as_mut().unwrap().rows.push(row);
            }
            b'H' | b'S' => {}
            b'c' => {
                let copy = self.copy.take().unwrap();
                for row in &copy.rows {
                    let _in_copy = self.write(*row);
                }
                self.done(&format!("COPY {}", copy.rows.len()));
                if !copy.extended {
                    self.run_all(copy.rest);
                }
            }
            b'f' => {
                let extended = self.copy.as_ref().unwrap().extended;
                self.fail("57014");
                self.skipping = extended;
                if !extended {
                    self.ready();
                }
            }
            _other => panic!("the server got {:?} instead of data", char::from(tag)),
        }
    }

    fn query(&mut self, body: &[u8]) {
        let text = std::str::from_utf8(body).unwrap().trim_end_matches('\0');
        let text = text.split(" /*").next().unwrap_or_default();
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        self.run_all(parts.map(str::to_owned).collect());
    }

    fn run_all(&mut self, parts: Vec<String>) {
        let mut parts = parts.into_iter();
        while let Some(part) = parts.next() {
            let described = columns(&part);
            let legal = self.status != FAILED || is_exit(&part);
            if described && legal {
                self.say(b'T', &[0, 0]);
            }
            if self.run(&part, false).is_err() {
                break;
            }
            if let Some(copy) = &mut self.copy {
                copy.rest = parts.collect();
                return;
            }
        }
        if self.status == IDLE {
            self.commit();
        }
        self.ready();
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Failed> {
        let mut parts = body.split(|byte| *byte == 0);
        let name = parts.next().unwrap().to_vec();
        let text = std::str::from_utf8(parts.next().unwrap()).unwrap();
        let text = text.split(" /*").next().unwrap_or_default().to_owned();
        if name.is_empty() {
            self.statements.remove(&name);
        }
        if self.status == FAILED && !is_exit(&text) {
            return Err(self.fail("25P02"));
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(self.fail("42P05"));
        }
        if text == "broken" {
            return Err(self.fail("42601"));
        }
        self.statements.insert(name, text);
        self.say(b'1', b"");
        Ok(())
    }

    /// Of the parameters only one is understood, and only as a text.
    fn bind(&mut self, body: &[u8]) -> Result<(), Failed> {
        let zero = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).unwrap();
        let (portal, rest) = body.split_at(zero(body));
        let rest = &rest[1..];
        let (name, rest) = rest.split_at(zero(rest));
        let Some(text) = self.statements.get(name).cloned() else {
            return Err(self.fail("26000"));
        };
        if self.status == FAILED && !is_exit(&text) {
            return Err(self.fail("25P02"));
        }
        let text = match &rest[1..] {
            [0, 0, 0, 1, 0, 0, 0, length, value @ ..] => {
                let value = std::str::from_utf8(&value[..usize::from(*length)]).unwrap();
                text.replace("$1", value)
            }
            _none => text,
        };
        self.portals.insert(portal.to_vec(), text);
        self.say(b'2', b"");
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failed> {
        let name = &body[1..body.len() - 1];
        let of = if body[0] == b'S' { &self.statements } else { &self.portals };
        let Some(text) = of.get(name).cloned() else {
            return Err(self.fail("26000"));
        };
        if body[0] == b'S' {
            self.say(b't', &[0, 0]);
        }
        if columns(&text) {
            self.say(b'T', &[0, 0])
        } else {
            self.say(b'n', b"")
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Failed> {
        let end = body.iter().position(|byte| *byte == 0).unwrap();
        let Some(text) = self.portals.get(&body[..end]).cloned() else {
            return Err(self.fail("34000"));
        };
        self.run(&text, true)
    }

    fn run(&mut self, text: &str, extended: bool) -> Result<(), Failed> {
        if self.status == FAILED && !is_exit(text) {
            return Err(self.fail("25P02"));
        }
        let row = || text.split(['(', ')']).nth(1).unwrap().parse().unwrap();
        if text.starts_with("SELECT pg_catalog.pg_current_xact_id") {
            return self.answer_id(text);
        }
        match text {
            "begin" => {
                self.status = OPEN;
                self.done("BEGIN");
            }
            "commit and chain" if self.status == IDLE => return Err(self.fail("25P01")),
            "commit" | "commit and chain" if self.status != FAILED => {
                let chain = text != "commit";
                self.commit();
                self.done("COMMIT");
                self.status = if chain { OPEN } else { IDLE };
            }
            "commit and chain" | "rollback" | "commit" => {
                self.rows.clear();
                self.id = None;
                self.savepoint = None;
                self.portals.clear();
                self.status = if text.ends_with("chain") { OPEN } else { IDLE };
                self.done("ROLLBACK");
            }
            "savepoint s" if self.status == IDLE => return Err(self.fail("25P01")),
            "savepoint s" => {
                self.savepoint = Some(self.rows.len());
                self.done("SAVEPOINT");
            }
            "rollback to s" => {
                let Some(rows) = self.savepoint else {
                    return Err(self.fail(if self.status == IDLE { "25P01" } else { "3B001" }));
                };
                self.rows.truncate(rows);
                self.status = OPEN;
                self.done("ROLLBACK");
            }
            "copy t from stdin" => {
                if self.read_only {
                    return Err(self.fail("25006"));
                }
                self.say(b'G', &[0, 0, 0]);
                self.flush();
                self.copy = Some(Copy { extended, rows: Vec::new(), rest: Vec::new() });
            }
            "select 1/0" => return Err(self.fail("22012")),
            "update t set a = 1 where false" => self.done("UPDATE 0"),
            "set x.y to 1" => self.done("SET"),
            "deallocate all" => {
                self.statements.clear();
                self.done("DEALLOCATE ALL");
            }
            _ if text.starts_with("insert") => {
                self.write(row())?;
                if columns(text) {
                    self.say(b'D', &[0, 0]);
                }
                self.done("INSERT 0 1");
            }
            _ if text.starts_with("call") => {
                self.write(row())?;
                self.done("CALL");
            }
            _ if text.starts_with("select f(") => {
                self.write(row())?;
                self.say(b'D', &[0, 0]);
                self.done("SELECT 1");
            }
            _ if text.starts_with("select") => {
                self.say(b'D', &[0, 0]);
                self.done("SELECT 1");
            }
            _ => panic!("the server got {text:?}"),
        }
        Ok(())
    }

    fn answer_id(&mut self, text: &str) -> Result<(), Failed> {
        if text.starts_with(MAKE_ID_TEXT) {
            self.id();
        }
        let mut row = vec![0, 2];
        match self.id.map(|id| id.to_string()) {
            Some(id) => {
                row.extend_from_slice(&u32::try_from(id.len()).unwrap().to_be_bytes());
                row.extend_from_slice(id.as_bytes());
            }
            None => row.extend_from_slice(&[0xff; 4]),
        }
        row.extend_from_slice(&[0, 0, 0, 1]);
        row.push(b'r');
        self.say(b'D', &row);
        self.done("SELECT 1");
        Ok(())
    }
}

fn columns(text: &str) -> bool {
    text.starts_with("select") || text.ends_with("returning a")
}

fn is_exit(text: &str) -> bool {
    text.starts_with("commit") || text.starts_with("rollback")
}
