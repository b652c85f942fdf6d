//! The settings that make PostgreSQL obey (section 3.1 of the protocol).
//!
//! Whatever safety rests on is given on the command line of `postgres`, because `ALTER SYSTEM`
//! beats every configuration file but not the command line, and is read back after each start.
//! The operator's settings live in the data directory or in our own configuration file. What has
//! to change while the server runs (`primary_conninfo`, `restore_command`) is in a third file.

use std::fmt::Write as _;
use std::path::Path;

use super::access::{write_file, write_fleeting};
use super::adopt;
use super::certificates;
use super::error::Error;
use super::instance::{GUARD_NAME, Instance, MIRROR_NAME, ROLE};
use super::sql::Connection;

/// Who can reach the server. PostgreSQL cannot change it without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The Unix socket only: a client with several hosts in its connection string is told
    /// "connection refused" and goes on to the next one.
    SocketOnly,
    Port,
}

/// Where a standby streams from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub host: String,
    pub port: u16,
}

/// Settings with a fixed value.
const FIXED: &[(&str, &str)] = &[
    ("synchronous_commit", "on"),
    // The warning of a cancelled wait for the mirror must come through to whoever can tell of it.
    ("client_min_messages", "notice"),
    ("restart_after_crash", "off"),
    // After a crash PostgreSQL flushes every file before it replays. One call for each volume does
    // the same much faster where there are many files, and errors of the disk are told either way
    // (by Linux 5.8 and later; PostgreSQL only logs them in both cases).
    ("recovery_init_sync_method", "syncfs"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    // A failed flush, or a broken page, must never be passed over.
    ("data_sync_retry", "off"),
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
    ("hot_standby", "on"),
    ("wal_log_hints", "on"),
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_create_temp_slot", "off"),
    // A returning partner copies the whole of its source's pg_wal: the slot keeps what it needs.
    ("wal_keep_size", "64MB"),
    ("superuser_reserved_connections", "10"),
    ("password_encryption", "scram-sha-256"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("recovery_target_timeline", "latest"),
    ("recovery_target", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_min_apply_delay", "0"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
    ("primary_slot_name", MIRROR_NAME),
];

/// Settings whose value depends on the instance.
const GIVEN: &[&str] = &[
    "synchronous_standby_names",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "cluster_name",
    "max_slot_wal_keep_size",
    "wal_level",
    "max_wal_senders",
    "max_replication_slots",
];

/// Settings that live in the file for the upstream.
const RELOADABLE: &[&str] = &["primary_conninfo", "restore_command"];

/// All that is given on the command line, by name.
pub fn command_line(instance: &Instance, listen: Listen) -> Vec<(&'static str, String)> {
    let path = |path: &Path| path.display().to_string();
    let chosen = |name: &str| instance.settings.get(name).map(String::as_str);
    let at_least = |name: &str, least: u32| {
        chosen(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0).max(least).to_string()
    };
    let wal_level = if chosen("wal_level") == Some("logical") { "logical" } else { "replica" };
    let listen = match listen {
        Listen::SocketOnly => String::new(),
        Listen::Port => instance.listen.clone(),
    };
    let names = format!("ANY 1 (\"{MIRROR_NAME}\", \"{GUARD_NAME}\")");
    let mut all = vec![
        ("synchronous_standby_names", names),
        ("data_directory", path(&instance.data_dir)),
        ("config_file", path(&instance.config_file())),
        ("hba_file", path(&instance.hba_file())),
        ("ident_file", path(&instance.ident_file())),
        ("listen_addresses", listen),
        ("port", instance.port.to_string()),
        ("unix_socket_directories", path(&instance.socket_dir)),
        ("cluster_name", instance.pool.clone()),
        ("max_slot_wal_keep_size", instance.slot_wal_keep.clone()),
        ("wal_level", wal_level.to_owned()),
        ("max_wal_senders", at_least("max_wal_senders", 10)),
        ("max_replication_slots", at_least("max_replication_slots", 10)),
    ];
    all.extend(FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())));
    all
}

/// The names of those that differ between two instances: a running server keeps the first's.
pub fn changed_on_the_command_line(before: &Instance, after: &Instance) -> Vec<String> {
    let (one, other) =
        (command_line(before, Listen::SocketOnly), command_line(after, Listen::SocketOnly));
    let pairs = one.into_iter().zip(other);
    pairs.filter(|(one, other)| one != other).map(|((name, _), _)| name.to_owned()).collect()
}

/// The names of those that the running server has read and takes over at its next start.
pub async fn waiting(sql: &Connection) -> Result<Vec<String>, Error> {
    let asked = "SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') \
                 FROM pg_show_all_settings() WHERE pending_restart";
    let names = sql.one(asked).await.map_err(Error::sql("reading the settings"))?;
    Ok(names.unwrap_or_default().split_whitespace().map(str::to_owned).collect())
}

/// Whether the setting is Backstay's own, whoever else sets it.
pub fn is_own(name: &str) -> bool {
    GIVEN.contains(&name)
        || RELOADABLE.contains(&name)
        || FIXED.iter().any(|(fixed, _)| *fixed == name)
}

/// Refuses settings of the operator's that Backstay has to set itself.
pub fn check(instance: &Instance) -> Result<(), Error> {
    let allowed = ["wal_level", "max_wal_senders", "max_replication_slots", "restore_command"];
    for (name, value) in &instance.settings {
        let well_formed = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c));
        if !well_formed || value.contains('\n') {
            return Err(Error::refused(
                format!("{name:?} = {value:?} is no setting of PostgreSQL"),
                "write names in lower case and values on one line",
            ));
        }
        if is_own(name) && !allowed.contains(&name.as_str()) {
            return Err(Error::refused(
                format!("the setting {name} is Backstay's own"),
                format!("remove {name} from the pool's settings"),
            ));
        }
    }
    let socket = instance.socket();
    if socket.as_os_str().len() > 107 {
        return Err(Error::refused(
            format!("the path of the Unix socket is too long: {}", socket.display()),
            "choose a shorter socket_dir (at most 90 bytes)",
        ));
    }
    Ok(())
}

/// Writes the configuration file, and takes out of the data directory what would beat it.
pub fn write(instance: &Instance) -> Result<(), Error> {
    let mut text = String::from("# Written by Backstay at each start. Do not edit.\n");
    let theirs = instance.data_dir.join("postgresql.conf");
    for file in [adopt::former_config(&instance.files_dir), theirs] {
        let _ = writeln!(text, "include_if_exists = {}", quoted(&file.display().to_string()));
    }
    for (name, value) in &instance.settings {
        if !RELOADABLE.contains(&name.as_str()) {
            let _ = writeln!(text, "{name} = {}", quoted(value));
        }
    }
    for (name, value) in certificates::settings(instance) {
        let _ = writeln!(text, "{name} = {}", quoted(&value));
    }
    let upstream = instance.upstream_file();
    let _ = writeln!(text, "include_if_exists = {}", quoted(&upstream.display().to_string()));
    write_fleeting(instance, &instance.config_file(), &text)?;
    clear_auto_conf(instance)
}

/// Writes where the standby streams from; in force after a reload or at the next start.
pub fn write_upstream(instance: &Instance, upstream: Option<&Upstream>) -> Result<(), Error> {
    let mut text = String::from("# Written by Backstay. Do not edit.\n");
    let (conninfo, restore) = match upstream {
        Some(upstream) => (
            conninfo(instance, upstream),
            instance.settings.get("restore_command").cloned().unwrap_or_default(),
        ),
        None => (String::new(), String::new()),
    };
    let _ = writeln!(text, "primary_conninfo = {}", quoted(&conninfo));
    let _ = writeln!(text, "restore_command = {}", quoted(&restore));
    write_fleeting(instance, &instance.upstream_file(), &text)
}

/// Where the running standby streams from, as `write_upstream` has written it.
pub fn read_upstream(instance: &Instance) -> Option<Upstream> {
    let text = std::fs::read_to_string(instance.upstream_file()).ok()?;
    upstream_in(&text)
}

fn upstream_in(text: &str) -> Option<Upstream> {
    let value = text.lines().find_map(|line| line.strip_prefix("primary_conninfo = "))?;
    let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
    let conninfo = value.replace("''", "'").replace(r"\\", r"\");
    let address = conninfo.strip_prefix("hostaddr='").or_else(|| conninfo.strip_prefix("host='"));
    let (host, rest) = address?.split_once("' port=")?;
    let port = rest.split(' ').next()?.parse().ok()?;
    Some(Upstream { host: host.replace(r"\'", "'").replace(r"\\", r"\"), port })
}

/// The connection string of the mirror's receiver.
pub fn conninfo(instance: &Instance, upstream: &Upstream) -> String {
    let door = match certificates::words(instance, upstream) {
        Some(words) => words,
        None => format!("{} sslmode=prefer", by_password(instance, upstream)),
    };
    format!(
        "{door} user={ROLE} application_name={MIRROR_NAME} connect_timeout=3 keepalives=1 \
         keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000"
    )
}

/// Host, port and where the password is.
pub fn by_password(instance: &Instance, upstream: &Upstream) -> String {
    let word = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let passfile = instance.secret_file.display().to_string();
    format!("host={} port={} passfile={}", word(&upstream.host), upstream.port, word(&passfile))
}

/// Takes `primary_conninfo` and `restore_command` out of `postgresql.auto.conf`, which PostgreSQL
/// reads after every other file.
fn clear_auto_conf(instance: &Instance) -> Result<(), Error> {
    let path = instance.data_dir.join("postgresql.auto.conf");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let ours = |line: &str| {
        let line = line.trim_start().to_ascii_lowercase();
        RELOADABLE.iter().any(|name| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '=', '\t']))
        })
    };
    if !text.lines().any(ours) {
        return Ok(());
    }
    tracing::warn!(file = %path.display(), "an upstream set by ALTER SYSTEM was taken out");
    let kept: String =
        text.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect();
    write_file(instance, &path, &kept)
}

/// Compares what is in force with what was given. A difference means that this server was started
/// by somebody else, or that PostgreSQL does not understand us: either way it must not serve.
pub async fn read_back(
    instance: &Instance,
    listen: Listen,
    connection: &Connection,
) -> Result<(), Error> {
    const DOING: &str = "reading the settings back";
    let given = command_line(instance, listen);
    // Our own connections lower synchronous_commit; a superuser may set the others for a role.
    // PostgreSQL sets the paths once more itself.
    let each_session = [
        "synchronous_commit",
        "client_min_messages",
        "zero_damaged_pages",
        "ignore_checksum_failure",
    ];
    let names = given
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !each_session.contains(name))
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(",");
    let others = connection
        .rows(&format!(
            "SELECT name FROM pg_settings WHERE name IN ({names}) \
             AND source NOT IN ('command line', 'override') ORDER BY name"
        ))
        .await
        .map_err(Error::sql(DOING))?;
    let mut differing: Vec<String> =
        others.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    for name in ["synchronous_standby_names", "config_file", "hba_file", "ident_file"] {
        let wanted = given.iter().find(|(given, _)| *given == name).map(|(_, value)| value);
        let in_force = connection.one(&format!("SHOW {name}")).await.map_err(Error::sql(DOING))?;
        if wanted != in_force.as_ref() {
            differing.push(name.to_owned());
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "PostgreSQL on port {} does not run with Backstay's settings ({})",
            instance.port,
            differing.join(", ")
        ),
        "it was started by something else: stop it there, and disable that start",
    ))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::instance::tests::instance;

    #[test]
    fn safety_is_on_the_command_line_whatever_the_operator_wishes() {
        let mut instance = instance();
        instance.settings.insert("max_wal_senders".to_owned(), "3".to_owned());
        instance.settings.insert("wal_level".to_owned(), "logical".to_owned());
        let all = command_line(&instance, Listen::SocketOnly);
        let value = |name: &str| all.iter().find(|(given, _)| *given == name).map(|(_, v)| &**v);
        let names = "ANY 1 (\"backstay_mirror\", \"backstay_exposed\")";
        assert_eq!(value("synchronous_standby_names"), Some(names));
        assert_eq!(value("restart_after_crash"), Some("off"));
        assert_eq!(value("max_wal_senders"), Some("10"));
        assert_eq!(value("wal_level"), Some("logical"));
        assert_eq!(value("listen_addresses"), Some(""));
        assert_eq!(value("max_slot_wal_keep_size"), Some("1GB"));
        assert!(!all.iter().any(|(name, _)| RELOADABLE.contains(name)));
    }

    #[test]
    fn every_setting_of_ours_is_refused_to_the_operator() {
        let all = command_line(&instance(), Listen::Port);
        for (name, _) in all {
            let mut instance = instance();
            instance.settings.insert(name.to_owned(), "1".to_owned());
            let shared = ["wal_level", "max_wal_senders", "max_replication_slots"];
            assert_eq!(check(&instance).is_ok(), shared.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_connection_string_survives_quotes() {
        let mut instance = instance();
        instance.secret_file = "/it's/secret".into();
        let upstream = Upstream { host: "be1".to_owned(), port: 5433 };
        let conninfo = conninfo(&instance, &upstream);
        assert!(conninfo.starts_with("host='be1' port=5433 "), "{conninfo}");
        assert!(conninfo.contains(" user=backstay "), "{conninfo}");
        assert!(conninfo.contains(r"passfile='/it\'s/secret'"), "{conninfo}");
        assert_eq!(quoted(r"a'b\c"), r"'a''b\\c'");
    }

    #[test]
    fn an_upstream_is_read_back_with_certificates_and_without() {
        let mut instance = instance();
        let upstream = Upstream { host: "10.0.0.2".to_owned(), port: 5433 };
        for tls in [None, Some(certificates::tests::tls())] {
            instance.tls = tls;
            let line = format!("primary_conninfo = {}", quoted(&conninfo(&instance, &upstream)));
            assert_eq!(upstream_in(&line), Some(upstream.clone()), "{line}");
        }
    }
}
