//! The messages themselves: what a server says, read without copying, and what a client says.
//!
//! `Backend::read` never fails on a message that it does not know: that is `Backend::Other`, and
//! the receiver decides. Texts are borrowed from the frame. Row values are bytes or null.

use alloc::vec::Vec;

use crate::Malformed;
use crate::cursor::Cursor;
use crate::frame::{Frame, push, push_text};

/// What a server says.
#[derive(Clone, Debug)]
pub enum Backend<'a> {
    Authentication(Authentication<'a>),
    BackendKeyData { process: u32, key: &'a [u8] },
    CommandComplete { tag: &'a str },
    CopyBothResponse,
    CopyData(&'a [u8]),
    CopyDone,
    DataRow(DataRow<'a>),
    ErrorResponse(Fields<'a>),
    NoticeResponse(Fields<'a>),
    ParameterStatus { name: &'a str, value: &'a str },
    ReadyForQuery(Transaction),
    RowDescription(RowDescription<'a>),
    Other { tag: u8 },
}

impl<'a> Backend<'a> {
    pub fn read(frame: Frame<'a>) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(frame.body);
        Ok(match frame.tag {
            b'R' => Backend::Authentication(Authentication::read(cursor)?),
            b'K' => Backend::BackendKeyData { process: cursor.u32()?, key: cursor.rest() },
            b'C' => Backend::CommandComplete { tag: cursor.text()? },
            b'W' => Backend::CopyBothResponse,
            b'd' => Backend::CopyData(frame.body),
            b'c' => Backend::CopyDone,
            b'D' => Backend::DataRow(DataRow { count: cursor.u16()?, cursor }),
            b'E' => Backend::ErrorResponse(Fields { cursor }),
            b'N' => Backend::NoticeResponse(Fields { cursor }),
            b'S' => Backend::ParameterStatus { name: cursor.text()?, value: cursor.text()? },
            b'Z' => Backend::ReadyForQuery(Transaction::read(cursor.u8()?)?),
            b'T' => Backend::RowDescription(RowDescription { count: cursor.u16()?, cursor }),
            tag => Backend::Other { tag },
        })
    }
}

/// What the server asks of a client that logs in.
#[derive(Clone, Debug)]
pub enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// The names of the mechanisms that it offers.
    Sasl(Mechanisms<'a>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other(i32),
}

impl<'a> Authentication<'a> {
    fn read(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        Ok(match cursor.i32()? {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => Authentication::Md5Password { salt: cursor.u32()?.to_be_bytes() },
            10 => Authentication::Sasl(Mechanisms { cursor }),
            11 => Authentication::SaslContinue(cursor.rest()),
            12 => Authentication::SaslFinal(cursor.rest()),
            code => Authentication::Other(code),
        })
    }
}

#[derive(Clone, Debug)]
pub struct Mechanisms<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Mechanisms<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.cursor.text().ok().filter(|name| !name.is_empty())
    }
}

/// Whether a transaction is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transaction {
    Idle,
    Open,
    Failed,
}

impl Transaction {
    fn read(code: u8) -> Result<Self, Malformed> {
        match code {
            b'I' => Ok(Transaction::Idle),
            b'T' => Ok(Transaction::Open),
            b'E' => Ok(Transaction::Failed),
            _unknown => Err(Malformed::Code),
        }
    }
}

/// The fields of an error or a notice, in the order in which they came.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    cursor: Cursor<'a>,
}

/// Codes of the fields that are looked for.
pub mod field {
    pub const SEVERITY: u8 = b'V';
    pub const SQLSTATE: u8 = b'C';
    pub const MESSAGE: u8 = b'M';
    pub const DETAIL: u8 = b'D';
    pub const HINT: u8 = b'H';
    pub const ROUTINE: u8 = b'R';
}

impl<'a> Fields<'a> {
    /// Those of the body of an error or a notice.
    pub fn of(body: &'a [u8]) -> Fields<'a> {
        Fields { cursor: Cursor::new(body) }
    }

    /// The field of this code (see `field`).
    pub fn get(&self, code: u8) -> Option<&'a str> {
        self.clone().find(|(found, _)| *found == code).map(|(_, text)| text)
    }

    pub fn sqlstate(&self) -> &'a str {
        self.get(field::SQLSTATE).unwrap_or_default()
    }

    pub fn message(&self) -> &'a str {
        self.get(field::MESSAGE).unwrap_or_default()
    }

    /// The function of the server that reported it. It names a condition exactly where the
    /// SQLSTATE does not, and is never translated.
    pub fn routine(&self) -> &'a str {
        self.get(field::ROUTINE).unwrap_or_default()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a str);

    fn next(&mut self) -> Option<(u8, &'a str)> {
        let code = self.cursor.u8().ok().filter(|code| *code != 0)?;
        Some((code, self.cursor.text().ok()?))
    }
}

/// The columns of a result.
#[derive(Clone, Debug)]
pub struct RowDescription<'a> {
    count: u16,
    cursor: Cursor<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The object id of its type.
    pub kind: u32,
}

impl<'a> RowDescription<'a> {
    pub fn columns(&self) -> impl Iterator<Item = Result<Column<'a>, Malformed>> {
        let mut cursor = self.cursor.clone();
        (0..self.count).map(move |_| {
            let name = cursor.text()?;
            let (_table, _column) = (cursor.u32()?, cursor.u16()?);
            let kind = cursor.u32()?;
            let (_size, _modifier, _format) = (cursor.u16()?, cursor.u32()?, cursor.u16()?);
            Ok(Column { name, kind })
        })
    }
}

/// One row of a result.
#[derive(Clone, Debug)]
pub struct DataRow<'a> {
    count: u16,
    cursor: Cursor<'a>,
}

impl<'a> DataRow<'a> {
    /// The row in the body of a DataRow; an empty one if it is cut short.
    pub fn of(body: &'a [u8]) -> DataRow<'a> {
        let mut cursor = Cursor::new(body);
        let count = cursor.u16().unwrap_or_default();
        DataRow { count, cursor }
    }

    /// The values in the order of the columns; `None` is a null.
    pub fn values(&self) -> impl Iterator<Item = Result<Option<&'a [u8]>, Malformed>> {
        let mut cursor = self.cursor.clone();
        (0..self.count).map(move |_| match cursor.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed::Length)?;
                cursor.bytes(length).map(Some)
            }
        })
    }

    /// The value of one column as text; `None` if it is null, missing or not text.
    pub fn text(&self, column: usize) -> Option<&'a str> {
        let value = self.values().nth(column)?.ok()??;
        core::str::from_utf8(value).ok()
    }
}

/// Appends a simple query.
pub fn push_query(out: &mut Vec<u8>, text: &str) {
    push(out, b'Q', |out| push_text(out, text));
}

/// Appends a password, in clear or as an MD5 answer.
pub fn push_password(out: &mut Vec<u8>, password: &str) {
    push(out, b'p', |out| push_text(out, password));
}

/// Appends the choice of a SASL mechanism and its first message.
pub fn push_sasl_initial(out: &mut Vec<u8>, mechanism: &str, first: &[u8]) {
    push(out, b'p', |out| {
        push_text(out, mechanism);
        let length = i32::try_from(first.len()).unwrap_or(i32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(first);
    });
}

/// Appends a further message of a SASL exchange.
pub fn push_sasl(out: &mut Vec<u8>, message: &[u8]) {
    push(out, b'p', |out| out.extend_from_slice(message));
}

/// Appends a statement to be prepared under no name, with parameters of types that the server
/// finds out.
pub fn push_parse(out: &mut Vec<u8>, text: &str) {
    push(out, b'P', |out| {
        push_text(out, "");
        push_text(out, text);
        out.extend_from_slice(&[0; 2]);
    });
}

/// Appends parameters for the statement without a name, all of them texts, and asks for the
/// result as text.
pub fn push_bind(out: &mut Vec<u8>, parameters: &[&str]) {
    push(out, b'B', |out| {
        out.extend_from_slice(&[0; 4]);
        let count = u16::try_from(parameters.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for parameter in parameters.iter().take(usize::from(count)) {
            let length = i32::try_from(parameter.len()).unwrap_or(i32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(parameter.as_bytes());
        }
        out.extend_from_slice(&[0; 2]);
    });
}

/// Appends the order to carry out what was bound, to its end, and to say when that is done.
pub fn push_execute_and_sync(out: &mut Vec<u8>) {
    push(out, b'E', |out| {
        push_text(out, "");
        out.extend_from_slice(&[0; 4]);
    });
    push(out, b'S', |_| {});
}

/// What a client answers while it logs in. All of it has the tag `PASSWORD`; what it is follows
/// from the question.
pub const PASSWORD: u8 = b'p';

/// Reads a password, in clear or as an MD5 answer.
pub fn read_password(body: &[u8]) -> Result<&str, Malformed> {
    let mut cursor = Cursor::new(body);
    let password = cursor.text()?;
    if cursor.is_empty() { Ok(password) } else { Err(Malformed::Length) }
}

/// Reads the choice of a SASL mechanism, and its first message if one came along.
pub fn read_sasl_initial(body: &[u8]) -> Result<(&str, Option<&[u8]>), Malformed> {
    let mut cursor = Cursor::new(body);
    let mechanism = cursor.text()?;
    let first = match cursor.i32()? {
        -1 => None,
        length => {
            let length = usize::try_from(length).map_err(|_| Malformed::Length)?;
            Some(cursor.bytes(length)?)
        }
    };
    if cursor.is_empty() { Ok((mechanism, first)) } else { Err(Malformed::Length) }
}

/// Appends the end of a copy.
pub fn push_copy_done(out: &mut Vec<u8>) {
    push(out, b'c', |_| {});
}

/// Appends the end of the connection.
pub fn push_terminate(out: &mut Vec<u8>) {
    push(out, b'X', |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    fn read(tag: u8, body: &[u8]) -> Backend<'_> {
        Backend::read(Frame { tag, body }).unwrap()
    }

    #[test]
    fn a_cancelled_wait_is_known_by_its_routine() {
        let body = b"SWARNUNG\0VWARNING\0C01000\0Mwarten abgebrochen\0RSyncRepWaitForLSN\0\0";
        let Backend::NoticeResponse(fields) = read(b'N', body) else {
            panic!("not read as a notice");
        };
        assert_eq!((fields.sqlstate(), fields.routine()), ("01000", "SyncRepWaitForLSN"));
        assert_eq!(fields.get(field::SEVERITY), Some("WARNING"));
        assert_eq!(fields.get(field::HINT), None);
    }

    #[test]
    fn a_row_has_values_and_nulls() {
        let body = b"\0\x03\0\0\0\x012\xff\xff\xff\xff\0\0\0\0";
        let Backend::DataRow(row) = read(b'D', body) else {
            panic!("not read as a row");
        };
        let values: Vec<_> = row.values().map(Result::unwrap).collect();
        assert_eq!(values, [Some(&b"2"[..]), None, Some(&b""[..])]);
        assert_eq!((row.text(0), row.text(1), row.text(9)), (Some("2"), None, None));
    }

    #[test]
    fn the_mechanisms_of_a_login_are_listed() {
        let body = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let Backend::Authentication(Authentication::Sasl(mechanisms)) = read(b'R', body) else {
            panic!("not read as SASL");
        };
        assert_eq!(mechanisms.collect::<Vec<_>>(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    }

    #[test]
    fn a_choice_of_mechanism_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        push_sasl_initial(&mut bytes, "SCRAM-SHA-256", b"n,,n=,r=x");
        let frame = frame::split(&bytes, 100).unwrap().unwrap();
        assert_eq!(frame.tag, PASSWORD);
        assert_eq!(read_sasl_initial(frame.body), Ok(("SCRAM-SHA-256", Some(&b"n,,n=,r=x"[..]))));
        assert_eq!(read_sasl_initial(b"X\0\xff\xff\xff\xff"), Ok(("X", None)));
        assert_eq!(read_sasl_initial(b"X\0\0\0\0\x01ab"), Err(Malformed::Length));
        assert_eq!(read_password(b"secret\0"), Ok("secret"));
        assert_eq!(read_password(b"secret\0more"), Err(Malformed::Length));
    }

    proptest! {
        #[test]
        fn answers_of_any_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = (read_password(&bytes), read_sasl_initial(&bytes));
        }

        #[test]
        fn no_bytes_panic(tag: u8, bytes: Vec<u8>) {
            match Backend::read(Frame { tag, body: &bytes }) {
                Ok(Backend::DataRow(row)) => assert!(row.values().count() <= 65_535),
                Ok(Backend::RowDescription(row)) => assert!(row.columns().count() <= 65_535),
                Ok(Backend::ErrorResponse(fields) | Backend::NoticeResponse(fields)) => {
                    let _ = (fields.clone().count(), fields.routine());
                }
                Ok(Backend::Authentication(Authentication::Sasl(mechanisms))) => {
                    let _ = mechanisms.count();
                }
                Ok(_) | Err(_) => {}
            }
        }

        #[test]
        fn known_tags_do_not_panic(
            tag in prop::sample::select(&b"RKCWdcDENSZT"[..]), bytes: Vec<u8>
        ) {
            let mut out = Vec::new();
            frame::push(&mut out, tag, |out| out.extend_from_slice(&bytes));
            let frame = frame::split(&out, out.len()).unwrap().unwrap();
            let _ = Backend::read(frame);
        }
    }
}
