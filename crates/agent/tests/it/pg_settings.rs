//! What the server runs with, and what is refused before it runs.

use agent::postgres::create::{self, DataDir};
use agent::postgres::{Error, Version};
use session::{Fact, Found, Order};

use crate::rig::{Rig, eventually, one};

#[tokio::test]
async fn alter_system_is_beaten_by_the_command_line() {
    let mut rig = Rig::new();
    let theirs = rig.instance.data_dir.join("postgresql.conf");
    let with = std::fs::read_to_string(&theirs).unwrap() + "\nwork_mem = '7MB'\n";
    std::fs::write(&theirs, with).unwrap();
    rig.instance.settings.insert("maintenance_work_mem".to_owned(), "65MB".to_owned());
    assert_eq!(rig.drive().await, Found::Stopped);
    rig.run_alone(false).await;
    let sql = rig.sql().await;
    for setting in [
        "synchronous_standby_names = ''",
        "fsync = off",
        "restart_after_crash = on",
        "primary_conninfo = 'host=stranger'",
        "restore_command = 'false'",
        "log_line_prefix = 'kept '",
    ] {
        sql.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    rig.run_alone(true).await;
    let sql = rig.sql().await;
    let names = "ANY 1 (\"backstay_mirror\", \"backstay_exposed\")";
    for (name, value) in [
        ("synchronous_standby_names", names),
        ("fsync", "on"),
        ("restart_after_crash", "off"),
        ("primary_conninfo", ""),
        ("restore_command", ""),
        ("log_line_prefix", "kept "),
        ("work_mem", "7MB"),
        ("maintenance_work_mem", "65MB"),
    ] {
        assert_eq!(one(&sql, &format!("SHOW {name}")).await, value, "{name}");
    }
}

#[test]
fn settings_of_our_own_are_refused() {
    let mut instance = crate::rig::seed().clone();
    instance.settings.insert("synchronous_standby_names".to_owned(), "*".to_owned());
    let refused = agent::postgres::settings::check(&instance).unwrap_err();
    assert!(refused.hint().unwrap().contains("remove synchronous_standby_names"), "{refused}");
}

#[test]
fn foreign_data_is_never_taken() {
    let rig = Rig::new();
    let version = Version::of_programs(&rig.instance.bin_dir).unwrap();
    let look = |instance: &agent::postgres::Instance| create::look(instance, version);
    assert_eq!(look(&rig.instance).unwrap(), DataDir::Cluster);
    let mut other = rig.instance.clone();
    other.pool = "pool02".to_owned();
    assert_refused(look(&other), "belongs to the pool \"pool01\"");
    std::fs::write(rig.instance.data_dir.join("PG_VERSION"), "13\n").unwrap();
    assert_refused(look(&rig.instance), "made by PostgreSQL 13");
    std::fs::remove_file(rig.instance.data_dir.join("backstay.pool")).unwrap();
    assert_refused(look(&rig.instance), "Backstay did not make");
    std::fs::remove_file(rig.instance.data_dir.join("PG_VERSION")).unwrap();
    assert_refused(look(&rig.instance), "no data directory");
}

fn assert_refused(result: Result<DataDir, Error>, text: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(text) && error.hint().is_some(), "{error}");
}

#[test]
fn an_unfinished_cluster_is_made_anew_and_a_finished_one_is_kept() {
    let rig = Rig::empty();
    std::fs::create_dir_all(rig.instance.data_dir.join("base")).unwrap();
    std::fs::write(rig.instance.data_dir.join("PG_VERSION"), "15\n").unwrap();
    rig.instance.os_user.own(&rig.instance.data_dir).unwrap();
    std::fs::write(rig.instance.files_dir.join("initialise.unfinished"), "").unwrap();
    create::initialise_now(&rig.instance).unwrap();
    assert!(rig.instance.standby_signal().exists());
    assert!(matches!(create::initialise_now(&rig.instance), Err(Error::Refused { .. })));
}

#[tokio::test]
async fn a_second_agent_is_refused() {
    let mut rig = Rig::new();
    rig.drive().await;
    let mut second = rig.instance.clone();
    assert!(matches!(create::lock(&second), Err(Error::Refused { .. })));
    second.files_dir = rig.instance.files_dir.join("another");
    assert!(matches!(create::lock(&second), Err(Error::Refused { .. })));
    rig.drop_driver();
    eventually("the lock is free", async || create::lock(&rig.instance).is_ok()).await;
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let mut rig = Rig::new();
    rig.drive().await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", rig.instance.port)).unwrap();
    rig.order(Order::RunAlone { reachable: true }).await;
    let condition = rig.driver.as_ref().unwrap().condition();
    eventually("the problem is told", async || condition.borrow().problem.is_some()).await;
    let problem = condition.borrow().problem.clone().unwrap();
    assert!(problem.text.contains("is in use"), "{problem:?}");
    drop(taken);
    rig.wait("started", |fact| matches!(fact, Fact::Started { .. }).then_some(())).await;
    assert_eq!(condition.borrow().problem, None);
}

#[tokio::test]
async fn a_server_that_somebody_else_started_is_not_adopted() {
    let mut rig = Rig::new();
    create::prepare_files(&rig.instance, agent::postgres::access::Access::Closed, None).unwrap();
    let mut command = rig.instance.os_user.command(rig.instance.program("postgres"));
    command.arg("-D").arg(&rig.instance.data_dir);
    for (name, path) in [
        ("unix_socket_directories", rig.instance.socket_dir.clone()),
        ("hba_file", rig.instance.hba_file()),
        ("ident_file", rig.instance.ident_file()),
    ] {
        command.arg("-c").arg(format!("{name}={}", path.display()));
    }
    command.arg("-c").arg(format!("port={}", rig.instance.port));
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    eventually("it runs", async || {
        let text = std::fs::read_to_string(rig.instance.data_dir.join("postmaster.pid"));
        text.is_ok_and(|text| text.contains("ready"))
    })
    .await;
    let found = tokio::time::timeout(std::time::Duration::from_millis(700), rig.drive()).await;
    assert!(found.is_err(), "nothing was found");
    let problem = rig.driver.as_ref().unwrap().condition().borrow().problem.clone().unwrap();
    assert!(problem.text.contains("does not run with Backstay's settings"), "{problem:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
    child.wait().unwrap();
    rig.wait("found", |fact| matches!(fact, Fact::Found(Found::Stopped)).then_some(())).await;
}
