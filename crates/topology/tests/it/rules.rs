//! Each rule with a document that breaks it, and with one close by that does not.
//!
//! Both differ from the sound document in one place. The broken one must be told what the case
//! says and nothing else: a rule that speaks up beside the one that is meant is a mistake, too.

use std::collections::BTreeSet;

use topology::{examine, rules};

use super::{SOUND, changed, ids};

struct Case {
    rule: &'static str,
    /// A place in the sound document.
    place: &'static str,
    broken: &'static str,
    sound: &'static str,
    /// What else is rightly found in the broken document.
    also: &'static [&'static str],
    /// What is rightly found in the other one.
    yet: &'static [&'static str],
}

const fn case(
    rule: &'static str,
    place: &'static str,
    broken: &'static str,
    sound: &'static str,
) -> Case {
    Case { rule, place, broken, sound, also: &[], yet: &[] }
}

impl Case {
    const fn also(self, also: &'static [&'static str]) -> Case {
        Case { also, ..self }
    }

    const fn yet(self, yet: &'static [&'static str]) -> Case {
        Case { yet, ..self }
    }
}

const BE5: &str = "name = \"be5\"\nhost = \"be5.example.com\"\nsite = \"west\"";
const NOTES: &str = "root = \"/srv/notes\"";
const BILLING: &str = "port = 5433";
const CLUSTER: &str = "cluster = { name = \"archive-sql.example.com\", port = 5432 }";
const ACCESS: &str = "\"hostssl all all 10.0.0.0/8 scram-sha-256\"";
const SETTINGS: &str = "shared_buffers = \"4GB\", ";
const FE4: &str = "name = \"fe4\", host = \"fe4.example.com\", site = \"north\"";
const SHOP: &str = "name = \"shop\"\nowner = \"shop_owner\"";
const APPLICATIONS: &str = "applications = [\"response-group\", \"call-park\"]";
const LEASE: &str = "lease_ms = 1500";
const PROFILE: &str = "profile = \"standard\"";

const READING: &[Case] = &[
    case("syntax", "port = 5433", "port = ", "port = 5434"),
    case("duplicate-key", BILLING, "port = 5433\nport = 5434", "port = 5434"),
    case("unknown-field", BILLING, "port = 5433\ncolour = \"red\"", "port = 5433\n# colour"),
    case("wrong-type", BILLING, "port = \"5433\"", "port = 0x1539"),
    case("number-out-of-range", BILLING, "port = 65536", "port = 65535"),
    case("missing-field", "name = \"be5\"\nhost", "name = \"be5\"\n# host", "name = \"be5\"\nhost"),
    case("secret-in-document", BILLING, "port = 5433\npassword = \"x\"", BILLING),
];

const NAMES: &[Case] = &[
    case("format-unsupported", "format = 1", "format = 2", "format = 1 # the only one"),
    case(
        "name-characters",
        "name = \"notes\"",
        "name = \"notes & more\"",
        "name = \"notes.2-x_y\"",
    ),
    case(
        "name-too-long",
        "name = \"notes\"",
        "name = \"a234567890123456789012345678901234567890123456789012345678901234\"",
        "name = \"a23456789012345678901234567890123456789012345678901234567890123\"",
    ),
    case("name-twice", "name = \"fe4\"", "name = \"wit2\"", "name = \"billing\""),
    case("pool-twice", "name = \"notes\"", "name = \"archive\"", "name = \"be5\""),
    case(
        "site-twice",
        "[[server]]\nname = \"be1\"",
        "[[site]]\nname = \"west\"\n[[server]]\nname = \"be1\"",
        "[[server]]\nname = \"be1\"",
    ),
    case("names-by-case", "name = \"notes\"", "name = \"Orders\"", "name = \"Be1\""),
];

const REFERENCES: &[Case] = &[
    case("unknown-server", "mirror = \"be2\"", "mirror = \"be22\"", "mirror = \"be2\""),
    case("unknown-witness", "witness = \"wit2\"", "witness = \"be5\"", "witness = \"wit2\"")
        .also(&["witness-without-pool"]),
    case(
        "unknown-site",
        BE5,
        "name = \"be5\"\nhost = \"be5.example.com\"\nsite = \"wset\"",
        "name = \"be5\"\nhost = \"be5.example.com\"\nsite = \"north\"",
    ),
    case(
        "unknown-pool",
        "central_management = \"orders\"",
        "central_management = \"order\"",
        "central_management = \"billing\"",
    ),
    case(
        "not-a-partner",
        BILLING,
        "port = 5433\nport_on = { be5 = 5434 }",
        "port = 5433\nport_on = { be4 = 5434 }",
    ),
];

const METHODS: &[Case] = &[
    case(
        "method-asynchronous",
        "method = \"mirroring\"",
        "method = \"High-Performance\"",
        "method = \"mirroring\"",
    ),
    case("method-unknown", "method = \"none\"", "method = \"single\"", "method = \"none\""),
    case(
        "pool-without-principal",
        "method = \"none\"\nprincipal = \"be5\"",
        "method = \"none\"",
        "method = \"none\"\nprincipal = \"be5\"",
    )
    .also(&["server-without-pool"]),
    case(
        "mirroring-without-mirror",
        "method = \"none\"",
        "method = \"mirroring\"\nwitness = \"wit1\"",
        "method = \"none\"",
    )
    .also(&["no-front-end", "witness-shared"]),
    case("mirror-without-mirroring", NOTES, "mirror = \"be1\"", NOTES),
    case("cluster-missing", CLUSTER, "", CLUSTER),
    case(
        "cluster-with-members",
        CLUSTER,
        "cluster = { name = \"c\" }\nprincipal = \"be1\"\ndata_dir = \"/srv/x\"",
        "cluster = { name = \"c\" }",
    ),
    case(
        "cluster-not-asked-for",
        "method = \"none\"",
        "method = \"none\"\ncluster = { name = \"c\" }",
        "method = \"none\"",
    ),
    case(
        "cluster-databases-not-made",
        CLUSTER,
        "cluster = { name = \"c\" }\ndatabase = [{ name = \"old\" }]",
        "cluster = { name = \"c\" }\ndatabase = []",
    ),
];

const HOSTS: &[Case] = &[
    case(
        "host-characters",
        "host = \"be5.example.com\"",
        "host = \"be5.example.com:7022\"",
        "host = \"2001:db8::5\"",
    ),
    case(
        "host-unroutable",
        "host = \"be5.example.com\"",
        "host = \"0.0.0.0\"",
        "host = \"192.0.2.5\"",
    ),
    case("host-loopback", "host = \"be5.example.com\"", "host = \"localhost\"", "host = \"local\""),
    case("pool-same-host-twice", "mirror = \"be4\"", "mirror = \"be3\"", "mirror = \"be4\"")
        .also(&["server-without-pool"]),
    case(
        "witness-on-partner-host",
        "host = \"wit2.example.com\"\nsite = \"west\"",
        "host = \"BE3.example.com.\"\nsite = \"west\"\nport = 7024",
        "host = \"be5.example.com\"\nsite = \"west\"\nport = 7024",
    ),
    case(
        "two-servers-one-host",
        "host = \"be5.example.com\"",
        "host = \"be4.example.com\"\nport = 7024",
        "host = \"be45.example.com\"\nport = 7024",
    ),
    case(
        "front-end-on-partner-host",
        FE4,
        "name = \"fe4\", host = \"be4.example.com\", site = \"north\"",
        "name = \"fe4\", host = \"be1.example.com\", site = \"north\"",
    ),
    case(
        "server-without-pool",
        "principal = \"be5\"",
        "principal = \"be1\"",
        "principal = \"be5\"",
    )
    .also(&["port-collision"]),
    case("os-user-root", PROFILE, "os_user = \"root\"", "os_user = \"pg\""),
    case(
        "versions-differ",
        "host = \"be1.example.com\"\nsite = \"north\"\n\n[[server]]\nname = \"be2\"",
        "host = \"be1.example.com\"\nsite = \"north\"\n\
         pg_bin_dir = \"/usr/lib/postgresql/15/bin\"\n\n[[server]]\nname = \"be2\"\n\
         pg_bin_dir = \"/usr/lib/postgresql/16/bin\"",
        "host = \"be1.example.com\"\nsite = \"north\"\n\
         pg_bin_dir = \"/usr/lib/postgresql/15/bin\"\n\n[[server]]\nname = \"be2\"\n\
         pg_bin_dir = \"/opt/postgresql/15/bin\"",
    ),
    case("port-zero", BILLING, "port = 0", "port = 1024"),
    case("port-privileged", BILLING, "port = 543", "port = 1543"),
    case(
        "port-collision",
        "name = \"fe4\", host = \"fe4.example.com\"",
        "name = \"fe4\", host = \"fe4.example.com\", port = 7023",
        "name = \"fe4\", host = \"fe4.example.com\", port = 7024",
    ),
];

const SITES: &[Case] = &[
    case(
        "witness-in-partner-site",
        "host = \"wit2.example.com\"\nsite = \"west\"",
        "host = \"wit2.example.com\"\nsite = \"south\"",
        "host = \"wit2.example.com\"\nsite = \"west\"",
    ),
    case(
        "front-ends-in-one-site",
        "name = \"fe5\", host = \"fe5.example.com\", site = \"south\", server_connections = 30 },\n    \
         { name = \"fe6\", host = \"fe6.example.com\", site = \"west\"",
        "name = \"fe5\", host = \"fe5.example.com\", site = \"north\", server_connections = 30 },\n    \
         { name = \"fe6\", host = \"fe6.example.com\", site = \"north\"",
        "name = \"fe5\", host = \"fe5.example.com\", site = \"north\", server_connections = 30 },\n    \
         { name = \"fe6\", host = \"fe6.example.com\", site = \"west\"",
    ),
    case(
        "site-not-said",
        BE5,
        "name = \"be5\"\nhost = \"be5.example.com\"",
        "name = \"be5\"\nhost = \"be5.example.com\"\nsite = \"south\"",
    ),
    case(
        "site-unused",
        "[[server]]\nname = \"be1\"",
        "[[site]]\nname = \"east\"\n[[server]]\nname = \"be1\"",
        "[[server]]\nname = \"be1\"",
    ),
];

const WITNESSES: &[Case] = &[
    case(
        "no-witness",
        "witness = \"wit2\"\n",
        "",
        "spare_witnesses = [\"wit1\"]\nwitness = \"wit2\"\n",
    )
    .also(&["witness-without-pool"]),
    case("witness-shared", "witness = \"wit2\"", "witness = \"wit1\"", "witness = \"wit2\"")
        .also(&["witness-without-pool"]),
    case(
        "witness-without-pool",
        "[[pool]]\nname = \"orders\"",
        "[[witness]]\nname = \"wit3\"\nhost = \"wit3\"\nsite = \"west\"\n[[pool]]\nname = \"orders\"",
        "[[witness]]\nname = \"wit3\"\nhost = \"wit3\"\nsite = \"west\"\n[[pool]]\n\
         spare_witnesses = [\"wit3\"]\nname = \"orders\"",
    ),
];

const PAIRS: &[Case] = &[
    case("pair-with-itself", NOTES, "root = \"/srv/notes\"\npair = \"notes\"", NOTES),
    case("pair-not-mutual", "pair = \"orders\"", "", "pair = \"orders\""),
    case(
        "pair-methods-differ",
        "principal = \"be3\"\nmirror = \"be4\"\nwitness = \"wit2\"",
        "method = \"none\"\nprincipal = \"be3\"",
        "method = \"mirroring\"\nprincipal = \"be3\"\nmirror = \"be4\"\nwitness = \"wit2\"",
    )
    .also(&["server-without-pool", "witness-without-pool"]),
    case("pair-shares-servers", "mirror = \"be4\"", "mirror = \"be1\"", "mirror = \"be4\"")
        .also(&["server-without-pool"]),
];

const STORE: &[Case] = &[
    case("store-missing", "central_management = \"orders\"", "", "central_management = \"orders\""),
    case(
        "store-twice",
        BILLING,
        "port = 5433\ndatabase = [{ name = \"xds\" }]",
        "port = 5433\ndatabase = [{ name = \"xdsx\" }]",
    ),
    case(
        "store-in-cluster",
        "central_management = \"orders\"",
        "central_management = \"archive\"",
        "central_management = \"billing\"",
    ),
    case(
        "store-not-mirrored",
        "central_management = \"orders\"",
        "central_management = \"notes\"",
        "central_management = \"billing\"",
    ),
];

const TIMES: &[Case] = &[
    case("profile-unknown", PROFILE, "profile = \"quick\"", "profile = \"tolerant\"")
        .yet(&["times-break-lease-rule"]),
    case("times-break-lease-rule", LEASE, "lease_ms = 1900", "lease_ms = 1800"),
    case("fast-across-sites", BILLING, "port = 5433\nprofile = \"fast\"", BILLING),
    case(
        "detection-very-short",
        LEASE,
        "heartbeat_ms = 50, lease_ms = 300, detection_ms = 400, stop_margin_ms = 50",
        "heartbeat_ms = 50, lease_ms = 300, detection_ms = 500, stop_margin_ms = 50",
    ),
    case("detection-very-long", LEASE, "detection_ms = 70000", "detection_ms = 20000")
        .also(&["hold-shorter-than-failover"]),
    case("drain-too-long", LEASE, "drain_ms = 60001", "drain_ms = 60000"),
];

const SETTINGS_CASES: &[Case] = &[
    case("setting-name", SETTINGS, "Shared-Buffers = 1, ", "\"auto_explain.log_analyze\" = true, "),
    case("setting-reserved", SETTINGS, "fsync = false, ", "wal_level = \"logical\", "),
    case(
        "setting-differs-on-mirror",
        LEASE,
        "lease_ms = 1500 }\nsettings_on.be2 = { max_connections = 300",
        "lease_ms = 1500 }\nsettings_on.be2 = { work_mem = \"64MB\", max_connections = \"200\"",
    ),
    case(
        "setting-looks-secret",
        SETTINGS,
        "archive_command = \"push host=a password=b\", ",
        "archive_command = \"push host=a\", ",
    ),
    case(
        "slot-wal-keep-malformed",
        BILLING,
        "port = 5433\nslot_wal_keep = \"10 gigs\"",
        "port = 5433\nslot_wal_keep = \"10 GB\"",
    ),
    case(
        "slot-wal-keep-unlimited",
        BILLING,
        "port = 5433\nslot_wal_keep = \"-1\"",
        "port = 5433\nslot_wal_keep = \"100000\"",
    ),
    case(
        "connections-too-few",
        "max_connections = 200",
        "max_connections = 189",
        "max_connections = 190",
    ),
];

const DATABASES: &[Case] = &[
    case(
        "database-name",
        SHOP,
        "name = \"\"\nowner = \"shop_owner\"",
        "name = \"Shop & more\"\nowner = \"shop_owner\"",
    ),
    case(
        "database-name-too-long",
        SHOP,
        "name = \"ööööööööööööööööööööööööööööööööö\"",
        "name = \"oooooooooooooooooooooooooooooooooooooo\"",
    ),
    case(
        "database-reserved",
        SHOP,
        "name = \"template0\"\nowner = \"shop_owner\"",
        "name = \"template2\"\nowner = \"shop_owner\"",
    ),
    case(
        "database-twice",
        "[[pool.database]]\nname = \"shop\"",
        "[[pool.database]]\nname = \"shop\"\n[[pool.database]]\nname = \"shop\"",
        "[[pool.database]]\nname = \"shop\"\n[[pool.database]]\nname = \"Shop\"",
    ),
    case("database-brought", "name = \"shop\"", "name = \"rgsdyn\"", "name = \"lcslog\""),
    case("owner-reserved", "owner = \"shop_owner\"", "owner = \"backstay\"", "owner = \"back\""),
    case(
        "application-unknown",
        APPLICATIONS,
        "applications = [\"Response_Groups\"]",
        "applications = [\"response-group\"]",
    ),
    case(
        "application-twice",
        APPLICATIONS,
        "applications = [\"call-park\", \"call-park\"]",
        "applications = [\"call-park\"]",
    ),
    case(
        "schema-outside",
        "schema = \"shop.sql\"",
        "schema = \"../shop.sql\"",
        "schema = \"sql/shop.sql\"",
    ),
];

const DIRECTORIES: &[Case] = &[
    case("directory-relative", NOTES, "root = \"notes\"", "root = \"/notes\""),
    case(
        "directory-overlap",
        NOTES,
        "root = \"/srv/notes\"\nfiles_dir = \"/srv/notes/notes/data/files\"",
        "root = \"/srv/notes\"\nfiles_dir = \"/srv/notes/notes/data-files\"",
    ),
    case(
        "state-dir-overlap",
        NOTES,
        "root = \"/var/lib/backstay/pools\"",
        "root = \"/var/lib/backstay-pools\"",
    ),
    case(
        "socket-dir-too-long",
        NOTES,
        "socket_dir = \"/run/a2345678901234567890123456789012345678901234567890123456789012345678901\
         2345678901234567890\"",
        "socket_dir = \"/run/notes\"",
    ),
    case("directory-volatile", NOTES, "root = \"/tmp/notes\"", "root = \"/var/tmp/notes\""),
];

const FRONT_ENDS: &[Case] = &[
    case(
        "no-front-end",
        "    { name = \"fe4\", host = \"fe4.example.com\", site = \"north\", server_connections = 30 },\n    \
         { name = \"fe5\", host = \"fe5.example.com\", site = \"south\", server_connections = 30 },\n    \
         { name = \"fe6\", host = \"fe6.example.com\", site = \"west\", server_connections = 30 },\n",
        "",
        "    { name = \"fe4\", host = \"fe4.example.com\", site = \"north\", server_connections = 30 },\n    \
         { name = \"fe5\", host = \"fe5.example.com\", site = \"south\", server_connections = 30 },\n    \
         { name = \"fe6\", host = \"fe6.example.com\", site = \"west\", server_connections = 30 },\n",
    ),
    case(
        "one-front-end",
        NOTES,
        "root = \"/srv/notes\"\nfront_end = [{ name = \"fe7\", host = \"fe7\" }]",
        NOTES,
    ),
    case(
        "two-front-ends-only",
        "    { name = \"fe6\", host = \"fe6.example.com\", site = \"west\", server_connections = 30 },\n",
        "",
        "    { name = \"fe6\", host = \"fe6\" , server_connections = 30 },\n",
    ),
    case(
        "front-ends-share-host",
        "host = \"fe6.example.com\"",
        "host = \"fe5.example.com\", port = 6433, admin_port = 7024",
        "host = \"be1.example.com\", port = 6433, admin_port = 7024",
    ),
    case(
        "front-end-choice",
        FE4,
        "name = \"fe4\", host = \"fe4\", pooling = \"statement\"",
        "name = \"fe4\", host = \"fe4\", pooling = \"transaction\"",
    ),
    case(
        "front-end-lets-nobody-in",
        FE4,
        "name = \"fe4\", host = \"fe4\", clients = 0",
        "name = \"fe4\", host = \"fe4\", clients = 1",
    ),
    case(
        "front-end-times-order",
        FE4,
        "name = \"fe4\", host = \"fe4\", resiliency_after_s = 9",
        "name = \"fe4\", host = \"fe4\", resiliency_after_s = 10",
    ),
    case(
        "hold-shorter-than-failover",
        FE4,
        "name = \"fe4\", host = \"fe4\", hold_s = 6",
        "name = \"fe4\", host = \"fe4\", hold_s = 7",
    ),
    case(
        "lowered-commit-allowed",
        FE4,
        "name = \"fe4\", host = \"fe4\", lowered_commit = \"warn\"",
        "name = \"fe4\", host = \"fe4\", lowered_commit = \"refuse\"",
    ),
    case(
        "tls-half",
        FE4,
        "name = \"fe4\", host = \"fe4\", tls_key = \"/k\"",
        "name = \"fe4\", host = \"fe4\", tls_key = \"/k\", tls_certificate = \"/c\"",
    ),
];

const ACCESS_CASES: &[Case] = &[
    case("client-access-malformed", ACCESS, "\"host all 10.0.0.0/8 scram-sha-256\"", ACCESS),
    case(
        "client-access-own-role",
        ACCESS,
        "\"host all backstay 10.0.0.0/8 scram-sha-256\"",
        "\"host all backstage 10.0.0.0/8 scram-sha-256\"",
    ),
    case(
        "client-access-trust-everybody",
        ACCESS,
        "\"host all all 0.0.0.0/0 trust\"",
        "\"host all all 0.0.0.0/0 scram-sha-256\"",
    ),
    case(
        "client-access-trust",
        ACCESS,
        "\"local all all trust\", \"host all all 10.0.0.0/8 scram-sha-256\"",
        "\"local all all peer\", \"host all all 10.0.0.0/8 scram-sha-256\"",
    ),
    case("client-access-weak", ACCESS, "\"host all all all md5\"", "\"host all all all cert\""),
    case("client-access-misses-front-end", "10.0.0.11", "192.0.2.11", "10.255.0.11"),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        READING,
        NAMES,
        REFERENCES,
        METHODS,
        HOSTS,
        SITES,
        WITNESSES,
        PAIRS,
        STORE,
        TIMES,
        SETTINGS_CASES,
        DATABASES,
        DIRECTORIES,
        FRONT_ENDS,
        ACCESS_CASES,
    ]
    .into_iter()
    .flatten()
}

/// Rules that need a document of their own; each has a test below.
const APART: [&str; 3] = ["no-pool", "all-on-loopback", "pair-in-one-site"];

#[test]
fn nothing_can_be_said_against_the_sound_document() {
    assert_eq!(ids(SOUND), [""; 0]);
}

#[test]
fn every_rule_has_a_case() {
    let tried: BTreeSet<&str> = cases().map(|case| case.rule).chain(APART).collect();
    let there: BTreeSet<&str> = rules().map(|rule| rule.id).collect();
    assert_eq!(tried, there);
    assert!(there.len() >= 30, "{} rules", there.len());
    assert_eq!(there.len(), rules().count(), "ids are unique");
}

/// All cases at once, so that one run shows all that is wrong.
#[test]
fn every_rule_finds_what_it_says_and_nothing_beside_it() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut expected: Vec<&str> = case.also.to_vec();
        expected.push(case.rule);
        expected.sort_unstable();
        for (what, text, expected) in
            [("broken", case.broken, expected), ("sound", case.sound, case.yet.to_vec())]
        {
            let text = changed(SOUND, case.place, text);
            let mut found = ids(&text);
            found.dedup();
            if found != expected {
                wrong.push(format!("{} ({what}): {found:?}, not {expected:?}", case.rule));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_has_a_place_and_words() {
    for case in cases() {
        let text = changed(SOUND, case.place, case.broken);
        for found in examine(&text).diagnostics {
            let words = [&found.message, &found.cause, &found.remedy];
            assert!(words.iter().all(|words| words.len() > 8), "{found:?}");
            assert!(!found.message.ends_with('.'), "{}", found.message);
            assert!(found.cause.ends_with('.'), "{}", found.cause);
            assert!(found.remedy.ends_with(['.', '?']), "{}", found.remedy);
            if let Some(place) = &found.place {
                assert!(text.get(place.clone()).is_some(), "{found:?}");
            }
        }
    }
}

#[test]
fn a_document_without_pools_is_told_so() {
    let text = "format = 1\ndeployment = \"d\"\n";
    assert_eq!(ids(text), ["no-pool"]);
}

/// A demo: all on this machine, with ports and directories of their own.
const LOCAL: &str = r#"
format = 1
deployment = "demo"
central_management = "pool01"
[[server]]
name = "be1"
host = "127.0.0.1"
port = 7101
root = "/tmp/demo/be1"
state_dir = "/tmp/demo/state/be1"
[[server]]
name = "be2"
host = "127.0.0.1"
port = 7102
root = "/tmp/demo/be2"
state_dir = "/tmp/demo/state/be2"
[[witness]]
name = "wit1"
host = "localhost"
port = 7103
[[pool]]
name = "pool01"
principal = "be1"
mirror = "be2"
witness = "wit1"
port_on = { be1 = 5501, be2 = 5502 }
settings = { max_connections = 300 }
front_end = [
    { name = "fe1", host = "127.0.0.1", port = 6501, admin_port = 7104 },
    { name = "fe2", host = "127.0.0.1", port = 6502, admin_port = 7105 },
    { name = "fe3", host = "127.0.0.1", port = 6503, admin_port = 7106 },
]
"#;

#[test]
fn a_demo_on_one_machine_is_told_only_that() {
    assert_eq!(ids(LOCAL), ["all-on-loopback"]);
    let collides = changed(LOCAL, "be2 = 5502", "be2 = 5501");
    assert_eq!(ids(&collides), ["all-on-loopback", "port-collision"]);
    let overlaps = changed(LOCAL, "/tmp/demo/be2", "/tmp/demo/be1");
    assert_eq!(ids(&overlaps), ["all-on-loopback", "directory-overlap"]);
}

#[test]
fn a_pair_in_one_site_is_told_once() {
    let one = SOUND.replace("site = \"south\"", "site = \"north\"");
    let one = changed(&one, "[[site]]\nname = \"south\"\n", "");
    assert_eq!(ids(&one), ["pair-in-one-site"]);
}

#[test]
fn the_same_host_is_found_behind_two_names() {
    let text = changed(SOUND, "be2.example.com", "BE1.example.com.");
    assert!(ids(&text).contains(&"pool-same-host-twice"));
    let text = changed(
        SOUND,
        "host = \"be2.example.com\"",
        "host = \"be2.example.com\"\npg_bin_dir = \"/usr/pgsql-16/bin\"",
    );
    assert_eq!(ids(&text), [""; 0], "one side alone is not a difference");
}

#[test]
fn what_two_pools_share_on_both_servers_is_told_once() {
    let pool = "\n[[pool]]\nname = \"more\"\nprincipal = \"be2\"\nmirror = \"be1\"\nwitness = \"wit1\"\n\
                data_dir = \"/srv/backstay/orders/data\"\n";
    let text = format!("{SOUND}{pool}");
    assert_eq!(ids(&text), ["directory-overlap", "no-front-end", "port-collision"]);
}

#[test]
fn nothing_is_unknown_while_a_name_cannot_be_read() {
    let text = changed(SOUND, "name = \"be2\"", "nmae = \"be2\"");
    assert_eq!(ids(&text), ["unknown-field"]);
    let text = changed(SOUND, "name = \"orders\"", "name = 1");
    assert_eq!(ids(&text), ["wrong-type"]);
}

#[test]
fn versions_are_compared_where_both_are_written() {
    let text = changed(
        SOUND,
        "host = \"be1.example.com\"",
        "host = \"be1.example.com\"\npg_bin_dir = \"/usr/lib/postgresql/15/bin\"",
    );
    let other = |version: &str| {
        let dir = format!(
            "host = \"be2.example.com\"\npg_bin_dir = \"/usr/lib/postgresql/{version}/bin\""
        );
        ids(&changed(&text, "host = \"be2.example.com\"", &dir))
    };
    assert_eq!(other("16"), ["versions-differ"]);
    assert_eq!(other("15"), [""; 0]);
}
