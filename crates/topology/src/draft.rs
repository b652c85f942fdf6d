//! A new document, from what a few questions tell.
//!
//! The text is commented, so that the next change can be made by whoever reads it. It has no
//! errors if the names and hosts given are sound; warnings tell what the answers left open.

use std::fmt::Write as _;

/// A process: its name, and the host that it runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub name: String,
    pub host: String,
}

impl Place {
    pub fn new(name: impl Into<String>, host: impl Into<String>) -> Place {
        Place { name: name.into(), host: host.into() }
    }
}

/// What is known of a deployment before it has a document.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Draft {
    pub deployment: String,
    /// The first one is the principal, the second one the mirror; with one the method is none.
    pub servers: Vec<Place>,
    pub witness: Option<Place>,
    pub pool: String,
    pub databases: Vec<String>,
    pub front_ends: Vec<Place>,
}

const HEAD: &str = "\
# The topology of a deployment. Check it with: backstay topology check
format = 1
";

const SERVERS: &str = "
# Back-end servers: machines with an agent. Their host is the name by which members, Front Ends
# and clients reach them.
";

const WITNESS: &str = "
# The third vote. It needs no data and little of a machine, but a machine of its own: one that
# fails with neither of the servers.
";

const NO_WITNESS: &str = "
# Without a witness nothing fails over by itself. To have one, take out the marks, and add
# witness = \"wit1\" to the pool.
# [[witness]]
# name = \"wit1\"
# host = \"wit1.example.com\"
";

const POOL: &str = "
# A pool: what applications connect to. Its databases are mirrored and change sides together.
[[pool]]
";

const FRONT_ENDS: &str = "
# Front Ends: where clients connect, at port 6432. They are carried over every failover.
";

impl Draft {
    /// The document.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let _ = writeln!(text, "deployment = {}", quoted(&self.deployment));
        text.push_str(
            "# The pool that holds the published documents: the Central Management store.\n",
        );
        let _ = writeln!(text, "central_management = {}", quoted(&self.pool));
        text.push_str(SERVERS);
        for server in &self.servers {
            place(&mut text, "server", server);
        }
        match &self.witness {
            Some(witness) => {
                text.push_str(WITNESS);
                place(&mut text, "witness", witness);
            }
            None => text.push_str(NO_WITNESS),
        }
        self.pool_text(&mut text);
        text
    }

    fn pool_text(&self, text: &mut String) {
        let names: Vec<String> = self.servers.iter().map(|server| quoted(&server.name)).collect();
        text.push_str(POOL);
        let _ = writeln!(text, "name = {}", quoted(&self.pool));
        if let [only] = names.as_slice() {
            text.push_str(
                "# One server: with a second one, write \"mirroring\" and add a mirror.\n",
            );
            let _ = writeln!(text, "method = \"none\"\nprincipal = {only}");
        } else {
            text.push_str("method = \"mirroring\"\n");
            text.push_str("# Who is principal and mirror after the first set-up.\n");
            for (field, name) in ["principal", "mirror"].into_iter().zip(&names) {
                let _ = writeln!(text, "{field} = {name}");
            }
            if let Some(witness) = &self.witness {
                let _ = writeln!(text, "witness = {}", quoted(&witness.name));
            }
        }
        let connections = 90 * self.front_ends.len() + 10;
        if connections > 100 {
            text.push_str("# 90 for each Front End, and 10 to spare.\n");
            let _ = writeln!(text, "settings = {{ max_connections = {connections} }}");
        }
        for database in &self.databases {
            let _ = writeln!(text, "\n[[pool.database]]\nname = {}", quoted(database));
            text.push_str("# owner = \"…\"      # default: a role of the database's name\n");
        }
        if !self.front_ends.is_empty() {
            text.push_str(FRONT_ENDS);
        }
        for front_end in &self.front_ends {
            place(text, "pool.front_end", front_end);
        }
    }
}

fn place(text: &mut String, section: &str, place: &Place) {
    let (name, host) = (quoted(&place.name), quoted(&place.host));
    let blank =
        if text.lines().last().is_some_and(|line| line.starts_with('#')) { "" } else { "\n" };
    let _ = writeln!(text, "{blank}[[{section}]]\nname = {name}\nhost = {host}");
}

/// A text as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
