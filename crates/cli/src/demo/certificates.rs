//! The demo's own authority, and what it gives to each process and to the demo's administrator.
//!
//! All of it is made here, without a network: nothing has to listen for somebody to join. It is
//! made anew when two thirds of its time are over. Processes of an older demo that still run have
//! no certificates and cannot begin to use them: with them the demo goes on without, until all of
//! them have ended once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use trust::{Again, Book, Key, Place, Role, Subject};

use super::plan::{HOST, Kind, MemberFiles, Plan};
use super::supervise::agent;
use crate::clock;
use crate::output;
use crate::trust_place;

const AUTHORITY: &str = "authority";
const ADMINISTRATOR: &str = "administrator";

/// The directory of the administrator of the demo in `dir`, if it has one.
pub fn administrator(dir: &Path) -> Option<PathBuf> {
    let place = Place::new(dir.join(ADMINISTRATOR));
    place.exists().then(|| place.dir().to_owned())
}

/// What this process asks of the demo in `dir` it asks as the demo's administrator.
pub fn speak_for(dir: &Path) {
    trust_place::name(administrator(dir));
}

/// Makes what is missing, or has to be renewed.
pub fn see_to(dir: &Path, plan: &Plan) -> anyhow::Result<()> {
    let members = plan.members(dir);
    // The administrator's comes last, so whoever has it finds all the others there.
    if administrator(dir).is_none() && members.iter().any(|member| agent(member).is_some()) {
        output::talk(
            "the demo's processes run without certificates, and go on so; to give them some: \
             backstay demo stop, then backstay demo",
        );
        return Ok(());
    }
    let now = clock::wall();
    let home = dir.join(AUTHORITY);
    let book = match home.is_dir() {
        true => Book::open(&home)?,
        false => Book::init(&home, &plan.deployment().name, now)?,
    };
    for member in &members {
        give(&book, &Place::new(member.state_dir().join("trust")), subject(member), now)?;
    }
    let administrator = subject_of(Role::Administrator, ADMINISTRATOR, Vec::new());
    give(&book, &Place::new(dir.join(ADMINISTRATOR)), administrator, now)
}

fn subject(member: &MemberFiles) -> Subject {
    let role = match member.kind {
        Kind::Server => Role::Server,
        Kind::Witness => Role::Witness,
        Kind::FrontEnd => Role::FrontEnd,
    };
    subject_of(role, &member.name, vec![HOST.to_string(), "localhost".to_owned()])
}

fn subject_of(role: Role, name: &str, hosts: Vec<String>) -> Subject {
    Subject { role, name: name.to_owned(), hosts }
}

fn give(book: &Book, place: &Place, subject: Subject, now: SystemTime) -> anyhow::Result<()> {
    let is_good = |credentials: trust::Credentials| !credentials.own().renewal_is_due(now);
    if place.exists() && place.load().is_ok_and(is_good) {
        return Ok(());
    }
    let key = Key::generate()?;
    let request = key.request(&subject.name)?;
    let certificate = book.issue(subject, &request, Again::Replace, now)?;
    Ok(place.install(&key, &certificate, book.authority().der())?)
}
