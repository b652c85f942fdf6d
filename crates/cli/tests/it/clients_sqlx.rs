//! Clients with sqlx, in this process, one of them a pool of connections; they do what the programs
//! of `tests/clients` do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Error, PgConnection, PgPool, Row as _};

use crate::clients_programs::Told;

const INSERT: &str = "INSERT INTO written VALUES ($1, $2)";
const PACE: Duration = Duration::from_millis(10);
/// Connections of the pool, all of them at work.
const POOL: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Simple,
    Prepared,
    Transaction,
    Reads,
    Pool,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Simple => "sqlx simple",
            Way::Prepared => "sqlx prepared",
            Way::Transaction => "sqlx transaction",
            Way::Reads => "sqlx reads",
            Way::Pool => "sqlx pool",
        }
    }
}

/// Writes until `ended`.
pub async fn tell_all(uri: &str, ended: &AtomicBool, told: &Told) {
    let tell = |way| Pen { way, ended, told }.tell(uri);
    tokio::join!(
        tell(Way::Simple),
        tell(Way::Prepared),
        tell(Way::Transaction),
        tell(Way::Reads),
        tell(Way::Pool)
    );
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
    fn judge(self, numbers: &[i64], done: Result<(), Error>) -> bool {
        match done {
            Ok(()) => self.say(json!({ "acknowledged": numbers })),
            Err(Error::Database(error)) => {
                let (code, text) = (error.code(), error.message());
                self.say(json!({ "failed": numbers, "sqlstate": code, "text": text }));
            }
            Err(error) => {
                self.say(json!({ "lost": numbers, "text": error.to_string() }));
                return false;
            }
        }
        true
    }

    async fn tell(self, uri: &str) {
        let worked = match self.way {
            Way::Pool => self.share(uri).await,
            Way::Simple | Way::Prepared | Way::Transaction | Way::Reads => self.work(uri).await,
        };
        if let Err(error) = worked {
            self.say(json!({ "lost": [], "text": error.to_string() }));
        }
    }

    async fn work(self, uri: &str) -> Result<(), Error> {
        let mut client = PgConnection::connect(uri).await?;
        prepare(&mut client, self.way.name()).await?;
        let mut next = 0;
        let mut pace = pace();
        while !self.ended.load(Ordering::SeqCst) {
            let numbers = [next, next + 1];
            let count = if self.way == Way::Transaction { 2 } else { 1 };
            let numbers = &numbers[..count];
            next += count as i64;
            let done = self.write(&mut client, numbers).await;
            if !self.judge(numbers, done) {
                return Ok(());
            }
            pace.tick().await;
        }
        self.end(&mut client).await?;
        client.close().await
    }

    async fn write(self, client: &mut PgConnection, numbers: &[i64]) -> Result<(), Error> {
        let (name, first) = (self.way.name(), numbers[0]);
        match self.way {
            Way::Simple => {
                let statement = format!("INSERT INTO written VALUES ('{name}', {first})");
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(client).await?;
            }
            Way::Prepared | Way::Pool => {
                sqlx::query(INSERT).bind(name).bind(first).execute(client).await?;
            }
            Way::Transaction => {
                let mut transaction = client.begin().await?;
                for number in numbers {
                    let row = sqlx::query(INSERT).bind(name).bind(number);
                    row.execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
            Way::Reads => {
                let row = sqlx::query("SELECT $1::bigint").bind(first).fetch_one(client).await?;
                assert_eq!(row.get::<i64, _>(0), first);
            }
        }
        Ok(())
    }

    /// Several tasks with the connections of one pool, which it must not have to make anew.
    async fn share(self, uri: &str) -> Result<(), Error> {
        let (made, name) = (Arc::new(AtomicUsize::new(0)), self.way.name());
        let counted = Arc::clone(&made);
        let pool = PgPoolOptions::new()
            .max_connections(u32::try_from(POOL).unwrap())
            .after_connect(move |client, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                Box::pin(prepare(client, name))
            })
            .connect(uri)
            .await?;
        let tasks = [0, 1, 2].map(|at| self.take_turns(&pool, at));
        let [a, b, c] = tasks;
        let (a, b, c) = tokio::join!(a, b, c);
        if !(a && b && c) {
            return Ok(());
        }
        let made = made.load(Ordering::SeqCst);
        if made > POOL {
            let text = format!("{made} connections were made for a pool of {POOL}");
            self.say(json!({ "lost": [], "text": text }));
        }
        let mut client = pool.acquire().await?;
        self.end(&mut client).await
    }

    /// `false`: a connection was lost.
    async fn take_turns(self, pool: &PgPool, at: i64) -> bool {
        let mut pace = pace();
        for turn in 0.. {
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            let number = turn * POOL as i64 + at;
            let done = match pool.acquire().await {
                Ok(mut client) => self.write(&mut client, &[number]).await,
                Err(error) => Err(error),
            };
            if !self.judge(&[number], done) {
                return false;
            }
            pace.tick().await;
        }
        true
    }

    async fn end(self, client: &mut PgConnection) -> Result<(), Error> {
        let mark: String = sqlx::query("SHOW written.mark").fetch_one(&mut *client).await?.get(0);
        let doubled = sqlx::query("EXECUTE doubled(21)").fetch_one(client).await?;
        let doubled: i32 = doubled.get(0);
        self.say(json!({ "ended": { "mark": mark, "doubled": doubled } }));
        Ok(())
    }
}

/// What a connection must know for ever after.
async fn prepare(client: &mut PgConnection, name: &'static str) -> Result<(), Error> {
    let mark = format!("SET written.mark = '{name}'");
    sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *client).await?;
    sqlx::raw_sql("PREPARE doubled AS SELECT $1::int * 2").execute(client).await?;
    Ok(())
}

fn pace() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}
