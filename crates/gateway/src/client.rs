//! One client session, from its log-in to its end.
//!
//! `turn` moves bytes and never waits; what must wait (for a server, for the outcome of a commit,
//! for the truth about the session) is done between turns, by `client/between.rs`.

mod between;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::server::{push_backend_key_data, push_parameter_status};

use crate::clock;
use crate::config::Pooling;
use crate::conversation::{Conversation, Heard, IDLE, Out, Stop};
use crate::counters::{End, Inside};
use crate::house::House;
use crate::login::{Credentials, LoggedIn};
use crate::refusal::{self, Refusal};
use crate::registry::Seated;
use crate::restore::Kept;
use crate::route::Lease;
use crate::servers::{Held, Key};
use crate::tls::Stream;

/// Bytes that may wait for the one side before the other is read again.
const BACKLOG: usize = 128 * 1024;
/// Memory that a client session keeps while nothing is under way.
const RESTING: usize = 1024;

/// Why a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    NeedServer {
        reads: bool,
    },
    ServerLost,
    /// The server has ended the client session, and the client has been told.
    EndedByServer,
    LookAtSession,
    /// The pool's principal, its term or its plans have changed.
    RouteChanged,
    ClientLeft,
    ClientLost,
    ClientBroken,
    Slow,
    Shutdown,
}

pub struct Client {
    house: Rc<House>,
    seat: Seated,
    stream: Stream,
    key: Rc<Key>,
    credentials: Credentials,
    talk: Conversation,
    /// From the client, not taken yet.
    pending: Vec<u8>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    server: Option<Held>,
    kept: Kept,
    generation: u64,
    /// What the client has been told of the server's parameters.
    told: Rc<BTreeMap<String, String>>,
    /// Why the walk over `pending` stopped.
    stop: Stop,
    client_closed: bool,
    restored: u64,
    /// Servers that failed while the client session was made again on them.
    attempts: u32,
    with_server: Option<Inside>,
    /// Something is under way on the principal.
    busy: Option<Inside>,
    /// TLS has bytes that the socket has not taken.
    unflushed: bool,
    server_unflushed: bool,
    /// Behind the end of a batch the server has said more.
    rewalk: bool,
    /// In this turn there was nothing to read; the task is woken when there is.
    server_silent: bool,
    client_silent: bool,
}

/// Serves a client that has logged in, until it leaves. It counts as here from now on.
pub fn serve(
    house: Rc<House>,
    logged_in: LoggedIn,
    connection: Inside,
) -> impl Future<Output = ()> + 'static {
    let here = house.counters.sessions.enter();
    let mut client = seat(house, logged_in);
    async move {
        let end = client.run().await;
        client.house.counters.ended(end);
        client.leave().await;
        drop((here, connection));
    }
}

fn seat(house: Rc<House>, logged_in: LoggedIn) -> Client {
    let key = Rc::new(Key {
        user: logged_in.user.clone(),
        database: logged_in.database.clone(),
        parameters: logged_in.parameters,
    });
    let long_key = logged_in.protocol >= wire::startup::PROTOCOL_3_2;
    let seat = house.registry.enter(&key.user, &key.database, long_key);
    let limit = house.config.file.limits.kept_bytes;
    let refuse = house.config.file.lowered_commit == crate::config::LoweredCommit::Refuse;
    Client {
        seat,
        stream: logged_in.stream,
        key,
        credentials: logged_in.credentials,
        talk: Conversation::new(limit, refuse),
        pending: logged_in.buffered,
        to_client: logged_in.unsent,
        to_server: Vec::new(),
        server: None,
        kept: Kept::default(),
        generation: house.pool.generation(),
        told: Rc::default(),
        stop: Stop::More,
        client_closed: false,
        restored: 0,
        attempts: 0,
        with_server: None,
        busy: None,
        unflushed: false,
        server_unflushed: false,
        rewalk: false,
        server_silent: false,
        client_silent: false,
        house,
    }
}

impl Client {
    async fn run(&mut self) -> End {
        if let Err(end) = Box::pin(self.greet()).await {
            return end;
        }
        loop {
            let next = poll_fn(|cx| self.turn(cx)).await;
            let going_on = match next {
                Next::NeedServer { reads } => Box::pin(self.find_server(reads)).await,
                Next::ServerLost => Box::pin(self.recover()).await,
                Next::LookAtSession => Box::pin(self.look_at_session()).await,
                Next::RouteChanged => Box::pin(self.route_changed()).await,
                Next::EndedByServer => Err(End::ByServer),
                Next::ClientLeft => Err(End::Left),
                Next::ClientLost => Err(End::Lost),
                Next::ClientBroken => {
                    self.last_word(&refusal::BROKEN);
                    Err(End::Malformed)
                }
                Next::Slow => Err(End::Slow),
                Next::Shutdown => {
                    self.last_word(&refusal::ENDING);
                    Err(End::Shutdown)
                }
            };
            if let Err(end) = going_on {
                return end;
            }
        }
    }

    /// Says why the client session ends, unless the client is in the middle of a message.
    fn last_word(&mut self, refused: &Refusal) {
        if !self.talk.is_in_a_message() {
            refused.push(&mut self.to_client);
        }
    }

    /// Tells the client what it may expect, as a server does after the log-in.
    fn push_greeting(&mut self, parameters: &Rc<BTreeMap<String, String>>) {
        for (name, value) in parameters.iter() {
            push_parameter_status(&mut self.to_client, name, value);
        }
        push_backend_key_data(&mut self.to_client, self.seat.number, &self.seat.key);
        refusal::ready(&mut self.to_client, IDLE);
        self.told = Rc::clone(parameters);
        self.learn_how_to_read(parameters);
    }

    /// How the client's texts are to be read.
    fn learn_how_to_read(&mut self, parameters: &BTreeMap<String, String>) {
        if let Some(strings) = parameters.get("standard_conforming_strings") {
            self.talk.conforming = strings == "on";
        }
        if let Some(encoding) = parameters.get("client_encoding") {
            self.talk.readable = wire::sql::is_readable(encoding.as_bytes());
        }
    }

    /// Moves what can be moved now.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.seat.register(cx);
        self.server_silent = false;
        self.client_silent = false;
        loop {
            let committing = self.talk.is_committing() && self.house.ending.get();
            if self.seat.end.get() && !committing {
                let stuck = self.seat.stuck_since.get().is_some();
                return Poll::Ready(if stuck { Next::Slow } else { Next::Shutdown });
            }
            if self.is_abandoned() {
                return Poll::Ready(Next::ServerLost);
            }
            if self.house.pool.generation() != self.generation {
                self.generation = self.house.pool.generation();
                return Poll::Ready(Next::RouteChanged);
            }
            if self.talk.cancels != self.seat.cancels.get() {
                self.talk.cancels = self.seat.cancels.get();
                self.talk.let_commit(&mut self.to_server);
            }
            let mut moved = false;
            match self.write_client(cx) {
                Ok(wrote) => moved |= wrote,
                Err(next) => return Poll::Ready(next),
            }
            match self.write_server(cx) {
                Ok(wrote) => moved |= wrote,
                Err(next) => return Poll::Ready(next),
            }
            match self.read_server(cx) {
                Ok(read) => moved |= read,
                Err(next) => return Poll::Ready(next),
            }
            match self.read_client(cx) {
                Ok(read) => moved |= read,
                Err(next) => return Poll::Ready(next),
            }
            if !moved {
                self.note_busy();
                self.rest();
                self.release();
                return Poll::Pending;
            }
        }
    }

    /// Whether something was written.
    fn write_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Next> {
        let mut at = 0;
        while at < self.to_client.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.to_client[at..]) {
                Poll::Ready(Ok(count)) if count > 0 => at += count,
                Poll::Ready(_) => return Err(Next::ClientLost),
                Poll::Pending => break,
            }
        }
        self.to_client.drain(..at);
        if self.stream.is_tls() && (at > 0 || self.unflushed) {
            self.unflushed = match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(_)) => return Err(Next::ClientLost),
                Poll::Pending => true,
            };
        }
        let untaken = !self.to_client.is_empty() || self.unflushed;
        match (untaken, at, self.seat.stuck_since.get()) {
            (false, _, None) => {}
            (false, _, Some(_)) => self.seat.stuck_since.set(None),
            (true, 0, Some(_)) => {}
            (true, _, _) => self.seat.stuck_since.set(Some(clock::now())),
        }
        Ok(at > 0)
    }

    /// Nobody has served for as long as a statement may wait, and what this one asked its server is
    /// not answered with a lease.
    fn is_abandoned(&self) -> bool {
        self.house.abandoned.get()
            && self.server.as_ref().is_some_and(|held| {
                let side = &held.server.side;
                !side.standby && self.house.pool.lease(side.term) != Lease::Valid
            })
            && self.talk.is_busy()
    }

    fn write_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Next> {
        let Some(held) = &mut self.server else {
            return Ok(false);
        };
        let mut at = 0;
        while at < self.to_server.len() {
            match Pin::new(&mut held.server.stream).poll_write(cx, &self.to_server[at..]) {
                Poll::Ready(Ok(count)) if count > 0 => at += count,
                // What it has said before it closed is still to be read.
                Poll::Ready(_) => at = self.to_server.len(),
                Poll::Pending => break,
            }
        }
        self.to_server.drain(..at);
        if held.server.stream.is_tls() && (at > 0 || self.server_unflushed) {
            // A failure shows when it is read.
            let flushed = Pin::new(&mut held.server.stream).poll_flush(cx);
            self.server_unflushed = flushed.is_pending();
        }
        Ok(at > 0)
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Next> {
        if self.to_client.len() > BACKLOG {
            return Ok(false);
        }
        let house = Rc::clone(&self.house);
        let Some(held) = &mut self.server else {
            return Ok(false);
        };
        if self.talk.awaits_lease
            && held.server.unread.len() > BACKLOG
            && house.pool.lease(held.server.side.term) == Lease::Expired
        {
            return Ok(false);
        }
        let scratch = &mut *house.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(scratch);
        let read = match self.server_silent {
            true => Poll::Pending,
            false => Pin::new(&mut held.server.stream).poll_read(cx, &mut buffer),
        };
        match read {
            Poll::Pending => {
                self.server_silent = true;
                let again = self.talk.awaits_lease || self.rewalk;
                if held.server.unread.is_empty() || !again {
                    return Ok(false);
                }
            }
            Poll::Ready(Err(_)) => return Err(Next::ServerLost),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(Next::ServerLost),
            Poll::Ready(Ok(())) => {}
        }
        if !held.server.side.standby {
            match house.pool.lease(held.server.side.term) {
                Lease::Valid => self.talk.awaits_lease = false,
                Lease::Expired => {
                    // Nothing of it is passed on before the lease is known to have been renewed.
                    self.talk.awaits_lease = true;
                    held.server.unread.extend_from_slice(buffer.filled());
                    return Ok(false);
                }
                Lease::Over => return Err(Next::ServerLost),
            }
        }
        let filled = buffer.filled();
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let heard = if held.server.unread.is_empty() {
            let (taken, heard) = self.talk.hear_server(filled, &mut out);
            held.server.unread.extend_from_slice(&filled[taken..]);
            heard
        } else {
            held.server.unread.extend_from_slice(filled);
            let (taken, heard) = self.talk.hear_server(&held.server.unread, &mut out);
            held.server.unread.drain(..taken);
            heard
        };
        self.rewalk = heard != Heard::More && !held.server.unread.is_empty();
        for (name, value) in self.talk.parameters.drain(..) {
            held.server.parameters.insert(name, value);
        }
        let standby = held.server.side.standby;
        if self.stop == Stop::Wait {
            self.stop = Stop::More;
        }
        self.heard(heard, standby)
    }

    /// What the server's bytes amounted to.
    fn heard(&mut self, heard: Heard, standby: bool) -> Result<bool, Next> {
        match heard {
            Heard::More => Ok(true),
            Heard::Idle if standby => {
                // A principal may be there again.
                self.generation = self.generation.wrapping_sub(1);
                Ok(true)
            }
            Heard::Idle => Ok(true),
            Heard::LookAtSession => Err(Next::LookAtSession),
            Heard::ServerEnds => Err(Next::ServerLost),
            Heard::SessionEnds => Err(Next::EndedByServer),
            Heard::Broken => {
                tracing::error!("a server sent what the protocol does not allow");
                Err(Next::ServerLost)
            }
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Next> {
        let full = self.to_server.len() > BACKLOG || self.to_client.len() > BACKLOG;
        if self.stop == Stop::Wait || full {
            return Ok(false);
        }
        let mut moved = false;
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let taken = self.walk(&pending);
            moved = taken > 0;
            self.pending = pending;
            self.pending.drain(..taken);
            self.stopped()?;
            if self.stop == Stop::Wait {
                return Ok(moved);
            }
        }
        if self.client_closed {
            // What it had sent is still answered: a server would do so, too.
            return if self.talk.is_unanswered() { Ok(moved) } else { Err(Next::ClientLost) };
        }
        if self.client_silent {
            return Ok(moved);
        }
        let house = Rc::clone(&self.house);
        let scratch = &mut *house.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                self.client_silent = true;
                return Ok(moved);
            }
            Poll::Ready(Err(_)) => return Err(Next::ClientLost),
            Poll::Ready(Ok(())) => {}
        }
        let filled = buffer.filled();
        if filled.is_empty() {
            self.client_closed = true;
            return Ok(true);
        }
        if self.pending.is_empty() {
            let taken = self.walk(filled);
            self.pending.extend_from_slice(&filled[taken..]);
        } else {
            self.pending.extend_from_slice(filled);
            let pending = std::mem::take(&mut self.pending);
            let taken = self.walk(&pending);
            self.pending = pending;
            self.pending.drain(..taken);
        }
        self.stopped()?;
        Ok(true)
    }

    fn walk(&mut self, bytes: &[u8]) -> usize {
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let (taken, stop) = self.talk.hear_client(bytes, &mut out);
        self.stop = stop;
        taken
    }

    fn stopped(&mut self) -> Result<(), Next> {
        match self.stop {
            Stop::More | Stop::Wait => Ok(()),
            Stop::NeedServer { reads } => {
                self.stop = Stop::More;
                Err(Next::NeedServer { reads })
            }
            Stop::Terminate => Err(Next::ClientLeft),
            Stop::Broken => Err(Next::ClientBroken),
        }
    }

    /// Tells the rest of the gateway whether something is under way.
    fn note_busy(&mut self) {
        self.seat.committing.set(self.talk.is_committing());
        match (self.talk.is_busy(), self.busy.is_some()) {
            (true, false) => self.busy = Some(self.house.busy.enter()),
            (false, true) => {
                self.busy = None;
                self.house.report_drained();
            }
            (true, true) | (false, false) => {}
        }
    }

    /// With transaction pooling the server goes to the next client session that needs one, unless
    /// this one has something there that others must not see or it would miss.
    fn release(&mut self) {
        let pooling = self.house.config.file.pooling;
        if pooling == Pooling::Session || !self.talk.is_quiet() || !self.kept.is_plain() {
            return;
        }
        // A cancel that is on its way must not meet the next client's statement.
        let free = self.kept.lost_with_server.is_none()
            && self.to_server.is_empty()
            && self.server.as_ref().is_some_and(|held| held.server.unread.is_empty())
            && self.seat.cancels.get() == 0;
        if !free || !self.pending.is_empty() {
            return;
        }
        if let Some(mut held) = self.server.take_if(|held| held.may_be_shared()) {
            if let Some(side) = self.talk.server.take() {
                held.server.side = side;
            }
            self.with_server = None;
            self.seat.target.take();
            self.talk.hold = false;
            self.house.servers.keep(Rc::clone(&self.key), held);
        }
    }

    /// Gives back the memory that an idle client session does not need.
    fn rest(&mut self) {
        if !self.talk.is_quiet() {
            return;
        }
        self.talk.rest();
        for bytes in [&mut self.pending, &mut self.to_client, &mut self.to_server] {
            if bytes.is_empty() && bytes.capacity() > RESTING {
                *bytes = Vec::new();
            }
        }
        if let Some(held) = &mut self.server
            && held.server.unread.is_empty()
            && held.server.unread.capacity() > RESTING
        {
            held.server.unread = Vec::new();
        }
    }
}
