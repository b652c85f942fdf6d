//! The links between members, and what is on its way over them.
//!
//! A message that is on its way can be delivered, lost, delivered twice or overtaken. A cut link
//! delivers nothing. The replication link between the two PostgreSQL servers is one of its own.

use std::collections::VecDeque;

use session::Message;

use crate::event::Letter;
use crate::seat::{SEATS, Seat};

/// How many messages can be astray at one time.
pub const STRAYS: usize = 4;

/// How many messages one direction of a link holds; the oldest is lost when one more is sent.
const CHANNEL: usize = 6;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OnItsWay {
    pub message: Message,
    /// With exact clocks: when it arrives.
    pub due: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Network {
    channels: [[VecDeque<OnItsWay>; SEATS]; SEATS],
    /// Messages that arrive when nobody expects them any more.
    pub strays: Vec<Message>,
    cut: [[bool; SEATS]; SEATS],
    /// When the replication link was cut.
    pub stream_cut: Option<u64>,
}

impl Network {
    pub fn send(&mut self, message: Message, due: u64) {
        let (Some(from), Some(to)) = (Seat::of(message.from), Seat::of(message.to)) else {
            return;
        };
        let channel = &mut self.channels[from.index()][to.index()];
        if channel.len() == CHANNEL {
            channel.pop_front();
        }
        channel.push_back(OnItsWay { message, due });
    }

    pub fn channel(&self, from: Seat, to: Seat) -> &VecDeque<OnItsWay> {
        &self.channels[from.index()][to.index()]
    }

    pub fn is_cut(&self, one: Seat, other: Seat) -> bool {
        self.cut[one.index()][other.index()]
    }

    pub fn set_cut(&mut self, one: Seat, other: Seat, cut: bool) {
        self.cut[one.index()][other.index()] = cut;
        self.cut[other.index()][one.index()] = cut;
    }

    /// Loses all that is on its way between two members.
    pub fn clear(&mut self, one: Seat, other: Seat) {
        self.channels[one.index()][other.index()].clear();
        self.channels[other.index()][one.index()].clear();
    }

    pub fn take(&mut self, letter: Letter) -> Option<Message> {
        let channel = &mut self.channels[letter.from.index()][letter.to.index()];
        channel.remove(usize::from(letter.index)).map(|on_its_way| on_its_way.message)
    }

    /// Lets `message` go astray, if there is room.
    pub fn stray(&mut self, message: Message) {
        if self.strays.len() < STRAYS {
            self.strays.push(message);
        }
    }
}
