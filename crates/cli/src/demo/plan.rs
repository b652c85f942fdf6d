//! The demo's plan: names, ports and password, chosen at the first start and kept in `demo.toml`.
//!
//! The ports lie above the range from which the kernel takes ports for outgoing connections, so
//! that nobody is given one of them by chance between two starts.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::place;
use crate::deployment::{Deployment, FrontEndEntry, MemberEntry, PoolEntry};
use crate::output::hinted;

pub const POOL: &str = "pool01";
pub const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Database and role of the demo's clients.
pub const DATABASE: &str = "demo";
const FIRST_PORT: u16 = 61_001;
const LAST_PORT: u16 = 64_990;
/// Two PostgreSQL servers, two agents, one witness, and the Front End's two.
const PORTS: u16 = 7;
const FRONT_END_PORTS: u16 = 2;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub profile: String,
    /// Of the database role `demo`.
    pub password: String,
    /// The pool has been set up, and its database made.
    #[serde(default)]
    pub ready: bool,
    #[serde(rename = "server")]
    pub servers: Vec<ServerPlan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessPlan>,
    /// Absent in the plan of an older demo, until its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_end: Option<FrontEndPlan>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPlan {
    pub name: String,
    pub member_port: u16,
    pub postgres_port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessPlan {
    pub name: String,
    pub member_port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontEndPlan {
    pub name: String,
    /// Where applications connect.
    pub port: u16,
    /// Where commands ask for its status.
    pub admin_port: u16,
}

impl FrontEndPlan {
    /// Its ports are `first` and the one after.
    fn new(first: u16) -> FrontEndPlan {
        FrontEndPlan { name: "fe1".to_owned(), port: first, admin_port: first + 1 }
    }
}

/// What a member of the demo is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Server,
    Witness,
    FrontEnd,
}

/// Where one member of the demo keeps its files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberFiles {
    pub name: String,
    pub kind: Kind,
    /// Where other members and commands ask.
    pub member_port: u16,
    pub postgres_port: Option<u16>,
    /// Where applications connect to a Front End.
    pub front_end_port: Option<u16>,
    pub home: PathBuf,
    pub socket_dir: PathBuf,
}

impl MemberFiles {
    pub fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.home.join(match self.kind {
            Kind::Server | Kind::Witness => "agent.log",
            Kind::FrontEnd => "front-end.log",
        })
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.home.join("agent.pid")
    }

    /// The certificate that a Front End shows, and its key.
    pub fn certificate(&self) -> PathBuf {
        self.home.join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.home.join("key.pem")
    }

    /// What belongs to PostgreSQL's user: its data, and Backstay's own files about them.
    pub fn postgres_home(&self) -> PathBuf {
        self.home.join("postgres")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.postgres_home().join("data")
    }

    pub fn files_dir(&self) -> PathBuf {
        self.postgres_home().join("files")
    }
}

impl Plan {
    /// A plan with free ports and a new password.
    pub fn new(profile: &str, with_witness: bool) -> anyhow::Result<Plan> {
        let first = free_ports(&random_bytes::<2>()?, PORTS)?;
        let server = |name: &str, index: u16| ServerPlan {
            name: name.to_owned(),
            postgres_port: first + index,
            member_port: first + 2 + index,
        };
        let witness = WitnessPlan { name: "wit1".to_owned(), member_port: first + 4 };
        Ok(Plan {
            profile: profile.to_owned(),
            password: new_password()?,
            ready: false,
            servers: vec![server("be1", 0), server("be2", 1)],
            witness: with_witness.then_some(witness),
            front_end: Some(FrontEndPlan::new(first + 5)),
        })
    }

    /// Gives a Front End to the plan of a demo that was made before there was one.
    pub fn complete(&mut self, dir: &Path) -> anyhow::Result<()> {
        if self.front_end.is_some() {
            return Ok(());
        }
        let first = free_ports(&random_bytes::<2>()?, FRONT_END_PORTS)?;
        self.front_end = Some(FrontEndPlan::new(first));
        self.write(dir)
    }

    pub fn read(dir: &Path) -> anyhow::Result<Plan> {
        let file = dir.join(place::PLAN_FILE);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let plan: Plan = toml::from_str(&text).map_err(|error| {
            hinted(
                format!("{} is damaged: {error}", file.display()),
                "stop the demo's processes, remove its directory, and start anew",
            )
        })?;
        anyhow::ensure!(plan.servers.len() == 2, "{} does not name two servers", file.display());
        Ok(plan)
    }

    /// Writes the plan, whole or not at all, readable by its owner alone.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let file = dir.join(place::PLAN_FILE);
        let fresh = dir.join("demo.toml.new");
        let text = toml::to_string(self).context("write the demo's plan")?;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
            .and_then(|()| fs::rename(&fresh, &file))
            .with_context(|| format!("write {}", file.display()))
    }

    /// Everything that runs: partners first, the Front End last.
    pub fn members(&self, dir: &Path) -> Vec<MemberFiles> {
        let servers = self.servers.iter().map(|server| MemberFiles {
            name: server.name.clone(),
            kind: Kind::Server,
            member_port: server.member_port,
            postgres_port: Some(server.postgres_port),
            front_end_port: None,
            home: dir.join(&server.name),
            socket_dir: place::socket_dir(dir, &server.name),
        });
        let witness = self.witness.iter().map(|witness| MemberFiles {
            name: witness.name.clone(),
            kind: Kind::Witness,
            member_port: witness.member_port,
            postgres_port: None,
            front_end_port: None,
            home: dir.join(&witness.name),
            socket_dir: place::socket_dir(dir, &witness.name),
        });
        let front_end = self.front_end.iter().map(|front_end| MemberFiles {
            name: front_end.name.clone(),
            kind: Kind::FrontEnd,
            member_port: front_end.admin_port,
            postgres_port: None,
            front_end_port: Some(front_end.port),
            home: dir.join(&front_end.name),
            socket_dir: place::socket_dir(dir, &front_end.name),
        });
        servers.chain(witness).chain(front_end).collect()
    }

    pub fn deployment(&self) -> Deployment {
        let entry = |name: &str, port: u16| MemberEntry {
            name: name.to_owned(),
            address: format!("{HOST}:{port}"),
        };
        let servers = self.servers.iter().map(|server| entry(&server.name, server.member_port));
        let witness = self.witness.iter().map(|wit| entry(&wit.name, wit.member_port));
        Deployment {
            name: "demo".to_owned(),
            members: servers.chain(witness).collect(),
            pools: vec![PoolEntry {
                name: POOL.to_owned(),
                first: self.servers[0].name.clone(),
                second: self.servers[1].name.clone(),
                witness: self.witness.as_ref().map(|witness| witness.name.clone()),
                profile: Some(self.profile.clone()),
            }],
            front_ends: self.front_end.iter().map(front_end_entry).collect(),
        }
    }

    /// How applications connect: one address, whoever serves.
    pub fn front_end_strings(&self) -> Option<ConnectionStrings> {
        let (port, password) = (self.front_end.as_ref()?.port, &self.password);
        let user = DATABASE;
        Some(ConnectionStrings {
            uri: format!("postgresql://{user}:{password}@{HOST}:{port}/{DATABASE}"),
            keywords: format!(
                "host={HOST} port={port} dbname={DATABASE} user={user} password={password}"
            ),
            jdbc: format!(
                "jdbc:postgresql://{HOST}:{port}/{DATABASE}?user={user}&password={password}"
            ),
        })
    }

    /// How clients connect without the Front End: to whichever server takes writes.
    pub fn connection_strings(&self) -> ConnectionStrings {
        let ports: Vec<u16> = self.servers.iter().map(|server| server.postgres_port).collect();
        let hosts: Vec<String> = ports.iter().map(|port| format!("{HOST}:{port}")).collect();
        let (hosts, password) = (hosts.join(","), &self.password);
        let user = DATABASE;
        ConnectionStrings {
            uri: format!(
                "postgresql://{user}:{password}@{hosts}/{DATABASE}?target_session_attrs=read-write"
            ),
            keywords: format!(
                "host={HOST},{HOST} port={},{} dbname={DATABASE} user={user} password={password} \
                 target_session_attrs=read-write",
                ports[0], ports[1]
            ),
            jdbc: format!(
                "jdbc:postgresql://{hosts}/{DATABASE}?user={user}&password={password}\
                 &targetServerType=primary"
            ),
        }
    }
}

fn front_end_entry(front_end: &FrontEndPlan) -> FrontEndEntry {
    FrontEndEntry {
        name: front_end.name.clone(),
        pool: POOL.to_owned(),
        address: format!("{HOST}:{}", front_end.admin_port),
    }
}

/// The same connection in the forms that libraries know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConnectionStrings {
    pub uri: String,
    pub keywords: String,
    pub jdbc: String,
}

fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    let flags = rustix::rand::GetRandomFlags::empty();
    let filled = rustix::rand::getrandom(&mut bytes, flags).context("read random bytes")?;
    anyhow::ensure!(filled == N, "the kernel gave too few random bytes");
    Ok(bytes)
}

pub fn new_password() -> anyhow::Result<String> {
    Ok(password(&random_bytes::<12>()?))
}

/// The first of `count` free ports in a row, looked for from a random place on.
fn free_ports(random: &[u8; 2], count: u16) -> anyhow::Result<u16> {
    free_block(random, count, |port| TcpListener::bind((HOST, port)).ok()).ok_or_else(|| {
        hinted(
            format!("no {count} free ports in a row between {FIRST_PORT} and {LAST_PORT}"),
            "end some of the programs that listen on them",
        )
    })
}

/// `hold` takes a port if it is free; a block is free if all of its ports can be held at once.
fn free_block<Held>(
    random: &[u8; 2],
    count: u16,
    hold: impl Fn(u16) -> Option<Held>,
) -> Option<u16> {
    let blocks = (LAST_PORT - FIRST_PORT) / count;
    let start = u16::from_le_bytes(*random) % blocks;
    (0..blocks).map(|step| FIRST_PORT + (start + step) % blocks * count).find(|first| {
        let held: Option<Vec<Held>> = (*first..*first + count).map(&hold).collect();
        held.is_some()
    })
}

fn password(random: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let server = |name: &str, postgres_port, member_port| ServerPlan {
            name: name.to_owned(),
            member_port,
            postgres_port,
        };
        Plan {
            profile: "standard".to_owned(),
            password: "secret".to_owned(),
            ready: true,
            servers: vec![server("be1", 61001, 61003), server("be2", 61002, 61004)],
            witness: Some(WitnessPlan { name: "wit1".to_owned(), member_port: 61005 }),
            front_end: Some(FrontEndPlan::new(61006)),
        }
    }

    #[test]
    fn a_plan_survives_its_file() {
        let text = toml::to_string(&plan()).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan());
    }

    #[test]
    fn the_plan_of_an_older_demo_is_understood() {
        let older = Plan { front_end: None, ..plan() };
        let text = toml::to_string(&older).unwrap();
        assert!(!text.contains("front_end"));
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), older);
        assert_eq!(older.front_end_strings(), None);
        assert_eq!(older.members(Path::new("/d")).len(), 3);
    }

    #[test]
    fn applications_are_told_one_address() {
        let strings = plan().front_end_strings().unwrap();
        assert_eq!(strings.uri, "postgresql://demo:secret@127.0.0.1:61006/demo");
    }

    #[test]
    fn clients_are_told_both_servers() {
        let strings = plan().connection_strings();
        assert_eq!(
            strings.uri,
            "postgresql://demo:secret@127.0.0.1:61001,127.0.0.1:61002/demo\
             ?target_session_attrs=read-write"
        );
        assert_eq!(
            strings.jdbc,
            "jdbc:postgresql://127.0.0.1:61001,127.0.0.1:61002/demo?user=demo&password=secret\
             &targetServerType=primary"
        );
    }

    #[test]
    fn two_plans_made_side_by_side_share_no_port() {
        let first = free_block(&[0, 0], PORTS, |_| Some(())).unwrap();
        let last = first + PORTS - 1;
        let second = free_block(&[0, 0], PORTS, |port| (port != last).then_some(())).unwrap();
        assert!(second > last, "one taken port makes the whole block taken");
        assert_eq!(free_block(&[7, 0], PORTS, |_| None::<()>), None);
    }
}
