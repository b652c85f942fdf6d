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
/// Protocol 3.2, which differs in one thing: the key for cancel requests has any length. There has
/// never been a 3.1, and nobody may speak it.
pub const PROTOCOL_3_2: u32 = PROTOCOL_3_0 + 2;
/// How the names of options of the protocol itself begin. None has been invented yet.
pub const PROTOCOL_OPTION: &str = "_pq_.";
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSSENC_REQUEST: u32 = 80_877_104;
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// PostgreSQL's own limit for a packet before authentication.
pub const LIMIT: usize = 10_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Startup<'a> {
    Ssl,
    Gssenc,
    Cancel {
        process: u32,
        key: &'a [u8],
    },
    Start {
        version: u32,
        parameters: Vec<(&'a str, &'a str)>,
    },
    /// A version of the protocol whose packets nobody here can read.
    Unsupported {
        version: u32,
    },
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
        version => Startup::Unsupported { version },
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

/// What is spoken with a client that asked for version 3.x.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiation<'a> {
    /// `PROTOCOL_3_0` or `PROTOCOL_3_2`.
    pub version: u32,
    /// The client must be told, once and before anything else, because this is not what it asked
    /// for; with the options of the protocol that it named in vain.
    pub tell: Option<Vec<&'a str>>,
}

/// Decides on the version of the protocol and on its options. A client from the future is offered
/// the newest version known, and one that asks for the version that never was the one before it.
pub fn negotiate<'a>(version: u32, parameters: &[(&'a str, &'a str)]) -> Negotiation<'a> {
    let spoken = if version < PROTOCOL_3_2 { PROTOCOL_3_0 } else { PROTOCOL_3_2 };
    let names = parameters.iter().map(|(name, _)| *name);
    let unknown: Vec<_> = names.filter(|name| name.starts_with(PROTOCOL_OPTION)).collect();
    let other = spoken != version || !unknown.is_empty();
    Negotiation { version: spoken, tell: other.then_some(unknown) }
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
    fn a_client_is_told_of_another_version_only_when_there_is_one() {
        let told = |version, parameters: &[(&'static str, &'static str)]| {
            let negotiation = negotiate(version, parameters);
            (negotiation.version, negotiation.tell)
        };
        let user = [("user", "x")];
        assert_eq!(told(PROTOCOL_3_0, &user), (PROTOCOL_3_0, None));
        assert_eq!(told(PROTOCOL_3_2, &user), (PROTOCOL_3_2, None));
        assert_eq!(told(PROTOCOL_3_0 + 1, &user), (PROTOCOL_3_0, Some([].into())));
        assert_eq!(told(PROTOCOL_3_0 + 3, &user), (PROTOCOL_3_2, Some([].into())));
        // As a client asks that wants to see whether the server can negotiate at all.
        let grease = [("user", "x"), ("_pq_.test_protocol_negotiation", "")];
        let named = Some([grease[1].0].into());
        assert_eq!(told(PROTOCOL_3_0 + 9999, &grease), (PROTOCOL_3_2, named.clone()));
        assert_eq!(told(PROTOCOL_3_0, &grease), (PROTOCOL_3_0, named));
    }

    #[test]
    fn a_version_that_cannot_be_read_is_named() {
        let mut bytes = Vec::new();
        push_request(&mut bytes, 2 << 16);
        assert_eq!(split(&bytes), Ok(Some((Startup::Unsupported { version: 2 << 16 }, 8))));
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
