//! Who may connect: `pg_hba.conf` in two forms, closed and open.
//!
//! Nobody but Backstay's own role may replicate, in either form: a walsender that bears one of our
//! names acknowledges commits. Closed means that no client is let in; the partner may still
//! stream, so that a barrier can be committed before the first client.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::adopt;
use super::certificates::{FRONT_END_MAP, PARTNER_MAP};
use super::error::Error;
use super::instance::{DATABASE, FRONT_END, Instance, ROLE};
use super::sql::OWN_ROLE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Closed,
    Open,
}

const REFUSE_CLIENTS: &str = "local all all reject\nhost all all all reject\n";

/// Writes both access files; in force after a reload or at the next start.
pub fn write(instance: &Instance, access: Access) -> Result<(), Error> {
    write_idents(instance)?;
    write_fleeting(instance, &instance.hba_file(), &rules(instance, access))
}

pub fn write_idents(instance: &Instance) -> Result<(), Error> {
    write_fleeting(instance, &instance.ident_file(), &ident(instance))
}

/// Ends every connection of clients, and says how many there were.
pub fn end_clients() -> String {
    format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_get_activity(NULL) \
         WHERE backend_type IN ('client backend', 'walsender') AND usesysid <> {OWN_ROLE}"
    )
}

/// What the rules that were written last are, whatever the clients' own lines were then.
pub fn read(instance: &Instance) -> Access {
    let text = std::fs::read_to_string(instance.hba_file()).unwrap_or_default();
    if text.is_empty() || text.ends_with(REFUSE_CLIENTS) { Access::Closed } else { Access::Open }
}

fn ident(instance: &Instance) -> String {
    let own = instance.os_user.name.as_str();
    let mut text = String::from("# Written by Backstay.\n");
    for user in ["root", own] {
        let _ = writeln!(text, "{ROLE} {user} {ROLE}");
    }
    if let Some(tls) = instance.tls() {
        text.push_str(&tls.idents());
    }
    // Maps that clients' lines of an adopted server name.
    let former = adopt::former_idents(&instance.files_dir);
    text.push_str(&std::fs::read_to_string(former).unwrap_or_default());
    text
}

fn rules(instance: &Instance, access: Access) -> String {
    // A name would have to resolve forwards and backwards; the password guards the door anyway.
    let partner = instance.partner_host.as_deref().map(|host| match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("{address}/32"),
        Ok(IpAddr::V6(address)) => format!("{address}/128"),
        Err(_) => "all".to_owned(),
    });
    let mut text = format!(
        "# Written by Backstay.\n\
         local all         {ROLE} peer map={ROLE}\n\
         local replication {ROLE} peer map={ROLE}\n"
    );
    if let Some(partner) = partner {
        let certificates = instance.tls().is_some();
        if certificates {
            for databases in ["all        ", "replication"] {
                let _ = writeln!(
                    text,
                    "hostssl {databases} {ROLE} {partner} cert clientname=DN map={PARTNER_MAP}"
                );
            }
        }
        // A partner that has no certificate yet uses no TLS either.
        if !certificates || instance.secret_file.exists() {
            let host = if certificates { "hostnossl" } else { "host " };
            let _ = writeln!(text, "{host} all         {ROLE} {partner} scram-sha-256");
            let _ = writeln!(text, "{host} replication {ROLE} {partner} scram-sha-256");
        }
    }
    let _ = write!(
        text,
        "local all         {ROLE} reject\n\
         host  all         {ROLE} all reject\n\
         local replication all reject\n\
         host  replication all all reject\n"
    );
    if access == Access::Open && instance.front_end {
        // Before the operator's own lines, which need not know of this role.
        let mut host = "host";
        if instance.tls().is_some() {
            host = "hostnossl";
            let _ = writeln!(
                text,
                "hostssl {DATABASE} {FRONT_END} all cert clientname=DN map={FRONT_END_MAP}"
            );
        }
        let _ = writeln!(text, "local {DATABASE} {FRONT_END} scram-sha-256");
        let _ = writeln!(text, "{host} {DATABASE} {FRONT_END} all scram-sha-256");
    }
    match access {
        Access::Closed => text.push_str(REFUSE_CLIENTS),
        Access::Open if instance.client_access.is_empty() => {
            let _ = writeln!(text, "local all {} peer", instance.os_user.name);
            text.push_str("local all all scram-sha-256\nhost all all all scram-sha-256\n");
        }
        Access::Open => {
            for line in &instance.client_access {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// Replaces `path` as a whole; only PostgreSQL's user may read it. After a power failure it is the
/// old file or the new one; which of them is certain once its directory is flushed, too.
pub fn write_file(instance: &Instance, path: &Path, text: &str) -> Result<(), Error> {
    let next = write_beside(instance, path, text)?;
    File::open(&next).and_then(|file| file.sync_all()).map_err(Error::io("flush", &next))?;
    std::fs::rename(&next, path).map_err(Error::io("replace", path))
}

/// As `write_file`, for what is written anew at each start: a promotion must not wait for the disk.
pub fn write_fleeting(instance: &Instance, path: &Path, text: &str) -> Result<(), Error> {
    let next = write_beside(instance, path, text)?;
    std::fs::rename(&next, path).map_err(Error::io("replace", path))
}

fn write_beside(instance: &Instance, path: &Path, text: &str) -> Result<PathBuf, Error> {
    let next = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .map_err(Error::io("write", &next))?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", &next))?;
    instance.os_user.own(&next)?;
    Ok(next)
}

/// Keeps others out of `path`, which may have been made by somebody less careful.
pub fn tighten(path: &Path) -> Result<(), Error> {
    let mode = std::fs::metadata(path).map_err(Error::io("look at", path))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
        .map_err(Error::io("close to others", path))
}

/// Makes `path`, readable by PostgreSQL's user, if it is missing.
pub fn make_dir(instance: &Instance, path: &Path, mode: u32) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Error::io("make the directory", path))?;
    instance.os_user.own(path)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use trust::Place;

    use super::*;
    use crate::postgres::certificates::Tls;
    use crate::postgres::instance::tests::instance;

    #[test]
    fn closed_lets_the_agent_and_the_partner_in_and_nobody_else() {
        expect![[r#"
            # Written by Backstay.
            local all         backstay peer map=backstay
            local replication backstay peer map=backstay
            host  all         backstay 10.0.0.2/32 scram-sha-256
            host  replication backstay 10.0.0.2/32 scram-sha-256
            local all         backstay reject
            host  all         backstay all reject
            local replication all reject
            host  replication all all reject
            local all all reject
            host all all all reject
        "#]]
        .assert_eq(&rules(&instance(), Access::Closed));
    }

    #[test]
    fn a_partner_with_a_certificate_needs_no_password() {
        let mut instance = instance();
        instance.front_end = true;
        instance.tls = Some(Tls {
            place: Place::new("/nowhere"),
            deployment: "test".to_owned(),
            partner: Some("be2".to_owned()),
            front_ends: None,
        });
        expect![[r#"
            # Written by Backstay.
            local all         backstay peer map=backstay
            local replication backstay peer map=backstay
            hostssl all         backstay 10.0.0.2/32 cert clientname=DN map=backstay_partner
            hostssl replication backstay 10.0.0.2/32 cert clientname=DN map=backstay_partner
            local all         backstay reject
            host  all         backstay all reject
            local replication all reject
            host  replication all all reject
            hostssl postgres backstay_front_end all cert clientname=DN map=backstay_front_end
            local postgres backstay_front_end scram-sha-256
            hostnossl postgres backstay_front_end all scram-sha-256
            local all postgres peer
            local all all scram-sha-256
            host all all all scram-sha-256
        "#]]
        .assert_eq(&rules(&instance, Access::Open));
    }

    #[test]
    fn open_adds_the_clients_behind_the_refusals() {
        let mut instance = instance();
        instance.client_access = vec!["host all all all trust".to_owned()];
        let (closed, open) = (rules(&instance, Access::Closed), rules(&instance, Access::Open));
        let refusals = closed.strip_suffix("local all all reject\nhost all all all reject\n");
        assert_eq!(open.strip_prefix(refusals.unwrap()), Some("host all all all trust\n"));
        instance.front_end = true;
        let open = rules(&instance, Access::Open);
        expect![[r#"
            local postgres backstay_front_end scram-sha-256
            host postgres backstay_front_end all scram-sha-256
            host all all all trust
        "#]]
        .assert_eq(open.strip_prefix(refusals.unwrap()).unwrap());
        assert_eq!(rules(&instance, Access::Closed), closed);
    }
}
