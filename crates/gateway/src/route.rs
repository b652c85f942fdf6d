//! The gateway's view of the pool: who serves, and until when that is certain.
//!
//! Both members are followed (`follow`), and what they say is weighed in `routes`; here it is
//! shared with the client sessions. All of it is on one thread: a reader that does not wait between
//! two calls sees one state. Whether PostgreSQL is in recovery is asked nowhere: only the members
//! know who was elected and holds a lease.

mod follow;
pub(crate) mod line;
mod routes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use protocol::admin::Route;
use protocol::handshake::Introduction;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

pub use self::line::LineError;
#[cfg(test)]
pub use self::routes::Standby;
pub use self::routes::{Change, Lease, Leased, Principal, Routes, Side, Snapshot};
use crate::clock::{self, Moment};
use crate::config::{FrontEnd, ServerAddress};
use crate::papers::Papers;

/// A handle to the one view of the pool; clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    routes: RefCell<Routes>,
    generation: Cell<u64>,
    leased: Cell<Leased>,
    changed: Notify,
    /// Nothing is open on the principal of this term any more; 0: of none.
    drained: Cell<u64>,
    drain: Notify,
    members: [Member; 2],
    /// Whoever follows the members; `None`: only `told` feeds this view.
    following: Option<Following>,
}

/// What it takes to follow a member.
#[derive(Debug)]
struct Following {
    me: Introduction,
    pool: String,
    papers: Papers,
    tasks: RefCell<[Option<JoinHandle<()>>; 2]>,
}

#[derive(Debug)]
struct Member {
    server: RefCell<ServerAddress>,
    heard: Cell<Option<Moment>>,
    connected: Cell<bool>,
    /// What it last said about a manual failover: the term that is handed over, or 0.
    handing_over: Cell<u64>,
    problem: RefCell<Option<String>>,
}

/// One of the pool's servers, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberSeen {
    pub name: String,
    pub address: String,
    pub connected: bool,
    pub heard: Option<Moment>,
    pub problem: Option<String>,
}

impl Pool {
    /// Follows both members of the configuration, from now on and as long as the runtime lives.
    pub fn follow(config: &FrontEnd, papers: &Papers) -> Pool {
        let file = &config.file;
        let me = Introduction {
            deployment: file.deployment.clone(),
            host: file.name.clone(),
            run: u64::from(std::process::id()),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let following = Following {
            me,
            pool: file.pool.clone(),
            papers: papers.clone(),
            tasks: RefCell::default(),
        };
        let pool = Pool::new([file.first.clone(), file.second.clone()], Some(following));
        for side in Side::BOTH {
            pool.follow_side(side);
        }
        spawn_local(expire(pool.clone()));
        pool
    }

    /// The pool's servers are these from now on. What the others said last holds as long as their
    /// leases do.
    pub fn set_servers(&self, servers: [ServerAddress; 2]) {
        for (side, server) in Side::BOTH.into_iter().zip(servers) {
            let member = &self.shared.members[side.index()];
            if *member.server.borrow() == server {
                continue;
            }
            *member.server.borrow_mut() = server;
            member.connected.set(false);
            member.heard.set(None);
            member.handing_over.set(0);
            *member.problem.borrow_mut() = None;
            self.follow_side(side);
            self.settle(|routes| routes.lost(side, clock::now()));
        }
    }

    /// Instead of whoever was followed on that side.
    fn follow_side(&self, side: Side) {
        let Some(following) = &self.shared.following else { return };
        let task = &mut following.tasks.borrow_mut()[side.index()];
        if let Some(before) = task.take() {
            before.abort();
        }
        let server = self.shared.members[side.index()].server.borrow().clone();
        if server.is_none() {
            return;
        }
        let follower = follow::Follower {
            me: following.me.clone(),
            pool: following.pool.clone(),
            side,
            member: server.name,
            address: server.address,
            papers: following.papers.clone(),
        };
        *task = Some(spawn_local(follower.follow(self.clone())));
    }

    /// A view that only `told` feeds.
    #[cfg(test)]
    pub fn unfollowed(members: [(String, String); 2]) -> Pool {
        Pool::new(members.map(|(name, address)| ServerAddress { name, address }), None)
    }

    fn new(servers: [ServerAddress; 2], following: Option<Following>) -> Pool {
        let routes = Routes::new(clock::now());
        let members = servers.map(|server| Member {
            server: RefCell::new(server),
            heard: Cell::default(),
            connected: Cell::default(),
            handing_over: Cell::default(),
            problem: RefCell::default(),
        });
        let shared = Shared {
            generation: Cell::new(routes.snapshot().generation),
            leased: Cell::new(routes.leased()),
            routes: RefCell::new(routes),
            changed: Notify::new(),
            drained: Cell::new(0),
            drain: Notify::new(),
            members,
            following,
        };
        Pool { shared: Rc::new(shared) }
    }

    pub fn current(&self) -> Rc<Snapshot> {
        self.shared.routes.borrow().snapshot()
    }

    /// Grows with each change of the snapshot. A renewal of the lease is none.
    pub fn generation(&self) -> u64 {
        self.shared.generation.get()
    }

    /// Whether what has been read from the principal of `term` by `now` may be passed on. `now`
    /// must have been read *after* the bytes were.
    pub fn lease_valid(&self, term: u64, now: Moment) -> Lease {
        self.shared.leased.get().of(term, now)
    }

    /// As `lease_valid`, for what has been read by now.
    pub fn lease(&self, term: u64) -> Lease {
        self.lease_valid(term, clock::now())
    }

    pub fn lease_left(&self, now: Moment) -> Duration {
        self.shared.leased.get().until.since(now)
    }

    /// Ends at the next change of the snapshot, when a lease that had run out is renewed, and when
    /// a term ends. Changes count from the call on, not from the first poll.
    pub fn changed(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    /// No transaction is open on the principal of `term`, and none will be begun until more is
    /// heard of it: the member that hands over is told, also if its connection must be made again.
    pub fn drained(&self, term: u64) {
        self.shared.drained.set(term);
        self.shared.drain.notify_waiters();
    }

    /// One without a name is none: the pool has one server.
    pub fn members(&self) -> [MemberSeen; 2] {
        self.shared.members.each_ref().map(|member| {
            let ServerAddress { name, address } = member.server.borrow().clone();
            MemberSeen {
                name,
                address,
                connected: member.connected.get(),
                heard: member.heard.get(),
                problem: member.problem.borrow().clone(),
            }
        })
    }

    /// `side` has said `route`, in answer to what it was asked at `asked`.
    pub fn told(&self, side: Side, route: Route, asked: Moment) {
        let member = &self.shared.members[side.index()];
        let now = clock::now();
        member.heard.set(Some(now));
        if !member.connected.replace(true) {
            tracing::info!(member = member.server.borrow().name, "a member is followed");
        }
        *member.problem.borrow_mut() = None;
        member.handing_over.set(if route.handing_over { route.term } else { 0 });
        if !route.handing_over && route.term == self.shared.drained.get() {
            // It did not come to that: transactions are begun again.
            self.shared.drained.set(0);
        }
        self.settle(|routes| routes.heard(side, route, asked, now));
    }

    fn lost(&self, side: Side, error: &LineError) {
        let member = &self.shared.members[side.index()];
        let text = error.to_string();
        let known = member.problem.borrow().as_ref() == Some(&text);
        if member.connected.replace(false) || !known {
            let name = member.server.borrow().name.clone();
            tracing::warn!(member = name, error = text, "a member is not heard");
        }
        *member.problem.borrow_mut() = Some(text);
        // Whether it still waits for that, the next connection tells.
        member.handing_over.set(0);
        self.settle(|routes| routes.lost(side, clock::now()));
    }

    /// The term whose end of all transactions `side` is waiting for, and that has come.
    fn owes_drained(&self, side: Side) -> Option<u64> {
        let term = self.shared.members[side.index()].handing_over.get();
        (term != 0 && term == self.shared.drained.get()).then_some(term)
    }

    fn drain_asked(&self) -> Notified<'_> {
        self.shared.drain.notified()
    }

    fn settle(&self, change: impl FnOnce(&mut Routes) -> Change) {
        let shared = &*self.shared;
        let before = self.current();
        let changed = change(&mut shared.routes.borrow_mut());
        shared.leased.set(shared.routes.borrow().leased());
        match changed {
            Change::Nothing => return,
            Change::Leases => {}
            Change::Snapshot => {
                let after = self.current();
                shared.generation.set(after.generation);
                log(&before, &after);
            }
        }
        shared.changed.notify_waiters();
    }
}

/// Notices that the principal's lease has run out.
pub async fn expire(pool: Pool) {
    loop {
        let changed = pool.changed();
        let expires = pool.shared.routes.borrow().expires();
        let Some(until) = expires else {
            changed.await;
            continue;
        };
        let now = clock::now();
        if now < until {
            tokio::select! {
                () = changed => {}
                () = sleep(until.since(now)) => {}
            }
        } else {
            pool.settle(|routes| routes.time_passed(now));
        }
    }
}

fn log(before: &Snapshot, after: &Snapshot) {
    let who = |of: &Snapshot| of.principal.as_ref().map(|it| (it.member.clone(), it.term));
    if who(before) != who(after) {
        match &after.principal {
            Some(Principal { member, term, .. }) => {
                tracing::info!(principal = member, term, "a principal serves");
            }
            None => tracing::warn!(highest_term = after.highest_term, "nobody serves"),
        }
    }
    let handing_over = |of: &Snapshot| of.principal.as_ref().is_some_and(|it| it.handing_over);
    if handing_over(after) && !handing_over(before) {
        tracing::info!("the principal is about to hand over");
    }
}
