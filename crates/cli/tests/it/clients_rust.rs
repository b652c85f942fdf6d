//! Clients with tokio-postgres, in this process, beside those with sqlx; they do what the programs
//! of `tests/clients` do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::{Client, Error, NoTls, Statement};

use crate::clients_programs::Told;

const INSERT: &str = "INSERT INTO written VALUES ($1, $2)";
const PACE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Simple,
    Prepared,
    Transaction,
    /// Several statements under way, each a transaction of its own.
    Pipeline,
    Reads,
}

impl Way {
    const ALL: [Way; 5] = [Way::Simple, Way::Prepared, Way::Transaction, Way::Pipeline, Way::Reads];

    fn name(self) -> &'static str {
        match self {
            Way::Simple => "tokio-postgres simple",
            Way::Prepared => "tokio-postgres prepared",
            Way::Transaction => "tokio-postgres transaction",
            Way::Pipeline => "tokio-postgres pipeline",
            Way::Reads => "tokio-postgres reads",
        }
    }
}

pub struct Clients {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    pub fn start(uri: &str, told: Arc<Told>) -> Clients {
        let end = Arc::new(AtomicBool::new(false));
        let (uri, ended) = (uri.to_owned(), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let [a, b, c, d, e] =
                    Way::ALL.map(|way| Pen { way, ended: &ended, told: &told }.tell(&uri));
                tokio::join!(a, b, c, d, e, crate::clients_sqlx::tell_all(&uri, &ended, &told));
            });
        });
        Clients { end, thread: Some(thread) }
    }

    pub fn finish(mut self) {
        self.end.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy)]
struct Pen<'a> {
    way: Way,
    ended: &'a AtomicBool,
    told: &'a Told,
}

impl Pen<'_> {
    fn say(self, mut event: Value) {
        event["client"] = self.way.name().into();
        self.told.take(&event);
    }

    /// `false`: there is no connection any more.
    fn judge(self, client: &Client, numbers: &[i64], done: &Result<(), Error>) -> bool {
        match done {
            Ok(()) => self.say(json!({ "acknowledged": numbers })),
            Err(error) => match error.code() {
                Some(code) if !client.is_closed() => {
                    let (code, text) = (code.code(), error.to_string());
                    self.say(json!({ "failed": numbers, "sqlstate": code, "text": text }));
                }
                Some(_) | None => {
                    self.say(json!({ "lost": numbers, "text": error.to_string() }));
                    return false;
                }
            },
        }
        true
    }

    async fn tell(self, uri: &str) {
        if let Err(error) = self.work(uri).await {
            self.say(json!({ "lost": [], "text": error.to_string() }));
        }
    }

    async fn work(self, uri: &str) -> Result<(), Error> {
        let name = self.way.name();
        let (mut client, connection) = tokio_postgres::connect(uri, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(&format!("SET written.mark = '{name}'")).await?;
        client.batch_execute("PREPARE doubled AS SELECT $1::int * 2").await?;
        let insert = client.prepare(INSERT).await?;
        let mut next = 0;
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.ended.load(Ordering::SeqCst) {
            if !self.write(&mut client, &insert, &mut next).await {
                return Ok(());
            }
            pace.tick().await;
        }
        let mark: String = client.query_one("SHOW written.mark", &[]).await?.get(0);
        let doubled: i32 = client.query_one("EXECUTE doubled(21)", &[]).await?.get(0);
        self.say(json!({ "ended": { "mark": mark, "doubled": doubled } }));
        Ok(())
    }

    async fn write(self, client: &mut Client, insert: &Statement, next: &mut i64) -> bool {
        let name = self.way.name();
        let first = *next;
        let count = match self.way {
            Way::Simple | Way::Prepared | Way::Reads => 1,
            Way::Transaction => 2,
            Way::Pipeline => 5,
        };
        *next += count;
        let numbers: Vec<i64> = (first..*next).collect();
        let row = async |number: &i64| client.execute(insert, &[&name, number]).await.map(drop);
        let done = match self.way {
            Way::Simple => {
                let statement = format!("INSERT INTO written VALUES ('{name}', {first})");
                client.batch_execute(&statement).await
            }
            Way::Prepared => row(&first).await,
            Way::Transaction => transaction(client, insert, name, &numbers).await,
            Way::Pipeline => {
                let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|at| row(&numbers[at]));
                let (a, b, c, d, e) = tokio::join!(a, b, c, d, e);
                let mut all = numbers.iter().zip([a, b, c, d, e]);
                return all.all(|(number, done)| self.judge(client, &[*number], &done));
            }
            Way::Reads => match client.query_one("SELECT $1::bigint", &[&first]).await {
                Ok(row) => {
                    assert_eq!(row.get::<_, i64>(0), first);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        self.judge(client, &numbers, &done)
    }
}

async fn transaction(
    client: &mut Client,
    insert: &Statement,
    name: &str,
    numbers: &[i64],
) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for number in numbers {
        transaction.execute(insert, &[&name, number]).await?;
    }
    transaction.commit().await
}
