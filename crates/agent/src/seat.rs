//! A member's part in one session: the session itself and what the shell keeps beside it.
//!
//! A seat gathers nothing and performs nothing: the loop (`rounds`) steps it and does what comes
//! out. It decides nothing about roles.

use std::collections::BTreeMap;

use protocol::admin::{Alarm, Response};
use session::{
    Alarm as Sounded, Body, Data, Durable, Event, Fact, Identity, Input, Instant, Member, Message,
    Output, Partner, Position, Record, RecordId, Session,
};
use tokio::sync::oneshot;

use crate::config::{Address, Part};
use crate::history::{History, When};
use crate::perform::{Queue, Taken};
use crate::room::Door;
use crate::route::Post;

/// An operator's request that the session has not answered yet.
#[derive(Debug)]
pub(crate) struct Asked {
    pub answer: oneshot::Sender<Response>,
    /// The words for `Answer::Done` and `Answer::Begun`.
    pub done: &'static str,
    pub begun: &'static str,
}

/// What this process knows of a session in which it takes part.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub durable: Durable,
    /// The last ticket under which its state was written down by this process.
    pub ticket: u64,
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub part: Part,
    /// The part as its PostgreSQL was opened with: what cannot change meanwhile is this one's.
    pub opened: Part,
    /// Members that the part named before, as long as the session still names them.
    pub former: BTreeMap<Member, Address>,
    pub former_until: Instant,
    /// When the part last changed, on the wall clock.
    pub changed_ms: u64,
    /// It was asked to hand over because its part is to end; that is done once.
    pub handed_over: bool,
    pub session: Session,
    pub queue: Queue,
    pub history: History,
    /// A partner's PostgreSQL.
    pub door: Option<Door>,
    /// Where the pool's followers hear from it.
    pub post: Option<Post>,
    /// The driver whose facts count.
    pub driver: u64,
    /// The session exists here: it has been created, or learnt.
    pub creating: bool,
    pub asked: BTreeMap<u64, Asked>,
    pub deadline: Option<Instant>,
    /// The newest record that another member has shown to this process.
    pub seen: Option<RecordId>,
    /// Where the other partner's data ended, and when it said so.
    pub other_data: Option<(Position, Instant)>,
    pub alarms: BTreeMap<&'static str, Alarm>,
    chance: Chance,
}

/// Numbers that this process drew at random.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    pub seed: u64,
    /// For a state that is made anew.
    pub identity: u64,
    /// Of the process, the same in all its sessions.
    pub run: u64,
}

impl Seat {
    /// The member starts with what the ledger held, or with nothing.
    pub(crate) fn start(
        part: Part,
        stored: Option<Stored>,
        history: History,
        door: Option<Door>,
        chance: Chance,
        when: When,
    ) -> (Seat, Taken) {
        let lost = || Stored { durable: Durable::lost(Identity(chance.identity)), ticket: 0 };
        let Stored { durable, ticket } = stored.unwrap_or_else(lost);
        let config = config(&part, chance);
        // What was here before may not be on disk yet.
        let mut outputs = match ticket {
            0 => Vec::new(),
            _ => vec![Output::Persist(Box::new(durable.clone()))],
        };
        let (session, ordered) = Session::start(when.now, config, durable);
        outputs.extend(ordered);
        let mut queue = Queue::after(ticket);
        let taken = queue.take_in(outputs);
        let seat = Seat {
            opened: part.clone(),
            part,
            former: BTreeMap::new(),
            former_until: when.now,
            changed_ms: when.wall_ms,
            handed_over: false,
            session,
            queue,
            history,
            door,
            post: None,
            driver: 0,
            creating: false,
            asked: BTreeMap::new(),
            deadline: None,
            seen: None,
            other_data: None,
            alarms: BTreeMap::new(),
            chance,
        };
        (seat, taken)
    }

    pub(crate) fn step(&mut self, now: Instant, input: Input) -> Taken {
        if let (true, Input::Received(_)) = (self.creating, &input) {
            // A member that is being created must not learn the session from those that were
            // created before it: it would take its new data for lost ones.
            return self.queue.take_in(Vec::new());
        }
        if let Input::Received(message) = &input {
            self.look_at(now, message);
        }
        if let Input::Postgres(Fact::Healthy) = input {
            self.alarms.remove("storage_failing");
        }
        let outputs = self.session.step(now, input);
        self.queue.take_in(outputs)
    }

    /// Begins the session here, for the first time.
    pub(crate) fn create(&mut self, now: Instant) -> Taken {
        assert!(self.session.durable().record.is_none(), "a record is never replaced");
        let identity = self.session.durable().identity;
        let record = match (self.part.me, self.part.is_alone()) {
            (Member::Partner(me), true) => Record::genesis_of_one(me),
            (Member::Partner(_) | Member::Witness(_), _) => {
                Record::genesis(Partner::First, self.part.witness)
            }
        };
        let data = match self.part.me {
            Member::Partner(partner) => {
                Some(Data { valid: partner == record.principal, ..Data::default() })
            }
            Member::Witness(_) => None,
        };
        let durable = Durable::created(identity, record, data);
        // What the session of before ordered is void, its state included.
        self.queue.restart();
        self.asked.clear();
        let mut outputs = vec![Output::Persist(Box::new(durable.clone()))];
        let config = config(&self.part, self.chance);
        let (session, ordered) = Session::start(now, config, durable);
        self.session = session;
        outputs.extend(ordered);
        self.queue.take_in(outputs)
    }

    /// What people will be shown of other members.
    fn look_at(&mut self, now: Instant, message: &Message) {
        let record = message.record.map(|record| record.id);
        self.seen = self.seen.max(record);
        let other = match self.part.me {
            Member::Partner(partner) => Member::Partner(partner.other()),
            Member::Witness(_) => return,
        };
        if let Body::Heartbeat { report, .. } | Body::HeartbeatAnswered { report, .. } =
            &message.body
            && message.from == other
            && let Some(position) = report.position
        {
            self.other_data = Some((position, now));
        }
    }

    /// Keeps an event in the history, and the alarms that stand.
    pub(crate) fn tell(&mut self, when: When, event: Event) {
        let term = self.session.durable().record_id().unwrap_or_default().term;
        let silence = self.silence(when.now);
        match event {
            Event::Alarm(Sounded::WitnessBack) => {
                self.alarms.remove("witness_lost");
            }
            Event::Alarm(alarm) => {
                let (code, sentence) = protocol::admin::words::alarm(alarm);
                tracing::error!(session = self.part.pool, alarm = code, sentence, "alarm");
                let since_ms = when.wall_ms;
                let standing = Alarm { code: code.to_owned(), sentence, since_ms };
                self.alarms.entry(code).or_insert(standing);
            }
            Event::RoleChanged { from, to, term, cause } => {
                let session = &self.part.pool;
                tracing::info!(session, ?from, ?to, %term, ?cause, "role");
            }
            Event::RecordChanged { id, cause } => {
                let session = &self.part.pool;
                tracing::info!(session, term = %id.term, revision = id.revision, ?cause, "record");
            }
            Event::Reached { phase, term } => {
                tracing::info!(session = self.part.pool, ?phase, %term, "phase");
            }
        }
        self.history.tell(when, event, term, silence);
    }

    /// How long the other partner was not heard.
    fn silence(&self, now: Instant) -> Option<std::time::Duration> {
        let Member::Partner(me) = self.part.me else { return None };
        let view = self.session.view(now);
        let other = Member::Partner(me.other());
        view.others.iter().find(|seen| seen.member == other).and_then(|seen| seen.heard)
    }

    /// Where `member` is.
    pub(crate) fn address(&self, member: Member) -> Option<&Address> {
        self.part.members.get(&member).or_else(|| self.former.get(&member))
    }

    /// Whether this pool has a session here.
    pub(crate) fn is_created(&self) -> bool {
        self.session.durable().record.is_some()
    }
}

fn config(part: &Part, chance: Chance) -> session::Config {
    let Chance { seed, run, .. } = chance;
    session::Config {
        me: part.me,
        witness: part.witness,
        wanted: part.wanted(),
        timing: part.timing,
        seed,
        run,
    }
}
