//! A pool's picture in words, for `pool status` and for the demo's live view.

use protocol::admin::{
    CopyProgress, FrontEndMode, FrontEndStatus, MirroringState, PostgresStatus, Protection, Role,
};

use crate::output::{Colour, Table};
use crate::picture::{MemberPicture, Picture, State, role_words};

/// A number of bytes as a person reads it.
pub fn bytes(count: u64) -> String {
    const STEP: u64 = 1024;
    match count {
        0..STEP => format!("{count} B"),
        _ if count < STEP * STEP => format!("{} kB", count / STEP),
        _ if count < STEP * STEP * STEP => format!("{} MB", count / STEP / STEP),
        _ => format!("{:.1} GB", count as f64 / (STEP * STEP * STEP) as f64),
    }
}

/// A span as a person reads it.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

pub fn state_word(state: State, colour: Colour) -> String {
    match state {
        State::Mirrored => colour.good("MIRRORED"),
        State::Exposed => colour.warning("EXPOSED"),
        State::NotServed => colour.bad("NOT SERVED"),
    }
}

fn protection_word(protection: Protection) -> &'static str {
    match protection {
        Protection::Mirrored => "mirrored",
        Protection::Exposed => "exposed",
    }
}

fn mirroring_word(mirroring: MirroringState) -> &'static str {
    match mirroring {
        MirroringState::Synchronizing => "synchronizing",
        MirroringState::Synchronized => "synchronized",
        MirroringState::Suspended => "suspended",
        MirroringState::Disconnected => "disconnected",
        MirroringState::Exposed => "exposed",
        MirroringState::NotMirrored => "not mirrored",
    }
}

/// The whole picture.
pub fn picture(picture: &Picture, colour: Colour) -> String {
    let mut text = format!(
        "{}  {}  {}\n\n",
        colour.strong(&picture.pool),
        state_word(picture.state, colour),
        picture.sentence
    );
    for alarm in &picture.alarms {
        let from = alarm.member.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        text.push_str(&format!("  {} {}{from}\n", colour.bad("ALARM"), alarm.sentence));
    }
    if !picture.alarms.is_empty() {
        text.push('\n');
    }
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| facts.row(vec![format!("  {name}"), value]);
    fact("term", picture.term.to_string());
    fact("protection", picture.protection.map_or("unknown", protection_word).to_owned());
    fact("mirroring", mirroring(picture));
    fact("lease", lease(picture));
    fact("witness", witness(picture, colour));
    fact("automatic failover", automatic_failover(picture, colour));
    text.push_str(&facts.to_string());
    text.push('\n');
    text.push_str(&members(picture, colour));
    if !picture.front_ends.is_empty() {
        text.push('\n');
        text.push_str(&front_ends(picture, colour));
    }
    text
}

fn mirroring(picture: &Picture) -> String {
    let Some(state) = picture.mirroring else { return "unknown".to_owned() };
    let mut words = vec![mirroring_word(state).to_owned()];
    match picture.streaming {
        Some(true) => words.push("streaming".to_owned()),
        Some(false) => words.push("not streaming".to_owned()),
        None => {}
    }
    if let Some(count) = picture.not_flushed_bytes {
        words.push(format!("{} not yet flushed", bytes(count)));
    }
    if let Some(count) = picture.not_replayed_bytes {
        words.push(format!("{} not yet replayed", bytes(count)));
    }
    words.join(", ")
}

fn lease(picture: &Picture) -> String {
    match (picture.served(), picture.lease_left_ms) {
        (true, Some(left)) => format!("{} left, renewed with every heartbeat", span(left)),
        (true, None) if picture.witness.is_none() => "none: the pool has no witness".to_owned(),
        (true, None) => "none: it serves without one".to_owned(),
        (false, _) => "none: nobody serves".to_owned(),
    }
}

fn witness(picture: &Picture, colour: Colour) -> String {
    let Some(witness) = &picture.witness else { return "none".to_owned() };
    let heard = witness.heard_ms_ago.map(|ms| format!(", heard {} ago", span(ms)));
    let state = match witness.connected {
        Some(true) => "connected".to_owned(),
        Some(false) => colour.bad("LOST"),
        None => "unknown".to_owned(),
    };
    format!("{}: {state}{}", witness.name, heard.unwrap_or_default())
}

fn automatic_failover(picture: &Picture, colour: Colour) -> String {
    let sentence = &picture.automatic_failover.sentence;
    if picture.automatic_failover.armed { colour.good(sentence) } else { colour.warning(sentence) }
}

fn members(picture: &Picture, colour: Colour) -> String {
    let mut table = Table::new(&["  MEMBER", "ROLE", "POSTGRESQL", "ADDRESS", "WAL", "DOING"]);
    let mut notes = String::new();
    for member in &picture.members {
        let postgres = member.session.as_ref().and_then(|session| session.postgres.as_ref());
        table.row(vec![
            format!("  {}", member.name),
            role(member, colour),
            postgres.map_or("-".to_owned(), |postgres| postgres.state.clone()),
            postgres
                .map_or(member.address.clone(), |shown| format!("{}:{}", shown.host, shown.port)),
            postgres.map_or("-".to_owned(), wal),
            postgres.map_or(String::new(), doing),
        ]);
        notes.push_str(&note(member, postgres, colour));
    }
    if notes.is_empty() { table.to_string() } else { format!("{table}\n{notes}") }
}

fn front_ends(picture: &Picture, colour: Colour) -> String {
    let head = ["  FRONT END", "MODE", "SINCE", "ADDRESS", "CLIENT SESSIONS", "SERVER"];
    let mut table = Table::new(&head);
    let mut notes = String::new();
    for one in &picture.front_ends {
        let name = format!("  {}", one.name);
        let Some(status) = &one.status else {
            let row = [name, colour.bad("no answer"), "-".to_owned(), one.address.clone()];
            table.row(row.into());
            let problem = one.problem.as_deref().unwrap_or_default();
            notes.push_str(&format!("  {} {}: {problem}\n", colour.warning("note:"), one.name));
            continue;
        };
        table.row(vec![
            name,
            mode(status.mode, colour),
            format!("{} ago", span(status.mode_for_ms)),
            status.listen.clone(),
            client_sessions(status),
            server_behind(status),
        ]);
        if status.mode != FrontEndMode::Normal {
            let label = colour.warning("note:");
            notes.push_str(&format!("  {label} {}: {}\n", one.name, status.sentence));
        }
        notes.push_str(&affected(status));
    }
    if notes.is_empty() { table.to_string() } else { format!("{table}\n{notes}") }
}

fn mode(mode: FrontEndMode, colour: Colour) -> String {
    match mode {
        FrontEndMode::Normal => "normal".to_owned(),
        FrontEndMode::WithoutPrincipal => colour.warning("without a principal"),
        FrontEndMode::StandbyReads => colour.warning("reads from a standby"),
        FrontEndMode::Resiliency => colour.bad("RESILIENCY"),
    }
}

fn client_sessions(status: &FrontEndStatus) -> String {
    let sessions = status.client_sessions;
    let mut words = vec![sessions.all.to_string()];
    if sessions.active > 0 {
        words.push(format!("{} active", sessions.active));
    }
    if sessions.held > 0 {
        words.push(format!("{} held", sessions.held));
    }
    words.join(", ")
}

/// Whose client sessions wait, or will: those with the most.
fn affected(status: &FrontEndStatus) -> String {
    const MOST: usize = 5;
    let mut text = String::new();
    for one in status.affected.iter().take(MOST) {
        let sessions = match one.client_sessions {
            1 => "1 client session".to_owned(),
            many => format!("{many} client sessions"),
        };
        let held = if one.held > 0 { format!(", {} held", one.held) } else { String::new() };
        text.push_str(&format!(
            "        {} in database {}: {sessions}{held}\n",
            one.user, one.database
        ));
    }
    let more = status.affected_count.saturating_sub(status.affected.len().min(MOST) as u64);
    if more > 0 {
        text.push_str(&format!("        and {more} more users and databases\n"));
    }
    text
}

/// Who answers its clients.
fn server_behind(status: &FrontEndStatus) -> String {
    match (&status.principal, &status.standby) {
        (Some(principal), _) if principal.handing_over => {
            format!("{}, handing over", principal.server)
        }
        (Some(principal), _) => principal.server.clone(),
        (None, Some(standby)) => format!("{} (standby)", standby.server),
        (None, None) => "-".to_owned(),
    }
}

fn role(member: &MemberPicture, colour: Colour) -> String {
    match member.role() {
        Some(Role::Principal) => colour.strong(role_words(Role::Principal)),
        Some(role @ (Role::Suspended | Role::Amnesiac)) => colour.bad(role_words(role)),
        Some(role) => role_words(role).to_owned(),
        None if member.answered => colour.bad("no part"),
        None => colour.bad("no answer"),
    }
}

fn wal(postgres: &PostgresStatus) -> String {
    postgres
        .position
        .as_ref()
        .map_or("-".to_owned(), |position| format!("{}@{}", position.lsn, position.timeline))
}

fn doing(postgres: &PostgresStatus) -> String {
    let doing = postgres.doing.clone().unwrap_or_default();
    match postgres.progress {
        None => doing,
        Some(CopyProgress { done_bytes, total_bytes, percent }) => {
            let total = total_bytes.map(|total| format!(" of {}", bytes(total)));
            let percent = percent.map(|percent| format!(" ({percent} %)"));
            format!(
                "{doing} {}{}{}",
                bytes(done_bytes),
                total.unwrap_or_default(),
                percent.unwrap_or_default()
            )
        }
    }
}

fn note(member: &MemberPicture, postgres: Option<&PostgresStatus>, colour: Colour) -> String {
    let mut text = String::new();
    if let Some(problem) = &member.problem {
        let name = &member.name;
        text.push_str(&format!("  {} {name}: {problem}\n", colour.warning("note:")));
    }
    if let Some(problem) = postgres.and_then(|postgres| postgres.problem.as_ref()) {
        let name = &member.name;
        text.push_str(&format!("  {} {name}: {problem}\n", colour.bad("problem:")));
    }
    if let Some(hint) = postgres.and_then(|postgres| postgres.hint.as_ref()) {
        text.push_str(&format!("  {} {hint}\n", colour.strong("hint:")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(5 * 1024 * 1024), "5 MB");
        assert_eq!(span(999), "999 ms");
        assert_eq!(span(1_850), "1.8 s");
        assert_eq!(span(3_725_000), "1 h 2 min");
    }
}
