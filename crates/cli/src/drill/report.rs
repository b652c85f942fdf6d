//! What a drill found: the outage of each run, and what became of the acknowledged rows.
//!
//! The outage is the longest span without an acknowledgement between the fault and the moment from
//! which writes went on, measured from the last answer before it to the first one after it. When
//! no write failed and no span was longer than twice an ordinary one, there was none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::writer::{Acknowledged, Kept};
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
    pub runs: Vec<Run>,
    pub median_outage_ms: f64,
    pub lost: u64,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Run {
    pub outage_ms: f64,
    pub acknowledged: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub mirrored_again_ms: u64,
    pub term_before: u64,
    pub term_after: u64,
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
    pub fn new(pool: &str, fault: &'static str, profile: &str, runs: Vec<Run>) -> Report {
        Report {
            pool: pool.to_owned(),
            fault,
            profile: profile.to_owned(),
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
        let verdict = match self.lost {
            0 => colour.good("no acknowledged row was lost"),
            count => colour.bad(&format!("{count} ACKNOWLEDGED ROWS WERE LOST")),
        };
        format!(
            "{} on {} ({} profile)\n\n{table}\nmedian write outage: {:.1} ms; {verdict}\n",
            self.fault, self.pool, self.profile, self.median_outage_ms
        )
    }
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
}
