//! A client that writes numbered rows through the multi-host address, and remembers which ones
//! were acknowledged. A number is sent once: without an answer it is in doubt, and does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(1);
const CREATE: &str = "CREATE TABLE IF NOT EXISTS edges (number bigint PRIMARY KEY)";

/// Writes until it is finished.
pub struct Writer {
    end: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<i64>>>,
}

impl Writer {
    pub fn start(uri: &str, from: i64) -> Writer {
        let (end, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (uri, ended, counted) = (uri.to_owned(), Arc::clone(&end), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            block_on(async { write(&uri, from, &ended, &counted).await })
        });
        Writer { end, count, thread: Some(thread) }
    }

    /// Waits until some more rows are acknowledged.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.count.load(Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count.load(Ordering::SeqCst) < before + 20 {
            assert!(Instant::now() < deadline, "no row is acknowledged any more");
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The numbers that were acknowledged.
    pub fn finish(mut self) -> Vec<i64> {
        self.end.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

async fn write(uri: &str, from: i64, end: &AtomicBool, count: &AtomicUsize) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    let mut client = None;
    for number in from.. {
        if end.load(Ordering::SeqCst) {
            break;
        }
        let open = match client.take() {
            Some(open) => open,
            None => match wait_for_log_in(uri, end).await {
                Some(open) => open,
                None => break,
            },
        };
        let statement = format!("INSERT INTO edges VALUES ({number})");
        if let Ok(Ok(_)) = timeout(PATIENCE, open.execute(&statement, &[])).await {
            acknowledged.push(number);
            count.fetch_add(1, Ordering::SeqCst);
            client = Some(open);
        }
    }
    acknowledged
}

/// `None`: nobody wants more rows, or nobody takes any.
async fn wait_for_log_in(uri: &str, end: &AtomicBool) -> Option<Client> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline && !end.load(Ordering::SeqCst) {
        if let Some(client) = log_in(uri).await {
            return Some(client);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

async fn log_in(uri: &str) -> Option<Client> {
    let (client, connection) =
        timeout(PATIENCE, tokio_postgres::connect(uri, NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection);
    timeout(PATIENCE, client.batch_execute(CREATE)).await.ok()?.ok()?;
    Some(client)
}

/// Runs statements on whichever server takes writes; an error in the server's words.
pub fn run(uri: &str, statements: &str) -> Result<(), String> {
    block_on(async {
        let open = wait_for_log_in(uri, &AtomicBool::new(false)).await;
        let client = open.ok_or("nobody takes writes")?;
        let ran = timeout(PATIENCE * 10, client.batch_execute(statements)).await;
        let told = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(server) => server.message().to_owned(),
            None => error.to_string(),
        };
        ran.map_err(|_| "no answer".to_owned())?.map_err(told)
    })
}

/// Every acknowledged row is there.
#[track_caller]
pub fn all_there(uri: &str, acknowledged: &[i64]) {
    let found: Vec<i64> = block_on(async {
        let client = wait_for_log_in(uri, &AtomicBool::new(false)).await.unwrap();
        let rows = client.query("SELECT number FROM edges ORDER BY number", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    });
    let lost: Vec<&i64> =
        acknowledged.iter().filter(|number| found.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(!acknowledged.is_empty());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
