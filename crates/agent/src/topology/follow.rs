//! A process that asks whether there is a newer version, on the connection that it keeps for that.
//!
//! It is answered at once when there is one, else when its patience ends. Each question tells how
//! the process stands; a further question takes the place of the one before it.

use std::time::Duration;

use protocol::admin::words::Code;
use protocol::admin::{
    Refusal, Request, Response, TopologyAnswer, TopologyRequest, TopologyStanding,
};
use protocol::frame::{Frame, Kind};
use tokio::time::{Instant, sleep_until};

use super::desk::{Desk, Report};
use crate::peers::{Channel, ChannelError};

/// One that asks nothing for so long is hung up on.
const SILENCE: Duration = Duration::from_secs(20);
const LONGEST_WAIT: u32 = 10_000;

struct Follower<'a> {
    desk: &'a Desk,
    /// The name in its certificate.
    visitor: Option<String>,
    /// As it told last.
    standing: Option<TopologyStanding>,
    /// The end of its patience with the newest question; `None`: that is answered.
    answer_by: Option<Instant>,
    refusal: Option<Refusal>,
}

/// Serves a connection that has asked with `first`, until it ends.
pub(crate) async fn serve(
    desk: &Desk,
    mut channel: Channel,
    visitor: Option<String>,
    first: Request,
) -> Result<(), ChannelError> {
    let mut follower = Follower { desk, visitor, standing: None, answer_by: None, refusal: None };
    follower.hear(first);
    let ended = follower.converse(&mut channel).await;
    if let Some(standing) = follower.standing {
        let _ = desk.reports.try_send(Report::Left(standing.process));
    }
    ended
}

impl Follower<'_> {
    async fn converse(&mut self, channel: &mut Channel) -> Result<(), ChannelError> {
        let mut newest = self.desk.newest.clone();
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            if channel.is_written()
                && let Some(answer) = self.answer(&mut newest)
            {
                channel.put(Kind::Response, &answer.to_bytes())?;
            }
            let answer_by = self.answer_by.unwrap_or(silent_at);
            tokio::select! {
                frame = channel.progress() => if let Some(frame) = frame? {
                    silent_at = Instant::now() + SILENCE;
                    self.read(&frame)?;
                },
                changed = newest.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = sleep_until(answer_by), if channel.is_written() && answer_by < silent_at => {}
                () = sleep_until(silent_at) => return Err(ChannelError::Late),
            }
        }
    }

    /// What is to be said now.
    fn answer(
        &mut self,
        newest: &mut tokio::sync::watch::Receiver<super::desk::Newest>,
    ) -> Option<Response> {
        if let Some(refusal) = self.refusal.take() {
            return Some(refusal.into());
        }
        let (standing, answer_by) = (self.standing.as_ref()?, self.answer_by?);
        let newest = newest.borrow_and_update().clone();
        let version = newest.as_ref().map_or(0, |newest| newest.header.version);
        let answer = match newest {
            Some(newest) if version > standing.knows() => {
                TopologyAnswer::Newer { copy: (*newest).clone() }
            }
            Some(_) | None if Instant::now() < answer_by => return None,
            Some(_) | None => TopologyAnswer::Nothing { newest: version },
        };
        self.answer_by = None;
        Some(Response::Topology(answer))
    }

    fn read(&mut self, frame: &Frame) -> Result<(), ChannelError> {
        if frame.kind != Kind::Request {
            return Err(ChannelError::NoIntroduction);
        }
        match Request::from_bytes(&frame.payload) {
            Ok(request) => self.hear(request),
            Err(refusal) => self.refusal = Some(refusal),
        }
        Ok(())
    }

    fn hear(&mut self, request: Request) {
        let Request::Topology(TopologyRequest::Follow { standing, wait_ms }) = request else {
            let detail = "this connection follows the topology; ask on another one";
            self.refusal = Some(Code::UnknownRequest.refusal(Some(detail.to_owned())));
            return;
        };
        if self.visitor.as_ref().is_some_and(|visitor| *visitor != standing.process) {
            let detail = "a process tells of its own copy only";
            self.refusal = Some(Code::NotPermitted.refusal(Some(detail.to_owned())));
            return;
        }
        let known = self.standing.as_ref().is_some_and(|told| told.process == standing.process);
        let report = if known { Report::Told } else { Report::Came };
        if !known && let Some(before) = self.standing.take() {
            let _ = self.desk.reports.try_send(Report::Left(before.process));
        }
        // What is lost here is told again with the next question.
        let _ = self.desk.reports.try_send(report(standing.clone()));
        let wait = Duration::from_millis(u64::from(wait_ms.min(LONGEST_WAIT)));
        self.answer_by = Some(Instant::now() + wait);
        self.standing = Some(standing);
    }
}
