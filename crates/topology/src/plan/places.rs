//! Processes that come, go and move; ports and directories; the store of documents.

use super::view::Both;
use super::{Condition, Effect, Stage, Work};

/// One process of a document, by name.
struct Entry<'a> {
    name: &'a str,
    kind: &'static str,
    host: &'a str,
    port: u16,
}

fn entries(document: &crate::Document) -> Vec<Entry<'_>> {
    let servers = document.servers.iter().map(|it| Entry {
        name: &it.name,
        kind: "server",
        host: &it.host,
        port: it.member_port(),
    });
    let witnesses = document.witnesses.iter().map(|it| Entry {
        name: &it.name,
        kind: "witness",
        host: &it.host,
        port: it.member_port(),
    });
    servers.chain(witnesses).collect()
}

pub(super) fn processes(work: &mut Work<'_>) {
    let Some(old) = work.old else { return };
    let (before, after) = (entries(old), entries(work.new));
    for one in &after {
        match before.iter().find(|other| other.name == one.name && other.kind == one.kind) {
            None => {
                let sentence = format!("the {} {} is added", one.kind, one.name);
                let change = work.add(Stage::Arrive, "process_added", sentence);
                change.effect(Effect::NoInterruption).of([one.name]);
            }
            Some(was) if (was.host, was.port) != (one.host, one.port) => moved(work, was, one),
            Some(_) => {}
        }
    }
    for one in &before {
        if after.iter().any(|other| other.name == one.name && other.kind == one.kind) {
            continue;
        }
        let sentence = format!("the {} {} is named no more", one.kind, one.name);
        let change = work.add(Stage::Leave, "process_removed", sentence);
        change.effect(Effect::NoInterruption);
        change.remark(format!(
            "its process goes on without any part until somebody stops it, and its certificate \
             is accepted no more; nothing on {} is deleted",
            one.name
        ));
    }
}

fn moved(work: &mut Work<'_>, was: &Entry<'_>, now: &Entry<'_>) {
    let sentence = format!(
        "{} is reached at {}:{} (was {}:{})",
        now.name, now.host, now.port, was.host, was.port
    );
    let change = work.add(Stage::Adjust, "address", sentence);
    change.effect(Effect::NoInterruption).of([now.name]);
    change.remark(
        "it must answer there already: others go there as soon as they have the document, and \
         stay on the connections that they have as long as those live",
    );
}

/// A directory is where the data are: a change of it moves nothing.
pub(super) fn directories(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    let mut sockets = Vec::new();
    let mut moved = Vec::new();
    for (server, before, after) in both.staying() {
        for (what, old, new) in [
            ("data_dir", &before.data_dir, &after.data_dir),
            ("files_dir", &before.files_dir, &after.files_dir),
        ] {
            if old != new {
                moved.push(format!("{what} on {server} from {old} to {new}"));
            }
        }
        if before.socket_dir != after.socket_dir {
            sockets.push(server.to_owned());
        }
    }
    if !moved.is_empty() {
        work.refuse(
            "directory_moved",
            Some(name),
            format!("{name} cannot change {}", moved.join(", ")),
            "the data are in the old directory, and publishing moves none",
            &[
                "publish the document with another server in this one's place, or without the \
                 mirror if it is the mirror",
                "publish it again with this server and its new directory: it gets a fresh copy",
            ],
        );
    }
    if !sockets.is_empty() {
        let sentence = format!("the socket directory of {name} changes");
        let processes = sockets.clone();
        let change = work.add(Stage::Adjust, "socket_dir", sentence);
        change.pool(name).effect(Effect::AfterAgentRestart { processes });
        change.of(sockets.iter().map(String::as_str));
    }
}

/// The mirror is moved to its new port alone; the principal's would cut the mirror off.
pub(super) fn ports(work: &mut Work<'_>, both: &Both<'_>) {
    let name = both.name();
    let port = |view: &super::view::PoolView<'_>, server: &str| view.pool.port_at(server);
    let changed: Vec<(&str, u16, u16)> = both
        .staying()
        .map(|(server, _, _)| (server, port(&both.before, server), port(&both.after, server)))
        .filter(|(_, old, new)| old != new)
        .collect();
    let serves = work.facts.principal(name).or(both.before.first);
    let of_principal = changed.iter().find(|(server, _, _)| Some(*server) == serves);
    if let Some((principal, _, new)) = of_principal.filter(|_| both.after.second.is_some()) {
        let mirror = both.after.partners().find(|server| server != principal).unwrap_or_default();
        return work.refuse(
            "port_of_principal",
            Some(name),
            format!(
                "PostgreSQL's port on {principal} cannot change while {principal} serves {name}"
            ),
            "the running PostgreSQL keeps its port, and the mirror would look for it at the new \
             one",
            &[
                &format!("change it for the mirror only: port_on = {{ {mirror} = {new} }}"),
                &format!(
                    "restart {mirror}'s agent with its PostgreSQL, then: backstay pool failover \
                     {name}"
                ),
                &format!("change it for {principal}, and restart its agent with its PostgreSQL"),
            ],
        );
    }
    for (server, old, new) in changed {
        let sentence = format!("PostgreSQL of {name} on {server} moves from port {old} to {new}");
        let alone = both.after.second.is_none();
        let change = work.add(Stage::Adjust, "postgres_port", sentence);
        change.pool(name).of(both.after.partners().chain(both.after.front_ends()));
        match alone {
            true => change.effect(Effect::AfterRestart),
            false => {
                change.effect(Effect::AfterAgentRestart { processes: vec![server.to_owned()] })
            }
        };
        change.remark(format!(
            "{server}'s agent must be restarted with its PostgreSQL: until then the mirror and \
             Front Ends look for it at the new port in vain"
        ));
    }
}

/// The Central Management store.
pub(super) fn store(work: &mut Work<'_>) {
    let Some(to) = &work.new.central_management else { return };
    let from = work.old.and_then(|old| old.central_management.as_ref());
    let Some(from) = from.filter(|from| *from != to) else { return };
    let sentence = format!("the published documents move from {from} to {to}");
    let mirrored = work.new.pool(to).map(|pool| pool.partners().map(|it| it.value.clone()));
    let partners: Vec<String> = mirrored.into_iter().flatten().collect();
    let (pool, from) = (to.value.clone(), from.value.clone());
    let change = work.add(Stage::Protect, "store_moved", sentence);
    change.pool(&pool).effect(Effect::NoInterruption);
    change.of(partners.iter().map(String::as_str));
    change.remark(format!("the database xds in {from} stays, and is used no more"));
    change.done_when(Condition::Served { pool });
}
