//! `backstay authority ...`: the deployment's own authority, a directory on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent::enrol::{self, Service};
use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpListener;
use trust::{Again, Book, Entry, Key, Place, Role, Subject};

use crate::args::{AuthorityArgs, AuthorityCommand, RoleName, SubjectArgs};
use crate::clock;
use crate::output::{self, Table, hinted};
use crate::trust_place;

/// Below an administrator's directory of a deployment.
const AUTHORITY: &str = "authority";
const DAY: u64 = 24 * 60 * 60;

pub fn run(args: &AuthorityArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        AuthorityCommand::Init { deployment, administrator, address } => {
            init(args, deployment, administrator, address.as_deref())?;
        }
        AuthorityCommand::IssueToken { subject, minutes } => {
            issue_token(&open(args)?, subject, *minutes)?;
        }
        AuthorityCommand::Issue { subject, out } => issue(&open(args)?, subject, out)?,
        AuthorityCommand::List { json } => list(&open(args)?, *json)?,
        AuthorityCommand::Revoke { name } => {
            let entry = open(args)?.revoke(name)?;
            let Subject { role, name, .. } = entry.subject;
            output::talk(&format!(
                "the certificate of {role} {name} will not be renewed\n{}",
                afterwards(role, &name)
            ));
        }
        AuthorityCommand::Serve { listen, address } => {
            let book = open(args)?;
            if let Some(address) = address {
                book.set_address(address)?;
            }
            serve(book, *listen)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn afterwards(role: Role, name: &str) -> String {
    match role {
        Role::Server | Role::Witness | Role::FrontEnd => {
            format!("take {name} out of the configuration: then the others refuse it")
        }
        Role::Administrator | Role::ReadOnlyAdministrator | Role::Authority => format!(
            "to refuse it at once, put a line with {name} into trust/revoked of each member's \
             state directory"
        ),
    }
}

fn init(
    args: &AuthorityArgs,
    deployment: &str,
    administrator: &str,
    address: Option<&str>,
) -> anyhow::Result<()> {
    trust::check_name("the deployment", deployment)?;
    trust::check_name("the administrator", administrator)?;
    let (dir, home) = match &args.dir {
        Some(dir) => (dir.clone(), dir.join("administrator")),
        None => {
            let home = trust_place::home(deployment)?;
            (home.join(AUTHORITY), home)
        }
    };
    let now = clock::wall();
    let book = Book::init(&dir, deployment, now)?;
    if let Some(address) = address {
        book.set_address(address)?;
    }
    let place = Place::new(&home);
    let subject =
        Subject { role: Role::Administrator, name: administrator.to_owned(), hosts: Vec::new() };
    install(&book, subject, Again::Refuse, &place)?;
    if let Some(address) = address {
        place.set_authority_address(address)?;
    }
    output::talk(&format!(
        "the authority of {deployment} is in {}: keep it private, and keep a copy\n\
         {administrator}'s certificate is in {}\n\
         next: backstay authority serve --listen 0.0.0.0:7024, and for each server\n      \
         backstay authority issue-token --name NAME --role server",
        dir.display(),
        home.display()
    ));
    Ok(())
}

/// The authority that the command is about.
fn open(args: &AuthorityArgs) -> anyhow::Result<Book> {
    if let Some(dir) = &args.dir {
        return Ok(Book::open(dir)?);
    }
    let homes = trust_place::homes()?;
    let mut found: Vec<PathBuf> = Vec::new();
    for home in std::fs::read_dir(&homes).into_iter().flatten().flatten() {
        let dir = home.path().join(AUTHORITY);
        if dir.is_dir() {
            found.push(dir);
        }
    }
    match found.as_slice() {
        [dir] => Ok(Book::open(dir)?),
        [] => Err(hinted(
            format!("there is no authority under {}", homes.display()),
            "make one: backstay authority init DEPLOYMENT; or name its directory with --dir",
        )),
        _ => {
            let dirs: Vec<String> = found.iter().map(|dir| dir.display().to_string()).collect();
            Err(hinted(
                format!("there are several authorities: {}", dirs.join(", ")),
                "name one with --dir or BACKSTAY_AUTHORITY",
            ))
        }
    }
}

fn subject(args: &SubjectArgs) -> (Subject, Again) {
    let role = match args.role {
        RoleName::Server => Role::Server,
        RoleName::Witness => Role::Witness,
        RoleName::FrontEnd => Role::FrontEnd,
        RoleName::Administrator => Role::Administrator,
        RoleName::ReadOnlyAdministrator => Role::ReadOnlyAdministrator,
    };
    let again = if args.again { Again::Replace } else { Again::Refuse };
    (Subject { role, name: args.name.clone(), hosts: args.hosts.clone() }, again)
}

fn issue_token(book: &Book, args: &SubjectArgs, minutes: u32) -> anyhow::Result<()> {
    let (subject, again) = subject(args);
    let (role, name) = (subject.role, subject.name.clone());
    let lifetime = Duration::from_mins(u64::from(minutes));
    let token = book.invite(subject, lifetime, again, clock::wall())?;
    let place = match role {
        Role::Server | Role::Witness | Role::FrontEnd => " --state-dir DIR",
        Role::Administrator | Role::ReadOnlyAdministrator | Role::Authority => "",
    };
    let address = match &token.authority {
        Some(_) => "",
        None => " --authority HOST:PORT",
    };
    output::talk(&format!(
        "good once, for {minutes} minutes, while `backstay authority serve` runs; on {name}:\n  \
         backstay join{place}{address} --token TOKEN"
    ));
    output::data(&token.to_string());
    Ok(())
}

fn issue(book: &Book, args: &SubjectArgs, out: &std::path::Path) -> anyhow::Result<()> {
    let (subject, again) = subject(args);
    let place = Place::new(out);
    if place.exists() && again == Again::Refuse {
        return Err(hinted(
            format!("there is a certificate in {} already", out.display()),
            "name another directory with --out, or replace it with --again",
        ));
    }
    install(book, subject, again, &place)?;
    if let Some(address) = book.address() {
        place.set_authority_address(&address)?;
    }
    output::talk(&format!("key and certificate are in {}", out.display()));
    Ok(())
}

fn install(book: &Book, subject: Subject, again: Again, place: &Place) -> anyhow::Result<()> {
    let key = Key::generate()?;
    let request = key.request(&subject.name)?;
    let certificate = book.issue(subject, &request, again, clock::wall())?;
    Ok(place.install(&key, &certificate, book.authority().der())?)
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    role: &'a str,
    hosts: &'a [String],
    days_left: u64,
    revoked: bool,
}

fn list(book: &Book, json: bool) -> anyhow::Result<()> {
    let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let entries = book.entries()?;
    let days_left = |entry: &Entry| entry.not_after_s.saturating_sub(now) / DAY;
    if json {
        let shown: Vec<Shown<'_>> = entries
            .iter()
            .map(|entry| Shown {
                name: &entry.subject.name,
                role: entry.subject.role.as_str(),
                hosts: &entry.subject.hosts,
                days_left: days_left(entry),
                revoked: entry.revoked,
            })
            .collect();
        return output::json(&shown);
    }
    let mut table = Table::new(&["name", "role", "days left", "hosts"]);
    for entry in &entries {
        let left = match entry.revoked {
            true => "revoked".to_owned(),
            false => format!("{:>9}", days_left(entry)),
        };
        table.row(vec![
            entry.subject.name.clone(),
            entry.subject.role.to_string(),
            left,
            entry.subject.hosts.join(", "),
        ]);
    }
    output::data(&table.to_string());
    Ok(())
}

fn serve(book: Book, listen: std::net::SocketAddr) -> anyhow::Result<()> {
    let _log = output::log()?;
    super::process::run(async |end| {
        let (deployment, address) = (book.deployment().to_owned(), book.address());
        let service = Service::new(book)?;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        tracing::info!(%listen, deployment, address, "the authority answers those who join");
        enrol::serve(service, listener, end).await;
        Ok(())
    })?;
    Ok(())
}
