//! Who is there: the first frames of a connection.
//!
//! Whoever dials says `Hello`; whoever accepts answers `Welcome` or `Refused` with a reason. These
//! three are read by every version that will ever be: fields are appended only, and a reader passes
//! over what follows the fields that it knows.

use serde::{Deserialize, Serialize};

/// Versions of what follows the handshake that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    /// The newest version that both speak.
    pub fn agreed(self, other: Versions) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min && version >= other.min).then_some(version)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A process that has a part in sessions: the messages of its members follow.
    Member,
    /// A command: requests and responses follow.
    Administrator,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub versions: Versions,
    pub role: Role,
    pub deployment: String,
    /// The name of the process that dialled; of an administrator, who it is.
    pub host: String,
    /// The name of the process that it wants to reach; empty if any.
    pub wanted: String,
    /// Tells this process from every other run of it.
    pub run: u64,
    /// The program's version, for people.
    pub software: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub deployment: String,
    pub host: String,
    pub run: u64,
    pub software: String,
}

/// Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    NoCommonVersion,
    OtherDeployment,
    UnknownHost,
    WrongHost,
    TooManyConnections,
    /// The introduction says something else than the certificate.
    OtherCertificate,
    Revoked,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refused {
    pub reason: Reason,
    pub sentence: String,
}

/// What a process says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    pub deployment: String,
    pub host: String,
    pub run: u64,
    pub software: String,
}

impl Introduction {
    pub fn hello(&self, role: Role, wanted: &str) -> Hello {
        Hello {
            versions: VERSIONS,
            role,
            deployment: self.deployment.clone(),
            host: self.host.clone(),
            wanted: wanted.to_owned(),
            run: self.run,
            software: self.software.clone(),
        }
    }

    /// The answer to `hello`; `knows` says whether a host has a part in any session here.
    ///
    /// # Errors
    /// What to send instead before the connection ends.
    pub fn answer(&self, hello: &Hello, knows: impl Fn(&str) -> bool) -> Result<Welcome, Refused> {
        let refused = |reason, sentence| Err(Refused { reason, sentence });
        let Some(version) = VERSIONS.agreed(hello.versions) else {
            return refused(
                Reason::NoCommonVersion,
                format!(
                    "{} speaks versions {} to {}, {} speaks {} to {}: update the older one",
                    self.host,
                    VERSIONS.min,
                    VERSIONS.max,
                    hello.host,
                    hello.versions.min,
                    hello.versions.max
                ),
            );
        };
        // A command may come without knowing the deployment's name: it is told by the welcome.
        let anonymous = hello.role == Role::Administrator && hello.deployment.is_empty();
        if hello.deployment != self.deployment && !anonymous {
            return refused(
                Reason::OtherDeployment,
                format!(
                    "this is {} of deployment \"{}\", not of \"{}\": check the addresses",
                    self.host, self.deployment, hello.deployment
                ),
            );
        }
        if !hello.wanted.is_empty() && hello.wanted != self.host {
            return refused(
                Reason::WrongHost,
                format!("this is {}, not {}: check the addresses", self.host, hello.wanted),
            );
        }
        if hello.role == Role::Member && (hello.host == self.host || !knows(&hello.host)) {
            return refused(
                Reason::UnknownHost,
                format!(
                    "{} has no part in any session of {}: check the [[pool]] sections of both",
                    hello.host, self.host
                ),
            );
        }
        Ok(Welcome {
            version,
            deployment: self.deployment.clone(),
            host: self.host.clone(),
            run: self.run,
            software: self.software.clone(),
        })
    }
}

/// The first frame of a connection is not what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the introduction cannot be read")]
pub struct Unreadable;

macro_rules! bytes {
    ($type:ty) => {
        impl $type {
            pub fn to_bytes(&self) -> Vec<u8> {
                postcard::to_allocvec(self).expect("writing to memory does not fail")
            }

            /// # Errors
            /// The bytes are too short or senseless. What follows the known fields is passed over.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
                postcard::take_from_bytes(bytes).map(|(told, _)| told).map_err(|_| Unreadable)
            }
        }
    };
}

bytes!(Hello);
bytes!(Welcome);
bytes!(Refused);

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Introduction {
        Introduction {
            deployment: "demo".into(),
            host: "be1".into(),
            run: 7,
            software: "0.1.0".into(),
        }
    }

    fn reason(change: impl Fn(&mut Hello)) -> Option<Reason> {
        let mut hello = Introduction { host: "be2".into(), ..me() }.hello(Role::Member, "be1");
        change(&mut hello);
        me().answer(&hello, |host| host == "be2").err().map(|refused| refused.reason)
    }

    #[test]
    fn only_members_of_the_deployment_that_speak_a_common_version_are_welcome() {
        assert_eq!(reason(|_| ()), None);
        assert_eq!(
            reason(|hello| hello.versions = Versions { min: 2, max: 3 }),
            Some(Reason::NoCommonVersion)
        );
        assert_eq!(
            reason(|hello| hello.deployment = "other".into()),
            Some(Reason::OtherDeployment)
        );
        assert_eq!(reason(|hello| hello.host = "stranger".into()), Some(Reason::UnknownHost));
        assert_eq!(reason(|hello| hello.host = "be1".into()), Some(Reason::UnknownHost));
        assert_eq!(reason(|hello| hello.wanted = "be3".into()), Some(Reason::WrongHost));
    }

    #[test]
    fn an_administrator_need_not_be_known() {
        let change = |hello: &mut Hello| {
            hello.role = Role::Administrator;
            hello.host = "someone".into();
            hello.deployment = String::new();
        };
        assert_eq!(reason(change), None);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let hello = me().hello(Role::Member, "be2");
        let mut bytes = hello.to_bytes();
        bytes.extend_from_slice(b"and more");
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello));
    }

    #[test]
    fn the_newest_common_version_is_agreed_on() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 3).agreed(versions(2, 5)), Some(3));
        assert_eq!(versions(1, 1).agreed(versions(2, 5)), None);
    }
}
