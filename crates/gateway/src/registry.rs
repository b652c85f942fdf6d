//! The client sessions that are here: to wake them, to cancel their statements, to end them, and
//! to say whom a failover affects.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::task::{Context, Waker};

use protocol::admin::FrontEndAffected;
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::login::random;
use crate::servers::Key;

/// Where a cancel request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CancelTarget {
    pub member: String,
    pub host: String,
    pub port: u16,
    pub process: u32,
    pub key: Vec<u8>,
}

/// What the rest of the gateway knows of one client session.
#[derive(Debug)]
pub struct Seat {
    pub number: u32,
    pub key: Vec<u8>,
    pub user: String,
    pub database: Box<str>,
    waker: RefCell<Option<Waker>>,
    /// A statement of it runs on this server; a cancel may go there.
    pub target: RefCell<Option<CancelTarget>>,
    /// A commit waits: a cancel must not go there.
    pub committing: Cell<bool>,
    /// Cancels on their way to the server.
    pub cancels: Cell<usize>,
    /// The client wants its statement cancelled while it waits for a server.
    pub cancelled: Notify,
    /// Since when the client has not taken what is sent to it.
    pub stuck_since: Cell<Option<Moment>>,
    pub end: Cell<bool>,
}

impl Seat {
    /// The task is woken by `wake`.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[derive(Debug, Default)]
pub struct Registry {
    seats: RefCell<HashMap<u32, Rc<Seat>>>,
    by_user: RefCell<HashMap<String, usize>>,
    /// Those that wait for a server, by user and database.
    waiting: RefCell<HashMap<Rc<Key>, u64>>,
    last: Cell<u32>,
}

/// A seat that is given up when it is dropped.
#[derive(Debug)]
pub struct Seated {
    seat: Rc<Seat>,
    registry: Rc<Registry>,
}

/// Somebody who waits for a server, until this is dropped.
#[must_use = "whoever waits is counted until this is dropped"]
#[derive(Debug)]
pub struct Waiting {
    key: Rc<Key>,
    registry: Rc<Registry>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.registry.waiting.borrow_mut();
        if let Some(count) = waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

impl std::ops::Deref for Seated {
    type Target = Rc<Seat>;

    fn deref(&self) -> &Rc<Seat> {
        &self.seat
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.registry.seats.borrow_mut().remove(&self.seat.number);
        let mut by_user = self.registry.by_user.borrow_mut();
        if let Some(count) = by_user.get_mut(&self.seat.user) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.seat.user);
            }
        }
    }
}

impl Registry {
    /// `long_key`: the client speaks a protocol whose keys may be long.
    pub fn enter(self: &Rc<Self>, user: &str, database: &str, long_key: bool) -> Seated {
        let number = loop {
            let number = self.last.get().wrapping_add(1).max(1);
            self.last.set(number);
            if !self.seats.borrow().contains_key(&number) {
                break number;
            }
        };
        let key =
            if long_key { random::bytes::<32>().to_vec() } else { random::bytes::<4>().to_vec() };
        let seat = Rc::new(Seat {
            number,
            key,
            user: user.to_owned(),
            database: database.into(),
            waker: RefCell::default(),
            target: RefCell::default(),
            committing: Cell::default(),
            cancels: Cell::default(),
            cancelled: Notify::new(),
            stuck_since: Cell::default(),
            end: Cell::default(),
        });
        self.seats.borrow_mut().insert(number, Rc::clone(&seat));
        *self.by_user.borrow_mut().entry(user.to_owned()).or_default() += 1;
        Seated { seat, registry: Rc::clone(self) }
    }

    pub fn count(&self) -> usize {
        self.seats.borrow().len()
    }

    pub fn count_of(&self, user: &str) -> usize {
        self.by_user.borrow().get(user).copied().unwrap_or_default()
    }

    /// One more waits for a server, until what is returned is dropped.
    pub fn wait(self: &Rc<Self>, key: &Rc<Key>) -> Waiting {
        *self.waiting.borrow_mut().entry(Rc::clone(key)).or_default() += 1;
        Waiting { key: Rc::clone(key), registry: Rc::clone(self) }
    }

    /// Who waits for a server, and if nobody serves also who will: by user and database, those
    /// with the most first, and at most `most` of them; and how many there are in all.
    pub fn affected(&self, all: bool, most: usize) -> (Vec<FrontEndAffected>, u64) {
        let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for seat in self.seats.borrow().values() {
            let name = (shown(&seat.user), shown(&seat.database));
            counts.entry(name).or_default().0 += 1;
        }
        for (key, count) in self.waiting.borrow().iter() {
            let name = (shown(&key.user), shown(&key.database));
            counts.entry(name).or_default().1 += count;
        }
        let mut found: Vec<_> = counts
            .into_iter()
            .filter(|(_, (_, held))| all || *held > 0)
            .map(|((user, database), (client_sessions, held))| FrontEndAffected {
                user,
                database,
                client_sessions,
                held,
            })
            .collect();
        let count = found.len() as u64;
        // Of equal ones the order of their names stays.
        found.sort_by_key(|one| std::cmp::Reverse((one.held, one.client_sessions)));
        found.truncate(most);
        (found, count)
    }

    /// The seat that a cancel request names, if it knows the key.
    pub fn named(&self, number: u32, key: &[u8]) -> Option<Rc<Seat>> {
        let seats = self.seats.borrow();
        let seat = seats.get(&number)?;
        let same = seat.key.len() == key.len()
            && seat.key.iter().zip(key).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
        same.then(|| Rc::clone(seat))
    }

    pub fn wake_all(&self) {
        for seat in self.seats.borrow().values() {
            seat.wake();
        }
    }

    /// Ends those whose clients have left bytes untaken since before `limit`.
    pub fn end_stuck(&self, limit: Moment) {
        for seat in self.seats.borrow().values() {
            if seat.stuck_since.get().is_some_and(|since| since < limit) {
                seat.end.set(true);
                seat.wake();
            }
        }
    }

    pub fn end_all(&self) {
        for seat in self.seats.borrow().values() {
            seat.end.set(true);
            seat.wake();
        }
    }
}

/// A name for people's terminals, however the client made it up.
fn shown(name: &str) -> String {
    const LONGEST: usize = 63;
    name.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str, database: &str) -> Rc<Key> {
        let (user, database) = (user.to_owned(), database.to_owned());
        Rc::new(Key { user, database, parameters: Vec::new() })
    }

    fn names(found: &[FrontEndAffected]) -> Vec<(&str, &str, u64, u64)> {
        let one = |it: &FrontEndAffected| (it.client_sessions, it.held);
        let names = found.iter().map(|it| (it.user.as_str(), it.database.as_str(), one(it)));
        names.map(|(user, database, (all, held))| (user, database, all, held)).collect()
    }

    #[test]
    fn whom_it_affects_is_told_by_user_and_database_the_most_first() {
        let registry = Rc::<Registry>::default();
        let shop = ["a", "b", "c"].map(|_| registry.enter("shop", "orders", false));
        let _clerk = registry.enter("clerk", "orders", false);
        let _other = registry.enter("clerk", "stock", true);
        let (found, count) = registry.affected(false, 10);
        assert_eq!((names(&found), count), (Vec::new(), 0), "nobody waits");
        let waits = registry.wait(&key("clerk", "stock"));
        let (found, count) = registry.affected(false, 10);
        assert_eq!((names(&found), count), (vec![("clerk", "stock", 1, 1)], 1));
        let (found, count) = registry.affected(true, 2);
        assert_eq!(names(&found), [("clerk", "stock", 1, 1), ("shop", "orders", 3, 0)]);
        assert_eq!(count, 3);
        drop((waits, shop));
        let (found, _) = registry.affected(true, 10);
        assert_eq!(names(&found), [("clerk", "orders", 1, 0), ("clerk", "stock", 1, 0)]);
        assert!(registry.waiting.borrow().is_empty());
    }
}
