//! Who serves, by what both members have said: the pure part of the view of the pool.
//!
//! A lease is counted from the question that a route answers: the route was written after that, so
//! what it says was left of the lease then reaches at least as far as counted from here. A member
//! that serves without a lease is believed for `UNLEASED` from its last answer, as long as it is
//! connected and nobody has promised a higher term. Nothing here reads a clock or a socket.

use std::rc::Rc;
use std::time::Duration;

use protocol::admin::{PostgresState, Route, RoutePromotion};

use crate::clock::Moment;

/// How long a member that serves without a lease is believed after a question that it answered.
pub const UNLEASED: Duration = Duration::from_secs(1);

/// One of the pool's two servers, in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    First,
    Second,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::First, Side::Second];

    pub fn index(self) -> usize {
        match self {
            Side::First => 0,
            Side::Second => 1,
        }
    }
}

/// Whether a term's answers may be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// What has arrived by now was answered by the principal of that term.
    Valid,
    /// The lease has run out here and may be renewed: wait for it, or for the end of the term.
    Expired,
    /// A newer term is known, or its server has become a standby: pass nothing on.
    Over,
}

/// What is known of the pool. It changes only as a whole, with its generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub generation: u64,
    /// Absent: nobody is known to serve.
    pub principal: Option<Principal>,
    /// A hot standby that can be reached.
    pub standby: Option<Standby>,
    /// The highest term that any member has shown or promised.
    pub highest_term: u64,
    pub without_principal_since: Option<Moment>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    pub member: String,
    pub host: String,
    pub port: u16,
    pub term: u64,
    pub timeline: u32,
    /// A manual failover is about to begin: begin no transaction.
    pub handing_over: bool,
    /// Of its history, oldest first, its own one at the end.
    pub timelines: Vec<u32>,
    pub promotions: Vec<RoutePromotion>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standby {
    pub member: String,
    pub host: String,
    pub port: u16,
    /// It has every acknowledged commit.
    pub complete: bool,
}

/// What a new fact has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Nothing,
    /// A lease that had run out is valid again, or a term is over. The snapshot is the same.
    Leases,
    /// The snapshot is another one.
    Snapshot,
}

#[derive(Debug, Default)]
struct Known {
    connected: bool,
    /// The newest one, also of a member that is not connected any more.
    route: Option<Route>,
    /// Its answers are its term's until then.
    until: Moment,
}

/// What both members have said.
#[derive(Debug)]
pub struct Routes {
    members: [Known; 2],
    /// Who was last found to serve, and in which term.
    served: Option<(Side, u64)>,
    snapshot: Rc<Snapshot>,
    leased: Leased,
}

/// The lease of the newest term that serves, as small as the hot path needs it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Leased {
    pub term: u64,
    pub until: Moment,
    /// Every term below this one is over.
    pub over_below: u64,
}

impl Leased {
    pub fn of(&self, term: u64, now: Moment) -> Lease {
        if term < self.over_below {
            Lease::Over
        } else if term == self.term && now < self.until {
            Lease::Valid
        } else {
            Lease::Expired
        }
    }
}

impl Routes {
    pub fn new(now: Moment) -> Routes {
        Routes {
            members: Default::default(),
            served: None,
            snapshot: Rc::new(Snapshot {
                generation: 1,
                principal: None,
                standby: None,
                highest_term: 0,
                without_principal_since: Some(now),
            }),
            leased: Leased::default(),
        }
    }

    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot)
    }

    pub fn leased(&self) -> Leased {
        self.leased
    }

    /// When the principal is not known to serve any more, if nothing is heard until then.
    pub fn expires(&self) -> Option<Moment> {
        self.snapshot.principal.as_ref().map(|_| self.leased.until)
    }

    /// `side` has sent `route` in answer to the question asked at `asked`.
    pub fn heard(&mut self, side: Side, route: Route, asked: Moment, now: Moment) -> Change {
        let known = &mut self.members[side.index()];
        known.until = match route.lease_left_ms {
            None => asked + UNLEASED,
            Some(left) => {
                let until = asked + Duration::from_millis(left);
                let before = known.route.as_ref();
                let same = before.is_some_and(|before| {
                    before.serving && before.term == route.term && before.lease_left_ms.is_some()
                });
                // What was told of a lease stays true while it goes on.
                if same { until.max(known.until) } else { until }
            }
        };
        known.connected = true;
        known.route = Some(route);
        self.settle(now)
    }

    /// The connection to `side` has ended. What it said stays known; its lease runs on.
    pub fn lost(&mut self, side: Side, now: Moment) -> Change {
        self.members[side.index()].connected = false;
        self.settle(now)
    }

    pub fn time_passed(&mut self, now: Moment) -> Change {
        self.settle(now)
    }

    fn settle(&mut self, now: Moment) -> Change {
        let serving = self.serving();
        if let Some((side, term, _)) = serving {
            self.served = Some((side, term));
        }
        let before = self.leased;
        self.leased = Leased {
            term: serving.map_or(0, |(_, term, _)| term),
            until: serving.map_or(now, |(_, _, until)| until),
            over_below: self.over_below(),
        };
        let principal = serving
            .filter(|(_, _, until)| now < *until)
            .and_then(|(side, ..)| self.principal(side));
        let standby = self.standby(principal.as_ref());
        let old = &*self.snapshot;
        let since = match (&principal, old.without_principal_since) {
            (Some(_), _) => None,
            (None, Some(since)) => Some(since),
            (None, None) => Some(now),
        };
        let new = Snapshot {
            generation: old.generation,
            principal,
            standby,
            highest_term: self
                .routes()
                .map(|route| route.term.max(route.promise))
                .max()
                .unwrap_or(0),
            without_principal_since: since,
        };
        if new != *old {
            self.snapshot = Rc::new(Snapshot { generation: old.generation + 1, ..new });
            return Change::Snapshot;
        }
        let renewed = now >= before.until && now < self.leased.until;
        if renewed || before.over_below != self.leased.over_below {
            return Change::Leases;
        }
        Change::Nothing
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        self.members.iter().filter_map(|known| known.route.as_ref())
    }

    /// The member of the newest term that says that it serves, and until when that holds.
    ///
    /// Newest are the terms of *records*: whoever shows one was elected, or follows somebody who
    /// was. A mere promise of somebody else does not end a lease: the promise may have come to
    /// nothing, and the lease is what keeps an election from succeeding. Without a lease it counts.
    fn serving(&self) -> Option<(Side, u64, Moment)> {
        let newest = self.routes().map(|route| route.term).max()?;
        let promised = self.routes().map(|route| route.promise).max()?;
        Side::BOTH.into_iter().find_map(|side| {
            let known = &self.members[side.index()];
            let route = known.route.as_ref()?;
            if !route.serving || route.term != newest || route.promise > route.term {
                return None;
            }
            if route.lease_left_ms.is_none() && (!known.connected || promised > route.term) {
                return None;
            }
            Some((side, route.term, known.until))
        })
    }

    /// A term is over when a record of a newer one is shown, when its own principal has promised a
    /// newer one, and when its server has become a standby. That its agent says that it does not
    /// serve is not enough: an agent that was restarted says so until it has a lease, and then
    /// serves on in the same term.
    fn over_below(&self) -> u64 {
        let newest = self.routes().map(|route| route.term).max().unwrap_or(0);
        let ended = self.served.and_then(|(side, term)| {
            let route = self.members[side.index()].route.as_ref()?;
            let standby = route.postgres.as_ref().is_some_and(|it| match it.state {
                PostgresState::Standby => true,
                PostgresState::Primary => false,
            });
            let over = route.promise > term || (!route.serving && standby);
            over.then_some(term + 1)
        });
        newest.max(ended.unwrap_or(0))
    }

    fn principal(&self, side: Side) -> Option<Principal> {
        let route = self.members[side.index()].route.as_ref()?;
        let postgres = route.postgres.as_ref()?;
        match postgres.state {
            PostgresState::Primary => {}
            PostgresState::Standby => return None,
        }
        Some(Principal {
            member: route.member.clone(),
            host: postgres.host.clone(),
            port: postgres.port,
            term: route.term,
            timeline: postgres.timeline,
            handing_over: route.handing_over,
            timelines: route.timelines.clone(),
            promotions: route.promotions.clone(),
        })
    }

    /// The best hot standby: one that has everything, else the one with the newer record.
    fn standby(&self, principal: Option<&Principal>) -> Option<Standby> {
        let connected = self.members.iter().filter(|known| known.connected);
        connected
            .filter_map(|known| known.route.as_ref())
            .filter(|route| principal.is_none_or(|principal| principal.member != route.member))
            .filter_map(|route| Some((route, route.postgres.as_ref()?)))
            .filter(|(_, postgres)| match postgres.state {
                PostgresState::Standby => true,
                PostgresState::Primary => false,
            })
            .max_by_key(|(route, postgres)| (postgres.complete, route.term, postgres.timeline))
            .map(|(route, postgres)| Standby {
                member: route.member.clone(),
                host: postgres.host.clone(),
                port: postgres.port,
                complete: postgres.complete,
            })
    }
}
