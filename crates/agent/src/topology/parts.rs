//! From a document to the configuration of this process: the same values that its own file could
//! have said, checked by the same checks.
//!
//! What belongs to the machine stays in the process's own file: its name, where it listens, its
//! state directory. Passwords are in no document: their files lie in fixed places.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use topology::Checked;
use topology::derive;
use topology::resolve::OS_USER;

use crate::config::{
    Change, DatabaseEntry, MemberAddress, PartnerAddress, Process, Server, ServerFile, ServerPool,
    Times, Witness, WitnessFile, WitnessPool,
};

/// What a process is, by its own file.
#[derive(Clone, Debug)]
pub(super) enum Own {
    Server(Box<Server>),
    Witness(Box<Witness>),
}

/// A process as a document wants it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub change: Change,
    /// The configuration that a start would have now; `None` where the document does not name it.
    pub server: Option<Box<Server>>,
    pub witness: Option<Box<Witness>>,
    /// What is not as the document says, and why.
    pub problem: Option<String>,
}

impl Own {
    pub fn process(&self) -> &Process {
        match self {
            Own::Server(server) => &server.process,
            Own::Witness(witness) => &witness.process,
        }
    }

    /// The file has no [[pool]] sections: the process works from its copy of the topology.
    pub fn is_governed(&self) -> bool {
        match self {
            Own::Server(server) => server.pools.is_empty(),
            Own::Witness(witness) => witness.pools.is_empty(),
        }
    }

    /// Its own file has these parts now.
    pub fn have(&mut self, change: &Change) {
        match self {
            Own::Server(server) => server.pools.clone_from(&change.wanted),
            Own::Witness(witness) => witness.pools.clone_from(&change.wanted),
        }
    }

    /// What `document` wants of this process. Parts in pools that it does not have any more are
    /// `before`'s, and end at once.
    ///
    /// # Errors
    /// What follows from the document cannot be used here.
    pub fn wanted(&self, document: &Checked, before: &Change) -> Result<Wanted, String> {
        let mut wanted = match self {
            Own::Server(own) => server(own, document)?,
            Own::Witness(own) => witness(own, document)?,
        };
        let gone = before.wanted.iter().map(|part| &part.pool).chain(&before.retired);
        let gone = gone.filter(|pool| document.pool(pool).is_none()).cloned();
        wanted.change.retired.extend(gone.collect::<BTreeSet<String>>());
        Ok(wanted)
    }
}

fn unnamed(retired: &BTreeSet<String>) -> Wanted {
    Wanted {
        change: Change { wanted: Vec::new(), retired: retired.clone() },
        server: None,
        witness: None,
        problem: Some("the topology does not name this process: it has no parts".to_owned()),
    }
}

fn server(own: &Server, document: &Checked) -> Result<Wanted, String> {
    let Some(parts) = document.server_parts(&own.process.name) else {
        return Ok(unnamed(&own.retired));
    };
    let mut problem = elsewhere(&own.process, parts.me.port);
    let pg_bin_dir = parts.pg_bin_dir.as_ref().map(PathBuf::from);
    if own.pg_bin_dir.is_some() && pg_bin_dir.is_some() && own.pg_bin_dir != pg_bin_dir {
        problem = Some(
            "pg_bin_dir is another one in this process's own file, which counts: make both the \
             same"
                .to_owned(),
        );
    }
    let file = ServerFile {
        name: own.process.name.clone(),
        deployment: own.process.deployment.clone(),
        listen: own.process.listen.to_string(),
        state_dir: own.process.state_dir.clone(),
        os_user: own.os_user.clone().or_else(|| os_user(&parts.os_user)),
        pg_bin_dir: own.pg_bin_dir.clone().or(pg_bin_dir),
        retired: own.retired.clone(),
        stop_postgres: own.stop_postgres,
        pools: parts.parts.iter().map(|part| pool(&own.process.state_dir, part)).collect(),
    };
    let server = Server::try_from(file).map_err(|error| error.to_string())?;
    let change = server.change();
    Ok(Wanted { change, server: Some(Box::new(server)), witness: None, problem })
}

/// What a running server cannot take over.
pub(super) fn fixed(started: &Server, wanted: &Wanted) -> Option<String> {
    let wanted = wanted.server.as_ref()?;
    let user = |server: &Server| server.os_user.clone().or_else(|| os_user(OS_USER));
    let same = user(started) == user(wanted) && started.pg_bin_dir == wanted.pg_bin_dir;
    (!same).then(|| {
        "os_user and pg_bin_dir are others now: they count from the next start on".to_owned()
    })
}

/// Who is not root runs PostgreSQL as himself, whatever others do.
fn os_user(wanted: &str) -> Option<String> {
    rustix::process::geteuid().is_root().then(|| wanted.to_owned())
}

fn witness(own: &Witness, document: &Checked) -> Result<Wanted, String> {
    let Some(parts) = document.witness_parts(&own.process.name) else {
        return Ok(unnamed(&own.retired));
    };
    let pools = parts.sessions.iter().map(|session| WitnessPool {
        name: session.pool.clone(),
        profile: session.profile.clone(),
        first: member(&session.first),
        second: member(&session.second),
        times: times(&session.times),
    });
    let file = WitnessFile {
        name: own.process.name.clone(),
        deployment: own.process.deployment.clone(),
        listen: own.process.listen.to_string(),
        state_dir: own.process.state_dir.clone(),
        retired: own.retired.clone(),
        pools: pools.collect(),
    };
    let witness = Witness::try_from(file).map_err(|error| error.to_string())?;
    let problem = elsewhere(&own.process, parts.me.port);
    let change = witness.change();
    Ok(Wanted { change, server: None, witness: Some(Box::new(witness)), problem })
}

/// Others look for this process at another port than it listens on.
fn elsewhere(process: &Process, port: u16) -> Option<String> {
    let listens = process.listen.port();
    (listens != port).then(|| {
        format!(
            "this process listens on port {listens} (listen in its own file), but the topology \
             says {port}: make both the same and restart it"
        )
    })
}

fn pool(state_dir: &Path, part: &derive::ServerPart) -> ServerPool {
    let files_dir = PathBuf::from(&part.files_dir);
    let databases = part.databases.iter().map(|database| DatabaseEntry {
        name: database.name.clone(),
        owner: database.owner.clone(),
        password_file: None,
    });
    ServerPool {
        name: part.pool.clone(),
        profile: part.profile.clone(),
        data_dir: PathBuf::from(&part.data_dir),
        socket_dir: PathBuf::from(&part.socket_dir),
        postgres_listen: part.postgres_listen.clone(),
        secret_file: None,
        locale: part.locale.clone(),
        slot_wal_keep: Some(part.slot_wal_keep.clone()),
        client_access: part.client_access.clone(),
        first: Some(partner(&part.first)),
        second: part.second.as_ref().map(partner),
        witness: part.witness.as_ref().map(member),
        converge: true,
        spare_witnesses: part.spare_witnesses.iter().map(member).collect(),
        times: times(&part.times),
        settings: part.settings.clone(),
        databases: databases.collect(),
        front_ends: Some(part.front_ends.iter().cloned().collect()),
        front_end_password_file: (!part.front_ends.is_empty())
            .then(|| front_end_password(state_dir, &part.pool))
            .filter(|file| file.exists()),
        files_dir,
    }
}

/// The password of the role that the pool's Front Ends look up users with. Where they log in with
/// certificates, there is no such file.
fn front_end_password(state_dir: &Path, pool: &str) -> PathBuf {
    state_dir.join("secrets").join(format!("{pool}.front-end"))
}

fn partner(partner: &derive::Partner) -> PartnerAddress {
    PartnerAddress {
        name: partner.agent.name.clone(),
        host: partner.agent.host.clone(),
        port: partner.agent.port,
        postgres_port: partner.postgres_port,
    }
}

fn member(address: &derive::Address) -> MemberAddress {
    MemberAddress { name: address.name.clone(), host: address.host.clone(), port: address.port }
}

fn times(times: &derive::Times) -> Times {
    let ms = |time: Option<u32>| time.map(u64::from);
    Times {
        heartbeat_ms: ms(times.heartbeat_ms),
        lease_ms: ms(times.lease_ms),
        detection_ms: ms(times.detection_ms),
        partner_timeout_ms: ms(times.partner_timeout_ms),
        stop_margin_ms: ms(times.stop_margin_ms),
        shutdown_timeout_ms: ms(times.shutdown_timeout_ms),
        handover_timeout_ms: ms(times.handover_timeout_ms),
        drain_ms: Some(u64::from(times.drain_ms)),
    }
}
