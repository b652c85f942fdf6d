//! The functions of PostgreSQL that a client session may call, and what they leave behind.
//!
//! Three kinds: those that touch what a new server would not know, those that are known to only
//! read, and all others, of which nothing is known. The lists are sorted, and
//! searched only where something is called.

use super::Touches;

/// What a call of a function means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// It only reads.
    Reads,
    /// Nothing is known of it.
    Unknown,
    /// It touches this.
    Touches(Touches),
    /// `set_config`, whose first argument is the name of a setting.
    SetConfig,
    /// It works on a replication slot, outside of any transaction.
    Slot,
}

/// What the function of PostgreSQL's that bears this name does.
pub(super) fn call(name: &[u8]) -> Call {
    if is_among(name, HARMLESS) {
        return Call::Reads;
    }
    for (names, touches) in [
        (SEQUENCES, Touches::SEQUENCE),
        (ADVISORY, Touches::ADVISORY),
        (LARGE_OBJECTS, Touches::LARGE_OBJECT),
        (&["pg_notify"][..], Touches::NOTIFY),
    ] {
        if is_among(name, names) {
            return Call::Touches(touches);
        }
    }
    if name.eq_ignore_ascii_case(b"set_config") {
        Call::SetConfig
    } else if is_among(name, SLOTS) {
        Call::Slot
    } else {
        Call::Unknown
    }
}

/// Whether a sorted list has this name, in any case.
fn is_among(name: &[u8], names: &[&str]) -> bool {
    names
        .binary_search_by(|other| {
            other.bytes().cmp(name.iter().map(|byte| byte.to_ascii_lowercase()))
        })
        .is_ok()
}

const SEQUENCES: &[&str] = &["currval", "lastval", "nextval", "setval"];

const ADVISORY: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

const LARGE_OBJECTS: &[&str] = &[
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
];

const SLOTS: &[&str] = &[
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_drop_replication_slot",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_get_changes",
    "pg_replication_slot_advance",
    "pg_sync_replication_slots",
];

/// Functions that only read, and that statements call every day.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "abs", "age", "array_agg", "array_append", "array_cat", "array_length", "array_lower",
    "array_position", "array_prepend", "array_remove", "array_to_json", "array_to_string",
    "array_upper", "ascii", "avg", "bit_and", "bit_length", "bit_or", "bool_and", "bool_or",
    "btrim", "cardinality", "ceil", "ceiling", "char_length", "character_length", "chr",
    "clock_timestamp", "col_description", "concat", "concat_ws", "corr", "count", "cume_dist",
    "current_database", "current_schema", "current_schemas", "current_setting", "current_timestamp",
    "date_bin", "date_part", "date_trunc", "decode", "degrees", "dense_rank", "div", "encode",
    "every", "exp", "first_value", "floor", "format", "format_type", "gen_random_uuid",
    "generate_series", "generate_subscripts", "has_column_privilege", "has_database_privilege",
    "has_schema_privilege", "has_table_privilege", "hashtext", "hashtextextended", "host",
    "inet_client_addr", "inet_server_addr", "inet_server_port", "initcap", "isfinite", "json_agg",
    "json_array_elements", "json_array_length", "json_build_array", "json_build_object",
    "json_each", "json_extract_path_text", "json_object_agg", "json_object_keys",
    "json_strip_nulls", "json_typeof", "jsonb_agg", "jsonb_array_elements",
    "jsonb_array_elements_text", "jsonb_array_length", "jsonb_build_array", "jsonb_build_object",
    "jsonb_each", "jsonb_each_text", "jsonb_extract_path_text", "jsonb_object_agg",
    "jsonb_object_keys", "jsonb_path_query", "jsonb_pretty", "jsonb_set", "jsonb_strip_nulls",
    "jsonb_to_recordset", "jsonb_typeof", "justify_interval", "lag", "last_value", "lead", "left",
    "length", "ln", "log", "lower", "lpad", "ltrim", "make_date", "make_interval", "make_timestamp",
    "make_timestamptz", "max", "md5", "min", "mod", "mode", "now", "nth_value", "ntile",
    "num_nonnulls", "num_nulls", "obj_description", "octet_length", "percent_rank",
    "percentile_cont", "percentile_disc", "pg_backend_pid", "pg_char_to_encoding",
    "pg_client_encoding", "pg_column_size", "pg_current_wal_lsn", "pg_database_size",
    "pg_encoding_to_char", "pg_function_is_visible", "pg_get_constraintdef", "pg_get_expr",
    "pg_get_function_arguments", "pg_get_function_identity_arguments", "pg_get_function_result",
    "pg_get_functiondef", "pg_get_indexdef", "pg_get_keywords", "pg_get_partkeydef",
    "pg_get_ruledef", "pg_get_serial_sequence", "pg_get_triggerdef", "pg_get_userbyid",
    "pg_get_viewdef", "pg_indexes_size", "pg_is_in_recovery", "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_postmaster_start_time",
    "pg_relation_size", "pg_size_pretty", "pg_sleep", "pg_table_is_visible", "pg_table_size",
    "pg_tablespace_location", "pg_total_relation_size", "pg_type_is_visible", "pg_typeof",
    "pg_wal_lsn_diff", "pi", "plainto_tsquery", "pow", "power", "quote_ident", "quote_literal",
    "quote_nullable", "radians", "random", "range_merge", "rank", "regexp_match", "regexp_matches",
    "regexp_replace", "regexp_split_to_array", "regexp_split_to_table", "regr_slope", "repeat",
    "replace", "reverse", "right", "round", "row_number", "row_to_json", "rpad", "rtrim", "sha224",
    "sha256", "sha384", "sha512", "shobj_description", "sign", "similarity", "split_part", "sqrt",
    "starts_with", "statement_timestamp", "stddev", "stddev_pop", "stddev_samp", "string_agg",
    "string_to_array", "string_to_table", "strpos", "substr", "sum", "timeofday", "timezone",
    "to_char", "to_date", "to_hex", "to_json", "to_jsonb", "to_number", "to_regclass",
    "to_regnamespace", "to_regproc", "to_regrole", "to_regtype", "to_timestamp", "to_tsquery",
    "to_tsvector", "transaction_timestamp", "translate", "trunc", "ts_headline", "ts_rank",
    "unnest", "upper", "var_pop", "var_samp", "variance", "version", "websearch_to_tsquery",
    "width_bucket",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        for names in [SEQUENCES, ADVISORY, LARGE_OBJECTS, SLOTS, HARMLESS] {
            for pair in names.windows(2) {
                assert!(pair[0] < pair[1], "{} stands before {}", pair[0], pair[1]);
            }
        }
    }

    #[test]
    fn what_a_call_leaves_behind_is_known() {
        assert_eq!(call(b"COUNT"), Call::Reads);
        assert_eq!(call(b"pg_try_advisory_lock"), Call::Touches(Touches::ADVISORY));
        assert_eq!(call(b"pg_advisory_xact_lock"), Call::Unknown);
        assert_eq!(call(b"Nextval"), Call::Touches(Touches::SEQUENCE));
        assert_eq!(call(b"lo_open"), Call::Touches(Touches::LARGE_OBJECT));
        assert_eq!(call(b"set_config"), Call::SetConfig);
        assert_eq!(call(b"pg_drop_replication_slot"), Call::Slot);
        assert_eq!(call(b"mine"), Call::Unknown);
    }
}
