//! How it is known that a change is done.
//!
//! A condition is looked up in facts, again and again, until it holds. While it does not, it says
//! what it waits for, so that whoever watches knows whom to look at.

use std::collections::BTreeSet;

use serde::Serialize;

use super::facts::{Facts, PoolFacts};

/// Something that is to become true.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "condition", rename_all = "snake_case")]
pub enum Condition {
    /// The process works from the planned document, or a later one.
    Informed { process: String },
    /// Its session exists, and somebody serves it.
    Served { pool: String },
    /// Every acknowledged commit is on both of these disks.
    Mirrored { pool: String, servers: BTreeSet<String> },
    /// This server serves, and no other is wanted.
    Alone { pool: String, server: String },
    /// This witness votes; `None`: none does.
    Witness { pool: String, witness: Option<String> },
    /// The process has no part in the pool any more.
    Left { pool: String, process: String },
    /// The databases are there.
    Databases { pool: String, names: BTreeSet<String> },
}

/// Whether it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    Done,
    /// What it waits for.
    Waits(String),
}

impl Progress {
    fn of(holds: bool, waits: impl FnOnce() -> String) -> Progress {
        if holds { Progress::Done } else { Progress::Waits(waits()) }
    }
}

impl Condition {
    /// `version`: that of the planned document.
    pub fn look(&self, facts: &Facts, version: u64) -> Progress {
        match self {
            Condition::Informed { process } => informed(facts, process, version),
            Condition::Served { pool } => with_pool(facts, pool, |known| {
                Progress::of(known.is_served, || with_waits(known, format!("nobody serves {pool}")))
            }),
            Condition::Mirrored { pool, servers } => {
                with_pool(facts, pool, |known| mirrored(known, pool, servers))
            }
            Condition::Alone { pool, server } => with_pool(facts, pool, |known| {
                let holds = known.is_served
                    && known.is_alone
                    && known.principal.as_deref() == Some(server.as_str());
                Progress::of(holds, || {
                    with_waits(known, format!("{server} does not serve {pool} alone yet"))
                })
            }),
            Condition::Witness { pool, witness } => with_pool(facts, pool, |known| {
                let holds = !known.is_changing && known.witness == *witness;
                Progress::of(holds, || {
                    let sentence = match (&known.witness, witness) {
                        (Some(now), _) if Some(now) != witness.as_ref() => {
                            format!("{now} is still the witness of {pool}")
                        }
                        (Some(_) | None, Some(wanted)) => {
                            format!("{wanted} does not vote in {pool} yet")
                        }
                        (Some(_) | None, None) => format!("the witness of {pool} is changing"),
                    };
                    with_waits(known, sentence)
                })
            }),
            Condition::Left { pool, process } => match facts.processes.get(process) {
                // Whoever is away is not waited for: it leaves when it hears of it.
                None => Progress::Done,
                Some(known) => Progress::of(!known.parts.contains(pool), || {
                    format!("{process} still takes part in {pool}")
                }),
            },
            Condition::Databases { pool, names } => with_pool(facts, pool, |known| {
                let Some(there) = &known.databases else { return Progress::Done };
                let missing: Vec<&str> = names.difference(there).map(String::as_str).collect();
                Progress::of(missing.is_empty(), || {
                    format!("{pool} has no database {} yet", missing.join(", "))
                })
            }),
        }
    }
}

fn informed(facts: &Facts, process: &str, version: u64) -> Progress {
    match facts.processes.get(process) {
        None => Progress::Waits(format!("{process} does not answer")),
        Some(known) if known.has_own_file => Progress::Done,
        Some(known) if known.version.is_some_and(|has| has >= version) => match &known.problem {
            None => Progress::Done,
            Some(problem) => Progress::Waits(format!("{process}: {problem}")),
        },
        Some(known) => Progress::Waits(match (&known.problem, known.version) {
            (Some(problem), _) => format!("{process} does not use version {version}: {problem}"),
            (None, Some(has)) => format!("{process} has version {has}"),
            (None, None) => format!("{process} has no document yet"),
        }),
    }
}

fn with_pool(facts: &Facts, pool: &str, look: impl FnOnce(&PoolFacts) -> Progress) -> Progress {
    match facts.pools.get(pool) {
        Some(known) => look(known),
        None => Progress::Waits(format!("{pool} has no session yet")),
    }
}

fn mirrored(known: &PoolFacts, pool: &str, servers: &BTreeSet<String>) -> Progress {
    let holds = known.is_served && known.is_mirrored && known.servers == *servers;
    Progress::of(holds, || {
        let doing: Vec<String> = servers
            .iter()
            .filter_map(|server| Some(format!("{server}: {}", known.doing.get(server)?)))
            .collect();
        match doing.is_empty() {
            false => doing.join("; "),
            true if !known.is_served => with_waits(known, format!("nobody serves {pool}")),
            true => with_waits(known, format!("{pool} is not mirrored yet")),
        }
    })
}

fn with_waits(known: &PoolFacts, sentence: String) -> String {
    match known.waits.first() {
        Some(waits) => format!("{sentence}: {waits}"),
        None => sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::ProcessFacts;
    use super::*;

    fn facts(pool: PoolFacts) -> Facts {
        Facts { pools: [("p".to_owned(), pool)].into(), ..Facts::default() }
    }

    fn waits(condition: &Condition, facts: &Facts) -> String {
        match condition.look(facts, 3) {
            Progress::Waits(text) => text,
            Progress::Done => "done".to_owned(),
        }
    }

    #[test]
    fn a_pool_is_mirrored_only_on_the_servers_that_are_wanted() {
        let condition =
            Condition::Mirrored { pool: "p".into(), servers: ["a", "c"].map(Into::into).into() };
        let mirrored = PoolFacts { is_served: true, is_mirrored: true, ..PoolFacts::default() };
        let old = PoolFacts { servers: ["a", "b"].map(Into::into).into(), ..mirrored.clone() };
        assert_eq!(waits(&condition, &facts(old.clone())), "p is not mirrored yet");
        let doing = [("c".to_owned(), "copying 1 of 2 GB".to_owned())].into();
        assert_eq!(waits(&condition, &facts(PoolFacts { doing, ..old })), "c: copying 1 of 2 GB");
        let new = PoolFacts { servers: ["a", "c"].map(Into::into).into(), ..mirrored };
        assert_eq!(condition.look(&facts(new), 3), Progress::Done);
        assert_eq!(waits(&condition, &Facts::default()), "p has no session yet");
    }

    #[test]
    fn a_process_is_informed_by_this_version_or_a_later_one() {
        let condition = Condition::Informed { process: "a".into() };
        let with = |version, problem: Option<&str>| {
            let known = ProcessFacts {
                version,
                problem: problem.map(Into::into),
                ..ProcessFacts::default()
            };
            Facts { processes: [("a".to_owned(), known)].into(), ..Facts::default() }
        };
        assert_eq!(waits(&condition, &Facts::default()), "a does not answer");
        assert_eq!(waits(&condition, &with(None, None)), "a has no document yet");
        assert_eq!(waits(&condition, &with(Some(2), None)), "a has version 2");
        assert_eq!(
            waits(&condition, &with(Some(2), Some("no room"))),
            "a does not use version 3: no room"
        );
        assert_eq!(waits(&condition, &with(Some(4), None)), "done");
    }

    #[test]
    fn a_change_of_witness_in_between_is_not_the_end_of_it() {
        let condition = Condition::Witness { pool: "p".into(), witness: Some("w2".into()) };
        let at = |witness: &str, is_changing| {
            facts(PoolFacts { witness: Some(witness.into()), is_changing, ..PoolFacts::default() })
        };
        assert_eq!(waits(&condition, &at("w1", false)), "w1 is still the witness of p");
        assert!(waits(&condition, &at("w2", true)) != "done");
        assert_eq!(waits(&condition, &at("w2", false)), "done");
    }

    #[test]
    fn whoever_is_away_is_not_waited_for_when_it_is_to_leave() {
        let condition = Condition::Left { pool: "p".into(), process: "a".into() };
        assert_eq!(waits(&condition, &Facts::default()), "done");
        let known = ProcessFacts { parts: ["p".to_owned()].into(), ..ProcessFacts::default() };
        let facts = Facts { processes: [("a".to_owned(), known)].into(), ..Facts::default() };
        assert_eq!(waits(&condition, &facts), "a still takes part in p");
    }
}
