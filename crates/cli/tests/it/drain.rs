//! A server is emptied for maintenance, and the deployment is shown at a glance.

use serde_json::Value;

use crate::parts::{ONE, Pool, Site};
use crate::writer::{Writer, all_there};

const TWO: Pool = Pool { name: "pool02", first: "be1", second: Some("be3"), number: 1, ..ONE };

/// Two pools on three servers; both have their principal on the first.
fn site() -> Site {
    let mut site = Site::new("drain", &["be1", "be2", "be3", "wit1"]);
    let parts: [(&'static str, &[&Pool]); 4] =
        [("be1", &[&ONE, &TWO]), ("be2", &[&ONE]), ("be3", &[&TWO]), ("wit1", &[&ONE, &TWO])];
    for (name, pools) in parts {
        site.write(name, pools);
        site.start(name);
    }
    for pool in [&ONE, &TWO] {
        site.wait(pool, "it answers", |session| session["role"] == "not_created");
        site.command(&[pool], &["pool", "create", pool.name]).expect(0);
    }
    for pool in [&ONE, &TWO] {
        site.wait_until_mirrored(pool);
    }
    site
}

fn entry<'a>(told: &'a Value, pool: &str) -> &'a Value {
    told["pools"].as_array().unwrap().iter().find(|one| one["pool"] == pool).unwrap()
}

#[test]
fn a_server_is_drained_pool_by_pool_while_clients_write() {
    let mut site = site();
    let both = [&ONE, &TWO];
    let list = site.command(&both, &["pool", "list", "--json"]).expect(0).json();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list:#}");
    assert!(list.as_array().unwrap().iter().all(|line| line["principal"] == "be1"), "{list:#}");
    let uri = site.uri(&ONE, &["be1", "be2"]);
    let writer = Writer::start(&uri, 1);
    writer.goes_on();

    let dry = site.command(&both, &["server", "drain", "be1", "--dry-run", "--json"]);
    let dry = dry.expect(0).json();
    assert_eq!((&dry["drained"], dry["pools"].as_array().unwrap().len()), (&false.into(), 2));

    // A pool that cannot move keeps all where they are, unless it is left out.
    site.stop("be3");
    site.wait(&TWO, "the loss is seen", |session| session["record"]["protection"] == "exposed");
    let refused = site.command(&both, &["server", "drain", "be1", "--json"]).expect(1).json();
    assert_eq!(entry(&refused, "pool02")["fate"], "stays", "{refused:#}");
    assert_eq!(site.status(&ONE)["principal"], "be1");
    let skipped = ["server", "drain", "be1", "--skip", "pool02", "--json"];
    let moved = site.command(&both, &skipped).expect(0).json();
    assert_eq!(entry(&moved, "pool01")["fate"], "moved", "{moved:#}");
    assert_eq!(
        (&moved["drained"], &site.status(&ONE)["principal"]),
        (&false.into(), &"be2".into())
    );
    writer.goes_on();

    site.start("be3");
    site.wait_until_mirrored(&TWO);
    let told = site.command(&both, &["server", "drain", "be1"]).expect(0);
    assert!(told.data.contains("be1 has no principal; it may be taken down"), "{}", told.data);
    assert_eq!(site.status(&TWO)["principal"], "be3");
    writer.goes_on();

    // Taken down: both pools are served, and the processes that do not answer are named.
    site.stop("be1");
    let list = site.command(&both, &["pool", "list"]).expect(0);
    assert!(list.data.contains("no answer: be1"), "{}", list.data);
    site.stop("be3");
    let list = site.command(&both, &["pool", "list", "--json"]).expect(4).json();
    assert_eq!(list[1]["state"], "not_served", "{list:#}");
    writer.goes_on();
    all_there(&uri, &writer.finish());
}
