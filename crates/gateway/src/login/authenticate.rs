//! Whether a client is who it says it is.
//!
//! How it is asked follows from what is stored of the user, never from whether there is such a
//! user: who does not exist is asked for SCRAM with a stand-in, and refused in the same words as
//! after a wrong password. A wrong password leads to one more look at what is stored, because it
//! may have been set anew a moment ago.

use std::rc::Rc;

use tokio::io::AsyncWriteExt as _;
use wire::message::{PASSWORD, read_password, read_sasl_initial};
use wire::scram::server::{Channel, Failure, Mechanism, Server};
use wire::scram::{Keys, MECHANISM, MECHANISM_PLUS, Verifier, nonce};
use wire::server::{
    push_authentication_ok, push_md5_demand, push_sasl_continue, push_sasl_final, push_sasl_offer,
};

use super::inbox::{Fault, Message};
use super::opening::Start;
use super::{
    CANNOT_CONNECT_NOW, Credentials, Door, INVALID_AUTHORIZATION, INVALID_PASSWORD, Line,
    NOT_SUPPORTED, PROTOCOL_VIOLATION, SecretText, Stop, Words, md5, random,
};
use crate::clock;
use crate::verifiers::{Found, Row, Secret, User, Verifiers};

pub(super) struct Admitted {
    pub credentials: Credentials,
    pub connection_limit: i32,
    /// The end of the exchange, up to `AuthenticationOk`.
    pub unsent: Vec<u8>,
}

/// Finds out that the client may come in, or says why not.
pub(super) async fn admit(line: &mut Line, door: &Door, start: &Start) -> Result<Admitted, Stop> {
    let user = start.user.as_str();
    let mut out = Vec::new();
    if door.trust.iter().any(|trusted| trusted == user) {
        push_authentication_ok(&mut out);
        let credentials = Credentials::Trust;
        return Ok(Admitted { credentials, connection_limit: -1, unsent: out });
    }
    let found = door.verifiers.find(user).await.map_err(|_told_once| {
        Words::new(CANNOT_CONNECT_NOW, "cannot find out how this user logs in")
            .detail("No principal serves the pool, and the user has not logged in here before.")
            .hint("Try again when the pool is served.")
    })?;
    // Made for everybody, so that it takes no longer for those who need it.
    let stand_in = door.verifiers.stand_in(user);
    let secret = found.user.as_ref().map(|user| &user.secret);
    let mut newer = None;
    let credentials = match secret {
        Some(Secret::Md5(stored)) => {
            let credentials;
            (credentials, newer) = by_md5(line, &door.verifiers, user, &found, stored).await?;
            credentials
        }
        Some(Secret::Scram(verifier)) => {
            by_scram(line, &door.verifiers, user, &found, verifier, &mut out).await?
        }
        Some(Secret::None) | None => {
            by_scram(line, &door.verifiers, user, &found, &stand_in, &mut out).await?
        }
    };
    // With the stand-in nobody comes as far as here.
    let Some(known) = newer.or(found.user) else { return Err(wrong_password(user)) };
    judge(user, &known.row)?;
    push_authentication_ok(&mut out);
    let connection_limit = known.row.connection_limit;
    Ok(Admitted { credentials, connection_limit, unsent: out })
}

/// What else is asked of a user whose password is right.
fn judge(user: &str, row: &Row) -> Result<(), Stop> {
    let now = i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX);
    if row.valid_until_ms.is_some_and(|until| until < now) {
        return Err(wrong_password(user));
    }
    if !row.can_login {
        let text = format!("role \"{user}\" is not permitted to log in");
        return Err(Words::new(INVALID_AUTHORIZATION, text).into());
    }
    Ok(())
}

fn wrong_password(user: &str) -> Stop {
    let text = format!("password authentication failed for user \"{user}\"");
    Words::new(INVALID_PASSWORD, text).into()
}

/// With the credentials comes what is stored of the user, if it is newer than `found`.
async fn by_md5(
    line: &mut Line,
    verifiers: &Verifiers,
    user: &str,
    found: &Found,
    stored: &SecretText,
) -> Result<(Credentials, Option<Rc<User>>), Stop> {
    let salt = random::bytes();
    let mut out = Vec::new();
    push_md5_demand(&mut out, salt);
    line.stream.write_all(&out).await?;
    let body = password_message(line).await?;
    let answer = read_password(&body).map_err(Fault::Malformed)?;
    if md5::is_right(answer, stored.expose(), salt) {
        return Ok((Credentials::Md5(stored.clone()), None));
    }
    // The salt is ours, so the same answer can be held against the newer secret.
    let newer = verifiers.again(user, found).await.and_then(|found| found.user);
    let credentials = newer.as_ref().and_then(|user| match &user.secret {
        Secret::Md5(stored) => {
            md5::is_right(answer, stored.expose(), salt).then(|| Credentials::Md5(stored.clone()))
        }
        Secret::Scram(_) | Secret::None => None,
    });
    Ok((credentials.ok_or_else(|| wrong_password(user))?, newer))
}

/// The exchange. The server's last message stays in `out`.
async fn by_scram(
    line: &mut Line,
    verifiers: &Verifiers,
    user: &str,
    found: &Found,
    verifier: &Verifier,
    out: &mut Vec<u8>,
) -> Result<Credentials, Stop> {
    match exchange(line, verifier, out).await? {
        Ok(keys) => Ok(Credentials::Scram {
            keys,
            salt: Rc::from(verifier.salt.as_slice()),
            iterations: verifier.iterations,
        }),
        Err(Failure::WrongProof) => {
            // A newer verifier has another salt, so it helps only the client's next try.
            verifiers.again(user, found).await;
            Err(wrong_password(user))
        }
        Err(failure) => Err(words_for(failure).into()),
    }
}

async fn exchange(
    line: &mut Line,
    verifier: &Verifier,
    out: &mut Vec<u8>,
) -> Result<Result<Keys, Failure>, Stop> {
    let end_point = line.end_point.clone();
    let (channel, offered): (_, &[&str]) = match &end_point {
        Some(end_point) => (Channel::Tls { end_point }, &[MECHANISM_PLUS, MECHANISM]),
        None => (Channel::Clear, &[MECHANISM]),
    };
    push_sasl_offer(out, offered);
    send(line, out).await?;
    let body = password_message(line).await?;
    let (chosen, first) = read_sasl_initial(&body).map_err(Fault::Malformed)?;
    let Some(mechanism) = Mechanism::named(chosen).filter(|_| offered.contains(&chosen)) else {
        let text = "client selected an invalid SASL authentication mechanism";
        return Err(Words::new(PROTOCOL_VIOLATION, text).into());
    };
    let asked;
    let first = match first {
        Some(first) => first,
        None => {
            push_sasl_continue(out, &[]);
            send(line, out).await?;
            asked = password_message(line).await?;
            &asked
        }
    };
    let own = nonce(&random::bytes());
    let (server, answer) = match Server::begin(verifier, mechanism, channel, first, &own) {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(failure)),
    };
    push_sasl_continue(out, &answer);
    send(line, out).await?;
    let last = password_message(line).await?;
    Ok(server.check(&last).map(|proven| {
        push_sasl_final(out, &proven.message);
        proven.keys
    }))
}

/// Writes what is in `out`, and empties it.
async fn send(line: &mut Line, out: &mut Vec<u8>) -> Result<(), Stop> {
    line.stream.write_all(out).await?;
    out.clear();
    Ok(())
}

async fn password_message(line: &mut Line) -> Result<Vec<u8>, Stop> {
    let Message { tag, body } = line.inbox.message(&mut line.stream).await?;
    if tag == PASSWORD {
        return Ok(body);
    }
    let text = format!("expected SASL or password response, got message type {tag}");
    Err(Words::new(PROTOCOL_VIOLATION, text).into())
}

/// PostgreSQL's own words, which clients and people know.
fn words_for(failure: Failure) -> Words {
    let malformed = || Words::new(PROTOCOL_VIOLATION, "malformed SCRAM message");
    match failure {
        Failure::Malformed => malformed(),
        Failure::MissingBinding => malformed().detail(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include \
             channel binding data.",
        ),
        Failure::UnwantedBinding => malformed().detail(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message \
             includes channel binding data.",
        ),
        Failure::UnknownBinding => {
            Words::new(PROTOCOL_VIOLATION, "unsupported SCRAM channel-binding type")
        }
        Failure::Downgraded => {
            Words::new(INVALID_AUTHORIZATION, "SCRAM channel binding negotiation error").detail(
                "The client supports SCRAM channel binding but thinks the server does not. \
                 However, this server does support channel binding.",
            )
        }
        Failure::BindingMismatch => {
            Words::new(INVALID_AUTHORIZATION, "SCRAM channel binding check failed")
        }
        Failure::BindingChanged => Words::new(
            PROTOCOL_VIOLATION,
            "unexpected SCRAM channel-binding attribute in client-final-message",
        ),
        Failure::OtherNonce => {
            Words::new(PROTOCOL_VIOLATION, "invalid SCRAM response").detail("Nonce does not match.")
        }
        Failure::Unsupported => {
            Words::new(NOT_SUPPORTED, "client requires an unsupported SCRAM extension")
        }
        Failure::WrongProof => Words::new(INVALID_PASSWORD, "password authentication failed"),
    }
}
