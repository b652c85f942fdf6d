//! Directories: each pool's own, none within another, none where it would vanish.

use std::collections::BTreeSet;

use crate::diagnostic::{Family, Report, Rule};
use crate::place::{Placed, Span};
use crate::resolve::{Method, SOCKET_DIR};

use super::world::{World, host_key};
use super::{error, warning};

/// A Unix socket's path has at most 107 bytes, and PostgreSQL adds its own name.
const SOCKET_DIR_LIMIT: usize = 90;

pub(super) const RULES: &[Rule] = &[
    error(
        "directory-relative",
        Family::Directories,
        directory_relative,
        [
            "A path is not absolute, or goes through \"..\".",
            "What it means would depend on where a process was started.",
            "Write the whole path, beginning with /.",
        ],
    ),
    error(
        "directory-overlap",
        Family::Directories,
        directory_overlap,
        [
            "Two directories of one host are the same, or one is inside of the other.",
            "A fresh copy of a mirror replaces its whole data directory, and all that is in it.",
            "Give each pool directories of its own: leave them to root, or choose others.",
        ],
    ),
    error(
        "state-dir-overlap",
        Family::Directories,
        state_dir_overlap,
        [
            "PostgreSQL's files are inside of the agent's state directory, or the other way round.",
            "Promises and records must outlive PostgreSQL's volume, a full one as well as a lost \
             one.",
            "Choose a root outside of the state directory, on a volume of its own.",
        ],
    ),
    error(
        "socket-dir-too-long",
        Family::Directories,
        socket_dir_too_long,
        [
            "The path of a pool's socket directory is longer than 90 bytes.",
            "The system allows 107 bytes for a Unix socket's whole path.",
            "Choose a shorter path.",
        ],
    ),
    warning(
        "directory-volatile",
        Family::Directories,
        directory_volatile,
        [
            "A pool's files are in a place that is emptied at a reboot: /tmp, /run or /dev/shm.",
            "Both servers of a pool may reboot.",
            "Choose a place on a disk.",
        ],
    ),
];

/// Paths as they are written.
fn written<'a>(world: &World<'a>) -> Vec<(&'static str, &'a Placed<String>)> {
    let document = world.document;
    let defaults = &document.defaults;
    let mut all: Vec<(&'static str, &Option<Placed<String>>)> =
        vec![("root", &defaults.root), ("pg_bin_dir", &defaults.pg_bin_dir)];
    for server in &document.servers {
        all.extend([
            ("root", &server.root),
            ("state_dir", &server.state_dir),
            ("pg_bin_dir", &server.pg_bin_dir),
        ]);
    }
    for pool in &document.pools {
        all.extend([
            ("root", &pool.root),
            ("data_dir", &pool.data_dir),
            ("files_dir", &pool.files_dir),
            ("socket_dir", &pool.socket_dir),
        ]);
    }
    let front_ends = world.front_ends().map(|(_, front_end)| &front_end.options);
    for options in front_ends.chain([&defaults.front_end]) {
        all.extend([("tls_certificate", &options.tls_certificate), ("tls_key", &options.tls_key)]);
    }
    all.into_iter().filter_map(|(field, path)| path.as_ref().map(|path| (field, path))).collect()
}

fn directory_relative(world: &World<'_>, report: &mut Report) {
    for (field, path) in written(world) {
        let wrong = !path.starts_with('/')
            || path.split('/').any(|part| part == "..")
            || path.contains(['\n', '\0']);
        if wrong {
            report.at(&path.span, format!("{field} is {:?}, no whole path", path.value));
        }
    }
}

/// A directory in use on a host.
struct Used<'a> {
    host: String,
    path: Vec<String>,
    whose: String,
    place: &'a Span,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Files,
    State,
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
}

fn used<'a>(world: &World<'a>) -> Vec<Used<'a>> {
    let document = world.document;
    let mut all = Vec::new();
    for server in &document.servers {
        let place = server.state_dir.as_ref().map_or(&server.name.span, |dir| &dir.span);
        all.push(Used {
            host: host_key(&server.host),
            path: parts(server.state_dir()),
            whose: format!("the state directory of {}", server.name),
            place,
            kind: Kind::State,
        });
    }
    for pool in world.pools().filter(|pool| pool.method() != Some(Method::Clustering)) {
        let is_mirrored = pool.method() == Some(Method::Mirroring);
        let mirror = pool.mirror.iter().filter(|name| pool.principal.as_ref() != Some(*name));
        for name in pool.principal.iter().chain(mirror.filter(|_| is_mirrored)) {
            let Some(server) = document.server(name) else { continue };
            let root = pool.root.as_ref().or(server.root.as_ref());
            let root =
                root.or(document.defaults.root.as_ref()).map_or(&pool.name.span, |it| &it.span);
            let data = document.data_dir_of(pool, Some(server));
            let files = document.files_dir_of(pool, Some(server));
            for (kind, what, path, own) in [
                (Kind::Data, "data directory", data, &pool.data_dir),
                (Kind::Files, "files directory", files, &pool.files_dir),
            ] {
                all.push(Used {
                    host: host_key(&server.host),
                    path: parts(&path),
                    whose: format!("{path}, the {what} of pool {} on {name}", pool.name),
                    place: own.as_ref().map_or(root, |own| &own.span),
                    kind,
                });
            }
        }
    }
    all.retain(|used| !used.host.is_empty());
    all
}

/// Pairs of directories of one host of which one holds the other. Sorted by path, whatever is
/// inside of a directory follows it at once, so that no pair need be looked for twice.
fn overlaps<'a, 'b>(used: &'b [Used<'a>]) -> Vec<(&'b Used<'a>, &'b Used<'a>)> {
    let mut sorted: Vec<&Used<'a>> = used.iter().collect();
    sorted.sort_by(|one, other| {
        (&one.host, &one.path, one.place.start).cmp(&(&other.host, &other.path, other.place.start))
    });
    let mut found = Vec::new();
    for (at, outer) in sorted.iter().enumerate() {
        let inside = sorted[at + 1..]
            .iter()
            .take_while(|inner| inner.host == outer.host && inner.path.starts_with(&outer.path));
        found.extend(inside.map(|inner| (*outer, *inner)));
    }
    found
}

fn directory_overlap(world: &World<'_>, report: &mut Report) {
    // Two pools on the same two servers overlap on both; it is told once.
    let mut told = BTreeSet::new();
    for (outer, inner) in overlaps(&used(world)) {
        if outer.kind == Kind::State || inner.kind == Kind::State {
            continue;
        }
        // The one that is written later is the one to change.
        let swap = outer.place.start > inner.place.start;
        let (first, later) = if swap { (inner, outer) } else { (outer, inner) };
        if !told.insert((first.place.start, later.place.start)) {
            continue;
        }
        let relation = if outer.path == inner.path { "are one directory" } else { "overlap" };
        report
            .at(later.place, format!("{} and {} {relation}", first.whose, later.whose))
            .related(first.place, "the other one comes from here");
    }
}

fn state_dir_overlap(world: &World<'_>, report: &mut Report) {
    // A root within a state directory touches every pool; it is told once.
    let mut told = BTreeSet::new();
    for (outer, inner) in overlaps(&used(world)) {
        let (state, files) = match (outer.kind, inner.kind) {
            (Kind::State, Kind::Data | Kind::Files) => (outer, inner),
            (Kind::Data | Kind::Files, Kind::State) => (inner, outer),
            (Kind::State, Kind::State) | (Kind::Data | Kind::Files, Kind::Data | Kind::Files) => {
                continue;
            }
        };
        if told.insert((files.place.start, state.place.start)) {
            let relation = if outer.kind == Kind::State { "is inside of" } else { "holds" };
            report
                .at(files.place, format!("{} {relation} {}", files.whose, state.whose))
                .related(state.place, format!("{} is /{}", state.whose, state.path.join("/")));
        }
    }
}

fn socket_dir_too_long(world: &World<'_>, report: &mut Report) {
    for pool in world.pools() {
        let Some(dir) = &pool.socket_dir else { continue };
        if dir.len() > SOCKET_DIR_LIMIT {
            report
                .at(&dir.span, format!("socket_dir has {} bytes", dir.len()))
                .remedy(format!("Choose a shorter path; the default is {SOCKET_DIR}."));
        }
    }
}

fn directory_volatile(world: &World<'_>, report: &mut Report) {
    if world.is_local {
        return;
    }
    for (field, path) in written(world) {
        let holds_data = matches!(field, "root" | "data_dir" | "files_dir" | "state_dir");
        let parts = parts(path);
        let first: Vec<&str> = parts.iter().take(2).map(String::as_str).collect();
        let vanishes = matches!(
            first.as_slice(),
            ["tmp" | "run", ..] | ["dev", "shm"] | ["var", "run" | "lock"]
        );
        if holds_data && vanishes {
            report.at(&path.span, format!("{path} is emptied at a reboot"));
        }
    }
}
