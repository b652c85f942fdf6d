//! `backstay witness`: the third vote of any number of sessions, without any data.

use std::future::Future;

use protocol::admin::MemberKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Witness;
use crate::error::Error;
use crate::house::House;
use crate::rounds::End;

/// Runs until `shutdown`, or until an administrator asks for the end.
///
/// # Errors
/// It cannot start, or its state directory takes no writes any more.
pub async fn run(config: Witness, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let house = House::open(&config.process, MemberKind::Witness, config.pools)?;
    let doors = house.no_doors();
    // A witness has no PostgreSQL: the sender lives, and nobody uses it.
    let (_facts, told) = mpsc::channel(1);
    let shutdown = async {
        shutdown.await;
        End::Agent
    };
    house.run(doors, &mut JoinSet::new(), told, shutdown).await?;
    tracing::info!("the witness ends");
    Ok(())
}
