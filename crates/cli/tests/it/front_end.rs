//! Client sessions for the tests of the Front End: statements are sent and answered one by one,
//! and what was said besides (notices, notifications, parameters) can be looked at.
//!
//! All of them live on one thread of their own, so that a test can wait for a process while its
//! clients go on. Every wait has a deadline.

use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, Statement};

use crate::stage::{Demo, process};

pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);
const JUDGES_PASSWORD: &str = "judgesOnly";
pub const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

pub type Rows = Vec<Vec<Option<String>>>;

/// An error as the client got it; without an SQLSTATE if the connection just ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Failed {
        match error.as_db_error() {
            Some(told) => Failed {
                sqlstate: told.code().code().to_owned(),
                message: told.message().to_owned(),
                detail: told.detail().unwrap_or_default().to_owned(),
                hint: told.hint().unwrap_or_default().to_owned(),
            },
            None => Failed {
                sqlstate: String::new(),
                message: error.to_string(),
                detail: String::new(),
                hint: String::new(),
            },
        }
    }
}

/// What came outside of answers.
#[derive(Clone, Default, Debug)]
pub struct Aside {
    pub notices: Vec<String>,
    pub notifications: Vec<String>,
    pub in_hot_standby: Option<String>,
    /// How the connection ended.
    pub end: Option<Failed>,
}

pub struct Session {
    client: Arc<Client>,
    aside: Arc<Mutex<Aside>>,
}

/// A statement that has not been answered, as far as the test knows.
pub struct Sent(JoinHandle<Result<Rows, Failed>>);

impl Sent {
    pub fn is_waiting(&self) -> bool {
        !self.0.is_finished()
    }

    #[track_caller]
    pub fn answer(self) -> Result<Rows, Failed> {
        runtime().block_on(async { timeout(PATIENCE, self.0).await }).expect("no answer").unwrap()
    }
}

/// The thread on which clients live.
pub fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

impl Session {
    pub fn open(uri: &str) -> Result<Session, Failed> {
        Session::with(&uri.parse().unwrap())
    }

    pub fn with(config: &Config) -> Result<Session, Failed> {
        let config = config.clone();
        let opened = runtime().spawn(async move {
            let (client, mut connection) = config.connect(NoTls).await?;
            let aside = Arc::new(Mutex::new(Aside::default()));
            let noted = Arc::clone(&aside);
            tokio::spawn(std::future::poll_fn(move |cx| {
                loop {
                    let polled = connection.poll_message(cx);
                    let mut noted = noted.lock().unwrap();
                    noted.in_hot_standby =
                        connection.parameter("in_hot_standby").map(str::to_owned);
                    match polled {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Ready(Some(Err(error))) => {
                            noted.end = Some(error.into());
                            return Poll::Ready(());
                        }
                        Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                            noted.notices.push(notice.message().to_owned());
                        }
                        Poll::Ready(Some(Ok(AsyncMessage::Notification(heard)))) => {
                            noted.notifications.push(heard.payload().to_owned());
                        }
                        Poll::Ready(Some(Ok(_other))) => {}
                    }
                }
            }));
            Ok(Session { client: Arc::new(client), aside })
        });
        runtime().block_on(async { timeout(PATIENCE, opened).await }).expect("no log-in").unwrap()
    }

    pub fn aside(&self) -> Aside {
        self.aside.lock().unwrap().clone()
    }

    /// What the client is told when its connection ends by itself.
    #[track_caller]
    pub fn ended(&self) -> Failed {
        until("the client session ends", || self.aside().end.is_some());
        self.aside().end.unwrap()
    }

    /// By the simple protocol.
    pub fn send(&self, statements: &str) -> Sent {
        let (client, text) = (Arc::clone(&self.client), statements.to_owned());
        Sent(runtime().spawn(async move {
            let messages = client.simple_query(&text).await?;
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                }
                _other => None,
            });
            Ok(rows.collect())
        }))
    }

    /// By the extended protocol, with parameters that are texts; the rows are texts, too.
    pub fn send_extended(&self, statement: &str, parameters: &[&str]) -> Sent {
        let (client, text) = (Arc::clone(&self.client), statement.to_owned());
        let parameters: Vec<String> = parameters.iter().map(|one| (*one).to_owned()).collect();
        Sent(runtime().spawn(async move {
            let typed: Vec<_> =
                parameters.iter().map(|one| (one as &(dyn ToSql + Sync), Type::TEXT)).collect();
            let rows = client.query_typed(&text, &typed).await?;
            let texts = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.get(at)).collect();
            Ok(rows.iter().map(texts).collect())
        }))
    }

    /// A statement without parameters whose rows do not matter.
    pub fn send_prepared(&self, prepared: &Statement) -> Sent {
        let (client, prepared) = (Arc::clone(&self.client), prepared.clone());
        Sent(runtime().spawn(async move {
            client.execute(&prepared, &[]).await?;
            Ok(Rows::new())
        }))
    }

    #[track_caller]
    pub fn ask(&self, statements: &str) -> Result<Rows, Failed> {
        self.send(statements).answer()
    }

    #[track_caller]
    pub fn ask_extended(&self, statement: &str, parameters: &[&str]) -> Result<Rows, Failed> {
        self.send_extended(statement, parameters).answer()
    }

    /// The one value that the statement gives.
    #[track_caller]
    pub fn value(&self, statement: &str) -> String {
        let rows = self.ask(statement).unwrap_or_else(|failed| panic!("{statement}: {failed:?}"));
        rows[0][0].clone().unwrap_or_default()
    }

    #[track_caller]
    pub fn fails(&self, statement: &str, sqlstate: &str) -> Failed {
        fails(statement, self.ask(statement), sqlstate)
    }

    pub fn prepare(&self, statement: &str) -> Statement {
        let (client, text) = (Arc::clone(&self.client), statement.to_owned());
        runtime()
            .block_on(async { timeout(PATIENCE, client.prepare(&text)).await })
            .unwrap()
            .unwrap()
    }

    /// The one text that a prepared statement without parameters gives.
    pub fn execute(&self, prepared: &Statement) -> Result<String, Failed> {
        let found = self.client.query_one(prepared, &[]);
        let row = runtime().block_on(async { timeout(PATIENCE, found).await }).expect("no answer");
        Ok(row?.get(0))
    }

    /// Asks for the end of what is under way; ends when that has been done, or decided against.
    pub fn cancel(&self) {
        let token = self.client.cancel_token();
        let cancelled = token.cancel_query(NoTls);
        runtime().block_on(async { timeout(PATIENCE, cancelled).await }).unwrap().unwrap();
    }

    pub fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }
}

#[track_caller]
pub fn fails(statement: &str, answer: Result<Rows, Failed>, sqlstate: &str) -> Failed {
    let failed = answer.expect_err(statement);
    assert_eq!(failed.sqlstate, sqlstate, "{statement}: {failed:?}");
    failed
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut good: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(PAUSE);
    }
}

impl Demo {
    /// How applications reach the demo, as `user`.
    pub fn front_end_uri(&self, user: &str, password: &str) -> String {
        let status = self.status();
        let port = &process(&status, "fe1")["port"];
        format!("postgresql://{user}:{password}@127.0.0.1:{port}/demo")
    }

    /// What the Front End says of itself.
    pub fn front_end_status(&self) -> Value {
        self.pool()["front_ends"][0]["status"].clone()
    }

    /// Runs statements as PostgreSQL's superuser on one of the servers, past the Front End.
    #[track_caller]
    pub fn superuser(&self, server: &str, statements: &str) -> String {
        let status = self.status();
        let server = process(&status, server);
        let output = Command::new("runuser")
            .args(["-u", "postgres", "--"])
            .arg(format!("{PROGRAMS}/psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "demo", "-h"])
            .arg(server["socket_directory"].as_str().unwrap())
            .args(["-p", &server["postgres_port"].to_string(), "-c", statements])
            .current_dir("/")
            .output()
            .unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {talk}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes a superuser who may connect from anywhere.
    #[track_caller]
    pub fn make_judge(&self, server: &str) {
        let role = format!("CREATE ROLE judge SUPERUSER LOGIN PASSWORD '{JUDGES_PASSWORD}'");
        self.superuser(server, &role);
    }

    /// The judge's connection to a server itself: much quicker than a new process.
    pub fn judge(&self, server: &str) -> Session {
        let port = process(&self.status(), server)["postgres_port"].to_string();
        let uri = format!("postgresql://judge:{JUDGES_PASSWORD}@127.0.0.1:{port}/demo");
        Session::open(&uri).unwrap()
    }

    /// Changes settings of the Front End (`name = value` each) and starts it again.
    #[track_caller]
    pub fn set_front_end(&self, settings: &[(&str, &str)]) {
        let file = self.place.path().join("demo/fe1/config.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (name, value) in settings {
            let line = lines.iter_mut().find(|line| line.starts_with(&format!("{name} = ")));
            *line.unwrap() = format!("{name} = {value}");
        }
        std::fs::write(&file, lines.join("\n")).unwrap();
        self.demo("restart", &["fe1"]).expect(0);
        let normal = |pool: &Value| pool["front_ends"][0]["status"]["mode"] == "normal";
        self.wait("the Front End serves again", normal);
    }
}

/// A process that stands still until this is dropped.
pub struct Stopped(Pid);

impl Stopped {
    pub fn new(pid: &str) -> Stopped {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}
