//! The published document: how it is published, handed on, and asked for.
//!
//! Each process keeps a `TopologyCopy` and asks the two partners of the store's pool for a newer
//! one (`Follow`), each on a connection of its own: an answer comes at once when there is one, else
//! after some seconds. A copy is only ever replaced by one with a greater version. Times are
//! milliseconds since 1970, UTC, by the clock of whoever tells them.

use serde::{Deserialize, Serialize};

/// The most bytes that a document may have.
pub const DOCUMENT_LIMIT: usize = 1024 * 1024;
/// The most characters of an author, and of a comment.
pub const COMMENT_LIMIT: usize = 1_000;

/// What is asked about the topology.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum TopologyRequest {
    /// The member's own copy: `Shown`. With `version` another one that it can get: from the store
    /// where it can be asked, else from what this member has kept.
    Show {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        /// The document, too, and not its header alone.
        #[serde(default)]
        document: bool,
    },
    /// The headers of all versions, newest first: `History`.
    History {
        /// Only those with a smaller version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// At most so many; a member may send fewer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Who has which version: `Replication`. Asked of the partners of the store's pool.
    Replication,
    /// A new version, asked of the server that serves the store's pool: `Published`, `Outdated`,
    /// `Faulty`, or a refusal. `base` is the version that it was made from. Asking again with the
    /// same document is answered with `Published` once more.
    Publish { base: u64, document: String, author: String, comment: String },
    /// A copy for a process that has none, or a newer one than it has, when the store is away:
    /// `Handed`, `Faulty` or a refusal.
    Hand { copy: TopologyCopy },
    /// By a process that keeps a copy: is there a newer one than `have` and `refused`? `Newer` at
    /// once, or `Nothing` after `wait_ms`. It tells how it stands, too.
    Follow {
        standing: TopologyStanding,
        #[serde(default)]
        wait_ms: u32,
    },
}

/// How a process stands with its copy.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TopologyStanding {
    /// The process's name; that of its certificate.
    pub process: String,
    /// The version of its copy; 0: it has none.
    pub have: u64,
    /// Of that version's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Since when it has had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// A newer version that it was given and cannot use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Why it cannot use that one, or why it does not work as its copy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum TopologyAnswer {
    Shown(TopologyShown),
    History {
        versions: Vec<TopologyHeader>,
        source: TopologySource,
    },
    Replication(TopologyReplication),
    Published {
        header: TopologyHeader,
    },
    /// Not published: another version was published since `base`.
    Outdated {
        newest: TopologyHeader,
    },
    /// Not published or not taken: the document has errors.
    Faulty {
        findings: Vec<TopologyFinding>,
    },
    Handed {
        header: TopologyHeader,
    },
    Newer {
        copy: TopologyCopy,
    },
    /// There is nothing newer than `newest`; 0: there is nothing.
    Nothing {
        newest: u64,
    },
}

/// What is known of a version besides its document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyHeader {
    /// Grows by one with each publication; the first is 1.
    pub version: u64,
    pub published_ms: u64,
    pub author: String,
    pub comment: String,
    /// SHA-256 of the document, in hexadecimal digits.
    pub digest: String,
}

/// A version as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyCopy {
    pub header: TopologyHeader,
    pub document: String,
}

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopologySource {
    /// From the Central Management store: all of it.
    Store,
    /// From the copies that this process has kept; others may know more.
    Copies,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyShown {
    /// The process that answers.
    pub process: String,
    pub source: TopologySource,
    /// Of the version that was asked for; absent: this process has no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<TopologyHeader>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// How this process stands with its own copy.
    pub standing: TopologyStanding,
}

/// What the checks have found in a document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyFinding {
    /// The rule's stable id.
    pub rule: String,
    /// An error keeps the document from being published; anything else is a warning.
    pub is_error: bool,
    pub message: String,
    pub cause: String,
    pub remedy: String,
    /// Where it begins: line and column, from 1; absent: the document as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// Who has which version, as one partner of the store's pool knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyReplication {
    /// The process that answers.
    pub process: String,
    /// It serves the store's pool: `newest` is what the store holds.
    pub is_store: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<TopologyHeader>,
    /// Every process of the newest document, and after them those that report without being in it.
    pub processes: Vec<TopologyHolder>,
}

/// One process, and the version that it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopologyHolder {
    pub name: String,
    pub kind: TopologyKind,
    /// What it reported last; absent: nothing since this partner's agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<TopologyStanding>,
    /// It has the newest version, and no problem with it.
    pub is_current: bool,
    /// It is connected now.
    pub is_connected: bool,
    /// How long ago it was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms_ago: Option<u64>,
}

/// What a process is in the document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopologyKind {
    Server,
    Witness,
    FrontEnd,
    /// The newest document does not name it.
    Unnamed,
}

impl TopologyRequest {
    /// Whether it only reads.
    pub fn is_read(&self) -> bool {
        match self {
            TopologyRequest::Show { .. }
            | TopologyRequest::History { .. }
            | TopologyRequest::Replication
            | TopologyRequest::Follow { .. } => true,
            TopologyRequest::Publish { .. } | TopologyRequest::Hand { .. } => false,
        }
    }
}

impl TopologyStanding {
    /// The newest version that it knows.
    pub fn knows(&self) -> u64 {
        self.have.max(self.refused.unwrap_or_default())
    }
}
