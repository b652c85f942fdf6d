//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, from both ends.
//!
//! The server's end (`server`) works from a stored verifier and never sees a password. A client
//! that proves itself to it leaves `Keys` behind, and with these the client's end (`client`) can
//! log in to any server that stores the same verifier. Nonces come from the caller, so that
//! nothing here is random. What is secret has no readable `Debug`, and is compared in a time that
//! does not depend on it.

pub mod client;
pub mod server;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// What a hash or a key of SCRAM-SHA-256 is.
pub type Key = [u8; 32];

/// The iterations of a verifier that nobody chose: PostgreSQL's default.
pub const USUAL_ITERATIONS: u32 = 4096;
/// The length of the salts that PostgreSQL makes.
pub const SALT: usize = 16;
/// What a nonce is made of: so many random bytes. PostgreSQL takes as many.
pub const NONCE: usize = 18;

/// The name of the mechanism, as it is offered and chosen.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The name of the mechanism with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only kind of channel binding that PostgreSQL knows.
const END_POINT: &str = "tls-server-end-point";

/// What a server stores of a password: enough to check it, not enough to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Verifier {
            iterations: iterations.parse().ok().filter(|count| *count > 0)?,
            salt: Base64::decode_vec(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: read_key(stored_key)?,
            server_key: read_key(server_key)?,
        })
    }

    /// What a server would store of this password (prepared as RFC 4013 says, where it can be).
    pub fn of_password(password: &[u8], salt: &[u8], iterations: u32) -> Verifier {
        let keys = Keys::of_password(password, salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: hash(&keys.client_key),
            server_key: keys.server_key,
        }
    }

    /// A verifier that no password fits, for a user who does not exist: always the same one for
    /// the same name, so that asking twice does not tell him from a user who does.
    pub fn stand_in(secret: &Key, user: &str, iterations: u32) -> Verifier {
        let derive = |what: &str| keyed(secret, &[what.as_bytes(), b":", user.as_bytes()]);
        Verifier {
            iterations,
            salt: derive("salt")[..SALT].to_vec(),
            // Nobody can find a key with this hash.
            stored_key: derive("stored"),
            server_key: derive("server"),
        }
    }

    /// The form in which PostgreSQL stores it.
    pub fn to_text(&self) -> String {
        let salt = Base64::encode_string(&self.salt);
        let stored_key = Base64::encode_string(&self.stored_key);
        let server_key = Base64::encode_string(&self.server_key);
        format!("{MECHANISM}${}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

/// What a client needs to log in, beside salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client_key: Key,
    server_key: Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// The dear way: it hashes as often as `iterations` says.
    pub fn of_password(password: &[u8], salt: &[u8], iterations: u32) -> Keys {
        let salted = stretch(password, salt, iterations);
        Keys {
            client_key: keyed(&salted, &[b"Client Key"]),
            server_key: keyed(&salted, &[b"Server Key"]),
        }
    }
}

/// A server that asks for more iterations is refused: they would hold up the caller for seconds.
const MOST: u32 = 1_000_000;

/// A random number as the text that a nonce is.
pub fn nonce(random: &[u8; NONCE]) -> String {
    Base64::encode_string(random)
}

/// PBKDF2 with HMAC-SHA-256, for the one block that is needed.
fn stretch(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let fresh = hmac_of(password);
    let round = |parts: &[&[u8]]| {
        let mut mac = fresh.clone();
        parts.iter().for_each(|part| mac.update(part));
        Key::from(mac.finalize().into_bytes())
    };
    let mut last = round(&[salt, &1_u32.to_be_bytes()]);
    let mut all = last;
    for _ in 1..iterations {
        last = round(&[&last]);
        all = xor(&all, &last);
    }
    all
}

fn hmac_of(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// HMAC-SHA-256 of all parts, one after the other.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = hmac_of(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn xor(left: &Key, right: &Key) -> Key {
    core::array::from_fn(|at| left[at] ^ right[at])
}

fn read_key(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    let found = Base64::decode(text, &mut key).ok()?.len();
    (found == key.len()).then_some(key)
}

/// What both ends sign: the three messages before the proof.
fn auth_message<'a>(
    first_bare: &'a str,
    server_first: &'a str,
    without_proof: &'a str,
) -> [&'a [u8]; 5] {
    [first_bare.as_bytes(), b",", server_first.as_bytes(), b",", without_proof.as_bytes()]
}

/// A nonce and an extension value consist of printable characters without the comma.
fn printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scram::client::{Client, ClientSecret};
    use crate::scram::server::{Channel, Failure, Mechanism, Server};
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    const HASH: &[u8] = b"the hash of a certificate";

    fn verifier(password: &[u8]) -> Verifier {
        Verifier::of_password(password, b"0123456789abcdef", 64)
    }

    /// A whole exchange of our two ends.
    fn exchange(
        verifier: &Verifier,
        secret: ClientSecret<'_>,
        client_end_point: Option<&[u8]>,
        channel: Channel<'_>,
        mechanism: Mechanism,
    ) -> Result<Keys, Failure> {
        let (client, first) = Client::begin(secret, client_end_point, "clientnonce");
        let (server, answer) = Server::begin(verifier, mechanism, channel, &first, "servernonce")?;
        let (client, last) = client.prove(&answer).unwrap();
        let proven = server.check(&last)?;
        client.verify(&proven.message).unwrap();
        Ok(proven.keys)
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_byte_for_byte() {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of_password(b"pencil", &salt, 4096);
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (server, answer) =
            Server::begin(&verifier, Mechanism::Plain, Channel::Clear, first, server_nonce)
                .unwrap();
        assert_eq!(
            core::str::from_utf8(&answer).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let proven = server.check(last).unwrap();
        assert_eq!(proven.message, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(proven.keys, Keys::of_password(b"pencil", &salt, 4096));
    }

    #[test]
    fn a_stored_verifier_is_read_as_postgresql_writes_it() {
        let text = postgres_protocol::password::scram_sha_256(b"secret");
        let verifier = Verifier::parse(&text).unwrap();
        assert_eq!((verifier.iterations, verifier.to_text()), (4096, text));
        let of_password = Verifier::of_password(b"secret", &verifier.salt, 4096);
        assert_eq!(of_password, verifier);
        for broken in ["", "md5abc", "SCRAM-SHA-256$0:QQ==$QQ==:QQ==", "SCRAM-SHA-256$4096:QQ=="] {
            assert_eq!(Verifier::parse(broken), None);
        }
    }

    #[test]
    fn another_implementation_logs_in_to_ours() {
        let bindings = [
            (ChannelBinding::unsupported(), Mechanism::Plain, Channel::Clear),
            (ChannelBinding::unrequested(), Mechanism::Plain, Channel::Clear),
            (
                ChannelBinding::tls_server_end_point(HASH.to_vec()),
                Mechanism::Plus,
                Channel::Tls { end_point: HASH },
            ),
        ];
        for (binding, mechanism, channel) in bindings {
            let verifier = verifier(b"secret");
            let mut client = ScramSha256::new(b"secret", binding);
            let (server, answer) =
                Server::begin(&verifier, mechanism, channel, client.message(), "abc").unwrap();
            client.update(&answer).unwrap();
            let proven = server.check(client.message()).unwrap();
            client.finish(&proven.message).unwrap();
            assert_eq!(proven.keys, Keys::of_password(b"secret", &verifier.salt, 64));
        }
    }

    #[test]
    fn the_keys_of_one_login_open_the_next() {
        let verifier = verifier(b"secret");
        let password = ClientSecret::Password(b"secret");
        let keys = exchange(&verifier, password, None, Channel::Clear, Mechanism::Plain).unwrap();
        let secret = ClientSecret::Keys { keys: &keys, salt: &verifier.salt, iterations: 64 };
        let tls = Channel::Tls { end_point: HASH };
        assert_eq!(
            exchange(&verifier, secret, Some(HASH), tls, Mechanism::Plus).as_ref(),
            Ok(&keys)
        );
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_fail_alike() {
        let stand_in = Verifier::stand_in(&[7; 32], "nobody", 64);
        assert_eq!(stand_in, Verifier::stand_in(&[7; 32], "nobody", 64));
        assert_ne!(stand_in.salt, Verifier::stand_in(&[7; 32], "somebody", 64).salt);
        for verifier in [stand_in, verifier(b"secret")] {
            let password = ClientSecret::Password(b"wrong");
            assert_eq!(
                exchange(&verifier, password, None, Channel::Clear, Mechanism::Plain),
                Err(Failure::WrongProof)
            );
        }
    }

    #[test]
    fn a_binding_to_another_certificate_is_refused() {
        let password = ClientSecret::Password(b"secret");
        let tls = Channel::Tls { end_point: HASH };
        let other = Some(&b"another certificate"[..]);
        assert_eq!(
            exchange(&verifier(b"secret"), password, other, tls, Mechanism::Plus),
            Err(Failure::BindingMismatch)
        );
    }

    #[test]
    fn a_client_that_was_told_of_no_binding_is_warned() {
        let first = b"y,,n=,r=abc";
        let begin = |channel| {
            let verifier = verifier(b"secret");
            Server::begin(&verifier, Mechanism::Plain, channel, first, "def").map(|_| ())
        };
        assert_eq!(begin(Channel::Tls { end_point: HASH }), Err(Failure::Downgraded));
        assert_eq!(begin(Channel::Clear), Ok(()));
    }

    #[test]
    fn a_mechanism_and_its_binding_belong_together() {
        let begin = |mechanism, first: &[u8]| {
            let verifier = verifier(b"secret");
            let channel = Channel::Tls { end_point: HASH };
            Server::begin(&verifier, mechanism, channel, first, "def").err()
        };
        let bound = b"p=tls-server-end-point,,n=,r=abc";
        assert_eq!(begin(Mechanism::Plain, bound), Some(Failure::UnwantedBinding));
        assert_eq!(begin(Mechanism::Plus, b"n,,n=,r=abc"), Some(Failure::MissingBinding));
        assert_eq!(begin(Mechanism::Plus, b"y,,n=,r=abc"), Some(Failure::MissingBinding));
        assert_eq!(
            begin(Mechanism::Plus, b"p=tls-unique,,n=,r=abc"),
            Some(Failure::UnknownBinding)
        );
        assert_eq!(begin(Mechanism::Plain, b"n,a=x,n=,r=abc"), Some(Failure::Unsupported));
        assert_eq!(begin(Mechanism::Plain, b"n,,m=x,n=,r=abc"), Some(Failure::Unsupported));
        assert_eq!(begin(Mechanism::Plain, b"n,,n=,r="), Some(Failure::Malformed));
    }

    #[test]
    fn keys_are_not_used_for_another_salt_or_count() {
        let keys = Keys::of_password(b"secret", b"0123456789abcdef", 64);
        let secret = ClientSecret::Keys { keys: &keys, salt: b"0123456789abcdef", iterations: 64 };
        for other in [
            Verifier::of_password(b"secret", b"0123456789abcdeg", 64),
            Verifier::of_password(b"secret", b"0123456789abcdef", 65),
        ] {
            let (client, first) = Client::begin(secret, None, "abc");
            let (_, answer) =
                Server::begin(&other, Mechanism::Plain, Channel::Clear, &first, "def").unwrap();
            assert_eq!(client.prove(&answer).err(), Some(client::ClientFailure::OtherPassword));
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let verifier = verifier(b"secret");
        let (client, first) = Client::begin(ClientSecret::Password(b"secret"), None, "abc");
        let (_, answer) =
            Server::begin(&verifier, Mechanism::Plain, Channel::Clear, &first, "def").unwrap();
        let (client, _) = client.prove(&answer).unwrap();
        let forged = format!("v={}", Base64::encode_string(&[0; 32]));
        assert_eq!(client.verify(forged.as_bytes()), Err(client::ClientFailure::WrongServer));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(first: Vec<u8>, last: Vec<u8>, plus: bool) {
            let verifier = Verifier::stand_in(&[1; 32], "x", 1);
            let mechanism = if plus { Mechanism::Plus } else { Mechanism::Plain };
            let channel = Channel::Tls { end_point: HASH };
            let _ = Server::begin(&verifier, mechanism, channel, &first, "abc");
            let (server, _) =
                Server::begin(&verifier, Mechanism::Plain, channel, b"n,,n=,r=a", "abc").unwrap();
            prop_assert!(server.check(&last).is_err());
            let (client, _) = Client::begin(ClientSecret::Password(b"x"), None, "abc");
            prop_assert!(client.prove(&first).is_err());
        }

        #[test]
        fn texts_that_nearly_fit_do_not_panic(
            first in "[npy]{0,2}(=tls-[a-z-]{0,20})?,{1,2}[an=]{0,3},?[mnr]=[ -~]{0,8},r=[ -~]{0,8}",
            last in "c=[a-zA-Z=]{0,6},r=[ac,]{0,8}(,x=[ -~]{0,4})?,p=[a-zA-Z+/=]{0,48}",
            answer in "r=(abc)?[ -~]{0,6},s=[a-zA-Z=]{0,8},i=[0-9]{0,3}(,[ -~]{0,8})?",
            signature in "[ve]=[a-zA-Z+/=]{0,48}",
        ) {
            let verifier = Verifier::stand_in(&[1; 32], "x", 1);
            let channel = Channel::Clear;
            let _ = Server::begin(&verifier, Mechanism::Plain, channel, first.as_bytes(), "abc");
            let (server, _) =
                Server::begin(&verifier, Mechanism::Plain, channel, b"n,,n=,r=a", "c").unwrap();
            prop_assert!(server.check(last.as_bytes()).is_err());
            let (client, _) = Client::begin(ClientSecret::Password(b"x"), None, "abc");
            if let Ok((client, _)) = client.prove(answer.as_bytes()) {
                prop_assert!(client.verify(signature.as_bytes()).is_err());
            }
        }

        #[test]
        fn a_verifier_in_any_text_is_read_or_refused(text in "(SCRAM-SHA-256)?[$:a-zA-Z0-9=]{0,80}") {
            if let Some(verifier) = Verifier::parse(&text) {
                prop_assert!(verifier.iterations >= 1);
            }
        }
    }
}
