//! What the configuration wants and what is not so yet, and what it waits for: told with the
//! alarms, because somebody may have to do something about it.

use protocol::admin::{Alarm, words};
use session::{View, Wanted};

use crate::config::Postgres;
use crate::postgres::Condition;
use crate::seat::Seat;

pub(super) fn notices(seat: &Seat, view: &View, condition: Option<&Condition>) -> Vec<Alarm> {
    let found = [
        ("change_waits", unmet(seat, view)),
        ("settings_wait", condition.and_then(settings)),
        ("agent_restart_waits", fixed(seat)),
    ];
    let alarm = |(code, sentence): (&str, Option<String>)| {
        Some(Alarm { code: code.to_owned(), sentence: sentence?, since_ms: seat.changed_ms })
    };
    found.into_iter().filter_map(alarm).collect()
}

/// The session is to become something else, and whoever serves has not managed it yet.
fn unmet(seat: &Seat, view: &View) -> Option<String> {
    let unmet = view.unmet.filter(|_| view.serving)?;
    let wanted = match unmet.wanted {
        Wanted::Alone => "this server is to serve the pool alone".to_owned(),
        Wanted::Pair { witness: None } => "a mirror and no witness are wanted".to_owned(),
        Wanted::Pair { witness: Some(id) } => {
            let witness = seat.part.name_of(session::Member::Witness(id));
            format!("a mirror and the witness {witness} are wanted")
        }
    };
    Some(match unmet.why.map(words::why) {
        None => format!("{wanted}: the change is under way"),
        Some(why) => format!("{wanted}, and it is tried again and again: {}", why.sentence),
    })
}

/// Settings that the running PostgreSQL takes over at its next start only.
fn settings(condition: &Condition) -> Option<String> {
    let (pid, names) = condition.waiting.as_ref()?;
    (condition.pid == Some(*pid)).then(|| {
        format!(
            "changed settings wait for the next start of PostgreSQL here: {}; a manual failover \
             restarts the server that hands over",
            names.join(", ")
        )
    })
}

/// What does not change as long as the agent runs.
fn fixed(seat: &Seat) -> Option<String> {
    let mut names = Vec::new();
    if let (Some(opened), Some(wanted)) = (&seat.opened.postgres, &seat.part.postgres) {
        names.extend(changed(opened, wanted));
    }
    if seat.session.timing() != seat.part.timing {
        names.push("times");
    }
    if names.is_empty() {
        return None;
    }
    let names = names.join(", ");
    Some(format!("changed in the configuration, and in force once this agent restarts: {names}"))
}

fn changed(opened: &Postgres, wanted: &Postgres) -> Vec<&'static str> {
    let pairs = [
        ("data_dir", opened.data_dir == wanted.data_dir),
        ("files_dir", opened.files_dir == wanted.files_dir),
        ("socket_dir", opened.socket_dir == wanted.socket_dir),
        ("secret_file", opened.secret_file == wanted.secret_file),
        ("postgres_listen", opened.listen == wanted.listen),
        ("postgres_port", opened.port == wanted.port),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}
