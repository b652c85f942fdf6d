//! PostgreSQL's settings: which are Backstay's own, which must be equal, which are secrets.

use crate::diagnostic::{Family, Report, Rule};
use crate::place::{Placed, Span};
use crate::read::is_secret;
use crate::resolve::SERVER_CONNECTIONS;

use super::world::World;
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "setting-name",
        Family::Settings,
        setting_name,
        [
            "A setting's name is not one that PostgreSQL could have, or its value has a line \
             break.",
            "PostgreSQL would not start with it.",
            "Write names in lower case and values on one line.",
        ],
    ),
    error(
        "setting-reserved",
        Family::Settings,
        setting_reserved,
        [
            "A setting is one that mirroring owns.",
            "The safety of every commit rests on it, so that Backstay gives it on PostgreSQL's \
             command line.",
            "Take it out; ports, directories and access have fields of their own.",
        ],
    ),
    error(
        "setting-differs-on-mirror",
        Family::Settings,
        setting_differs,
        [
            "A setting that a standby must not have lower than its primary differs between a \
             pool's servers.",
            "Each of the two is the mirror at times: the one with the lower value would stop \
             replaying then, and not start again.",
            "Give it the same value on both: in settings, not in settings_on.",
        ],
    ),
    error(
        "setting-looks-secret",
        Family::Settings,
        setting_looks_secret,
        [
            "A setting or a line of client_access looks as if it held a password or another \
             secret.",
            "The document is stored, shown, and copied to every server.",
            "Put it into a file on the servers, and change the secret if this document was shared.",
        ],
    ),
    warning(
        "connections-too-few",
        Family::Settings,
        connections_too_few,
        [
            "A pool's Front Ends may open more server connections than PostgreSQL allows.",
            "Under load, log-ins would fail with \"too many clients\". Ten connections are kept \
             free for Backstay and for superusers.",
            "Raise max_connections in the pool's settings, or lower server_connections of its \
             Front Ends.",
        ],
    ),
    error(
        "slot-wal-keep-malformed",
        Family::Settings,
        slot_wal_keep_malformed,
        [
            "slot_wal_keep is no size.",
            "PostgreSQL would not start with it.",
            "Write a number with a unit, such as \"10GB\".",
        ],
    ),
    warning(
        "slot-wal-keep-unlimited",
        Family::Settings,
        slot_wal_keep_unlimited,
        [
            "A principal keeps WAL for an absent mirror without any limit.",
            "When the mirror is away for long, the volume fills, and the principal stops as well.",
            "Write a limit that leaves room on the volume; beyond it the mirror is copied afresh.",
        ],
    ),
];

/// Settings that Backstay gives itself; all others are the operator's.
const OWNED: &[&str] = &[
    "synchronous_commit",
    "client_min_messages",
    "restart_after_crash",
    "recovery_init_sync_method",
    "fsync",
    "full_page_writes",
    "data_sync_retry",
    "zero_damaged_pages",
    "ignore_checksum_failure",
    "hot_standby",
    "wal_log_hints",
    "wal_sender_timeout",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "wal_receiver_status_interval",
    "wal_receiver_create_temp_slot",
    "wal_keep_size",
    "superuser_reserved_connections",
    "password_encryption",
    "logging_collector",
    "log_destination",
    "recovery_target_timeline",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_min_apply_delay",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_slot_name",
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
    "primary_conninfo",
];

/// What to write instead, where the document has a field for it.
const INSTEAD: &[(&str, &str)] = &[
    ("port", "Use the pool's port."),
    ("listen_addresses", "Use the server's postgres_listen."),
    ("data_directory", "Use the pool's data_dir."),
    ("unix_socket_directories", "Use the pool's socket_dir."),
    ("hba_file", "Use the pool's client_access."),
    ("max_slot_wal_keep_size", "Use the pool's slot_wal_keep."),
];

/// A standby does not start with less of these than its primary has.
const NOT_LOWER: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

type Setting<'a> = (&'a Placed<String>, &'a Placed<String>);

/// Every setting that is written anywhere.
fn written<'a>(world: &World<'a>) -> impl Iterator<Item = Setting<'a>> {
    let pools = world.pools().flat_map(|pool| {
        pool.settings.iter().chain(pool.settings_on.iter().flat_map(|on| &on.settings))
    });
    world.document.defaults.settings.iter().chain(pools).map(|(name, value)| (name, value))
}

fn setting_name(world: &World<'_>, report: &mut Report) {
    for (name, value) in written(world) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            let found =
                report.at(&name.span, format!("{:?} is no setting of PostgreSQL", name.value));
            let lower = name.to_ascii_lowercase().replace('-', "_");
            if lower.chars().all(plain) && !lower.is_empty() {
                found.remedy(format!("Write {lower}."));
            }
        } else if value.contains(['\n', '\r', '\0']) {
            report.at(&value.span, format!("the value of {name} has a line break"));
        }
    }
}

fn setting_reserved(world: &World<'_>, report: &mut Report) {
    for (name, _) in written(world) {
        let lower = name.to_ascii_lowercase();
        if OWNED.contains(&lower.as_str()) {
            let found = report.at(&name.span, format!("the setting {name} is Backstay's own"));
            if let Some((_, instead)) = INSTEAD.iter().find(|(owned, _)| *owned == lower) {
                found.remedy(*instead);
            }
        }
    }
}

fn setting_differs(world: &World<'_>, report: &mut Report) {
    for pool in world.mirrored() {
        let (Some(principal), Some(mirror)) = (&pool.principal, &pool.mirror) else { continue };
        let one = world.document.settings_at(pool, principal);
        let other = world.document.settings_at(pool, mirror);
        for name in NOT_LOWER {
            let (here, there) = (one.get(name), other.get(name));
            if here.map(|it| it.value.trim()) == there.map(|it| it.value.trim()) {
                continue;
            }
            // It is written in settings_on, or both sides would have it from the same place.
            let on = pool.settings_on.iter().flat_map(|on| &on.settings);
            let Some((_, place)) = on.clone().find(|(known, _)| known.value == name) else {
                continue;
            };
            let words = |value: Option<&&Placed<String>>| {
                value.map_or_else(|| "PostgreSQL's default".to_owned(), |it| it.value.clone())
            };
            let message = format!(
                "{name} of pool {} is {} on {principal} and {} on {mirror}",
                pool.name,
                words(here),
                words(there)
            );
            let found = report.at(&place.span, message);
            for value in [here, there].into_iter().flatten() {
                if value.span != place.span {
                    found.related(&value.span, "the other value is here");
                }
            }
        }
    }
}

/// Whether a value would let somebody in: a connection string with a password, for instance.
fn holds_secret(value: &str) -> bool {
    let quotes = ['"', '\''];
    let value = value.to_ascii_lowercase();
    let words = value.split(|c: char| c.is_whitespace() || ",;?&".contains(c));
    let mut assigned = words.filter_map(|word| word.split_once('='));
    let of_connection = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    assigned.any(|(name, value)| {
        is_secret(name.trim_matches(quotes)) && !value.trim_matches(quotes).is_empty()
    }) || of_connection.is_some_and(|(user, _)| user.contains(':'))
}

fn setting_looks_secret(world: &World<'_>, report: &mut Report) {
    for (name, value) in written(world) {
        if is_secret(name) {
            report.at(&name.span, format!("{name} looks like a secret"));
        } else if holds_secret(value) {
            report.at(&value.span, format!("the value of {name} looks as if it held a secret"));
        }
    }
    let lines = world.pools().flat_map(|pool| pool.client_access.iter().flatten());
    for line in lines.chain(world.document.defaults.client_access.iter().flatten()) {
        if holds_secret(line) {
            report.at(&line.span, "this line looks as if it held a secret");
        }
    }
}

/// Whether PostgreSQL takes it as an amount of WAL. Without a unit it counts megabytes.
fn is_size(text: &str) -> bool {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    number.parse::<f64>().is_ok_and(|number| number >= 0.0)
        && matches!(unit.trim_start(), "" | "B" | "kB" | "MB" | "GB" | "TB")
}

fn slot_wal_keep_malformed(world: &World<'_>, report: &mut Report) {
    for size in world.pools().filter_map(|pool| pool.slot_wal_keep.as_ref()) {
        if !is_size(size) && size.trim() != "-1" {
            report.at(&size.span, format!("slot_wal_keep is {:?}", size.value));
        }
    }
}

fn slot_wal_keep_unlimited(world: &World<'_>, report: &mut Report) {
    for size in world.pools().filter_map(|pool| pool.slot_wal_keep.as_ref()) {
        if size.trim() == "-1" {
            report.at(&size.span, "WAL for an absent mirror is kept without limit");
        }
    }
}

fn connections_too_few(world: &World<'_>, report: &mut Report) {
    const DEFAULT: u32 = 100;
    const RESERVED: u32 = 10;
    for pool in world.pools().filter(|pool| !pool.front_ends.is_empty()) {
        let Some(principal) = &pool.principal else { continue };
        let wanted = pool.front_ends.iter().map(|front_end| {
            world.document.front_end_number(
                front_end,
                |options| &options.server_connections,
                SERVER_CONNECTIONS,
            )
        });
        let wanted = wanted.fold(RESERVED, u32::saturating_add);
        let settings = world.document.settings_at(pool, principal);
        let setting = settings.get("max_connections");
        let Ok(allowed) = setting.map_or(Ok(DEFAULT), |it| it.trim().parse::<u32>()) else {
            continue;
        };
        if wanted > allowed {
            let place: &Span = setting.map_or(&pool.name.span, |it| &it.span);
            let message = format!(
                "pool {} allows {allowed} connections, and its Front Ends may need {wanted}",
                pool.name
            );
            let found = report.at(place, message);
            found.remedy(format!(
                "Set max_connections to {wanted} or more in the pool's settings, or lower \
                 server_connections of its Front Ends."
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{OWNED, holds_secret, is_size};

    /// What the agent gives on the command line, read from its own table of settings.
    fn given_by_the_agent() -> BTreeSet<&'static str> {
        let source = include_str!("../../../agent/src/postgres/settings.rs");
        let mut names = BTreeSet::new();
        for table in ["const FIXED:", "const GIVEN:", "const RELOADABLE:"] {
            let body = source.split_once(table).unwrap().1.split_once("= &[").unwrap().1;
            for line in body.split_once("];").unwrap().0.split('\n') {
                let entries = line.split('(').filter(|entry| entry.trim().starts_with('"'));
                for entry in entries {
                    let fixed = line.contains('(');
                    let words = entry.split('"').skip(1).step_by(2);
                    names.extend(words.take(if fixed { 1 } else { 9 }));
                }
            }
        }
        names
    }

    #[test]
    fn the_settings_that_mirroring_owns_are_the_agents() {
        let mut given = given_by_the_agent();
        for shared in ["wal_level", "max_wal_senders", "max_replication_slots", "restore_command"] {
            assert!(given.remove(shared), "{shared}");
        }
        given.remove("");
        assert_eq!(given, OWNED.iter().copied().collect());
    }

    #[test]
    fn sizes_are_told_from_other_texts() {
        for size in ["1GB", "512 MB", "1.5TB", "1024", "0"] {
            assert!(is_size(size), "{size}");
        }
        for size in ["", "GB", "1gb", "-1", "1 G B", "ten", "1.2.3MB"] {
            assert!(!is_size(size), "{size}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_form() {
        for text in [
            "host=a password=b",
            "postgresql://u:p@h/d",
            "host all all all ldap ldapserver=x ldapbindpasswd=y",
            "radiussecrets=\"a\"",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in ["scram-sha-256", "host=a passfile=/b", "postgresql://u@h/d", "password=\"\""] {
            assert!(!holds_secret(text), "{text}");
        }
    }
}
