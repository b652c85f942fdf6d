//! What a server says, to be written: the gateway says it to its clients.
//!
//! Every builder appends one whole message to a buffer. A `Report` is an error or a notice; it
//! always has the fields that every client looks for, so that none stumbles over one of ours.

use alloc::vec::Vec;

use crate::frame::{push, push_text};
use crate::message::{Transaction, field};

/// Appends the end of the log-in: the client is in.
pub fn push_authentication_ok(out: &mut Vec<u8>) {
    push_authentication(out, 0, &[]);
}

/// Appends the demand for a password that is hashed by MD5 with this salt.
pub fn push_md5_demand(out: &mut Vec<u8>, salt: [u8; 4]) {
    push_authentication(out, 5, &salt);
}

/// Appends the mechanisms that are offered, the best one first.
pub fn push_sasl_offer(out: &mut Vec<u8>, mechanisms: &[&str]) {
    push(out, b'R', |out| {
        out.extend_from_slice(&10_i32.to_be_bytes());
        mechanisms.iter().for_each(|mechanism| push_text(out, mechanism));
        out.push(0);
    });
}

/// Appends a message of the mechanism, after which the client answers.
pub fn push_sasl_continue(out: &mut Vec<u8>, message: &[u8]) {
    push_authentication(out, 11, message);
}

/// Appends the last message of the mechanism.
pub fn push_sasl_final(out: &mut Vec<u8>, message: &[u8]) {
    push_authentication(out, 12, message);
}

fn push_authentication(out: &mut Vec<u8>, code: i32, rest: &[u8]) {
    push(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(rest);
    });
}

/// Appends the value of a setting that clients are kept informed about.
pub fn push_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    push(out, b'S', |out| {
        push_text(out, name);
        push_text(out, value);
    });
}

/// Appends what a cancel request must name. The key has four bytes in protocol 3.0, and between 4
/// and 256 in 3.2.
pub fn push_backend_key_data(out: &mut Vec<u8>, process: u32, key: &[u8]) {
    push(out, b'K', |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends that the next statement may come.
pub fn push_ready_for_query(out: &mut Vec<u8>, transaction: Transaction) {
    push(out, b'Z', |out| {
        out.push(match transaction {
            Transaction::Idle => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        });
    });
}

/// Appends the version of the protocol that is spoken, if it is not the one that was asked for,
/// and the options that are not known.
pub fn push_negotiate_protocol_version(out: &mut Vec<u8>, version: u32, unknown: &[&str]) {
    push(out, b'v', |out| {
        out.extend_from_slice(&version.to_be_bytes());
        let count = i32::try_from(unknown.len()).unwrap_or(i32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        unknown.iter().for_each(|name| push_text(out, name));
    });
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    Warning,
    Notice,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
        }
    }
}

/// An error or a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub fn new(severity: Severity, sqlstate: &'a str, message: &'a str) -> Report<'a> {
        Report { severity, sqlstate, message, detail: None, hint: None }
    }

    pub fn with_detail(self, detail: &'a str) -> Report<'a> {
        Report { detail: Some(detail), ..self }
    }

    pub fn with_hint(self, hint: &'a str) -> Report<'a> {
        Report { hint: Some(hint), ..self }
    }
}

/// Appends an error.
pub fn push_error(out: &mut Vec<u8>, report: &Report<'_>) {
    push(out, b'E', |out| push_report(out, report));
}

/// Appends a notice or a warning.
pub fn push_notice(out: &mut Vec<u8>, report: &Report<'_>) {
    push(out, b'N', |out| push_report(out, report));
}

fn push_report(out: &mut Vec<u8>, report: &Report<'_>) {
    let severity = report.severity.as_str();
    let always = [
        (b'S', Some(severity)),
        (field::SEVERITY, Some(severity)),
        (field::SQLSTATE, Some(report.sqlstate)),
        (field::MESSAGE, Some(report.message)),
        (field::DETAIL, report.detail),
        (field::HINT, report.hint),
    ];
    for (code, text) in always {
        if let Some(text) = text {
            out.push(code);
            push_text(out, text);
        }
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::message::{Authentication, Backend};
    use crate::startup::PROTOCOL_3_2;

    fn read(bytes: &[u8]) -> Backend<'_> {
        let frame = frame::split(bytes, bytes.len()).unwrap().unwrap();
        assert_eq!(frame.size(), bytes.len());
        Backend::read(frame).unwrap()
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn a_log_in_is_read_as_it_was_written() {
        let offer = written(|out| push_sasl_offer(out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]));
        let Backend::Authentication(Authentication::Sasl(mechanisms)) = read(&offer) else {
            panic!("not read as an offer");
        };
        assert_eq!(mechanisms.collect::<Vec<_>>(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
        let salted = written(|out| push_md5_demand(out, [1, 2, 3, 4]));
        assert!(matches!(
            read(&salted),
            Backend::Authentication(Authentication::Md5Password { salt: [1, 2, 3, 4] })
        ));
        let more = written(|out| push_sasl_continue(out, b"r=x"));
        assert!(matches!(
            read(&more),
            Backend::Authentication(Authentication::SaslContinue(b"r=x"))
        ));
        let last = written(|out| push_sasl_final(out, b"v=x"));
        assert!(matches!(read(&last), Backend::Authentication(Authentication::SaslFinal(b"v=x"))));
        let done = written(push_authentication_ok);
        assert!(matches!(read(&done), Backend::Authentication(Authentication::Ok)));
    }

    #[test]
    fn an_error_has_the_fields_that_every_client_looks_for() {
        let report =
            Report::new(Severity::Fatal, "28P01", "no").with_detail("because").with_hint("do this");
        let bytes = written(|out| push_error(out, &report));
        let Backend::ErrorResponse(fields) = read(&bytes) else {
            panic!("not read as an error");
        };
        let found: Vec<_> = fields.collect();
        assert_eq!(
            found,
            [
                (b'S', "FATAL"),
                (b'V', "FATAL"),
                (b'C', "28P01"),
                (b'M', "no"),
                (b'D', "because"),
                (b'H', "do this"),
            ]
        );
        let bytes = written(|out| push_notice(out, &report));
        assert!(matches!(read(&bytes), Backend::NoticeResponse(_)));
    }

    #[test]
    fn a_zero_byte_in_a_text_ends_the_text_and_not_the_message() {
        let report = Report::new(Severity::Error, "22021", "a\0b").with_hint("c");
        let bytes = written(|out| push_error(out, &report));
        let Backend::ErrorResponse(fields) = read(&bytes) else {
            panic!("not read as an error");
        };
        assert_eq!((fields.message(), fields.get(field::HINT)), ("a", Some("c")));
    }

    #[test]
    fn the_rest_of_a_start_is_read_as_it_was_written() {
        let status = written(|out| push_parameter_status(out, "TimeZone", "UTC"));
        assert!(matches!(
            read(&status),
            Backend::ParameterStatus { name: "TimeZone", value: "UTC" }
        ));
        let key = written(|out| push_backend_key_data(out, 7, &[9; 32]));
        let Backend::BackendKeyData { process: 7, key } = read(&key) else {
            panic!("not read as a key");
        };
        assert_eq!(key, [9; 32]);
        for transaction in [Transaction::Idle, Transaction::Open, Transaction::Failed] {
            let ready = written(|out| push_ready_for_query(out, transaction));
            assert!(matches!(read(&ready), Backend::ReadyForQuery(found) if found == transaction));
        }
    }

    #[test]
    fn the_negotiated_version_is_told_in_whole() {
        let bytes = written(|out| push_negotiate_protocol_version(out, PROTOCOL_3_2, &["_pq_.x"]));
        assert_eq!(bytes, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }
}
