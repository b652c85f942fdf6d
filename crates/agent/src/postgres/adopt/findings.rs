//! What is to be said about a PostgreSQL before it is adopted: what makes it impossible, what the
//! administrator has to know, and what is merely so.

use serde::Serialize;

use super::super::instance::Instance;
use super::super::version::Version;
use super::found::Found;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It cannot be adopted like this.
    Error,
    /// Something changes for somebody.
    Warning,
    Note,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub level: Level,
    /// Stable, for programs.
    pub code: &'static str,
    pub sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What the agent's configuration says.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// Of the programs that it would run.
    pub programs: Option<Version>,
    /// As whom it would run them.
    pub os_user: Option<String>,
}

/// Findings, the gravest first.
pub fn judge(found: &Found, instance: &Instance, agent: &Agent) -> Vec<Finding> {
    let mut all = Vec::new();
    errors(found, instance, agent, &mut all);
    warnings(found, &mut all);
    notes(found, &mut all);
    all.sort_by_key(|finding| finding.level);
    all
}

fn say(
    all: &mut Vec<Finding>,
    level: Level,
    code: &'static str,
    sentence: String,
    remedy: impl Into<Option<&'static str>>,
) {
    all.push(Finding { level, code, sentence, remedy: remedy.into().map(str::to_owned) });
}

fn errors(found: &Found, instance: &Instance, agent: &Agent, all: &mut Vec<Finding>) {
    let mut error = |code, sentence: String, remedy: &str| {
        let remedy = Some(remedy.to_owned());
        all.push(Finding { level: Level::Error, code, sentence, remedy });
    };
    if let Err(refused) = Version::of_programs(&found.bin_dir).and_then(Version::check) {
        error("version", refused.to_string(), refused.hint().unwrap_or("update PostgreSQL"));
    }
    let major = found.version_number / 10_000;
    if let Some(programs) = agent.programs.filter(|programs| programs.major != major) {
        error(
            "programs",
            format!("the data are PostgreSQL {major}'s, and pg_bin_dir holds {programs}"),
            "correct pg_bin_dir in the server's file",
        );
    }
    if let Some(user) = agent.os_user.as_ref().filter(|user| **user != found.os_user) {
        error(
            "os_user",
            format!(
                "the data belong to {}, and the agent runs PostgreSQL as {user}",
                found.os_user
            ),
            "set os_user in the server's file to the owner of the data, and restart the agent",
        );
    }
    errors_inside(found, instance, &mut error);
}

fn errors_inside(
    found: &Found,
    instance: &Instance,
    error: &mut impl FnMut(&'static str, String, &str),
) {
    if found.in_recovery {
        error(
            "standby",
            "this PostgreSQL is a standby".to_owned(),
            "adopt the primary; Backstay makes the mirror by a fresh copy of it",
        );
    }
    if !found.databases.iter().any(|name| name == super::super::instance::DATABASE) {
        error(
            "database",
            "there is no database \"postgres\", which Backstay's own connections use".to_owned(),
            "create it: CREATE DATABASE postgres",
        );
    }
    if !found.tablespaces.is_empty() {
        error(
            "tablespaces",
            format!(
                "tablespaces lie outside of the data directory: {}; no mirror can be made of them",
                found.tablespaces.join(", ")
            ),
            "move their tables back (ALTER TABLE ... SET TABLESPACE pg_default) and drop them",
        );
    }
    if !found.own_roles.is_empty() {
        error(
            "roles",
            format!("there are roles with Backstay's own names: {}", found.own_roles.join(", ")),
            "if Backstay left them here before, drop them; else rename them",
        );
    }
    if !found.setting_errors.is_empty() {
        error(
            "configuration",
            format!("its configuration has errors: {}", found.setting_errors.join("; ")),
            "correct them: PostgreSQL would not start again",
        );
    }
    if let Err(refused) = super::super::settings::check(instance) {
        error("settings", refused.to_string(), refused.hint().unwrap_or("correct the setting"));
    }
    if found.timeline > 1 {
        let file = format!("{:08X}.history", found.timeline);
        if !instance.wal_dir().join(&file).exists() {
            error(
                "history",
                format!("pg_wal lacks {file}: a mirror could not follow this timeline"),
                "copy the file back from the archive of WAL",
            );
        }
    }
}

fn warnings(found: &Found, all: &mut Vec<Finding>) {
    let mut warning = |code, sentence: String, remedy: &'static str| {
        say(all, Level::Warning, code, sentence, remedy);
    };
    if !found.standbys.is_empty() {
        warning(
            "standbys",
            format!("others replicate from it and will be refused: {}", found.standbys.join(", ")),
            "only Backstay's mirror replicates from a pool; remove them, or use them as clients",
        );
    }
    if !found.slots.is_empty() {
        let names: Vec<String> = found
            .slots
            .iter()
            .map(|slot| {
                let kind = if slot.logical { "logical" } else { "physical" };
                format!("{} ({kind}{})", slot.name, if slot.active { ", active" } else { "" })
            })
            .collect();
        warning(
            "slots",
            format!(
                "its replication slots do not outlive a failover, and keep at most 1 GB of WAL: {}",
                names.join(", ")
            ),
            "drop those that nobody needs; set slot_wal_keep for more WAL",
        );
    }
    if !found.subscriptions.is_empty() {
        warning(
            "subscriptions",
            format!("logical subscriptions run here: {}", found.subscriptions.join(", ")),
            "they go on after a failover; their publisher must let both servers in",
        );
    }
    warnings_inside(found, &mut warning);
}

fn warnings_inside(found: &Found, warning: &mut impl FnMut(&'static str, String, &'static str)) {
    for (database, tables) in &found.unlogged {
        warning(
            "unlogged",
            format!("unlogged tables of {database} are empty after a failover: {}", few(tables)),
            "ALTER TABLE ... SET LOGGED protects them",
        );
    }
    if !found.role_settings.is_empty() {
        warning(
            "role_settings",
            format!(
                "settings of roles or databases undo Backstay's: {}",
                found.role_settings.join("; ")
            ),
            "reset them: commits below synchronous_commit = on are not protected",
        );
    }
    if !found.hba_replication.is_empty() {
        warning(
            "replication_access",
            format!(
                "lines of pg_hba.conf about replication are without effect from now on: {}",
                found.hba_replication.join("; ")
            ),
            "only Backstay's own role replicates; a backup that used them needs another way",
        );
    }
    if loopback_only(&found.listen) {
        warning(
            "listen",
            format!(
                "it listens on {:?} only: a mirror on another machine could not reach it",
                found.listen
            ),
            "give --listen '*'; clients are still let in by the lines of pg_hba.conf alone",
        );
    }
    if found.socket_dirs.len() > 1 {
        warning(
            "sockets",
            format!("of its socket directories only {} stays", found.socket_dirs[0].display()),
            "change clients that use another one",
        );
    }
}

fn notes(found: &Found, all: &mut Vec<Finding>) {
    let mut note = |code, sentence: String| say(all, Level::Note, code, sentence, None);
    if !found.checksums {
        note(
            "checksums",
            "data checksums are off, and stay off: a rewind needs wal_log_hints only, which \
             Backstay sets"
                .to_owned(),
        );
    }
    if !found.libraries.is_empty() {
        note(
            "libraries",
            format!(
                "the mirror needs the same libraries (shared_preload_libraries): {}",
                found.libraries.join(", ")
            ),
        );
    }
    let mut extensions: Vec<&String> = found.extensions.values().flatten().collect();
    extensions.sort();
    extensions.dedup();
    if !extensions.is_empty() {
        let names: Vec<&str> = extensions.into_iter().map(String::as_str).collect();
        note("extensions", format!("the mirror needs the same extensions: {}", names.join(", ")));
    }
    let files = found.settings.iter().filter(|(_, value)| value.starts_with('/'));
    let files: Vec<String> = files.map(|(name, value)| format!("{name} ({value})")).collect();
    if !files.is_empty() {
        note(
            "files",
            format!("the mirror needs the files that settings name: {}", files.join(", ")),
        );
    }
    if found.prepared > 0 {
        note(
            "prepared",
            format!("{} prepared transactions go on, here and on the mirror", found.prepared),
        );
    }
    if let Some(place) = &found.wal_elsewhere {
        note(
            "wal",
            format!(
                "pg_wal is a link to {}: it stays; a fresh copy would have it inside",
                place.display()
            ),
        );
    }
    if !found.idents.is_empty() {
        note(
            "idents",
            "the maps of pg_ident.conf are kept; copy adopted/pg_ident.conf of the files directory \
             to the mirror's"
                .to_owned(),
        );
    }
    if found.wal_level == "minimal" {
        note(
            "wal_level",
            "wal_level is minimal: while it is stopped, it is started once for itself with replica"
                .to_owned(),
        );
    }
}

fn loopback_only(listen: &str) -> bool {
    let mut hosts = listen.split(',').map(str::trim);
    hosts.all(|host| matches!(host, "" | "localhost" | "::1") || host.starts_with("127."))
}

fn few(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
