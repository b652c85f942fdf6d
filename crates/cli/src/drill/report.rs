//! What a drill found: the outage of each run, and what became of the acknowledged rows.
//!
//! The outage is the longest span without an acknowledgement between the fault and the moment from
//! which writes went on, measured from the last answer before it to the first one after it. When
//! no write failed and no span was longer than twice an ordinary one, there was none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::counted::{Difference, InDoubt};
use super::writer::{Acknowledged, Kept};
use crate::args::DrillArgs;
use crate::output::{Colour, Table};

/// A span that a busy disk or processor makes on its own.
const ORDINARY: Duration = Duration::from_millis(25);
/// How long before the fault the ordinary spans are taken from.
const BEFORE: Duration = Duration::from_secs(2);
/// How much longer than the longest one before the fault an ordinary span may be.
const ALLOWANCE: u32 = 2;

/// The published form: see docs/json.md.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    pub pool: String,
    pub fault: &'static str,
    pub profile: String,
    /// `direct` or `gateway`.
    pub through: &'static str,
    pub runs: Vec<Run>,
    pub median_outage_ms: f64,
    pub lost: u64,
    /// Everything that contradicts what clients were told; `lost` is part of it.
    pub wrong: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Run {
    pub outage_ms: f64,
    pub acknowledged: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub mirrored_again_ms: u64,
    pub term_before: u64,
    pub term_after: u64,
    /// What the clients of the Front End saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<ThroughGateway>,
}

/// What a crowd of clients saw of a run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ThroughGateway {
    pub clients: u64,
    /// Clients that had a row acknowledged after the fault.
    pub went_on: u64,
    /// Transactions and log-ins that did not end well, by SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    pub connections_lost: u64,
    /// The longest wait for the answer to one statement, from the fault on.
    pub longest_wait_ms: f64,
    pub present_though_failed: u64,
    pub torn: u64,
    /// Clients that kept their connection and lost what they had set on it.
    pub settings_lost: u64,
    /// By the Front Ends' own account.
    pub front_end: Option<Difference>,
}

impl Run {
    /// How often something contradicts what clients were told.
    fn wrong(&self) -> u64 {
        let more = self.gateway.as_ref().map_or(0, |seen| {
            self.duplicated + seen.present_though_failed + seen.torn + seen.settings_lost
        });
        self.lost + more
    }
}

/// When what happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moments {
    pub fault: Instant,
    /// Writes were seen to go on.
    pub resumed: Instant,
}

pub fn outage(kept: &Kept, moments: Moments) -> Duration {
    let spans: Vec<(Instant, Instant)> =
        kept.acknowledged.windows(2).map(|pair| (pair[0].at, pair[1].at)).collect();
    let longest = |from: Instant, to: Instant| {
        let within = spans.iter().filter(|(first, second)| *second > from && *first <= to);
        within.map(|(first, second)| *second - *first).max().unwrap_or(Duration::ZERO)
    };
    let found = longest(moments.fault, moments.resumed);
    let before = moments.fault.checked_sub(BEFORE).unwrap_or(moments.fault);
    let ordinary =
        spans.iter().filter(|(first, second)| *first >= before && *second < moments.fault);
    let ordinary = ordinary.map(|(first, second)| *second - *first).max().unwrap_or(ORDINARY);
    let failed = kept.interruptions.iter().any(|at| *at > moments.fault && *at <= moments.resumed);
    if !failed && found <= (ordinary * ALLOWANCE).max(ORDINARY) { Duration::ZERO } else { found }
}

/// What became of one writer's acknowledged rows; `found` says how often each number is there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub acknowledged: u64,
    pub lost: u64,
    pub duplicated: u64,
}

pub fn verdict(acknowledged: &[Acknowledged], found: &BTreeMap<i64, i64>) -> Verdict {
    let lost = acknowledged.iter().filter(|row| !found.contains_key(&row.number)).count();
    Verdict {
        acknowledged: acknowledged.len() as u64,
        lost: lost as u64,
        duplicated: found.values().filter(|count| **count > 1).count() as u64,
    }
}

/// Milliseconds with one digit behind the point.
pub fn in_ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => ((values[middle - 1] + values[middle]) * 5.0).round() / 10.0,
    }
}

impl Report {
    pub fn new(args: &DrillArgs, profile: &str, runs: Vec<Run>) -> Report {
        Report {
            pool: args.pool.clone(),
            fault: args.fault.name(),
            profile: profile.to_owned(),
            through: args.through.name(),
            wrong: runs.iter().map(Run::wrong).sum(),
            median_outage_ms: median(runs.iter().map(|run| run.outage_ms).collect()),
            lost: runs.iter().map(|run| run.lost).sum(),
            runs,
        }
    }

    pub fn text(&self, colour: Colour) -> String {
        let mut table = Table::new(&[
            "RUN",
            "WRITE OUTAGE",
            "ACKNOWLEDGED",
            "LOST",
            "DUPLICATED",
            "MIRRORED AGAIN",
            "TERM",
        ]);
        for (index, run) in self.runs.iter().enumerate() {
            let lost = match run.lost {
                0 => colour.good("0"),
                count => colour.bad(&count.to_string()),
            };
            table.row(vec![
                (index + 1).to_string(),
                format!("{:.1} ms", run.outage_ms),
                run.acknowledged.to_string(),
                lost,
                run.duplicated.to_string(),
                format!("after {} ms", run.mirrored_again_ms),
                format!("{} -> {}", run.term_before, run.term_after),
            ]);
        }
        let verdict = match (self.lost, self.wrong) {
            (0, 0) => colour.good("no acknowledged row was lost"),
            (0, count) => colour.bad(&format!("{count} WRONG ANSWERS")),
            (count, _) => colour.bad(&format!("{count} ACKNOWLEDGED ROWS WERE LOST")),
        };
        format!(
            "{} on {} ({} profile)\n\n{table}{}\nmedian write outage: {:.1} ms; {verdict}\n",
            self.fault,
            self.pool,
            self.profile,
            self.clients(colour),
            self.median_outage_ms
        )
    }

    /// What the clients of the Front End saw; empty if there were none.
    fn clients(&self, colour: Colour) -> String {
        let head = [
            "RUN",
            "CLIENTS",
            "ERRORS",
            "CONNECTIONS LOST",
            "LONGEST WAIT",
            "HELD",
            "IN DOUBT",
            "RESTORED",
            "ENDED",
            "WRONG",
        ];
        let mut table = Table::new(&head);
        let mut seen = 0;
        for (index, run) in self.runs.iter().enumerate() {
            let Some(clients) = &run.gateway else { continue };
            seen += 1;
            let counted = |value: fn(&Difference) -> String| {
                clients.front_end.as_ref().map_or("-".to_owned(), value)
            };
            table.row(vec![
                (index + 1).to_string(),
                went_on(clients, colour),
                errors(&clients.errors),
                clients.connections_lost.to_string(),
                format!("{:.1} ms", clients.longest_wait_ms),
                counted(|counted| counted.held.to_string()),
                counted(in_doubt),
                counted(|counted| counted.sessions_restored.to_string()),
                counted(|counted| counted.sessions_ended.to_string()),
                match run.wrong() {
                    0 => colour.good("0"),
                    count => colour.bad(&count.to_string()),
                },
            ]);
        }
        if seen == 0 { String::new() } else { format!("\n{table}") }
    }
}

fn went_on(clients: &ThroughGateway, colour: Colour) -> String {
    if clients.went_on == clients.clients {
        return clients.clients.to_string();
    }
    colour.bad(&format!("{} of {} went on", clients.went_on, clients.clients))
}

/// Such as `none`, or `12 x 40001, 1 x 08007`.
fn errors(errors: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> =
        errors.iter().map(|(state, count)| format!("{count} x {state}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Such as `3 committed, 1 not`.
fn in_doubt(counted: &Difference) -> String {
    let InDoubt { committed, not_committed, unknown } = counted.in_doubt;
    let parts = [(committed, "committed"), (not_committed, "not"), (unknown, "unknown")];
    let words: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn kept(base: Instant, millis: &[u64], interruptions: &[u64]) -> Kept {
        let at = |ms: &u64| base + Duration::from_millis(*ms);
        Kept {
            acknowledged: (0..)
                .zip(millis)
                .map(|(number, ms)| Acknowledged { number, at: at(ms) })
                .collect(),
            interruptions: interruptions.iter().map(at).collect(),
        }
    }

    fn check(millis: &[u64], interruptions: &[u64], expected: u64) {
        let base = clock::now();
        let moments = Moments {
            fault: base + Duration::from_millis(1_000),
            resumed: base + Duration::from_millis(4_000),
        };
        let found = outage(&kept(base, millis, interruptions), moments);
        assert_eq!(found, Duration::from_millis(expected));
    }

    #[test]
    fn the_outage_reaches_from_the_last_answer_before_to_the_first_after() {
        check(&[980, 990, 3_000, 3_010], &[1_010], 2_010);
    }

    #[test]
    fn answers_that_were_still_on_their_way_end_no_outage() {
        check(&[990, 1_001, 1_002, 3_002, 3_010], &[1_100], 2_000);
    }

    #[test]
    fn an_ordinary_span_is_no_outage() {
        check(&[980, 1_000, 1_020, 1_040, 1_050], &[], 0);
        check(&[900, 980, 1_050], &[], 0);
        check(&[980, 1_000, 1_020, 1_040, 1_060], &[1_030], 20);
    }

    #[test]
    fn a_missing_row_is_lost_and_a_double_one_is_told() {
        let rows = kept(clock::now(), &[1, 2, 3], &[]).acknowledged;
        let found = BTreeMap::from([(0, 1), (2, 2), (7, 1)]);
        assert_eq!(verdict(&rows, &found), Verdict { acknowledged: 3, lost: 1, duplicated: 1 });
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    fn through_gateway(outcome: ThroughGateway) -> Report {
        let run = Run {
            outage_ms: 812.5,
            acknowledged: 5210,
            lost: 0,
            duplicated: 0,
            mirrored_again_ms: 1900,
            term_before: 3,
            term_after: 4,
            gateway: Some(outcome),
        };
        Report {
            pool: "pool01".to_owned(),
            fault: "crash",
            profile: "standard".to_owned(),
            through: "gateway",
            median_outage_ms: run.outage_ms,
            lost: run.lost,
            wrong: run.wrong(),
            runs: vec![run],
        }
    }

    #[test]
    fn what_clients_of_the_front_end_saw_reads_well() {
        let told = ThroughGateway {
            clients: 20,
            went_on: 20,
            errors: BTreeMap::from([("40001".to_owned(), 9), ("08007".to_owned(), 1)]),
            connections_lost: 0,
            longest_wait_ms: 903.1,
            present_though_failed: 0,
            torn: 0,
            settings_lost: 0,
            front_end: Some(Difference {
                held: 11,
                in_doubt: InDoubt { committed: 3, not_committed: 4, unknown: 1 },
                sessions_restored: 20,
                ..Difference::default()
            }),
        };
        expect_test::expect![[r#"
            crash on pool01 (standard profile)

            RUN  WRITE OUTAGE  ACKNOWLEDGED  LOST  DUPLICATED  MIRRORED AGAIN  TERM
            1    812.5 ms      5210          0     0           after 1900 ms   3 -> 4

            RUN  CLIENTS  ERRORS                CONNECTIONS LOST  LONGEST WAIT  HELD  IN DOUBT                       RESTORED  ENDED  WRONG
            1    20       1 x 08007, 9 x 40001  0                 903.1 ms      11    3 committed, 4 not, 1 unknown  20        0      0

            median write outage: 812.5 ms; no acknowledged row was lost
        "#]].assert_eq(&through_gateway(told.clone()).text(Colour::Off));
        let lied =
            ThroughGateway { went_on: 19, present_though_failed: 2, front_end: None, ..told };
        expect_test::expect![[r#"
            crash on pool01 (standard profile)

            RUN  WRITE OUTAGE  ACKNOWLEDGED  LOST  DUPLICATED  MIRRORED AGAIN  TERM
            1    812.5 ms      5210          0     0           after 1900 ms   3 -> 4

            RUN  CLIENTS           ERRORS                CONNECTIONS LOST  LONGEST WAIT  HELD  IN DOUBT  RESTORED  ENDED  WRONG
            1    19 of 20 went on  1 x 08007, 9 x 40001  0                 903.1 ms      -     -         -         -      2

            median write outage: 812.5 ms; 2 WRONG ANSWERS
        "#]].assert_eq(&through_gateway(lied).text(Colour::Off));
    }
}
