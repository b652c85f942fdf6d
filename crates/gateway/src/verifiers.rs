//! What is known of how users log in.
//!
//! The principal is asked when somebody comes and the answer at hand is not fresh. While no
//! principal serves, an old answer is as good as the last one, so that people can log in; a copy
//! on disk makes that true after a restart as well. Unknown users are remembered for a moment too,
//! and get a verifier that no password fits: neither the words nor the time of an answer tell them
//! from a user who mistyped. The copy on disk is as secret as the server's own list of passwords.

mod store;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use wire::scram::{Key, USUAL_ITERATIONS, Verifier};

use crate::clock::{self, Moment};
use crate::login::{SecretText, md5};
use crate::lookup::LookupError;

/// How long an answer about a user is fresh, also the one that there is no such user: if the two
/// differed, the time of an answer would tell them apart.
const FRESH: Duration = Duration::from_secs(10);
/// How long after a failure nobody asks again for a user who is known, and how often the wrong
/// passwords of a user may lead to a question.
const BRIEF: Duration = Duration::from_secs(1);
/// How many users who do not exist are remembered. Names come from outside, so there is a bound.
const MOST_UNKNOWN: usize = 1024;

/// What the principal says of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// As PostgreSQL stores it.
    pub secret: Option<SecretText>,
    pub can_login: bool,
    /// When the password expires, in milliseconds since 1970.
    pub valid_until_ms: Option<i64>,
    /// -1: as many as there is room for.
    pub connection_limit: i32,
}

/// What a user's password is compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    Scram(Verifier),
    Md5(SecretText),
    /// The user has none, or one of a kind that nobody knows: no password fits.
    None,
}

/// How a user logs in.
#[derive(Debug)]
pub struct User {
    pub secret: Secret,
    pub row: Row,
}

impl From<Row> for User {
    fn from(row: Row) -> User {
        let secret = match row.secret.as_ref().map(SecretText::expose) {
            Some(text) if md5::is_stored(text) => Secret::Md5(text.into()),
            Some(text) => Verifier::parse(text).map_or(Secret::None, Secret::Scram),
            None => Secret::None,
        };
        User { secret, row }
    }
}

/// How long the question may wait for a principal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all: there is an older answer.
    None,
    /// As long as statements wait: there is no other answer.
    Hold,
}

type Answer = Pin<Box<dyn Future<Output = Result<Option<Row>, LookupError>>>>;
/// Asks the principal about a user.
pub type Ask = Box<dyn Fn(String, Patience) -> Answer>;

/// An answer, with its age.
#[derive(Clone, Debug)]
pub struct Found {
    /// Absent: there is no such user.
    pub user: Option<Rc<User>>,
    /// Absent: from the copy on disk.
    asked: Option<Moment>,
}

pub struct Verifiers {
    ask: Ask,
    stand_in: Key,
    known: RefCell<HashMap<String, Found>>,
    unknown: RefCell<HashMap<String, Found>>,
    /// The iterations that most users' verifiers have.
    usual_iterations: Cell<u32>,
    /// Users about whom somebody asks at this moment.
    asking: RefCell<HashMap<String, Rc<Mutex<()>>>>,
    /// When a question failed last, if none has been answered since.
    failed: Cell<Option<Moment>>,
    changed: Rc<Notify>,
    /// Whether the copy on disk is written; taken while it is.
    writes: Rc<Mutex<bool>>,
    now: fn() -> Moment,
}

impl fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifiers")
            .field("known", &self.known.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Verifiers {
    /// Reads the copy on disk, and keeps it up to date from a task of the current `LocalSet`.
    pub fn open(state_dir: &Path, ask: Ask) -> Rc<Verifiers> {
        Verifiers::open_at(state_dir, ask, clock::now)
    }

    fn open_at(state_dir: &Path, ask: Ask, now: fn() -> Moment) -> Rc<Verifiers> {
        let (stored, as_on_disk) = store::read(state_dir);
        let known = stored
            .users
            .into_iter()
            .map(|(name, row)| (name, Found { user: Some(Rc::new(User::from(row))), asked: None }));
        let verifiers = Rc::new(Verifiers {
            ask,
            stand_in: stored.stand_in,
            known: RefCell::new(known.collect()),
            unknown: RefCell::default(),
            usual_iterations: Cell::new(USUAL_ITERATIONS),
            asking: RefCell::default(),
            failed: Cell::new(None),
            changed: Rc::new(Notify::new()),
            writes: Rc::new(Mutex::new(true)),
            now,
        });
        verifiers.count_iterations();
        if !as_on_disk {
            verifiers.changed.notify_one();
        }
        tokio::task::spawn_local(store::keep(
            state_dir.to_owned(),
            Rc::downgrade(&verifiers),
            verifiers.changed.clone(),
            verifiers.writes.clone(),
        ));
        verifiers
    }

    /// When this returns, the copy on disk is written no more: another process owns it.
    pub async fn stop_writing(&self) {
        *self.writes.lock().await = false;
    }

    /// The copy on disk is this process's again.
    pub async fn resume_writing(&self) {
        *self.writes.lock().await = true;
        self.changed.notify_one();
    }

    /// How this user logs in. Fails only if nobody can be asked and nothing is known of the user.
    ///
    /// # Errors
    /// Whatever the question ended with.
    pub async fn find(&self, name: &str) -> Result<Found, LookupError> {
        if let Some(found) = self.fresh(name) {
            return Ok(found);
        }
        // Whoever comes while somebody asks takes that answer.
        let turn = self.turn(name);
        let _end = EndOfTurn { asking: &self.asking, name, turn: &turn };
        let _mine = turn.lock().await;
        if let Some(found) = self.fresh(name) {
            return Ok(found);
        }
        let Some(old) = self.known.borrow().get(name).cloned() else {
            return self.question(name, Patience::Hold).await;
        };
        if self.failed.get().is_some_and(|at| (self.now)().since(at) < BRIEF) {
            return Ok(old);
        }
        Ok(self.question(name, Patience::None).await.unwrap_or(old))
    }

    /// After a wrong password: whether it was set anew since `seen`. At most one question per
    /// user and second.
    pub async fn again(&self, name: &str, seen: &Found) -> Option<Found> {
        let turn = self.turn(name);
        let _end = EndOfTurn { asking: &self.asking, name, turn: &turn };
        let _mine = turn.lock().await;
        let known = self.at_hand(name)?;
        if known.asked > seen.asked {
            return Some(known);
        }
        let now = (self.now)();
        let recent = [known.asked, self.failed.get()].into_iter().flatten();
        if recent.into_iter().any(|at| now.since(at) < BRIEF) {
            return None;
        }
        self.question(name, Patience::None).await.ok()
    }

    /// A server did not take what the user's log-in left: the next one asks the principal first.
    pub fn doubt(&self, name: &str) {
        if let Some(found) = self.known.borrow_mut().get_mut(name) {
            found.asked = None;
        }
    }

    /// What a user without a verifier is compared with.
    pub fn stand_in(&self, name: &str) -> Verifier {
        Verifier::stand_in(&self.stand_in, name, self.usual_iterations.get())
    }

    fn count_iterations(&self) {
        let mut counts = HashMap::new();
        for found in self.known.borrow().values() {
            if let Some(Secret::Scram(verifier)) = found.user.as_ref().map(|user| &user.secret) {
                *counts.entry(verifier.iterations).or_insert(0_usize) += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(iterations, count)| (*count, *iterations));
        self.usual_iterations.set(most.map_or(USUAL_ITERATIONS, |(iterations, _)| iterations));
    }

    fn fresh(&self, name: &str) -> Option<Found> {
        let now = (self.now)();
        let fresh = |found: &Found| found.asked.is_some_and(|at| now.since(at) < FRESH);
        self.at_hand(name).filter(fresh)
    }

    fn at_hand(&self, name: &str) -> Option<Found> {
        let known = self.known.borrow().get(name).cloned();
        known.or_else(|| self.unknown.borrow().get(name).cloned())
    }

    fn turn(&self, name: &str) -> Rc<Mutex<()>> {
        self.asking.borrow_mut().entry(name.to_owned()).or_default().clone()
    }

    async fn question(&self, name: &str, patience: Patience) -> Result<Found, LookupError> {
        let asked = (self.now)();
        match (self.ask)(name.to_owned(), patience).await {
            Ok(row) => {
                self.failed.set(None);
                Ok(self.note(name, row, asked))
            }
            Err(error) => {
                if self.failed.replace(Some((self.now)())).is_none() {
                    tracing::warn!(%error, "cannot look up how users log in");
                }
                Err(error)
            }
        }
    }

    fn note(&self, name: &str, row: Option<Row>, asked: Moment) -> Found {
        let asked = Some(asked);
        let former = self.known.borrow().get(name).and_then(|found| found.user.clone());
        let changed = former.as_ref().map(|user| &user.row) != row.as_ref();
        let user = if changed { row.map(User::from).map(Rc::new) } else { former };
        let found = Found { user, asked };
        if found.user.is_some() {
            self.unknown.borrow_mut().remove(name);
            self.known.borrow_mut().insert(name.to_owned(), found.clone());
        } else {
            self.known.borrow_mut().remove(name);
            self.note_unknown(name, found.clone());
        }
        if changed {
            self.count_iterations();
            self.changed.notify_one();
        }
        found
    }

    fn note_unknown(&self, name: &str, found: Found) {
        let now = (self.now)();
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() >= MOST_UNKNOWN {
            unknown.retain(|_, it| it.asked.is_some_and(|at| now.since(at) < FRESH));
        }
        if unknown.len() < MOST_UNKNOWN {
            unknown.insert(name.to_owned(), found);
        }
    }

    fn rows(&self) -> Vec<(String, Row)> {
        let known = self.known.borrow();
        let rows = known
            .iter()
            .filter_map(|(name, found)| Some((name.clone(), found.user.as_ref()?.row.clone())));
        rows.collect()
    }
}

impl Drop for Verifiers {
    fn drop(&mut self) {
        // Whoever keeps the copy on disk looks up, and sees that there is nothing left to keep.
        self.changed.notify_one();
    }
}

/// The last one who waited for a turn takes it away, also if he gave up.
struct EndOfTurn<'a> {
    asking: &'a RefCell<HashMap<String, Rc<Mutex<()>>>>,
    name: &'a str,
    turn: &'a Rc<Mutex<()>>,
}

impl Drop for EndOfTurn<'_> {
    fn drop(&mut self) {
        // One is in the table, one is ours.
        if Rc::strong_count(self.turn) <= 2 {
            self.asking.borrow_mut().remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Scratch;
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::task::LocalSet;
    use tokio::time::{Instant, timeout};

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(1) };
    }

    fn now() -> Moment {
        Moment::from_nanos(NOW.get() * 1_000_000)
    }

    fn pass(ms: u64) {
        NOW.set(NOW.get() + ms);
    }

    pub fn row(password: &[u8]) -> Row {
        let verifier = Verifier::of_password(password, b"0123456789abcdef", 16);
        Row {
            secret: Some(SecretText::from(verifier.to_text().as_str())),
            can_login: true,
            valid_until_ms: None,
            connection_limit: -1,
        }
    }

    /// A principal of paper, and how often it was asked.
    #[derive(Clone, Default)]
    struct Principal {
        users: Rc<RefCell<HashMap<String, Row>>>,
        serves: Rc<Cell<bool>>,
        asked: Rc<Cell<usize>>,
    }

    impl Principal {
        fn with(users: &[(&str, Row)]) -> Principal {
            let principal = Principal::default();
            principal.serves.set(true);
            let users = users.iter().map(|(name, row)| ((*name).to_owned(), row.clone()));
            principal.users.borrow_mut().extend(users);
            principal
        }

        fn open(&self, dir: &Path) -> Rc<Verifiers> {
            let own = self.clone();
            let ask: Ask = Box::new(move |name, _| {
                let own = own.clone();
                Box::pin(async move {
                    own.asked.set(own.asked.get() + 1);
                    tokio::task::yield_now().await;
                    if !own.serves.get() {
                        return Err(LookupError::NoPrincipal);
                    }
                    Ok(own.users.borrow().get(&name).cloned())
                })
            });
            Verifiers::open_at(dir, ask, now)
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        let test = tasks.run_until(test);
        runtime.block_on(async { timeout(Duration::from_secs(10), test).await }).unwrap();
    }

    fn secret(found: &Found) -> Option<SecretText> {
        found.user.as_ref().and_then(|user| user.row.secret.clone())
    }

    #[test]
    fn whoever_comes_while_somebody_asks_takes_that_answer() {
        let dir = Scratch::new("verifiers");
        run(async {
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            let (one, two) = tokio::join!(verifiers.find("anna"), verifiers.find("anna"));
            assert!(one.unwrap().user.is_some() && two.unwrap().user.is_some());
            assert_eq!(principal.asked.get(), 1);
            assert!(verifiers.find("nobody").await.unwrap().user.is_none());
            assert!(verifiers.find("nobody").await.unwrap().user.is_none());
            assert_eq!(principal.asked.get(), 2);
            assert!(verifiers.asking.borrow().is_empty());
            pass(10_000);
            verifiers.find("anna").await.unwrap();
            assert_eq!(principal.asked.get(), 3);
            verifiers.doubt("anna");
            verifiers.find("anna").await.unwrap();
            assert_eq!(principal.asked.get(), 4);
        });
    }

    #[test]
    fn a_known_user_is_found_while_no_principal_serves() {
        let dir = Scratch::new("verifiers");
        run(async {
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            let before = verifiers.find("anna").await.unwrap();
            principal.serves.set(false);
            pass(60_000);
            let after = verifiers.find("anna").await.unwrap();
            assert_eq!(secret(&before), secret(&after));
            let asked = principal.asked.get();
            verifiers.find("anna").await.unwrap();
            assert_eq!(principal.asked.get(), asked, "asked again right after a failure");
            assert!(matches!(verifiers.find("bert").await, Err(LookupError::NoPrincipal)));
        });
    }

    #[test]
    fn a_wrong_password_leads_to_one_question_per_second() {
        let dir = Scratch::new("verifiers");
        run(async {
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            let seen = verifiers.find("anna").await.unwrap();
            assert!(verifiers.again("anna", &seen).await.is_none(), "asked a moment ago");
            principal.users.borrow_mut().insert("anna".to_owned(), row(b"two"));
            pass(1_000);
            let newer = verifiers.again("anna", &seen).await.unwrap();
            assert_ne!(secret(&newer), secret(&seen));
            assert_eq!(principal.asked.get(), 2);
            assert!(verifiers.again("anna", &seen).await.is_some(), "another one has asked");
            assert!(verifiers.again("anna", &newer).await.is_none());
            assert_eq!(principal.asked.get(), 2);
            verifiers.find("nobody").await.unwrap();
            pass(1_000);
            let nobody = Found { user: None, asked: Some(Moment::default()) };
            assert!(verifiers.again("nobody", &nobody).await.is_some_and(|it| it.user.is_none()));
        });
    }

    #[test]
    fn the_unknown_are_remembered_within_a_bound() {
        let dir = Scratch::new("verifiers");
        run(async {
            let verifiers = Principal::with(&[]).open(&dir.0);
            for name in 0..2 * MOST_UNKNOWN {
                verifiers.find(&name.to_string()).await.unwrap();
            }
            assert_eq!(verifiers.unknown.borrow().len(), MOST_UNKNOWN);
            pass(10_000);
            verifiers.find("one more").await.unwrap();
            assert_eq!(verifiers.unknown.borrow().len(), 1);
        });
    }

    #[test]
    fn a_restart_knows_the_users_and_their_stand_ins() {
        let dir = Scratch::new("verifiers");
        run(async {
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            let before = verifiers.find("anna").await.unwrap();
            let file = dir.0.join(store::FILE);
            let deadline = Instant::now() + Duration::from_secs(5);
            while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("anna")) {
                assert!(Instant::now() < deadline, "the copy is not written");
                tokio::task::yield_now().await;
            }
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let stand_in = verifiers.stand_in("nobody");
            assert_eq!(stand_in.iterations, 16, "as the users have");
            drop(verifiers);
            principal.serves.set(false);
            let verifiers = principal.open(&dir.0);
            assert_eq!(secret(&verifiers.find("anna").await.unwrap()), secret(&before));
            assert_eq!(verifiers.stand_in("nobody"), stand_in);
        });
    }

    #[test]
    fn the_copy_on_disk_is_left_alone_while_it_is_another_ones() {
        let dir = Scratch::new("verifiers");
        run(async {
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            verifiers.stop_writing().await;
            let file = dir.0.join(store::FILE);
            std::fs::write(&file, "another's").unwrap();
            verifiers.find("anna").await.unwrap();
            // Longer than the task that writes needs to look up.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "another's");
            verifiers.resume_writing().await;
            let deadline = Instant::now() + Duration::from_secs(5);
            while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("anna")) {
                assert!(Instant::now() < deadline, "the copy is not written");
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_damaged_copy_is_an_empty_one() {
        let dir = Scratch::new("verifiers");
        run(async {
            std::fs::write(dir.0.join(store::FILE), "{ half a").unwrap();
            let principal = Principal::with(&[("anna", row(b"one"))]);
            let verifiers = principal.open(&dir.0);
            assert!(verifiers.known.borrow().is_empty());
            assert!(verifiers.find("anna").await.unwrap().user.is_some());
        });
    }

    #[test]
    fn nothing_secret_is_printed() {
        let user = User::from(row(b"one"));
        let text = format!("{user:?}");
        assert!(!text.contains("SCRAM-SHA-256$"), "{text}");
    }
}
