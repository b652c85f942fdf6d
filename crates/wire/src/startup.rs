//! What a client says before messages have tags: the start-up packet and its three relatives.
//!
//! All of them are a length that counts itself and a code of four bytes. What follows the code
//! of a protocol version is a list of parameters.

use alloc::vec::Vec;

use crate::Malformed;
use crate::cursor::Cursor;
use crate::frame::{push_counted, push_text};

/// Protocol 3.0, which every supported server speaks.
pub const PROTOCOL_3_0: u32 = 3 << 16;
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSSENC_REQUEST: u32 = 80_877_104;
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// PostgreSQL's own limit for a packet before authentication.
pub const LIMIT: usize = 10_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Startup<'a> {
    Ssl,
    Gssenc,
    Cancel { process: u32, key: &'a [u8] },
    Start { version: u32, parameters: Vec<(&'a str, &'a str)> },
}

/// Takes the first packet of a connection off `buffer`, with its size in bytes.
/// `None` means that more bytes are needed.
pub fn split(buffer: &[u8]) -> Result<Option<(Startup<'_>, usize)>, Malformed> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let counted = u32::from_be_bytes(*length) as usize;
    let length = counted.checked_sub(4).filter(|length| (4..=LIMIT).contains(length));
    let length = length.ok_or(Malformed::Length)?;
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some((read(body)?, counted)))
}

fn read(body: &[u8]) -> Result<Startup<'_>, Malformed> {
    let mut cursor = Cursor::new(body);
    Ok(match cursor.u32()? {
        SSL_REQUEST => Startup::Ssl,
        GSSENC_REQUEST => Startup::Gssenc,
        CANCEL_REQUEST => Startup::Cancel { process: cursor.u32()?, key: cursor.rest() },
        version if version >> 16 == 3 => {
            Startup::Start { version, parameters: parameters(&mut cursor)? }
        }
        _unknown => return Err(Malformed::Code),
    })
}

fn parameters<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
    let mut parameters = Vec::new();
    loop {
        let name = cursor.text()?;
        if name.is_empty() {
            return if cursor.is_empty() { Ok(parameters) } else { Err(Malformed::Length) };
        }
        parameters.push((name, cursor.text()?));
    }
}

/// Appends a start-up packet of protocol 3.0 with these parameters.
pub fn push_start<'a>(out: &mut Vec<u8>, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) {
    push_counted(out, |out| {
        out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            push_text(out, name);
            push_text(out, value);
        }
        out.push(0);
    });
}

/// Appends a request that is only a code: `SSL_REQUEST` or `GSSENC_REQUEST`.
pub fn push_request(out: &mut Vec<u8>, code: u32) {
    push_counted(out, |out| out.extend_from_slice(&code.to_be_bytes()));
}

/// Appends a request to cancel what the server process `process` is doing.
pub fn push_cancel(out: &mut Vec<u8>, process: u32, key: &[u8]) {
    push_counted(out, |out| {
        out.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(key);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_packet_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        push_request(&mut bytes, SSL_REQUEST);
        push_cancel(&mut bytes, 77, &[1, 2, 3, 4]);
        push_start(&mut bytes, [("user", "backstay"), ("replication", "true")]);
        let mut seen = Vec::new();
        let mut rest = &bytes[..];
        while let Some((packet, size)) = split(rest).unwrap() {
            seen.push(packet);
            rest = &rest[size..];
        }
        assert_eq!(
            seen,
            [
                Startup::Ssl,
                Startup::Cancel { process: 77, key: &[1, 2, 3, 4] },
                Startup::Start {
                    version: PROTOCOL_3_0,
                    parameters: [("user", "backstay"), ("replication", "true")].into()
                },
            ]
        );
    }

    #[test]
    fn a_packet_above_the_servers_limit_is_refused_at_once() {
        assert_eq!(split(&20_000_u32.to_be_bytes()), Err(Malformed::Length));
        assert_eq!(split(&[0, 0, 0, 7]), Err(Malformed::Length));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = split(&bytes);
            let mut packet = Vec::new();
            push_counted(&mut packet, |out| {
                out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
                out.extend_from_slice(&bytes);
            });
            let _ = split(&packet);
        }
    }
}
