//! Two simulated hosts and the sessions between them: what two agents would do, without their
//! PostgreSQL, their disk and the network between them.
//!
//! The session cores are the real ones, and so are the turns: what is due or has come is taken in,
//! and then all that it made a host say to the witness leaves in one frame. Each host has a clock
//! of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agent::clock;
use anyhow::{Context as _, Result};
use protocol::convert::Malformed;
use session::{
    Alarm, Body, Config, Data, Durable, Event, Identity, Input, Instant, Member, Message, Output,
    Partner, Record, Session, Term, Timing, Verdict, WitnessId,
};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::deployment::{WITNESS, pool_name};
use super::postgres::Postgres;
use super::wire::{Traffic, Wire};

const REST: Duration = Duration::from_millis(100);
/// A deadline that has passed is not looked at more often than this.
const BREATH: Duration = Duration::from_millis(1);

/// What the bench asks of a pair.
#[derive(Debug)]
pub enum Ask {
    /// How many sessions could fail over by themselves right now, and have heard the witness
    /// within this time.
    Ready { within: Duration, answer: mpsc::UnboundedSender<usize> },
    /// The principal of the session with this place falls silent until another one serves. The
    /// answer: how long the vote took.
    Lose { place: usize, decided: mpsc::UnboundedSender<Duration> },
    /// All principals on one of the hosts at once. The answers: one for each.
    LoseHost { decided: mpsc::UnboundedSender<Duration> },
}

/// What a pair is made from.
pub struct Plan {
    /// The number of its first session.
    pub first: usize,
    pub sessions: usize,
    /// The places in `wires` of the partners of a session are those of `hosts_of`.
    pub wires: [Wire; 2],
    pub timing: Timing,
    /// After what time each session begins.
    pub begins: Vec<Duration>,
    /// By how much the clock of each host is ahead.
    pub ahead: [Duration; 2],
    pub traffic: Arc<Traffic>,
    pub asks: mpsc::Receiver<Ask>,
}

/// One partner of one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    session: usize,
    partner: usize,
}

struct Side {
    session: Session,
    postgres: Postgres,
    deadline: Option<Instant>,
    away: bool,
    runs: u64,
}

/// A failover that was caused here.
struct Election {
    lost: Place,
    asked: Option<(Term, Instant)>,
    took: Option<Duration>,
    decided: mpsc::UnboundedSender<Duration>,
}

pub struct Pair {
    plan: Plan,
    names: Vec<String>,
    places: BTreeMap<String, usize>,
    sides: Vec<[Side; 2]>,
    /// By this machine's clock.
    deadlines: BTreeSet<(Instant, Place)>,
    to_begin: Vec<(Instant, usize)>,
    inputs: VecDeque<(Place, Input)>,
    elections: BTreeMap<usize, Election>,
}

impl Pair {
    pub fn new(plan: Plan) -> Pair {
        let now = clock::now();
        let names: Vec<String> = (plan.first..plan.first + plan.sessions).map(pool_name).collect();
        let places = names.iter().cloned().zip(0..).collect();
        let side = |session, partner| {
            let number = (plan.first + session) as u64 * 2 + partner as u64 + 1;
            let partner = PARTNERS[partner];
            let witness = Some(WitnessId::named(WITNESS));
            let record = Record::genesis(Partner::First, witness);
            let data = Data { valid: partner == record.principal, ..Data::default() };
            let durable = Durable::created(Identity(number), record, Some(data));
            let (session, _) = Session::start(now, config(partner, plan.timing, number), durable);
            Side {
                session,
                postgres: Postgres::stopped(),
                deadline: None,
                away: true,
                runs: number,
            }
        };
        let sides = (0..plan.sessions).map(|session| [0, 1].map(|it| side(session, it))).collect();
        let to_begin =
            plan.begins.iter().enumerate().map(|(place, after)| (now.after(*after), place));
        let mut to_begin: Vec<_> = to_begin.collect();
        to_begin.sort_unstable();
        to_begin.reverse();
        Pair {
            names,
            places,
            sides,
            deadlines: BTreeSet::new(),
            to_begin,
            inputs: VecDeque::new(),
            elections: BTreeMap::new(),
            plan,
        }
    }

    /// Until nobody asks any more.
    pub async fn run(mut self) -> Result<()> {
        loop {
            self.turn();
            for wire in &mut self.plan.wires {
                wire.flush().context("send to the witness")?;
            }
            let due = self.next_due().since(clock::now()).min(REST);
            let [one, other] = &mut self.plan.wires;
            let came = tokio::select! {
                biased;
                ask = self.plan.asks.recv() => {
                    let Some(ask) = ask else { return Ok(()) };
                    self.asked(ask);
                    Vec::new()
                }
                came = one.next() => came,
                came = other.next() => came,
                () = sleep(due) => Vec::new(),
            };
            for (name, message) in came {
                self.heard(&name, message)?;
            }
        }
    }

    fn next_due(&self) -> Instant {
        let far = clock::now().after(REST);
        let deadline = self.deadlines.first().map_or(far, |(deadline, _)| *deadline);
        self.to_begin.last().map_or(deadline, |(begin, _)| deadline.min(*begin))
    }

    fn heard(&mut self, name: &str, message: Message) -> Result<(), Malformed> {
        let session = *self.places.get(name).ok_or(Malformed::OutOfOrder)?;
        let place = Place { session, partner: partner_of(message.to) };
        if let (Body::VoteAnswered { term, verdict: Verdict::Granted, .. }, Some(election)) =
            (&message.body, self.elections.get_mut(&session))
            && let Some((asked, since)) = election.asked
            && asked == *term
        {
            election.took.get_or_insert(clock::now().since(since));
            Traffic::add(&self.plan.traffic.votes, 1);
        }
        self.inputs.push_back((place, Input::Received(message)));
        Ok(())
    }

    /// Takes in what has come, and what is due.
    fn turn(&mut self) {
        let now = clock::now();
        while self.to_begin.last().is_some_and(|(begin, _)| *begin <= now) {
            let begun = self.to_begin.pop().map(|(_, place)| place);
            for place in begun.into_iter().flat_map(both) {
                self.begin(place);
            }
        }
        self.work_off();
        let now = clock::now();
        while let Some((_, place)) = self.deadlines.first().copied().filter(|it| it.0 <= now) {
            let [first, second] = &self.sides[place.session];
            let (own, other) = if place.partner == 0 { (first, second) } else { (second, first) };
            let reached = Some(&other.postgres).filter(|_| !other.away);
            let probed = own.postgres.probe(reached);
            self.inputs.extend(probed.map(|fact| (place, Input::Postgres(fact))));
            self.inputs.push_back((place, Input::TimePassed));
            self.work_off();
            let late = self.side(place).deadline.filter(|deadline| *deadline <= now);
            if let Some(late) = late {
                self.deadlines.remove(&(late, place));
                self.wake(place, Some(now.after(BREATH)));
            }
        }
        self.end_elections();
    }

    fn work_off(&mut self) {
        while let Some((place, input)) = self.inputs.pop_front() {
            if self.side(place).away {
                continue;
            }
            let now = self.now_of(place);
            let outputs = self.side_mut(place).session.step(now, input);
            self.perform(place, outputs);
            let deadline = self.side(place).session.deadline();
            let deadline = deadline.map(|deadline| deadline.before(self.ahead_of(place)));
            self.wake(place, deadline);
        }
    }

    fn perform(&mut self, place: Place, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist(_) | Output::Answer { .. } | Output::Rejected(_) => {}
                Output::Send(message) => self.send(place, message),
                Output::Postgres(order) => {
                    let other = Place { partner: 1 - place.partner, ..place };
                    let upstream = self.side(other).postgres.position();
                    let facts = self.side_mut(place).postgres.perform(order, upstream);
                    self.inputs.extend(facts.into_iter().map(|it| (place, Input::Postgres(it))));
                }
                Output::Tell(event) => self.told(place, event),
            }
        }
    }

    fn told(&mut self, place: Place, event: Event) {
        let expected = self.elections.contains_key(&place.session);
        match event {
            Event::RoleChanged { .. } | Event::Alarm(_) if expected => {}
            Event::Alarm(Alarm::WitnessBack) => {}
            Event::RoleChanged { .. } | Event::Alarm(_) => {
                Traffic::add(&self.plan.traffic.disturbances, 1);
            }
            Event::RecordChanged { .. } | Event::Reached { .. } => {}
        }
    }

    fn send(&mut self, place: Place, message: Message) {
        match message.to {
            Member::Partner(_) => {
                let other = Place { partner: partner_of(message.to), ..place };
                self.inputs.push_back((other, Input::Received(message)));
            }
            Member::Witness(_) => {
                if let (Body::VoteAsked { term, .. }, Some(election)) =
                    (&message.body, self.elections.get_mut(&place.session))
                {
                    election.asked = Some((*term, clock::now()));
                }
                let wire = self.wire_of(place);
                self.plan.wires[wire].send(&self.names[place.session], &message);
            }
        }
    }

    fn wake(&mut self, place: Place, deadline: Option<Instant>) {
        let known = &mut self.sides[place.session][place.partner].deadline;
        if *known == deadline {
            return;
        }
        let before = std::mem::replace(known, deadline);
        if let Some(before) = before {
            self.deadlines.remove(&(before, place));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, place));
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Ready { within, answer } => {
                let ready = (0..self.sides.len()).filter(|it| self.is_ready(*it, within)).count();
                let _ = answer.send(ready);
            }
            Ask::Lose { place, decided } => {
                if let Some(lost) = self.principal(place) {
                    self.lose(lost, decided);
                }
            }
            Ask::LoseHost { decided } => {
                let all = (0..self.sides.len()).filter_map(|it| self.principal(it));
                let lost: Vec<Place> = all.filter(|it| self.wire_of(*it) == 0).collect();
                for lost in lost {
                    self.lose(lost, decided.clone());
                }
            }
        }
    }

    fn lose(&mut self, lost: Place, decided: mpsc::UnboundedSender<Duration>) {
        let side = self.side_mut(lost);
        side.away = true;
        side.postgres.crash();
        self.wake(lost, None);
        let election = Election { lost, asked: None, took: None, decided };
        self.elections.insert(lost.session, election);
    }

    /// Who was lost comes back once the other one serves.
    fn end_elections(&mut self) {
        let over = |pair: &Pair, (session, election): (&usize, &Election)| {
            let winner = Place { session: *session, partner: 1 - election.lost.partner };
            let serves = pair.side(winner).session.view(pair.now_of(winner)).serving;
            (election.took.is_some() && serves && pair.side(election.lost).away)
                .then_some(election.lost)
        };
        let lost: Vec<Place> =
            self.elections.iter().filter_map(|election| over(self, election)).collect();
        for lost in lost {
            self.begin(lost);
        }
        let calm = |pair: &Pair, session: usize, election: &Election| {
            !pair.side(election.lost).away && pair.is_ready(session, Duration::MAX)
        };
        let ended: Vec<usize> = self
            .elections
            .iter()
            .filter(|(session, election)| calm(self, **session, election))
            .map(|(session, _)| *session)
            .collect();
        for session in ended {
            if let Some(Election { took: Some(took), decided, .. }) =
                self.elections.remove(&session)
            {
                let _ = decided.send(took);
            }
        }
    }

    /// A process starts with what it had on its disk.
    fn begin(&mut self, place: Place) {
        let now = self.now_of(place);
        let timing = self.plan.timing;
        let side = self.side_mut(place);
        side.away = false;
        side.runs += 1_000_000;
        let durable = side.session.durable().clone();
        let config = config(PARTNERS[place.partner], timing, side.runs);
        let (session, outputs) = Session::start(now, config, durable);
        side.session = session;
        let found = side.postgres.found();
        self.perform(place, outputs);
        self.inputs.push_back((place, Input::Postgres(found)));
    }

    fn is_ready(&self, session: usize, within: Duration) -> bool {
        let hears = |place| {
            let view = self.side(place).session.view(self.now_of(place));
            view.others.iter().any(|seen| {
                matches!(seen.member, Member::Witness(_))
                    && seen.heard.is_some_and(|heard| heard <= within)
            })
        };
        both(session).all(hears)
            && self.principal(session).is_some_and(|place| {
                let view = self.side(place).session.view(self.now_of(place));
                view.serving && view.obstacles.is_empty()
            })
    }

    fn principal(&self, session: usize) -> Option<Place> {
        both(session).find(|place| {
            let side = self.side(*place);
            !side.away && side.session.view(self.now_of(*place)).serving
        })
    }

    fn side(&self, place: Place) -> &Side {
        &self.sides[place.session][place.partner]
    }

    fn side_mut(&mut self, place: Place) -> &mut Side {
        &mut self.sides[place.session][place.partner]
    }

    /// The host of `place`: the sessions' first partners take turns.
    fn wire_of(&self, place: Place) -> usize {
        (self.plan.first + place.session + place.partner) % 2
    }

    fn ahead_of(&self, place: Place) -> Duration {
        self.plan.ahead[self.wire_of(place)]
    }

    fn now_of(&self, place: Place) -> Instant {
        clock::now().after(self.ahead_of(place))
    }
}

const PARTNERS: [Partner; 2] = [Partner::First, Partner::Second];

fn both(session: usize) -> impl Iterator<Item = Place> {
    [0, 1].into_iter().map(move |partner| Place { session, partner })
}

fn partner_of(member: Member) -> usize {
    usize::from(member == Member::SECOND)
}

fn config(partner: Partner, timing: Timing, run: u64) -> Config {
    Config {
        me: Member::Partner(partner),
        witness: Some(WitnessId::named(WITNESS)),
        wanted: None,
        timing,
        seed: run,
        run,
    }
}
