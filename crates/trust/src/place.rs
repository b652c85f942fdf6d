//! The directory where a process keeps who it is: `identity.pem` with key and certificate,
//! `authority.pem`, and `authority.address`, where its certificate is renewed; and `revoked`, whom
//! it refuses.
//!
//! Key and certificate are one file, so that they are replaced together. A key is written down
//! (`next.key.pem`) before it is used, so that a join whose answer was lost is repeated with it.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files;
use crate::key::Key;
use crate::tls::Credentials;

const IDENTITY: &str = "identity.pem";
const NEXT_KEY: &str = "next.key.pem";
const AUTHORITY: &str = "authority.pem";
const ADDRESS: &str = "authority.address";
const REVOKED: &str = "revoked";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place(PathBuf);

/// Tells one state of a place from another.
pub type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl Place {
    pub fn new(dir: impl Into<PathBuf>) -> Place {
        Place(dir.into())
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Somebody has joined here.
    pub fn exists(&self) -> bool {
        self.0.join(IDENTITY).exists()
    }

    pub fn stamp(&self) -> Stamp {
        [IDENTITY, AUTHORITY, REVOKED].map(|name| {
            let found = std::fs::metadata(self.0.join(name)).ok()?;
            Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        })
    }

    /// # Errors
    /// Something is missing, others may read the key, or the files do not go together.
    pub fn load(&self) -> Result<Credentials, Error> {
        let path = self.0.join(IDENTITY);
        let identity = files::read(&path)?;
        let found = std::fs::metadata(&path);
        if found.is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
            let error = std::io::Error::other("others may read it; set its mode to 0600");
            return Err(Error::File { doing: "use", path, error });
        }
        Credentials::from_pem(&identity, &files::read(&self.0.join(AUTHORITY))?)
    }

    /// The names, one on each line of `revoked`, whose certificates are refused although their
    /// time is not over.
    pub fn revoked(&self) -> BTreeSet<String> {
        let text = files::read(&self.0.join(REVOKED)).unwrap_or_default();
        let names = text.lines().map(|line| line.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Key and certificate, and the authority's certificate, as they lie there; for a program that
    /// reads them itself.
    ///
    /// # Errors
    /// As for `load`.
    pub fn texts(&self) -> Result<(String, String), Error> {
        self.load()?;
        Ok((files::read(&self.0.join(IDENTITY))?, files::read(&self.0.join(AUTHORITY))?))
    }

    /// The key that the next certificate is asked for with; made if there is none, and the same
    /// again until that certificate has come.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn next_key(&self) -> Result<Key, Error> {
        files::make_dir(&self.0)?;
        let path = self.0.join(NEXT_KEY);
        if path.exists() {
            return Key::from_pem(&files::read(&path)?);
        }
        let key = Key::generate()?;
        files::write(&path, &key.to_pem())?;
        Ok(key)
    }

    /// Puts a certificate for `key` into force.
    ///
    /// # Errors
    /// It cannot be written, or does not go together.
    pub fn install(&self, key: &Key, certificate: &[u8], authority: &[u8]) -> Result<(), Error> {
        let identity = format!("{}{}", key.to_pem(), to_pem(certificate));
        let authority = to_pem(authority);
        Credentials::from_pem(&identity, &authority)?;
        files::make_dir(&self.0)?;
        files::write(&self.0.join(AUTHORITY), &authority)?;
        files::write(&self.0.join(IDENTITY), &identity)?;
        let _ = std::fs::remove_file(self.0.join(NEXT_KEY));
        Ok(())
    }

    /// Where the authority's service answers.
    pub fn authority_address(&self) -> Option<String> {
        let text = files::read(&self.0.join(ADDRESS)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// # Errors
    /// It cannot be written.
    pub fn set_authority_address(&self, address: &str) -> Result<(), Error> {
        files::write(&self.0.join(ADDRESS), &format!("{address}\n"))
    }
}

pub(crate) fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}
