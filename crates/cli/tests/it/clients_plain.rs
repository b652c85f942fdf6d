//! What people do with PostgreSQL besides writing rows, through a Front End and without faults.
//!
//! One demo serves all of it, and the checks run side by side: they are each other's neighbours,
//! which a gateway must keep apart. Each check names its tables after itself.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::clients::front_end;
use crate::clients_programs::{python, source};
use crate::place::Told;
use crate::stage::{Demo, process};

const PATIENCE: Duration = Duration::from_secs(30);

/// Of the gateway, while values of 100 MB go through it.
const MEMORY_KB: u64 = 100 * 1024;

/// The functions of `python/checks.py`.
const IN_PYTHON: [&str; 13] = [
    "psycopg_copies_both_ways",
    "psycopg_gives_up_a_copy",
    "psycopg_leaves_in_the_middle_of_an_answer",
    "psycopg_reads_in_portions",
    "psycopg_hears_notifications",
    "psycopg_cancels",
    "psycopg_goes_on_after_errors_in_a_pipeline",
    "psycopg_sends_and_receives_100_megabytes",
    "psycopg_is_told_who_it_is",
    "asyncpg_copies_both_ways",
    "asyncpg_reads_in_portions",
    "asyncpg_hears_notifications",
    "asyncpg_cancels",
];

/// The Front End of a demo, and a directory to work in.
struct Scene<'a> {
    demo: &'a Demo,
    uri: String,
    dir: PathBuf,
}

type Check = fn(&Scene<'_>);

/// What is looked at; without a function it is one of Python's.
type Task = (&'static str, Option<Check>);

/// How many checks run side by side.
const LANES: usize = 3;

const CHECKS: [(&str, Check); 12] = [
    ("psql copies in and out", psql_copies_in_and_out),
    ("psql cancels", psql_cancels),
    ("psql keeps large objects", psql_keeps_large_objects),
    ("psql scripts", psql_goes_on_after_errors_of_a_script),
    ("pgbench", pgbench_in_every_mode),
    ("pgbench pipelines", pgbench_in_a_pipeline),
    ("pgbench connects", pgbench_with_a_connection_for_each_transaction),
    ("dump and restore", a_dump_is_restored),
    ("TLS", tls_as_the_client_wants_it),
    ("strangers", strangers_are_not_told_who_exists),
    ("neighbours", a_client_finds_nothing_of_the_one_before),
    ("replication", replication_is_refused_in_words),
];

#[test]
fn whatever_people_do_with_postgresql_they_do_through_a_front_end() {
    let demo = Demo::start("plain", &["--profile", "tolerant"]);
    let scene = &Scene { demo: &demo, uri: front_end(&demo), dir: demo.place.path().join("work") };
    fs::create_dir(&scene.dir).unwrap();
    let in_python = IN_PYTHON.iter().map(|name| (*name, None));
    let in_rust = CHECKS.iter().map(|(name, check)| (*name, Some(*check)));
    let tasks: Mutex<Vec<Task>> = Mutex::new(in_python.chain(in_rust).collect());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| work_off(scene, &tasks, &failed));
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "see above why these failed: {failed:?}");
    values_of_100_megabytes_did_not_stay_in_memory(scene);
    a_front_end_without_a_certificate_refuses_tls_politely(scene);
}

/// Takes one task after the other; one that fails keeps nobody from the others.
fn work_off(scene: &Scene<'_>, tasks: &Mutex<Vec<Task>>, failed: &Mutex<Vec<&'static str>>) {
    loop {
        let next = tasks.lock().unwrap().pop();
        let Some((name, check)) = next else { return };
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| match check {
            Some(check) => check(scene),
            None => scene.python(name),
        }));
        if done.is_err() {
            failed.lock().unwrap().push(name);
        }
    }
}

/// A program whose end is waited for, but not for ever.
struct Running {
    pid: Pid,
    output: Receiver<Output>,
    shown: String,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let (pid, (sender, output)) = (Pid::from_child(&child), mpsc::channel());
        std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
        Running { pid, output, shown }
    }

    #[track_caller]
    fn end(self) -> Told {
        if let Ok(output) = self.output.recv_timeout(PATIENCE) {
            return Told::from(output);
        }
        let _ = kill_process(self.pid, Signal::KILL);
        panic!("it does not end: {}", self.shown);
    }
}

#[track_caller]
pub fn ended(command: &mut Command) -> Told {
    Running::start(command).end()
}

impl Scene<'_> {
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.dir).env("PGAPPNAME", program);
        command
    }

    /// The program's `args`, with the URI after them.
    fn run(&self, program: &str, args: &[&str]) -> Told {
        let mut command = self.command(program, args);
        ended(command.arg(&self.uri))
    }

    fn psql(&self, uri: &str, statements: &[&str]) -> Told {
        let mut command = self.command("psql", &["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        for statement in statements {
            command.args(["-c", statement]);
        }
        ended(command.arg(uri))
    }

    /// What the last statement answers.
    #[track_caller]
    fn ask(&self, statements: &[&str]) -> String {
        self.psql(&self.uri, statements).expect(0).data.trim().to_owned()
    }

    #[track_caller]
    fn python(&self, check: &str) {
        let mut python = python();
        let python = python.arg(source("python/checks.py")).args([&self.uri, check]);
        ended(python.current_dir(&self.dir)).expect(0);
    }

    fn with(&self, parameters: &str) -> String {
        let mark = if self.uri.contains('?') { '&' } else { '?' };
        format!("{}{mark}{parameters}", self.uri)
    }

    fn certificate(&self) -> String {
        let config = fs::read_to_string(self.front_end_config()).unwrap();
        let config: toml::Table = config.parse().unwrap();
        config["tls"]["certificate"].as_str().unwrap().to_owned()
    }

    fn front_end_config(&self) -> PathBuf {
        let status = self.demo.status();
        let all = status["processes"].as_array().unwrap();
        let one = all.iter().find(|one| one["kind"] == "front_end").unwrap();
        let state = Path::new(one["state_directory"].as_str().unwrap());
        state.parent().unwrap().join("config.toml")
    }
}

fn psql_copies_in_and_out(scene: &Scene<'_>) {
    let lines: Vec<String> = (0..20_000).map(|number| format!("{number}\tline {number}")).collect();
    let text = lines.join("\n") + "\n";
    fs::write(scene.dir.join("copied-in"), &text).unwrap();
    scene.ask(&["CREATE TABLE psql_copy (number int, text text)"]);
    scene.ask(&["\\copy psql_copy from 'copied-in'"]);
    scene.ask(&["\\copy (select * from psql_copy order by 1) to 'copied-out'"]);
    assert_eq!(fs::read_to_string(scene.dir.join("copied-out")).unwrap(), text);
    let told =
        scene.psql(&scene.uri, &["\\copy psql_copy from program 'echo no number'"]).expect(1);
    assert!(told.talk.contains("invalid input syntax"), "{}", told.talk);
}

fn psql_cancels(scene: &Scene<'_>) {
    let mut command = scene.command("psql", &["-XAtq", "-v", "VERBOSITY=verbose"]);
    let command =
        command.args(["-c", "SELECT pg_sleep(60)"]).arg(scene.with("application_name=sleeper"));
    let psql = Running::start(command);
    let sleeps = "SELECT count(*) FROM pg_stat_activity \
                  WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'";
    let deadline = Instant::now() + PATIENCE;
    while scene.ask(&[sleeps]) != "1" {
        assert!(Instant::now() < deadline, "psql does not sleep");
    }
    kill_process(psql.pid, Signal::INT).unwrap();
    let told = psql.end().expect(1);
    assert!(told.talk.contains("57014"), "{}", told.talk);
}

fn psql_keeps_large_objects(scene: &Scene<'_>) {
    let bytes: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(scene.dir.join("large"), &bytes).unwrap();
    let told = scene.ask(&["\\lo_import large", "SELECT oid FROM pg_largeobject_metadata"]);
    let oid = told.lines().last().unwrap();
    scene.ask(&[&format!("\\lo_export {oid} large-again"), &format!("\\lo_unlink {oid}")]);
    assert!(fs::read(scene.dir.join("large-again")).unwrap() == bytes);
    assert_eq!(scene.ask(&["SELECT count(*) FROM pg_largeobject_metadata"]), "0");
}

fn psql_goes_on_after_errors_of_a_script(scene: &Scene<'_>) {
    let script = "CREATE TABLE psql_script (n int);\n\
                  BEGIN;\nINSERT INTO psql_script VALUES (1);\nSAVEPOINT here;\nSELECT 1/0;\n\
                  ROLLBACK TO here;\nINSERT INTO psql_script VALUES (2);\nCOMMIT;\n\
                  SELECT 1 \\; INSERT INTO psql_script VALUES (3) \\; SELECT sum(n) FROM psql_script;\n\
                  SELECT count(*) FROM generate_series(1, 3000) \\gset\n\\echo :count\n\
                  SELECT $1::int + 1 \\bind 41 \\g\n";
    fs::write(scene.dir.join("script.sql"), script).unwrap();
    let told = scene.run("psql", &["-XAtq", "-f", "script.sql"]).expect(0);
    assert!(told.talk.contains("division by zero"), "{}", told.talk);
    let lines: Vec<&str> = told.data.lines().collect();
    assert!(lines.starts_with(&["1", "6", "3000"]), "{lines:?}");
}

fn pgbench_in_every_mode(scene: &Scene<'_>) {
    scene.run("pgbench", &["-iq", "-s", "1"]).expect(0);
    for mode in ["simple", "extended", "prepared"] {
        let told = scene.run("pgbench", &["-n", "-M", mode, "-c", "4", "-t", "25"]).expect(0);
        assert!(told.data.contains("actually processed: 100/100"), "{}", told.data);
        assert!(!told.talk.contains("ERROR"), "{}", told.talk);
    }
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) \
                = (SELECT sum(delta) FROM pgbench_history), count(*) FROM pgbench_history";
    assert_eq!(scene.ask(&[sums]), "t|300");
}

fn pgbench_in_a_pipeline(scene: &Scene<'_>) {
    scene.ask(&["CREATE TABLE pgbench_pipeline (n int)"]);
    let insert = "INSERT INTO pgbench_pipeline VALUES (:client_id);\n";
    let script = format!("\\startpipeline\nBEGIN;\n{}COMMIT;\n\\endpipeline\n", insert.repeat(20));
    fs::write(scene.dir.join("pipeline.sql"), script).unwrap();
    for mode in ["extended", "prepared"] {
        let args = ["-n", "-M", mode, "-c", "3", "-t", "10", "-f", "pipeline.sql"];
        let told = scene.run("pgbench", &args).expect(0);
        assert!(told.data.contains("actually processed: 30/30"), "{}", told.data);
    }
    assert_eq!(scene.ask(&["SELECT count(*) FROM pgbench_pipeline"]), "1200");
}

fn pgbench_with_a_connection_for_each_transaction(scene: &Scene<'_>) {
    fs::write(scene.dir.join("one.sql"), "SELECT 1;\n").unwrap();
    let told =
        scene.run("pgbench", &["-n", "-C", "-c", "4", "-t", "50", "-f", "one.sql"]).expect(0);
    assert!(told.data.contains("actually processed: 200/200"), "{}", told.data);
}

/// In the custom form, and by several connections that share one snapshot.
fn a_dump_is_restored(scene: &Scene<'_>) {
    scene.ask(&[
        "CREATE SCHEMA dumped",
        "CREATE TABLE dumped.one (n int PRIMARY KEY, text text)",
        "INSERT INTO dumped.one SELECT n, repeat(n::text, 20) FROM generate_series(1, 20000) n",
        "CREATE TABLE dumped.two AS SELECT * FROM dumped.one",
        "CREATE VIEW dumped.both AS TABLE dumped.one UNION ALL TABLE dumped.two",
    ]);
    let sum = "SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM dumped.both";
    let before = scene.ask(&[sum]);
    for (form, jobs) in [("custom", "1"), ("directory", "2")] {
        let file = format!("dump-{form}");
        let to = ["-n", "dumped", "-F", form, "-j", jobs, "-f", &file, "-d"];
        scene.run("pg_dump", &to).expect(0);
        scene.ask(&["DROP SCHEMA dumped CASCADE"]);
        let mut restore = scene.command("pg_restore", &["-e", "-j", jobs, "-d", &scene.uri, &file]);
        ended(&mut restore).expect(0);
        assert_eq!(scene.ask(&[sum]), before);
    }
}

fn tls_as_the_client_wants_it(scene: &Scene<'_>) {
    let is_encrypted = |parameters: &str| {
        let told = scene.psql(&scene.with(parameters), &["\\conninfo"]).expect(0);
        told.data.contains("SSL connection")
    };
    let checked = format!("sslmode=verify-full&sslrootcert={}", scene.certificate());
    for (parameters, encrypted) in [
        ("sslmode=disable", false),
        ("sslmode=allow", false),
        ("sslmode=prefer", true),
        ("sslmode=require&channel_binding=require", true),
        ("sslmode=prefer&ssl_max_protocol_version=TLSv1.2", true),
        ("sslmode=require&gssencmode=prefer", true),
        (&checked, true),
    ] {
        assert_eq!(is_encrypted(parameters), encrypted, "{parameters}");
    }
}

fn strangers_are_not_told_who_exists(scene: &Scene<'_>) {
    let (scheme, rest) = scene.uri.split_once("://").unwrap();
    let (user, rest) = rest.split_once(':').unwrap();
    let (_, rest) = rest.split_once('@').unwrap();
    let refused = |user: &str| {
        let uri = format!("{scheme}://{user}:wrong@{rest}");
        scene.psql(&uri, &["SELECT 1"]).expect(2).talk.replace(user, "(user)")
    };
    let known = refused(user);
    assert!(known.contains("password authentication failed"), "{known}");
    assert_eq!(refused("nobody_here"), known);
}

fn a_client_finds_nothing_of_the_one_before(scene: &Scene<'_>) {
    let state = "SELECT current_setting('work_mem'), current_setting('neighbour.mark', true), \
                 current_setting('application_name'), to_regclass('pg_temp.left_behind'), \
                 (SELECT count(*) FROM pg_listening_channels()), \
                 (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'backstay%'), \
                 (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
                 (SELECT count(*) FROM pg_cursors WHERE is_holdable)";
    let fresh = scene.ask(&[state]);
    for _ in 0..20 {
        scene.ask(&[
            "SET work_mem = '7MB'",
            "SET neighbour.mark = 'mine'",
            "SET application_name = 'somebody'",
            "CREATE TEMPORARY TABLE left_behind (n int)",
            "LISTEN neighbour",
            "PREPARE neighbour AS SELECT 1",
            "SELECT pg_advisory_lock(4711)",
            "DECLARE neighbour CURSOR WITH HOLD FOR SELECT 1",
            // And leaves in the middle of a transaction.
            "BEGIN",
            "CREATE TABLE never_there (n int)",
        ]);
        // A setting that was never made and one that was reset look alike to an application.
        assert_eq!(scene.ask(&[state]), fresh);
    }
    assert_eq!(scene.ask(&["SELECT to_regclass('never_there')"]), "");
}

fn replication_is_refused_in_words(scene: &Scene<'_>) {
    let mut command = scene.command("psql", &["-X", "-c", "IDENTIFY_SYSTEM"]);
    let told = ended(command.arg(scene.with("replication=database")));
    let told = told.expect(2);
    assert!(told.talk.contains("replication"), "{}", told.talk);
}

fn values_of_100_megabytes_did_not_stay_in_memory(scene: &Scene<'_>) {
    let status = scene.demo.status();
    let all = status["processes"].as_array().unwrap();
    let name = all.iter().find(|one| one["kind"] == "front_end").unwrap()["name"].as_str().unwrap();
    let pid = process(&status, name)["pid"].as_i64().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MEMORY_KB, "the gateway took {peak} kB");
}

/// A program that ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A second one, beside the demo's own.
fn a_front_end_without_a_certificate_refuses_tls_politely(scene: &Scene<'_>) {
    let config = fs::read_to_string(scene.front_end_config()).unwrap();
    let mut config: toml::Table = config.parse().unwrap();
    config.remove("tls");
    let port = free_port();
    for (key, value) in [("listen", port), ("admin_listen", free_port())] {
        config.insert(key.to_owned(), format!("127.0.0.1:{value}").into());
    }
    let state = scene.dir.join("second");
    // The members know it by the first one's certificate; clients are shown none.
    let first = config["state_dir"].as_str().unwrap().to_owned();
    fs::create_dir_all(state.join("trust")).unwrap();
    for file in fs::read_dir(Path::new(&first).join("trust")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), state.join("trust").join(file.file_name())).unwrap();
    }
    config.insert("state_dir".to_owned(), state.to_str().unwrap().into());
    scene.demo.place.write("second.toml", &config.to_string());
    let log = fs::File::create(scene.dir.join("second.log")).unwrap();
    let mut command = scene.demo.place.command(&["front-end", "--config", "second.toml"]);
    let _second = Held(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());

    let (start, rest) = scene.uri.split_once('@').unwrap();
    let (_, end) = rest.split_once('/').unwrap();
    let end = end.split_once('?').map_or(end, |(database, _)| database);
    let uri = format!("{start}@127.0.0.1:{port}/{end}");
    let deadline = Instant::now() + PATIENCE;
    while scene.psql(&format!("{uri}?sslmode=prefer"), &["SELECT 1"]).code != 0 {
        let log = || fs::read_to_string(scene.dir.join("second.log")).unwrap();
        assert!(Instant::now() < deadline, "{}", log());
    }
    let told = scene.psql(&format!("{uri}?sslmode=require"), &["SELECT 1"]).expect(2);
    assert!(told.talk.contains("server does not support SSL"), "{}", told.talk);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
