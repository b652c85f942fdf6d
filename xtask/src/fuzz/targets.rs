//! The readers that get the bytes: every one that reads what comes from outside.
//!
//! Each is called as the product calls it, and everything that it hands out is looked at.

use protocol::frame::Decoder;
use protocol::handshake::{Hello, Refused, Welcome};
use wire::frame::{Frame, split};
use wire::message::{Authentication, Backend, DataRow, Fields, read_password, read_sasl_initial};
use wire::replication::FromServer;
use wire::scram::client::{Client, ClientSecret};
use wire::scram::server::{Channel, Mechanism, Server};
use wire::scram::{Keys, Verifier};
use wire::sql;
use wire::startup::{self, Startup};

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
    Members,
    Commands,
}

impl Target {
    pub const ALL: [Target; 8] = [
        Target::Startup,
        Target::FromClient,
        Target::FromServer,
        Target::Scram,
        Target::Sql,
        Target::Conversation,
        Target::Members,
        Target::Commands,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Target::Startup => "startup",
            Target::FromClient => "client",
            Target::FromServer => "server",
            Target::Scram => "scram",
            Target::Sql => "sql",
            Target::Conversation => "conversation",
            Target::Members => "members",
            Target::Commands => "commands",
        }
    }

    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }

    pub fn read(self, case: &[u8]) {
        match self {
            Target::Startup => read_startup(case),
            Target::FromClient => frames(case, read_from_client),
            Target::FromServer => frames(case, read_from_server),
            Target::Scram => scram(case),
            Target::Sql => statement(case),
            Target::Conversation => gateway::fuzz::conversation(case),
            Target::Members => members(case),
            Target::Commands => {
                let _ = protocol::admin::Request::from_bytes(case).is_ok();
                let _ = protocol::admin::Response::from_bytes(case).is_ok();
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

fn members(case: &[u8]) {
    let mut decoder = Decoder::default();
    let (early, late) = case.split_at(case.len() / 2);
    for part in [early, late] {
        decoder.push(part);
        while let Ok(Some(frame)) = decoder.next_frame() {
            payload(&frame.payload);
        }
    }
    payload(case);
}

fn payload(bytes: &[u8]) {
    let _ = Hello::from_bytes(bytes).is_ok();
    let _ = Welcome::from_bytes(bytes).is_ok();
    let _ = Refused::from_bytes(bytes).is_ok();
    let _ = protocol::convert::message_from_bytes(bytes).is_ok();
    let _ = protocol::convert::durable_from_bytes(bytes).is_ok();
}
