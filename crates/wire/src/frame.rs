//! Message borders: one tag byte, four bytes of length that count themselves, the body.
//!
//! Both directions are framed alike once the start-up is over. `split` looks at a buffer that
//! may hold any number of whole messages and a part of the next one, and takes one off. A length
//! above the caller's limit is refused before anything is buffered for it.

use alloc::vec::Vec;

use crate::Malformed;

/// Tag and length.
pub const HEADER: usize = 5;

/// One whole message, borrowed from the buffer it arrived in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub tag: u8,
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// How many bytes of the buffer the message takes.
    pub fn size(&self) -> usize {
        HEADER + self.body.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    Malformed(Malformed),
    /// The message is larger than the receiver is ready to hold.
    TooLarge {
        tag: u8,
        length: usize,
        limit: usize,
    },
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            FrameError::Malformed(fault) => fault.fmt(f),
            FrameError::TooLarge { tag, length, limit } => {
                let tag = char::from(*tag);
                write!(f, "a message '{tag}' of {length} bytes is above the limit of {limit}")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Takes the first message off `buffer`; `None` means that more bytes are needed.
/// `limit` is the largest body that is accepted.
pub fn split(buffer: &[u8], limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [tag, length @ ..] = *header;
    let counted = u32::from_be_bytes(length) as usize;
    let Some(length) = counted.checked_sub(HEADER - 1) else {
        return Err(FrameError::Malformed(Malformed::Length));
    };
    if length > limit {
        return Err(FrameError::TooLarge { tag, length, limit });
    }
    Ok(rest.get(..length).map(|body| Frame { tag, body }))
}

/// Appends a message: `write` appends its body.
pub fn push(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    push_counted(out, write);
}

/// Appends what `write` appends, with a length in front that counts itself.
pub(crate) fn push_counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a text and its zero byte. A zero byte inside would end it early, so it is cut there.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    let text = text.split('\0').next().unwrap_or_default();
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_of_a_message_is_not_a_message() {
        let mut bytes = Vec::new();
        push(&mut bytes, b'Q', |body| push_text(body, "select 1"));
        for end in 0..bytes.len() {
            assert_eq!(split(&bytes[..end], 100), Ok(None));
        }
        let frame = split(&bytes, 100).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body, frame.size()), (b'Q', &b"select 1\0"[..], bytes.len()));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body_arrives() {
        let header = [b'D', 0x7f, 0xff, 0xff, 0xff];
        let refused = FrameError::TooLarge { tag: b'D', length: 0x7fff_fffb, limit: 1000 };
        assert_eq!(split(&header, 1000), Err(refused));
        assert_eq!(split(&[b'D', 0, 0, 0, 3], 1000), Err(FrameError::Malformed(Malformed::Length)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, limit in 0_usize..10_000) {
            if let Ok(Some(frame)) = split(&bytes, limit) {
                prop_assert!(frame.body.len() <= limit && frame.size() <= bytes.len());
            }
        }

        #[test]
        fn what_is_pushed_splits_again(bodies: Vec<(u8, Vec<u8>)>) {
            let mut bytes = Vec::new();
            for (tag, body) in &bodies {
                push(&mut bytes, *tag, |out| out.extend_from_slice(body));
            }
            let mut rest = &bytes[..];
            for (tag, body) in &bodies {
                let frame = split(rest, usize::MAX).unwrap().unwrap();
                prop_assert_eq!((frame.tag, frame.body), (*tag, &body[..]));
                rest = &rest[frame.size()..];
            }
            prop_assert!(rest.is_empty());
        }
    }
}
