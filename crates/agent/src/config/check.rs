//! From the raw configuration to the valid one. Goes on after each mistake, to tell all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use session::{Member, Partner, Timing, WitnessId};

use super::raw::{
    MemberAddress, PartnerAddress, ServerFile, ServerPool, Times, WitnessFile, WitnessPool,
};
use crate::postgres::drain::Drain;

use super::{Address, ConfigError, Part, Postgres, Process, Server, Witness};

/// A Unix socket's path has at most 107 bytes, and PostgreSQL adds its own name.
const SOCKET_DIR_LIMIT: usize = 90;
const NAME_LIMIT: usize = 63;
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

type Mistakes = Vec<String>;

pub(super) fn server(file: ServerFile) -> Result<Server, ConfigError> {
    let mut mistakes = Mistakes::new();
    let process =
        process(&file.name, &file.deployment, &file.listen, &file.state_dir, &mut mistakes);
    let pools: Vec<Part> =
        file.pools.iter().filter_map(|pool| server_pool(&file, pool, &mut mistakes)).collect();
    across_pools(&file.name, &pools, file.pools.iter().map(|pool| &pool.name), &mut mistakes);
    directories(&file, &mut mistakes);
    finish(&file.name, mistakes)?;
    let process = process.expect("an address that is not understood is a mistake");
    Ok(Server {
        process,
        os_user: file.os_user,
        pg_bin_dir: file.pg_bin_dir.or_else(pg_bin_of_environment),
        stop_postgres: file.stop_postgres,
        pools,
        retired: file.retired,
    })
}

fn pg_bin_of_environment() -> Option<PathBuf> {
    std::env::var_os("BACKSTAY_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

pub(super) fn witness(file: WitnessFile) -> Result<Witness, ConfigError> {
    let mut mistakes = Mistakes::new();
    let process =
        process(&file.name, &file.deployment, &file.listen, &file.state_dir, &mut mistakes);
    let pools: Vec<Part> =
        file.pools.iter().map(|pool| witness_pool(&file, pool, &mut mistakes)).collect();
    across_pools(&file.name, &pools, file.pools.iter().map(|pool| &pool.name), &mut mistakes);
    finish(&file.name, mistakes)?;
    let process = process.expect("an address that is not understood is a mistake");
    Ok(Witness { process, pools, retired: file.retired })
}

fn finish(process: &str, mistakes: Mistakes) -> Result<(), ConfigError> {
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(ConfigError::Mistakes { process: process.to_owned(), mistakes })
}

fn process(
    name: &str,
    deployment: &str,
    listen: &str,
    state_dir: &Path,
    mistakes: &mut Mistakes,
) -> Option<Process> {
    check_name("name", name, mistakes);
    check_name("deployment", deployment, mistakes);
    check_path("state_dir", state_dir, mistakes);
    let address = listen
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| listen.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()));
    if address.is_none() {
        mistakes.push(format!(
            "listen = \"{listen}\" is no address: write an IP address and a port, such as \
             \"0.0.0.0:7022\""
        ));
    }
    Some(Process {
        name: name.to_owned(),
        deployment: deployment.to_owned(),
        listen: address?,
        state_dir: state_dir.to_owned(),
    })
}

/// What a pool says of this server's own PostgreSQL.
fn check_own(pool: &ServerPool, mistakes: &mut Mistakes) {
    let pool_name = &pool.name;
    for (field, path) in [
        ("data_dir", &pool.data_dir),
        ("files_dir", &pool.files_dir),
        ("socket_dir", &pool.socket_dir),
    ] {
        check_path(&format!("{field} of pool {pool_name}"), path, mistakes);
    }
    if let Some(path) = &pool.front_end_password_file {
        check_path(&format!("front_end_password_file of pool {pool_name}"), path, mistakes);
    }
    if pool.socket_dir.as_os_str().len() > SOCKET_DIR_LIMIT {
        mistakes.push(format!(
            "socket_dir of pool {pool_name} is longer than {SOCKET_DIR_LIMIT} bytes, which is too \
             long for a Unix socket: choose a shorter path"
        ));
    }
    if pool.client_access.iter().any(|line| line.contains('\n')) {
        mistakes.push(format!("a client_access line of pool {pool_name} has a line break in it"));
    }
}

fn server_pool(file: &ServerFile, pool: &ServerPool, mistakes: &mut Mistakes) -> Option<Part> {
    let pool_name = &pool.name;
    check_name("the name of a pool", pool_name, mistakes);
    check_own(pool, mistakes);
    let members = members(pool, mistakes);
    let called = |partner: &&PartnerAddress| partner.name == file.name;
    let (first, second) = (pool.first.as_ref(), pool.second.as_ref());
    let (partner, own, other) = if let Some(own) = first.filter(called) {
        (Partner::First, own, second)
    } else if let Some(own) = second.filter(called) {
        (Partner::Second, own, first)
    } else {
        mistakes.push(format!(
            "pool {pool_name} has no partner here: neither first nor second is called \
             \"{}\" as this server is",
            file.name
        ));
        return None;
    };
    if other.is_none() && pool.witness.is_some() {
        mistakes.push(format!(
            "pool {pool_name} has one server and a witness: remove the witness, or name the other \
             server"
        ));
    }
    let postgres = Postgres {
        data_dir: pool.data_dir.clone(),
        files_dir: pool.files_dir.clone(),
        socket_dir: pool.socket_dir.clone(),
        secret_file: pool.secret_file.clone().unwrap_or_else(|| pool.files_dir.join("secret")),
        listen: pool.postgres_listen.clone(),
        port: own.postgres_port,
        partner: other.map(|other| (other.host.clone(), other.postgres_port)),
        partner_name: other.map(|other| other.name.clone()),
        locale: pool.locale.clone(),
        slot_wal_keep: pool.slot_wal_keep.clone(),
        settings: pool.settings.clone(),
        client_access: pool.client_access.clone(),
        databases: pool.databases.clone(),
        drain: drain(pool_name, &pool.times, mistakes),
        front_ends: pool.front_ends.clone(),
        front_end_password_file: pool.front_end_password_file.clone(),
    };
    Some(Part {
        pool: pool_name.clone(),
        me: Member::Partner(partner),
        timing: timing(pool_name, &pool.profile, &pool.times, mistakes),
        members,
        witness: pool.witness.as_ref().map(|witness| WitnessId::named(&witness.name)),
        converge: pool.converge,
        postgres: Some(postgres),
    })
}

fn witness_pool(file: &WitnessFile, pool: &WitnessPool, mistakes: &mut Mistakes) -> Part {
    check_name("the name of a pool", &pool.name, mistakes);
    let id = WitnessId::named(&file.name);
    let me = Address { name: file.name.clone(), host: String::new(), port: 0 };
    let members = BTreeMap::from([
        (Member::FIRST, address(&pool.first)),
        (Member::SECOND, address(&pool.second)),
        (Member::Witness(id), me),
    ]);
    distinct(&pool.name, &members, mistakes);
    Part {
        pool: pool.name.clone(),
        me: Member::Witness(id),
        timing: timing(&pool.name, &pool.profile, &pool.times, mistakes),
        members,
        witness: Some(id),
        converge: false,
        postgres: None,
    }
}

fn members(pool: &ServerPool, mistakes: &mut Mistakes) -> BTreeMap<Member, Address> {
    let partner = |partner: &PartnerAddress| Address {
        name: partner.name.clone(),
        host: partner.host.clone(),
        port: partner.port,
    };
    let partners = [(Member::FIRST, &pool.first), (Member::SECOND, &pool.second)];
    let mut members: BTreeMap<Member, Address> = partners
        .into_iter()
        .filter_map(|(member, address)| Some((member, partner(address.as_ref()?))))
        .collect();
    for witness in pool.witness.iter().chain(&pool.spare_witnesses) {
        let member = Member::Witness(WitnessId::named(&witness.name));
        if members.insert(member, address(witness)).is_some() {
            mistakes.push(format!(
                "pool {} names the witness {} twice: keep one of the entries",
                pool.name, witness.name
            ));
        }
    }
    distinct(&pool.name, &members, mistakes);
    members
}

fn address(member: &MemberAddress) -> Address {
    Address { name: member.name.clone(), host: member.host.clone(), port: member.port }
}

fn distinct(pool: &str, members: &BTreeMap<Member, Address>, mistakes: &mut Mistakes) {
    let mut names = BTreeSet::new();
    for member in members.values() {
        check_name(&format!("the name of a member of pool {pool}"), &member.name, mistakes);
        if !names.insert(&member.name) {
            mistakes.push(format!(
                "pool {pool} names {} twice: both partners and the witness must be different \
                 processes on different machines",
                member.name
            ));
        }
    }
}

/// One name has one address, in whichever pool; no pool is named twice.
fn across_pools<'a>(
    process: &str,
    parts: &[Part],
    names: impl Iterator<Item = &'a String>,
    mistakes: &mut Mistakes,
) {
    let mut pools = BTreeSet::new();
    for name in names {
        if !pools.insert(name) {
            mistakes.push(format!("pool {name} is named twice: keep one of the sections"));
        }
    }
    let mut known: BTreeMap<&str, &Address> = BTreeMap::new();
    for address in parts.iter().flat_map(|part| part.members.values()) {
        if address.name == process {
            continue;
        }
        if let Some(before) = known.insert(&address.name, address)
            && before != address
        {
            mistakes.push(format!(
                "{} has two addresses, {}:{} and {}:{}: write the same one in all pools",
                address.name, before.host, before.port, address.host, address.port
            ));
        }
    }
}

/// No two pools share a directory or a port, and the state is not inside of a data directory.
fn directories(file: &ServerFile, mistakes: &mut Mistakes) {
    let mut used: BTreeMap<&Path, String> = BTreeMap::new();
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    for pool in &file.pools {
        for (field, path) in [("data_dir", &pool.data_dir), ("files_dir", &pool.files_dir)] {
            let what = format!("{field} of pool {}", pool.name);
            if let Some(before) = used.insert(path, what.clone()) {
                mistakes.push(format!(
                    "{what} is also {before} ({}): each needs a directory of its own",
                    path.display()
                ));
            }
        }
        for (field, path) in [("state_dir", &file.state_dir), ("files_dir", &pool.files_dir)] {
            if path.starts_with(&pool.data_dir) {
                mistakes.push(format!(
                    "{field} is inside of data_dir of pool {}: a fresh copy would replace it; \
                     choose a place outside",
                    pool.name
                ));
            }
        }
        let mut partners = pool.first.iter().chain(&pool.second);
        let Some(own) = partners.find(|partner| partner.name == file.name) else { continue };
        if let Some(other) = ports.insert(own.postgres_port, &pool.name) {
            mistakes.push(format!(
                "pools {other} and {} both give this server's PostgreSQL port {}: choose another",
                pool.name, own.postgres_port
            ));
        }
    }
}

fn timing(pool: &str, profile: &str, times: &Times, mistakes: &mut Mistakes) -> Timing {
    let mut timing = match profile {
        "fast" => Timing::FAST,
        "standard" => Timing::STANDARD,
        "tolerant" => Timing::TOLERANT,
        other => {
            mistakes.push(format!(
                "profile = \"{other}\" of pool {pool} is unknown: choose fast, standard or tolerant"
            ));
            Timing::STANDARD
        }
    };
    let set = |time: &mut Duration, ms: Option<u64>| {
        if let Some(ms) = ms {
            *time = Duration::from_millis(ms);
        }
    };
    set(&mut timing.heartbeat, times.heartbeat_ms);
    set(&mut timing.lease, times.lease_ms);
    set(&mut timing.detection, times.detection_ms);
    set(&mut timing.partner_timeout, times.partner_timeout_ms);
    set(&mut timing.stop_margin, times.stop_margin_ms);
    set(&mut timing.shutdown_timeout, times.shutdown_timeout_ms);
    set(&mut timing.handover_timeout, times.handover_timeout_ms);
    timing.vote_timeout = timing.heartbeat * 2;
    if let Some(fault) = timing.fault() {
        mistakes.push(format!("the times of pool {pool} do not fit together: {fault}"));
    }
    timing
}

fn drain(pool: &str, times: &Times, mistakes: &mut Mistakes) -> Duration {
    let drain = times.drain_ms.map_or(Drain::DEFAULT_PATIENCE, Duration::from_millis);
    if drain > LONGEST_DRAIN {
        mistakes.push(format!(
            "drain_ms of pool {pool} is above {}: transactions that take so long are not waited \
             for",
            LONGEST_DRAIN.as_millis()
        ));
    }
    drain
}

/// Names appear in files, on command lines and in messages: keep them plain.
fn check_name(what: &str, name: &str, mistakes: &mut Mistakes) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts_well || name.len() > NAME_LIMIT || !name.chars().all(plain) {
        mistakes.push(format!(
            "{what} is \"{name}\": use 1 to {NAME_LIMIT} letters, digits, '-', '_' and '.', \
             beginning with a letter or digit"
        ));
    }
}

fn check_path(what: &str, path: &Path, mistakes: &mut Mistakes) {
    if !path.is_absolute() {
        mistakes.push(format!(
            "{what} is \"{}\", which is not an absolute path: begin it with /",
            path.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const GOOD: &str = r#"
        name = "be1"
        deployment = "demo"
        listen = "127.0.0.1:7022"
        state_dir = "/var/lib/backstay"

        [[pool]]
        name = "pool01"
        data_dir = "/srv/pool01/data"
        files_dir = "/srv/pool01/files"
        socket_dir = "/run/backstay"
        first = { name = "be1", host = "10.0.0.1" }
        second = { name = "be2", host = "10.0.0.2", postgres_port = 5433 }
        witness = { name = "wit1", host = "10.0.0.3" }
        times = { heartbeat_ms = 200 }
        [pool.settings]
        shared_buffers = "1GB"
    "#;

    fn load(text: &str) -> Result<Server, String> {
        let file: ServerFile = toml::from_str(text).map_err(|error| error.to_string())?;
        server(file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_file_is_understood() {
        let server = load(GOOD).unwrap();
        let part = &server.pools[0];
        assert_eq!(part.me, Member::FIRST);
        assert_eq!(part.witness, part.witness_named("wit1"));
        assert_eq!(part.partner_named("be2"), Some(Partner::Second));
        assert_eq!(part.timing.heartbeat, Duration::from_millis(200));
        let postgres = part.postgres.as_ref().unwrap();
        assert_eq!(
            (postgres.port, &postgres.partner),
            (5432, &Some(("10.0.0.2".to_owned(), 5433)))
        );
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let file: ServerFile = toml::from_str(GOOD).unwrap();
        let text = toml::to_string(&file).unwrap();
        assert_eq!(toml::from_str::<ServerFile>(&text).unwrap(), file);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let bad = GOOD
            .replace("name = \"pool01\"", "name = \"pool 01\"\nprofile = \"quick\"")
            .replace("127.0.0.1:7022", "nowhere")
            .replace("/srv/pool01/files", "/srv/pool01/data/files")
            .replace("/var/lib/backstay", "state")
            .replace("heartbeat_ms = 200", "lease_ms = 9000");
        expect![[r#"
            the configuration of be1 has mistakes:
              - state_dir is "state", which is not an absolute path: begin it with /
              - listen = "nowhere" is no address: write an IP address and a port, such as "0.0.0.0:7022"
              - the name of a pool is "pool 01": use 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit
              - profile = "quick" of pool pool 01 is unknown: choose fast, standard or tolerant
              - the times of pool pool 01 do not fit together: the detection time must be at least the lease and 10 % more
              - files_dir is inside of data_dir of pool pool 01: a fresh copy would replace it; choose a place outside"#]].assert_eq(&load(&bad).unwrap_err());
    }

    #[test]
    fn a_pool_may_have_one_server_and_then_has_no_witness() {
        let one = GOOD.replace("second = {", "# {");
        let error = load(&one).unwrap_err();
        assert!(error.contains("has one server and a witness"), "{error}");
        let one = one.replace("witness = {", "# {");
        let part = &load(&one).unwrap().pools[0];
        assert_eq!((part.is_alone(), part.wanted()), (true, Some(session::Wanted::Alone)));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = GOOD.replace("state_dir", "statedir");
        assert!(load(&text).unwrap_err().contains("statedir"));
    }
}
