//! The server's end: it checks a proof against a stored verifier.
//!
//! `begin` reads the client's first message and answers it, `check` reads the second one. What is
//! refused, and as what, follows PostgreSQL's own server, whose errors clients know. A wrong proof
//! is found only after every part of the message has been found well-formed, for a stand-in
//! verifier as for a real one.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use subtle::ConstantTimeEq as _;

use super::{
    END_POINT, Keys, MECHANISM, MECHANISM_PLUS, Verifier, auth_message, hash, keyed, printable,
    read_key, xor,
};

/// What the client chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    Plain,
    /// With channel binding.
    Plus,
}

impl Mechanism {
    pub fn named(name: &str) -> Option<Mechanism> {
        [(MECHANISM, Mechanism::Plain), (MECHANISM_PLUS, Mechanism::Plus)]
            .into_iter()
            .find_map(|(known, mechanism)| (name == known).then_some(mechanism))
    }
}

/// What the exchange goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel<'a> {
    /// Channel binding was not offered.
    Clear,
    /// TLS; binding to the server's certificate, of which this is the hash, was offered.
    Tls { end_point: &'a [u8] },
}

/// Why a client is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Not the message that the protocol asks for.
    Malformed,
    /// The client chose the mechanism with channel binding, and its message has none.
    MissingBinding,
    /// The client chose the mechanism without channel binding, and its message has one.
    UnwantedBinding,
    /// A kind of channel binding other than the one that was offered.
    UnknownBinding,
    /// The client could bind and thinks that the server cannot: somebody stands between them.
    Downgraded,
    /// The client sees another certificate: somebody stands between them.
    BindingMismatch,
    /// The binding of the second message is not the one of the first.
    BindingChanged,
    /// The nonce is not the one that was agreed on.
    OtherNonce,
    /// An identity to act as, or an extension that must be understood: PostgreSQL has neither.
    Unsupported,
    /// Not the password.
    WrongProof,
}

/// The state between the two messages.
#[derive(Debug)]
pub struct Server<'a> {
    verifier: &'a Verifier,
    /// What the second message must repeat.
    binding: Vec<u8>,
    first_bare: String,
    answer: String,
    nonce: String,
}

/// A client that proved that it knows the password.
#[derive(Debug)]
pub struct Proven {
    pub keys: Keys,
    /// The last message of the exchange: the server's own proof.
    pub message: Vec<u8>,
}

impl<'a> Server<'a> {
    /// Reads the client's first message; returns the answer.
    pub fn begin(
        verifier: &'a Verifier,
        mechanism: Mechanism,
        channel: Channel<'_>,
        first: &[u8],
        nonce: &str,
    ) -> Result<(Server<'a>, Vec<u8>), Failure> {
        let first = core::str::from_utf8(first).map_err(|_| Failure::Malformed)?;
        let (flag, rest) = first.split_once(',').ok_or(Failure::Malformed)?;
        let end_point = judge_binding(mechanism, channel, flag)?;
        let (identity, bare) = rest.split_once(',').ok_or(Failure::Malformed)?;
        if !identity.is_empty() {
            let acts_as = identity.starts_with("a=");
            return Err(if acts_as { Failure::Unsupported } else { Failure::Malformed });
        }
        let client_nonce = read_bare(bare)?;
        let mut binding = format!("{flag},,").into_bytes();
        binding.extend_from_slice(end_point);
        let nonce = format!("{client_nonce}{nonce}");
        let salt = Base64::encode_string(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let message = answer.clone().into_bytes();
        Ok((Server { verifier, binding, first_bare: bare.to_string(), answer, nonce }, message))
    }

    /// Reads the client's second message.
    pub fn check(self, last: &[u8]) -> Result<Proven, Failure> {
        let last = core::str::from_utf8(last).map_err(|_| Failure::Malformed)?;
        // The proof is last, and extensions before it are part of what is signed.
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(Failure::Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = parts.next().and_then(|part| part.strip_prefix("c="));
        let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
        let (binding, nonce) = binding.zip(nonce).ok_or(Failure::Malformed)?;
        if !parts.all(extension) {
            return Err(Failure::Malformed);
        }
        let proof = read_key(proof).ok_or(Failure::Malformed)?;
        let binding = Base64::decode_vec(binding).map_err(|_| Failure::Malformed)?;
        if binding != self.binding {
            let bound = self.binding.starts_with(b"p=");
            return Err(if bound { Failure::BindingMismatch } else { Failure::BindingChanged });
        }
        if nonce != self.nonce {
            return Err(Failure::OtherNonce);
        }
        let signed = auth_message(&self.first_bare, &self.answer, without_proof);
        let client_key = xor(&proof, &keyed(&self.verifier.stored_key, &signed));
        if !bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(Failure::WrongProof);
        }
        let signature = keyed(&self.verifier.server_key, &signed);
        Ok(Proven {
            keys: Keys { client_key, server_key: self.verifier.server_key },
            message: format!("v={}", Base64::encode_string(&signature)).into_bytes(),
        })
    }
}

/// What a second message must be bound to, beside the flag itself.
fn judge_binding<'c>(
    mechanism: Mechanism,
    channel: Channel<'c>,
    flag: &str,
) -> Result<&'c [u8], Failure> {
    match (flag, mechanism, channel) {
        ("n" | "y", Mechanism::Plus, _) => Err(Failure::MissingBinding),
        ("n", Mechanism::Plain, _) | ("y", Mechanism::Plain, Channel::Clear) => Ok(&[]),
        ("y", Mechanism::Plain, Channel::Tls { .. }) => Err(Failure::Downgraded),
        (bound, mechanism, channel) => match (bound.strip_prefix("p="), mechanism, channel) {
            (None, ..) => Err(Failure::Malformed),
            (Some(_), Mechanism::Plain, _) => Err(Failure::UnwantedBinding),
            (Some(END_POINT), Mechanism::Plus, Channel::Tls { end_point }) => Ok(end_point),
            (Some(_), Mechanism::Plus, _) => Err(Failure::UnknownBinding),
        },
    }
}

/// The nonce of `n=user,r=nonce`. PostgreSQL takes the user from the start-up packet.
fn read_bare(bare: &str) -> Result<&str, Failure> {
    if bare.starts_with("m=") {
        return Err(Failure::Unsupported);
    }
    let mut parts = bare.split(',');
    let user = parts.next().and_then(|part| part.strip_prefix("n="));
    let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
    user.and(nonce)
        .filter(|nonce| !nonce.is_empty() && printable(nonce) && parts.all(extension))
        .ok_or(Failure::Malformed)
}

/// `letter=value`, which is read over.
fn extension(part: &str) -> bool {
    let mut letters = part.chars();
    letters.next().is_some_and(|name| name.is_ascii_alphabetic()) && letters.next() == Some('=')
}
