//! Both ends of a log-in over real sockets: our own client and raw bytes against `accept`.

use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wire::frame::Frame;
use wire::message::{self, Authentication, Backend, Transaction};
use wire::scram::client::{Client, ClientSecret};
use wire::scram::{MECHANISM, MECHANISM_PLUS, Verifier};
use wire::server::{push_backend_key_data, push_parameter_status, push_ready_for_query};
use wire::startup::{
    GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST, push_cancel, push_request, push_start,
};

use super::inbox::Inbox;
use super::to_server::{ServerError, ServerHello, Whom, log_in};
use super::*;
use crate::lookup::LookupError;
use crate::tls::tests::{Scratch, certificate};
use crate::verifiers::{Ask, Row};

const SALT: &[u8] = b"0123456789abcdef";

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let test = tasks.run_until(test);
    runtime.block_on(async { timeout(Duration::from_secs(20), test).await }).unwrap();
}

/// A gateway with one listening socket, and users as a principal would tell of them.
struct House {
    _dir: Scratch,
    door: Door,
    listener: TcpListener,
    certificate: Option<CertificateDer<'static>>,
}

fn row(secret: Option<String>) -> Row {
    Row {
        secret: secret.map(|text| SecretText::from(text.as_str())),
        can_login: true,
        valid_until_ms: None,
        connection_limit: -1,
    }
}

fn scram(password: &str) -> Option<String> {
    Some(Verifier::of_password(password.as_bytes(), SALT, 16).to_text())
}

impl House {
    async fn build(with_tls: bool) -> House {
        let users: HashMap<&str, Row> = [
            ("anna", Row { connection_limit: 7, ..row(scram("secret")) }),
            ("olaf", row(Some(md5::stored(b"secret", "olaf")))),
            ("group", Row { can_login: false, ..row(scram("secret")) }),
            ("gone", Row { valid_until_ms: Some(0), ..row(scram("secret")) }),
            ("bare", row(None)),
        ]
        .into();
        let users = Rc::new(users);
        let ask: Ask = Box::new(move |name, _| {
            let users = users.clone();
            Box::pin(async move {
                if name == "late" {
                    return Err(LookupError::NoPrincipal);
                }
                Ok(users.get(name.as_str()).cloned())
            })
        });
        let dir = Scratch::new("login");
        let made = with_tls.then(|| certificate(&dir.0));
        let tls = made.as_ref().map(|(files, _)| Tls::load(files).unwrap());
        let verifiers = Verifiers::open(&dir.0, ask);
        let door = Door { tls, verifiers, trust: vec!["trusted".to_owned()] };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let certificate = made.map(|(_, certificate)| certificate);
        House { _dir: dir, door, listener, certificate }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
    }

    async fn accept(&self) -> Result<Accepted, Refused> {
        let (socket, _) = self.listener.accept().await.unwrap();
        accept(socket, &self.door).await
    }

    /// The same; a client that is in is told so, and nothing else.
    async fn accept_and_tell(&self) -> Result<Accepted, Refused> {
        let mut accepted = self.accept().await;
        if let Ok(Accepted::Client(client)) = &mut accepted {
            let unsent = std::mem::take(&mut client.unsent);
            client.stream.write_all(&unsent).await.unwrap();
            client.stream.flush().await.unwrap();
        }
        accepted
    }

    /// What the gateway makes of a client that only sends these bytes, and what the client reads.
    async fn answer(&self, bytes: &[u8]) -> (Result<Accepted, Refused>, Vec<u8>) {
        let client = async {
            let mut stream = self.connect().await;
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut read = Vec::new();
            // A connection that is reset has been read as far as it went.
            let _end = stream.read_to_end(&mut read).await;
            read
        };
        let server = async {
            let accepted = self.accept_and_tell().await;
            drop_stream(accepted)
        };
        tokio::join!(server, client)
    }

    /// Logs in with our own client; the gateway then plays the server to its end.
    async fn log_in(
        &self,
        user: &str,
        credentials: &Credentials,
    ) -> (Result<Accepted, Refused>, Result<ServerHello, ServerError>) {
        let client = async {
            let mut stream = self.connect().await;
            let given = [("application_name".to_owned(), "test".to_owned())];
            log_in(&mut stream, &whom(user), &given, credentials).await
        };
        tokio::join!(self.let_in(), client)
    }

    /// Plays the server to the end of a log-in.
    async fn let_in(&self) -> Result<Accepted, Refused> {
        let mut accepted = self.accept().await;
        if let Ok(Accepted::Client(client)) = &mut accepted {
            let mut out = std::mem::take(&mut client.unsent);
            push_parameter_status(&mut out, "TimeZone", "UTC");
            push_backend_key_data(&mut out, 5, &[1, 2, 3, 4]);
            push_ready_for_query(&mut out, Transaction::Idle);
            client.stream.write_all(&out).await.unwrap();
            client.stream.flush().await.unwrap();
        }
        accepted
    }
}

/// Closes what a test does not go on with, so that the client's reading ends.
fn drop_stream(accepted: Result<Accepted, Refused>) -> Result<Accepted, Refused> {
    accepted.and_then(|accepted| match accepted {
        Accepted::Client(client) => Err(Refused::Told {
            sqlstate: "00000",
            message: format!("let in {} with {:x}", client.user, client.protocol),
        }),
        cancel @ Accepted::Cancel { .. } => Ok(cancel),
    })
}

fn whom(user: &str) -> Whom<'_> {
    Whom { user, database: "db", end_point: None }
}

fn password(text: &str) -> Credentials {
    Credentials::Password(SecretText::from(text))
}

fn started(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    push_start(&mut out, parameters.iter().copied());
    out[4..8].copy_from_slice(&version.to_be_bytes());
    out
}

fn request(code: u32) -> Vec<u8> {
    let mut out = Vec::new();
    push_request(&mut out, code);
    out
}

fn client_of(accepted: Result<Accepted, Refused>) -> LoggedIn {
    match accepted {
        Ok(Accepted::Client(client)) => *client,
        other => panic!("no client was let in: {other:?}"),
    }
}

fn told(refused: &ServerError) -> (&str, &str) {
    match refused {
        ServerError::Refused(report) => (report.sqlstate(), report.message()),
        other => panic!("not refused by the server: {other:?}"),
    }
}

#[test]
fn a_log_in_by_scram_leaves_what_the_next_one_needs() {
    run(async {
        let house = House::build(false).await;
        let (accepted, hello) = house.log_in("anna", &password("secret")).await;
        let client = client_of(accepted);
        let hello = hello.unwrap();
        assert_eq!((hello.process, hello.key.as_slice()), (5, &[1, 2, 3, 4][..]));
        assert_eq!(hello.parameters, [("TimeZone".to_owned(), "UTC".to_owned())]);
        assert_eq!((client.user.as_str(), client.database.as_str()), ("anna", "db"));
        assert_eq!((client.protocol, client.connection_limit), (PROTOCOL_3_0, 7));
        assert!(client.parameters.contains(&("application_name".to_owned(), "test".to_owned())));
        assert!(matches!(client.credentials, Credentials::Scram { iterations: 16, .. }));
        let (again, hello) = house.log_in("anna", &client.credentials).await;
        assert_eq!(client_of(again).credentials, client.credentials);
        hello.unwrap();
    });
}

#[test]
fn md5_and_trust_let_in_as_the_server_has_them() {
    run(async {
        let house = House::build(false).await;
        let (accepted, _) = house.log_in("olaf", &password("secret")).await;
        let credentials = client_of(accepted).credentials;
        assert!(matches!(credentials, Credentials::Md5(_)));
        let (accepted, hello) = house.log_in("olaf", &credentials).await;
        client_of(accepted);
        hello.unwrap();
        let (_, refused) = house.log_in("olaf", &password("wrong")).await;
        assert_eq!(told(&refused.unwrap_err()).0, "28P01");
        let (accepted, _) = house.log_in("trusted", &Credentials::Trust).await;
        assert_eq!(client_of(accepted).credentials, Credentials::Trust);
    });
}

#[test]
fn an_unknown_user_a_wrong_and_a_missing_password_look_alike() {
    run(async {
        let house = House::build(false).await;
        for user in ["anna", "bare", "nobody"] {
            let (accepted, refused) = house.log_in(user, &password("wrong")).await;
            let text = format!("password authentication failed for user \"{user}\"");
            assert_eq!(told(&refused.unwrap_err()), ("28P01", text.as_str()));
            assert!(matches!(accepted, Err(Refused::Told { sqlstate: "28P01", .. })));
        }
        // What is asked is the same as well, to the length of each part.
        let mut shapes = Vec::new();
        for user in ["anna", "nobody"] {
            let mut bytes = started(PROTOCOL_3_0, &[("user", user)]);
            message::push_sasl_initial(&mut bytes, MECHANISM, b"n,,n=,r=abc");
            let (_, read) = house.answer(&bytes).await;
            let text = String::from_utf8_lossy(&read).into_owned();
            let shape: Vec<usize> = text.split([',', '=']).map(str::len).collect();
            shapes.push((read.len(), shape, text.ends_with(",i=16")));
        }
        assert_eq!(shapes[0], shapes[1]);
        assert!(shapes[0].2);
    });
}

#[test]
fn the_right_password_is_not_always_enough() {
    run(async {
        let house = House::build(false).await;
        let (_, refused) = house.log_in("group", &password("secret")).await;
        let text = "role \"group\" is not permitted to log in";
        assert_eq!(told(&refused.unwrap_err()), ("28000", text));
        let (_, refused) = house.log_in("gone", &password("secret")).await;
        let text = "password authentication failed for user \"gone\"";
        assert_eq!(told(&refused.unwrap_err()), ("28P01", text));
        let (_, refused) = house.log_in("late", &password("secret")).await;
        assert_eq!(told(&refused.unwrap_err()).0, "57P03");
    });
}

#[test]
fn a_client_from_the_future_is_told_once_what_is_spoken() {
    run(async {
        let house = House::build(false).await;
        let grease = [("user", "trusted"), ("_pq_.test_protocol_negotiation", "")];
        let (accepted, read) = house.answer(&started(PROTOCOL_3_0 + 9999, &grease)).await;
        let negotiated = b"v\0\0\0\x2b\0\x03\0\x02\0\0\0\x01_pq_.test_protocol_negotiation\0";
        let (first, rest) = read.split_at(negotiated.len());
        assert_eq!((first, rest), (&negotiated[..], &b"R\0\0\0\x08\0\0\0\0"[..]));
        assert!(accepted.unwrap_err().to_string().contains("with 30002"));
        let (accepted, read) = house.answer(&started(PROTOCOL_3_2, &grease[..1])).await;
        assert_eq!(read, b"R\0\0\0\x08\0\0\0\0");
        assert!(accepted.unwrap_err().to_string().contains("with 30002"));
        let (_, read) = house.answer(&started(PROTOCOL_3_0 + 1, &grease[..1])).await;
        assert_eq!(&read[..13], b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0");
    });
}

#[test]
fn encryption_that_is_not_there_is_declined_and_the_start_goes_on() {
    run(async {
        let house = House::build(false).await;
        let client = async {
            let mut stream = house.connect().await;
            for code in [GSSENC_REQUEST, SSL_REQUEST] {
                stream.write_all(&request(code)).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'N');
            }
            log_in(&mut stream, &whom("trusted"), &[], &Credentials::Trust).await
        };
        let server = async {
            let client = client_of(house.accept().await);
            assert!(!client.stream.is_tls());
        };
        let ((), ended) = tokio::join!(server, client);
        assert!(matches!(ended, Err(ServerError::Ended | ServerError::Io(_))));
    });
}

#[test]
fn a_cancel_request_is_handed_on_with_a_key_of_any_length() {
    run(async {
        let house = House::build(false).await;
        for key in [&[1, 2, 3, 4][..], &[9; 32], &[7; 256]] {
            let mut bytes = Vec::new();
            push_cancel(&mut bytes, 77, key);
            let client = async {
                let mut stream = house.connect().await;
                stream.write_all(&bytes).await.unwrap();
                stream
            };
            let (accepted, _open) = tokio::join!(house.accept(), client);
            match accepted {
                Ok(Accepted::Cancel { process: 77, key: found, .. }) => assert_eq!(found, key),
                other => panic!("no cancel request: {other:?}"),
            }
        }
    });
}

#[test]
fn what_is_not_the_protocol_is_refused_in_words() {
    run(async {
        let house = House::build(false).await;
        let old = request(2 << 16);
        let twice = [request(SSL_REQUEST), request(SSL_REQUEST)].concat();
        let nobody = started(PROTOCOL_3_0, &[("database", "db")]);
        let odd = started(PROTOCOL_3_0, &[("user", "anna"), ("replication", "perhaps")]);
        let mut query = started(PROTOCOL_3_0, &[("user", "anna")]);
        message::push_query(&mut query, "select 1");
        for (bytes, text) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "08P01"),
            (&old, "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"),
            (&nobody, "no PostgreSQL user name specified in startup packet"),
            (&odd, "invalid value for parameter \"replication\": \"perhaps\""),
            (&query, "got message type 81"),
        ] {
            let (_, read) = house.answer(bytes).await;
            let read = String::from_utf8_lossy(&read).into_owned();
            assert!(read.contains("FATAL") && read.contains(text), "{text}: {read}");
        }
        let (refused, read) = house.answer(&twice).await;
        assert!(matches!(refused, Err(Refused::Stuffed)) && read.is_empty());
        let (refused, _) = house.answer(&[]).await;
        assert!(matches!(refused, Err(Refused::Left)));
        let (refused, _) = house.answer(&[0x16, 3, 1]).await;
        assert!(matches!(refused, Err(Refused::NoTls)));
    });
}

async fn shake_hands(
    house: &House,
    socket: TcpStream,
    alpn: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(house.certificate.clone().unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// The client's half of SCRAM-SHA-256-PLUS, up to `AuthenticationOk`.
async fn bind<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, end_point: &[u8]) -> Vec<u8> {
    let mut inbox = Inbox::default();
    let mut out = started(PROTOCOL_3_0, &[("user", "anna")]);
    stream.write_all(&out).await.unwrap();
    let offer = inbox.message(stream).await.unwrap();
    let Ok(Backend::Authentication(Authentication::Sasl(offered))) =
        Backend::read(Frame { tag: offer.tag, body: &offer.body })
    else {
        panic!("no offer");
    };
    assert_eq!(offered.collect::<Vec<_>>(), [MECHANISM_PLUS, MECHANISM]);
    let secret = ClientSecret::Password(b"secret");
    let (client, first) = Client::begin(secret, Some(end_point), "nonce");
    out.clear();
    message::push_sasl_initial(&mut out, MECHANISM_PLUS, &first);
    stream.write_all(&out).await.unwrap();
    let answer = inbox.message(stream).await.unwrap();
    let (proving, proof) = client.prove(&answer.body[4..]).unwrap();
    out.clear();
    message::push_sasl(&mut out, &proof);
    stream.write_all(&out).await.unwrap();
    let last = inbox.message(stream).await.unwrap();
    if last.tag == b'R' {
        proving.verify(&last.body[4..]).unwrap();
    }
    last.body
}

#[test]
fn a_log_in_binds_to_the_certificate_that_was_shown() {
    run(async {
        let house = House::build(true).await;
        let end_point = {
            use sha2::Digest as _;
            sha2::Sha256::digest(house.certificate.as_ref().unwrap()).to_vec()
        };
        for (bound_to, direct, fine) in
            [(&end_point[..], false, true), (&end_point, true, true), (b"another", false, false)]
        {
            let client = async {
                let mut socket = house.connect().await;
                if !direct {
                    socket.write_all(&request(SSL_REQUEST)).await.unwrap();
                    assert_eq!(socket.read_u8().await.unwrap(), b'S');
                }
                let alpn: &[&[u8]] = if direct { &[b"postgresql"] } else { &[] };
                let mut stream = shake_hands(&house, socket, alpn).await.unwrap();
                bind(&mut stream, bound_to).await
            };
            let (accepted, last) = tokio::join!(house.accept_and_tell(), client);
            if fine {
                assert!(client_of(accepted).stream.is_tls());
            } else {
                assert!(matches!(accepted, Err(Refused::Told { sqlstate: "28000", .. })));
                assert!(String::from_utf8_lossy(&last).contains("binding check failed"));
            }
        }
    });
}

#[test]
fn the_gateways_own_log_in_is_bound_to_the_certificate_that_the_server_shows() {
    run(async {
        let house = House::build(true).await;
        for (bound_to, fine) in [(None, true), (Some(b"another".to_vec()), false)] {
            let client = async {
                let mut socket = house.connect().await;
                socket.write_all(&request(SSL_REQUEST)).await.unwrap();
                assert_eq!(socket.read_u8().await.unwrap(), b'S');
                let secured = shake_hands(&house, socket, &[]).await.unwrap();
                let mut stream = Stream::Tls(Box::new(secured.into()));
                let end_point = bound_to.or_else(|| stream.server_end_point());
                assert!(end_point.is_some());
                let whom = Whom { end_point, ..whom("anna") };
                let hello = log_in(&mut stream, &whom, &[], &password("secret")).await;
                (stream, hello)
            };
            let (accepted, (mut stream, hello)) = tokio::join!(house.let_in(), client);
            assert_eq!(hello.is_ok(), fine);
            if !fine {
                assert_eq!(told(&hello.unwrap_err()).1, "SCRAM channel binding check failed");
                continue;
            }
            let mut client = client_of(accepted);
            assert!(stream.is_quiet() && stream.is_quiet());
            client.stream.part();
            let mut end = [0];
            assert_eq!(stream.read(&mut end).await.unwrap(), 0);
            assert!(!stream.is_quiet());
        }
    });
}

#[test]
fn direct_tls_must_name_the_protocol_inside() {
    run(async {
        let house = House::build(true).await;
        let silent = async {
            let stream = shake_hands(&house, house.connect().await, &[]).await;
            stream.unwrap().read_u8().await.unwrap_err();
        };
        let (refused, ()) = tokio::join!(house.accept(), silent);
        assert!(matches!(refused, Err(Refused::NoAlpn)));
        let other = async {
            shake_hands(&house, house.connect().await, &[b"h2"]).await.unwrap_err();
        };
        let (refused, ()) = tokio::join!(house.accept(), other);
        assert!(matches!(refused, Err(Refused::Tls(_))));
    });
}

#[test]
fn data_in_clear_where_the_handshake_belongs_ends_the_connection() {
    run(async {
        let house = House::build(true).await;
        let start = started(PROTOCOL_3_0, &[("user", "anna")]);
        let stuffed = [request(SSL_REQUEST), start].concat();
        let (refused, read) = house.answer(&stuffed).await;
        assert!(matches!(refused, Err(Refused::Stuffed)) && read.is_empty());
    });
}

#[test]
fn a_cancel_request_may_come_inside_tls() {
    run(async {
        let house = House::build(true).await;
        let client = async {
            let socket = house.connect().await;
            let mut stream = shake_hands(&house, socket, &[b"postgresql"]).await.unwrap();
            let mut bytes = Vec::new();
            push_cancel(&mut bytes, 77, &[1, 2, 3, 4]);
            stream.write_all(&bytes).await.unwrap();
            stream
        };
        let (accepted, _open) = tokio::join!(house.accept(), client);
        assert!(matches!(accepted, Ok(Accepted::Cancel { process: 77, .. })));
    });
}

#[test]
fn what_a_client_sends_ahead_is_handed_on() {
    run(async {
        let house = House::build(false).await;
        let mut bytes = started(PROTOCOL_3_0, &[("user", "trusted")]);
        message::push_query(&mut bytes, "select 1");
        let client = async {
            let mut stream = house.connect().await;
            stream.write_all(&bytes).await.unwrap();
            stream
        };
        let (accepted, _open) = tokio::join!(house.accept(), client);
        let mut client = client_of(accepted);
        let expected = &bytes[bytes.len() - 14..];
        let missing = expected.len() - client.buffered.len();
        let mut rest = vec![0; missing];
        client.stream.read_exact(&mut rest).await.unwrap();
        assert_eq!([client.buffered, rest].concat(), expected);
    });
}
