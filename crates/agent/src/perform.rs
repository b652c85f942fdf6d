//! From a session's outputs to effects: what must wait for the disk, waits here.
//!
//! Outputs of one session are performed in order, and nothing after a `Persist` happens before the
//! state is durable. The session goes on being stepped meanwhile. `Order::Stop` alone overtakes:
//! stopping early is always safe; the orders to PostgreSQL that it overtakes are void, or they
//! would be performed after it.

use std::collections::VecDeque;

use session::{Durable, Order, Output};

/// The outputs of one session that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    ticket: u64,
}

#[derive(Debug)]
enum Waiting {
    /// What follows needs the state with this ticket to be durable.
    Durable(u64),
    Output(Output),
}

/// What the loop is to do now. Never contains `Output::Persist`.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub ready: Vec<Output>,
    /// The newest state to write down, with its ticket.
    pub persist: Option<(u64, Box<Durable>)>,
}

impl Queue {
    /// For a session that was here before, and whose last ticket was `ticket`.
    pub(crate) fn after(ticket: u64) -> Queue {
        Queue { ticket, ..Queue::default() }
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Takes in what a step has ordered.
    pub(crate) fn take_in(&mut self, outputs: Vec<Output>) -> Taken {
        let mut taken = Taken::default();
        for output in outputs {
            match output {
                Output::Persist(durable) => {
                    self.ticket += 1;
                    self.waiting.push_back(Waiting::Durable(self.ticket));
                    taken.persist = Some((self.ticket, durable));
                }
                Output::Postgres(Order::Stop) => {
                    self.waiting
                        .retain(|waiting| !matches!(waiting, Waiting::Output(Output::Postgres(_))));
                    taken.ready.push(output);
                }
                Output::Send(_)
                | Output::Postgres(_)
                | Output::Answer { .. }
                | Output::Tell(_)
                | Output::Rejected(_) => {
                    if self.waiting.is_empty() {
                        taken.ready.push(output);
                    } else {
                        self.waiting.push_back(Waiting::Output(output));
                    }
                }
            }
        }
        taken
    }

    /// All states up to `ticket` are durable: what waited for them, in order.
    pub(crate) fn durable(&mut self, ticket: u64) -> Vec<Output> {
        let mut ready = Vec::new();
        while let Some(first) = self.waiting.pop_front() {
            match first {
                Waiting::Durable(wanted) if wanted > ticket => {
                    self.waiting.push_front(first);
                    break;
                }
                Waiting::Durable(_) => {}
                Waiting::Output(output) => ready.push(output),
            }
        }
        if self.waiting.is_empty() {
            // A witness has thousands of these, and next to none of them waits.
            self.waiting = VecDeque::new();
        }
        ready
    }

    /// The session starts anew: what it ordered before is void. Tickets go on growing.
    pub(crate) fn restart(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use session::{Identity, Rejection};

    use super::*;

    fn persist() -> Output {
        Output::Persist(Box::new(Durable::lost(Identity(1))))
    }

    fn rejected() -> Output {
        Output::Rejected(Rejection::Stale)
    }

    fn open() -> Output {
        Output::Postgres(Order::OpenGuard)
    }

    fn stop() -> Output {
        Output::Postgres(Order::Stop)
    }

    #[test]
    fn nothing_after_a_persist_happens_before_it_is_durable() {
        let mut queue = Queue::default();
        let taken = queue.take_in(vec![rejected(), persist(), open(), persist(), rejected()]);
        assert_eq!(taken.ready, [rejected()]);
        assert_eq!(taken.persist.map(|(ticket, _)| ticket), Some(2));
        assert_eq!(queue.take_in(vec![open()]).ready, []);
        assert_eq!(queue.durable(1), [open()]);
        assert_eq!(queue.durable(2), [rejected(), open()]);
        assert!(queue.is_empty());
        assert_eq!(queue.take_in(vec![open()]).ready, [open()]);
    }

    #[test]
    fn stop_overtakes_and_voids_the_orders_before_it() {
        let mut queue = Queue::default();
        assert_eq!(queue.take_in(vec![persist(), open(), rejected()]).ready, []);
        assert_eq!(queue.take_in(vec![persist(), stop(), open()]).ready, [stop()]);
        assert_eq!(queue.durable(2), [rejected(), open()]);
    }
}
