//! Databases that a pool holds without the document naming them.
//!
//! Applications, the user store and the Central Management store bring their own. They are
//! mirrored as all others: they live in the same PostgreSQL server.

use crate::document::{Document, Pool};

/// What brings databases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    CentralManagement,
    Users,
    ResponseGroup,
    CallPark,
}

/// One of the databases that are brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brought {
    pub name: &'static str,
    pub source: Source,
    /// The role that owns it.
    pub owner: &'static str,
    pub purpose: &'static str,
}

const fn brought(
    name: &'static str,
    source: Source,
    owner: &'static str,
    purpose: &'static str,
) -> Brought {
    Brought { name, source, owner, purpose }
}

/// All that can be brought, in the order in which they are made.
pub const CATALOGUE: &[Brought] = &[
    brought("xds", Source::CentralManagement, "backstay", "the published documents"),
    brought("lis", Source::CentralManagement, "lis", "locations"),
    brought("rtcxds", Source::Users, "rtc", "users' data"),
    brought("rtcshared", Source::Users, "rtc", "the conference directory"),
    brought("rtcab", Source::Users, "rtc", "the address book"),
    brought("rgsconfig", Source::ResponseGroup, "rgs", "settings of Response Group"),
    brought("rgsdyn", Source::ResponseGroup, "rgs", "running state of Response Group"),
    brought("cpsdyn", Source::CallPark, "cps", "parked calls"),
];

/// Applications by the names that the document uses.
pub const APPLICATIONS: &[(&str, Source)] =
    &[("response-group", Source::ResponseGroup), ("call-park", Source::CallPark)];

impl Source {
    /// As a message names it.
    pub fn words(self) -> &'static str {
        match self {
            Source::CentralManagement => "the Central Management store",
            Source::Users => "the user store (users = true)",
            Source::ResponseGroup => "the application response-group",
            Source::CallPark => "the application call-park",
        }
    }
}

/// The databases that `pool` gets without naming them.
pub fn brought_to(document: &Document, pool: &Pool) -> Vec<Brought> {
    let brings = |source: Source| match source {
        Source::CentralManagement => {
            document.central_management.as_ref().is_some_and(|store| *store == pool.name)
        }
        Source::Users => pool.users.as_ref().is_some_and(|users| users.value),
        Source::ResponseGroup | Source::CallPark => {
            let named = |name: &str| {
                APPLICATIONS.iter().any(|(known, brings)| *known == name && *brings == source)
            };
            pool.applications.iter().flatten().any(|name| named(name))
        }
    };
    CATALOGUE.iter().filter(|database| brings(database.source)).copied().collect()
}
