//! How a process's parts come, change and go while it runs.
//!
//! What is wanted is compared with what there is, and again about once a second until both are the
//! same: a room may have to be opened first, a mirror to take over, a session to let a member go.
//! What concerns one pool never touches another one. A part that ends leaves its data directory
//! and its entry in the ledger as they are: whoever comes back is a member that was off for a
//! while, and what it had promised still binds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use session::{Durable, Input, Instant, Leave, Member, Request};
use tokio::sync::mpsc;

use crate::clock;
use crate::config::{Address, Change, Part};
use crate::error::Error;
use crate::history::{History, Scribe};
use crate::house::random;
use crate::room::{Door, Wanted};
use crate::rooms::{Done, Errand};
use crate::rounds::{Rounds, when};
use crate::seat::{Chance, Seat, Stored};

/// Between two looks at parts that are not yet as they are wanted.
const LOOK: Duration = Duration::from_secs(1);

/// How long former members are still reached after the session has let them go, so that they hear
/// of it.
const LAST_WORDS: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Parts {
    wanted: Change,
    /// When the parts are looked at again; `None`: all are as they should be.
    look_at: Option<Instant>,
    /// The state of sessions in which this process has no part now.
    absent: BTreeMap<String, Stored>,
    /// Pools whose room is being opened.
    opening: BTreeSet<String>,
    /// Pools whose room could not be opened.
    complained: BTreeSet<String>,
    next_seat: usize,
    errands: mpsc::Sender<Errand>,
    history: PathBuf,
    keep: usize,
    scribe: Scribe,
}

impl Parts {
    pub(crate) fn new(
        wanted: Change,
        states: BTreeMap<String, Durable>,
        errands: mpsc::Sender<Errand>,
        history: PathBuf,
        keep: usize,
        scribe: Scribe,
    ) -> Parts {
        let stored = |(pool, durable)| (pool, Stored { durable, ticket: 0 });
        Parts {
            wanted,
            look_at: None,
            absent: states.into_iter().map(stored).collect(),
            opening: BTreeSet::new(),
            complained: BTreeSet::new(),
            next_seat: 0,
            errands,
            history,
            keep,
            scribe,
        }
    }
}

impl Rounds {
    /// The parts are to be these from now on.
    pub(crate) fn change(&mut self, change: Change) {
        let pools = change.wanted.len();
        tracing::info!(pools, "the configuration has changed");
        self.parts.wanted = change;
        self.parts.complained.clear();
        for seat in self.seats.values_mut() {
            seat.handed_over = false;
        }
        self.arrange();
    }

    pub(crate) fn errand_done(&mut self, done: Done) {
        if let Done::Opened { seat, part, door } = done {
            self.parts.opening.remove(&part.pool);
            match door {
                Ok(door) => {
                    let pool = part.pool.clone();
                    match self.take_seat(seat, *part, door) {
                        Ok(()) => tracing::info!(pool, "this process takes part in the pool"),
                        Err(error) => tracing::error!(pool, %error, "the part cannot begin"),
                    }
                }
                Err(error) => {
                    // Told once: it is tried again and again.
                    if self.parts.complained.insert(part.pool.clone()) {
                        tracing::error!(pool = part.pool, %error, "the part cannot begin yet");
                    }
                }
            }
        }
        self.arrange();
    }

    /// Looks again at what is not yet as it is wanted.
    pub(crate) fn arrange_if_due(&mut self) {
        if self.parts.look_at.is_some_and(|at| clock::now() >= at) {
            self.arrange();
        }
    }

    pub(crate) fn arrange(&mut self) {
        let wanted = self.parts.wanted.clone();
        let mut settled = true;
        for part in &wanted.wanted {
            match self.by_name.get(&part.pool).copied() {
                Some(seat) => self.set_part(seat, part),
                None => settled &= self.open_part(part),
            }
        }
        let names: BTreeSet<&String> = wanted.wanted.iter().map(|part| &part.pool).collect();
        let present: Vec<(String, usize)> =
            self.by_name.iter().map(|(pool, seat)| (pool.clone(), *seat)).collect();
        for (pool, seat) in present {
            if !names.contains(&pool) {
                settled &= self.leave(seat, wanted.retired.contains(&pool));
            } else {
                settled &= self.forget_former(seat);
            }
        }
        self.parts.look_at = (!settled).then(|| clock::now().after(LOOK));
        self.peers.set_hosts(self.hosts());
    }

    /// Begins to open a part's room. True: it needs none, and takes part already.
    fn open_part(&mut self, part: &Part) -> bool {
        if self.parts.opening.contains(&part.pool) {
            return false;
        }
        if let Member::Witness(_) = part.me {
            let number = self.reserve_seat();
            return match self.take_seat(number, part.clone(), None) {
                Ok(()) => {
                    tracing::info!(pool = part.pool, "this process takes part in the pool");
                    true
                }
                Err(error) => {
                    tracing::error!(pool = part.pool, %error, "the part cannot begin yet");
                    false
                }
            };
        }
        let seat = self.reserve_seat();
        let errand = Errand::Open { seat, part: Box::new(part.clone()) };
        if self.parts.errands.try_send(errand).is_ok() {
            self.parts.opening.insert(part.pool.clone());
        }
        false
    }

    pub(crate) fn reserve_seat(&mut self) -> usize {
        let number = self.parts.next_seat;
        self.parts.next_seat += 1;
        number
    }

    /// A part begins, with what the ledger held of it.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn take_seat(
        &mut self,
        number: usize,
        part: Part,
        door: Option<Door>,
    ) -> Result<(), Error> {
        let chance = Chance { seed: random()?, identity: random()?, run: self.me.run };
        let stored = self.parts.absent.remove(&part.pool);
        let (dir, host) = (&self.parts.history, &self.me.host);
        let scribe = self.parts.scribe.clone();
        let mut history = History::open(dir, &part.pool, host, self.parts.keep, scribe);
        let record = stored.as_ref().and_then(|stored| stored.durable.record_id());
        history.process(when(), record.unwrap_or_default().term, "the process takes part");
        self.by_name.insert(part.pool.clone(), number);
        let post = self.board.add(&part, door.as_ref());
        let (mut seat, taken) = Seat::start(part, stored, history, door, chance, when());
        seat.post = post;
        self.seats.insert(number, Box::new(seat));
        self.taken(number, taken);
        Ok(())
    }

    /// A part that runs already becomes as it is wanted, as far as that is possible now.
    fn set_part(&mut self, number: usize, wanted: &Part) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        if seat.part == *wanted {
            return;
        }
        if seat.part.me != wanted.me {
            tracing::error!(
                pool = wanted.pool,
                "a server cannot change from the pool's first to its second, nor back: the part \
                 goes on as it was"
            );
            return;
        }
        self.board.set(wanted);
        let before = std::mem::replace(&mut seat.part, wanted.clone());
        seat.changed_ms = clock::wall_ms();
        let gone = before.members.into_iter().filter(|it| !wanted.members.contains_key(&it.0));
        seat.former.extend(gone);
        seat.former.retain(|member, _| !wanted.members.contains_key(member));
        seat.former_until = clock::now().after(LAST_WORDS);
        if before.postgres != wanted.postgres
            && let (Some(door), Some(postgres)) = (&seat.door, &wanted.postgres)
            && door.wanted.try_send(Wanted::Configure(Box::new(postgres.clone()))).is_err()
        {
            tracing::error!(pool = wanted.pool, "PostgreSQL's room is stuck");
        }
        let term = seat.session.durable().record_id().unwrap_or_default().term;
        seat.history.process(when(), term, "the configuration has changed");
        tracing::info!(pool = wanted.pool, "the part has changed");
        let (witness, timing) = (wanted.witness, wanted.timing);
        self.step(number, Input::Configured { witness, wanted: wanted.wanted(), timing });
    }

    /// True: no former member is needed any more.
    fn forget_former(&mut self, number: usize) -> bool {
        let Some(seat) = self.seats.get_mut(&number) else { return true };
        let now = clock::now();
        let record = seat.session.durable().record;
        let named = |member| record.is_some_and(|record| record.members.contains(member));
        let unmet = seat.session.view(now).unmet.is_some();
        if unmet || seat.former.keys().any(|member| named(*member)) {
            seat.former_until = now.after(LAST_WORDS);
        } else if now >= seat.former_until {
            seat.former.clear();
        }
        seat.former.is_empty()
    }

    /// True: the part has ended.
    fn leave(&mut self, number: usize, retired: bool) -> bool {
        let now = clock::now();
        let Some(seat) = self.seats.get_mut(&number) else { return true };
        match seat.session.may_leave(now) {
            _ if retired => {}
            Leave::Now => {}
            Leave::HandOverFirst if !seat.handed_over => {
                let (request, what) = (0, Request::Failover { to: None });
                self.step(number, Input::Asked { request, what });
                if let Some(seat) = self.seats.get_mut(&number) {
                    seat.handed_over = seat.session.hands_over();
                }
                return false;
            }
            Leave::HandOverFirst | Leave::Later => return false,
        }
        self.end_part(number);
        true
    }

    fn end_part(&mut self, number: usize) {
        let Some(mut seat) = self.seats.remove(&number) else { return };
        let pool = seat.part.pool.clone();
        let durable = seat.session.durable().clone();
        let term = durable.record_id().unwrap_or_default().term;
        seat.history.process(when(), term, "the part ends: the pool is not configured here");
        tracing::info!(pool, "this process takes part in the pool no more");
        self.by_name.remove(&pool);
        if let Some(deadline) = seat.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        self.stepped.remove(&number);
        self.board.remove(&pool);
        let ticket = seat.queue.ticket();
        self.parts.absent.insert(pool, Stored { durable, ticket });
        if seat.door.is_some()
            && self.parts.errands.try_send(Errand::Close { seat: number }).is_err()
        {
            tracing::error!("PostgreSQL cannot be shut down: too much else is under way");
        }
    }

    /// Every other process that has a part in a session here.
    fn hosts(&self) -> Vec<Address> {
        let mut hosts = BTreeMap::new();
        for seat in self.seats.values() {
            for address in seat.former.values().chain(seat.part.members.values()) {
                if address.name != self.me.host {
                    hosts.insert(address.name.clone(), address.clone());
                }
            }
        }
        hosts.into_values().collect()
    }
}
