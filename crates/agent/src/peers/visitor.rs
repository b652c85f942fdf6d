//! Somebody at the members' port, and what he may do there.
//!
//! His certificate decides. Without certificates everybody may everything, which is why a process
//! without them listens on loopback addresses alone.

use std::fmt;

use protocol::admin::{Request, Right};
use protocol::handshake::{Hello, Reason, Refused, Role};
use trust::Identity;

use super::channel::Channel;

/// `None`: there are no certificates here.
#[derive(Clone, Debug)]
pub(super) struct Visitor(Option<Identity>);

impl Visitor {
    pub fn of(channel: &Channel) -> Visitor {
        Visitor(channel.peer().map(|peer| peer.identity.clone()))
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.0.as_ref()
    }

    /// The name in the certificate.
    pub fn name(&self) -> Option<String> {
        self.0.as_ref().map(|identity| identity.name.clone())
    }

    /// The name, if it is a Front End's.
    pub fn front_end(&self) -> Option<&str> {
        let identity = self.0.as_ref()?;
        (identity.role == trust::Role::FrontEnd).then_some(identity.name.as_str())
    }

    /// The certificate says what `hello` says.
    ///
    /// # Errors
    /// What to answer.
    pub fn must_be(&self, hello: &Hello) -> Result<(), Refused> {
        let Some(identity) = &self.0 else { return Ok(()) };
        let refused = |sentence| Err(Refused { reason: Reason::OtherCertificate, sentence });
        if identity.name != hello.host {
            return refused(format!(
                "this certificate is of {}, and not of {}: let {} join under its own name",
                identity.name, hello.host, hello.host
            ));
        }
        let fits = match (hello.role, identity.role) {
            (Role::Member, trust::Role::Server | trust::Role::Witness) => true,
            (
                Role::Member,
                trust::Role::FrontEnd
                | trust::Role::Administrator
                | trust::Role::ReadOnlyAdministrator
                | trust::Role::Authority,
            )
            | (Role::Administrator, trust::Role::Authority) => false,
            (
                Role::Administrator,
                trust::Role::Server
                | trust::Role::Witness
                | trust::Role::FrontEnd
                | trust::Role::Administrator
                | trust::Role::ReadOnlyAdministrator,
            ) => true,
        };
        if fits {
            return Ok(());
        }
        refused(format!(
            "a certificate of the role {} cannot take part in sessions: that takes the role \
             server or witness",
            identity.role
        ))
    }

    pub fn may(&self, request: &Request) -> bool {
        let Some(identity) = &self.0 else { return true };
        match (identity.role, request.right()) {
            (
                trust::Role::Administrator,
                Right::Look | Right::Inspect | Right::Follow | Right::Change,
            )
            | (trust::Role::ReadOnlyAdministrator, Right::Look | Right::Inspect)
            | (trust::Role::FrontEnd, Right::Look | Right::Follow)
            | (trust::Role::Server | trust::Role::Witness, Right::Look) => true,
            (trust::Role::ReadOnlyAdministrator, Right::Follow | Right::Change)
            | (trust::Role::FrontEnd, Right::Inspect | Right::Change)
            | (
                trust::Role::Server | trust::Role::Witness,
                Right::Inspect | Right::Follow | Right::Change,
            )
            | (trust::Role::Authority, _) => false,
        }
    }
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(identity) => write!(f, "{} has the role {}", identity.name, identity.role),
            None => f.write_str("there are no certificates"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(role: trust::Role) -> Visitor {
        Visitor(Some(Identity::new("production", role, "x").unwrap()))
    }

    #[test]
    fn only_administrators_change_anything() {
        let suspend = Request::Suspend { pool: "p".into() };
        let stop = Request::Shutdown { stop_postgres: true };
        for role in trust::Role::ALL {
            let changes = role == trust::Role::Administrator;
            assert_eq!(visitor(role).may(&suspend), changes, "{role}");
            assert_eq!(visitor(role).may(&stop), changes, "{role}");
            let looks = role != trust::Role::Authority;
            assert_eq!(visitor(role).may(&Request::Status { pool: None }), looks, "{role}");
        }
    }

    #[test]
    fn a_dry_run_is_a_look_and_the_same_without_is_none() {
        let reader = visitor(trust::Role::ReadOnlyAdministrator);
        let failover = |dry_run| Request::Failover { pool: "p".into(), to: None, dry_run };
        assert!(reader.may(&failover(true)));
        assert!(!reader.may(&failover(false)));
        let force = |accept_data_loss| Request::ForceService { pool: "p".into(), accept_data_loss };
        assert!(reader.may(&force(false)));
        assert!(!reader.may(&force(true)));
    }

    #[test]
    fn people_alone_see_who_changed_what() {
        let audit = Request::Audit { since_ms: None, limit: None };
        for role in trust::Role::ALL {
            let is_person =
                matches!(role, trust::Role::Administrator | trust::Role::ReadOnlyAdministrator);
            assert_eq!(visitor(role).may(&audit), is_person, "{role}");
        }
    }

    #[test]
    fn a_front_end_follows_and_a_reader_does_not_answer_for_it() {
        let drained = Request::Drained { pool: "p".into(), term: 1 };
        assert!(visitor(trust::Role::FrontEnd).may(&drained));
        assert!(!visitor(trust::Role::ReadOnlyAdministrator).may(&drained));
    }
}
