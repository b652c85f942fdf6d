//! The server connections: found, opened, kept for the next client, and bounded in number.
//!
//! A connection belongs to a user, a database and the parameters that it began with, and to the
//! term of the principal that it was made in; when the term is over it is closed. Whoever needs a
//! connection while there is no principal waits for one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use wire::frame::push;

use crate::clock::{self, Moment};
use crate::config::{LoweredCommit, Pooling};
use crate::conversation::{ServerSide, push_ids};
use crate::counters::{Gauge, Inside};
use crate::exchange::{ExchangeError, Server};
use crate::house::House;
use crate::login::Credentials;
use crate::login::to_server::{ServerError, ServerReport, Whom, log_in};
use crate::mode::Mode;
use crate::refusal::{self, Refusal};
use crate::route::Snapshot;
use crate::socket;

/// From one try to the next, where no change of the route can be waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the log says nothing more of a user whom no server lets in, and of how many it knows.
const TELL_AGAIN: Duration = Duration::from_secs(60);
const MOST_TOLD: usize = 1_000;

/// Whose connection it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub user: String,
    pub database: String,
    pub parameters: Vec<(String, String)>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoServer {
    Refused(&'static Refusal),
    /// In the server's own words.
    Passed(ServerReport),
}

/// A connection in use. Whoever drops it closes it.
#[derive(Debug)]
pub struct Held {
    pub server: Server,
    permit: Permit,
    used: Option<Inside>,
}

/// Named statements that one connection has for all its client sessions.
const SHARED_STATEMENTS: usize = 2_000;

impl Held {
    /// It may go from one client session to the next without being cleaned.
    pub fn may_be_shared(&self) -> bool {
        let side = &self.server.side;
        let shared = side.shared.as_ref().map_or(0, |shared| shared.borrow().len());
        !self.server.special && !side.standby && shared <= SHARED_STATEMENTS
    }
}

#[derive(Debug)]
struct Permit {
    open: Rc<Cell<usize>>,
    freed: Rc<Notify>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
        self.freed.notify_one();
    }
}

#[derive(Debug, Default)]
pub struct Servers {
    idle: RefCell<HashMap<Rc<Key>, Vec<Held>>>,
    idle_count: Cell<usize>,
    open: Rc<Cell<usize>>,
    /// Wakes the first in the queue: there is room, or a connection to be had.
    freed: Rc<Notify>,
    /// So many wait in the queue, and nobody is served before them.
    queued: Gauge,
    serial: Cell<u64>,
    /// When the log last said of a user that no server lets the gateway in.
    told: RefCell<HashMap<String, Moment>>,
}

/// Where a connection may be made.
struct Target {
    member: String,
    host: String,
    port: u16,
    term: u64,
    timeline: u32,
    standby: bool,
}

impl Servers {
    /// A number that no other use of a connection has.
    pub fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// A kept connection, if one is there at once.
    pub fn at_once(&self, house: &House, key: &Rc<Key>) -> Option<Held> {
        (self.queued.get() == 0).then(|| self.take(house, key)).flatten()
    }

    /// A connection for this key, to the principal, or to a standby if it only `reads` and there is
    /// no principal.
    pub async fn get(
        &self,
        house: &House,
        key: &Rc<Key>,
        credentials: &Credentials,
        reads: bool,
    ) -> Result<Held, NoServer> {
        if let Some(held) = self.at_once(house, key) {
            return Ok(held);
        }
        let waiting = house.counters.waiting.enter();
        if house.counters.waiting.get() as usize > house.config.file.limits.held {
            return Err(NoServer::Refused(&refusal::TOO_MANY_HELD));
        }
        let _named = house.registry.wait(key);
        let since = Instant::now();
        let mut waited = false;
        let found = self.wait(house, key, credentials, reads, &mut waited).await;
        drop(waiting);
        match &found {
            Ok(_) if waited => house.counters.held(since.elapsed()),
            Ok(_) => {}
            Err(_) if waited => house.counters.held_in_vain(since.elapsed()),
            Err(_) => {}
        }
        found
    }

    /// A connection to the principal, for a question on which the truth about a commit depends: it
    /// waits among as many others as there are.
    pub async fn get_for_doubt(
        &self,
        house: &House,
        key: &Rc<Key>,
        credentials: &Credentials,
    ) -> Result<Held, NoServer> {
        let _waiting = (house.counters.waiting.enter(), house.registry.wait(key));
        match self.take(house, key) {
            Some(held) => Ok(held),
            None => self.wait(house, key, credentials, false, &mut false).await,
        }
    }

    async fn wait(
        &self,
        house: &House,
        key: &Rc<Key>,
        credentials: &Credentials,
        reads: bool,
        waited: &mut bool,
    ) -> Result<Held, NoServer> {
        let deadline = Instant::now() + house.config.file.times.hold();
        let mut last = NoServer::Refused(&refusal::NO_PRINCIPAL);
        let mut first = false;
        loop {
            let changed = house.pool.changed();
            let mut mode = house.mode.subscribe();
            let snapshot = house.pool.current();
            let mut queues = None;
            let target = target(house, &snapshot, reads);
            if first && !matches!(target, Ok(Some(_))) {
                // It has no use for what it was woken for; the next one may have.
                self.freed.notify_one();
            }
            let until = match target? {
                None => deadline,
                Some(target) => {
                    let may = first || self.queued.get() == 0;
                    if may && let Some(held) = self.take(house, key) {
                        return Ok(held);
                    }
                    match may.then(|| self.permit(house)).flatten() {
                        None => {
                            queues = Some(self.queued.enter());
                            deadline
                        }
                        Some(permit) => {
                            match self.open(house, &target, key, credentials, permit).await {
                                Ok(held) => return Ok(held),
                                Err(error) if is_lasting(&error) => {
                                    return Err(self.passed(error, key, &target));
                                }
                                Err(ServerError::Refused(report)) => {
                                    last = NoServer::Passed(report);
                                }
                                Err(_unreachable) => {}
                            }
                            deadline.min(Instant::now() + PAUSE)
                        }
                    }
                }
            };
            *waited = true;
            first = false;
            tokio::select! {
                () = changed => {}
                // Only who could use it may be woken: one is, for each that is freed.
                () = self.freed.notified(), if queues.is_some() => first = true,
                _changed = mode.changed() => {}
                () = sleep_until(until) => {}
            }
            if Instant::now() >= deadline {
                if first {
                    self.freed.notify_one();
                }
                return Err(last);
            }
        }
    }

    /// What the client is told of an error that would be the same the next time.
    fn passed(&self, error: ServerError, key: &Key, target: &Target) -> NoServer {
        if let ServerError::Refused(report) = error {
            return NoServer::Passed(report);
        }
        let now = clock::now();
        let mut told = self.told.borrow_mut();
        told.retain(|_, at| now.since(*at) < TELL_AGAIN);
        // Whoever is turned away comes again, often at once.
        if told.len() < MOST_TOLD && !told.contains_key(&key.user) {
            told.insert(key.user.clone(), now);
            tracing::warn!(
                user = key.user,
                database = key.database,
                server = %format_args!("{}:{}", target.host, target.port),
                %error,
                remedy = remedy(&error),
                "a server does not let the gateway in for a user"
            );
        }
        NoServer::Refused(&refusal::NOT_LET_IN)
    }

    /// A kept connection that still lives.
    fn take(&self, house: &House, key: &Rc<Key>) -> Option<Held> {
        let snapshot = house.pool.current();
        let principal = snapshot.principal.as_ref().filter(|found| !found.handing_over)?;
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(key)?;
        while let Some(mut held) = kept.pop() {
            self.idle_count.set(self.idle_count.get() - 1);
            if held.server.side.term == principal.term && held.server.stream.is_quiet() {
                held.used = Some(house.counters.servers_used.enter());
                return Some(held);
            }
        }
        None
    }

    /// Leave to open one more, for which another kept one may have to go.
    fn permit(&self, house: &House) -> Option<Permit> {
        if self.open.get() >= house.config.file.limits.server_connections {
            // Its place is passed on, so that nobody else is woken for it.
            return self.evict().map(|held| held.permit);
        }
        self.open.set(self.open.get() + 1);
        Some(Permit { open: Rc::clone(&self.open), freed: Rc::clone(&self.freed) })
    }

    /// One of those that are kept, to be closed.
    fn evict(&self) -> Option<Held> {
        let mut idle = self.idle.borrow_mut();
        let found = idle.values_mut().find_map(|kept| (!kept.is_empty()).then(|| kept.remove(0)));
        if found.is_some() {
            self.idle_count.set(self.idle_count.get() - 1);
        }
        idle.retain(|_, kept| !kept.is_empty());
        found
    }

    /// A new connection, in the place that `permit` stands for.
    async fn open(
        &self,
        house: &House,
        target: &Target,
        key: &Rc<Key>,
        credentials: &Credentials,
        permit: Permit,
    ) -> Result<Held, ServerError> {
        let _opening = house.counters.servers_opening.enter();
        let server = self.connect(house, target, key, credentials).await?;
        Ok(Held { server, permit, used: Some(house.counters.servers_used.enter()) })
    }

    async fn connect(
        &self,
        house: &House,
        target: &Target,
        key: &Rc<Key>,
        credentials: &Credentials,
    ) -> Result<Server, ServerError> {
        let times = &house.config.file.times;
        let connected = timeout(times.connect(), async {
            let prepare = |socket: &_| socket::prepare(socket, times.user_timeout());
            let address = (target.host.as_str(), target.port);
            let mut stream = house.dialler.dial(&target.member, address, prepare).await?;
            let end_point = stream.server_end_point();
            let whom = Whom { user: &key.user, database: &key.database, end_point };
            let hello = log_in(&mut stream, &whom, &key.parameters, credentials).await?;
            Ok::<_, ServerError>((stream, hello))
        });
        let (stream, hello) = connected.await.unwrap_or(Err(ServerError::Ended))?;
        let mut server = Server {
            stream,
            unread: hello.buffered,
            side: ServerSide {
                serial: self.next_serial(),
                term: target.term,
                timeline: target.timeline,
                standby: target.standby,
                ids_prepared: false,
                shared: (house.config.file.pooling == Pooling::Transaction).then(Default::default),
            },
            parameters: hello.parameters.into_iter().collect(),
            member: target.member.clone(),
            host: target.host.clone(),
            port: target.port,
            process: hello.process,
            key: hello.key,
            special: false,
            lowered: false,
        };
        let settled = timeout(times.connect(), settle(house, &mut server)).await;
        settled.unwrap_or(Err(ServerError::Ended))?;
        Ok(server)
    }

    /// Cleans a connection that its client session does not need any more, and keeps it.
    pub async fn give_back(&self, house: &House, key: Rc<Key>, mut held: Held) {
        let limit = house.config.file.limits.idle_server_connections;
        if held.server.side.standby || held.server.special || limit == 0 {
            return;
        }
        if self.idle_count.get() >= limit {
            drop(self.evict());
        }
        let mut bytes = Vec::new();
        wire::message::push_query(&mut bytes, "DISCARD ALL");
        let cleaned =
            timeout(house.config.file.times.connect(), held.server.exchange(&bytes, 1)).await;
        let Ok(Ok(answer)) = cleaned else {
            return;
        };
        let principal = house.pool.current().principal.as_ref().map(|found| found.term);
        if answer.error.is_some() || principal != Some(held.server.side.term) {
            return;
        }
        // Made again when they are needed: many a client session only reads.
        held.server.side.ids_prepared = false;
        if let Some(shared) = &held.server.side.shared {
            shared.borrow_mut().clear();
        }
        self.keep(key, held);
    }

    /// Keeps a connection that needs no cleaning.
    pub fn keep(&self, key: Rc<Key>, mut held: Held) {
        held.server.side.serial = self.next_serial();
        held.used = None;
        self.idle_count.set(self.idle_count.get() + 1);
        self.idle.borrow_mut().entry(key).or_default().push(held);
        self.freed.notify_one();
    }

    /// Closes what was kept of other terms than that of the principal.
    pub fn clear_except(&self, term: Option<u64>) {
        let mut idle = self.idle.borrow_mut();
        for kept in idle.values_mut() {
            kept.retain(|held| Some(held.server.side.term) == term);
        }
        idle.retain(|_, kept| !kept.is_empty());
        self.idle_count.set(idle.values().map(Vec::len).sum());
    }
}

/// What every connection begins with: nobody's defaults may lower what a commit waits for, or hide
/// the warning that it did not wait.
async fn settle(house: &House, server: &mut Server) -> Result<(), ServerError> {
    const LOOK: &str = "SELECT pg_catalog.current_setting('synchronous_commit'), \
                        pg_catalog.current_setting('client_min_messages')";
    let lost = |_error: ExchangeError| ServerError::Ended;
    let mut bytes = Vec::new();
    push_ids(&mut bytes, house.config.file.lowered_commit == LoweredCommit::Refuse);
    push(&mut bytes, b'S', |_| {});
    wire::message::push_query(&mut bytes, LOOK);
    let answer = server.exchange(&bytes, 2).await.map_err(lost)?;
    if answer.error.is_some() {
        return Err(ServerError::Ended);
    }
    server.side.ids_prepared = true;
    let mut found = answer.rows.into_iter().flatten().flatten();
    let (commit, messages) = (found.next().unwrap_or_default(), found.next().unwrap_or_default());
    let mut mend = String::new();
    let lowered = matches!(commit.as_str(), "off" | "local" | "remote_write");
    server.lowered = lowered && house.config.file.lowered_commit == LoweredCommit::Warn;
    if lowered && !server.lowered {
        mend.push_str("SET synchronous_commit = on;");
    }
    if matches!(messages.as_str(), "error" | "fatal" | "panic") {
        mend.push_str("SET client_min_messages = warning;");
    }
    if !mend.is_empty() {
        server.special = true;
        server.order(&mend).await.map_err(lost)?;
    }
    Ok(())
}

/// Where a connection may be made now.
fn target(house: &House, snapshot: &Snapshot, reads: bool) -> Result<Option<Target>, NoServer> {
    if let Some(principal) = &snapshot.principal {
        return Ok((!principal.handing_over).then(|| Target {
            member: principal.member.clone(),
            host: principal.host.clone(),
            port: principal.port,
            term: principal.term,
            timeline: principal.timeline,
            standby: false,
        }));
    }
    let standby = snapshot.standby.as_ref().map(|standby| Target {
        member: standby.member.clone(),
        host: standby.host.clone(),
        port: standby.port,
        term: snapshot.highest_term,
        timeline: 0,
        standby: true,
    });
    match (house.mode.current(), reads) {
        (Mode::Normal | Mode::WithoutPrincipal { .. }, _) => Ok(None),
        (Mode::StandbyReads { .. }, false) => Ok(None),
        (Mode::StandbyReads { .. }, true) => Ok(standby),
        (Mode::Resiliency { .. }, false) => {
            house.counters.refused_writes.add();
            Err(NoServer::Refused(&refusal::RESILIENCY))
        }
        (Mode::Resiliency { .. }, true) => {
            standby.map(Some).ok_or(NoServer::Refused(&refusal::RESILIENCY_NO_COPY))
        }
    }
}

/// It would be the same the next time.
fn is_lasting(error: &ServerError) -> bool {
    match error {
        ServerError::Io(_) | ServerError::Ended => false,
        ServerError::Refused(report) => {
            !(report.sqlstate().starts_with("57P") || report.sqlstate() == "53300")
        }
        ServerError::Malformed(_)
        | ServerError::Unexpected(_)
        | ServerError::Unanswerable(_)
        | ServerError::Scram(_) => true,
    }
}

/// What an administrator can do about a server that does not let the gateway in.
fn remedy(error: &ServerError) -> &'static str {
    match error {
        ServerError::Unanswerable(_) => {
            "let the user in from this machine by scram-sha-256 (`client_access` of the pool), and \
             give it a password of that kind; or add it to `trust` of the Front End if the servers \
             let it in without any"
        }
        ServerError::Scram(_) => {
            "see whether the user's password is the same on both servers, and whether something \
             else than the pool's server answers at this address"
        }
        ServerError::Malformed(_) | ServerError::Unexpected(_) => {
            "see what answers at this address: it does not talk as PostgreSQL does"
        }
        ServerError::Io(_) | ServerError::Ended | ServerError::Refused(_) => {
            "see the server's own log"
        }
    }
}
