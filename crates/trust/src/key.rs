//! A key pair, and the request for a certificate for it.
//!
//! ECDSA over P-256, for the authority as for all others: PostgreSQL, OpenSSL and all drivers take
//! it, security modules too, and a signature costs a few hundredths of a millisecond. (Ed25519 is
//! as good a signature, but not every client of PostgreSQL takes certificates with it.)

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _,
};
use rustls::crypto::ring;
use rustls::pki_types::CertificateSigningRequestDer;
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// A private key. It shows nothing of itself.
pub struct Key(pub(crate) KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Key, Error> {
        Ok(Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// # Errors
    /// It is no private key of the kind that is used here.
    pub fn from_pem(pem: &str) -> Result<Key, Error> {
        let no_pem = |error: rcgen::Error| Error::Pem { what: "key", error: error.to_string() };
        Ok(Key(KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map_err(no_pem)?))
    }

    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request for a certificate, signed with this key. `name` is for people: what the
    /// certificate will say is the authority's to decide.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn request(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }
}

/// The public key of a request whose sender has the private one.
#[derive(Debug)]
pub(crate) struct Requested {
    pub key: PublicKey,
}

impl Requested {
    /// # Errors
    /// It is no request, it is not signed by its own key, or the key is of another kind.
    pub fn read(der: &[u8]) -> Result<Requested, Error> {
        let der = CertificateSigningRequestDer::from(der);
        let key = CertificateSigningRequestParams::from_der(&der)?.public_key;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Issue(rcgen::Error::UnsupportedSignatureAlgorithm));
        }
        Ok(Requested { key })
    }

    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.key.der_bytes()))
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
