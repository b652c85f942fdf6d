//! Which members there are, where they are, and which pools they keep.
//!
//! The deployment file is what a command needs to find its members. It says nothing about roles:
//! those are asked of the members each time. It is found through `--deployment`,
//! `BACKSTAY_DEPLOYMENT`, or the demo of the current directory, in this order.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::demo::{certificates, place};
use crate::output::{self, hinted};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    pub name: String,
    #[serde(default, rename = "member")]
    pub members: Vec<MemberEntry>,
    #[serde(default, rename = "pool")]
    pub pools: Vec<PoolEntry>,
    #[serde(default, rename = "front_end", skip_serializing_if = "Vec::is_empty")]
    pub front_ends: Vec<FrontEndEntry>,
}

/// One process: the agent of a server, or a witness.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberEntry {
    pub name: String,
    /// Host and port where it listens for other members and for commands.
    pub address: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    pub name: String,
    pub first: String,
    /// Empty: the pool has one server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub second: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
    /// Shown by `drill`; the members' own configuration is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// A Front End, asked for its status by commands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontEndEntry {
    pub name: String,
    pub pool: String,
    /// Host and port of its `admin_listen`: not where applications connect.
    pub address: String,
}

impl PoolEntry {
    /// The pool's members by name: partners first.
    pub fn member_names(&self) -> impl Iterator<Item = &str> {
        let all = [&self.first, &self.second].into_iter().chain(&self.witness);
        all.map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// A deployment together with where it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub deployment: Deployment,
    /// The demo that it belongs to.
    pub demo: Option<PathBuf>,
}

const HINT: &str = "name a deployment file with --deployment FILE or BACKSTAY_DEPLOYMENT,\n\
                    or start a demo here: backstay demo";

/// The deployment that the command is about.
pub fn find(given: Option<&Path>) -> anyhow::Result<Found> {
    if let Some(file) = given {
        let demo = file.parent().filter(|dir| dir.join(place::PLAN_FILE).exists());
        let demo = demo.map(Path::to_path_buf);
        if let Some(demo) = &demo {
            certificates::speak_for(demo);
        }
        return Ok(Found { deployment: read(file)?, demo });
    }
    let demo = place::default_dir()?;
    let file = demo.join(place::DEPLOYMENT_FILE);
    if !file.exists() {
        return Err(hinted("no deployment is given, and no demo lives in this directory", HINT));
    }
    certificates::speak_for(&demo);
    Ok(Found { deployment: read(&file)?, demo: Some(demo) })
}

fn read(file: &Path) -> anyhow::Result<Deployment> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("read the deployment {}", file.display()))?;
    if is_topology(&text) {
        return of_topology(file, &text);
    }
    let deployment: Deployment = toml::from_str(&text).map_err(|error| {
        hinted(
            format!("{} is no deployment file: {}", file.display(), error.to_string().trim_end()),
            "it holds: name, [[member]] with name and address, [[pool]] with name, first, second \
             and witness, [[front_end]] with name, pool and address",
        )
    })?;
    let faults = deployment.faults();
    if faults.is_empty() {
        return Ok(deployment);
    }
    Err(hinted(
        format!("{} contradicts itself: {}", file.display(), faults.join("; ")),
        "every name is used once, and every member of a pool has a [[member]] entry",
    ))
}

/// A document of the topology says so in its first field.
fn is_topology(text: &str) -> bool {
    text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("format"))
}

/// What commands need of the whole document. Pools on clusters have no members to ask.
fn of_topology(file: &Path, text: &str) -> anyhow::Result<Deployment> {
    let checked = topology::examine(text).checked().map_err(|found| {
        hinted(
            format!("{} cannot be used: {}", file.display(), topology::render::count(&found)),
            format!("see which: {} topology check {}", output::program(), file.display()),
        )
    })?;
    let parts = checked.deployment_parts();
    let address = |of: &topology::derive::Address| format!("{}:{}", of.host, of.port);
    let members = parts.servers.iter().chain(&parts.witnesses);
    let pools = parts.pools.iter().filter_map(|pool| {
        Some(PoolEntry {
            name: pool.name.clone(),
            first: pool.first.clone()?,
            second: pool.second.clone().unwrap_or_default(),
            witness: pool.witness.clone(),
            profile: Some(pool.profile.clone()),
        })
    });
    let front_ends = parts.front_ends.iter().map(|front_end| FrontEndEntry {
        name: front_end.address.name.clone(),
        pool: front_end.pool.clone(),
        address: address(&front_end.address),
    });
    let mut deployment = Deployment {
        name: parts.name.clone(),
        members: members
            .map(|member| MemberEntry { name: member.name.clone(), address: address(member) })
            .collect(),
        pools: pools.collect(),
        front_ends: front_ends.collect(),
    };
    let known: BTreeSet<String> = deployment.pools.iter().map(|pool| pool.name.clone()).collect();
    deployment.front_ends.retain(|front_end| known.contains(&front_end.pool));
    Ok(deployment)
}

impl Deployment {
    /// Everything that is wrong with it.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut names = BTreeSet::new();
        for member in &self.members {
            if !names.insert(member.name.as_str()) {
                faults.push(format!("two members are called {:?}", member.name));
            }
            faults.extend(fault_of_address(&member.name, &member.address));
        }
        let mut pools = BTreeSet::new();
        for pool in &self.pools {
            if !pools.insert(pool.name.as_str()) {
                faults.push(format!("two pools are called {:?}", pool.name));
            }
            for name in pool.member_names().filter(|name| !names.contains(name)) {
                faults.push(format!("pool {:?} names {name:?}, which is no member", pool.name));
            }
            let distinct: BTreeSet<&str> = pool.member_names().collect();
            if distinct.len() != pool.member_names().count() {
                faults.push(format!("pool {:?} names a member twice", pool.name));
            }
        }
        if self.pools.is_empty() {
            faults.push("it has no pool".to_owned());
        }
        for front_end in &self.front_ends {
            if !names.insert(front_end.name.as_str()) {
                faults.push(format!("the name {:?} is used twice", front_end.name));
            }
            if !pools.contains(front_end.pool.as_str()) {
                faults.push(format!(
                    "front end {:?} names {:?}, which is no pool",
                    front_end.name, front_end.pool
                ));
            }
            faults.extend(fault_of_address(&front_end.name, &front_end.address));
        }
        faults
    }

    /// The Front Ends that a pool's clients use.
    pub fn front_ends_of(&self, pool: &PoolEntry) -> impl Iterator<Item = &FrontEndEntry> {
        self.front_ends.iter().filter(move |front_end| front_end.pool == pool.name)
    }

    pub fn pool(&self, name: &str) -> anyhow::Result<&PoolEntry> {
        self.pools.iter().find(|pool| pool.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
            hinted(
                format!("there is no pool {name:?} in the deployment {:?}", self.name),
                format!("its pools are: {}", known.join(", ")),
            )
        })
    }

    pub fn member(&self, name: &str) -> anyhow::Result<&MemberEntry> {
        self.members.iter().find(|member| member.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
            hinted(
                format!("there is no member {name:?} in the deployment {:?}", self.name),
                format!("its members are: {}", known.join(", ")),
            )
        })
    }

    /// The members of a pool, partners first.
    pub fn members_of(&self, pool: &PoolEntry) -> anyhow::Result<Vec<MemberEntry>> {
        pool.member_names().map(|name| self.member(name).cloned()).collect()
    }
}

fn fault_of_address(name: &str, address: &str) -> Option<String> {
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    let good = matches!(port, Some(Ok(1..)));
    (!good).then(|| format!("the address of {name:?} is {address:?}, not host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(text: &str) -> Deployment {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = deployment(
            r#"
            name = "x"
            [[member]]
            name = "be1"
            address = "nowhere"
            [[member]]
            name = "be1"
            address = "127.0.0.1:1"
            [[pool]]
            name = "pool01"
            first = "be1"
            second = "be1"
            witness = "wit9"
            "#,
        )
        .faults();
        assert_eq!(
            faults,
            [
                "the address of \"be1\" is \"nowhere\", not host:port",
                "two members are called \"be1\"",
                "pool \"pool01\" names \"wit9\", which is no member",
                "pool \"pool01\" names a member twice",
            ]
        );
    }

    #[test]
    fn a_topology_tells_what_commands_need() {
        let text = r#"
            format = 1
            deployment = "x"
            central_management = "p"
            [[server]]
            name = "be1"
            host = "be1.example.com"
            [[server]]
            name = "be2"
            host = "be2.example.com"
            port = 7033
            [[witness]]
            name = "wit1"
            host = "wit1.example.com"
            [[pool]]
            name = "p"
            principal = "be1"
            mirror = "be2"
            witness = "wit1"
            [[pool]]
            name = "alone"
            method = "none"
            principal = "be1"
            port = 5433
            [[pool]]
            name = "c"
            method = "clustering"
            cluster = { name = "sql.example.com" }
        "#;
        assert!(is_topology(text));
        let deployment = of_topology(Path::new("x.toml"), text).unwrap();
        assert_eq!(deployment.faults(), [""; 0]);
        assert_eq!(deployment.member("be2").unwrap().address, "be2.example.com:7033");
        let names: Vec<&str> = deployment.pools[0].member_names().collect();
        assert_eq!(names, ["be1", "be2", "wit1"]);
        assert_eq!(deployment.pools.len(), 2);
        assert_eq!(deployment.pools[1].member_names().count(), 1);
        assert!(!is_topology("name = \"x\""));
        assert!(of_topology(Path::new("x.toml"), "format = 1").is_err());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(toml::from_str::<Deployment>("name = \"x\"\nmembers = []").is_err());
    }
}
