//! Lines of `pg_hba.conf`: whom PostgreSQL lets in.

use std::net::IpAddr;

use crate::diagnostic::{Family, Report, Rule};
use crate::place::Placed;

use super::world::{World, address};
use super::{error, warning};

pub(super) const RULES: &[Rule] = &[
    error(
        "client-access-malformed",
        Family::Access,
        malformed,
        [
            "A line of client_access is none that PostgreSQL understands.",
            "With one such line PostgreSQL keeps the access rules that it had, or does not start.",
            "Write TYPE DATABASE USER ADDRESS METHOD, such as \"hostssl all all 10.0.0.0/8 \
             scram-sha-256\".",
        ],
    ),
    error(
        "client-access-own-role",
        Family::Access,
        own_role,
        [
            "A line of client_access is about Backstay's own roles, or about replication.",
            "Backstay's own lines stand before all others and settle both: whoever replicates \
             acknowledges commits.",
            "Take the line out.",
        ],
    ),
    error(
        "client-access-trust-everybody",
        Family::Access,
        trust_everybody,
        [
            "A line of client_access lets everybody in without a password, from everywhere.",
            "Whoever reaches the port can read and change everything.",
            "Write scram-sha-256 instead of trust.",
        ],
    ),
    warning(
        "client-access-trust",
        Family::Access,
        trust,
        [
            "A line of client_access lets users in without a password.",
            "Whoever reaches the port from there is whoever they say they are.",
            "Write scram-sha-256 or cert instead of trust.",
        ],
    ),
    warning(
        "client-access-weak",
        Family::Access,
        weak,
        [
            "A line of client_access uses md5, password or ident.",
            "Such passwords can be read or guessed on the way; scram-sha-256 keeps them to \
             themselves.",
            "Write scram-sha-256.",
        ],
    ),
    warning(
        "client-access-misses-front-end",
        Family::Access,
        misses_front_end,
        [
            "No line of client_access lets a Front End of the pool in.",
            "A Front End connects to PostgreSQL from its own address: its clients would be \
             refused.",
            "Add a line for the Front End's address.",
        ],
    ),
];

const TYPES: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
const METHODS: [&str; 15] = [
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "pam",
    "bsd",
    "oauth",
];
const OWN_ROLES: [&str; 2] = ["backstay", "backstay_front_end"];

/// A line that is understood.
#[derive(PartialEq, Eq, Debug)]
struct Line {
    databases: String,
    users: String,
    /// `None`: over the Unix socket.
    from: Option<From>,
    method: String,
}

#[derive(PartialEq, Eq, Debug)]
enum From {
    Everywhere,
    Network(IpAddr, u32),
    /// A name, `samehost`, `samenet`.
    Named,
}

/// Words as PostgreSQL cuts them: quotes keep blanks together, `#` begins a comment.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut begun = false;
    for c in line.chars() {
        match c {
            '\n' | '\r' | '\0' => return None,
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => {
                if begun && !word.ends_with(',') {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    (!quoted).then_some(words)
}

fn parse(line: &str) -> Result<Line, String> {
    let words = words(line).ok_or("a quote is left open, or the line has a break")?;
    let mut words = words.into_iter();
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let kind = next("the type")?;
    if !TYPES.contains(&kind.as_str()) {
        return Err(format!("{kind:?} is no type: write local, host, hostssl or hostnossl"));
    }
    let databases = next("the database")?;
    let users = next("the user")?;
    let mut from = None;
    let mut method = next(if kind == "local" { "the method" } else { "the address" })?;
    if kind != "local" {
        let address = std::mem::replace(&mut method, next("the method")?);
        from = Some(match network(&address)? {
            // The mask may be a word of its own.
            From::Network(ip, _) if !address.contains('/') => {
                let mask: IpAddr = method
                    .parse()
                    .map_err(|_| format!("{address} has no mask: write {address}/32"))?;
                method = next("the method")?;
                From::Network(ip, ones(mask))
            }
            known => known,
        });
    }
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("{method:?} is no method: scram-sha-256 is the usual one"));
    }
    if let Some(option) = words.find(|option| !option.contains('=')) {
        return Err(format!("{option:?} is too much, or no option such as clientcert=verify-full"));
    }
    Ok(Line { databases, users, from, method })
}

fn ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    }
}

fn network(text: &str) -> Result<From, String> {
    if text == "all" {
        return Ok(From::Everywhere);
    }
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let Ok(ip) = ip.parse::<IpAddr>() else {
        let is_name = text.starts_with('.') || text.starts_with(|c: char| c.is_alphanumeric());
        return if is_name && bits.is_none() {
            Ok(From::Named)
        } else {
            Err(format!("{text:?} is no address: write one such as 10.0.0.0/8"))
        };
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u32>) {
        None => Ok(From::Network(ip, most)),
        Some(Ok(0)) => Ok(From::Everywhere),
        Some(Ok(bits)) if bits <= most => Ok(From::Network(ip, bits)),
        Some(_) => Err(format!("{text:?} has a wrong mask: it goes from 0 to {most}")),
    }
}

impl From {
    /// Whether it covers an address; `None` where the text does not tell.
    fn covers(&self, address: IpAddr) -> Option<bool> {
        match (self, address) {
            (From::Everywhere, _) => Some(true),
            (From::Named, _) => None,
            (From::Network(IpAddr::V4(network), bits), IpAddr::V4(address)) => {
                let shift = 32 - bits;
                let cut = |ip| u32::from(ip).checked_shr(shift).unwrap_or(0);
                Some(cut(*network) == cut(address))
            }
            (From::Network(IpAddr::V6(network), bits), IpAddr::V6(address)) => {
                let shift = 128 - bits;
                let cut = |ip| u128::from(ip).checked_shr(shift).unwrap_or(0);
                Some(cut(*network) == cut(address))
            }
            (From::Network(..), _) => Some(false),
        }
    }
}

/// Every line that is written, and what it says.
fn lines<'a>(world: &World<'a>) -> Vec<(&'a Placed<String>, Result<Line, String>)> {
    let pools = world.pools().flat_map(|pool| pool.client_access.iter().flatten());
    let all = pools.chain(world.document.defaults.client_access.iter().flatten());
    // A comment is no line.
    all.filter(|line| !line.trim_start().starts_with('#') || line.contains('\n'))
        .map(|line| (line, parse(line)))
        .collect()
}

fn understood<'a>(world: &World<'a>) -> impl Iterator<Item = (&'a Placed<String>, Line)> {
    lines(world).into_iter().filter_map(|(place, line)| Some((place, line.ok()?)))
}

fn malformed(world: &World<'_>, report: &mut Report) {
    for (place, line) in lines(world) {
        if let Err(fault) = line {
            report.at(&place.span, "this access line is not understood").label(fault);
        }
    }
}

fn own_role(world: &World<'_>, report: &mut Report) {
    for (place, line) in understood(world) {
        let mut users = line.users.split(',').map(|user| user.trim_start_matches('+'));
        let replicates = line.databases.split(',').any(|database| database == "replication");
        if users.any(|user| OWN_ROLES.contains(&user)) {
            report.at(&place.span, "this access line is about a role of Backstay's own");
        } else if replicates {
            report.at(&place.span, "this access line is about replication");
        }
    }
}

fn is_open(line: &Line) -> bool {
    line.method == "trust" && line.from == Some(From::Everywhere)
}

fn trust_everybody(world: &World<'_>, report: &mut Report) {
    for (place, line) in understood(world) {
        if is_open(&line) && !world.is_local {
            report.at(&place.span, "this access line lets everybody in without a password");
        }
    }
}

fn trust(world: &World<'_>, report: &mut Report) {
    for (place, line) in understood(world) {
        if line.method == "trust" && (!is_open(&line) || world.is_local) {
            report.at(&place.span, "this access line asks for no password");
        }
    }
}

fn weak(world: &World<'_>, report: &mut Report) {
    for (place, line) in understood(world) {
        if matches!(line.method.as_str(), "md5" | "password" | "ident") {
            report.at(&place.span, format!("this access line uses {}", line.method));
        }
    }
}

fn misses_front_end(world: &World<'_>, report: &mut Report) {
    for (pool, front_end) in world.front_ends() {
        let Some(ip) = address(&front_end.host) else { continue };
        let written = world.document.client_access_of(pool);
        let lines: Vec<Line> = written.iter().filter_map(|line| parse(line).ok()).collect();
        let over_network = lines.iter().filter(|line| line.method != "reject");
        let covered = over_network
            .filter_map(|line| line.from.as_ref())
            .any(|from| from.covers(ip) != Some(false));
        if !written.is_empty() && !lines.is_empty() && !covered {
            let message =
                format!("PostgreSQL of pool {} does not let {} in", pool.name, front_end.name);
            report
                .at(&front_end.host.span, message)
                .related(&written[0].span, "the access lines are here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{From, parse};

    #[test]
    fn usual_lines_are_understood() {
        for line in [
            "local all all peer",
            "host all all 10.0.0.0/8 scram-sha-256",
            "host all all 10.0.0.0 255.0.0.0 scram-sha-256",
            "hostssl \"my db\",other alice,+staff ::/0 cert clientcert=verify-full # both",
            "hostnossl all all samenet reject",
            "host all all .example.com scram-sha-256",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn broken_lines_are_not() {
        for line in [
            "",
            "all all all trust",
            "host all all scram-sha-256",
            "host all all 10.0.0.1 scram-sha-256",
            "host all all 10.0.0.0/33 trust",
            "host all all 10.0.0.0/8 scram",
            "host all all 10.0.0.0/8 trust yes",
            "host \"all all 10.0.0.0/8 trust",
            "local all all peer\nhost all all all trust",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_network_covers_its_own_addresses() {
        let network = From::Network("10.1.0.0".parse().unwrap(), 16);
        assert_eq!(network.covers("10.1.2.3".parse().unwrap()), Some(true));
        assert_eq!(network.covers("10.2.2.3".parse().unwrap()), Some(false));
        assert_eq!(network.covers("::1".parse().unwrap()), Some(false));
    }
}
