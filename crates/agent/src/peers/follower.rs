//! A Front End that follows pools: it is told of each at once when it asks, and after each change.
//!
//! Nothing is kept for a follower that is slow: when it takes bytes again, it is told what holds
//! then. Its transport ends a connection whose other side is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{Refusal, Request, Response};
use protocol::frame::{Frame, Kind};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::channel::{Channel, ChannelError};
use super::visitor::Visitor;
use crate::clock;
use crate::route::{Changes, Following, Routes};

/// A follower asks with each of its heartbeats; one that asks nothing for so long is hung up on.
const SILENCE: Duration = Duration::from_secs(10);

/// Refusals that a follower has not taken yet.
const REFUSALS: usize = 16;

struct Follower<'a> {
    routes: &'a Routes,
    visitor: &'a Visitor,
    followed: BTreeMap<String, Following>,
    changes: JoinSet<Result<Changes, String>>,
    /// The pools that it is to be told of.
    due: BTreeSet<String>,
    refusals: Vec<Refusal>,
}

/// Serves a connection that has asked to follow, until it ends.
pub(super) async fn serve(
    routes: &Routes,
    mut channel: Channel,
    visitor: &Visitor,
    first: Request,
) -> Result<(), ChannelError> {
    let mut follower = Follower {
        routes,
        visitor,
        followed: BTreeMap::new(),
        changes: JoinSet::new(),
        due: BTreeSet::new(),
        refusals: Vec::new(),
    };
    follower.hear(first);
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        if channel.is_written() {
            follower.tell(&mut channel)?;
        }
        tokio::select! {
            frame = channel.progress() => if let Some(frame) = frame? {
                silent_at = Instant::now() + SILENCE;
                follower.read(&frame)?;
            },
            Some(changed) = follower.changes.join_next() => {
                match changed {
                    Ok(Ok(changes)) => {
                        follower.due.insert(changes.pool.clone());
                        follower.changes.spawn(changes.next());
                    }
                    Ok(Err(pool)) => follower.ended(pool),
                    Err(_) => return Ok(()),
                }
            }
            () = sleep_until(silent_at) => return Err(ChannelError::Late),
        }
    }
}

impl Follower<'_> {
    fn read(&mut self, frame: &Frame) -> Result<(), ChannelError> {
        if frame.kind != Kind::Request {
            return Err(ChannelError::NoIntroduction);
        }
        match Request::from_bytes(&frame.payload) {
            Ok(request) if !self.visitor.may(&request) => {
                self.refuse(Code::NotPermitted.refusal(Some(self.visitor.to_string())));
            }
            Ok(request) => self.hear(request),
            Err(refusal) => self.refuse(refusal),
        }
        Ok(())
    }

    fn hear(&mut self, request: Request) {
        match request {
            Request::Follow { pool, stamp } => self.follow(pool, stamp),
            Request::Drained { pool, term } => {
                if let Some(following) = self.followed.get(&pool) {
                    following.drained(term);
                }
            }
            Request::CreateSession { .. }
            | Request::Status { .. }
            | Request::Failover { .. }
            | Request::ForceService { .. }
            | Request::Suspend { .. }
            | Request::Resume { .. }
            | Request::History { .. }
            | Request::ChangeWitness { .. }
            | Request::ServeAlone { .. }
            | Request::Learn { .. }
            | Request::Shutdown { .. }
            | Request::Topology(_)
            | Request::Preflight { .. }
            | Request::Audit { .. } => {
                let detail = "this connection follows pools; ask on another one";
                self.refuse(Code::UnknownRequest.refusal(Some(detail.to_owned())));
            }
        }
    }

    /// Asked with each heartbeat, so a Front End that is not named any more is soon told no more.
    fn follow(&mut self, pool: String, stamp: u64) {
        if let Some(name) = self.visitor.front_end()
            && !self.routes.admits(&pool, name)
        {
            self.followed.remove(&pool);
            self.due.remove(&pool);
            return self.refuse(Code::UnknownFrontEnd.refusal(Some(name.to_owned())));
        }
        if !self.followed.contains_key(&pool) {
            match self.routes.follow(&pool) {
                Ok(following) => {
                    self.changes.spawn(following.changes().next());
                    self.followed.insert(pool.clone(), following);
                }
                Err(refusal) => return self.refuse(refusal),
            }
        }
        if let Some(following) = self.followed.get_mut(&pool) {
            following.asked(stamp);
            self.due.insert(pool);
        }
    }

    /// There is nothing to follow any more: the pool has left this process.
    fn ended(&mut self, pool: String) {
        self.followed.remove(&pool);
        self.due.remove(&pool);
        self.refuse(Code::UnknownPool.refusal(Some(pool)));
    }

    /// One that never reads its answers loses some of them.
    fn refuse(&mut self, refusal: Refusal) {
        if self.refusals.len() < REFUSALS {
            self.refusals.push(refusal);
        }
    }

    fn tell(&mut self, channel: &mut Channel) -> Result<(), ChannelError> {
        for refusal in self.refusals.drain(..) {
            channel.put(Kind::Response, &Response::Refused(refusal).to_bytes())?;
        }
        while let Some(pool) = self.due.pop_first() {
            let following = self.followed.get_mut(&pool);
            if let Some(route) = following.and_then(|following| following.news(clock::now())) {
                channel.put(Kind::Response, &Response::Route(route).to_bytes())?;
            }
        }
        Ok(())
    }
}
