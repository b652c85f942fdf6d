//! What comes before the authentication: TLS, the start-up packet, the version of the protocol.
//!
//! A client may ask for TLS and for GSS encryption, each once and in either order, or begin with
//! TLS at once. Where a handshake belongs, bytes in clear that were read ahead end the connection:
//! they would otherwise be taken for the client's own words inside the protected stream.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wire::Malformed;
use wire::server::push_negotiate_protocol_version;
use wire::startup::{self, PROTOCOL_OPTION, Startup, negotiate};

use super::inbox::{Fault, Inbox};
use super::{
    INVALID_AUTHORIZATION, INVALID_PARAMETER, Line, NOT_SUPPORTED, PROTOCOL_VIOLATION, Refused,
    ReplicationKind, Stop, Words, part,
};
use crate::tls::{ALPN, Stream, Tls};

/// The first byte of a TLS handshake. No start-up packet begins with it: it would be far too long.
const TLS_HANDSHAKE: u8 = 0x16;

pub(super) enum Opened {
    Cancel { process: u32, key: Vec<u8> },
    Start(Start),
}

/// What the client asked for.
#[derive(Debug)]
pub(super) struct Start {
    pub protocol: u32,
    /// The client has to be told what is spoken, with the options that are not known.
    pub tell: Option<Vec<String>>,
    pub user: String,
    pub database: String,
    pub parameters: Vec<(String, String)>,
    pub replication: Option<ReplicationKind>,
}

/// The connection up to its start-up packet.
pub(super) async fn open(socket: TcpStream, tls: Option<&Tls>) -> Result<(Line, Opened), Refused> {
    let mut line = if let Some(tls) = tls
        && begins_with_tls(&socket).await?
    {
        let line = shake_hands(socket, tls).await?;
        let Stream::Tls(stream) = &line.stream else { return Err(Refused::NoTls) };
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Refused::NoAlpn);
        }
        line
    } else {
        in_clear(socket, tls).await?
    };
    match read_start(&mut line).await {
        Ok(opened) => Ok((line, opened)),
        Err(stop) => Err(part(line, stop).await),
    }
}

/// Whether the client begins with TLS at once. What it has sent stays where it is.
async fn begins_with_tls(socket: &TcpStream) -> Result<bool, Refused> {
    let mut first = [0];
    match socket.peek(&mut first).await? {
        0 => Err(Refused::Left),
        _ => Ok(first[0] == TLS_HANDSHAKE),
    }
}

async fn shake_hands(socket: TcpStream, tls: &Tls) -> Result<Line, Refused> {
    let (stream, end_point) = tls.accept(socket).await.map_err(Refused::Tls)?;
    Ok(Line { stream: Stream::Tls(Box::new(stream)), inbox: Inbox::default(), end_point })
}

/// Answers the requests for encryption.
async fn in_clear(mut socket: TcpStream, tls: Option<&Tls>) -> Result<Line, Refused> {
    let mut inbox = Inbox::default();
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let request = match peek_request(&mut inbox, &mut socket).await {
            Ok(request) => request,
            Err(_) if inbox.first() == Some(TLS_HANDSHAKE) => return Err(Refused::NoTls),
            Err(fault) => {
                let line = Line { stream: Stream::Plain(socket), inbox, end_point: None };
                return Err(part(line, opening_fault(fault)).await);
            }
        };
        match request {
            Some(startup::SSL_REQUEST) if !asked_tls => asked_tls = true,
            Some(startup::GSSENC_REQUEST) if !asked_gss => asked_gss = true,
            Some(_) | None => {
                return Ok(Line { stream: Stream::Plain(socket), inbox, end_point: None });
            }
        }
        inbox.skip(REQUEST);
        if !inbox.is_empty() {
            return Err(Refused::Stuffed);
        }
        match tls {
            Some(tls) if request == Some(startup::SSL_REQUEST) => {
                socket.write_all(b"S").await?;
                return shake_hands(socket, tls).await;
            }
            Some(_) | None => socket.write_all(b"N").await?,
        }
    }
}

/// The size of a request for encryption.
const REQUEST: usize = 8;

/// Waits for a whole packet, and leaves it where it is. `None` if it is no request for encryption.
async fn peek_request(inbox: &mut Inbox, socket: &mut TcpStream) -> Result<Option<u32>, Fault> {
    let packet = inbox.await_packet(socket).await?;
    match startup::split(packet).map_err(Fault::Malformed)? {
        Some((Startup::Ssl, REQUEST)) => Ok(Some(startup::SSL_REQUEST)),
        Some((Startup::Gssenc, REQUEST)) => Ok(Some(startup::GSSENC_REQUEST)),
        Some(_) | None => Ok(None),
    }
}

async fn read_start(line: &mut Line) -> Result<Opened, Stop> {
    let packet = line.inbox.await_packet(&mut line.stream).await.map_err(opening_fault)?;
    let found = startup::split(packet).map_err(Fault::Malformed).map_err(opening_fault)?;
    let Some((packet, size)) = found else {
        return Err(Stop::Silent(Refused::Left));
    };
    let opened = match packet {
        Startup::Cancel { process, key } => {
            if !(4..=256).contains(&key.len()) {
                let text = "invalid length of cancel request key";
                return Err(Words::new(PROTOCOL_VIOLATION, text).into());
            }
            Opened::Cancel { process, key: key.to_vec() }
        }
        Startup::Start { version, parameters } => Opened::Start(start(version, &parameters)?),
        Startup::Ssl => return Err(unsupported(startup::SSL_REQUEST)),
        Startup::Gssenc => return Err(unsupported(startup::GSSENC_REQUEST)),
        Startup::Unsupported { version } => return Err(unsupported(version)),
    };
    line.inbox.skip(size);
    if let Opened::Start(Start { tell: Some(unknown), protocol, .. }) = &opened {
        let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
        let mut out = Vec::new();
        push_negotiate_protocol_version(&mut out, *protocol, &unknown);
        line.stream.write_all(&out).await?;
    }
    Ok(opened)
}

fn unsupported(version: u32) -> Stop {
    let (major, minor) = (version >> 16, version & 0xffff);
    let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
    Words::new(NOT_SUPPORTED, text).into()
}

/// Faults of a packet before messages have tags have words of their own.
fn opening_fault(fault: Fault) -> Stop {
    match fault {
        Fault::Malformed(Malformed::Length) => {
            Words::new(PROTOCOL_VIOLATION, "invalid length of startup packet").into()
        }
        Fault::Malformed(Malformed::Short | Malformed::Text | Malformed::Code) => {
            Words::new(PROTOCOL_VIOLATION, "invalid startup packet layout")
                .detail("Names and values are UTF-8 texts that end in a zero byte.")
                .into()
        }
        Fault::Ended | Fault::Io(_) | Fault::TooLarge => fault.into(),
    }
}

fn start(version: u32, given: &[(&str, &str)]) -> Result<Start, Stop> {
    let negotiation = negotiate(version, given);
    // The last one counts, as on a server.
    let value = |name| given.iter().rfind(|(found, _)| *found == name).map(|(_, value)| *value);
    let user = value("user").filter(|user| !user.is_empty()).ok_or_else(|| {
        let text = "no PostgreSQL user name specified in startup packet";
        Words::new(INVALID_AUTHORIZATION, text)
    })?;
    let database = value("database").filter(|database| !database.is_empty()).unwrap_or(user);
    let replication = value("replication").map(replication).transpose()?.flatten();
    let kept = given.iter().filter(|(name, _)| !name.starts_with(PROTOCOL_OPTION));
    Ok(Start {
        protocol: negotiation.version,
        tell: negotiation.tell.map(|names| names.into_iter().map(str::to_owned).collect()),
        user: user.to_owned(),
        database: database.to_owned(),
        parameters: kept.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        replication,
    })
}

fn replication(value: &str) -> Result<Option<ReplicationKind>, Words> {
    let lower = value.to_ascii_lowercase();
    match lower.as_str() {
        "database" => Ok(Some(ReplicationKind::Logical)),
        "1" | "on" | "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" => {
            Ok(Some(ReplicationKind::Physical))
        }
        "0" | "of" | "off" | "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" => Ok(None),
        _unknown => Err(Words::new(
            INVALID_PARAMETER,
            format!("invalid value for parameter \"replication\": \"{value}\""),
        )
        .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")),
    }
}
