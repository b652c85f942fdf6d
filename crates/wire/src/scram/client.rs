//! The client's end: it logs in with a password, or with the keys that a former log-in left.
//!
//! `begin` makes the first message, `prove` answers the server with the proof, `verify` checks
//! that the server knows the verifier. Keys are worth nothing for another salt or another number
//! of iterations: that means that the password was set anew, and nothing is sent then.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use subtle::ConstantTimeEq as _;

use super::{END_POINT, Key, Keys, MOST, auth_message, hash, keyed, printable, read_key, xor};

/// What the client logs in with.
#[derive(Clone, Copy)]
pub enum ClientSecret<'a> {
    /// In clear, prepared as RFC 4013 says where that is possible.
    Password(&'a [u8]),
    /// What a former log-in left.
    Keys { keys: &'a Keys, salt: &'a [u8], iterations: u32 },
}

impl core::fmt::Debug for ClientSecret<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ClientSecret::Password(_) => "Password",
            ClientSecret::Keys { .. } => "Keys",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientFailure {
    /// Not the message that the protocol asks for.
    Malformed,
    /// More iterations than anybody needs.
    TooManyIterations,
    /// The salt or the iterations are not those of the keys: the password was set anew.
    OtherPassword,
    /// The server does not know the verifier: it is not the server that it seems to be.
    WrongServer,
}

impl core::fmt::Display for ClientFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ClientFailure::Malformed => "the server sent a malformed SCRAM message",
            ClientFailure::TooManyIterations => "the server asks for too many SCRAM iterations",
            ClientFailure::OtherPassword => "the password has been set anew on the server",
            ClientFailure::WrongServer => "the server could not prove that it knows the password",
        })
    }
}

impl core::error::Error for ClientFailure {}

/// The state until the server's first message.
#[derive(Debug)]
pub struct Client<'a> {
    secret: ClientSecret<'a>,
    /// The header and what it binds to.
    binding: Vec<u8>,
    first_bare: String,
    nonce: String,
}

/// The state until the server's last message.
#[derive(Debug)]
pub struct Proving {
    signature: Key,
}

impl<'a> Client<'a> {
    /// Returns the first message. `end_point` is the hash of the server's certificate, if the
    /// mechanism with channel binding was chosen.
    pub fn begin(
        secret: ClientSecret<'a>,
        end_point: Option<&[u8]>,
        nonce: &str,
    ) -> (Client<'a>, Vec<u8>) {
        let header = match end_point {
            Some(_) => format!("p={END_POINT},,"),
            None => "n,,".to_string(),
        };
        let first_bare = format!("n=,r={nonce}");
        let message = format!("{header}{first_bare}").into_bytes();
        let mut binding = header.into_bytes();
        binding.extend_from_slice(end_point.unwrap_or_default());
        (Client { secret, binding, first_bare, nonce: nonce.to_string() }, message)
    }

    /// Reads the server's first message; returns the proof.
    pub fn prove(self, answer: &[u8]) -> Result<(Proving, Vec<u8>), ClientFailure> {
        let answer = core::str::from_utf8(answer).map_err(|_| ClientFailure::Malformed)?;
        let (nonce, salt, iterations) = read_answer(answer).ok_or(ClientFailure::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ClientFailure::Malformed);
        }
        let keys = match self.secret {
            ClientSecret::Password(_) if iterations > MOST => {
                return Err(ClientFailure::TooManyIterations);
            }
            ClientSecret::Password(password) => Keys::of_password(password, &salt, iterations),
            ClientSecret::Keys { keys, salt: own, iterations: count } => {
                if own != salt || count != iterations {
                    return Err(ClientFailure::OtherPassword);
                }
                keys.clone()
            }
        };
        let without_proof = format!("c={},r={nonce}", Base64::encode_string(&self.binding));
        let signed = auth_message(&self.first_bare, answer, &without_proof);
        let proof = xor(&keys.client_key, &keyed(&hash(&keys.client_key), &signed));
        let message = format!("{without_proof},p={}", Base64::encode_string(&proof));
        Ok((Proving { signature: keyed(&keys.server_key, &signed) }, message.into_bytes()))
    }
}

impl Proving {
    /// Reads the server's last message.
    pub fn verify(self, last: &[u8]) -> Result<(), ClientFailure> {
        let signature = core::str::from_utf8(last)
            .ok()
            .and_then(|last| last.strip_prefix("v=")?.split(',').next())
            .and_then(read_key)
            .ok_or(ClientFailure::Malformed)?;
        let right = bool::from(signature.ct_eq(&self.signature));
        if right { Ok(()) } else { Err(ClientFailure::WrongServer) }
    }
}

/// Nonce, salt and iterations of `r=…,s=…,i=…`.
fn read_answer(answer: &str) -> Option<(&str, Vec<u8>, u32)> {
    let mut parts = answer.split(',');
    let nonce = parts.next()?.strip_prefix("r=").filter(|nonce| printable(nonce))?;
    let salt = Base64::decode_vec(parts.next()?.strip_prefix("s=")?).ok()?;
    let iterations = parts.next()?.strip_prefix("i=")?.parse().ok()?;
    (iterations > 0 && !salt.is_empty()).then_some((nonce, salt, iterations))
}
