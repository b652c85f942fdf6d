//! Exact time: lets a world go on by itself, event by event in the order of their times, and keeps
//! the trace.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::event::Event;
use crate::world::{Invariant, Violation, World};

/// A world that is being played, and what happened in it.
#[derive(Clone, Debug)]
pub struct Play {
    pub world: World,
    pub trace: Vec<Event>,
    outlook: Vec<(Event, u64)>,
}

impl Play {
    pub fn new(world: World) -> Play {
        Play { world, trace: Vec::new(), outlook: Vec::new() }
    }

    /// Lets `event` happen now.
    pub fn apply(&mut self, event: Event) -> Result<(), Violation> {
        self.trace.push(event);
        apply_soundly(&mut self.world, event)
    }

    /// Goes on until `time`, calling `each` after every event.
    pub fn run_until(
        &mut self,
        time: u64,
        each: &mut dyn FnMut(&World, Event),
    ) -> Result<(), Violation> {
        loop {
            let next = self.world.next(&mut self.outlook).filter(|(_, due)| *due <= time);
            let Some((event, due)) = next else { break };
            if due > self.world.now {
                self.apply(Event::Advance(due))?;
            }
            self.apply(event)?;
            each(&self.world, event);
        }
        self.apply(Event::Advance(time))
    }

    pub fn run_for(&mut self, micros: u64) -> Result<(), Violation> {
        self.run_until(self.world.now + micros, &mut |_, _| {})
    }
}

thread_local! {
    /// A panic of this thread is caught and becomes a violation: it need not be printed.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that are caught off the screen.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
}

/// Applies `event`; a failed assertion of the core is a violation like any other.
pub fn apply_soundly(world: &mut World, event: Event) -> Result<(), Violation> {
    quieten();
    CAUGHT.set(true);
    let applied = catch_unwind(AssertUnwindSafe(|| world.apply(event)));
    CAUGHT.set(false);
    applied.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let detail = text.unwrap_or_else(|| "a panic without a text".into());
        Err(Violation::new(Invariant::TheCoreIsSound, detail))
    })
}
