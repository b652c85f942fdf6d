//! The authority's directory: its key, the invitations that are out, and who has a certificate.
//!
//! One file for each invitation and each name, so that commands and the service can work on the
//! directory at the same time; each is replaced as a whole. An invitation is marked as used before
//! its certificate leaves. The same request again gets the same certificate, in case the first
//! answer was lost; any other request is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, LIFETIME, Subject};
use crate::certificate::Certificate;
use crate::error::Error;
use crate::exchange::{Answer, Ask, Reason, Refusal};
use crate::files;
use crate::identity::{Identity, Role};
use crate::key::{Key, Requested, hex, random};
use crate::place::to_pem;
use crate::tls::{Credentials, Exporter};
use crate::token::{Hashed, Token, is_proof};

/// How long an invitation is good, unless somebody says otherwise.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// Used and outdated invitations are kept so long, to be able to say what became of them.
const REMEMBERED: Duration = Duration::from_hours(24 * 30);

const KEY: &str = "authority.key";
const CERTIFICATE: &str = "authority.pem";
const ADDRESS: &str = "address";
const TOKENS: &str = "tokens";
const NAMES: &str = "names";
const LOCK: &str = "lock";

/// What to do about a name that has a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    Refuse,
    /// The machine was replaced, or its files were lost.
    Replace,
}

#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
    authority: Authority,
}

/// An invitation, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Invitation {
    subject: Subject,
    expires_s: u64,
    secret_sha256: Hashed,
    /// The certificate that the name had when this was written.
    #[serde(default)]
    replaces: Option<String>,
    #[serde(default)]
    used: Option<Used>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Used {
    key_sha256: String,
    /// DER in Base64.
    certificate: String,
    at_s: u64,
}

/// Somebody who has a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub subject: Subject,
    /// Of the newest certificate.
    pub serial: String,
    /// Of the one that was shown to get it: the answer may have been lost.
    #[serde(default)]
    pub renewed_over: Option<String>,
    pub not_after_s: u64,
    #[serde(default)]
    pub revoked: bool,
}

impl Book {
    /// A new authority in `dir`.
    ///
    /// # Errors
    /// There is one already, or the directory takes no files.
    pub fn init(dir: &Path, deployment: &str, now: SystemTime) -> Result<Book, Error> {
        if dir.join(KEY).exists() || dir.join(CERTIFICATE).exists() {
            return Err(Error::AuthorityExists(dir.to_owned()));
        }
        let key = Key::generate()?;
        let certificate = Authority::create(deployment, &key, now)?;
        for dir in [dir, &dir.join(TOKENS), &dir.join(NAMES)] {
            files::make_dir(dir)?;
        }
        files::write(&dir.join(KEY), &key.to_pem())?;
        files::write(&dir.join(CERTIFICATE), &certificate)?;
        Book::open(dir)
    }

    /// # Errors
    /// There is no authority that could be used.
    pub fn open(dir: &Path) -> Result<Book, Error> {
        let key = Key::from_pem(&files::read(&dir.join(KEY))?)?;
        let authority = Authority::load(key, &files::read(&dir.join(CERTIFICATE))?)?;
        Ok(Book { dir: dir.to_owned(), authority })
    }

    /// For whoever answers for this authority: two that answer would give out one token twice.
    /// Held until the file is closed.
    ///
    /// # Errors
    /// Somebody answers already.
    pub fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join(LOCK);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let error = |error| Error::File { doing: "open", path: path.clone(), error };
        let file = opened.map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Served(self.dir.clone())),
            Err(TryLockError::Error(error)) => {
                Err(Error::File { doing: "lock", path: path.clone(), error })
            }
        }
    }

    pub fn deployment(&self) -> &str {
        self.authority.deployment()
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where the service answers, as others reach it.
    pub fn address(&self) -> Option<String> {
        let text = files::read(&self.dir.join(ADDRESS)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// # Errors
    /// It cannot be written.
    pub fn set_address(&self, address: &str) -> Result<(), Error> {
        files::write(&self.dir.join(ADDRESS), &format!("{address}\n"))
    }

    /// What the service itself shows: a certificate that is made at each start and never stored.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn own_credentials(&self, now: SystemTime) -> Result<Credentials, Error> {
        let key = Key::generate()?;
        let name = "authority".to_owned();
        let subject = Subject { role: Role::Authority, name: name.clone(), hosts: Vec::new() };
        let der = self.authority.issue(&subject, &key.request(&name)?, now, LIFETIME)?;
        let identity = format!("{}{}", key.to_pem(), to_pem(&der));
        Credentials::from_pem(&identity, &to_pem(self.authority.der()))
    }

    /// An invitation for `subject`.
    ///
    /// # Errors
    /// The name is taken or cannot be used, or the directory takes no files.
    pub fn invite(
        &self,
        subject: Subject,
        lifetime: Duration,
        again: Again,
        now: SystemTime,
    ) -> Result<Token, Error> {
        let replaces = self.check(&subject, again, now)?;
        self.forget(now);
        let token = Token {
            deployment: self.deployment().to_owned(),
            role: subject.role,
            name: subject.name.clone(),
            authority: self.address(),
            fingerprint: self.authority.certificate().fingerprint,
            id: random()?,
            secret: random()?,
        };
        let invitation = Invitation {
            subject,
            expires_s: seconds(now + lifetime),
            secret_sha256: token.hashed(),
            replaces,
            used: None,
        };
        write(&self.token_file(&token.id), &invitation)?;
        Ok(token)
    }

    /// A certificate without an invitation, for somebody whom the administrator copies files to.
    ///
    /// # Errors
    /// As `invite`.
    pub fn issue(
        &self,
        subject: Subject,
        request: &[u8],
        again: Again,
        now: SystemTime,
    ) -> Result<Vec<u8>, Error> {
        self.check(&subject, again, now)?;
        self.certify(subject, request, None, now)
    }

    /// The certificate that the name has.
    fn check(
        &self,
        subject: &Subject,
        again: Again,
        now: SystemTime,
    ) -> Result<Option<String>, Error> {
        Identity::new(self.deployment(), subject.role, &subject.name)?;
        if subject.role == Role::Authority {
            return Err(Error::Name("nobody but the authority has its role".to_owned()));
        }
        let entry = self.entry(&subject.name)?;
        let lives = |entry: &Entry| !entry.revoked && entry.not_after_s > seconds(now);
        if entry.as_ref().is_some_and(lives) && again == Again::Refuse {
            return Err(Error::NameTaken(subject.name.clone()));
        }
        Ok(entry.map(|entry| entry.serial))
    }

    fn certify(
        &self,
        subject: Subject,
        request: &[u8],
        renewed_over: Option<String>,
        now: SystemTime,
    ) -> Result<Vec<u8>, Error> {
        let der = self.authority.issue(&subject, request, now, LIFETIME)?;
        let made = Certificate::read(&der)?;
        let not_after_s = seconds(made.not_after);
        let serial = made.serial;
        let entry = Entry { subject, serial, renewed_over, not_after_s, revoked: false };
        write(&self.name_file(&entry.subject.name), &entry)?;
        Ok(der)
    }

    /// Answers one question. `peer`: the certificate that came with the connection.
    pub fn answer(
        &self,
        ask: &Ask,
        peer: Option<&Certificate>,
        exporter: &Exporter,
        now: SystemTime,
    ) -> Answer {
        let certificate = match ask {
            Ask::Join { token, request, proof } => self.join(token, request, proof, exporter, now),
            Ask::Renew { request } => self.renew(request, peer, now),
        };
        match certificate {
            Ok(certificate) => {
                Answer::Granted { certificate, authority: self.authority.der().to_vec() }
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn join(
        &self,
        token: &[u8; 8],
        request: &[u8],
        proof: &[u8; 32],
        exporter: &Exporter,
        now: SystemTime,
    ) -> Result<Vec<u8>, Refusal> {
        let file = self.token_file(token);
        // A token that never was and a wrong secret are not told apart.
        let unknown = || {
            Refusal::new(
                Reason::UnknownToken,
                "the authority does not know this token: issue another one (backstay authority \
                 issue-token)",
            )
        };
        let mut invitation: Invitation = read(&file).map_err(failed)?.ok_or_else(unknown)?;
        if !is_proof(&invitation.secret_sha256, exporter, request, proof) {
            return Err(unknown());
        }
        let key_sha256 = Requested::read(request).map_err(unreadable)?.fingerprint();
        if let Some(used) = &invitation.used {
            if used.key_sha256 != key_sha256 {
                return Err(Refusal::new(
                    Reason::Used,
                    "the token was used already: if that was not here, find out who did; then \
                     issue another one (backstay authority issue-token --again)",
                ));
            }
            return Base64::decode_vec(&used.certificate)
                .map_err(|_| Refusal::new(Reason::Failed, "the authority's records are damaged"));
        }
        if invitation.expires_s <= seconds(now) {
            return Err(Refusal::new(
                Reason::Expired,
                "the token's time is over: issue another one (backstay authority issue-token)",
            ));
        }
        let subject = invitation.subject.clone();
        let has = self.entry(&subject.name).map_err(failed)?.map(|entry| entry.serial);
        if has != invitation.replaces {
            let sentence = format!(
                "{} got a certificate after the token was issued: if that is not this machine, \
                 find out who it is; then issue another one (backstay authority issue-token \
                 --again)",
                subject.name
            );
            return Err(Refusal::new(Reason::NameTaken, sentence));
        }
        let der = self.certify(subject, request, None, now).map_err(failed)?;
        let certificate = Base64::encode_string(&der);
        invitation.used = Some(Used { key_sha256, certificate, at_s: seconds(now) });
        write(&file, &invitation).map_err(failed)?;
        Ok(der)
    }

    fn renew(
        &self,
        request: &[u8],
        peer: Option<&Certificate>,
        now: SystemTime,
    ) -> Result<Vec<u8>, Refusal> {
        let Some(peer) = peer else {
            let sentence = "a certificate is renewed by whoever shows the one before";
            return Err(Refusal::new(Reason::NoCertificate, sentence));
        };
        let name = &peer.identity.name;
        let entry = self.entry(name).map_err(failed)?;
        let serial = &peer.serial;
        let good = |entry: &Entry| {
            let newest = entry.serial == *serial || entry.renewed_over.as_ref() == Some(serial);
            newest && !entry.revoked && entry.subject.role == peer.identity.role
        };
        let Some(entry) = entry.filter(good) else {
            let sentence = format!(
                "the authority of {} does not renew this certificate of {name}: it was revoked, \
                 or another machine has the name now",
                self.deployment()
            );
            return Err(Refusal::new(Reason::Revoked, sentence));
        };
        Requested::read(request).map_err(unreadable)?;
        self.certify(entry.subject, request, Some(serial.clone()), now).map_err(failed)
    }

    /// Gives `name` no certificate any more, not even against a token that is out. What it has
    /// goes on until its time is over; the members refuse it as soon as it is not in their
    /// configuration.
    ///
    /// # Errors
    /// There is no such name.
    pub fn revoke(&self, name: &str) -> Result<Entry, Error> {
        let entry = self.entry(name)?.ok_or_else(|| Error::UnknownName(name.to_owned()))?;
        let entry = Entry { revoked: true, ..entry };
        write(&self.name_file(name), &entry)?;
        for path in listed(&self.dir.join(TOKENS))? {
            let open = |found: &Invitation| found.subject.name == name && found.used.is_none();
            if read::<Invitation>(&path)?.as_ref().is_some_and(open) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(entry)
    }

    /// Who has, or had, a certificate; by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for path in listed(&self.dir.join(NAMES))? {
            entries.extend(read::<Entry>(&path)?);
        }
        entries.sort_by(|one, other| one.subject.name.cmp(&other.subject.name));
        Ok(entries)
    }

    fn entry(&self, name: &str) -> Result<Option<Entry>, Error> {
        read(&self.name_file(name))
    }

    /// Old invitations go, so that the directory does not grow for ever.
    fn forget(&self, now: SystemTime) {
        for path in listed(&self.dir.join(TOKENS)).unwrap_or_default() {
            let Ok(Some(invitation)) = read::<Invitation>(&path) else { continue };
            if invitation.expires_s + REMEMBERED.as_secs() < seconds(now) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn token_file(&self, id: &[u8; 8]) -> PathBuf {
        self.dir.join(TOKENS).join(format!("{}.json", hex(id)))
    }

    /// A name is checked before, and has no separator in it.
    fn name_file(&self, name: &str) -> PathBuf {
        self.dir.join(NAMES).join(format!("{name}.json"))
    }
}

fn failed(error: Error) -> Refusal {
    Refusal::new(Reason::Failed, format!("the authority has a problem: {error}"))
}

fn unreadable(_: Error) -> Refusal {
    Refusal::new(Reason::Unreadable, "the request for a certificate cannot be read")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn listed(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::File { doing: "read", path: dir.to_owned(), error };
    let mut paths = Vec::new();
    for found in std::fs::read_dir(dir).map_err(failed)? {
        let path = found.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).expect("it has string keys only");
    files::write(path, &text)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match files::read(path) {
        Ok(text) => text,
        Err(Error::File { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::NotUnderstood { path: path.to_owned(), error: error.to_string() })
}
