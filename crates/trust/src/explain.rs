//! TLS errors in the words of an operator: what is wrong, and on which side.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// What `error`, from reading, writing or a handshake, means. `None`: it is not TLS that failed.
pub fn of_io(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(of)
}

pub fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
        Error::InvalidCertificate(reason) => of_certificate(reason).to_owned(),
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(_) => "it does not speak TLS: it has not joined the deployment, or \
                                     this is not the port of a member"
            .to_owned(),
        error => format!("TLS: {error}"),
    }
}

fn of_certificate(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of another authority: both sides must have joined one deployment"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate's time has expired: renew it there, and compare the clocks"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: compare the clocks"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is of a role that does not listen, such as an administrator's"
        }
        _ => "its certificate is not one of this deployment",
    }
}

/// What the other side says of our certificate.
fn of_alert(alert: AlertDescription) -> String {
    let sentence = match alert {
        AlertDescription::CertificateRequired => {
            "it wants a certificate, and this side has shown none: join the deployment first"
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it refuses the certificate of this side: that is of another authority"
        }
        AlertDescription::CertificateExpired => {
            "it refuses the certificate of this side, whose time has expired: renew it, and \
             compare the clocks"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied
        | AlertDescription::UnsupportedCertificate => {
            "it refuses the certificate of this side: the role or the deployment is not the right \
             one"
        }
        alert => return format!("TLS: it says {alert:?}"),
    };
    sentence.to_owned()
}
