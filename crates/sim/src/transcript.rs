//! What a reader of a scenario wants to know: roles, records, decisive messages, orders, and what
//! clients were told. Heartbeats and probes are left out.

use std::collections::VecDeque;

use session::{
    Answer, Body, Boundary, Event as Told, Input, Level, Members, Mirroring, Order, Output,
    Protection, Record, RecordId, Verdict,
};

use crate::seat::Seat;
use crate::world::{Heard, World};

/// How many lines of one member a repetition is looked for in.
const REPEATED: usize = 4;

#[derive(Debug, Default)]
pub struct Transcript {
    lines: Vec<String>,
    records: [Option<Record>; 4],
    acknowledged: u128,
    written: usize,
    /// The last lines of each member, so that what is said again and again is shown once.
    said: [VecDeque<String>; 4],
}

impl Transcript {
    pub fn new(world: &World) -> Transcript {
        let records = Seat::ALL.map(|seat| world.saved(seat).record);
        Transcript { records, ..Transcript::default() }
    }

    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn line(&mut self, world: &World, text: &str) {
        let millis = world.now / 1_000;
        self.lines.push(format!("{:>3}.{:03} {text}", millis / 1_000, millis % 1_000));
    }

    /// Takes in what the last event made the members do.
    pub fn note(&mut self, world: &World) {
        for seat in Seat::ALL {
            if world.hosts[seat.index()].session.is_none() {
                self.records[seat.index()] = world.saved(seat).record;
            }
        }
        let mut records = self.records;
        for (seat, heard) in &world.heard {
            let text = match heard {
                Heard::Input(Input::Postgres(fact)) => fact_text(fact),
                Heard::Input(_) => None,
                Heard::Output(output) => self.output_text(*seat, output, &mut records),
            };
            if let Some(text) = text
                && !self.said[seat.index()].contains(&text)
            {
                self.line(world, &format!("{seat:<4} {text}"));
                let said = &mut self.said[seat.index()];
                said.push_back(text);
                if said.len() > REPEATED {
                    said.pop_front();
                }
            }
        }
        self.records = records;
        for id in self.written..world.ledger.commits.len() {
            self.line(world, &format!("client commits {id}"));
        }
        self.written = world.ledger.commits.len();
        let new = world.ledger.acknowledged & !self.acknowledged;
        for id in (0..self.written).filter(|id| new & (1 << id) != 0) {
            self.line(world, &format!("client is told that {id} is committed"));
        }
        self.acknowledged = world.ledger.acknowledged;
    }

    fn output_text(
        &self,
        seat: Seat,
        output: &Output,
        records: &mut [Option<Record>; 4],
    ) -> Option<String> {
        match output {
            Output::Persist(durable) => {
                let known = std::mem::replace(&mut records[seat.index()], durable.record);
                let record = durable.record.filter(|record| known != Some(*record))?;
                Some(format!("holds {}", record_text(&record)))
            }
            Output::Send(message) => {
                let to = Seat::of(message.to).map_or("nobody", Seat::name);
                // The handshake of every start is of no interest, only that of a lost state.
                let knows = |seat: Seat| records[seat.index()].is_some();
                match &message.body {
                    Body::StateAsked { .. } if message.record.is_some() => return None,
                    Body::StateAnswered { .. } if Seat::of(message.to).is_none_or(knows) => {
                        return None;
                    }
                    Body::StateAsked { .. }
                    | Body::StateAnswered { .. }
                    | Body::IdentityLost { .. } => {}
                    Body::Heartbeat { .. } | Body::HeartbeatAnswered { .. } => return None,
                    Body::Proposed
                    | Body::Accepted { .. }
                    | Body::ProposalRefused { .. }
                    | Body::PreVoteAsked { .. }
                    | Body::PreVoteAnswered { .. }
                    | Body::VoteAsked { .. }
                    | Body::VoteAnswered { .. }
                    | Body::Resigned { .. }
                    | Body::LevelAsked { .. }
                    | Body::LevelAnswered { .. } => {}
                }
                body_text(&message.body, message.record).map(|text| format!("-> {to}: {text}"))
            }
            Output::Postgres(order) => order_text(order),
            Output::Answer { answer, .. } => Some(match answer {
                Answer::Begun => "answers: it has begun".into(),
                Answer::Done => "answers: done".into(),
                Answer::Refused(why) => format!("refuses: {why:?}"),
            }),
            Output::Tell(told) => match told {
                Told::RoleChanged { from, to, term, cause } => {
                    Some(format!("is {to:?}, was {from:?} (term {term}, {cause:?})"))
                }
                Told::Alarm(alarm) => Some(format!("ALARM {alarm:?}")),
                Told::RecordChanged { .. } | Told::Reached { .. } => None,
            },
            Output::Rejected(_) => None,
        }
    }

    /// All members as they stand.
    pub fn show(&mut self, world: &World) {
        for seat in world.seats() {
            let Some(session) = &world.hosts[seat.index()].session else {
                if *seat == Seat::Wit2 {
                    continue;
                }
                self.line(world, &format!("{seat:<4} does not run"));
                continue;
            };
            let view = session.view(world.clock(*seat));
            let record = view.record.map_or("no record".into(), |record| record_text(&record));
            let mut text = format!("{:?}, promise {}, {record}", view.role, view.promise);
            if let Some(partner) = seat.partner() {
                let server = &world.servers[crate::seat::side(partner)];
                text += &format!(", {:?}", view.mirroring);
                text += &format!("; PostgreSQL {:?} at {}", server.run, server.position());
                if view.serving && !view.obstacles.is_empty() {
                    text += &format!("; no automatic failover: {:?}", view.obstacles);
                }
            }
            self.line(world, &format!("{seat:<4} {text}"));
        }
    }
}

fn id_text(id: RecordId) -> String {
    format!("{}.{}", id.term, id.revision)
}

/// Such as `2.1 be1 Mirrored`; what is out of the ordinary follows.
fn record_text(record: &Record) -> String {
    let principal = Seat::of_partner(record.principal);
    let protection = match record.protection {
        Protection::Mirrored => "Mirrored",
        Protection::Exposed => "Exposed",
    };
    let mut text = format!("{} {principal} {protection}", id_text(record.id));
    if record.mirroring == Mirroring::Suspended {
        text += " suspended";
    }
    if record.members.sole().is_some() {
        text += " sole";
    }
    if let Members::Changing { old, new } = record.members {
        let name =
            |it: Option<session::WitnessId>| it.map_or("none".into(), |it| format!("wit{}", it.0));
        text += &format!(" witness {} -> {}", name(old), name(new));
    }
    if let Some(forced) = record.forced {
        text += &format!(" forced in term {} from {}", forced.term, id_text(forced.parent));
    }
    text
}

fn body_text(body: &Body, record: Option<Record>) -> Option<String> {
    let verdict_text = |verdict: &Verdict| match verdict {
        Verdict::Granted => "yes".to_owned(),
        Verdict::Refused(why) => format!("no, {why:?}"),
    };
    match body {
        Body::Heartbeat { .. } | Body::HeartbeatAnswered { .. } => None,
        Body::Proposed => record.map(|record| format!("I propose {}", id_text(record.id))),
        Body::Accepted { id } => Some(format!("I accept {}", id_text(*id))),
        Body::ProposalRefused { id } => Some(format!("I refuse {}", id_text(*id))),
        Body::PreVoteAsked { term, .. } => Some(format!("would you vote for me in term {term}?")),
        Body::PreVoteAnswered { term, verdict } => {
            Some(format!("my vote in term {term} would be {}", verdict_text(verdict)))
        }
        Body::VoteAsked { term, .. } => Some(format!("vote for me in term {term}!")),
        Body::VoteAnswered { term, verdict, .. } => {
            Some(format!("my vote in term {term}: {}", verdict_text(verdict)))
        }
        Body::Resigned { term, handover: None } => Some(format!("I resign term {term}")),
        Body::Resigned { term, handover: Some(end) } => {
            Some(format!("I resign term {term} and hand over at {end}"))
        }
        Body::LevelAsked { position, .. } => Some(format!("do you hold {position}?")),
        Body::LevelAnswered { level, .. } => Some(match level {
            Level::Reached => "I hold it".into(),
            Level::NotReached => "I do not hold it".into(),
        }),
        Body::StateAsked { .. } => Some("what do you know of me?".into()),
        Body::IdentityLost { .. } => Some("your state is an old one".into()),
        Body::StateAnswered { remembered, .. } => {
            Some(format!("I know promise {} of you", remembered.promise))
        }
    }
}

fn order_text(order: &Order) -> Option<String> {
    Some(match order {
        Order::RunAlone { .. } => "PostgreSQL: run as a standby without upstream".into(),
        Order::Follow { upstream, timeline, .. } => {
            format!("PostgreSQL: follow {} on timeline {timeline}", Seat::of_partner(*upstream))
        }
        Order::Touch { .. } => "PostgreSQL: rewind or copy as needed".into(),
        Order::PreparePromotion { .. } => "PostgreSQL: stop receiving, replay all".into(),
        Order::Promote { timeline, .. } => format!("PostgreSQL: promote to timeline {timeline}"),
        Order::CommitBarrier { .. } => "PostgreSQL: commit the barrier".into(),
        Order::AdmitClients { .. } => "PostgreSQL: let clients in".into(),
        Order::OpenGuard => "PostgreSQL: open the guard".into(),
        Order::CloseGuard => "PostgreSQL: close the guard".into(),
        Order::ReadPosition { .. } => return None,
        Order::Stop => "PostgreSQL: stop at once".into(),
        Order::ShutDown { .. } => "PostgreSQL: shut down cleanly".into(),
    })
}

fn fact_text(fact: &session::Fact) -> Option<String> {
    use session::Fact;
    match fact {
        Fact::Exited => Some("PostgreSQL exited".into()),
        Fact::Streaming { position, .. } => Some(format!("PostgreSQL streams, at {position}")),
        Fact::StreamLost { .. } => Some("PostgreSQL streams no more".into()),
        Fact::TouchNeeded { touch, .. } => Some(format!("PostgreSQL needs a {touch:?}")),
        Fact::PromotionPrepared { position, boundary, .. } => {
            let boundary = match boundary {
                Boundary::Known(xid) => format!("{}", xid.0),
                Boundary::Unknown => "unknown".into(),
            };
            Some(format!("PostgreSQL has replayed all up to {position}, boundary {boundary}"))
        }
        Fact::ShutDown { position } => Some(format!("PostgreSQL is shut down at {position}")),
        Fact::ShutDownLate => Some("PostgreSQL was shut down too late".into()),
        Fact::PromotionFailed { .. } => Some("the promotion failed".into()),
        Fact::Unhealthy(ailment) => Some(format!("PostgreSQL is unhealthy: {ailment:?}")),
        Fact::Found(_)
        | Fact::Started { .. }
        | Fact::Stopped
        | Fact::Promoted { .. }
        | Fact::BarrierCommitted { .. }
        | Fact::Checkpointed { .. }
        | Fact::GuardOpened
        | Fact::GuardClosed
        | Fact::GuardLost
        | Fact::PositionRead { .. }
        | Fact::MirrorSeen(_)
        | Fact::PositionSeen { .. }
        | Fact::Healthy => None,
    }
}
