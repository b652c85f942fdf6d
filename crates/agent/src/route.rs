//! What a partner tells the Front Ends that follow its pools: who serves, until when, and where.
//!
//! The loop posts each session's part after every turn, PostgreSQL's room its condition; a route is
//! put together from both at the moment when it is sent, so that what is left of a lease is true.
//! A promise, a record or a promotion is posted only once it is on disk: a follower must never know
//! more than this member would after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::admin::words::Code;
use protocol::admin::{PostgresState, Refusal, Route, RoutePostgres, RoutePromotion};
use session::{Boundary, Durable, Instant, Member, Promotion, Protection, Term, View};
use tokio::sync::watch;

use crate::config::Part;
use crate::postgres::drain::{Present, Roll};
use crate::postgres::{Condition, Instance, State};
use crate::room::Door;
use crate::seat::Seat;
use crate::status;

/// The session's part of a route.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Posted {
    promise: Term,
    term: Term,
    serving: bool,
    lease_end: Option<Instant>,
    /// Were its PostgreSQL a standby, it would have every acknowledged commit.
    complete: bool,
    promotions: Vec<RoutePromotion>,
}

/// Where the loop posts a seat's part.
pub(crate) type Post = watch::Sender<Posted>;

/// Posts what `seat` is at `now`.
pub(crate) fn post(seat: &Seat, now: Instant) {
    let Some(post) = &seat.post else { return };
    let view = seat.session.view(now);
    let settled = seat.queue.is_empty();
    post.send_if_modified(|posted| {
        let next = posted.after(&view, seat.session.durable(), seat.part.me, settled, now);
        let changed = next != *posted;
        *posted = next;
        changed
    });
}

impl Posted {
    /// `settled`: all that the session has in memory is on disk.
    fn after(
        &self,
        view: &View,
        durable: &Durable,
        me: Member,
        settled: bool,
        now: Instant,
    ) -> Posted {
        let mut next = if settled { Posted::of(view, durable, me) } else { self.clone() };
        let term = view.record.map(|record| record.id.term);
        next.serving = view.serving && term == Some(next.term);
        next.lease_end = view.lease_left.filter(|_| next.serving).map(|left| now.after(left));
        next
    }

    fn of(view: &View, durable: &Durable, me: Member) -> Posted {
        let Some(record) = view.record else {
            return Posted { promise: view.promise, ..Posted::default() };
        };
        let is_principal = Member::Partner(record.principal) == me;
        let holds_all = is_principal || record.protection == Protection::Mirrored;
        Posted {
            promise: view.promise,
            term: record.id.term,
            complete: holds_all && view.data.is_some_and(|data| data.valid && !data.touched),
            promotions: durable.promotions.values().map(told).collect(),
            ..Posted::default()
        }
    }
}

fn told(promotion: &Promotion) -> RoutePromotion {
    RoutePromotion {
        term: promotion.term.0,
        timeline: promotion.timeline.0,
        boundary: match promotion.boundary {
            Boundary::Known(xid) => Some(xid.0),
            Boundary::Unknown => None,
        },
        established: promotion.established,
    }
}

/// What the followers of one pool are told from.
#[derive(Clone, Debug)]
struct Source {
    member: String,
    host: String,
    port: u16,
    posted: watch::Receiver<Posted>,
    condition: watch::Receiver<Condition>,
    roll: Roll,
    instance: Option<Arc<Instance>>,
    /// The Front Ends that may follow; `None`: all.
    front_ends: Option<BTreeSet<String>>,
}

/// `None`: a pool without data here.
type Sources = BTreeMap<String, Option<Source>>;

/// Where the loop puts up the pools that this process has a part in.
#[derive(Debug, Default)]
pub(crate) struct Board(watch::Sender<Arc<Sources>>);

/// The pools that this process has a part in, as they are at each moment.
#[derive(Clone, Debug)]
pub struct Routes(watch::Receiver<Arc<Sources>>);

impl Default for Routes {
    /// Of no pool.
    fn default() -> Routes {
        Board::default().routes()
    }
}

impl Board {
    pub(crate) fn routes(&self) -> Routes {
        Routes(self.0.subscribe())
    }

    /// The pool's followers are told what is posted from now on.
    pub(crate) fn add(&mut self, part: &Part, door: Option<&Door>) -> Option<Post> {
        let mut place = None;
        let source = part.postgres.as_ref().zip(door).map(|(postgres, door)| {
            let (post, posted) = watch::channel(Posted::default());
            place = Some(post);
            Source {
                member: part.my_name(),
                host: part.members.get(&part.me).map(|me| me.host.clone()).unwrap_or_default(),
                port: postgres.port,
                posted,
                condition: door.condition.clone(),
                roll: door.roll.clone(),
                instance: Some(Arc::clone(door.instance())),
                front_ends: postgres.front_ends.clone(),
            }
        });
        self.0.send_modify(|sources| {
            Arc::make_mut(sources).insert(part.pool.clone(), source);
        });
        place
    }

    /// The part may name other Front Ends than before.
    pub(crate) fn set(&mut self, part: &Part) {
        let Some(postgres) = &part.postgres else { return };
        self.0.send_if_modified(|sources| {
            let place = Arc::make_mut(sources).get_mut(&part.pool).and_then(Option::as_mut);
            let Some(source) = place else { return false };
            let changed = source.front_ends != postgres.front_ends;
            source.front_ends.clone_from(&postgres.front_ends);
            changed
        });
    }

    /// Nobody follows the pool here any more.
    pub(crate) fn remove(&mut self, pool: &str) {
        self.0.send_modify(|sources| {
            Arc::make_mut(sources).remove(pool);
        });
    }
}

impl Routes {
    /// The PostgreSQL of `pool` here, and its condition.
    pub(crate) fn postgres(
        &self,
        pool: &str,
    ) -> Option<(Arc<Instance>, watch::Receiver<Condition>)> {
        let sources = self.0.borrow();
        let source = sources.get(pool)?.as_ref()?;
        Some((source.instance.clone()?, source.condition.clone()))
    }

    /// Returns after a pool has come or gone.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether that Front End may follow the pool.
    pub(crate) fn admits(&self, pool: &str, front_end: &str) -> bool {
        let sources = self.0.borrow();
        let source = sources.get(pool).and_then(Option::as_ref);
        let named = source.and_then(|source| source.front_ends.as_ref());
        named.is_none_or(|named| named.contains(front_end))
    }

    /// # Errors
    /// This member cannot be followed in that pool.
    pub(crate) fn follow(&self, pool: &str) -> Result<Following, Refusal> {
        match self.0.borrow().get(pool) {
            None => Err(Code::UnknownPool.refusal(Some(pool.to_owned()))),
            Some(None) => Err(Code::NotAPartner.refusal(None)),
            Some(Some(source)) => Ok(Following {
                pool: pool.to_owned(),
                source: source.clone(),
                present: source.roll.enter(),
                echo: 0,
                sent: None,
            }),
        }
    }
}

/// One follower of one pool.
#[derive(Debug)]
pub(crate) struct Following {
    pool: String,
    source: Source,
    present: Present,
    /// The stamp of the newest question.
    echo: u64,
    /// The route that was sent last.
    sent: Option<Route>,
}

/// Waits for changes of what a route is made from.
#[derive(Debug)]
pub(crate) struct Changes {
    pub pool: String,
    posted: watch::Receiver<Posted>,
    condition: watch::Receiver<Condition>,
}

impl Changes {
    /// Returns after the next one.
    ///
    /// # Errors
    /// There will be none, because the pool leaves this process; which one it is.
    pub(crate) async fn next(mut self) -> Result<Changes, String> {
        let changed = tokio::select! {
            changed = self.posted.changed() => changed,
            changed = self.condition.changed() => changed,
        };
        if changed.is_err() {
            return Err(self.pool);
        }
        self.posted.mark_unchanged();
        self.condition.mark_unchanged();
        Ok(self)
    }
}

impl Following {
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            pool: self.pool.clone(),
            posted: self.source.posted.clone(),
            condition: self.source.condition.clone(),
        }
    }

    /// The follower has asked; the next route is sent whether it is new or not.
    pub(crate) fn asked(&mut self, stamp: u64) {
        self.echo = stamp;
        self.sent = None;
    }

    pub(crate) fn drained(&self, term: u64) {
        self.present.drained(Term(term));
    }

    /// The route at `now`, unless the follower has been told the same already.
    pub(crate) fn news(&mut self, now: Instant) -> Option<Route> {
        let mut route = self.route(now);
        let left = route.lease_left_ms.take();
        if self.sent.as_ref() == Some(&route) {
            return None;
        }
        self.sent = Some(route.clone());
        route.lease_left_ms = left;
        Some(route)
    }

    fn route(&self, now: Instant) -> Route {
        let posted = self.source.posted.borrow().clone();
        let condition = self.source.condition.borrow().clone();
        let admitted = condition.admitted.as_ref().filter(|_| condition.open);
        let holds = posted.lease_end.is_none_or(|end| now < end);
        let admitted = admitted.filter(|admitted| admitted.term == posted.term);
        let serving = posted.serving && holds && admitted.is_some();
        let timelines = admitted.filter(|_| serving).map(|admitted| &admitted.timelines);
        let lease_left_ms =
            posted.lease_end.filter(|_| serving).map(|end| status::ms(end.since(now)));
        Route {
            pool: self.pool.clone(),
            member: self.source.member.clone(),
            echo: self.echo,
            promise: posted.promise.0,
            term: posted.term.0,
            serving,
            lease_left_ms,
            handing_over: serving && condition.handing_over,
            postgres: self.postgres(&condition, posted.complete),
            timelines: timelines.into_iter().flatten().map(|timeline| timeline.0).collect(),
            promotions: if serving { posted.promotions } else { Vec::new() },
        }
    }

    fn postgres(&self, condition: &Condition, complete: bool) -> Option<RoutePostgres> {
        let admitted = condition.admitted.as_ref();
        let state = match condition.state {
            _ if admitted.is_some() => PostgresState::Primary,
            State::Primary => PostgresState::Primary,
            State::Standby => PostgresState::Standby,
            State::Stopped | State::Absent | State::Starting | State::Unresponsive => return None,
        };
        let timeline = admitted
            .and_then(|admitted| admitted.timelines.last().copied())
            .or(condition.timeline)
            .unwrap_or_default();
        condition.open.then(|| RoutePostgres {
            host: self.source.host.clone(),
            port: self.source.port,
            state,
            timeline: timeline.0,
            complete: complete && state == PostgresState::Standby,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use session::{Data, Identity, Partner, Record, Session, Timeline, Timing};

    use super::*;
    use crate::postgres::Admitted;

    const TERM: Term = Term(4);
    const NOW: Instant = Instant::from_micros(1_000_000);

    fn posted() -> Posted {
        let lease_end = Some(NOW.after(Duration::from_micros(1_700)));
        Posted { term: TERM, serving: true, lease_end, complete: true, ..Posted::default() }
    }

    fn condition() -> Condition {
        let timelines = vec![Timeline(1), Timeline(4)];
        let admitted = Some(Admitted { term: TERM, timelines });
        Condition { state: State::Standby, open: true, admitted, ..Condition::default() }
    }

    fn route(posted: &Posted, condition: &Condition, now: Instant) -> Route {
        let source = Source {
            member: "be1".to_owned(),
            host: "10.0.0.1".to_owned(),
            port: 5432,
            posted: watch::channel(posted.clone()).1,
            condition: watch::channel(condition.clone()).1,
            roll: Roll::default(),
            instance: None,
            front_ends: None,
        };
        follow(source).news(now).unwrap()
    }

    fn follow(source: Source) -> Following {
        let board = Board::default();
        let routes = board.routes();
        board.0.send_replace(Arc::new([("pool01".to_owned(), Some(source))].into()));
        routes.follow("pool01").unwrap()
    }

    #[test]
    fn no_more_of_a_lease_is_told_than_there_is() {
        let at = |micros| {
            let route = route(&posted(), &condition(), NOW.after(Duration::from_micros(micros)));
            (route.serving, route.lease_left_ms)
        };
        assert_eq!(at(0), (true, Some(1)));
        assert_eq!(at(1_699), (true, Some(0)));
        assert_eq!(at(1_700), (false, None), "nobody has woken the session yet");
    }

    #[test]
    fn a_principal_serves_only_once_it_lets_clients_in_in_this_very_term() {
        let serves = |condition: &Condition| route(&posted(), condition, NOW).serving;
        let good = condition();
        assert!(serves(&good));
        let told = route(&posted(), &good, NOW);
        assert_eq!(told.timelines, [1, 4]);
        let postgres = told.postgres.unwrap();
        assert_eq!((postgres.state, postgres.complete), (PostgresState::Primary, false));
        assert!(!serves(&Condition { open: false, ..good.clone() }));
        assert!(!serves(&Condition { admitted: None, ..good.clone() }));
        let former = good.admitted.clone().map(|admitted| Admitted { term: Term(2), ..admitted });
        assert!(!serves(&Condition { admitted: former, ..good }));
    }

    #[test]
    fn a_server_that_clients_do_not_reach_is_not_told() {
        let open = Condition { admitted: None, ..condition() };
        let posted = Posted { serving: false, ..posted() };
        let standby = route(&posted, &open, NOW).postgres.unwrap();
        assert_eq!((standby.state, standby.complete), (PostgresState::Standby, true));
        for away in [
            Condition { open: false, ..open.clone() },
            Condition { state: State::Stopped, ..open.clone() },
            Condition { state: State::Unresponsive, ..open },
        ] {
            assert_eq!(route(&posted, &away, NOW).postgres, None, "{away:?}");
        }
    }

    #[test]
    fn what_is_not_on_disk_yet_is_not_told() {
        let record = Record::genesis(Partner::First, None);
        let data = Data { valid: true, ..Data::default() };
        let durable = Durable::created(Identity(7), record, Some(data));
        let (me, timing) = (Member::FIRST, Timing::FAST);
        let config = session::Config { me, witness: None, wanted: None, timing, seed: 1, run: 1 };
        let (session, _) = Session::start(NOW, config, durable);
        let view = session.view(NOW);
        let before = Posted::default();
        let unsettled = before.after(&view, session.durable(), me, false, NOW);
        assert_eq!(unsettled, before);
        let settled = before.after(&view, session.durable(), me, true, NOW);
        assert_eq!((settled.term, settled.complete), (record.id.term, true));
    }

    #[test]
    fn the_same_is_told_again_only_when_it_is_asked() {
        let source = |posted| {
            let condition = watch::channel(condition()).1;
            let (member, host) = ("be1".to_owned(), "10.0.0.1".to_owned());
            let roll = Roll::default();
            Source {
                member,
                host,
                port: 5432,
                posted,
                condition,
                roll,
                instance: None,
                front_ends: None,
            }
        };
        let (post, posted) = watch::channel(posted());
        let mut following = follow(source(posted));
        assert!(following.news(NOW).is_some());
        post.send_modify(|posted| posted.lease_end = Some(NOW.after(Duration::from_secs(9))));
        assert_eq!(following.news(NOW), None);
        following.asked(12);
        let told = following.news(NOW).unwrap();
        assert_eq!((told.echo, told.lease_left_ms), (12, Some(9_000)));
        post.send_modify(|posted| posted.serving = false);
        assert!(!following.news(NOW).unwrap().serving);
    }
}
