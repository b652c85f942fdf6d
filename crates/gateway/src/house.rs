//! What all client sessions share. Everything is on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::config::FrontEnd;
use crate::counters::{Counters, Gauge};
use crate::dial::Dialler;
use crate::handover::Links;
use crate::login::Door;
use crate::mode::Modes;
use crate::registry::Registry;
use crate::route::Pool;
use crate::servers::{Key, Servers};

/// What one turn of a client session reads into: taken while bytes are in flight only.
pub const SCRATCH: usize = 64 * 1024;

/// A server's parameters, by whom they were told to.
pub type Greetings = HashMap<Rc<Key>, Rc<BTreeMap<String, String>>>;

#[derive(Debug)]
pub struct House {
    pub config: FrontEnd,
    pub pool: Pool,
    pub mode: Modes,
    pub counters: Rc<Counters>,
    pub servers: Servers,
    pub dialler: Dialler,
    pub registry: Rc<Registry>,
    pub door: Door,
    pub scratch: RefCell<Vec<u8>>,
    /// What servers have told of their parameters, by whom they told it to.
    pub greetings: RefCell<Greetings>,
    /// Client sessions with something under way on the principal.
    pub busy: Gauge,
    /// Nobody has served for as long as a statement may wait.
    pub abandoned: Cell<bool>,
    /// Connections that have not logged in yet.
    pub opening: Gauge,
    /// Clients that are connected, from their first byte to the last one.
    pub connections: Gauge,
    /// Processes from before that still have client sessions.
    pub links: Links,
    /// No new client sessions: the gateway ends.
    pub ending: Cell<bool>,
}

impl House {
    /// The principal hands over: tells it when nothing is under way any more.
    pub fn report_drained(&self) {
        if self.busy.get() > 0 {
            return;
        }
        if let Some(principal) = &self.pool.current().principal
            && principal.handing_over
        {
            self.pool.drained(principal.term);
        }
    }
}
