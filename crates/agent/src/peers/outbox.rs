//! Messages that wait to be sent to one host. Bounded: when it is full, the oldest heartbeat makes
//! room, because a newer one says more; if there is none, the oldest message does.

use std::collections::VecDeque;

use protocol::v1::{Batch, Item};

/// While there is a connection.
const CONNECTED: usize = 8_192;
/// While there is none: what would be outdated when one comes is not worth keeping.
const ALONE: usize = 64;
/// Bytes of messages after which a frame takes no more.
const FRAME: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// It will be said again soon.
    Heartbeat,
    Other,
}

#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<(Weight, Item)>,
    pub dropped: u64,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn push(&mut self, weight: Weight, item: Item, connected: bool) {
        if !connected && weight == Weight::Heartbeat {
            return;
        }
        let limit = if connected { CONNECTED } else { ALONE };
        if self.items.len() >= limit {
            let oldest = self.items.iter().position(|(weight, _)| *weight == Weight::Heartbeat);
            self.items.remove(oldest.unwrap_or(0));
            self.dropped += 1;
        }
        self.items.push_back((weight, item));
    }

    /// A connection ended: heartbeats that were not sent are outdated.
    pub fn disconnected(&mut self) {
        self.items.retain(|(weight, _)| *weight == Weight::Other);
        while self.items.len() > ALONE {
            self.items.pop_front();
        }
    }

    /// The next frame's payload.
    pub fn take(&mut self) -> Vec<u8> {
        let mut batch = Batch::default();
        let mut size = 0;
        while let Some((_, item)) = self.items.pop_front() {
            size += item.message.len() + item.session.len();
            batch.items.push(item);
            if size > FRAME {
                break;
            }
        }
        postcard::to_allocvec(&batch).expect("writing to memory does not fail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> Item {
        Item { session: number.to_string(), message: Vec::new() }
    }

    fn sessions(outbox: &mut Outbox) -> Vec<String> {
        let batch: Batch = postcard::from_bytes(&outbox.take()).unwrap();
        batch.items.into_iter().map(|item| item.session).collect()
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_heartbeats_and_keeps_the_rest() {
        let mut outbox = Outbox::default();
        outbox.push(Weight::Other, item(0), true);
        for number in 1..=CONNECTED {
            outbox.push(Weight::Heartbeat, item(number), true);
        }
        assert_eq!(outbox.dropped, 1);
        let sessions = sessions(&mut outbox);
        assert_eq!((sessions[0].as_str(), sessions[1].as_str()), ("0", "2"));
        assert_eq!(sessions.len(), CONNECTED);
    }

    #[test]
    fn without_a_connection_only_the_newest_messages_are_kept() {
        let mut outbox = Outbox::default();
        outbox.push(Weight::Heartbeat, item(0), false);
        for number in 0..ALONE + 10 {
            outbox.push(Weight::Other, item(number), false);
        }
        let sessions = sessions(&mut outbox);
        assert_eq!((sessions.len(), sessions[0].as_str()), (ALONE, "10"));
    }
}
