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

#[cfg(test)]
mod tests {
    use protocol::admin::RoutePostgres;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn postgres(state: PostgresState) -> Option<RoutePostgres> {
        Some(RoutePostgres { host: "h".to_owned(), port: 5432, state, timeline: 4, complete: true })
    }

    fn route(side: Side, term: u64) -> Route {
        Route {
            pool: "pool01".to_owned(),
            member: match side {
                Side::First => "be1".to_owned(),
                Side::Second => "be2".to_owned(),
            },
            echo: 0,
            promise: term,
            term,
            serving: false,
            lease_left_ms: None,
            handing_over: false,
            postgres: postgres(PostgresState::Standby),
            timelines: Vec::new(),
            promotions: Vec::new(),
        }
    }

    fn serving(side: Side, term: u64, lease_left_ms: Option<u64>) -> Route {
        Route {
            serving: true,
            lease_left_ms,
            postgres: postgres(PostgresState::Primary),
            timelines: vec![1, 4],
            ..route(side, term)
        }
    }

    const ONE: Side = Side::First;
    const TWO: Side = Side::Second;

    /// Says at what time what was asked and heard, and keeps the latter.
    struct Table {
        routes: Routes,
        now: u64,
    }

    impl Table {
        fn new() -> Table {
            Table { routes: Routes::new(at(0)), now: 0 }
        }

        /// Asked at `asked`, heard at `now`.
        fn hears(&mut self, asked: u64, now: u64, side: Side, route: Route) -> Change {
            self.now = now;
            self.routes.heard(side, route, at(asked), at(now))
        }

        fn passes(&mut self, now: u64) -> Change {
            self.now = now;
            self.routes.time_passed(at(now))
        }

        #[track_caller]
        fn check(&self, principal: Option<(&str, u64)>, leases: &[(u64, u64, Lease)]) {
            let snapshot = self.routes.snapshot();
            let seen = snapshot.principal.as_ref().map(|it| (it.member.as_str(), it.term));
            assert_eq!(seen, principal, "principal at {}", self.now);
            assert_eq!(snapshot.without_principal_since.is_none(), principal.is_some());
            for (term, now, lease) in leases {
                let seen = self.routes.leased().of(*term, at(*now));
                assert_eq!(seen, *lease, "lease of {term} at {now}");
            }
        }
    }

    use Lease::{Expired, Over, Valid};

    #[test]
    fn a_lease_is_counted_from_the_question_and_not_from_the_answer() {
        let mut table = Table::new();
        assert_eq!(table.hears(1_000, 1_400, ONE, serving(ONE, 4, Some(700))), Change::Snapshot);
        table.check(Some(("be1", 4)), &[(4, 1_699, Valid), (4, 1_700, Expired)]);
        assert_eq!(table.routes.expires(), Some(at(1_700)));
        // An answer that comes after the lease that it tells of is worth nothing.
        let mut table = Table::new();
        table.hears(1_000, 1_800, ONE, serving(ONE, 4, Some(700)));
        table.check(None, &[(4, 1_800, Expired)]);
    }

    #[test]
    fn a_renewal_changes_no_generation_and_an_expiry_does() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        let generation = table.routes.snapshot().generation;
        assert_eq!(table.hears(1_100, 1_101, ONE, serving(ONE, 4, Some(700))), Change::Nothing);
        assert_eq!(table.routes.snapshot().generation, generation);
        table.check(Some(("be1", 4)), &[(4, 1_799, Valid), (4, 1_800, Expired)]);
        assert_eq!(table.passes(1_800), Change::Snapshot);
        table.check(None, &[(4, 1_800, Expired)]);
        assert!(table.routes.snapshot().generation > generation);
        assert_eq!(table.routes.snapshot().without_principal_since, Some(at(1_800)));
        assert_eq!(table.hears(1_900, 1_901, ONE, serving(ONE, 4, Some(700))), Change::Snapshot);
        table.check(Some(("be1", 4)), &[(4, 2_000, Valid)]);
    }

    #[test]
    fn a_renewal_after_an_expiry_that_nobody_noticed_is_told() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        assert_eq!(table.hears(1_750, 1_751, ONE, serving(ONE, 4, Some(700))), Change::Leases);
        table.check(Some(("be1", 4)), &[(4, 2_000, Valid)]);
    }

    #[test]
    fn a_route_that_was_pushed_does_not_shorten_a_lease_that_goes_on() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        table.hears(1_000, 1_090, ONE, serving(ONE, 4, Some(611)));
        table.check(Some(("be1", 4)), &[(4, 1_699, Valid)]);
        // But another term begins anew.
        table.hears(1_000, 1_095, ONE, serving(ONE, 6, Some(100)));
        table.check(Some(("be1", 6)), &[(6, 1_099, Valid), (6, 1_100, Expired), (4, 1_096, Over)]);
    }

    #[test]
    fn the_newer_term_wins_and_the_older_one_is_over() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        table.hears(1_100, 1_101, TWO, serving(TWO, 5, Some(700)));
        table.check(Some(("be2", 5)), &[(4, 1_101, Over), (5, 1_101, Valid)]);
        // Whatever the former one goes on saying.
        table.hears(1_200, 1_201, ONE, serving(ONE, 4, Some(700)));
        table.check(Some(("be2", 5)), &[(4, 1_201, Over), (5, 1_201, Valid)]);
    }

    #[test]
    fn a_record_of_a_newer_term_ends_the_old_one_before_anybody_serves() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        assert_eq!(table.hears(1_000, 1_002, TWO, route(TWO, 5)), Change::Snapshot);
        table.check(None, &[(4, 1_002, Over), (5, 1_002, Expired)]);
    }

    #[test]
    fn a_promise_of_another_member_ends_no_lease() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        table.hears(1_000, 1_002, TWO, Route { promise: 5, ..route(TWO, 4) });
        table.check(Some(("be1", 4)), &[(4, 1_002, Valid)]);
        assert_eq!(table.routes.snapshot().highest_term, 5);
        // Its own promise does.
        table.hears(1_100, 1_101, ONE, Route { promise: 5, ..serving(ONE, 4, Some(700)) });
        table.check(None, &[(4, 1_101, Over)]);
    }

    #[test]
    fn a_server_without_a_lease_is_believed_while_it_is_heard_and_nobody_promises_more() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, None));
        table.check(Some(("be1", 4)), &[(4, 1_999, Valid), (4, 2_000, Expired)]);
        table.routes.lost(ONE, at(1_100));
        table.check(None, &[(4, 1_100, Expired)]);
        table.hears(1_200, 1_201, ONE, serving(ONE, 4, None));
        table.check(Some(("be1", 4)), &[(4, 1_201, Valid)]);
        table.hears(1_200, 1_202, TWO, Route { promise: 5, ..route(TWO, 4) });
        table.check(None, &[(4, 1_202, Expired)]);
    }

    #[test]
    fn a_lease_outlives_the_connection() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        assert_eq!(table.routes.lost(ONE, at(1_100)), Change::Nothing);
        table.check(Some(("be1", 4)), &[(4, 1_699, Valid), (4, 1_700, Expired)]);
    }

    #[test]
    fn an_agent_that_restarted_has_no_lease_but_its_term_goes_on() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        let adopting = Route { serving: false, lease_left_ms: None, ..serving(ONE, 4, None) };
        table.hears(1_100, 1_101, ONE, adopting);
        table.check(None, &[(4, 1_101, Expired)]);
        table.hears(1_100, 1_102, ONE, Route { postgres: None, ..route(ONE, 4) });
        table.check(None, &[(4, 1_102, Expired)]);
        table.hears(1_200, 1_201, ONE, serving(ONE, 4, Some(700)));
        table.check(Some(("be1", 4)), &[(4, 1_201, Valid)]);
    }

    #[test]
    fn a_principal_whose_server_became_a_standby_is_over() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        assert_eq!(table.hears(1_100, 1_101, ONE, route(ONE, 4)), Change::Snapshot);
        table.check(None, &[(4, 1_101, Over)]);
        assert_eq!(table.routes.snapshot().standby.as_ref().unwrap().member, "be1");
    }

    #[test]
    fn a_member_that_serves_is_no_principal_until_clients_can_reach_its_server() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, Route { postgres: None, ..serving(ONE, 4, Some(700)) });
        table.check(None, &[(4, 1_001, Valid)]);
        let standby = postgres(PostgresState::Standby);
        table.hears(1_000, 1_002, ONE, Route { postgres: standby, ..serving(ONE, 4, Some(700)) });
        table.check(None, &[]);
    }

    #[test]
    fn the_standby_is_the_other_one_while_it_is_connected() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        assert_eq!(table.routes.snapshot().standby, None);
        assert_eq!(table.hears(1_000, 1_002, TWO, route(TWO, 4)), Change::Snapshot);
        assert_eq!(table.routes.snapshot().standby.as_ref().unwrap().member, "be2");
        assert_eq!(table.routes.lost(TWO, at(1_003)), Change::Snapshot);
        assert_eq!(table.routes.snapshot().standby, None);
    }

    #[test]
    fn of_two_standbys_the_complete_one_is_better_than_the_newer_one() {
        let mut table = Table::new();
        let mut behind = route(TWO, 5);
        behind.postgres.as_mut().unwrap().complete = false;
        table.hears(1_000, 1_001, ONE, route(ONE, 4));
        table.hears(1_000, 1_002, TWO, behind);
        let standby = table.routes.snapshot().standby.clone().unwrap();
        assert_eq!((standby.member.as_str(), standby.complete), ("be1", true));
    }

    #[test]
    fn a_hand_over_changes_the_snapshot_twice() {
        let mut table = Table::new();
        table.hears(1_000, 1_001, ONE, serving(ONE, 4, Some(700)));
        let handing_over = Route { handing_over: true, ..serving(ONE, 4, Some(700)) };
        assert_eq!(table.hears(1_000, 1_002, ONE, handing_over), Change::Snapshot);
        assert!(table.routes.snapshot().principal.as_ref().unwrap().handing_over);
        let failed = serving(ONE, 4, Some(700));
        assert_eq!(table.hears(1_100, 1_101, ONE, failed), Change::Snapshot);
        assert!(!table.routes.snapshot().principal.as_ref().unwrap().handing_over);
    }
}
