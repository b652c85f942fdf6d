//! Who gets in, and when.

use session::{Fact, Order, Term};

use crate::cluster;
use crate::rig::{Rig, eventually};

#[tokio::test]
async fn clients_are_let_in_only_after_the_barrier() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.run_alone(false).await;
    let refused = rig.client("app").await.err().unwrap();
    assert!(refused.contains("Connect"), "the connection itself is refused: {refused}");
    rig.run_alone(true).await;
    assert_rejected(&rig).await;
    let serving = rig.promote(2).await;
    rig.order(Order::OpenGuard).await;
    rig.until(Fact::GuardOpened).await;
    rig.sql().await.batch_execute("CREATE ROLE app LOGIN PASSWORD 'client'").await.unwrap();
    assert_rejected(&rig).await;
    rig.order(Order::CommitBarrier { promotion: serving.promotion }).await;
    rig.until(Fact::BarrierCommitted { term: Term(2) }).await;
    rig.order(Order::AdmitClients { term: Term(2) }).await;
    eventually("a client is let in", async || rig.client("app").await.is_ok()).await;
}

async fn assert_rejected(rig: &Rig) {
    let text = rig.client("app").await.err().unwrap();
    assert!(text.contains("pg_hba.conf rejects connection"), "{text}");
}

#[tokio::test]
async fn nobody_else_can_take_the_mirrors_name() {
    let mut rig = Rig::new();
    rig.instance.client_access = vec!["host all all all trust".to_owned()];
    rig.drive().await;
    rig.serve_alone(2).await;
    let create = "CREATE ROLE thief SUPERUSER REPLICATION LOGIN PASSWORD 'client'";
    rig.sql().await.batch_execute(create).await.unwrap();
    eventually("a client is let in", async || rig.client("thief").await.is_ok()).await;
    assert_eq!(rig.client("backstay").await.err().unwrap().split(' ').next(), Some("password"));
    let instance = &rig.instance;
    let receive = |user: &str, name: &str| {
        let conninfo =
            format!("host=127.0.0.1 port={} user={user} application_name={name}", instance.port);
        let dir = instance.files_dir.join(format!("wal_of_{user}"));
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = std::process::Command::new(instance.program("pg_receivewal"));
        command.args(["--no-loop", "--synchronous", "-d", &conninfo, "-D"]).arg(dir);
        command.output().unwrap()
    };
    let out = receive("thief", "backstay_mirror");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && text.contains("rejects replication connection"), "{text}");
}

#[tokio::test]
async fn a_logical_walsender_with_the_mirrors_name_is_ended() {
    let mut rig = Rig::new();
    rig.instance.settings.insert("wal_level".to_owned(), "logical".to_owned());
    rig.instance.client_access = vec!["host all all all trust".to_owned()];
    rig.drive().await;
    rig.serve_alone(2).await;
    let sql = rig.sql().await;
    sql.batch_execute("CREATE ROLE thief SUPERUSER REPLICATION LOGIN").await.unwrap();
    let instance = rig.instance.clone();
    let mut command = std::process::Command::new(instance.program("pg_recvlogical"));
    let conninfo = format!(
        "host=127.0.0.1 port={} user=thief dbname=postgres application_name=backstay_mirror",
        instance.port
    );
    // A plugin that every build has; `test_decoding` belongs to the additional modules.
    command.args(["--create-slot", "--plugin=pgoutput", "--slot=theft", "-d", &conninfo]);
    cluster::run(&mut command);
    let mut command = std::process::Command::new(instance.program("pg_recvlogical"));
    command.args(["--start", "--no-loop", "--slot=theft", "-f", "-", "-d", &conninfo]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=nothing"]);
    let mut thief = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("the thief is ended", async || thief.try_wait().unwrap().is_some()).await;
}

#[tokio::test]
async fn a_client_that_slips_through_the_closed_door_is_ended() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    rig.sql().await.batch_execute("CREATE ROLE app LOGIN PASSWORD 'client'").await.unwrap();
    let mut opened = None;
    eventually("a client is let in", async || {
        opened = rig.client("app").await.ok();
        opened.is_some()
    })
    .await;
    // As one that began its log-in before the door was closed, and ends it afterwards.
    rig.order(Order::Stop).await;
    rig.until(Fact::Stopped).await;
    rig.run_alone(true).await;
    agent::postgres::access::write(&rig.instance, agent::postgres::access::Access::Open).unwrap();
    rig.sql().await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eventually("a reader is let in", async || {
        opened = rig.client("app").await.ok();
        opened.is_some()
    })
    .await;
    let reader = opened.unwrap();
    eventually("it is ended", async || reader.simple_query("SELECT 1").await.is_err()).await;
    rig.prepare(4).await;
    assert_rejected(&rig).await;
}

#[tokio::test]
async fn databases_of_the_pool_are_made_once() {
    let mut rig = Rig::new();
    rig.drive().await;
    rig.serve_alone(2).await;
    let shop = agent::postgres::Database {
        name: "the \"shop\"".to_owned(),
        owner: "it's".to_owned(),
        password: Some("cl\\ie'nt".to_owned()),
    };
    for _ in 0..2 {
        agent::postgres::databases::make(&rig.instance, std::slice::from_ref(&shop)).await.unwrap();
    }
    let opened = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(rig.instance.port)
        .user(&shop.owner)
        .password(shop.password.as_deref().unwrap())
        .dbname(&shop.name)
        .connect(tokio_postgres::NoTls)
        .await;
    assert!(opened.is_ok());
}
