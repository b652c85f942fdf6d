//! When PostgreSQL takes a changed setting over, where no server was asked.
//!
//! The list holds every setting of PostgreSQL 14 to 18 that takes a restart, so that a plan made
//! without a server errs on the careful side only: extensions' settings count as not known.

use super::facts::{Context, PoolFacts};

const RESTART: &[&str] = &[
    "allow_alter_system",
    "archive_mode",
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "autovacuum_worker_slots",
    "bonjour",
    "bonjour_name",
    "cluster_name",
    "commit_timestamp_buffers",
    "config_file",
    "data_directory",
    "debug_io_direct",
    "dynamic_shared_memory_type",
    "event_source",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "huge_page_size",
    "huge_pages",
    "ident_file",
    "ignore_invalid_pages",
    "io_max_combine_limit",
    "io_max_concurrency",
    "io_method",
    "jit_provider",
    "listen_addresses",
    "logging_collector",
    "max_active_replication_origins",
    "max_connections",
    "max_files_per_process",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_notify_queue_pages",
    "max_pred_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "min_dynamic_shared_memory",
    "multixact_member_buffers",
    "multixact_offset_buffers",
    "notify_buffers",
    "old_snapshot_threshold",
    "port",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "reserved_connections",
    "serializable_buffers",
    "shared_buffers",
    "shared_memory_type",
    "shared_preload_libraries",
    "subtransaction_buffers",
    "superuser_reserved_connections",
    "track_activity_query_size",
    "track_commit_timestamp",
    "transaction_buffers",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_buffers",
    "wal_decode_buffer_size",
    "wal_level",
    "wal_log_hints",
];

/// A standby does not go on with less of these than its primary has.
const NOT_LOWER: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// What a server said of `name`, or else what is known of it in general.
pub(super) fn of(name: &str, facts: Option<&PoolFacts>) -> Context {
    if let Some(context) = facts.and_then(|facts| facts.contexts.get(name)) {
        return *context;
    }
    match name {
        _ if name.contains('.') => Context::Unknown,
        _ if RESTART.contains(&name) => Context::Restart,
        _ => Context::Reload,
    }
}

/// The principal must have the new value before the mirror has it.
pub(super) fn is_principal_first(name: &str, before: Option<&str>, after: Option<&str>) -> bool {
    let number = |value: Option<&str>| value.and_then(|value| value.parse::<u64>().ok());
    NOT_LOWER.contains(&name)
        && match (number(before), number(after)) {
            (Some(before), Some(after)) => after < before,
            // The default is the lower one, nearly always.
            (Some(_), None) => true,
            (None, Some(_) | None) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_each_name_is_there_once() {
        assert!(RESTART.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_server_knows_better_than_the_list() {
        let contexts = [("work_mem".to_owned(), Context::Restart)].into();
        let facts = PoolFacts { contexts, ..PoolFacts::default() };
        assert_eq!(of("work_mem", Some(&facts)), Context::Restart);
        assert_eq!(of("work_mem", None), Context::Reload);
        assert_eq!(of("shared_buffers", None), Context::Restart);
        assert_eq!(of("auto_explain.log_min_duration", None), Context::Unknown);
    }

    #[test]
    fn a_lower_limit_goes_to_the_principal_first() {
        assert!(is_principal_first("max_connections", Some("200"), Some("100")));
        assert!(is_principal_first("max_connections", Some("200"), None));
        assert!(!is_principal_first("max_connections", Some("100"), Some("200")));
        assert!(!is_principal_first("shared_buffers", Some("200"), Some("100")));
    }
}
