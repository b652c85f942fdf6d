//! `backstay server`: the agent of the partners that this machine has.
//!
//! PostgreSQL's drivers live in the runtime that calls `run`; the sessions' loop has a thread and a
//! runtime of its own. When the agent ends, PostgreSQL goes on running and is adopted at the next
//! start, unless the configuration or the administrator wants it shut down, too.

use std::future::Future;
use std::time::Duration;

use protocol::admin::MemberKind;
use session::Member;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::Server;
use crate::error::Error;
use crate::house::House;
use crate::postgres::process;
use crate::room::{Door, Room, Wanted};
use crate::rounds::End;

const FACTS: usize = 1_024;
/// A clean shutdown may take so long at the end of the process.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Runs until `shutdown`, or until an administrator asks for the end.
///
/// # Errors
/// It cannot start, or its state directory takes no writes any more; PostgreSQL is stopped then.
pub async fn run(config: Server, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    process::become_subreaper();
    let (facts, told) = mpsc::channel(FACTS);
    let mut rooms = Vec::new();
    let mut doors = Vec::new();
    for (number, part) in config.pools.iter().enumerate() {
        let door = match part.me {
            Member::Partner(owner) => {
                let (room, door) = Room::new(number, owner, part, &config, facts.clone())?;
                rooms.push(room);
                Some(door)
            }
            Member::Witness(_) => None,
        };
        doors.push(door);
    }
    let house = House::open(&config.process, MemberKind::Server, config.pools.clone())?;
    let mut tasks: JoinSet<()> = JoinSet::new();
    for room in rooms {
        tasks.spawn(room.run());
    }
    let at_signal = if config.stop_postgres { End::Everything } else { End::Agent };
    let shutdown = async {
        shutdown.await;
        at_signal
    };
    let end = house.run(doors.clone(), &mut tasks, told, shutdown).await?;
    if end == End::Everything {
        shut_down(doors).await;
    }
    tracing::info!(?end, "the agent ends");
    Ok(())
}

/// Shuts all PostgreSQL servers down side by side.
async fn shut_down(doors: Vec<Option<Door>>) {
    let mut tasks: JoinSet<()> = doors.into_iter().flatten().map(shut_down_one).collect();
    while tasks.join_next().await.is_some() {}
}

/// In good order; if nobody can do that any more, at once.
async fn shut_down_one(door: Door) {
    let (done, ended) = oneshot::channel();
    let wanted = Wanted::ShutDown { deadline: SHUTDOWN, done };
    if door.wanted.send(wanted).await.is_err() || ended.await.is_err() {
        tracing::error!("PostgreSQL's room has ended: PostgreSQL is stopped at once");
        door.fence().await;
    }
}
