//! Tables of statements, with what must be said of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::*;

const COMMIT: Kind = Kind::Commit { chain: false };
const ROLLBACK: Kind = Kind::Rollback { chain: false };
const BEGIN: Kind = Kind::Begin { read_only: false, serializable: false };

pub(super) fn of(text: &str) -> Summary<'_> {
    summary(text.as_bytes(), true)
}

fn check(text: &str, count: Count, kind: Kind) {
    let found = of(text);
    assert_eq!((found.count, found.kind), (count, kind), "{text}");
}

fn all(kind: Kind, texts: &[&str]) {
    for text in texts {
        check(text, Count::One, kind);
        check(&format!("/* ; */ {text} ; -- done;"), Count::One, kind);
        check(&text.to_uppercase().replace("$TAG$", "$tag$"), Count::One, kind);
    }
}

const READS: &[&str] = &[
    "select 1",
    "select * from t where a = 'delete from t;' and b = $1",
    "(select 1) union (select 2)",
    "with t as (select 1) select * from t",
    "with t as not materialized (select 1) select * from t",
    "with t as (select \"delete\", t.insert, x as merge from y)\nselect * from t where false",
    "values (1), (2)",
    "table t",
    "show all",
    "explain delete from t",
    "explain (costs off) insert into t values (1)",
    "explain analyze select 1",
    "explain (analyze, buffers) select * from t",
    "fetch all from c",
    "move 5 in c",
    "copy t to stdout",
    "copy (select * from t) to stdout with (format csv)",
    "copy t (a, b) to stdout",
    "select substring('abc' from 1 for 2)",
    "select a.into, b as into from t",
    "select e'it''s \\'; delete from t'",
    "select $tag$; delete from t; $$ $tag$",
    "select 'a' \n 'b;c'",
    "select update from t",
];

pub(super) const WRITES: &[&str] = &[
    "insert into t values (1)",
    "insert into t(a) select a from s on conflict (a) do update set a = 1 returning *",
    "update t set a = 1",
    "delete from t",
    "merge into t using s on t.a = s.a when matched then delete",
    "with gone as (delete from t returning *) select * from gone",
    "with t as (select 1) insert into s select * from t",
    "with recursive t as (select 1) search depth first by a set o update s set a = 1",
    // A column of that name: the careful answer.
    "with t as (select 1) select update from t",
    "(with gone as (delete from t returning *) select * from gone)",
    "select * into s from t",
    "create table t (a int)",
    "create table t as select 1",
    "create temp table t (a int)",
    "create table t as execute q",
    "execute q(1)",
    "truncate t",
    "notify c, 'x'",
    "copy t from '/tmp/x'",
    "copy t from program 'cat'",
    "copy t to '/tmp/x'",
    "copy t to program 'cat'",
    "copy (insert into t values (1) returning a) to stdout",
    "copy (with x as (delete from t returning *) select * from x) to stdout",
    "grant select on t to u",
    "revoke all on t from u",
    "explain analyze insert into t values (1)",
    "explain (verbose, analyze, format json, buffers, costs off) delete from t",
    "explain analyze execute q",
    "explain analyze create table t as select 1",
    "explain analyse with x as (update t set a = 1 returning *) select * from x",
    "refresh materialized view v",
    "select f() from t for update",
    "declare c cursor with hold for select f()",
    "comment on table t is 'a;b'",
    "lock table t",
    "analyze t",
    "create index i on t (a)",
    "create role u",
    "alter role u set work_mem = '1MB'",
    "alter table t add column b int",
    "alter tablespace s rename to r",
    "alter database d set work_mem = '1MB'",
    "drop table t",
    "drop owned by u",
    "reassign owned by u to v",
    "security label on table t is 'x'",
    "import foreign schema s from server f into d",
    "create rule r as on insert to t do also (insert into s values (1); delete from u)",
    "create function f() returns int language sql as 'select 1; select 2'",
    "create function f() returns int language plpgsql as $$ begin return 1; end; $$",
    "create or replace function f() returns int begin atomic select 1; select case when true \
     then 1 else 2 end; end",
    "create procedure p() begin atomic insert into t values (1); delete from t; end",
    "create schema s create table t (a int) create view v as select 1",
];

const SESSIONS: &[&str] = &[
    "set work_mem = '1MB'",
    "set session my.name to x",
    "set local.name = 1",
    "set session characteristics as transaction read only",
    "set session authorization u",
    "set role u",
    "set time zone 'UTC'",
    "reset all",
    "reset work_mem",
    "listen c",
    "unlisten *",
    "prepare q as delete from t",
    "prepare transaction as select 1",
    "deallocate all",
    "discard all",
    "declare c cursor with hold for select 1",
    "close c",
    "load 'x'",
];

const OPAQUES: &[&str] = &[
    "vacuum t",
    "create database d",
    "drop database d",
    "create tablespace s location '/x'",
    "drop tablespace s",
    "alter database d set tablespace s",
    "create index concurrently i on t (a)",
    "create unique index concurrently i on t (a)",
    "drop index concurrently i",
    "alter table t detach partition p concurrently",
    "reindex table t",
    "cluster t",
    "alter system set work_mem = '1MB'",
    "call p()",
    "do $$ begin commit; end $$",
    "checkpoint",
    "create subscription s connection 'x' publication p",
    "alter subscription s refresh publication",
    "drop subscription s",
    "select pg_drop_replication_slot('x')",
    "select * from pg_catalog.pg_create_physical_replication_slot('x')",
    "start_replication slot x logical 0/0",
    "identify_system",
    "start x",
    "\"select\" 1",
    "1",
    "()",
];

#[test]
fn each_kind_of_statement_is_known() {
    all(Kind::Read, READS);
    all(Kind::Write, WRITES);
    all(Kind::Session, SESSIONS);
    all(Kind::Opaque, OPAQUES);
    all(Kind::CopyIn, &["copy t from stdin", "copy t (a, b) from stdin with (delimiter ';')"]);
    all(Kind::CopyIn, &["copy s.t from stdin (null 'x')"]);
    let locks = ["select * from t for update", "select 1 from t for no key update of t"];
    all(Kind::LockRead, &locks);
    let locks = ["select * from t for share", "select * from (select 1 from t for key share) x"];
    all(Kind::LockRead, &locks);
    all(Kind::LockRead, &["explain analyze select * from t for update"]);
}

#[test]
fn transactions_are_seen_to_begin_and_end() {
    all(
        BEGIN,
        &["begin", "begin work", "start transaction", "begin isolation level read committed"],
    );
    let read_only = Kind::Begin { read_only: true, serializable: false };
    all(read_only, &["begin read only", "start transaction read only, deferrable"]);
    let both = Kind::Begin { read_only: true, serializable: true };
    all(both, &["begin transaction isolation level serializable, read only, deferrable"]);
    let read_write = "begin isolation level serializable read write";
    all(Kind::Begin { read_only: false, serializable: true }, &[read_write]);
    all(COMMIT, &["commit", "end", "commit work", "end transaction", "commit and no chain"]);
    all(Kind::Commit { chain: true }, &["commit and chain", "end work and chain"]);
    all(ROLLBACK, &["rollback", "abort", "rollback work", "rollback and no chain"]);
    all(Kind::Rollback { chain: true }, &["rollback and chain", "abort transaction and chain"]);
    all(
        Kind::Savepoint,
        &[
            "savepoint a",
            "release a",
            "release savepoint a",
            "rollback to a",
            "rollback work to savepoint a",
            "set transaction isolation level serializable",
            "set local work_mem = '1MB'",
            "set constraints all deferred",
        ],
    );
}

#[test]
fn prepared_transactions_are_told_with_their_names() {
    for (text, step) in [
        ("prepare transaction 'a b'", TwoPhase::Prepare),
        ("commit prepared 'a b'", TwoPhase::Commit),
        ("ROLLBACK PREPARED $$a b$$;", TwoPhase::Rollback),
    ] {
        check(text, Count::One, Kind::TwoPhase(step));
        assert_eq!(of(text).gid, Some(&b"a b"[..]), "{text}");
    }
    assert_eq!(of("commit prepared 'it''s'").gid, None);
    assert_eq!(of("commit prepared 'a'; select 1").gid, None);
}

#[test]
fn texts_are_counted() {
    for text in ["", " ", ";", ";;-- x", "/* select 1; */", "\n\t"] {
        check(text, Count::Empty, Kind::Empty);
    }
    check("select 1; select 2", Count::Many, Kind::Read);
    check("set a = 1; select 2;", Count::Many, Kind::Session);
    check("set a = 1; set b = 2;", Count::Many, Kind::Session);
    check("select f(); select 1", Count::Many, Kind::Read);
    check("set a = 1; select set_config('b', 'c', false)", Count::Many, Kind::Session);
    for text in [
        "select 1; delete from t",
        "delete from t; select 1",
        "begin; select 1; commit",
        "set a = 1; select f()",
        "select nextval('s'); reset a",
        "begin; commit",
        "select 1; select 1 for update",
        "insert into t values (1); insert into t values (2)",
        "select 1 \\; select 2; x",
    ] {
        check(text, Count::Many, Kind::Opaque);
    }
}

#[test]
fn a_body_that_cannot_be_followed_counts_as_many() {
    let open =
        "create function f() returns int begin atomic select 1 case; end; delete from t; end";
    check(open, Count::Many, Kind::Opaque);
    let open = "create function f() returns int begin atomic select 1;";
    check(open, Count::Many, Kind::Opaque);
    check(
        "create function f() begin atomic select 1; end; delete from t",
        Count::Many,
        Kind::Opaque,
    );
    check("create table atomic (a int); begin", Count::Many, Kind::Opaque);
}

#[test]
fn a_text_without_an_end_is_opaque() {
    for text in ["select 'a", "select 1 /* x", "select \"a", "select $$a", "'", "e'", "u&\""] {
        assert_eq!(of(text).kind, Kind::Opaque, "{text}");
    }
}

#[test]
fn a_backslash_counts_when_strings_do_not_conform() {
    let text = br"select 'a\'; delete from t; --'";
    assert_eq!(summary(text, false).count, Count::One);
    assert_eq!(summary(text, true).count, Count::Many);
    let text = br"select 'a\'; delete from t";
    assert_eq!(summary(text, true).kind, Kind::Opaque);
}

#[test]
fn calls_are_seen() {
    for text in [
        "select f()",
        "select s.f (1)",
        "select \"f\"(1)",
        "select f /* x */ (1)",
        "select x.count(1)",
        "select \"Count\"(f(1))",
        "select reset(1)",
        "select pg_advisory_xact_lock(1)",
        "explain analyze select f()",
        "select nextval('s')",
        "select s.by(1)",
    ] {
        assert!(of(text).calls, "{text}");
    }
    for text in [
        "select count(*), now(), pg_catalog.max(a), coalesce(a, (b)) from t where a in (1, 2)",
        "values (1), (2)",
        "select a::varchar(3), a::public_type(3), cast(a as vector(3)) from t",
        "with a as materialized (select 1) select * from a join b using (c) where exists (table t)",
        "select rank() over (partition by (a) order by (b)) from t group by (a), rollup (b)",
        "select 'f()'",
        "explain (analyze) select 1",
        "select current_setting('synchronous_commit')",
    ] {
        assert!(!of(text).calls, "{text}");
    }
}

#[test]
fn what_a_text_touches_is_told() {
    for (text, touches) in [
        ("select 1", Touches::NONE),
        ("set a = 1", Touches::SETTING),
        ("set local a = 1", Touches::NONE),
        ("set transaction read only", Touches::NONE),
        ("reset a", Touches::SETTING),
        ("reset all", Touches::SETTING | Touches::RESETS),
        ("select set_config('a', 'b', false)", Touches::SETTING),
        ("update pg_settings set setting = 'b' where name = 'a'", Touches::SETTING),
        ("select * from pg_settings", Touches::NONE),
        ("create temp table t (a int)", Touches::TEMP),
        ("create local temporary table t (a int)", Touches::TEMP),
        ("create or replace temp view v as select 1", Touches::TEMP),
        ("create table temp (a int)", Touches::NONE),
        ("create table pg_temp.t (a int)", Touches::TEMP),
        ("create function pg_temp.f() returns int language sql as ''", Touches::TEMP),
        (
            "create function f() returns int language sql set search_path = a, pg_temp as ''",
            Touches::NONE,
        ),
        ("select * from pg_temp.t", Touches::NONE),
        ("set search_path = pg_temp, a", Touches::SETTING | Touches::TEMP),
        ("set search_path = a, pg_temp", Touches::SETTING),
        ("select set_config('search_path', 'pg_temp,a', false)", Touches::SETTING | Touches::TEMP),
        ("select 1 into temp t", Touches::TEMP),
        ("select 1 into local temporary table t", Touches::TEMP),
        ("insert into temp values (1)", Touches::NONE),
        ("select pg_try_advisory_lock(1)", Touches::ADVISORY),
        ("select pg_advisory_xact_lock(1)", Touches::NONE),
        ("declare c cursor with hold for select 1", Touches::HOLD),
        ("declare c cursor without hold for select 1", Touches::NONE),
        ("listen c", Touches::LISTEN),
        ("unlisten *", Touches::LISTEN),
        ("prepare q as select 1", Touches::PREPARED),
        ("execute q", Touches::PREPARED),
        ("deallocate q", Touches::PREPARED),
        ("prepare transaction 'x'", Touches::NONE),
        ("notify c", Touches::NOTIFY),
        ("select pg_notify('c', 'x')", Touches::NOTIFY),
        ("select lo_open(1, 2)", Touches::LARGE_OBJECT),
        ("call p()", Touches::BODY),
        ("do ''", Touches::BODY),
        ("select nextval('s')", Touches::SEQUENCE),
        ("select 1; listen c; set a = 1", Touches::LISTEN | Touches::SETTING),
        ("discard temp", Touches::NONE),
    ] {
        assert_eq!(of(text).touches, touches, "{text}");
    }
    assert!(of("discard all").touches.any(Touches::DISCARDS));
}

#[test]
fn isolation_is_told_wherever_it_is_set() {
    for text in [
        "set transaction isolation level serializable",
        "set session characteristics as transaction isolation level serializable",
        "set default_transaction_isolation = 'serializable'",
        "set default_transaction_isolation to serializable",
        "select set_config('transaction_isolation', 'serializable', true)",
        "begin isolation level serializable",
    ] {
        assert!(of(text).serializable, "{text}");
    }
    assert!(!of("select 'serializable'").serializable);
}

fn settings(text: &str) -> Vec<String> {
    of(text).settings().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn settings_are_named() {
    for (text, names) in [
        ("set Work_mem = 1; select 1; reset a", &["Work_mem", "a"][..]),
        ("set session my.own.name to x", &["my.own.name"]),
        ("set \"A b\" = 1", &["A b"]),
        ("set local a = 1", &[]),
        ("set local.a = 1", &["local.a"]),
        ("set session.a = 1", &["session.a"]),
        ("set session authorization u", &["session_authorization"]),
        ("reset session authorization", &["session_authorization"]),
        ("set role u", &["role"]),
        ("set time zone 'UTC'", &["TimeZone"]),
        ("set names 'x'", &["client_encoding"]),
        ("set schema 'x'", &["search_path"]),
        ("set xml option content", &["xmloption"]),
        ("reset all", &[]),
        (
            "select set_config('a.b', $1, false), pg_catalog.set_config('c', 'd', true)",
            &["a.b", "c"],
        ),
        ("select set_config($1, 'x', false)", &[]),
        ("select 'set a = 1'", &[]),
        (
            "set session characteristics as transaction read only",
            &[
                "default_transaction_isolation",
                "default_transaction_read_only",
                "default_transaction_deferrable",
            ],
        ),
    ] {
        assert_eq!(settings(text), names, "{text}");
    }
}

#[test]
fn settings_without_a_plain_name_are_told() {
    for text in [
        "select set_config($1, 'x', false)",
        "select set_config('a' || 'b', 'x', false)",
        "select set_config(E'a\\x62', 'x', false)",
        "select set_config(setting_name => 'a', new_value => 'x', is_local => false)",
        "set u&\"a\" = 1",
        "set \"a\".b = 1",
        "update pg_settings set setting = 'x'",
    ] {
        assert!(of(text).sets_unnamed, "{text}");
    }
    for text in
        ["set a.b = 1", "set \"a\" = 1", "select set_config('a', $1, false)", "select u&\"a\""]
    {
        assert!(!of(text).sets_unnamed, "{text}");
    }
}

/// With NAME, LOW and FINE for a watched setting and its values.
const CHANGES: &[&str] = &[
    "set NAME = LOW",
    "SET LOCAL NAME TO 'LOW'",
    "set session \"NAME\" = LOW",
    "select 1; set NAME = LOW; select 1",
    "set NAME = e'LOW'",
    "set NAME = odd",
    "set NAME",
    "alter role u set NAME = LOW",
    "alter role u in database d set NAME to LOW",
    "alter database d set NAME = LOW",
    "alter system set NAME = LOW",
    "alter function f() set NAME = LOW",
    "create function f() returns int language sql set NAME = LOW as 'select 1'",
    "create function f() returns int language plpgsql as $$ begin set local NAME = LOW; end $$",
    "create procedure p() language plpgsql as 'begin execute ''set NAME to LOW''; end'",
    "do $$ begin perform set_config('NAME', 'LOW', false); end $$",
    "do $$ begin perform set_config('NAME', x, false); end $$",
    "select set_config('NAME', 'LOW', false)",
    "select pg_catalog.set_config ( 'NAME' , $1, true)",
    "select set_config('NAME', 'FINE' || x, true)",
    "select set_config(n, 'LOW', false) from (values ('NAME')) v(n)",
    "update pg_settings set setting = 'LOW' where name = 'NAME'",
    "with x as (update pg_settings set setting = 'LOW' where name = 'NAME') select 1",
    "execute q('NAME', 'LOW')",
    "call p('NAME', 'LOW')",
];

const KEEPS: &[&str] = &[
    "set NAME = FINE",
    "set local NAME to 'FINE'",
    "set NAME to default",
    "reset NAME",
    "show NAME",
    "select current_setting('NAME')",
    "select * from pg_settings where name = 'NAME'",
    "select set_config('NAME', 'FINE', false)",
    "select 'set NAME = LOW'",
    "update t set NAME = 'LOW'",
    "insert into t values ('NAME', 'LOW')",
    "alter role u set NAME = FINE",
    "alter role u reset NAME",
    "create function f() returns int language sql set NAME from current as ''",
    "do $$ begin set local NAME = FINE; end $$",
    "do $$ begin perform set_config('NAME', 'FINE', true); end $$",
    "do $$ begin raise notice '%', current_setting('NAME'); end $$",
    "comment on table t is 'set NAME = LOW'",
];

fn watched(name: &str, low: &[&str], fine: &[&str], told: fn(&Summary<'_>) -> bool) {
    let filled = |text: &str, low: &str, fine: &str| {
        text.replace("NAME", name).replace("LOW", low).replace("FINE", fine)
    };
    for text in CHANGES.iter().flat_map(|text| low.iter().map(|low| filled(text, low, fine[0]))) {
        assert!(told(&of(&text)), "{text}");
    }
    for text in KEEPS.iter().flat_map(|text| fine.iter().map(|fine| filled(text, low[0], fine))) {
        assert!(!told(&of(&text)), "{text}");
    }
}

#[test]
fn lowering_of_commits_is_seen() {
    let low = ["off", "local", "remote_write", "false", "0", "no", "OFF"];
    let fine = ["on", "remote_apply", "true", "ON"];
    watched("synchronous_commit", &low, &fine, |found| found.lowers_commit);
    watched("SYNCHRONOUS_commit", &low, &fine, |found| found.lowers_commit);
    assert!(lowers_commit(b"Synchronous_Commit", b"off"));
    assert!(!lowers_commit(b"synchronous_commit", b"remote_apply"));
    assert!(!lowers_commit(b"work_mem", b"off"));
}

#[test]
fn hiding_of_notices_is_seen() {
    let fine = ["warning", "notice", "debug5", "log"];
    watched("client_min_messages", &["error", "fatal", "panic"], &fine, |found| {
        found.hides_notices
    });
    assert!(hides_notices(b"client_min_messages", b"ERROR"));
    assert!(!hides_notices(b"client_min_messages", b"notice"));
}

#[test]
fn encodings_with_ascii_inside_of_letters_are_refused() {
    assert!(!is_readable(b"sjis"));
    assert!(is_readable(b"UTF8"));
    assert!(is_readable(b"EUC_JP"));
}
