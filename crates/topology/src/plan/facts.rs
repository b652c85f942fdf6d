//! What the processes of a deployment say of themselves, as far as a plan needs it.
//!
//! Commands fill these values from status answers; nothing here asks anybody. What nobody told
//! stays empty, and a plan made of it says less, never something wrong.

use std::collections::{BTreeMap, BTreeSet};

/// How the deployment is now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// By name. A process that is not here did not answer.
    pub processes: BTreeMap<String, ProcessFacts>,
    /// By name. A pool that is not here has no session that anybody knows of.
    pub pools: BTreeMap<String, PoolFacts>,
}

/// One process that answered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ProcessFacts {
    /// Of the document that it works from; `None`: it has none.
    pub version: Option<u64>,
    /// It works from a file of its own, and follows no document.
    pub has_own_file: bool,
    /// Why it does not work from a newer one.
    pub problem: Option<String>,
    /// Pools in whose session it takes part.
    pub parts: BTreeSet<String>,
}

/// One pool, as whoever serves it tells.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PoolFacts {
    /// Who serves, or would.
    pub principal: Option<String>,
    pub is_served: bool,
    /// Every acknowledged commit is on both disks, and the mirror streams.
    pub is_mirrored: bool,
    /// It is settled that the principal has no partner.
    pub is_alone: bool,
    /// The servers that its session knows.
    pub servers: BTreeSet<String>,
    /// The witness that votes now.
    pub witness: Option<String>,
    /// The witness is being changed.
    pub is_changing: bool,
    /// Bytes of its data.
    pub size: Option<u64>,
    /// What servers are doing, such as a copy and how far it is.
    pub doing: BTreeMap<String, String>,
    /// What waits for something, in words.
    pub waits: Vec<String>,
    /// When PostgreSQL takes settings over, by name; empty: not known.
    pub contexts: BTreeMap<String, Context>,
    /// `None`: not known.
    pub databases: Option<BTreeSet<String>>,
}

/// When PostgreSQL takes a changed setting over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Context {
    Reload,
    Restart,
    /// Nobody knows: it is an extension's, or of another version.
    Unknown,
}

impl Context {
    /// From the column `context` of `pg_settings`.
    pub fn of(context: &str) -> Context {
        match context {
            "postmaster" | "internal" => Context::Restart,
            "sighup" | "superuser" | "user" | "backend" | "superuser-backend" => Context::Reload,
            _ => Context::Unknown,
        }
    }
}

impl Facts {
    pub fn principal(&self, pool: &str) -> Option<&str> {
        self.pools.get(pool).and_then(|pool| pool.principal.as_deref())
    }

    pub(super) fn size(&self, pool: &str) -> Option<u64> {
        self.pools.get(pool).and_then(|pool| pool.size)
    }
}
