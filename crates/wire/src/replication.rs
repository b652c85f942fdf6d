//! The stream inside a replication connection's CopyData.
//!
//! The server sends stretches of WAL and keepalives, the client answers with status updates.
//! Positions are plain byte offsets into the WAL. Times are microseconds since 2000-01-01.

use alloc::vec::Vec;

use crate::Malformed;
use crate::cursor::Cursor;
use crate::frame::push;

/// The most WAL that a server puts into one message: 16 pages of 8 kB, and some room.
pub const LARGEST_WAL: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FromServer<'a> {
    Wal(XLogData<'a>),
    Keepalive(Keepalive),
}

/// A stretch of WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XLogData<'a> {
    pub start: u64,
    /// The end of the server's WAL at that moment.
    pub server_end: u64,
    pub sent_at: i64,
    pub wal: &'a [u8],
}

impl XLogData<'_> {
    /// The position behind the last byte of this stretch.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.wal.len() as u64)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    pub server_end: u64,
    pub sent_at: i64,
    /// The server ends the connection if it gets no answer soon.
    pub answer_now: bool,
}

impl<'a> FromServer<'a> {
    /// Reads the body of a CopyData message.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        Ok(match cursor.u8()? {
            b'w' => FromServer::Wal(XLogData {
                start: cursor.u64()?,
                server_end: cursor.u64()?,
                sent_at: cursor.i64()?,
                wal: cursor.rest(),
            }),
            b'k' => FromServer::Keepalive(Keepalive {
                server_end: cursor.u64()?,
                sent_at: cursor.i64()?,
                answer_now: cursor.u8()? != 0,
            }),
            _unknown => return Err(Malformed::Code),
        })
    }
}

/// How far a standby has come. PostgreSQL keeps the highest of each for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandbyStatus {
    pub written: u64,
    pub flushed: u64,
    pub applied: u64,
    pub sent_at: i64,
    /// Asks the server for a keepalive.
    pub answer_now: bool,
}

impl StandbyStatus {
    /// Appends it as a CopyData message.
    pub fn push(&self, out: &mut Vec<u8>) {
        push(out, b'd', |out| {
            out.push(b'r');
            out.extend_from_slice(&self.written.to_be_bytes());
            out.extend_from_slice(&self.flushed.to_be_bytes());
            out.extend_from_slice(&self.applied.to_be_bytes());
            out.extend_from_slice(&self.sent_at.to_be_bytes());
            out.push(u8::from(self.answer_now));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    #[test]
    fn a_stretch_of_wal_knows_where_it_ends() {
        let mut body = alloc::vec![b'w'];
        for number in [0x0300_0000_u64, 0x0300_0100, 7] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(b"0123456789");
        let Ok(FromServer::Wal(data)) = FromServer::read(&body) else {
            panic!("not read as WAL");
        };
        assert_eq!(data.end(), 0x0300_000a);
        assert_eq!(data.server_end, 0x0300_0100);
        assert_eq!(FromServer::read(&body[..20]), Err(Malformed::Short));
    }

    #[test]
    fn a_status_has_the_size_that_the_server_reads() {
        let mut out = Vec::new();
        let status =
            StandbyStatus { written: 3, flushed: 2, applied: 1, sent_at: 0, answer_now: true };
        status.push(&mut out);
        let frame = frame::split(&out, 100).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body.len()), (b'd', 34));
        assert_eq!((frame.body[0], frame.body[8], frame.body[33]), (b'r', 3, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tag in prop::sample::select(&b"wkr"[..]), mut body: Vec<u8>) {
            let _ = FromServer::read(&body);
            body.insert(0, tag);
            if let Ok(FromServer::Wal(data)) = FromServer::read(&body) {
                prop_assert!(data.end() >= data.start);
            }
        }
    }
}
