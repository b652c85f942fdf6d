//! Replication connections: passed to the principal as they are, or refused, as configured.
//!
//! Nothing of them is held, repeated or restored: whoever replicates reconnects by itself.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config::Replication;
use crate::house::House;
use crate::login::to_server::{ServerError, log_in};
use crate::login::{LoggedIn, farewell};
use crate::refusal::{self, Refusal};
use crate::route::Lease;
use crate::socket;

const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is looked whether the gateway ends.
const LOOK: Duration = Duration::from_millis(200);

pub async fn serve(house: Rc<House>, logged_in: LoggedIn) {
    if house.config.file.replication == Replication::Refuse {
        return refuse(logged_in, &refusal::REPLICATION).await;
    }
    let seat = house.registry.enter(&logged_in.user, false);
    let times = &house.config.file.times;
    let snapshot = house.pool.current();
    let Some(principal) = snapshot.principal.as_ref().filter(|it| !it.handing_over) else {
        return refuse(logged_in, &refusal::LOG_IN_NO_PRINCIPAL).await;
    };
    let connected = timeout(times.connect(), async {
        let mut server = TcpStream::connect((principal.host.as_str(), principal.port)).await?;
        socket::prepare(&server, times.user_timeout())?;
        let hello = log_in(
            &mut server,
            &logged_in.user,
            &logged_in.database,
            &logged_in.parameters,
            &logged_in.credentials,
        )
        .await?;
        Ok::<_, ServerError>((server, hello))
    });
    let (mut server, hello) = match connected.await {
        Ok(Ok(connected)) => connected,
        Ok(Err(ServerError::Refused(report))) => {
            let mut last = Vec::new();
            report.push(&mut last);
            let _heard = timeout(FAREWELL, farewell(logged_in.stream, &last)).await;
            return;
        }
        Ok(Err(_)) | Err(_) => return refuse(logged_in, &refusal::LOG_IN_NO_PRINCIPAL).await,
    };
    let mut first = Vec::new();
    for (name, value) in &hello.parameters {
        wire::server::push_parameter_status(&mut first, name, value);
    }
    wire::server::push_backend_key_data(&mut first, seat.number, &seat.key);
    refusal::ready(&mut first, crate::conversation::IDLE);
    first.extend_from_slice(&hello.buffered);
    let mut client = logged_in.stream;
    let begun = async {
        client.write_all(&first).await?;
        server.write_all(&logged_in.buffered).await
    };
    if begun.await.is_err() {
        return;
    }
    let term = principal.term;
    let over = async {
        loop {
            let changed = house.pool.changed();
            if house.pool.lease(term) == Lease::Over || seat.end.get() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = sleep(LOOK) => {}
            }
        }
    };
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut server) => {}
        () = over => {}
    }
}

async fn refuse(logged_in: LoggedIn, refused: &Refusal) {
    let mut last = Vec::new();
    refused.push(&mut last);
    let _heard = timeout(FAREWELL, farewell(logged_in.stream, &last)).await;
}
