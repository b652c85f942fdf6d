//! Whether a member whose part was taken out of the configuration can be done without.

use core::time::Duration;

use crate::principal::Step;
use crate::session::Session;
use crate::time::Instant;

/// After so long a silence of all others, a member that does not serve is missed by nobody.
const SILENCE: Duration = Duration::from_secs(10);

/// What has to happen before a member may end its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    Now,
    /// It serves: its mirror must take over first.
    HandOverFirst,
    /// The record still names it, and others count on it.
    Later,
}

impl Session {
    pub fn may_leave(&self, now: Instant) -> Leave {
        let Some(record) = self.durable.record else { return Leave::Now };
        if self.is_sole() {
            return Leave::Now;
        }
        if self.reigns() {
            return match self.hands_over() {
                true => Leave::Later,
                false => Leave::HandOverFirst,
            };
        }
        if !record.members.contains(self.config.me) {
            return Leave::Now;
        }
        let patience = SILENCE.max(self.config.timing.detection * 2);
        let heard = self.live.values().filter_map(|live| live.heard).max();
        match now.since(heard.unwrap_or(self.started)) >= patience {
            true => Leave::Now,
            false => Leave::Later,
        }
    }

    /// It is on its way out of a reign that the operator has ended.
    pub fn hands_over(&self) -> bool {
        self.reign().is_none_or(|reign| reign.handing_over || reign.step < Step::Serve)
    }
}
