//! Following one member: a connection that is made again whenever it ends, and a question with every
//! tenth of a second, whose stamp tells how old the answer can be at most.
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
        let Follower { me, member, address, .. } = self.follower;
        let hello = me.hello(Role::Administrator, member);
        let dialled = timeout(CONNECT, Line::dial(address, &hello)).await;
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
            | Response::FrontEnd(_) => {
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
