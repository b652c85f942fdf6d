//! Each table of the document, field by field. A test holds it against the schema.

use crate::document::{
    Cluster, Database, Defaults, Document, FrontEnd, FrontEndOptions, Pool, Server, Site, Times,
    Witness,
};

use super::fields::{Fields, SETTING, port_of, setting_of};

pub(super) fn document(fields: &mut Fields<'_>) -> Document {
    let central_management = fields.text("central_management");
    fields.hint("central_management", "There is one store: name one pool, in quotes.");
    Document {
        format: fields.whole("format", "1 to 1"),
        deployment: fields.needed("deployment"),
        central_management,
        defaults: fields.table("defaults", "defaults", defaults).unwrap_or_default(),
        sites: fields.tables("site", "a site", site),
        servers: fields.tables("server", "a server", server),
        witnesses: fields.tables("witness", "a witness", witness),
        pools: fields.tables("pool", "a pool", pool),
        table: fields.finish(),
    }
}

fn defaults(fields: &mut Fields<'_>) -> Defaults {
    Defaults {
        profile: fields.text("profile"),
        witness: fields.text("witness"),
        root: fields.text("root"),
        client_access: fields.texts("client_access"),
        settings: fields.free("settings", SETTING, setting_of),
        times: fields.table("times", "times", times).unwrap_or_default(),
        front_end: fields.table("front_end", "front_end", only_options).unwrap_or_default(),
        os_user: fields.text("os_user"),
        pg_bin_dir: fields.text("pg_bin_dir"),
        table: fields.finish(),
    }
}

fn site(fields: &mut Fields<'_>) -> Site {
    Site {
        name: fields.needed("name"),
        description: fields.text("description"),
        table: fields.finish(),
    }
}

fn server(fields: &mut Fields<'_>) -> Server {
    Server {
        name: fields.needed("name"),
        host: fields.needed("host"),
        site: fields.text("site"),
        port: fields.port("port"),
        os_user: fields.text("os_user"),
        pg_bin_dir: fields.text("pg_bin_dir"),
        postgres_listen: fields.text("postgres_listen"),
        root: fields.text("root"),
        state_dir: fields.text("state_dir"),
        table: fields.finish(),
    }
}

fn witness(fields: &mut Fields<'_>) -> Witness {
    Witness {
        name: fields.needed("name"),
        host: fields.needed("host"),
        site: fields.text("site"),
        port: fields.port("port"),
        table: fields.finish(),
    }
}

fn pool(fields: &mut Fields<'_>) -> Pool {
    Pool {
        name: fields.needed("name"),
        method: fields.text("method"),
        principal: fields.text("principal"),
        mirror: fields.text("mirror"),
        witness: fields.text("witness"),
        spare_witnesses: fields.texts("spare_witnesses"),
        port: fields.port("port"),
        port_on: fields.free("port_on", "a port", port_of),
        pair: fields.text("pair"),
        users: fields.truth("users"),
        applications: fields.texts("applications"),
        profile: fields.text("profile"),
        times: fields.table("times", "times", times).unwrap_or_default(),
        settings: fields.free("settings", SETTING, setting_of),
        settings_on: fields.settings_on("settings_on"),
        client_access: fields.texts("client_access"),
        root: fields.text("root"),
        data_dir: fields.text("data_dir"),
        files_dir: fields.text("files_dir"),
        socket_dir: fields.text("socket_dir"),
        locale: fields.text("locale"),
        slot_wal_keep: fields.text("slot_wal_keep"),
        cluster: fields.table("cluster", "a cluster", cluster),
        databases: fields.tables("database", "a database", database),
        front_ends: fields.tables("front_end", "a Front End", front_end),
        table: fields.finish(),
    }
}

fn cluster(fields: &mut Fields<'_>) -> Cluster {
    Cluster { name: fields.needed("name"), port: fields.port("port"), table: fields.finish() }
}

fn database(fields: &mut Fields<'_>) -> Database {
    Database {
        name: fields.needed("name"),
        owner: fields.text("owner"),
        purpose: fields.text("purpose"),
        schema: fields.text("schema"),
        table: fields.finish(),
    }
}

fn front_end(fields: &mut Fields<'_>) -> FrontEnd {
    FrontEnd {
        name: fields.needed("name"),
        host: fields.needed("host"),
        site: fields.text("site"),
        options: options(fields),
        table: fields.finish(),
    }
}

fn only_options(fields: &mut Fields<'_>) -> FrontEndOptions {
    let options = options(fields);
    FrontEndOptions { table: fields.finish(), ..options }
}

fn options(fields: &mut Fields<'_>) -> FrontEndOptions {
    FrontEndOptions {
        port: fields.port("port"),
        admin_port: fields.port("admin_port"),
        pooling: fields.text("pooling"),
        replication: fields.text("replication"),
        lowered_commit: fields.text("lowered_commit"),
        clients: fields.count("clients"),
        server_connections: fields.count("server_connections"),
        hold_s: fields.count("hold_s"),
        standby_reads_after_s: fields.count("standby_reads_after_s"),
        resiliency_after_s: fields.count("resiliency_after_s"),
        drain_s: fields.count("drain_s"),
        tls_certificate: fields.text("tls_certificate"),
        tls_key: fields.text("tls_key"),
        table: crate::place::Table::default(),
    }
}

fn times(fields: &mut Fields<'_>) -> Times {
    Times {
        heartbeat_ms: fields.count("heartbeat_ms"),
        lease_ms: fields.count("lease_ms"),
        detection_ms: fields.count("detection_ms"),
        partner_timeout_ms: fields.count("partner_timeout_ms"),
        stop_margin_ms: fields.count("stop_margin_ms"),
        shutdown_timeout_ms: fields.count("shutdown_timeout_ms"),
        handover_timeout_ms: fields.count("handover_timeout_ms"),
        drain_ms: fields.count("drain_ms"),
        table: fields.finish(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use toml::de::DeTable;

    use super::*;

    fn asked<T>(read: fn(&mut Fields<'_>) -> T) -> BTreeSet<String> {
        let table = DeTable::new();
        let mut fields = Fields::new(&table, 0..0, "a table");
        read(&mut fields);
        fields.asked().iter().map(|name| (*name).to_owned()).collect()
    }

    fn described(schema: &Value) -> BTreeSet<String> {
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            assert!(property["description"].is_string(), "{name} has a description");
        }
        properties.keys().cloned().collect()
    }

    #[test]
    fn the_schema_knows_just_the_fields_that_are_read() {
        let schema = crate::schema();
        assert_eq!(asked(document), described(&schema));
        for (name, asked) in [
            ("Defaults", asked(defaults)),
            ("Site", asked(site)),
            ("Server", asked(server)),
            ("Witness", asked(witness)),
            ("Pool", asked(pool)),
            ("Cluster", asked(cluster)),
            ("Database", asked(database)),
            ("FrontEnd", asked(front_end)),
            ("FrontEndOptions", asked(only_options)),
            ("Times", asked(times)),
        ] {
            let table = &schema["definitions"][name];
            assert_eq!(asked, described(table), "{name}");
            assert_eq!(table["additionalProperties"], Value::Bool(false), "{name}");
        }
    }
}
