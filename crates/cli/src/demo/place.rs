//! Where a demo lives, and who can reach it.
//!
//! PostgreSQL refuses to run as root, so under root it runs as user `postgres`, who must be able
//! to enter the demo's directory. A directory that this user cannot reach (below /root, say) is
//! refused with the reason; the default then moves to the directory for temporary files.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::output::{self, hinted};

/// The demo's plan: ports and password, chosen once.
pub const PLAN_FILE: &str = "demo.toml";
pub const DEPLOYMENT_FILE: &str = "deployment.toml";
/// The user that PostgreSQL runs as when the demo is started by root.
pub const POSTGRES_USER: &str = "postgres";
/// A Unix socket's path may have 107 bytes, of which PostgreSQL needs 17.
const LONGEST_SOCKET_DIR: usize = 85;

/// Who runs the demo's PostgreSQL.
pub fn postgres_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(POSTGRES_USER)
}

/// `./.backstay/demo`, unless PostgreSQL's user cannot get there.
pub fn default_dir() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("find the current directory")?;
    let wanted = here.join(".backstay").join("demo");
    if postgres_user().is_none() || unreachable_part(&here).is_none() {
        return Ok(wanted);
    }
    Ok(std::env::temp_dir().join(format!("backstay-demo-{:016x}", mark_of(&here))))
}

/// The directory that was asked for, or the default one, as an absolute path.
pub fn dir(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(dir) => {
            let absolute = std::path::absolute(dir)
                .with_context(|| format!("make {} absolute", dir.display()))?;
            Ok(absolute.canonicalize().unwrap_or(absolute))
        }
        None => default_dir(),
    }
}

/// The directory of a demo that exists: the one given, the one whose deployment file the
/// environment names, or the default one.
pub fn existing(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("BACKSTAY_DEPLOYMENT").map(PathBuf::from);
    let named = named.and_then(|file| Some(file.parent()?.to_path_buf()));
    let named = named.filter(|dir| dir.join(PLAN_FILE).exists());
    let dir = dir(given.or(named.as_deref()))?;
    if dir.join(PLAN_FILE).exists() {
        return Ok(dir);
    }
    Err(hinted(
        format!("there is no demo in {}", dir.display()),
        "start one with: backstay demo\nor name its directory with --dir DIR",
    ))
}

/// Makes the demo's directory and sees that PostgreSQL's user can enter it.
pub fn prepare(dir: &Path, given: Option<&Path>) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("find the current directory")?;
    if given.is_none() && !dir.starts_with(&here) {
        output::talk(&format!(
            "PostgreSQL runs as user {POSTGRES_USER}, who cannot enter {}; the demo lives in {}",
            here.display(),
            dir.display()
        ));
    }
    for part in missing_parts(dir) {
        DirBuilder::new()
            .mode(0o755)
            .create(&part)
            .with_context(|| format!("make the directory {}", part.display()))?;
        fs::set_permissions(&part, Permissions::from_mode(0o755))
            .with_context(|| format!("set the mode of {}", part.display()))?;
        if part.file_name().is_some_and(|name| name == ".backstay") {
            let _ = fs::write(part.join(".gitignore"), "*\n");
        }
    }
    let owner = fs::symlink_metadata(dir).with_context(|| format!("look at {}", dir.display()))?;
    if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
        return Err(hinted(
            format!("{} is not a directory of this user", dir.display()),
            "name another directory with --dir DIR",
        ));
    }
    if postgres_user().is_some()
        && let Some(part) = unreachable_part(dir)
    {
        return Err(hinted(
            format!("PostgreSQL runs as user {POSTGRES_USER}, who cannot enter {}", part.display()),
            format!(
                "name a directory that everybody can enter, such as --dir {}/backstay-demo,\n\
                 or open this one: chmod o+x {}",
                std::env::temp_dir().display(),
                part.display()
            ),
        ));
    }
    Ok(())
}

/// The parts of `dir` that do not exist, outermost first.
fn missing_parts(dir: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> =
        dir.ancestors().take_while(|part| !part.exists()).map(Path::to_path_buf).collect();
    parts.reverse();
    parts
}

/// The first part of `path` that strangers cannot enter.
fn unreachable_part(path: &Path) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let closed = |part: &&Path| fs::metadata(part).is_ok_and(|seen| seen.mode() & 0o001 == 0);
    parts.into_iter().find(closed).map(Path::to_path_buf)
}

/// A directory for the Unix sockets of a member: near its data, unless that path is too long.
pub fn socket_dir(dir: &Path, name: &str) -> PathBuf {
    short(dir.join(name).join("postgres/run"), dir, name)
}

/// The socket that the supervisor listens on.
pub fn control_socket(dir: &Path) -> PathBuf {
    short(dir.to_path_buf(), dir, "control").join("control")
}

/// `near`, or a short path that stands for it.
fn short(near: PathBuf, dir: &Path, name: &str) -> PathBuf {
    if near.as_os_str().len() <= LONGEST_SOCKET_DIR {
        return near;
    }
    std::env::temp_dir().join(format!("backstay-{:016x}-{name}", mark_of(dir)))
}

/// A number that differs for different paths (FNV-1a).
fn mark_of(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_a_deep_directory_move_to_a_short_one() {
        let deep = PathBuf::from("/").join("x".repeat(100));
        assert!(socket_dir(&deep, "be1").as_os_str().len() <= LONGEST_SOCKET_DIR);
        assert_ne!(socket_dir(&deep, "be1"), socket_dir(&deep, "be2"));
        assert_eq!(socket_dir(Path::new("/a/b"), "be1"), Path::new("/a/b/be1/postgres/run"));
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let dir = std::env::temp_dir().join(format!("backstay-place-{}", std::process::id()));
        fs::create_dir_all(dir.join("inner")).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(unreachable_part(&dir.join("inner")), Some(dir.clone()));
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(unreachable_part(&dir.join("inner")), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
