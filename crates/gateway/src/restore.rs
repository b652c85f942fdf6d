//! What the next principal must be told of a client session, and what it cannot be told.
//!
//! After each statement that may have changed something lasting, and outside of transactions, the
//! server itself is asked what the client session now is. So what is kept is the truth, whatever
//! was rolled back meanwhile.

use std::fmt::Write as _;

use crate::refusal::{self, Refusal};

/// A client session beyond its start-up parameters.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Kept {
    settings: Vec<(String, String)>,
    role: Option<String>,
    authorization: Option<String>,
    channels: Vec<String>,
    /// PREPARE statements.
    prepared: Vec<String>,
    /// Something that no other server can be given.
    pub lost_with_server: Option<&'static Refusal>,
    /// The client wants no notices, which the gateway needs.
    pub quiet: bool,
}

/// The two settings that may not be lowered count wherever they come from: a RESET brings back
/// what the server has for the user.
const LOOK: &str = "\
SELECT 'set', name, setting FROM pg_catalog.pg_settings \
 WHERE source = 'session' AND name NOT LIKE 'transaction\\_%' \
   AND name NOT IN ('role', 'session_authorization', 'seed', 'is_superuser') \
    OR name = 'synchronous_commit' AND setting NOT IN ('on', 'remote_apply') \
    OR name = 'client_min_messages' AND setting IN ('error', 'fatal', 'panic') \
UNION ALL SELECT 'role', pg_catalog.current_setting('role'), NULL \
UNION ALL SELECT 'user', session_user::text, NULL \
UNION ALL SELECT 'listen', c, NULL FROM pg_catalog.pg_listening_channels() c \
UNION ALL SELECT 'prepared', name, statement FROM pg_catalog.pg_prepared_statements WHERE from_sql \
UNION ALL SELECT 'temp', '', NULL WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_class \
 WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND pg_catalog.pg_my_temp_schema() <> 0) \
UNION ALL SELECT 'hold', '', NULL WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_cursors \
 WHERE is_holdable) \
UNION ALL SELECT 'lock', '', NULL WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks \
 WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())";

/// The question to the server; `custom` are settings that no catalogue lists.
pub fn question(custom: &[String]) -> String {
    let mut text = LOOK.to_owned();
    for name in custom {
        let name = literal(name);
        let _ = write!(
            text,
            " UNION ALL SELECT 'set', {name}, pg_catalog.current_setting({name}, true)"
        );
    }
    text
}

impl Kept {
    /// What the server answered to `question`, for somebody who logged in as `user`.
    pub fn from_rows(rows: &[Vec<Option<String>>], user: &str) -> Kept {
        let mut kept = Kept::default();
        for row in rows {
            let text = |column: usize| row.get(column).cloned().flatten();
            let (Some(kind), Some(name)) = (text(0), text(1)) else {
                continue;
            };
            match (kind.as_str(), text(2)) {
                ("set", Some(value)) => {
                    let hides = name == "client_min_messages"
                        && matches!(value.as_str(), "error" | "fatal" | "panic");
                    kept.quiet |= hides;
                    kept.settings.push((name, if hides { "warning".to_owned() } else { value }));
                }
                ("role", _) => kept.role = (name != "none").then_some(name),
                ("user", _) => kept.authorization = (name != user).then_some(name),
                ("listen", _) => kept.channels.push(name),
                ("prepared", Some(statement)) => kept.prepared.push(statement),
                ("temp", _) => kept.lost_with_server = Some(&refusal::TEMPORARY_TABLES),
                ("hold", _) => kept.lost_with_server = Some(&refusal::HELD_CURSORS),
                ("lock", _) => kept.lost_with_server = Some(&refusal::ADVISORY_LOCKS),
                _other => {}
            }
        }
        // Another encoding than UTF-8: it could not be given back as it was.
        let damaged = |value: &Option<String>| {
            value.as_ref().is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER))
        };
        if rows.iter().flatten().any(damaged) {
            kept.lost_with_server = Some(&refusal::STATE_UNKNOWN);
        }
        kept
    }

    /// The client listens to something.
    pub fn listens(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Something must be set on a new server.
    pub fn is_plain(&self) -> bool {
        self.settings.is_empty()
            && self.role.is_none()
            && self.authorization.is_none()
            && self.channels.is_empty()
            && self.prepared.is_empty()
    }

    /// The statements that make a new server's session like this one. A standby takes no LISTEN.
    pub fn statements(&self, standby: bool) -> String {
        let mut text = String::new();
        for (name, value) in &self.settings {
            let (name, value) = (literal(name), literal(value));
            let _ = write!(text, "SELECT pg_catalog.set_config({name}, {value}, false);");
        }
        for statement in &self.prepared {
            let _ = write!(text, "{};", statement.trim_end().trim_end_matches(';'));
        }
        if !standby {
            for channel in &self.channels {
                let _ = write!(text, "LISTEN {};", identifier(channel));
            }
        }
        if let Some(user) = &self.authorization {
            let _ = write!(text, "SET SESSION AUTHORIZATION {};", literal(user));
        }
        if let Some(role) = &self.role {
            let _ = write!(text, "SET ROLE {};", literal(role));
        }
        text
    }

    /// Its commits do not wait for the mirror.
    pub fn lowers_commit(&self) -> bool {
        let value = self.setting("synchronous_commit");
        value.is_some_and(|value| !matches!(value, "on" | "remote_apply"))
    }

    /// Leaves out a `synchronous_commit` below `on`; whether there was one.
    pub fn raise_commit(&mut self) -> bool {
        let count = self.settings.len();
        self.settings.retain(|(name, value)| {
            name != "synchronous_commit" || matches!(value.as_str(), "on" | "remote_apply")
        });
        self.settings.len() < count
    }

    /// The value that the client has given to a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A text in SQL, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, name: &str, value: Option<&str>) -> Vec<Option<String>> {
        vec![Some(kind.to_owned()), Some(name.to_owned()), value.map(str::to_owned)]
    }

    #[test]
    fn a_client_session_is_made_again_with_its_role_last() {
        let kept = Kept::from_rows(
            &[
                row("role", "clerk", None),
                row("user", "demo", None),
                row("set", "search_path", Some("a, \"b'c\"")),
                row("set", "app.path", Some("c:\\x")),
                row("listen", "news \"x\"", None),
                row("prepared", "p", Some("PREPARE p AS SELECT 1;")),
            ],
            "demo",
        );
        assert_eq!(
            kept.statements(false),
            "SELECT pg_catalog.set_config('search_path', 'a, \"b''c\"', false);\
             SELECT pg_catalog.set_config('app.path', E'c:\\\\x', false);\
             PREPARE p AS SELECT 1;LISTEN \"news \"\"x\"\"\";SET ROLE 'clerk';"
        );
        assert!(!kept.statements(true).contains("LISTEN"));
        assert!(kept.listens() && !kept.is_plain() && kept.lost_with_server.is_none());
    }

    #[test]
    fn what_no_server_can_be_given_is_known() {
        let kept = Kept::from_rows(&[row("temp", "", None)], "demo");
        assert_eq!(kept.lost_with_server, Some(&refusal::TEMPORARY_TABLES));
    }

    #[test]
    fn notices_stay_visible_to_the_gateway() {
        let kept = Kept::from_rows(&[row("set", "client_min_messages", Some("error"))], "demo");
        assert!(kept.quiet && kept.setting("client_min_messages") == Some("warning"));
    }
}
