//! What a machine can say before something is set up on it.
//!
//! Asked of each process of a document that is about to be published. It only looks, and it may
//! be asked of a process that has no part yet. What it could not find out is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::MemberKind;

/// A pool that is to have its data on this machine, or has them already.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PreflightPart {
    pub pool: String,
    pub data_dir: String,
    pub files_dir: String,
    /// PostgreSQL's.
    pub port: u16,
    /// Settings whose context is asked for.
    #[serde(default)]
    pub settings: Vec<String>,
}

/// One machine, as its process sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PreflightSeen {
    pub process: String,
    pub kind: MemberKind,
    pub deployment: String,
    /// Backstay's.
    pub version: String,
    /// Its wall clock, in milliseconds since 1970, UTC.
    pub clock_ms: u64,
    /// The version of PostgreSQL's programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// Why there are no programs that can be used, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_problem: Option<String>,
    /// The system's library that sorts texts, such as `glibc 2.36`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_library: Option<String>,
    pub parts: Vec<PreflightPartSeen>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PreflightPartSeen {
    pub pool: String,
    pub data: PreflightData,
    /// On the volume of the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Of the files in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<u64>,
    pub port: PreflightPort,
    /// From the running server: when each of the settings asked for is taken over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, String>,
    /// From the running server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<String>>,
}

/// What is in the place of the data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum PreflightData {
    /// Missing or empty.
    Empty,
    /// This pool's data.
    Ours,
    /// Somebody else's.
    Foreign {
        sentence: String,
    },
    Unreadable {
        sentence: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum PreflightPort {
    Free,
    /// This pool's PostgreSQL has it.
    Ours,
    Taken {
        sentence: String,
    },
}
