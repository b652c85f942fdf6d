//! Replication connections: passed to the principal as they are, or refused, as configured.
//!
//! Nothing of them is held, repeated or restored: whoever replicates reconnects by itself. Only
//! logical ones are passed: a walsender that bears the mirror's name acknowledges commits, so the
//! servers take physical ones from each other alone, and names like the mirror's are refused here.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::time::timeout;

use crate::config::Replication;
use crate::house::House;
use crate::login::to_server::{ServerError, Whom, log_in};
use crate::login::{LoggedIn, ReplicationKind, farewell};
use crate::refusal::{self, Refusal};
use crate::registry::{CancelTarget, Seat};
use crate::route::Lease;
use crate::socket;

const FAREWELL: Duration = Duration::from_secs(2);
/// How the names of the servers' own replication connections begin.
const RESERVED: &[u8] = b"backstay_";
/// How often it is looked whether the gateway ends.
const LOOK: Duration = Duration::from_millis(200);

pub async fn serve(house: Rc<House>, logged_in: LoggedIn) {
    if let Some(refused) = refused_at_once(&house, &logged_in) {
        return refuse(logged_in, refused).await;
    }
    let seat = house.registry.enter(&logged_in.user, &logged_in.database, false);
    let times = &house.config.file.times;
    let snapshot = house.pool.current();
    let Some(principal) = snapshot.principal.as_ref().filter(|it| !it.handing_over) else {
        return refuse(logged_in, &refusal::LOG_IN_NO_PRINCIPAL).await;
    };
    let connected = timeout(times.connect(), async {
        let prepare = |socket: &_| socket::prepare(socket, times.user_timeout());
        let address = (principal.host.as_str(), principal.port);
        let mut server = house.dialler.dial(&principal.member, address, prepare).await?;
        let end_point = server.server_end_point();
        let whom = Whom { user: &logged_in.user, database: &logged_in.database, end_point };
        let hello =
            log_in(&mut server, &whom, &logged_in.parameters, &logged_in.credentials).await?;
        Ok::<_, ServerError>((server, hello))
    });
    let (mut server, hello) = match connected.await {
        Ok(Ok(connected)) => connected,
        Ok(Err(ServerError::Refused(report))) => {
            let mut last = logged_in.unsent;
            report.push(&mut last);
            let _heard = timeout(FAREWELL, farewell(logged_in.stream, &last)).await;
            return;
        }
        Ok(Err(_)) | Err(_) => return refuse(logged_in, &refusal::LOG_IN_NO_PRINCIPAL).await,
    };
    let mut first = logged_in.unsent;
    for (name, value) in &hello.parameters {
        wire::server::push_parameter_status(&mut first, name, value);
    }
    wire::server::push_backend_key_data(&mut first, seat.number, &seat.key);
    refusal::ready(&mut first, crate::conversation::IDLE);
    first.extend_from_slice(&hello.buffered);
    *seat.target.borrow_mut() = Some(CancelTarget {
        member: principal.member.clone(),
        host: principal.host.clone(),
        port: principal.port,
        process: hello.process,
        key: hello.key,
    });
    let mut client = logged_in.stream;
    let begun = async {
        client.write_all(&first).await?;
        server.write_all(&logged_in.buffered).await?;
        server.flush().await
    };
    if begun.await.is_err() {
        return;
    }
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut server) => {}
        () = over(&house, principal.term, &seat) => {}
    }
}

/// Ends when the principal of `term` serves no more, or the gateway ends.
async fn over(house: &House, term: u64, seat: &Seat) {
    while house.pool.lease(term) != Lease::Over && !seat.end.get() {
        let _changed = timeout(LOOK, house.pool.changed()).await;
    }
}

fn refused_at_once(house: &House, logged_in: &LoggedIn) -> Option<&'static Refusal> {
    if house.config.file.replication == Replication::Refuse {
        Some(&refusal::REPLICATION)
    } else if logged_in.replication == Some(ReplicationKind::Physical) {
        Some(&refusal::PHYSICAL_REPLICATION)
    } else {
        bears_a_reserved_name(&logged_in.parameters).then_some(&refusal::RESERVED_NAME)
    }
}

/// Its name is one that the servers give to their own replication, or may be: options of the
/// command line can hold one, too.
fn bears_a_reserved_name(parameters: &[(String, String)]) -> bool {
    let reserved = |name: &[u8]| {
        name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
    };
    parameters.iter().any(|(name, value)| match name.to_ascii_lowercase().as_str() {
        "application_name" => reserved(value.as_bytes()),
        "options" => wire::sql::start_up_options(value.as_bytes()).any(|(name, value)| {
            name.eq_ignore_ascii_case(b"application_name") && reserved(&value)
        }),
        _other => false,
    })
}

async fn refuse(logged_in: LoggedIn, refused: &Refusal) {
    let mut last = logged_in.unsent;
    refused.push(&mut last);
    let _heard = timeout(FAREWELL, farewell(logged_in.stream, &last)).await;
}
