//! A token to join: which authority, which invitation, and a secret that is good once.
//!
//! The secret never travels. Who joins proves that he has it by a hash over what both ends of the
//! very connection know (`Exporter`) and over his request, so that nobody in between can use the
//! proof for a connection or a key of his own. The authority keeps a hash of the secret.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::identity::Role;
use crate::tls::Exporter;

const PREFIX: &str = "backstay-join-";
const CHECK: usize = 4;
/// Longer texts are no tokens.
const LONGEST: usize = 2_048;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub deployment: String,
    pub role: Role,
    pub name: String,
    /// Host and port of the authority's service, if it was known.
    pub authority: Option<String>,
    /// Of the authority's public key.
    pub fingerprint: [u8; 32],
    pub id: [u8; 8],
    pub(crate) secret: [u8; 24],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("deployment", &self.deployment)
            .field("role", &self.role)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What the authority keeps of a secret, and what a proof is made with.
pub(crate) type Hashed = [u8; 32];

impl Token {
    pub(crate) fn hashed(&self) -> Hashed {
        Sha256::new().chain_update(b"backstay token\0").chain_update(self.secret).finalize().into()
    }

    /// Shows on this very connection, and for this request, that the secret is known.
    pub fn proof(&self, exporter: &Exporter, request: &[u8]) -> [u8; 32] {
        mac(&self.hashed(), exporter, request).finalize().into_bytes().into()
    }
}

pub(crate) fn is_proof(
    hashed: &Hashed,
    exporter: &Exporter,
    request: &[u8],
    proof: &[u8; 32],
) -> bool {
    mac(hashed, exporter, request).verify_slice(proof).is_ok()
}

fn mac(hashed: &Hashed, exporter: &Exporter, request: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(hashed).expect("any length is a key");
    mac.chain_update(b"backstay join 1\0")
        .chain_update(exporter)
        .chain_update(Sha256::digest(request))
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check[..CHECK]);
        write!(f, "{PREFIX}{}", Base64UrlUnpadded::encode_string(&bytes))
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Token, Error> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(Error::Token);
        }
        let coded = text.strip_prefix(PREFIX).ok_or(Error::Token)?;
        let bytes = Base64UrlUnpadded::decode_vec(coded).map_err(|_| Error::Token)?;
        let (told, check) = bytes.split_last_chunk::<CHECK>().ok_or(Error::Token)?;
        if Sha256::digest(told)[..CHECK] != check[..] {
            return Err(Error::Token);
        }
        postcard::from_bytes(told).map_err(|_| Error::Token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            deployment: "production".into(),
            role: Role::Server,
            name: "be1".into(),
            authority: Some("adm.example.com:7024".into()),
            fingerprint: [1; 32],
            id: [2; 8],
            secret: [3; 24],
        }
    }

    #[test]
    fn a_token_survives_being_copied_and_nothing_less() {
        let text = token().to_string();
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token());
        assert!(text.len() < 200, "{text}");
        for end in 0..text.len() {
            assert!(text[..end].parse::<Token>().is_err());
        }
        let mut changed = text.clone().into_bytes();
        let middle = changed.len() / 2;
        changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
        assert!(String::from_utf8(changed).unwrap().parse::<Token>().is_err());
    }

    #[test]
    fn a_proof_is_good_for_one_connection_and_one_request() {
        let token = token();
        let proof = token.proof(&[7; 32], b"request");
        assert!(is_proof(&token.hashed(), &[7; 32], b"request", &proof));
        assert!(!is_proof(&token.hashed(), &[8; 32], b"request", &proof));
        assert!(!is_proof(&token.hashed(), &[7; 32], b"another", &proof));
        let other = Token { secret: [4; 24], ..token };
        assert!(!is_proof(&other.hashed(), &[7; 32], b"request", &proof));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", token()).contains('3'), "{:?}", token());
    }
}
