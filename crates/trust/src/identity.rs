//! Who somebody is: a role and a name in a deployment, as a certificate says it.
//!
//! It stands in the certificate as the URI `backstay:/DEPLOYMENT/ROLE/NAME`. Host names are in the
//! certificate too, for PostgreSQL's clients; between Backstay's processes they prove nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;

const SCHEME: &str = "backstay:/";
const NAME_LIMIT: usize = 63;

/// What somebody may do. Stored by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The agent of a Back End server.
    Server,
    Witness,
    /// Follows pools, and can change nothing.
    FrontEnd,
    Administrator,
    /// Looks, and can change nothing.
    ReadOnlyAdministrator,
    /// Gives out certificates. Nobody else listens to it.
    Authority,
}

impl Role {
    pub const ALL: [Role; 6] = [
        Role::Server,
        Role::Witness,
        Role::FrontEnd,
        Role::Administrator,
        Role::ReadOnlyAdministrator,
        Role::Authority,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Witness => "witness",
            Role::FrontEnd => "front-end",
            Role::Administrator => "administrator",
            Role::ReadOnlyAdministrator => "read-only-administrator",
            Role::Authority => "authority",
        }
    }

    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Whether a process of this role is connected to by others.
    pub fn listens(self) -> bool {
        match self {
            Role::Server | Role::Witness | Role::FrontEnd | Role::Authority => true,
            Role::Administrator | Role::ReadOnlyAdministrator => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub deployment: String,
    pub role: Role,
    pub name: String,
}

impl Identity {
    /// # Errors
    /// A name that could not be told from another, or not be written down.
    pub fn new(deployment: &str, role: Role, name: &str) -> Result<Identity, Error> {
        check_name("the deployment", deployment)?;
        check_name("the name", name)?;
        Ok(Identity { deployment: deployment.to_owned(), role, name: name.to_owned() })
    }

    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.deployment, self.role, self.name)
    }

    /// The certificate's subject as PostgreSQL shows it to `pg_ident.conf` (RFC 2253). Nothing in
    /// it has to be escaped.
    pub fn to_subject(&self) -> String {
        format!("CN={},OU={},O={}", self.name, self.role, self.deployment)
    }

    pub fn from_uri(uri: &str) -> Option<Identity> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let (deployment, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Identity::new(deployment, Role::from_name(role)?, name).ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.role, self.name, self.deployment)
    }
}

/// # Errors
/// `name` is none that the rest of Backstay would take.
pub fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= NAME_LIMIT && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Name(format!(
        "{what} is \"{name}\": use 1 to {NAME_LIMIT} letters, digits, '-', '_' and '.', beginning \
         with a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_uri_in_every_role() {
        for role in Role::ALL {
            let identity = Identity::new("production", role, "be1.example").unwrap();
            assert_eq!(Identity::from_uri(&identity.to_uri()), Some(identity));
        }
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_none() {
        for uri in [
            "backstay:/production/server",
            "backstay:/production/server/be1/more",
            "backstay:/production/owner/be1",
            "backstay://server/be1",
            "backstay:/production/server/",
            "https://production/server/be1",
            "backstay:/produ ction/server/be1",
        ] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
        assert!(Identity::new("a", Role::Server, &"x".repeat(64)).is_err());
        assert!(Identity::new("a", Role::Server, "../x").is_err());
    }
}
