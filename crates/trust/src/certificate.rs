//! What a certificate says, once it is known to be the authority's.
//!
//! Reading proves nothing: whoever calls has had the signature checked (`verify`), or only shows
//! what it read.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::error::Error;
use crate::identity::Identity;
use crate::key::hex;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    pub identity: Identity,
    /// Host names and addresses, for clients that check them.
    pub hosts: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub serial: String,
    /// SHA-256 of the public key with its kind.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// # Errors
    /// It is no certificate, or none that Backstay made.
    pub fn read(der: &[u8]) -> Result<Certificate, Error> {
        let (rest, found) = X509Certificate::from_der(der)
            .map_err(|error| Error::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::Certificate("something follows it".to_owned()));
        }
        let names = found
            .subject_alternative_name()
            .map_err(|error| Error::Certificate(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut identities = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Identity::from_uri(uri),
            _ => None,
        });
        let (Some(identity), None) = (identities.next(), identities.next()) else {
            return Err(Error::NotOurs);
        };
        Ok(Certificate {
            identity,
            hosts: names.iter().filter_map(host).collect(),
            not_before: moment(found.validity().not_before),
            not_after: moment(found.validity().not_after),
            serial: hex(found.raw_serial()),
            fingerprint: Sha256::digest(found.public_key().raw).into(),
        })
    }

    /// What is left of its time.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Two thirds of its time are over.
    pub fn renewal_is_due(&self, now: SystemTime) -> bool {
        let whole = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.left(now) <= whole / 3
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let sixteen = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or(sixteen).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn moment(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
