//! The world around the real session core: members, their disks and clocks, the network, two
//! modelled PostgreSQL servers, clients, and the ledger of what really happened.
//!
//! A world is plain data: it can be cloned, hashed and compared. It changes by `apply` alone, one
//! event at a time, and the same events always lead to the same world. Time is either exact (one
//! clock for all, in microseconds) or free: then each member's clock is moved by its own events,
//! so that a lease can run out at any moment, and nothing that depends on clocks is judged.

use session::{
    Config, Data, Durable, Event as Told, Fact, Identity, Input, Instant, Output, Partner, Record,
    Session, Term, Timing,
};

pub use crate::invariant::{Invariant, Violation};

use crate::disk::Disk;
use crate::event::{Blow, Event, Letter, Local};
use crate::ledger::Ledger;
use crate::network::Network;
use crate::pace::Pace;
use crate::postgres::{Guard, Server};
use crate::room::Room;
use crate::seat::{SEATS, Seat, side};
use crate::wal::DataCopy;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Clocks {
    Exact,
    Free,
}

/// A rule that the world outside the core breaks on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mischief {
    /// 13: the gateway asks a primary before its barrier has returned.
    AnsweredBeforeBarrier,
    /// 13: the boundary of the first later term counts, not the smallest on the history.
    FirstLaterBoundary,
    /// 16: PostgreSQL takes the next timeline id that it knows nothing of.
    UsedTimelineNotSkipped,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Setup {
    pub witness: bool,
    pub clocks: Clocks,
    pub timing: Timing,
    pub seed: u64,
    pub mischief: Option<Mischief>,
    #[cfg(feature = "mutants")]
    pub mutant: Option<session::Mutant>,
}

impl Setup {
    pub fn new(witness: bool, clocks: Clocks, seed: u64) -> Setup {
        Setup {
            witness,
            clocks,
            timing: Timing::STANDARD,
            seed,
            mischief: None,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// What a good search should have seen at least sometimes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seen {
    Failover,
    ManualFailover,
    Exposure,
    ReProtection,
    RejoinByRewind,
    ForcedService,
    ChangeOfWitness,
    RefusedVote,
    AmnesiaRelearnt,
    SideSuspended,
    MirrorRemoved,
    MirrorAdded,
}

impl Seen {
    pub const ALL: [Seen; 12] = [
        Seen::Failover,
        Seen::ManualFailover,
        Seen::Exposure,
        Seen::ReProtection,
        Seen::RejoinByRewind,
        Seen::ForcedService,
        Seen::ChangeOfWitness,
        Seen::RefusedVote,
        Seen::AmnesiaRelearnt,
        Seen::SideSuspended,
        Seen::MirrorRemoved,
        Seen::MirrorAdded,
    ];
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    pub session: Option<Session>,
    pub disk: Disk,
    pub clock: u64,
    pub frozen: bool,
    /// With exact clocks: how often in a row the session woke up at one moment.
    wakes: u16,
}

#[derive(Clone, Debug)]
pub struct World {
    pub setup: Setup,
    /// With exact clocks: the time.
    pub now: u64,
    pub hosts: [Host; SEATS],
    pub servers: [Server; 2],
    pub rooms: [Room; 2],
    pub net: Network,
    pub ledger: Ledger,
    pub runs: u64,
    /// The operator has given up this partner's copy.
    pub discarded: [bool; 2],
    /// The last term that was handed over in a manual failover; no part of the state.
    handed_over: Term,
    /// What was seen, as a mask; no part of the state.
    pub sights: u32,
    /// What the last event made the members do; kept if `listening`.
    pub heard: Vec<(Seat, Heard)>,
    pub listening: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    Input(Input),
    Output(Output),
}

impl std::hash::Hash for World {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.now.hash(state);
        self.hosts.hash(state);
        self.servers.hash(state);
        self.rooms.hash(state);
        self.net.hash(state);
        self.ledger.hash(state);
    }
}

impl World {
    /// A session that was just created: the first partner has data, the second one needs a copy.
    /// Nobody runs yet.
    pub fn created(setup: Setup) -> World {
        let witness = Seat::Wit1.witness().filter(|_| setup.witness);
        let record = Record::genesis(Partner::First, witness);
        let hosts = Seat::ALL.map(|seat| {
            let identity = Identity(seat.index() as u64 + 1);
            let data = seat
                .partner()
                .map(|partner| Data { valid: partner == Partner::First, ..Data::default() });
            let saved = match seat {
                // A spare witness knows nothing of the session until it is named.
                Seat::Wit2 => Durable::lost(identity),
                Seat::Be1 | Seat::Be2 | Seat::Wit1 => Durable::created(identity, record, data),
            };
            Host { session: None, disk: Disk::new(saved), clock: 0, frozen: false, wakes: 0 }
        });
        let servers = [Server::new(Some(DataCopy::created())), Server::new(None)];
        World {
            setup,
            now: 0,
            hosts,
            servers,
            rooms: Default::default(),
            net: Network::default(),
            ledger: Ledger::default(),
            runs: 100,
            discarded: [false; 2],
            handed_over: Term(0),
            sights: 0,
            heard: Vec::new(),
            listening: false,
        }
    }

    /// The members that a world of this setup starts with.
    pub fn seats(&self) -> &'static [Seat] {
        if self.setup.witness { &Seat::ALL } else { &Seat::ALL[..2] }
    }

    pub fn is_exact(&self) -> bool {
        self.setup.clocks == Clocks::Exact
    }

    /// Lets every member's clock go its own way from now on.
    pub fn free_clocks(&mut self) {
        self.setup.clocks = Clocks::Free;
        for host in &mut self.hosts {
            host.clock = self.now;
        }
        self.net.stream_cut = self.net.stream_cut.map(|_| 0);
        self.now = 0;
    }

    pub fn clock(&self, seat: Seat) -> Instant {
        match self.setup.clocks {
            Clocks::Exact => Instant::from_micros(self.now),
            Clocks::Free => Instant::from_micros(self.hosts[seat.index()].clock),
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        match self.setup.clocks {
            Clocks::Exact => Pace::EXACT,
            Clocks::Free => Pace::FREE,
        }
    }

    pub fn saved(&self, seat: Seat) -> &Durable {
        &self.hosts[seat.index()].disk.saved
    }

    pub(crate) fn seen(&mut self, sight: Seen) {
        self.sights |= 1 << sight as u32;
    }

    pub fn has_seen(&self, sight: Seen) -> bool {
        self.sights & (1 << sight as u32) != 0
    }

    /// Lets `event` happen. An event that cannot happen now changes nothing.
    pub fn apply(&mut self, event: Event) -> Result<(), Violation> {
        self.heard.clear();
        match event {
            Event::Advance(to) => self.now = self.now.max(to),
            Event::Tick(seat) => self.tick(seat)?,
            Event::Deliver(letter) => self.deliver(letter, true)?,
            Event::Repeat(letter) => self.deliver(letter, false)?,
            Event::Stray(letter) => {
                if let Some(message) = self.net.take(letter) {
                    self.net.stray(message);
                }
            }
            Event::Late(place) => {
                if usize::from(place) < self.net.strays.len() {
                    let message = self.net.strays.remove(usize::from(place));
                    if let Some(to) = Seat::of(message.to) {
                        self.step(to, Input::Received(message))?;
                    }
                }
            }
            Event::Lose(letter) => drop(self.net.take(letter)),
            Event::At(local, partner) => self.local(local, partner)?,
            Event::To(blow, seat) => self.blow(blow, seat)?,
            Event::Cut(one, other) => {
                self.net.set_cut(one, other, true);
                if self.is_exact() {
                    self.net.clear(one, other);
                }
            }
            Event::Heal(one, other) => self.net.set_cut(one, other, false),
            Event::CutStream => self.net.stream_cut = Some(self.now),
            Event::HealStream => self.net.stream_cut = None,
            Event::Ask(partner, what) => {
                self.runs += 1;
                let request = self.runs;
                if what == session::Request::DiscardThisSide {
                    self.discarded[side(partner)] = true;
                }
                self.step(Seat::of_partner(partner), Input::Asked { request, what })?;
            }
        }
        self.check()
    }

    fn tick(&mut self, seat: Seat) -> Result<(), Violation> {
        let heartbeat = self.setup.timing.heartbeat.as_micros() as u64;
        let host = &mut self.hosts[seat.index()];
        let Some(session) = &host.session else { return Ok(()) };
        if self.setup.clocks == Clocks::Free {
            let next = host.clock + heartbeat;
            let due = session.deadline().map_or(next, |due| due.as_micros());
            host.clock = due.clamp(host.clock, next);
        } else {
            host.wakes += 1;
            if host.wakes > 1_000 {
                return Err(Violation::new(
                    Invariant::TheCoreIsSound,
                    format!("{seat} asks to be woken at {:?} for ever", session.deadline()),
                ));
            }
        }
        self.step(seat, Input::TimePassed)
    }

    fn deliver(&mut self, letter: Letter, taken: bool) -> Result<(), Violation> {
        if self.net.is_cut(letter.from, letter.to) {
            return Ok(());
        }
        let Some(message) = self.net.take(letter) else { return Ok(()) };
        if !taken {
            self.net.stray(message.clone());
        }
        self.step(letter.to, Input::Received(message))
    }

    /// The one way in which a session hears anything.
    fn step(&mut self, seat: Seat, input: Input) -> Result<(), Violation> {
        let now = self.clock(seat);
        let host = &mut self.hosts[seat.index()];
        let Some(session) = &mut host.session else { return Ok(()) };
        if input != Input::TimePassed || session.deadline().is_none_or(|due| due > now) {
            host.wakes = 0;
        }
        if self.listening {
            self.heard.push((seat, Heard::Input(input.clone())));
        }
        let outputs = session.step(now, input);
        self.perform(seat, outputs)
    }

    fn perform(&mut self, seat: Seat, outputs: Vec<Output>) -> Result<(), Violation> {
        self.hosts[seat.index()].disk.waiting.extend(outputs);
        while let Some(output) = self.hosts[seat.index()].disk.next() {
            if self.listening {
                self.heard.push((seat, Heard::Output(output.clone())));
            }
            match output {
                Output::Persist(durable) => self.persist(seat, *durable)?,
                Output::Send(message) => {
                    self.look_at(&message);
                    let due = self.now + self.pace().message;
                    let to = Seat::of(message.to);
                    let dropped = to.is_none_or(|to| self.is_exact() && self.net.is_cut(seat, to));
                    if !dropped {
                        self.net.send(message, due);
                    }
                }
                Output::Postgres(order) => {
                    if let Some(partner) = seat.partner() {
                        self.order(partner, order);
                    }
                }
                Output::Tell(told) => self.look_at_event(told),
                Output::Answer { .. } | Output::Rejected(_) => {}
            }
        }
        Ok(())
    }

    fn persist(&mut self, seat: Seat, durable: Durable) -> Result<(), Violation> {
        let before = self.hosts[seat.index()].disk.saved.record;
        self.look_at_record(seat, before, durable.record);
        let after = durable.record;
        self.hosts[seat.index()].disk.saved = durable;
        if let Some(record) = after.filter(|_| after != before) {
            self.ledger.note_record(seat, record)?;
        }
        Ok(())
    }

    fn local(&mut self, local: Local, partner: Partner) -> Result<(), Violation> {
        if !self.can(local, partner) {
            return Ok(());
        }
        match local {
            Local::Fact => {
                if let Some((fact, _)) = self.rooms[side(partner)].facts.pop_front() {
                    self.step(Seat::of_partner(partner), Input::Postgres(fact))?;
                }
            }
            Local::Work => self.work(partner)?,
            Local::Rejoin => self.rejoin(partner)?,
            Local::Follows => self.report_following(partner),
            Local::Probe => {
                self.rooms[side(partner)].probe_due = self.now + self.pace().probe;
                if let Some(fact) = self.servers[side(partner)].probe() {
                    self.report(partner, fact);
                }
            }
            Local::Connect => self.connect(partner),
            Local::Stream => self.stream(partner),
            Local::Confirm => self.confirm(partner),
            Local::SenderEnds => self.end_sender(partner),
            Local::ReceiverEnds => self.end_receiver(partner),
            Local::GuardConfirms => self.guard_confirms(partner),
            Local::GuardEnds => self.end_guard(partner),
            Local::BarrierReturns => self.return_barrier(partner),
            Local::Checkpoint => self.checkpoint(partner),
            Local::Flush => self.flush(partner),
            Local::ShutDownLate => self.end_shut_down(partner),
            Local::Insert => self.insert(partner),
            Local::Write => {
                self.insert(partner);
                self.flush(partner);
            }
            Local::Begin => self.begin(partner),
            Local::Finish => self.finish(partner),
            Local::Tell => self.tell(partner)?,
            Local::Exit => self.exit(partner),
            Local::Sicken => {
                self.servers[side(partner)].healthy = false;
                self.report(partner, Fact::Unhealthy(session::Ailment::Storage));
            }
            Local::Recover => {
                self.servers[side(partner)].healthy = true;
                self.report(partner, Fact::Healthy);
            }
            Local::LoseData => self.servers[side(partner)].data = None,
        }
        Ok(())
    }

    fn checkpoint(&mut self, partner: Partner) {
        let Some((term, _)) = self.rooms[side(partner)].checkpoint.take() else { return };
        if let Some(data) = &mut self.servers[side(partner)].data {
            data.checkpointed = data.timeline();
        }
        self.report(partner, Fact::Checkpointed { term });
    }

    fn blow(&mut self, blow: Blow, seat: Seat) -> Result<(), Violation> {
        match blow {
            Blow::CrashAgent => self.crash_agent(seat),
            Blow::CrashHost => {
                self.crash_agent(seat);
                if let Some(partner) = seat.partner() {
                    self.servers[side(partner)].kill();
                }
            }
            Blow::Restart => return self.restart(seat),
            Blow::Stall => self.hosts[seat.index()].disk.stalled = true,
            Blow::Unstall => {
                self.hosts[seat.index()].disk.stalled = false;
                return self.perform(seat, Vec::new());
            }
            Blow::LoseState => self.lose_state(seat),
            Blow::Freeze => self.hosts[seat.index()].frozen = true,
            Blow::Thaw => self.hosts[seat.index()].frozen = false,
        }
        Ok(())
    }

    fn crash_agent(&mut self, seat: Seat) {
        let host = &mut self.hosts[seat.index()];
        host.session = None;
        host.frozen = false;
        host.disk.crash();
        for other in Seat::ALL.into_iter().filter(|_| self.setup.clocks == Clocks::Exact) {
            self.net.clear(seat, other);
        }
        let Some(partner) = seat.partner() else { return };
        self.rooms[side(partner)] = Room::default();
        let server = &mut self.servers[side(partner)];
        if let Guard::Open = server.guard {
            server.guard = Guard::Closing { confirmed: server.flushed(), asked: false };
        }
    }

    fn restart(&mut self, seat: Seat) -> Result<(), Violation> {
        let host = &self.hosts[seat.index()];
        if host.session.is_some() {
            return Ok(());
        }
        self.runs += 1;
        let config = Config {
            me: seat.member(),
            witness: Seat::Wit1.witness().filter(|_| self.setup.witness),
            wanted: None,
            timing: self.setup.timing,
            seed: self.setup.seed ^ self.runs,
            run: self.runs,
        };
        let now = self.clock(seat);
        let (mut session, outputs) = Session::start(now, config, host.disk.saved.clone());
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.setup.mutant {
            session.mutate(mutant);
        }
        #[cfg(not(feature = "mutants"))]
        let _ = &mut session;
        self.hosts[seat.index()].session = Some(session);
        if let Some(partner) = seat.partner() {
            let found = self.servers[side(partner)].found();
            self.report(partner, Fact::Found(found));
        }
        self.perform(seat, outputs)
    }

    /// The state disk of a member that does not run is lost; its agent makes a new identity.
    fn lose_state(&mut self, seat: Seat) {
        if self.hosts[seat.index()].session.is_some() {
            return;
        }
        self.runs += 1;
        let data = seat.partner().map(|_| Data::default());
        let lost = Durable { data, ..Durable::lost(Identity(self.runs)) };
        self.hosts[seat.index()].disk.saved = lost;
    }

    fn look_at(&mut self, message: &session::Message) {
        use session::{Body, Verdict};
        if let Body::Resigned { term, handover: Some(_) } = message.body {
            self.handed_over = term;
        }
        if let Body::VoteAnswered { verdict: Verdict::Refused(_), .. }
        | Body::PreVoteAnswered { verdict: Verdict::Refused(_), .. } = &message.body
        {
            self.seen(Seen::RefusedVote);
        }
    }

    fn look_at_event(&mut self, told: Told) {
        use session::{Alarm, Phase};
        match told {
            Told::Reached { phase: Phase::Established, term } => {
                let before = self.ledger.branches.range(..term).next_back();
                let earlier = before.map(|(_, branch)| branch.partner);
                let handed_over = before.is_some_and(|(term, _)| *term == self.handed_over);
                let own = self.ledger.branches.get(&term).map(|branch| branch.partner);
                if earlier.is_some() && earlier != own {
                    self.seen(if handed_over { Seen::ManualFailover } else { Seen::Failover });
                }
            }
            Told::Alarm(Alarm::SideSuspended) => self.seen(Seen::SideSuspended),
            Told::RoleChanged { .. }
            | Told::RecordChanged { .. }
            | Told::Reached { .. }
            | Told::Alarm(_) => {}
        }
    }

    fn look_at_record(&mut self, seat: Seat, before: Option<Record>, after: Option<Record>) {
        use session::{Members, Protection};
        let Some(after) = after else { return };
        let Some(before) = before else {
            self.seen(Seen::AmnesiaRelearnt);
            return;
        };
        let own = seat.partner() == Some(after.principal);
        let changed = |of: fn(&Record) -> Protection| of(&before) != of(&after);
        if own && changed(|record| record.protection) && after.protection == Protection::Mirrored {
            self.seen(Seen::ReProtection);
        }
        if after.forced.is_some_and(|forced| forced.term == after.term()) {
            self.seen(Seen::ForcedService);
        }
        let (was_sole, is_sole) = (before.members.sole(), after.members.sole());
        match (was_sole, is_sole) {
            (None, Some(_)) => self.seen(Seen::MirrorRemoved),
            (Some(_), None) => self.seen(Seen::MirrorAdded),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let settled = matches!(after.members, Members::Settled(_)) && was_sole.is_none();
        if settled && after.members != before.members {
            self.seen(Seen::ChangeOfWitness);
        }
    }
}
