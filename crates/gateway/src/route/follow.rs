//! Following one member: a connection that is made again whenever it ends, and a question with
//! every tenth of a second, whose stamp tells how old the answer can be at most.
//!
//! A member that does not answer for a second is not waited for: a connection that is open at this
//! end only would otherwise hide a principal until TCP gives it up.

use std::time::Duration;

use protocol::admin::{Request, Response, Route};
use protocol::frame::Kind;
use protocol::handshake::{Introduction, Role};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Pool;
use super::line::{Line, LineError};
use super::routes::Side;
use crate::clock::{self, Moment};
use crate::papers::Papers;

const ASK_EVERY: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whom to follow, and as whom.
#[derive(Clone, Debug)]
pub struct Follower {
    pub me: Introduction,
    pub pool: String,
    pub side: Side,
    pub member: String,
    pub address: String,
    pub papers: Papers,
}

impl Follower {
    /// Follows until the task is ended.
    pub async fn follow(self, view: Pool) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut connection = Connection {
                follower: &self,
                view: &view,
                first: Moment::default(),
                asked: Moment::default(),
                heard: None,
                drained: 0,
            };
            let Err(error) = connection.run().await;
            if connection.heard.is_some() {
                pause = FIRST_PAUSE;
            }
            view.lost(self.side, &error);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

struct Connection<'a> {
    follower: &'a Follower,
    view: &'a Pool,
    /// When it was first asked, and last.
    first: Moment,
    asked: Moment,
    heard: Option<Moment>,
    /// The term of which it has been told that nothing is open any more; 0: none.
    drained: u64,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<std::convert::Infallible, LineError> {
        let Follower { me, member, address, papers, .. } = self.follower;
        let hello = me.hello(Role::Administrator, member);
        let dialled = timeout(CONNECT, Line::dial(address, &hello, papers)).await;
        let mut line = dialled.map_err(|_| LineError::Silent)??;
        self.first = clock::now();
        let mut ticks = interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tell_drained(&mut line).await?;
            tokio::select! {
                biased;
                answer = line.answer() => self.answered(answer?)?,
                _ = ticks.tick() => self.ask(&mut line).await?,
                () = self.view.drain_asked() => {}
            }
        }
    }

    async fn ask(&mut self, line: &mut Line) -> Result<(), LineError> {
        let now = clock::now();
        if now.since(self.heard.unwrap_or(self.first)) > SILENCE {
            return Err(LineError::Silent);
        }
        self.asked = now;
        let pool = self.follower.pool.clone();
        self.send(line, &Request::Follow { pool, stamp: now.nanos() }).await
    }

    async fn tell_drained(&mut self, line: &mut Line) -> Result<(), LineError> {
        let Some(term) = self.view.owes_drained(self.follower.side) else {
            self.drained = 0;
            return Ok(());
        };
        if self.drained == term {
            return Ok(());
        }
        self.drained = term;
        let pool = self.follower.pool.clone();
        self.send(line, &Request::Drained { pool, term }).await
    }

    async fn send(&self, line: &mut Line, request: &Request) -> Result<(), LineError> {
        let sent = timeout(SILENCE, line.send(Kind::Request, &request.to_bytes())).await;
        sent.map_err(|_| LineError::Silent)?
    }

    fn answered(&mut self, answer: Response) -> Result<(), LineError> {
        let route = match answer {
            Response::Route(route) => route,
            Response::Refused(refusal) => return Err(refusal.into()),
            Response::Done { .. }
            | Response::Begun { .. }
            | Response::Status(_)
            | Response::Plan(_)
            | Response::Preview(_)
            | Response::History { .. }
            | Response::FrontEnd(_)
            | Response::Topology(_)
            | Response::Preflight(_)
            | Response::Audit(_) => {
                return Err(LineError::Senseless("answers something else than asked"));
            }
        };
        let asked = self.question_of(&route)?;
        self.heard = Some(clock::now());
        self.view.told(self.follower.side, route, asked);
        Ok(())
    }

    /// When the question was asked that `route` answers.
    fn question_of(&self, route: &Route) -> Result<Moment, LineError> {
        if route.pool != self.follower.pool || route.member != self.follower.member {
            return Err(LineError::Senseless("speaks of another pool, or for another member"));
        }
        let asked = Moment::from_nanos(route.echo);
        if asked < self.first || asked > self.asked {
            return Err(LineError::Senseless("answers a question that was never asked"));
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::Future;
    use std::rc::Rc;

    use protocol::admin::{PostgresState, RoutePostgres};
    use protocol::handshake::Hello;
    use tokio::net::TcpListener;
    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};

    use super::super::{Lease, Snapshot};
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A member of which the test says what it answers.
    #[derive(Default)]
    struct Fake {
        route: RefCell<Option<Route>>,
        /// Added to the stamp that is echoed.
        shift: Cell<u64>,
        connections: Cell<u32>,
        drained: RefCell<Vec<u64>>,
        happened: Notify,
    }

    impl Fake {
        fn start(self: &Rc<Fake>, listener: TcpListener) {
            let fake = Rc::clone(self);
            spawn_local(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let fake = Rc::clone(&fake);
                    spawn_local(async move {
                        let line = Line::new(Box::new(stream));
                        let ended: Result<(), LineError> = fake.serve(line).await;
                        assert!(matches!(
                            ended,
                            Err(LineError::Closed | LineError::Broken(_) | LineError::Senseless(_))
                        ));
                    });
                }
            });
        }

        /// Until the follower hangs up, or no route is left: then it closes the connection.
        async fn serve(&self, mut line: Line) -> Result<(), LineError> {
            let hello = Hello::from_bytes(&line.next().await?.payload)?;
            let me = Introduction { host: "be1".to_owned(), ..introduction() };
            let welcome = me.answer(&hello, |_| false)?;
            line.send(Kind::Welcome, &welcome.to_bytes()).await?;
            self.connections.set(self.connections.get() + 1);
            loop {
                let asked = line.next().await?;
                match Request::from_bytes(&asked.payload)? {
                    Request::Follow { stamp, .. } => {
                        let Some(route) = self.route.borrow().clone() else {
                            return Err(LineError::Senseless("is told to close"));
                        };
                        // A member without a name says nothing, and keeps the connection.
                        if !route.member.is_empty() {
                            let echo = stamp.wrapping_add(self.shift.get());
                            let answer = Response::Route(Route { echo, ..route });
                            line.send(Kind::Response, &answer.to_bytes()).await?;
                        }
                    }
                    Request::Drained { term, .. } => self.drained.borrow_mut().push(term),
                    other => panic!("asked {other:?}"),
                }
                self.happened.notify_waiters();
            }
        }

        async fn until(&self, condition: impl Fn(&Fake) -> bool) {
            let wait = async {
                loop {
                    let happened = self.happened.notified();
                    if condition(self) {
                        return;
                    }
                    happened.await;
                }
            };
            timeout(DEADLINE, wait).await.expect("it happens");
        }
    }

    fn introduction() -> Introduction {
        Introduction {
            deployment: "demo".to_owned(),
            host: "fe1".to_owned(),
            run: 1,
            software: "0".to_owned(),
        }
    }

    fn route() -> Route {
        Route {
            pool: "pool01".to_owned(),
            member: "be1".to_owned(),
            echo: 0,
            promise: 4,
            term: 4,
            serving: true,
            lease_left_ms: Some(700),
            handing_over: false,
            postgres: Some(RoutePostgres {
                host: "127.0.0.1".to_owned(),
                port: 5432,
                state: PostgresState::Primary,
                timeline: 4,
                complete: false,
            }),
            timelines: vec![1, 4],
            promotions: Vec::new(),
        }
    }

    async fn view_until(view: &Pool, condition: impl Fn(&Snapshot) -> bool) {
        let wait = async {
            loop {
                let changed = view.changed();
                if condition(&view.current()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the view becomes so");
    }

    /// Runs `test` with a member that answers `route`, and a view that follows it.
    fn with_member<F: Future<Output = ()>>(route: Route, test: impl FnOnce(Rc<Fake>, Pool) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let fake = Rc::new(Fake::default());
            *fake.route.borrow_mut() = Some(route);
            fake.start(listener);
            let other = ("be2".to_owned(), String::new());
            let view = Pool::unfollowed([("be1".to_owned(), address.clone()), other]);
            let follower = Follower {
                me: introduction(),
                pool: "pool01".to_owned(),
                side: Side::First,
                member: "be1".to_owned(),
                address,
                papers: Papers::default(),
            };
            spawn_local(follower.follow(view.clone()));
            spawn_local(super::super::expire(view.clone()));
            test(fake, view).await;
        });
    }

    fn serves(snapshot: &Snapshot) -> bool {
        snapshot.principal.as_ref().is_some_and(|principal| principal.term == 4)
    }

    #[test]
    fn a_lease_is_renewed_without_a_new_generation() {
        with_member(route(), async |fake, view| {
            view_until(&view, serves).await;
            let (generation, begin) = (view.generation(), clock::now());
            // Longer than the lease that was told at first.
            fake.until(|_| clock::now().since(begin) > Duration::from_millis(900)).await;
            assert_eq!(view.lease(4), Lease::Valid);
            assert_eq!(view.generation(), generation);
            assert_eq!(fake.connections.get(), 1);
        });
    }

    #[test]
    fn a_member_that_falls_silent_is_connected_again() {
        with_member(route(), async |fake, view| {
            view_until(&view, serves).await;
            *fake.route.borrow_mut() = Some(Route { member: String::new(), ..route() });
            view_until(&view, |snapshot| snapshot.principal.is_none()).await;
            assert_eq!(view.lease(4), Lease::Expired);
            fake.until(|fake| fake.connections.get() > 1).await;
            let [seen, _] = view.members();
            assert_eq!(seen.problem.as_deref(), Some("it does not answer"));
            *fake.route.borrow_mut() = Some(route());
            view_until(&view, serves).await;
            assert_eq!(view.lease(4), Lease::Valid);
        });
    }

    #[test]
    fn the_end_of_all_transactions_is_told_on_each_connection_while_it_is_awaited() {
        let handing_over = Route { handing_over: true, ..route() };
        with_member(handing_over.clone(), async |fake, view| {
            let asks = |snapshot: &Snapshot| {
                snapshot.principal.as_ref().is_some_and(|principal| principal.handing_over)
            };
            view_until(&view, asks).await;
            view.drained(4);
            fake.until(|fake| *fake.drained.borrow() == [4]).await;
            *fake.route.borrow_mut() = None;
            view_until(&view, |_| !view.members()[0].connected).await;
            *fake.route.borrow_mut() = Some(handing_over.clone());
            fake.until(|fake| *fake.drained.borrow() == [4, 4]).await;
            // It did not come to that, and is asked for anew later: transactions were begun since.
            *fake.route.borrow_mut() = Some(route());
            view_until(&view, |snapshot| serves(snapshot) && !asks(snapshot)).await;
            *fake.route.borrow_mut() = Some(handing_over.clone());
            view_until(&view, asks).await;
            assert_eq!(*fake.drained.borrow(), [4, 4]);
            view.drained(4);
            fake.until(|fake| *fake.drained.borrow() == [4, 4, 4]).await;
        });
    }

    #[test]
    fn an_answer_to_a_question_that_was_never_asked_ends_the_connection() {
        with_member(route(), async |fake, view| {
            fake.shift.set(10_000_000_000);
            fake.until(|fake| fake.connections.get() > 1).await;
            assert!(view.current().principal.is_none());
            let problem = view.members()[0].problem.clone();
            assert_eq!(problem.as_deref(), Some("it answers a question that was never asked"));
        });
    }
}
