//! An authority in a directory, and both ends of a TLS connection in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use trust::{Again, Book, Credentials, Key, Place, Role, Subject};

/// A directory that goes away with the test.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstay-trust-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const DAY: Duration = Duration::from_hours(24);

pub fn book(dir: &Dir, deployment: &str) -> Book {
    let dir = dir.path().join(format!("authority-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    Book::init(&dir, deployment, SystemTime::now()).unwrap()
}

static COUNT: AtomicU32 = AtomicU32::new(0);

pub fn subject(role: Role, name: &str) -> Subject {
    Subject { role, name: name.to_owned(), hosts: Vec::new() }
}

/// Credentials whose certificate was made at `now`.
pub fn credentials(book: &Book, role: Role, name: &str, now: SystemTime) -> Credentials {
    let key = Key::generate().unwrap();
    let request = key.request(name).unwrap();
    let der = book.issue(subject(role, name), &request, Again::Replace, now).unwrap();
    let dir = Dir::new();
    let place = Place::new(dir.path());
    place.install(&key, &der, book.authority().der()).unwrap();
    place.load().unwrap()
}

/// Both ends, after as much of a handshake as they agree on.
#[derive(Debug)]
pub struct Ends {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub client_error: Option<rustls::Error>,
    pub server_error: Option<rustls::Error>,
}

impl Ends {
    pub fn error(&self) -> String {
        let errors = [&self.client_error, &self.server_error];
        errors.into_iter().flatten().map(trust::explain::of).collect::<Vec<_>>().join("; ")
    }

    pub fn agreed(&self) -> bool {
        self.client_error.is_none() && self.server_error.is_none()
    }

    /// Carries bytes both ways until there are none.
    pub fn carry(&mut self) {
        for _ in 0..20 {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while self.client.wants_write() {
                self.client.write_tls(&mut up).unwrap();
            }
            self.server.read_tls(&mut up.as_slice()).unwrap();
            if let Err(error) = self.server.process_new_packets() {
                self.server_error.get_or_insert(error);
            }
            while self.server.wants_write() {
                self.server.write_tls(&mut down).unwrap();
            }
            self.client.read_tls(&mut down.as_slice()).unwrap();
            if let Err(error) = self.client.process_new_packets() {
                self.client_error.get_or_insert(error);
            }
            if up.is_empty() && down.is_empty() {
                break;
            }
        }
    }
}

pub fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ends {
    let mut ends = Ends {
        client: ClientConnection::new(client, trust::server_name()).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
    };
    ends.carry();
    ends
}
