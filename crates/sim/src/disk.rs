//! A member's state disk: what was persisted last, and what waits behind a disk that does not
//! answer.
//!
//! Outputs are performed in order, and `Persist` is durable before anything after it happens. A
//! crash loses a persist that was not flushed together with everything after it.

use std::collections::VecDeque;

use session::{Durable, Output};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    pub saved: Durable,
    /// Outputs that were ordered and are not performed yet.
    pub waiting: VecDeque<Output>,
    pub stalled: bool,
}

impl Disk {
    pub fn new(saved: Durable) -> Disk {
        Disk { saved, waiting: VecDeque::new(), stalled: false }
    }

    /// The next output that may be performed now.
    pub fn next(&mut self) -> Option<Output> {
        if self.stalled && matches!(self.waiting.front(), Some(Output::Persist(_))) {
            return None;
        }
        self.waiting.pop_front()
    }

    pub fn crash(&mut self) {
        self.waiting.clear();
        self.stalled = false;
    }
}
