//! `backstay server`: the agent of the partners that this machine has.
//!
//! PostgreSQL's drivers live in the runtime that calls `run`; the sessions' loop has a thread and a
//! runtime of its own. When the agent ends, PostgreSQL goes on running and is adopted at the next
//! start, unless the configuration or the administrator wants it shut down, too.

use std::future::Future;

use protocol::admin::MemberKind;
use tokio::sync::mpsc;

use crate::config::{Change, Server};
use crate::error::Error;
use crate::house::House;
use crate::postgres::process;
use crate::rooms::Rooms;
use crate::rounds::End;
use crate::topology::Keeper;

/// Runs until `shutdown`, or until an administrator asks for the end.
///
/// # Errors
/// It cannot start, or its state directory takes no writes any more; PostgreSQL is stopped then.
pub async fn run(config: Server, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let (_unchanged, changes) = mpsc::channel(1);
    run_with(config, changes, shutdown).await
}

/// As `run`; its parts become those of each of `changes`.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    config: Server,
    changes: mpsc::Receiver<Change>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    process::become_subreaper();
    let mut config = config;
    let (keeper, desk) = Keeper::of_server(&mut config)?;
    let begin = keeper.change().unwrap_or_else(|| config.change());
    let (mut rooms, told) = Rooms::new(Some(config.clone()));
    let house = House::open(&config.process, MemberKind::Server, begin, &mut rooms, desk)?;
    let (_keeping, changes) = keeper.start(house.routes(), house.security(), changes)?;
    let at_signal = if config.stop_postgres { End::Everything } else { End::Agent };
    let shutdown = async {
        shutdown.await;
        at_signal
    };
    let end = house.run(&mut rooms, told, changes, shutdown).await?;
    if end == End::Everything {
        rooms.shut_down().await;
    }
    tracing::info!(?end, "the agent ends");
    Ok(())
}
