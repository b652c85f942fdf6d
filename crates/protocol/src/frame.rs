//! Frames: how one process cuts a byte stream into messages.
//!
//! A frame is a length (four bytes, big-endian, of what follows), one byte of frame version, one
//! byte of kind, and the payload. A frame of an unknown kind is passed over; a length above the
//! limit or another frame version ends the connection. TCP and TLS check the bytes.

/// The most that may follow a length.
pub const LIMIT: usize = 4 * 1024 * 1024;

/// Of frames themselves; what is inside is agreed on in the handshake.
pub const VERSION: u8 = 1;

const HEADER: usize = 6;

/// What a payload is. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `handshake::Hello`, the first frame of whoever dialled.
    Hello,
    /// `handshake::Welcome`, the answer of whoever accepted.
    Welcome,
    /// `handshake::Refused`, instead of a welcome; the connection ends.
    Refused,
    /// `v1::Batch`.
    Batch,
    /// `admin::Request` as JSON.
    Request,
    /// `admin::Response` as JSON.
    Response,
    /// Empty: the sender lives and had nothing to say.
    Ping,
}

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Welcome => 2,
            Kind::Refused => 3,
            Kind::Batch => 4,
            Kind::Request => 5,
            Kind::Response => 6,
            Kind::Ping => 7,
        }
    }

    pub fn from_code(code: u8) -> Option<Kind> {
        match code {
            1 => Some(Kind::Hello),
            2 => Some(Kind::Welcome),
            3 => Some(Kind::Refused),
            4 => Some(Kind::Batch),
            5 => Some(Kind::Request),
            6 => Some(Kind::Response),
            7 => Some(Kind::Ping),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// The stream is no stream of frames, or not of this version. The connection must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is above the limit")]
    TooLong(usize),
    #[error("a frame is too short to have a header")]
    TooShort,
    #[error(
        "TLS is spoken on one side only: both need certificates of the same deployment (backstay \
         join); a command finds its own with --trust DIR"
    )]
    OneSidedTls,
    #[error("frames of version {0} are not known: is this the port of a Backstay member?")]
    UnknownVersion(u8),
}

/// Appends a frame to `out`.
///
/// # Errors
/// The payload is above the limit.
pub fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let length = payload.len() + 2;
    if length > LIMIT {
        return Err(FrameError::TooLong(length));
    }
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&[VERSION, kind.code()]);
    out.extend_from_slice(payload);
    Ok(())
}

/// Cuts received bytes into frames, however they arrive.
#[derive(Default, Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Bytes before this index have been taken out.
    taken: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 && (self.taken == self.bytes.len() || self.taken >= 64 * 1024) {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame of a known kind; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The connection must end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let waiting = &self.bytes[self.taken..];
            let Some((length, rest)) = waiting.split_first_chunk::<4>() else { return Ok(None) };
            let length = u32::from_be_bytes(*length) as usize;
            if length > LIMIT {
                // An alert or a handshake of TLS, as a frame would be read.
                let tls = matches!(length >> 16, 0x1503 | 0x1603);
                return Err(if tls {
                    FrameError::OneSidedTls
                } else {
                    FrameError::TooLong(length)
                });
            }
            if length < 2 {
                return Err(FrameError::TooShort);
            }
            if let Some(version) = rest.first().filter(|version| **version != VERSION) {
                return Err(FrameError::UnknownVersion(*version));
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let frame =
                Kind::from_code(body[1]).map(|kind| Frame { kind, payload: body[2..].to_vec() });
            self.taken += 4 + length;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }
}
