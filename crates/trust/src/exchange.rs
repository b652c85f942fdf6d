//! What is said on a connection to the authority's service: one question, one answer.
//!
//! Each is a length of four bytes, big-endian, and so many bytes of postcard, at most `LIMIT`.
//! New variants are appended.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Of one question or answer.
pub const LIMIT: usize = 16 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// From somebody without a certificate, against a token.
    Join { token: [u8; 8], request: Vec<u8>, proof: [u8; 32] },
    /// From somebody who shows a valid certificate: another one like it.
    Renew { request: Vec<u8> },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Both in DER form.
    Granted {
        certificate: Vec<u8>,
        authority: Vec<u8>,
    },
    Refused(Refusal),
}

/// Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// No such token, or not this secret: which of them is not told.
    UnknownToken,
    Expired,
    Used,
    /// The name's certificate was revoked, or is not the newest one.
    Revoked,
    NoCertificate,
    Unreadable,
    /// The authority itself has a problem.
    Failed,
    /// Somebody else got a certificate in this name after the token was issued.
    NameTaken,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    pub reason: Reason,
    pub sentence: String,
}

impl Refusal {
    pub fn new(reason: Reason, sentence: impl Into<String>) -> Refusal {
        Refusal { reason, sentence: sentence.into() }
    }
}

macro_rules! bytes {
    ($type:ty) => {
        impl $type {
            /// With its length before it.
            pub fn to_bytes(&self) -> Vec<u8> {
                let body = postcard::to_allocvec(self).expect("writing to memory does not fail");
                let length = u32::try_from(body.len()).expect("far below the limit");
                let mut bytes = length.to_be_bytes().to_vec();
                bytes.extend_from_slice(&body);
                bytes
            }

            /// Without the length.
            ///
            /// # Errors
            /// The bytes make no sense.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
                postcard::from_bytes(bytes).map_err(|error| Error::Certificate(error.to_string()))
            }
        }
    };
}

bytes!(Ask);
bytes!(Answer);
