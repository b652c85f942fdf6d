//! A modelled client: it sends what its script says, and holds every answer against the protocol.
//! What it was told of each row is what the log is compared with in the end.

use std::collections::{HashMap, HashSet, VecDeque};

use wire::frame::{push, split};
use wire::message::{Fields, field};

use super::super::{FAILED, IDLE, OPEN};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Statement {
    Select,
    /// A function that writes.
    Calls,
    Insert,
    Returning,
    /// A write that writes nothing.
    Nothing,
    Fails,
    Begin,
    Commit,
    Chain,
    Rollback,
    Savepoint,
    RollbackTo,
    Copy,
    Procedure,
    Set,
    Deallocate,
}

/// Statements that are sent together: a simple query, or an extended batch.
#[derive(Clone, Debug)]
pub struct Group {
    pub simple: bool,
    /// It is not sent before everything is answered.
    pub waits: bool,
    pub named: bool,
    pub describes: bool,
    /// A Flush, and waiting for what it brings, follows each statement.
    pub flushes: bool,
    /// The data of a COPY are sent at once.
    pub eager: bool,
    /// The COPY is ended with an error.
    pub gives_up: bool,
    /// Its texts are larger than what is kept.
    pub large: bool,
    pub statements: Vec<Statement>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Committed,
    NotCommitted,
    Unknown,
}

#[derive(Clone, Debug)]
struct Made {
    statement: Statement,
    rows: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Due {
    Parse(&'static str),
    Bind,
    Close,
    Describe,
    DescribeStatement,
    Execute(Made),
    Sync,
    Query(VecDeque<Made>),
}

#[derive(Debug)]
enum Step {
    Send(Vec<u8>, Vec<Due>),
    /// Everything that was asked for must be here.
    Await,
}

#[derive(Debug, Default)]
pub struct Client {
    script: VecDeque<Group>,
    steps: VecDeque<Step>,
    pub outgoing: Vec<u8>,
    /// A Sync may not come apart from the Execute of a COPY: it counts or not, depending on when
    /// the server reads it.
    pub in_one_piece: bool,
    incoming: Vec<u8>,
    due: VecDeque<Due>,
    /// The batch that is answered now has failed.
    failed: bool,
    last_error: Option<Told>,
    /// Messages up to the Sync that is sent next are passed over.
    skipping: bool,
    group: Option<Group>,
    /// The data of a COPY have been sent, or will not be.
    copied: bool,
    open: Option<Vec<u32>>,
    /// How many of the open rows are before the savepoint.
    savepoint: usize,
    implicit: Vec<u32>,
    pub told: HashMap<u32, Told>,
    pub made: Vec<u32>,
    prepared: HashSet<&'static str>,
    pub over: bool,
    pub codes: Vec<String>,
    pub ends: usize,
    pub groups: usize,
}

const NAMED: [(Statement, &str, &str); 5] = [
    (Statement::Insert, "ins", "insert into t values ($1)"),
    (Statement::Select, "sel", "select $1"),
    (Statement::Begin, "beg", "begin"),
    (Statement::Commit, "com", "commit"),
    (Statement::Rollback, "rol", "rollback"),
];

impl Client {
    pub fn new(script: Vec<Group>) -> Client {
        let groups = script.len();
        Client { script: script.into(), groups, ..Client::default() }
    }

    pub fn is_done(&self) -> bool {
        self.over || self.is_idle() && self.script.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty() && self.steps.is_empty() && self.outgoing.is_empty()
    }

    fn make(&mut self, statement: Statement) -> Made {
        let count = match statement {
            Statement::Insert | Statement::Returning | Statement::Calls | Statement::Procedure => 1,
            Statement::Copy => 2,
            _none => 0,
        };
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(100 + u32::try_from(self.made.len()).unwrap());
            self.made.push(rows[rows.len() - 1]);
        }
        Made { statement, rows }
    }

    /// Puts what may be sent now into `outgoing`.
    pub fn go_on(&mut self) {
        loop {
            match self.steps.pop_front() {
                Some(Step::Await) if !self.due.is_empty() => {
                    self.steps.push_front(Step::Await);
                    return;
                }
                Some(Step::Await) => {}
                Some(Step::Send(bytes, due)) => {
                    self.outgoing.extend_from_slice(&bytes);
                    for due in due {
                        if !self.skipping || matches!(due, Due::Sync | Due::Query(_)) {
                            self.skipping = false;
                            self.due.push_back(due);
                        } else if let Due::Execute(made) = due {
                            self.tell(&made.rows, Told::NotCommitted);
                        }
                    }
                }
                None => {
                    let copies = |group: &Group| group.statements.contains(&Statement::Copy);
                    let busy = !self.due.is_empty();
                    let Some(next) = self.script.front() else { return };
                    let waits = next.waits
                        || copies(next)
                        || self.group.as_ref().is_some_and(copies)
                        || self.group.as_ref().is_some_and(|group| group.flushes);
                    if busy && waits {
                        return;
                    }
                    let Some(next) = self.script.pop_front() else { return };
                    self.group = Some(next.clone());
                    self.copied = next.eager;
                    self.in_one_piece = !next.simple && copies(&next);
                    if next.simple { self.simple(&next) } else { self.extended(&next) }
                }
            }
        }
    }

    fn send(&mut self, tag: u8, body: &[u8], due: Vec<Due>) {
        let mut bytes = Vec::new();
        push(&mut bytes, tag, |out| out.extend_from_slice(body));
        self.steps.push_back(Step::Send(bytes, due));
    }

    fn simple(&mut self, group: &Group) {
        let made: VecDeque<Made> =
            group.statements.iter().map(|statement| self.make(*statement)).collect();
        let texts: Vec<String> = made.iter().map(text).collect();
        let end = if group.large { filler() } else { String::new() };
        let copy = made.iter().find(|made| made.statement == Statement::Copy).cloned();
        self.send(b'Q', format!("{}{end}\0", texts.join(";")).as_bytes(), vec![Due::Query(made)]);
        if let Some(copy) = copy.filter(|_| group.eager) {
            self.data(&copy.rows, group.gives_up);
        }
    }

    fn extended(&mut self, group: &Group) {
        for statement in &group.statements {
            let made = self.make(*statement);
            let mut name = "";
            let mut sql = text(&made);
            if group.large {
                sql.push_str(&filler());
            } else if group.named
                && let Some((_, named, text)) = NAMED.iter().find(|named| named.0 == *statement)
            {
                name = named;
                sql = (*text).to_owned();
            }
            if name.is_empty() || !self.prepared.contains(name) {
                let body = format!("{name}\0{sql}\0\0\0");
                self.send(b'P', body.as_bytes(), vec![Due::Parse(name)]);
            }
            if group.describes && made.rows.len() == 1 {
                let body = format!("S{name}\0");
                self.send(b'D', body.as_bytes(), vec![Due::DescribeStatement]);
            }
            let mut body = format!("\0{name}\0").into_bytes();
            let value = made.rows.first().map_or("7".to_owned(), u32::to_string);
            if sql.contains("$1") {
                body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, u8::try_from(value.len()).unwrap()]);
                body.extend_from_slice(value.as_bytes());
                body.extend_from_slice(&[0, 0]);
            } else {
                body.extend_from_slice(&[0; 6]);
            }
            self.send(b'B', &body, vec![Due::Bind]);
            if group.describes {
                self.send(b'D', b"P\0", vec![Due::Describe]);
            }
            let rows = made.rows.clone();
            self.send(b'E', &[0; 5], vec![Due::Execute(made)]);
            if *statement == Statement::Copy {
                if group.eager {
                    self.data(&rows, group.gives_up);
                }
            } else if group.flushes {
                self.send(b'H', b"", Vec::new());
                self.steps.push_back(Step::Await);
            }
        }
        if group.describes && !group.statements.contains(&Statement::Copy) {
            self.send(b'C', b"P\0", vec![Due::Close]);
        }
        self.send(b'S', b"", vec![Due::Sync]);
    }

    fn data(&mut self, rows: &[u32], gives_up: bool) {
        for row in rows {
            self.send(b'd', format!("{row}\n").as_bytes(), Vec::new());
        }
        if gives_up {
            self.send(b'f', b"enough\0", Vec::new());
        } else {
            self.send(b'c', b"", Vec::new());
        }
    }

    fn tell(&mut self, rows: &[u32], told: Told) {
        for row in rows {
            self.told.entry(*row).or_insert(told);
        }
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        while let Ok(Some(frame)) = split(&self.incoming, usize::MAX) {
            let (tag, body, size) = (frame.tag, frame.body.to_vec(), frame.size());
            self.incoming.drain(..size);
            assert!(!self.over, "something behind the last word");
            self.message(tag, &body);
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if matches!(tag, b'N' | b'S' | b'A') {
            return;
        }
        if tag == b'E' {
            return self.error(body);
        }
        let Some(front) = self.due.front_mut() else {
            panic!("{:?} answers nothing", char::from(tag));
        };
        if tag != b'Z' {
            assert!(!self.failed, "{:?} after an error, for {front:?}", char::from(tag));
        }
        let done = match (&mut *front, tag) {
            (Due::Parse(name), b'1') => {
                let name = *name;
                if !name.is_empty() {
                    self.prepared.insert(name);
                }
                true
            }
            (Due::Bind, b'2') | (Due::Close, b'3') => true,
            (Due::DescribeStatement, b't') => false,
            (Due::Describe | Due::DescribeStatement, b'T' | b'n') => true,
            (Due::Execute(_) | Due::Query(_), b'D') | (Due::Query(_), b'T') => false,
            (Due::Execute(made), b'C') => {
                let made = made.clone();
                self.completed(&made, body);
                true
            }
            (Due::Query(made), b'C') => {
                let made = made.pop_front().expect("a command that was not sent");
                self.completed(&made, body);
                false
            }
            (Due::Execute(made), b'G') => {
                let rows = made.rows.clone();
                self.asked_for_data(&rows, true);
                false
            }
            (Due::Query(made), b'G') => {
                let rows = made.front().expect("a COPY").rows.clone();
                self.asked_for_data(&rows, false);
                false
            }
            (Due::Sync | Due::Query(_), b'Z') => {
                self.ready(body[0]);
                true
            }
            (front, tag) => panic!("{:?} for {front:?}", char::from(tag)),
        };
        if done {
            self.due.pop_front();
        }
    }

    fn asked_for_data(&mut self, rows: &[u32], extended: bool) {
        if self.copied {
            return;
        }
        self.copied = true;
        let gives_up = self.group.as_ref().is_some_and(|group| group.gives_up);
        if extended {
            // The server has passed over the Sync, or will.
            self.due.retain(|due| !matches!(due, Due::Sync | Due::Close));
        }
        let last = std::mem::take(&mut self.steps);
        assert!(last.iter().all(|step| matches!(step, Step::Await)), "{last:?}");
        self.data(rows, gives_up);
        if extended {
            self.send(b'S', b"", vec![Due::Sync]);
        }
    }

    fn completed(&mut self, made: &Made, body: &[u8]) {
        let tag = std::str::from_utf8(body).unwrap().trim_end_matches('\0').to_owned();
        let expected = match made.statement {
            Statement::Select | Statement::Calls => "SELECT 1",
            Statement::Insert | Statement::Returning => "INSERT 0 1",
            Statement::Nothing => "UPDATE 0",
            Statement::Fails => panic!("a statement that fails was answered {tag}"),
            Statement::Begin => "BEGIN",
            Statement::Commit | Statement::Chain => {
                let chain = made.statement == Statement::Chain && self.open.is_some();
                let told = if tag == "COMMIT" { Told::Committed } else { Told::NotCommitted };
                assert!(tag == "COMMIT" || tag == "ROLLBACK", "{tag}");
                let rows = self.open.take().unwrap_or_else(|| std::mem::take(&mut self.implicit));
                self.tell(&rows, told);
                self.open = chain.then(Vec::new);
                self.savepoint = 0;
                return;
            }
            Statement::Rollback => {
                let rows = self.open.take().unwrap_or_else(|| std::mem::take(&mut self.implicit));
                self.tell(&rows, Told::NotCommitted);
                self.savepoint = 0;
                "ROLLBACK"
            }
            Statement::Savepoint => {
                self.savepoint = self.open.as_ref().map_or(0, Vec::len);
                "SAVEPOINT"
            }
            Statement::RollbackTo => {
                let open = self.open.as_mut().expect("a transaction");
                let rows = open.split_off(self.savepoint);
                self.tell(&rows, Told::NotCommitted);
                "ROLLBACK"
            }
            Statement::Copy => "COPY 2",
            Statement::Procedure => "CALL",
            Statement::Set => "SET",
            Statement::Deallocate => {
                self.prepared.clear();
                "DEALLOCATE ALL"
            }
        };
        assert_eq!(tag, expected);
        if made.statement == Statement::Begin && self.open.is_none() {
            self.open = Some(std::mem::take(&mut self.implicit));
        }
        match &mut self.open {
            Some(open) => open.extend_from_slice(&made.rows),
            None => self.implicit.extend_from_slice(&made.rows),
        }
    }

    fn error(&mut self, body: &[u8]) {
        let fields = Fields::of(body);
        let code = fields.sqlstate().to_owned();
        let told = if code == "08007" { Told::Unknown } else { Told::NotCommitted };
        self.codes.push(code);
        if fields.get(field::SEVERITY) == Some("FATAL") {
            self.over = true;
            return;
        }
        assert!(!self.failed, "a second error: {}", fields.message());
        self.failed = true;
        self.copied = true;
        let rows = std::mem::take(&mut self.implicit);
        self.tell(&rows, told);
        self.last_error = Some(told);
        // What is passed over.
        while let Some(due) = self.due.front() {
            match due {
                Due::Sync => return,
                Due::Query(made) => {
                    let rows: Vec<u32> = made.iter().flat_map(|made| made.rows.clone()).collect();
                    return self.tell(&rows, told);
                }
                Due::Execute(made) => {
                    let rows = made.rows.clone();
                    self.tell(&rows, told);
                }
                Due::Parse(_) | Due::Bind | Due::Close | Due::Describe | Due::DescribeStatement => {
                }
            }
            self.due.pop_front();
        }
        self.skipping = true;
    }

    fn ready(&mut self, status: u8) {
        self.ends += 1;
        if let Some(Due::Query(made)) = self.due.front() {
            assert!(self.failed || made.is_empty(), "no answer for {made:?}");
        }
        let implicit = std::mem::take(&mut self.implicit);
        match status {
            IDLE => {
                if let Some(open) = self.open.take() {
                    assert!(self.failed, "a transaction ended by itself");
                    let told = self.last_error.expect("an error");
                    self.tell(&open, told);
                }
                self.savepoint = 0;
                self.tell(&implicit, Told::Committed);
            }
            OPEN => {
                assert!(self.open.is_some() && implicit.is_empty(), "a transaction came by itself");
            }
            FAILED => {
                self.open.get_or_insert_default();
                self.tell(&implicit, Told::NotCommitted);
            }
            other => panic!("status {other}"),
        }
        self.failed = false;
    }
}

fn text(made: &Made) -> String {
    let row = made.rows.first().copied().unwrap_or_default();
    match made.statement {
        Statement::Select => "select 7".to_owned(),
        Statement::Calls => format!("select f({row})"),
        Statement::Insert => format!("insert into t values ({row})"),
        Statement::Returning => format!("insert into t values ({row}) returning a"),
        Statement::Nothing => "update t set a = 1 where false".to_owned(),
        Statement::Fails => "select 1/0".to_owned(),
        Statement::Begin => "begin".to_owned(),
        Statement::Commit => "commit".to_owned(),
        Statement::Chain => "commit and chain".to_owned(),
        Statement::Rollback => "rollback".to_owned(),
        Statement::Savepoint => "savepoint s".to_owned(),
        Statement::RollbackTo => "rollback to s".to_owned(),
        Statement::Copy => "copy t from stdin".to_owned(),
        Statement::Procedure => format!("call p({row})"),
        Statement::Set => "set x.y to 1".to_owned(),
        Statement::Deallocate => "deallocate all".to_owned(),
    }
}

/// What a large text ends with.
fn filler() -> String {
    format!(" /*{}*/", "x".repeat(5_000))
}
