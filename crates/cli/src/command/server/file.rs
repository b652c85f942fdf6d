//! The server's own file, changed so that people's words in it stay.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use agent::config::{Server, ServerFile, ServerPool};
use anyhow::Context as _;
use serde::Serialize;
use toml_edit::{ArrayOfTables, DocumentMut, Item};

/// A server's file as it is.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    text: String,
    pub file: ServerFile,
    pub server: Server,
}

#[derive(Serialize)]
struct Section<'a> {
    pool: [&'a ServerPool; 1],
}

impl OwnFile {
    pub fn read(path: &Path) -> anyhow::Result<OwnFile> {
        let server = Server::load(path)?;
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let file: ServerFile =
            toml::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
        Ok(OwnFile { path: path.to_owned(), text, file, server })
    }

    pub fn pool(&self, name: &str) -> Option<&ServerPool> {
        self.file.pools.iter().find(|pool| pool.name == name)
    }

    /// The pool's section as text.
    pub fn section(pool: &ServerPool) -> anyhow::Result<String> {
        toml::to_string(&Section { pool: [pool] }).context("write the pool's section")
    }

    /// With the pool added. Checked as the agent will check it.
    pub fn with(&self, pool: &ServerPool) -> anyhow::Result<String> {
        let mut file = self.file.clone();
        file.retired.remove(&pool.name);
        file.pools.push(pool.clone());
        Server::try_from(file)?;
        let mut document = self.document()?;
        set_retired(&mut document, &pool.name, false);
        let text = document.to_string();
        Ok(format!(
            "{}\n\n# Taken over by `backstay server adopt`.\n{}",
            text.trim_end(),
            OwnFile::section(pool)?
        ))
    }

    /// Without the pool, which is left at once.
    pub fn without(&self, pool: &str) -> anyhow::Result<String> {
        let mut document = self.document()?;
        if let Some(pools) = document.get_mut("pool").and_then(Item::as_array_of_tables_mut) {
            let named = |name: Option<&Item>| name.and_then(Item::as_str) == Some(pool);
            pools.retain(|table| !named(table.get("name")));
        }
        let empty = document.get("pool").and_then(Item::as_array_of_tables);
        if empty.is_some_and(ArrayOfTables::is_empty) {
            document.remove("pool");
        }
        set_retired(&mut document, pool, true);
        Ok(document.to_string())
    }

    fn document(&self) -> anyhow::Result<DocumentMut> {
        self.text.parse().with_context(|| format!("understand {}", self.path.display()))
    }

    /// Replaces the file as a whole; who owns it and may read it stays.
    pub fn replace(&self, text: &str) -> anyhow::Result<()> {
        let path = &self.path;
        let next = path.with_extension("toml.new");
        let write = || -> std::io::Result<()> {
            let meta = fs::metadata(path)?;
            fs::write(&next, text)?;
            fs::set_permissions(&next, meta.permissions())?;
            chown(&next, Some(meta.uid()), Some(meta.gid()))?;
            File::open(&next)?.sync_all()?;
            fs::rename(&next, path)?;
            match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                Some(dir) => File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().with_context(|| format!("replace {}", path.display()))
    }
}

fn set_retired(document: &mut DocumentMut, pool: &str, retired: bool) {
    let known = document.get_mut("retired").and_then(Item::as_array_mut);
    match known {
        Some(names) => {
            names.retain(|name| name.as_str() != Some(pool));
            if retired {
                names.push(pool);
            } else if names.is_empty() {
                document.remove("retired");
            }
        }
        None if retired => {
            let names: toml_edit::Array = [pool].into_iter().collect();
            document.insert("retired", toml_edit::value(names));
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str) -> OwnFile {
        let file: ServerFile = toml::from_str(text).unwrap();
        let server = Server::try_from(file.clone()).unwrap();
        OwnFile { path: PathBuf::from("/be1.toml"), text: text.to_owned(), file, server }
    }

    const TEXT: &str = "# Ours.\nname = \"be1\"\ndeployment = \"test\"\nlisten = \"127.0.0.1:1\"\n\
        state_dir = \"/state\" # not on the data's volume\n";

    #[test]
    fn a_pool_comes_and_goes_and_comments_stay() {
        let pool: ServerPool = toml::from_str(
            "name = \"shop\"\ndata_dir = \"/d\"\nfiles_dir = \"/f\"\nsocket_dir = \"/r\"\n\
             first = { name = \"be1\", host = \"h\" }\n[settings]\nwork_mem = \"5MB\"",
        )
        .unwrap();
        let with = own(TEXT).with(&pool).unwrap();
        assert!(with.starts_with(TEXT.trim_end()), "{with}");
        assert_eq!(own(&with).pool("shop"), Some(&pool));
        let without = own(&with).without("shop").unwrap();
        assert!(without.contains("# Ours.") && without.contains("# not on the data's volume"));
        assert!(own(&without).file.retired.contains("shop"), "{without}");
        assert_eq!(own(&without).pool("shop"), None);
        let again = own(&without).with(&pool).unwrap();
        assert!(own(&again).file.retired.is_empty(), "{again}");
        assert!(own(&again).with(&pool).is_err(), "a pool is not named twice");
    }
}
