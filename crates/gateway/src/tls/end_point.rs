//! What a client binds its log-in to: the hash of the certificate that it was shown (RFC 5929,
//! `tls-server-end-point`).
//!
//! The hash function is the one of the certificate's own signature, but never one weaker than
//! SHA-256. So the signature's algorithm is read off the certificate, which is DER: tags, lengths,
//! contents. A certificate whose signature has no hash function (Ed25519) cannot be bound to.

use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
/// The first of the parameters of RSASSA-PSS: the hash function.
const FIRST: u8 = 0xa0;

/// `None` if the certificate cannot be read, or its signature has no known hash function.
pub fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, whole, _) = element(certificate)? else { return None };
    let (SEQUENCE, _signed, rest) = element(whole)? else { return None };
    let (SEQUENCE, algorithm, _) = element(rest)? else { return None };
    Some(match function(algorithm)? {
        Function::Sha224 => Sha224::digest(certificate).to_vec(),
        Function::Sha256 => Sha256::digest(certificate).to_vec(),
        Function::Sha384 => Sha384::digest(certificate).to_vec(),
        Function::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Function {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The hash function of an AlgorithmIdentifier's contents.
fn function(algorithm: &[u8]) -> Option<Function> {
    let (OBJECT, name, parameters) = element(algorithm)? else { return None };
    // 1.2.840.113549.1.1: RSA. MD5 and SHA-1 are too weak to be bound to.
    if let [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last] = *name {
        return match last {
            4 | 5 | 11 => Some(Function::Sha256),
            10 => pss(parameters),
            12 => Some(Function::Sha384),
            13 => Some(Function::Sha512),
            14 => Some(Function::Sha224),
            _unknown => None,
        };
    }
    // 1.2.840.10045.4: ECDSA, with SHA-1 or one of the family of SHA-2.
    match name.strip_prefix(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04])? {
        [1] | [3, 2] => Some(Function::Sha256),
        [3, 1] => Some(Function::Sha224),
        [3, 3] => Some(Function::Sha384),
        [3, 4] => Some(Function::Sha512),
        _unknown => None,
    }
}

/// RSASSA-PSS names its hash function in its parameters; SHA-1 if it does not.
fn pss(parameters: &[u8]) -> Option<Function> {
    let (SEQUENCE, parameters, _) = element(parameters)? else { return None };
    let Some((FIRST, algorithm, _)) = element(parameters) else { return Some(Function::Sha256) };
    let (SEQUENCE, algorithm, _) = element(algorithm)? else { return None };
    let (OBJECT, name, _) = element(algorithm)? else { return None };
    // 2.16.840.1.101.3.4.2: the hash functions of NIST.
    match name.strip_prefix(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02]) {
        Some([2]) => Some(Function::Sha384),
        Some([3]) => Some(Function::Sha512),
        Some([4]) => Some(Function::Sha224),
        Some([1]) | None => Some(Function::Sha256),
        Some(_unknown) => None,
    }
}

/// Tag and contents of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _indefinite => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_follows_the_signature() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash(&p256), Some(Sha256::digest(&p256).to_vec()));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash(&p384), Some(Sha384::digest(&p384).to_vec()));
        assert_eq!(hash(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn every_rsa_signature_has_its_function() {
        let rsa = |last: u8, parameters: &[u8]| {
            let mut bytes = vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last];
            bytes.extend_from_slice(parameters);
            function(&bytes)
        };
        assert_eq!(rsa(5, &[5, 0]), Some(Function::Sha256), "SHA-1 is raised");
        assert_eq!(rsa(11, &[5, 0]), Some(Function::Sha256));
        assert_eq!(rsa(13, &[5, 0]), Some(Function::Sha512));
        assert_eq!(rsa(10, &[0x30, 0]), Some(Function::Sha256), "PSS with SHA-1 is raised");
        let sha512 = [0x30, 15, 0xa0, 13, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
        assert_eq!(rsa(10, &sha512), Some(Function::Sha512));
    }

    #[test]
    fn a_certificate_cut_anywhere_does_not_panic() {
        let whole = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..whole.len() {
            assert_eq!(hash(&whole[..end]), None);
        }
    }
}
