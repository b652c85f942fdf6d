//! The authority: the key that all trust of a deployment hangs on, and what it signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::error::Error;
use crate::identity::{Identity, Role};
use crate::key::{Key, Requested, random};

/// Of a certificate. It is renewed when two thirds of it are over.
pub const LIFETIME: Duration = Duration::from_hours(24 * 90);
/// Of the authority itself.
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(24 * 3_650);
/// Certificates begin so long ago: clocks differ.
const BACK_DATED: Duration = Duration::from_hours(1);
/// Host names and addresses in one certificate.
const HOSTS: usize = 32;

/// Whom a certificate is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub role: Role,
    pub name: String,
    /// Host names and addresses under which it is reached, for clients that check them.
    #[serde(default)]
    pub hosts: Vec<String>,
}

#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    own: Certificate,
}

impl Authority {
    /// A new authority and its certificate in PEM form.
    ///
    /// # Errors
    /// The deployment's name cannot be used.
    pub fn create(deployment: &str, key: &Key, now: SystemTime) -> Result<String, Error> {
        let identity = Identity::new(deployment, Role::Authority, "authority")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(&format!("Backstay authority of {deployment}"));
        params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, AUTHORITY_LIFETIME)?;
        Ok(params.self_signed(&key.0)?.pem())
    }

    /// # Errors
    /// They are no key and certificate of an authority.
    pub fn load(key: Key, certificate: &str) -> Result<Authority, Error> {
        let no_pem = |error: rustls::pki_types::pem::Error| Error::Pem {
            what: "authority's certificate",
            error: error.to_string(),
        };
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(no_pem)?;
        let own = Certificate::read(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der, key.0)?;
        Ok(Authority { issuer, der, own })
    }

    pub fn deployment(&self) -> &str {
        &self.own.identity.deployment
    }

    pub fn certificate(&self) -> &Certificate {
        &self.own
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A certificate in DER form for whoever signed `request`. Only the key is taken from it.
    ///
    /// # Errors
    /// The request is none, or the subject cannot be written into a certificate.
    pub fn issue(
        &self,
        subject: &Subject,
        request: &[u8],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, Error> {
        let requested = Requested::read(request)?;
        let identity = Identity::new(self.deployment(), subject.role, &subject.name)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject_of(&identity);
        params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into()?)];
        // PostgreSQL's own clients look for a server under its name where they have its address.
        let own = (subject.role == Role::Server && is_host(&subject.name)).then_some(&subject.name);
        let hosts = subject.hosts.iter().filter(|host| Some(*host) != own);
        for host in own.into_iter().chain(hosts).take(HOSTS) {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.role.listens() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, lifetime)?;
        Ok(params.signed_by(&requested.key, &self.issuer)?.der().to_vec())
    }
}

/// From the whole to the part, so that RFC 2253 has it the other way round.
fn subject_of(identity: &Identity) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, identity.deployment.as_str());
    distinguished.push(DnType::OrganizationalUnitName, identity.role.as_str());
    distinguished.push(DnType::CommonName, identity.name.as_str());
    distinguished
}

/// It may stand in a certificate as the name of a host.
fn is_host(name: &str) -> bool {
    name.parse::<IpAddr>().is_err()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        && name.split('.').all(|part| !part.is_empty() && !part.ends_with('-'))
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From a while ago until `lifetime` from now, under a number that nobody can guess.
fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) -> Result<(), Error> {
    params.not_before = OffsetDateTime::from(now - BACK_DATED);
    params.not_after = OffsetDateTime::from(now + lifetime);
    let mut serial = random::<16>()?;
    // Positive, and never short.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(now: SystemTime) -> Authority {
        let key = Key::generate().unwrap();
        let certificate = Authority::create("production", &key, now).unwrap();
        Authority::load(key, &certificate).unwrap()
    }

    fn subject(role: Role) -> Subject {
        let hosts = vec!["be1.example.com".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()];
        Subject { role, name: "be1".to_owned(), hosts }
    }

    #[test]
    fn a_certificate_says_who_it_is_for_and_when_to_renew_it() {
        let now = SystemTime::now();
        let authority = authority(now);
        let request = Key::generate().unwrap().request("anything").unwrap();
        let der = authority.issue(&subject(Role::Server), &request, now, LIFETIME).unwrap();
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.identity.to_uri(), "backstay:/production/server/be1");
        assert_eq!(read.hosts, ["be1", "be1.example.com", "10.0.0.1", "::1"]);
        assert!(read.not_before < now);
        assert!(!read.renewal_is_due(now + Duration::from_hours(24 * 59)));
        assert!(read.renewal_is_due(now + Duration::from_hours(24 * 61)));
        assert!(read.left(now + LIFETIME).is_zero());
    }

    #[test]
    fn nothing_but_the_key_is_taken_from_a_request() {
        let now = SystemTime::now();
        let key = Key::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let uri = "backstay:/production/administrator/me";
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let request = params.serialize_request(&key.0).unwrap();
        let der = authority(now).issue(&subject(Role::Witness), request.der(), now, LIFETIME);
        let read = Certificate::read(&der.unwrap()).unwrap();
        assert_eq!(read.identity.role, Role::Witness);
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let now = SystemTime::now();
        let mut request = Key::generate().unwrap().request("x").unwrap();
        let end = request.len() - 1;
        request[end] ^= 1;
        let issued = authority(now).issue(&subject(Role::Server), &request, now, LIFETIME);
        assert!(issued.is_err());
        assert!(authority(now).issue(&subject(Role::Server), b"x", now, LIFETIME).is_err());
    }
}
