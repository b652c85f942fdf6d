//! Whether this machine is ready for what a document is about to put on it.
//!
//! Only looks: at directories, ports, programs and the running servers' catalogues. It may be
//! asked while sessions run, so that files are looked at off the loop's thread, and no server may
//! take long to answer. What cannot be found out is left out; whoever asks decides what it means.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use protocol::admin::{
    MemberKind, PreflightData, PreflightPart, PreflightPartSeen, PreflightPort, PreflightSeen,
};
use tokio::time::timeout;

use crate::clock;
use crate::postgres::clone::free_bytes;
use crate::postgres::create::pool_of_data;
use crate::postgres::sql::{Commits, Connection, Row, literal};
use crate::postgres::{Instance, Version};
use crate::room::find_programs;

/// A server that takes longer is not asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// More files than so many are not counted.
const MOST_FILES: usize = 200_000;

/// What the process knows of itself.
#[derive(Debug)]
pub(crate) struct Ground {
    pub process: String,
    pub kind: MemberKind,
    pub deployment: String,
    pub version: String,
    /// PostgreSQL servers that are owned here, by pool.
    pub owned: BTreeMap<String, Arc<Instance>>,
}

/// All that is asked about.
pub(crate) async fn look(ground: Ground, parts: Vec<PreflightPart>) -> PreflightSeen {
    let mut asked = Vec::new();
    for part in &parts {
        let instance = ground.owned.get(&part.pool);
        asked.push(match instance {
            Some(instance) => ask(instance, part).await.unwrap_or_default(),
            None => Told::default(),
        });
    }
    let seen = PreflightSeen {
        process: ground.process.clone(),
        kind: ground.kind,
        deployment: ground.deployment.clone(),
        version: ground.version.clone(),
        clock_ms: clock::wall_ms(),
        postgres: None,
        postgres_problem: None,
        collation_library: None,
        parts: Vec::new(),
    };
    let unseen = seen.clone();
    let looked = tokio::task::spawn_blocking(move || look_at_files(ground, seen, parts, asked));
    looked.await.unwrap_or(unseen)
}

fn look_at_files(
    ground: Ground,
    mut seen: PreflightSeen,
    parts: Vec<PreflightPart>,
    asked: Vec<Told>,
) -> PreflightSeen {
    if !parts.is_empty() {
        let version = programs(&ground, &parts);
        match version {
            Ok(version) => seen.postgres = Some(version.to_string()),
            Err(problem) => seen.postgres_problem = Some(problem),
        }
        seen.collation_library = collation_library();
    }
    for (part, told) in parts.into_iter().zip(asked) {
        let owned = ground.owned.get(&part.pool);
        let data_dir = Path::new(&part.data_dir);
        seen.parts.push(PreflightPartSeen {
            data: data(&part.pool, data_dir),
            free_bytes: nearest(data_dir).and_then(|place| free_bytes(&place).ok()),
            data_bytes: size(data_dir),
            port: port(owned, part.port),
            contexts: told.contexts,
            databases: told.databases,
            pool: part.pool,
        });
    }
    seen
}

fn programs(ground: &Ground, parts: &[PreflightPart]) -> Result<Version, String> {
    let known = ground.owned.values().next().map(|instance| instance.bin_dir.clone());
    let place = match (known, parts.first()) {
        (Some(place), _) => place,
        (None, Some(part)) => {
            find_programs(Path::new(&part.data_dir)).map_err(|error| error.to_string())?
        }
        (None, None) => return Err("nothing is asked about".to_owned()),
    };
    Version::of_programs(&place).and_then(Version::check).map_err(|error| error.to_string())
}

/// Texts are sorted by the system's library; two machines must agree, or indexes of a copy lie.
fn collation_library() -> Option<String> {
    let out = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    (out.status.success() && !text.is_empty()).then_some(text)
}

fn data(pool: &str, dir: &Path) -> PreflightData {
    let entries = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => {
            let sentence = format!("{} cannot be read: {error}", dir.display());
            return PreflightData::Unreadable { sentence };
        }
    };
    let foreign =
        |what: String| PreflightData::Foreign { sentence: format!("{} {what}", dir.display()) };
    if !entries {
        return PreflightData::Empty;
    }
    match (pool_of_data(dir), Version::of_data(dir)) {
        (Some(owner), _) if owner == pool => PreflightData::Ours,
        (Some(owner), _) => foreign(format!("holds the data of the pool {owner:?}")),
        (None, Some(_)) => foreign("holds a PostgreSQL that Backstay did not make".to_owned()),
        (None, None) => foreign("is not empty".to_owned()),
    }
}

/// The directory itself, or the nearest one above it that is there.
fn nearest(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|place| place.is_dir()).map(Path::to_path_buf)
}

/// Bytes of the files below `dir`.
fn size(dir: &Path) -> Option<u64> {
    let mut left = vec![dir.to_path_buf()];
    let (mut bytes, mut files) = (0_u64, 0_usize);
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).ok()?.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else {
                bytes = bytes.saturating_add(meta.len());
            }
            files += 1;
            if files > MOST_FILES {
                return None;
            }
        }
    }
    Some(bytes)
}

fn port(owned: Option<&Arc<Instance>>, port: u16) -> PreflightPort {
    if owned.is_some_and(|instance| instance.port == port) {
        return PreflightPort::Ours;
    }
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => PreflightPort::Free,
        Err(error) => {
            PreflightPort::Taken { sentence: format!("port {port} cannot be used: {error}") }
        }
    }
}

/// What a running server tells.
#[derive(Default)]
struct Told {
    contexts: BTreeMap<String, String>,
    databases: Option<Vec<String>>,
}

async fn ask(instance: &Instance, part: &PreflightPart) -> Option<Told> {
    let told = async {
        let sql = Connection::open(instance, Commits::Local).await.ok()?;
        let databases = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1";
        let databases = sql.rows(databases).await.ok()?;
        let databases = databases.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        let contexts = if part.settings.is_empty() {
            BTreeMap::new()
        } else {
            let names: Vec<String> = part.settings.iter().map(|name| literal(name)).collect();
            let names = names.join(", ");
            let asked = format!("SELECT name, context FROM pg_settings WHERE name IN ({names})");
            sql.rows(&asked).await.ok()?.into_iter().filter_map(pair).collect()
        };
        Some(Told { contexts, databases: Some(databases) })
    };
    timeout(PATIENCE, told).await.ok().flatten()
}

fn pair(row: Row) -> Option<(String, String)> {
    let mut row = row.into_iter();
    Some((row.next()??, row.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let place =
            std::env::temp_dir().join(format!("backstay-preflight-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    fn ground() -> Ground {
        Ground {
            process: "be1".into(),
            kind: MemberKind::Server,
            deployment: "test".into(),
            version: "1".into(),
            owned: BTreeMap::new(),
        }
    }

    fn part(data_dir: &Path, port: u16) -> PreflightPart {
        PreflightPart {
            pool: "p".into(),
            data_dir: data_dir.display().to_string(),
            files_dir: "/nowhere".into(),
            port,
            settings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_machine_tells_what_stands_in_the_way() {
        let place = place("ways");
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        std::fs::create_dir_all(place.join("full")).unwrap();
        std::fs::write(place.join("full/file"), "12345").unwrap();
        std::fs::create_dir_all(place.join("theirs")).unwrap();
        std::fs::write(place.join("theirs/backstay.pool"), "q\n").unwrap();
        std::fs::create_dir_all(place.join("mine")).unwrap();
        std::fs::write(place.join("mine/backstay.pool"), "p\n").unwrap();
        let names = ["absent/data", "full", "theirs", "mine"];
        let parts = names.iter().map(|name| part(&place.join(name), port)).collect();
        let seen = look(ground(), parts).await;
        let data: Vec<&PreflightData> = seen.parts.iter().map(|part| &part.data).collect();
        let [PreflightData::Empty, PreflightData::Foreign { .. }, theirs, PreflightData::Ours] =
            data.as_slice()
        else {
            panic!("{data:?}");
        };
        let PreflightData::Foreign { sentence } = theirs else { panic!("{theirs:?}") };
        assert!(sentence.ends_with("holds the data of the pool \"q\""), "{sentence}");
        assert!(seen.parts.iter().all(|part| part.free_bytes.is_some_and(|free| free > 0)));
        assert_eq!(seen.parts[1].data_bytes, Some(5));
        assert!(seen.parts.iter().all(|part| matches!(part.port, PreflightPort::Taken { .. })));
        assert!(seen.postgres.is_some(), "{:?}", seen.postgres_problem);
        std::fs::remove_dir_all(place).unwrap();
    }

    #[tokio::test]
    async fn a_witness_is_asked_about_nothing() {
        let seen = look(Ground { kind: MemberKind::Witness, ..ground() }, Vec::new()).await;
        assert!(seen.parts.is_empty() && seen.postgres.is_none() && seen.clock_ms > 0);
    }
}
