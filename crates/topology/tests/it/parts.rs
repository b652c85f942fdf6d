//! What each process gets of a document.

use std::fmt::Write as _;

use expect_test::expect;
use topology::derive::BackEnd;

use super::{EXAMPLE, SOUND, changed, checked};

fn json(value: impl serde::Serialize) -> String {
    serde_json::to_string_pretty(&serde_json::json!(value)).unwrap()
}

#[test]
fn a_server_gets_its_pools() {
    expect![[r#"
        {
          "deployment": "production",
          "me": {
            "host": "be2.example.com",
            "name": "be2",
            "port": 7022
          },
          "os_user": "postgres",
          "parts": [
            {
              "client_access": [
                "hostssl all all 10.0.0.0/8 scram-sha-256"
              ],
              "data_dir": "/srv/backstay/orders/data",
              "databases": [
                {
                  "name": "xds",
                  "owner": "backstay",
                  "purpose": "the published documents",
                  "schema": null,
                  "source": "central-management"
                },
                {
                  "name": "lis",
                  "owner": "lis",
                  "purpose": "locations",
                  "schema": null,
                  "source": "central-management"
                },
                {
                  "name": "rtcxds",
                  "owner": "rtc",
                  "purpose": "users' data",
                  "schema": null,
                  "source": "users"
                },
                {
                  "name": "rtcshared",
                  "owner": "rtc",
                  "purpose": "the conference directory",
                  "schema": null,
                  "source": "users"
                },
                {
                  "name": "rtcab",
                  "owner": "rtc",
                  "purpose": "the address book",
                  "schema": null,
                  "source": "users"
                },
                {
                  "name": "rgsconfig",
                  "owner": "rgs",
                  "purpose": "settings of Response Group",
                  "schema": null,
                  "source": "response-group"
                },
                {
                  "name": "rgsdyn",
                  "owner": "rgs",
                  "purpose": "running state of Response Group",
                  "schema": null,
                  "source": "response-group"
                },
                {
                  "name": "cpsdyn",
                  "owner": "cps",
                  "purpose": "parked calls",
                  "schema": null,
                  "source": "call-park"
                },
                {
                  "name": "shop",
                  "owner": "shop",
                  "purpose": "orders of the web shop",
                  "schema": "shop.sql",
                  "source": null
                }
              ],
              "files_dir": "/srv/backstay/orders/backstay",
              "first": {
                "agent": {
                  "host": "be1.example.com",
                  "name": "be1",
                  "port": 7022
                },
                "postgres_port": 5432
              },
              "front_ends": [
                "fe1"
              ],
              "holds_store": true,
              "locale": null,
              "pool": "orders",
              "postgres_listen": "*",
              "profile": "standard",
              "second": {
                "agent": {
                  "host": "be2.example.com",
                  "name": "be2",
                  "port": 7022
                },
                "postgres_port": 5432
              },
              "settings": {
                "shared_buffers": "4GB"
              },
              "slot_wal_keep": "1GB",
              "socket_dir": "/run/postgresql",
              "spare_witnesses": [],
              "times": {
                "detection_ms": null,
                "drain_ms": 1000,
                "handover_timeout_ms": null,
                "heartbeat_ms": null,
                "lease_ms": 1500,
                "partner_timeout_ms": null,
                "shutdown_timeout_ms": null,
                "stop_margin_ms": null
              },
              "witness": {
                "host": "wit1.example.com",
                "name": "wit1",
                "port": 7022
              }
            }
          ],
          "pg_bin_dir": null
        }"#]]
    .assert_eq(&json(checked(EXAMPLE).server_parts("be2").unwrap()));
}

#[test]
fn a_witness_gets_its_sessions() {
    expect![[r#"
        {
          "deployment": "production",
          "me": {
            "host": "wit1.example.com",
            "name": "wit1",
            "port": 7022
          },
          "sessions": [
            {
              "first": {
                "host": "be1.example.com",
                "name": "be1",
                "port": 7022
              },
              "is_wanted": true,
              "pool": "orders",
              "profile": "standard",
              "second": {
                "host": "be2.example.com",
                "name": "be2",
                "port": 7022
              },
              "times": {
                "detection_ms": null,
                "drain_ms": 1000,
                "handover_timeout_ms": null,
                "heartbeat_ms": null,
                "lease_ms": 1500,
                "partner_timeout_ms": null,
                "shutdown_timeout_ms": null,
                "stop_margin_ms": null
              }
            }
          ]
        }"#]]
    .assert_eq(&json(checked(EXAMPLE).witness_parts("wit1").unwrap()));
}

#[test]
fn a_front_end_gets_its_configuration() {
    expect![[r#"
        {
          "admin_port": 7023,
          "back_end": {
            "servers": {
              "first": {
                "agent": {
                  "host": "be1.example.com",
                  "name": "be1",
                  "port": 7022
                },
                "postgres_port": 5432
              },
              "second": {
                "agent": {
                  "host": "be2.example.com",
                  "name": "be2",
                  "port": 7022
                },
                "postgres_port": 5432
              }
            }
          },
          "clients": 10000,
          "deployment": "production",
          "drain_s": 0,
          "hold_s": 60,
          "host": "fe1.example.com",
          "lowered_commit": "refuse",
          "name": "fe1",
          "pool": "orders",
          "pooling": "session",
          "port": 6432,
          "replication": "refuse",
          "resiliency_after_s": 1800,
          "server_connections": 90,
          "standby_reads_after_s": 10,
          "tls": null
        }"#]]
    .assert_eq(&json(checked(EXAMPLE).front_end_parts("fe1").unwrap()));
}

#[test]
fn commands_get_the_deployment() {
    expect![[r#"
        {
          "central_management": "orders",
          "front_ends": [
            {
              "address": {
                "host": "fe1.example.com",
                "name": "fe1",
                "port": 7023
              },
              "pool": "orders"
            }
          ],
          "name": "production",
          "pools": [
            {
              "first": "be1",
              "method": "mirroring",
              "name": "orders",
              "pair": null,
              "profile": "standard",
              "second": "be2",
              "witness": "wit1"
            },
            {
              "first": null,
              "method": "clustering",
              "name": "archive",
              "pair": null,
              "profile": "standard",
              "second": null,
              "witness": null
            }
          ],
          "servers": [
            {
              "host": "be1.example.com",
              "name": "be1",
              "port": 7022
            },
            {
              "host": "be2.example.com",
              "name": "be2",
              "port": 7022
            }
          ],
          "witnesses": [
            {
              "host": "wit1.example.com",
              "name": "wit1",
              "port": 7022
            }
          ]
        }"#]]
    .assert_eq(&json(checked(EXAMPLE).deployment_parts()));
}

#[test]
fn both_partners_agree_on_first_and_second() {
    let checked = checked(SOUND);
    let part = |server: &str| checked.server_parts(server).unwrap().parts.remove(0);
    let (one, other) = (part("be1"), part("be2"));
    assert_eq!(one, other);
    assert_eq!((one.first.agent.name.as_str(), one.holds_store), ("be1", true));
    let only = part("be5");
    assert_eq!((only.second, only.witness), (None, None));
    assert_eq!(only.data_dir, "/srv/notes/notes/data");
    assert!(checked.server_parts("wit1").is_none());
}

#[test]
fn what_is_written_closer_counts_more() {
    let text = changed(
        SOUND,
        "[defaults]",
        "[defaults]\nsettings = { work_mem = \"8MB\", max_connections = 50 }",
    );
    let text = changed(
        &text,
        "port = 5433",
        "port = 5433\nsettings_on.be4 = { work_mem = \"16MB\" }\nport_on.be4 = 5434",
    );
    let checked = checked(&changed(
        &text,
        "host = \"be4.example.com\"",
        "host = \"be4.example.com\"\nroot = \"/data\"",
    ));
    let part = |server: &str| checked.server_parts(server).unwrap().parts.remove(0);
    assert_eq!(part("be1").settings["max_connections"], "200");
    assert_eq!(part("be3").settings["work_mem"], "8MB");
    assert_eq!(part("be4").settings["work_mem"], "16MB");
    assert_eq!(part("be3").first.postgres_port, 5433);
    assert_eq!(part("be3").second.unwrap().postgres_port, 5434);
    assert_eq!(part("be3").data_dir, "/srv/backstay/billing/data");
    assert_eq!(part("be4").data_dir, "/data/billing/data");
}

#[test]
fn a_front_end_before_a_cluster_leads_to_its_virtual_name() {
    let cluster = "cluster = { name = \"archive-sql.example.com\", port = 5432 }";
    let text = changed(
        SOUND,
        cluster,
        &format!("{cluster}\nfront_end = [{{ name = \"fe9\", host = \"fe9\" }}]"),
    );
    let parts = checked(&text).front_end_parts("fe9").unwrap();
    let host = "archive-sql.example.com".to_owned();
    assert_eq!(parts.back_end, BackEnd::Cluster { host, port: 5432 });
}

#[test]
fn databases_are_brought_in_the_order_in_which_they_are_made() {
    let checked = checked(SOUND);
    let names: Vec<String> = checked
        .databases_of(checked.pool("orders").unwrap())
        .into_iter()
        .map(|database| format!("{} ({})", database.name, database.owner))
        .collect();
    expect!["xds (backstay), lis (lis), rtcxds (rtc), rtcshared (rtc), rtcab (rtc), rgsconfig (rgs), rgsdyn (rgs), cpsdyn (cps), shop (shop_owner)"].assert_eq(&names.join(", "));
}

/// 50 pools on 20 servers with 5 witnesses, as an administrator would write them.
fn large() -> String {
    let mut text = String::from(
        "format = 1\ndeployment = \"large\"\ncentral_management = \"pool01\"\n\n[defaults]\n\
         settings = { max_connections = 300 }\n",
    );
    for site in ["north", "south", "west"] {
        let _ = writeln!(text, "\n[[site]]\nname = \"{site}\"");
    }
    for at in 0..20 {
        let site = if at % 2 == 0 { "north" } else { "south" };
        let _ = writeln!(
            text,
            "\n[[server]]\nname = \"be{at:02}\"\nhost = \"be{at:02}.example.com\"\nsite = \"{site}\""
        );
    }
    for at in 0..10 {
        let _ = writeln!(
            text,
            "\n[[witness]]\nname = \"wit{at:02}\"\nhost = \"wit{at:02}.example.com\"\nsite = \"west\""
        );
    }
    for at in 1..=50 {
        let pair = at % 10;
        let (one, other) = (pair * 2, pair * 2 + 1);
        let (principal, mirror) = if at % 20 < 10 { (one, other) } else { (other, one) };
        let _ = writeln!(
            text,
            "\n[[pool]]\nname = \"pool{at:02}\"\nprincipal = \"be{principal:02}\"\n\
             mirror = \"be{mirror:02}\"\nwitness = \"wit{pair:02}\"\nport = {}\n\
             database = [{{ name = \"app{at:02}\" }}]\nfront_end = [",
            5400 + at
        );
        for (front_end, site) in [("a", "north"), ("b", "south"), ("c", "west")] {
            let _ = writeln!(
                text,
                "    {{ name = \"fe{at:02}{front_end}\", host = \"fe{at:02}{front_end}\", site = \"{site}\" }},"
            );
        }
        text.push_str("]\n");
    }
    text
}

#[test]
fn a_large_deployment_stays_readable() {
    let text = large();
    assert_eq!(super::ids(&text), [""; 0]);
    let per_pool = text[text.find("[[pool]]").unwrap()..].lines().count() / 50;
    assert!(per_pool <= 14, "{per_pool} lines for each pool");
    let parts = checked(&text).server_parts("be02").unwrap();
    assert_eq!(parts.parts.len(), 5);
}
