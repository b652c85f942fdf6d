//! The loop of a process: gather what happened, step the sessions, perform what they order.
//!
//! It runs on a thread of its own and never waits for anything but the next input: the ledger, the
//! links, the history and PostgreSQL are reached through queues. It decides nothing about roles.
//! All messages of a turn to one host leave together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{MemberKind, MemberStatus, PreflightPart, Refusal, Request, Response};
use protocol::handshake::Introduction;
use session::{Body, Fact, Input, Instant, Message, Output};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::admin::{self, Course};
use crate::beat::{self, Beat};
use crate::clock;
use crate::config::Change;
use crate::error::Error;
use crate::history::When;
use crate::ledger::{Ledger, Outcome};
use crate::parts::Parts;
use crate::peers::{self, Peers, Received};
use crate::perform::Taken;
use crate::preflight::Ground;
use crate::room::{Told, Wanted};
use crate::rooms::Done;
use crate::route::Board;
use crate::seat::{Asked, Seat};
use crate::{preflight, route, status};

/// Inputs that are taken in before messages leave and deadlines are looked at again.
const TURN: usize = 256;
/// A deadline that has passed is not looked at more often than this.
const BREATH: Duration = Duration::from_millis(1);
/// Requests that one session may have unanswered.
const UNANSWERED: usize = 64;

/// How the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// PostgreSQL goes on running.
    Agent,
    /// Its PostgreSQL servers are to be shut down, too.
    Everything,
}

/// What comes in.
#[derive(Debug)]
pub(crate) struct Inlets {
    pub received: mpsc::Receiver<Received>,
    pub facts: mpsc::Receiver<Told>,
    pub outcomes: mpsc::Receiver<Outcome>,
    pub requests: mpsc::Receiver<peers::Request>,
    /// What the configuration has become.
    pub changes: mpsc::Receiver<Change>,
    /// Errands that are done.
    pub done: mpsc::Receiver<Done>,
    pub end: oneshot::Receiver<End>,
}

/// A pool's data have been made, or not.
#[derive(Debug)]
struct Created {
    seat: usize,
    result: Result<(), Refusal>,
    answer: oneshot::Sender<Response>,
}

enum Event {
    Received(Received),
    Told(Told),
    Flushed(Outcome),
    Asked(peers::Request),
    Created(Created),
    Changed(Change),
    Done(Done),
    Due,
    End(End),
}

#[derive(Debug)]
pub(crate) struct Rounds {
    pub me: Introduction,
    pub kind: MemberKind,
    pub state_dir: PathBuf,
    pub started: Instant,
    /// Boxed, or the map would keep nearly as much room again for seats that do not exist.
    pub seats: BTreeMap<usize, Box<Seat>>,
    pub by_name: BTreeMap<String, usize>,
    pub peers: Peers,
    pub board: Board,
    pub ledger: Ledger,
    pub deadlines: BTreeSet<(Instant, usize)>,
    pub next_request: u64,
    /// The seats whose followers are to be told of this turn.
    pub stepped: BTreeSet<usize>,
    pub parts: Parts,
    pub beat: Arc<Beat>,
}

impl Rounds {
    /// Until the process is to end.
    ///
    /// # Errors
    /// The ledger failed: whoever called must fence.
    pub(crate) async fn run(&mut self, mut inlets: Inlets) -> Result<End, Error> {
        let (to_created, mut created) = mpsc::channel(UNANSWERED);
        loop {
            self.beat.beat();
            let mut event = self.next(&mut inlets, &mut created).await;
            for _ in 0..TURN {
                if let Some(end) = self.take_in(event, &to_created)? {
                    return Ok(end);
                }
                match ready(&mut inlets) {
                    Some(another) => event = another,
                    None => break,
                }
            }
            self.pass_time();
            self.arrange_if_due();
            self.post();
            self.peers.flush();
        }
    }

    async fn next(&self, inlets: &mut Inlets, created: &mut mpsc::Receiver<Created>) -> Event {
        let due = self.deadlines.first().map(|(deadline, _)| deadline.since(clock::now()));
        let due = due.map_or(beat::LONGEST_REST, |due| due.min(beat::LONGEST_REST));
        tokio::select! {
            biased;
            end = &mut inlets.end => Event::End(end.unwrap_or(End::Agent)),
            Some(outcome) = inlets.outcomes.recv() => Event::Flushed(outcome),
            Some(told) = inlets.facts.recv() => Event::Told(told),
            Some(received) = inlets.received.recv() => Event::Received(received),
            Some(created) = created.recv() => Event::Created(created),
            Some(request) = inlets.requests.recv() => Event::Asked(request),
            Some(change) = inlets.changes.recv() => Event::Changed(change),
            Some(done) = inlets.done.recv() => Event::Done(done),
            () = sleep(due) => Event::Due,
        }
    }

    fn take_in(
        &mut self,
        event: Event,
        to_created: &mpsc::Sender<Created>,
    ) -> Result<Option<End>, Error> {
        match event {
            Event::Received(received) => self.received(received),
            Event::Told(Told { seat, driver, fact }) => {
                if let Some(place) = self.seats.get(&seat).filter(|seat| seat.driver == driver) {
                    let session = &place.part.pool;
                    if !matches!(fact, Fact::MirrorSeen(_) | Fact::PositionSeen { .. }) {
                        tracing::debug!(session, ?fact, "fact");
                    }
                    self.step(seat, Input::Postgres(fact));
                }
            }
            Event::Flushed(outcome) => self.flushed(outcome.map_err(Error::LedgerFailed)?),
            Event::Asked(peers::Request { what: Request::Shutdown { stop_postgres }, answer }) => {
                let sentence = "the process ends".to_owned();
                let _ = answer.send(Response::Done { sentence });
                return Ok(Some(if stop_postgres { End::Everything } else { End::Agent }));
            }
            Event::Asked(request) => self.asked(request, to_created),
            Event::Created(created) => self.created(created),
            Event::Changed(change) => self.change(change),
            Event::Done(done) => self.errand_done(done),
            Event::Due => {}
            Event::End(end) => return Ok(Some(end)),
        }
        Ok(None)
    }

    fn received(&mut self, received: Received) {
        let Received { host, session, message } = received;
        let Some(&seat) = self.by_name.get(&session) else { return };
        // A host speaks for itself only.
        if self.seats[&seat].address(message.from).is_none_or(|address| address.name != host) {
            tracing::debug!(host, session, "a message in another member's name is ignored");
            return;
        }
        if !is_heartbeat(&message) {
            tracing::debug!(session, host, body = ?message.body, "hears");
        }
        self.step(seat, Input::Received(message));
    }

    fn flushed(&mut self, flushed: Vec<crate::ledger::Flushed>) {
        self.ledger.go_on();
        for crate::ledger::Flushed { session, ticket } in flushed {
            let Some(&seat) = self.by_name.get(&session) else { continue };
            self.stepped.insert(seat);
            let Some(place) = self.seats.get_mut(&seat) else { continue };
            let ready = place.queue.durable(ticket);
            for output in ready {
                self.perform(seat, output);
            }
            let Some(seat) = self.seats.get_mut(&seat) else { continue };
            if seat.creating && seat.is_created() && seat.queue.is_empty() {
                seat.creating = false;
                let mark = self.state_dir.join(format!("{session}.creating"));
                tokio::task::spawn_blocking(move || std::fs::remove_file(mark));
            }
        }
    }

    pub(crate) fn step(&mut self, seat: usize, input: Input) {
        let Some(place) = self.seats.get_mut(&seat) else { return };
        let taken = place.step(clock::now(), input);
        self.taken(seat, taken);
    }

    /// Does what a step has ordered, and notes when the session wants to be woken.
    pub(crate) fn taken(&mut self, seat: usize, taken: Taken) {
        self.stepped.insert(seat);
        if let Some((ticket, durable)) = taken.persist {
            let session = &self.seats[&seat].part.pool;
            self.ledger.persist(session, ticket, &durable);
        }
        for output in taken.ready {
            self.perform(seat, output);
        }
        let deadline = self.seats[&seat].session.deadline();
        self.wake(seat, deadline);
    }

    fn wake(&mut self, seat: usize, deadline: Option<Instant>) {
        let Some(place) = self.seats.get_mut(&seat).map(|seat| &mut seat.deadline) else { return };
        if *place == deadline {
            return;
        }
        if let Some(before) = place.take() {
            self.deadlines.remove(&(before, seat));
        }
        *place = deadline;
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, seat));
        }
    }

    fn pass_time(&mut self) {
        let now = clock::now();
        let due: Vec<usize> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, seat)| *seat)
            .collect();
        for seat in due {
            self.step(seat, Input::TimePassed);
            if self.seats[&seat].deadline.is_some_and(|deadline| deadline <= now) {
                self.wake(seat, Some(now.after(BREATH)));
            }
        }
    }

    /// Ends the turn for those who follow the pools.
    fn post(&mut self) {
        let now = clock::now();
        while let Some(seat) = self.stepped.pop_first() {
            if let Some(seat) = self.seats.get(&seat) {
                route::post(seat, now);
            }
        }
    }

    fn perform(&mut self, seat: usize, output: Output) {
        match output {
            Output::Persist(_) => unreachable!("the queue keeps them"),
            Output::Send(message) => {
                let place = &self.seats[&seat];
                let part = &place.part;
                if !is_heartbeat(&message) {
                    let (session, to) = (&part.pool, part.name_of(message.to));
                    tracing::debug!(session, to, body = ?message.body, "says");
                }
                match place.address(message.to) {
                    Some(address) => self.peers.send(&address.name, &part.pool, &message),
                    None => {
                        tracing::debug!(session = part.pool, to = ?message.to, "unknown member")
                    }
                }
            }
            Output::Postgres(order) => self.order(seat, order),
            Output::Answer { request, answer } => {
                let Some(place) = self.seats.get_mut(&seat) else { return };
                if let Some(Asked { answer: to, done, begun }) = place.asked.remove(&request) {
                    let _ = to.send(admin::answered(place, answer, done, begun));
                }
            }
            Output::Tell(event) => {
                if let Some(place) = self.seats.get_mut(&seat) {
                    place.tell(when(), event);
                }
            }
            Output::Rejected(rejection) => {
                tracing::trace!(session = self.seats[&seat].part.pool, ?rejection, "rejected");
            }
        }
    }

    fn order(&mut self, seat: usize, order: session::Order) {
        let place = &self.seats[&seat];
        let Some(door) = &place.door else {
            tracing::error!(session = place.part.pool, ?order, "a witness has no PostgreSQL");
            return;
        };
        tracing::debug!(session = place.part.pool, ?order, "order");
        if door.wanted.try_send(Wanted::Perform(order)).is_err() {
            tracing::error!(session = place.part.pool, ?order, "PostgreSQL's room is stuck");
        }
        let makes = place.part.converge || place.session.durable().promotions.len() <= 1;
        let databases =
            place.part.postgres.as_ref().is_some_and(|postgres| !postgres.databases.is_empty());
        if matches!(order, session::Order::AdmitClients { .. }) && makes && databases {
            let _ = door.wanted.try_send(Wanted::Databases);
        }
        if matches!(order, session::Order::AdmitClients { .. }) {
            let _ = door.wanted.try_send(Wanted::FrontEnd);
        }
    }

    fn asked(&mut self, request: peers::Request, to_created: &mpsc::Sender<Created>) {
        let peers::Request { what, answer } = request;
        let what = match what {
            Request::Preflight { parts } => return self.preflight(parts, answer),
            other => other,
        };
        let seat = match what.pool() {
            None => None,
            Some(pool) => match self.by_name.get(pool) {
                Some(seat) => Some(*seat),
                None => {
                    let _ = answer.send(Code::UnknownPool.refusal(Some(pool.to_owned())).into());
                    return;
                }
            },
        };
        let (Some(seat), false) = (seat, matches!(what, Request::Status { .. })) else {
            let _ = answer.send(Response::Status(self.status(seat)));
            return;
        };
        match admin::course(&self.seats[&seat], clock::now(), &what) {
            Course::Answer(response) => {
                let _ = answer.send(response);
            }
            Course::Create => self.create(seat, answer, to_created),
            Course::Ask { what, done, begun } => {
                let Some(place) = self.seats.get_mut(&seat) else { return };
                place.asked.retain(|_, asked| !asked.answer.is_closed());
                if place.asked.len() >= UNANSWERED {
                    let _ = answer.send(Code::TooBusy.refusal(None).into());
                    return;
                }
                self.next_request += 1;
                let request = self.next_request;
                place.asked.insert(request, Asked { answer, done, begun });
                tracing::info!(session = place.part.pool, ?what, "asked by the operator");
                self.step(seat, Input::Asked { request, what });
            }
        }
    }

    fn create(
        &mut self,
        seat: usize,
        answer: oneshot::Sender<Response>,
        to_created: &mpsc::Sender<Created>,
    ) {
        let Some(place) = self.seats.get_mut(&seat) else { return };
        place.creating = true;
        let Some(door) = &place.door else {
            self.created(Created { seat, result: Ok(()), answer });
            return;
        };
        let (done, result) = oneshot::channel();
        let sent = door.wanted.try_send(Wanted::Create { done }).is_ok();
        let to_created = to_created.clone();
        tokio::spawn(async move {
            let result = match (sent, result.await) {
                (true, Ok(result)) => result,
                (true, Err(_)) | (false, _) => Err(Code::TooBusy.refusal(None)),
            };
            let _ = to_created.send(Created { seat, result, answer }).await;
        });
    }

    fn created(&mut self, created: Created) {
        let Created { seat, result, answer } = created;
        let Some(place) = self.seats.get_mut(&seat) else {
            let _ = answer.send(Code::UnknownPool.refusal(None).into());
            return;
        };
        let response = match result {
            Ok(()) => {
                // What the driver of before has told is void, and so it is told again.
                place.driver += 1;
                let start = Wanted::Start { driver: place.driver };
                if place.door.as_ref().is_some_and(|door| door.wanted.try_send(start).is_err()) {
                    tracing::error!(session = place.part.pool, "PostgreSQL's room is stuck");
                }
                let taken = place.create(clock::now());
                self.taken(seat, taken);
                tracing::info!(session = self.seats[&seat].part.pool, "session is created");
                Response::Done { sentence: "the session is created".to_owned() }
            }
            Err(refusal) => {
                place.creating = false;
                refusal.into()
            }
        };
        let _ = answer.send(response);
    }

    fn preflight(&self, parts: Vec<PreflightPart>, answer: oneshot::Sender<Response>) {
        let doors = self.seats.values().filter_map(|seat| {
            Some((seat.part.pool.clone(), Arc::clone(seat.door.as_ref()?.instance())))
        });
        let ground = Ground {
            process: self.me.host.clone(),
            kind: self.kind,
            deployment: self.me.deployment.clone(),
            version: self.me.software.clone(),
            owned: doors.collect(),
        };
        tokio::spawn(async move {
            let _ = answer.send(Response::Preflight(preflight::look(ground, parts).await));
        });
    }

    fn status(&self, seat: Option<usize>) -> MemberStatus {
        let now = clock::now();
        let wanted = |number: usize| seat.is_none_or(|seat| seat == number);
        MemberStatus {
            process: self.me.host.clone(),
            kind: self.kind,
            version: self.me.software.clone(),
            pid: std::process::id(),
            uptime_ms: status::ms(now.since(self.started)),
            deployment: self.me.deployment.clone(),
            port: Some(self.peers.port()),
            sessions: self
                .seats
                .iter()
                .filter(|(number, _)| wanted(**number))
                .map(|(_, seat)| status::of(seat, now))
                .collect(),
        }
    }
}

fn is_heartbeat(message: &Message) -> bool {
    matches!(message.body, Body::Heartbeat { .. } | Body::HeartbeatAnswered { .. })
}

/// What has come already.
fn ready(inlets: &mut Inlets) -> Option<Event> {
    if let Ok(outcome) = inlets.outcomes.try_recv() {
        return Some(Event::Flushed(outcome));
    }
    if let Ok(told) = inlets.facts.try_recv() {
        return Some(Event::Told(told));
    }
    inlets.received.try_recv().ok().map(Event::Received)
}

pub(crate) fn when() -> When {
    When { now: clock::now(), wall_ms: clock::wall_ms() }
}
