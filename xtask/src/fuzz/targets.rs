//! The readers that get the bytes: every one that reads what comes from outside.
//!
//! Each is called as the product calls it, and everything that it hands out is looked at.

use protocol::admin::{Request, Response, Right};
use protocol::convert;
use protocol::frame::Decoder;
use protocol::handshake::{Hello, Refused, Welcome};
use protocol::v1::Batch;
use wire::frame::{Frame, split};
use wire::message::{Authentication, Backend, DataRow, Fields, read_password, read_sasl_initial};
use wire::replication::FromServer;
use wire::scram::client::{Client, ClientSecret};
use wire::scram::server::{Channel, Mechanism, Server};
use wire::scram::{Keys, Verifier};
use wire::sql;
use wire::startup::{self, Startup};

use super::seeds;

/// The largest message that is read as a whole.
const LARGEST: usize = 16 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Startup,
    FromClient,
    FromServer,
    Scram,
    Sql,
    Conversation,
    /// Streams of frames, cut anywhere.
    Frames,
    Handshake,
    /// What members send each other.
    Batches,
    Requests,
    Responses,
    /// A member's durable state, as it lies in the ledger.
    Durable,
    /// The ledger's file.
    Ledger,
    /// What is said to the authority's service, and what it answers.
    Enrolment,
    Tokens,
    Certificates,
}

impl Target {
    /// What clients and PostgreSQL say.
    pub const WIRE: [Target; 6] = [
        Target::Startup,
        Target::FromClient,
        Target::FromServer,
        Target::Scram,
        Target::Sql,
        Target::Conversation,
    ];

    /// What Backstay's own processes say, and keep.
    pub const PROTOCOL: [Target; 10] = [
        Target::Frames,
        Target::Handshake,
        Target::Batches,
        Target::Requests,
        Target::Responses,
        Target::Durable,
        Target::Ledger,
        Target::Enrolment,
        Target::Tokens,
        Target::Certificates,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Target::Startup => "startup",
            Target::FromClient => "client",
            Target::FromServer => "server",
            Target::Scram => "scram",
            Target::Sql => "sql",
            Target::Conversation => "conversation",
            Target::Frames => "frames",
            Target::Handshake => "handshake",
            Target::Batches => "batches",
            Target::Requests => "requests",
            Target::Responses => "responses",
            Target::Durable => "durable",
            Target::Ledger => "ledger",
            Target::Enrolment => "enrolment",
            Target::Tokens => "tokens",
            Target::Certificates => "certificates",
        }
    }

    pub fn named(name: &str) -> Option<Target> {
        let all = Target::WIRE.into_iter().chain(Target::PROTOCOL);
        all.into_iter().find(|target| target.name() == name)
    }

    pub fn read(self, case: &[u8]) {
        match self {
            Target::Startup => read_startup(case),
            Target::FromClient => frames(case, read_from_client),
            Target::FromServer => frames(case, read_from_server),
            Target::Scram => scram(case),
            Target::Sql => statement(case),
            Target::Conversation => gateway::fuzz::conversation(case),
            Target::Frames => cut(case),
            Target::Handshake => handshake(case),
            Target::Batches => batch(case),
            Target::Requests => request(case),
            Target::Responses => response(case),
            Target::Durable => durable(case),
            Target::Ledger => agent::fuzz::ledger(case),
            Target::Enrolment => enrolment(case),
            Target::Tokens => token(case),
            Target::Certificates => {
                let _ = trust::Certificate::read(case).is_ok();
                let _ = str::from_utf8(case).map(trust::Identity::from_uri);
            }
        }
    }
}

fn read_startup(case: &[u8]) {
    let mut rest = case;
    while let Ok(Some((packet, size))) = startup::split(rest) {
        if let Startup::Start { version, parameters } = packet {
            assert!(startup::negotiate(version, &parameters).version >= startup::PROTOCOL_3_0);
            for (_, value) in parameters {
                sql::start_up_options(value.as_bytes()).for_each(drop);
            }
        }
        rest = &rest[size..];
    }
}

fn frames(case: &[u8], read: impl Fn(Frame<'_>)) {
    let mut rest = case;
    while let Ok(Some(frame)) = split(rest, LARGEST) {
        read(frame);
        rest = &rest[frame.size()..];
    }
}

fn read_from_client(frame: Frame<'_>) {
    let _ = read_password(frame.body).is_ok();
    let _ = read_sasl_initial(frame.body).is_ok();
    frame.body.split(|byte| *byte == 0).take(2).for_each(statement);
}

fn read_from_server(frame: Frame<'_>) {
    let row = DataRow::of(frame.body);
    let _ = (row.values().take_while(Result::is_ok).count(), row.text(1));
    let _ = Fields::of(frame.body).count();
    match Backend::read(frame) {
        Ok(Backend::RowDescription(row)) => row.columns().take_while(Result::is_ok).for_each(drop),
        Ok(Backend::Authentication(Authentication::Sasl(names))) => names.for_each(drop),
        Ok(Backend::ErrorResponse(fields) | Backend::NoticeResponse(fields)) => {
            let _ = (fields.sqlstate(), fields.message(), fields.routine());
        }
        Ok(Backend::CopyData(body)) => {
            if let Ok(FromServer::Wal(data)) = FromServer::read(body) {
                assert!(data.end() >= data.start);
            }
        }
        Ok(_) | Err(_) => {}
    }
}

/// Four lines: what each end says to the other.
fn scram(case: &[u8]) {
    let mut lines = case.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, last, answer, signature) = (line(), line(), line(), line());
    let verifier = Verifier::of_password(b"secret", SALT, 1);
    for (mechanism, channel) in
        [(Mechanism::Plain, Channel::Clear), (Mechanism::Plus, Channel::Tls { end_point: b"0123" })]
    {
        let Ok((server, _)) = Server::begin(&verifier, mechanism, channel, first, NONCE) else {
            continue;
        };
        let _ = server.check(last).is_ok();
    }
    let keys = Keys::of_password(b"secret", SALT, 1);
    let secret = ClientSecret::Keys { keys: &keys, salt: SALT, iterations: 1 };
    let (client, _) = Client::begin(secret, None, NONCE);
    if let Ok((proving, _)) = client.prove(answer) {
        let _ = proving.verify(signature).is_ok();
    }
    if let Some(verifier) = core::str::from_utf8(first).ok().and_then(Verifier::parse) {
        assert_eq!(Verifier::parse(&verifier.to_text()), Some(verifier));
    }
}

pub const SALT: &[u8] = b"0123456789abcdef";
pub const NONCE: &str = "abc";

fn statement(text: &[u8]) {
    for conforming in [true, false] {
        let summary = sql::summary(text, conforming);
        summary.settings().for_each(drop);
    }
    for (name, value) in sql::start_up_options(text) {
        let _ = (sql::lowers_commit(&name, &value), sql::hides_notices(&name, &value));
    }
}

/// Frames come out the same however the stream is cut, and each can be written again.
fn cut(case: &[u8]) {
    let read = |parts: &[&[u8]]| {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in parts {
            decoder.push(part);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => return frames,
                }
            }
        }
        frames
    };
    let (early, late) = case.split_at(case.len() / 2);
    let whole = read(&[case]);
    assert_eq!(whole, read(&[early, late]));
    for frame in whole {
        let mut out = Vec::new();
        let written = protocol::frame::write(frame.kind, &frame.payload, &mut out);
        assert!(written.is_err() || read(&[&out]) == [frame]);
    }
}

/// Whatever somebody says of himself, he gets an answer that can be read.
fn handshake(case: &[u8]) {
    if let Ok(hello) = Hello::from_bytes(case) {
        assert_eq!(Hello::from_bytes(&hello.to_bytes()).ok(), Some(hello.clone()));
        let answer = seeds::introduction().answer(&hello, |host| host == "be2");
        let read = match &answer {
            Ok(welcome) => Welcome::from_bytes(&welcome.to_bytes()).is_ok(),
            Err(refused) => Refused::from_bytes(&refused.to_bytes()).is_ok(),
        };
        assert!(read, "{answer:?}");
    }
    let _ = Welcome::from_bytes(case).is_ok();
    let _ = Refused::from_bytes(case).is_ok();
}

/// A message that is understood says the same when it is written again.
fn batch(case: &[u8]) {
    message(case);
    let Ok(batch) = postcard::from_bytes::<Batch>(case) else { return };
    batch.items.iter().for_each(|item| message(&item.message));
}

fn message(bytes: &[u8]) {
    if let Ok(message) = convert::message_from_bytes(bytes) {
        let again = convert::message_to_bytes(&message);
        assert_eq!(convert::message_from_bytes(&again).ok(), Some(message));
    }
}

fn durable(case: &[u8]) {
    if let Ok(durable) = convert::durable_from_bytes(case) {
        let again = convert::durable_to_bytes(&durable);
        assert_eq!(convert::durable_from_bytes(&again).ok(), Some(durable));
    }
}

/// What is read by its right only is no change.
fn request(case: &[u8]) {
    let Ok(request) = Request::from_bytes(case) else { return };
    let _ = request.pool();
    assert!(!request.is_read() || request.right() != Right::Change, "{request:?}");
    assert_eq!(Request::from_bytes(&request.to_bytes()).as_ref(), Ok(&request));
}

fn response(case: &[u8]) {
    if let Ok(response) = Response::from_bytes(case) {
        assert!(Response::from_bytes(&response.to_bytes()).is_ok());
    }
}

fn enrolment(case: &[u8]) {
    if let Ok(ask) = trust::Ask::from_bytes(case) {
        assert_eq!(trust::Ask::from_bytes(&ask.to_bytes()[4..]).ok(), Some(ask));
    }
    let Ok(answer) = trust::Answer::from_bytes(case) else { return };
    if let trust::Answer::Granted { certificate, authority } = answer {
        let _ = trust::Certificate::read(&certificate).is_ok();
        let _ = trust::Certificate::read(&authority).is_ok();
    }
}

fn token(case: &[u8]) {
    if let Ok(token) = postcard::from_bytes::<trust::Token>(case)
        && token.name.len() + token.deployment.len() < 1_000
        && token.authority.as_ref().is_none_or(|address| address.len() < 100)
    {
        assert_eq!(token.to_string().parse::<trust::Token>().ok(), Some(token));
    }
    let Ok(text) = str::from_utf8(case) else { return };
    if let Ok(token) = text.parse::<trust::Token>() {
        assert_eq!(token.to_string().parse::<trust::Token>().ok(), Some(token));
    }
}
