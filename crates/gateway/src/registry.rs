//! The client sessions that are here: to wake them, to cancel their statements, to end them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::login::random;

/// Where a cancel request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CancelTarget {
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
    last: Cell<u32>,
}

/// A seat that is given up when it is dropped.
#[derive(Debug)]
pub struct Seated {
    seat: Rc<Seat>,
    registry: Rc<Registry>,
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
    pub fn enter(self: &Rc<Self>, user: &str, long_key: bool) -> Seated {
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
