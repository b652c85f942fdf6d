//! `backstay witness`: the third vote of any number of sessions, without any data.

use std::future::Future;

use protocol::admin::MemberKind;
use tokio::sync::mpsc;

use crate::config::{Change, Witness};
use crate::error::Error;
use crate::house::House;
use crate::rooms::Rooms;
use crate::rounds::End;
use crate::topology::Keeper;

/// Runs until `shutdown`, or until an administrator asks for the end.
///
/// # Errors
/// It cannot start, or its state directory takes no writes any more.
pub async fn run(config: Witness, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let (_unchanged, changes) = mpsc::channel(1);
    run_with(config, changes, shutdown).await
}

/// As `run`; its parts become those of each of `changes`.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    config: Witness,
    changes: mpsc::Receiver<Change>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    // A witness has no PostgreSQL: nobody tells facts.
    let (mut rooms, told) = Rooms::new(None);
    let mut config = config;
    let (keeper, desk) = Keeper::of_witness(&mut config)?;
    let begin = keeper.change().unwrap_or_else(|| config.change());
    // Thousands of parts: once is enough.
    config.pools = Vec::new();
    let house = House::open(&config.process, MemberKind::Witness, begin, &mut rooms, desk)?;
    let (_keeping, changes) = keeper.start(house.routes(), house.security(), changes)?;
    let shutdown = async {
        shutdown.await;
        End::Agent
    };
    house.run(&mut rooms, told, changes, shutdown).await?;
    tracing::info!("the witness ends");
    Ok(())
}
