//! The door for clients: accepts, bounds, logs in, cancels.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::client;
use crate::counters::Inside;
use crate::handover::Entrance;
use crate::house::House;
use crate::login::{Accepted, LoggedIn, accept, farewell};
use crate::refusal::{self, Refusal};
use crate::registry::{CancelTarget, Seat};
use crate::relay;

/// How long a cancel may take.
const CANCEL: Duration = Duration::from_secs(5);

/// Connections that may be logging in, beyond as many as may be logged in.
const STRANGERS: u64 = 1_000;

/// Accepts clients until the task is ended, or another process accepts them.
pub async fn serve(house: Rc<House>, mut entrance: Entrance) {
    while let Some(accepted) = entrance.accept().await {
        match accepted {
            Ok(socket) => {
                let here = house.connections.enter();
                let house = Rc::clone(&house);
                spawn_local(welcome(house, socket, here));
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                // Out of file descriptors, usually: they come back when clients leave.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn welcome(house: Rc<House>, socket: TcpStream, here: Inside) {
    let times = &house.config.file.times;
    let opening = house.opening.enter();
    let most = house.config.file.limits.clients as u64 + STRANGERS;
    if house.opening.get() > most {
        return;
    }
    let mut logged_in = match timeout(times.login(), accept(socket, &house.door)).await {
        Ok(Ok(Accepted::Client(logged_in))) => logged_in,
        Ok(Ok(Accepted::Cancel { process, key, mut stream })) => {
            cancel(&house, process, &key).await;
            // A client takes the end of its TLS connection without a word for a failure.
            let _closed = timeout(CANCEL, stream.shutdown()).await;
            return;
        }
        Ok(Err(refused)) => {
            house.counters.refused_log_ins.add();
            tracing::debug!(%refused, "a client was not let in");
            return;
        }
        Err(_) => {
            house.counters.refused_log_ins.add();
            return;
        }
    };
    drop(opening);
    if let Some(refused) = no_room(&house, &logged_in) {
        house.counters.refused_log_ins.add();
        let mut last = std::mem::take(&mut logged_in.unsent);
        refused.push(&mut last);
        let _heard = timeout(CANCEL, farewell(logged_in.stream, &last)).await;
        return;
    }
    house.counters.log_ins.add();
    if logged_in.replication.is_some() {
        relay::serve(house, *logged_in).await;
    } else {
        // A task of its own: the log-in needs more room than the client session.
        spawn_local(client::serve(house, *logged_in, here));
    }
}

/// Why a client that has logged in cannot stay.
fn no_room(house: &House, logged_in: &LoggedIn) -> Option<&'static Refusal> {
    let limits = &house.config.file.limits;
    if house.ending.get() {
        return Some(&refusal::ENDING);
    }
    if house.registry.count() >= limits.clients {
        return Some(&refusal::TOO_MANY_CLIENTS);
    }
    let own = usize::try_from(logged_in.connection_limit).ok();
    let of_user = match (limits.clients_per_user, own) {
        (0, limit) => limit,
        (limit, None) => Some(limit),
        (limit, Some(own)) => Some(limit.min(own)),
    };
    if of_user.is_some_and(|limit| house.registry.count_of(&logged_in.user) >= limit) {
        return Some(&refusal::TOO_MANY_OF_USER);
    }
    let options = logged_in
        .parameters
        .iter()
        .filter(|(name, _)| name == "options" || name == "synchronous_commit");
    let lowers = options.into_iter().any(|(name, value)| lowers_commit(name, value));
    let refuse = house.config.file.lowered_commit == crate::config::LoweredCommit::Refuse;
    (lowers && refuse).then_some(&refusal::LOWERED_AT_LOG_IN)
}

fn lowers_commit(name: &str, value: &str) -> bool {
    let lowered = |value: &[u8]| {
        !matches!(
            value.to_ascii_lowercase().as_slice(),
            b"on" | b"remote_apply" | b"true" | b"yes" | b"1"
        )
    };
    if name == "synchronous_commit" {
        return lowered(value.as_bytes());
    }
    wire::sql::start_up_options(value.as_bytes())
        .any(|(name, value)| name.eq_ignore_ascii_case(b"synchronous_commit") && lowered(&value))
}

/// Passes a client's wish to cancel on: to its server, or to the process that has its session.
pub async fn cancel(house: &House, number: u32, key: &[u8]) {
    match house.registry.named(number, key) {
        Some(seat) => cancel_at(house, &seat).await,
        None => house.links.cancel(number, key),
    }
}

/// Passes the wish on to the server, unless a commit waits there.
async fn cancel_at(house: &House, seat: &Seat) {
    let target = seat.target.borrow().clone();
    let Some(target) = target else {
        seat.cancelled.notify_waiters();
        return;
    };
    if seat.committing.get() {
        tracing::debug!("a cancel came while a commit waits for the mirror; it is not passed on");
        return;
    }
    seat.cancels.set(seat.cancels.get() + 1);
    let sent = timeout(CANCEL, send_cancel(house, &target)).await;
    seat.cancels.set(seat.cancels.get() - 1);
    seat.wake();
    if let Err(error) = sent.map_err(std::io::Error::from).flatten() {
        tracing::debug!(%error, "a cancel did not reach the server");
    }
}

async fn send_cancel(house: &House, target: &CancelTarget) -> std::io::Result<()> {
    let address = (target.host.as_str(), target.port);
    let mut stream = house.dialler.dial(&target.member, address, |_| Ok(())).await?;
    let mut request = Vec::new();
    wire::startup::push_cancel(&mut request, target.process, &target.key);
    stream.write_all(&request).await?;
    stream.flush().await?;
    // The server closes when it has sent the signal.
    let mut end = [0];
    let _closed = stream.read(&mut end).await?;
    Ok(())
}
