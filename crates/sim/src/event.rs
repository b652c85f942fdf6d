//! All that can happen in a world, as one line of text each.
//!
//! An event names what happens by place (a channel and an index in it, a partner), never by a
//! running number, so that a trace still means something after events were dropped from it.

use core::fmt;
use core::str::FromStr;

use session::{Partner, Request};

use crate::seat::Seat;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Exact clocks: all clocks reach this time, in microseconds.
    Advance(u64),
    /// The session looks at its clock. With free clocks that clock first reaches the session's
    /// deadline, or goes on by one heartbeat, whichever comes first.
    Tick(Seat),
    Deliver(Letter),
    /// Delivered, and a second copy goes astray.
    Repeat(Letter),
    /// Goes astray: it arrives when nobody expects it any more.
    Stray(Letter),
    /// The stray message of this place arrives.
    Late(u8),
    Lose(Letter),
    /// Something that happens at one partner.
    At(Local, Partner),
    /// Something that befalls one member.
    To(Blow, Seat),
    Cut(Seat, Seat),
    Heal(Seat, Seat),
    /// The replication link between the two PostgreSQL servers.
    CutStream,
    HealStream,
    Ask(Partner, Request),
}

/// A message on its way: the `index`th of its channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Letter {
    pub from: Seat,
    pub to: Seat,
    pub index: u8,
}

/// What can happen at one partner. Each is one atomic step of PostgreSQL, of the agent's hands on
/// it, or of a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Local {
    /// The session hears the oldest fact.
    Fact,
    /// The agent performs the next step of the oldest order.
    Work,
    /// The agent goes on with making this copy follow.
    Rejoin,
    /// The agent sees that this standby streams and is past the fork.
    Follows,
    Probe,
    /// The standby's receiver connects to its upstream.
    Connect,
    /// The receiver gets and flushes one record more.
    Stream,
    /// The primary's walsender reads what the mirror has confirmed.
    Confirm,
    /// The primary notices that its mirror's connection is gone.
    SenderEnds,
    ReceiverEnds,
    GuardConfirms,
    /// The sender process of a closed guard is gone.
    GuardEnds,
    BarrierReturns,
    Checkpoint,
    /// WAL that was only inserted reaches the disk.
    Flush,
    /// The deadline of a clean shutdown passes.
    ShutDownLate,
    /// A client commits; its transaction id is the next one.
    Write,
    /// As `Write`, but the WAL is not flushed yet.
    Insert,
    /// A client is given a transaction id and does not commit yet.
    Begin,
    /// The client of `Begin` commits.
    Finish,
    /// The gateway asks for the outcome of all commits in doubt.
    Tell,
    /// PostgreSQL crashes.
    Exit,
    Sicken,
    Recover,
    LoseData,
}

/// What can befall a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Blow {
    /// The agent or witness process dies; PostgreSQL goes on.
    CrashAgent,
    /// The agent and PostgreSQL die together.
    CrashHost,
    Restart,
    /// Writes to the state disk do not end.
    Stall,
    /// They end again: all that waited is performed.
    Unstall,
    LoseState,
    Freeze,
    Thaw,
}

pub const LOCALS: [(Local, &str); 25] = [
    (Local::Fact, "fact"),
    (Local::Work, "work"),
    (Local::Rejoin, "rejoin"),
    (Local::Follows, "follows"),
    (Local::Probe, "probe"),
    (Local::Connect, "connect"),
    (Local::Stream, "stream"),
    (Local::Confirm, "confirm"),
    (Local::SenderEnds, "sender-ends"),
    (Local::ReceiverEnds, "receiver-ends"),
    (Local::GuardConfirms, "guard-confirms"),
    (Local::GuardEnds, "guard-ends"),
    (Local::BarrierReturns, "barrier-returns"),
    (Local::Checkpoint, "checkpoint"),
    (Local::Flush, "flush"),
    (Local::ShutDownLate, "shutdown-late"),
    (Local::Write, "write"),
    (Local::Insert, "insert"),
    (Local::Begin, "begin"),
    (Local::Finish, "finish"),
    (Local::Tell, "tell"),
    (Local::Exit, "exit"),
    (Local::Sicken, "sicken"),
    (Local::Recover, "recover"),
    (Local::LoseData, "lose-data"),
];

pub const BLOWS: [(Blow, &str); 8] = [
    (Blow::CrashAgent, "crash-agent"),
    (Blow::CrashHost, "crash"),
    (Blow::Restart, "restart"),
    (Blow::Stall, "stall"),
    (Blow::Unstall, "unstall"),
    (Blow::LoseState, "lose-state"),
    (Blow::Freeze, "freeze"),
    (Blow::Thaw, "thaw"),
];

impl Event {
    /// The event's kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Advance(_) => "at",
            Event::Tick(_) => "tick",
            Event::Deliver(_) => "deliver",
            Event::Repeat(_) => "repeat",
            Event::Stray(_) => "stray",
            Event::Late(_) => "late",
            Event::Lose(_) => "lose",
            Event::At(local, _) => LOCALS[*local as usize].1,
            Event::To(blow, _) => BLOWS[*blow as usize].1,
            Event::Cut(..) => "cut",
            Event::Heal(..) => "heal",
            Event::CutStream => "cut-stream",
            Event::HealStream => "heal-stream",
            Event::Ask(..) => "ask",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Event::Advance(micros) => write!(f, "{kind} {micros}"),
            Event::Tick(seat) | Event::To(_, seat) => write!(f, "{kind} {seat}"),
            Event::Late(place) => write!(f, "{kind} {place}"),
            Event::Deliver(letter)
            | Event::Repeat(letter)
            | Event::Stray(letter)
            | Event::Lose(letter) => {
                write!(f, "{kind} {} {} {}", letter.from, letter.to, letter.index)
            }
            Event::At(_, partner) => write!(f, "{kind} {}", Seat::of_partner(*partner)),
            Event::Cut(one, other) | Event::Heal(one, other) => write!(f, "{kind} {one} {other}"),
            Event::CutStream | Event::HealStream => f.write_str(kind),
            Event::Ask(partner, what) => {
                write!(f, "{kind} {} {}", Seat::of_partner(*partner), request_text(what))
            }
        }
    }
}

fn request_text(request: &Request) -> String {
    match request {
        Request::Failover { to: None } => "failover".into(),
        Request::Failover { to: Some(to) } => format!("failover {}", Seat::of_partner(*to)),
        Request::ForceService => "force-service".into(),
        Request::Suspend => "suspend".into(),
        Request::Resume => "resume".into(),
        Request::DiscardThisSide => "discard-this-side".into(),
        Request::ChangeWitness { to: None } => "witness none".into(),
        Request::ChangeWitness { to: Some(id) } => format!("witness wit{}", id.0),
        Request::ServeAlone => "serve-alone".into(),
        Request::RemoveMirror => "remove-mirror".into(),
        Request::AddMirror => "add-mirror".into(),
        Request::LearnFromPrincipal => "learn-from-principal".into(),
    }
}

fn request(words: &[&str]) -> Result<Request, String> {
    Ok(match words {
        ["failover"] => Request::Failover { to: None },
        ["failover", to] => Request::Failover { to: Some(partner(to)?) },
        ["force-service"] => Request::ForceService,
        ["suspend"] => Request::Suspend,
        ["resume"] => Request::Resume,
        ["discard-this-side"] => Request::DiscardThisSide,
        ["witness", "none"] => Request::ChangeWitness { to: None },
        ["witness", to] => Request::ChangeWitness { to: to.parse::<Seat>()?.witness() },
        ["serve-alone"] => Request::ServeAlone,
        ["remove-mirror"] => Request::RemoveMirror,
        ["add-mirror"] => Request::AddMirror,
        ["learn-from-principal"] => Request::LearnFromPrincipal,
        other => return Err(format!("an operator cannot ask {:?}", other.join(" "))),
    })
}

fn partner(text: &str) -> Result<Partner, String> {
    text.parse::<Seat>()?.partner().ok_or_else(|| format!("{text} is not a partner"))
}

fn letter(words: &[&str]) -> Result<Letter, String> {
    let [from, to, index] = words else { return Err("expected: from, to, index".into()) };
    let index = index.parse().map_err(|error| format!("{index}: {error}"))?;
    Ok(Letter { from: from.parse()?, to: to.parse()?, index })
}

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Event, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((kind, rest)) = words.split_first() else { return Err("an empty line".into()) };
        if let Some((local, _)) = LOCALS.iter().find(|(_, name)| name == kind) {
            let [at] = rest else { return Err(format!("{kind}: expected a partner")) };
            return Ok(Event::At(*local, partner(at)?));
        }
        if let Some((blow, _)) = BLOWS.iter().find(|(_, name)| name == kind) {
            let [to] = rest else { return Err(format!("{kind}: expected a member")) };
            return Ok(Event::To(*blow, to.parse()?));
        }
        Ok(match (*kind, rest) {
            ("at", [micros]) => {
                Event::Advance(micros.parse().map_err(|error| format!("{micros}: {error}"))?)
            }
            ("tick", [seat]) => Event::Tick(seat.parse()?),
            ("deliver", rest) => Event::Deliver(letter(rest)?),
            ("repeat", rest) => Event::Repeat(letter(rest)?),
            ("stray", rest) => Event::Stray(letter(rest)?),
            ("late", [place]) => {
                Event::Late(place.parse().map_err(|error| format!("{place}: {error}"))?)
            }
            ("lose", rest) => Event::Lose(letter(rest)?),
            ("cut", [one, other]) => Event::Cut(one.parse()?, other.parse()?),
            ("heal", [one, other]) => Event::Heal(one.parse()?, other.parse()?),
            ("cut-stream", []) => Event::CutStream,
            ("heal-stream", []) => Event::HealStream,
            ("ask", [at, what @ ..]) => Event::Ask(partner(at)?, request(what)?),
            _ => return Err(format!("no event reads {text:?}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_as_it_was_written() {
        let letter = Letter { from: Seat::Be1, to: Seat::Wit2, index: 3 };
        let mut events = vec![
            Event::Advance(17),
            Event::Tick(Seat::Wit1),
            Event::Deliver(letter),
            Event::Repeat(letter),
            Event::Lose(letter),
            Event::Stray(letter),
            Event::Late(2),
            Event::Cut(Seat::Be1, Seat::Be2),
            Event::Heal(Seat::Be1, Seat::Wit1),
            Event::CutStream,
            Event::HealStream,
        ];
        for (index, (local, name)) in LOCALS.into_iter().enumerate() {
            assert_eq!(local as usize, index, "{name}");
            events.push(Event::At(local, Partner::Second));
        }
        for (index, (blow, name)) in BLOWS.into_iter().enumerate() {
            assert_eq!(blow as usize, index, "{name}");
            events.push(Event::To(blow, Seat::Be2));
        }
        for what in [
            Request::Failover { to: None },
            Request::Failover { to: Some(Partner::Second) },
            Request::ForceService,
            Request::ChangeWitness { to: None },
            Request::ChangeWitness { to: Seat::Wit2.witness() },
            Request::DiscardThisSide,
            Request::RemoveMirror,
            Request::AddMirror,
        ] {
            events.push(Event::Ask(Partner::First, what));
        }
        for event in events {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
        assert!("deliver be1".parse::<Event>().is_err());
    }
}
