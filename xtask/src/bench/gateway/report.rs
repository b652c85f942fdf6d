//! The figures of all runs, as a table for people, as JSON, and against the goals.
//!
//! What is shown is the median of the rounds. A ratio is the median of the ratios within each
//! round, since the turns of one round lie seconds apart and see the same machine.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::load::Sample;
use super::options::{Load, Point, Target};
use crate::bench::median;
use crate::output;

/// A gateway may take no more memory for a silent client.
const CLIENT_BYTES: f64 = 10_000.0;
/// Nor add more to the slowest hundredth of the transactions.
const ADDED_US: f64 = 100.0;

/// All runs of one target at one point.
#[derive(Debug)]
pub struct Row {
    pub point: Point,
    pub target: Target,
    /// One for each round.
    pub samples: Vec<Sample>,
}

type Figure = fn(&Sample) -> Option<f64>;

fn rate(sample: &Sample) -> Option<f64> {
    sample.transactions_per_second
}

impl Row {
    pub fn median(&self, figure: Figure) -> Option<f64> {
        let values: Vec<f64> = self.samples.iter().filter_map(figure).collect();
        (!values.is_empty()).then(|| median(&values, |value| *value))
    }

    /// What a single run showed, while the others still go on.
    pub fn line(&self, round: usize) -> String {
        let with = |text: String| format!("  {text}");
        [
            format!("round {round}  {:>10}", self.target),
            cell(self.median(rate), |it| with(format!("{it:>9.0} transactions/s"))),
            cell(self.median(|it| it.processor_us), |it| with(format!("{it:>6.1} µs of its own"))),
            cell(self.median(|it| it.p99_us), |it| with(format!("p99 {it:>5.0} µs"))),
            cell(self.median(|it| it.client_bytes), |it| with(format!("{it:>7.0} bytes/client"))),
        ]
        .concat()
    }

    fn range(&self, figure: Figure) -> Option<(f64, f64)> {
        let values = || self.samples.iter().filter_map(figure);
        values().reduce(f64::min).zip(values().reduce(f64::max))
    }

    /// This one's figure as a part of the other's, round by round.
    fn ratios(&self, other: &Row, figure: Figure) -> Vec<f64> {
        let rounds = self.samples.iter().zip(&other.samples);
        rounds.filter_map(|(own, other)| Some(figure(own)? / figure(other)?)).collect()
    }

    fn ratio(&self, other: &Row, figure: Figure) -> Option<f64> {
        let ratios = self.ratios(other, figure);
        (!ratios.is_empty()).then(|| median(&ratios, |ratio| *ratio))
    }

    /// By how much the ratio of two programs that are the same may differ from 1: two standard
    /// errors of it over the rounds.
    fn noise(&self, same: &Row, figure: Figure) -> Option<f64> {
        let ratios = self.ratios(same, figure);
        let count = ratios.len() as f64;
        let squares: f64 = ratios.iter().map(|ratio| (ratio - 1.0).powi(2)).sum();
        (ratios.len() > 1).then(|| 2.0 * (squares / count).sqrt() / count.sqrt())
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// What other programs took of all processors just before each run.
    pub beside: Vec<f64>,
}

impl Report {
    fn find(&self, point: Point, target: &Target) -> Option<&Row> {
        self.rows.iter().find(|row| row.point == point && row.target == *target)
    }

    pub fn show(&self) {
        output::data(
            "| point | target | transactions/s | lowest to highest | of direct | of PgBouncer \
             | own CPU per transaction | median, p99 | memory per client | CPU when idle |\n\
             |---|---|---|---|---|---|---|---|---|---|",
        );
        for row in &self.rows {
            let against = |target| self.find(row.point, &target).and_then(|it| row.ratio(it, rate));
            let cells = [
                row.point.to_string(),
                row.target.to_string(),
                cell(row.median(rate), |it| format!("{it:.0}")),
                cell(row.range(rate), |(low, high)| format!("{low:.0} to {high:.0}")),
                cell(against(Target::Direct), |it| format!("{it:.2}")),
                cell(against(Target::PgBouncer), |it| format!("{it:.2}")),
                cell(row.median(|it| it.processor_us), |it| format!("{it:.1} µs")),
                cell(
                    row.median(|it| it.median_us).zip(row.median(|it| it.p99_us)),
                    |(half, most)| format!("{half:.0}, {most:.0} µs"),
                ),
                cell(row.median(|it| it.client_bytes), |it| format!("{:.1} kB", it / 1000.0)),
                cell(row.median(|it| it.idle_share), |it| format!("{:.1} %", it * 100.0)),
            ];
            output::data(format_args!("| {} |", cells.join(" | ")));
        }
        if let Some((usual, most)) = self.others() {
            output::data(format_args!(
                "\nOther programs took {:.0} % of the processors just before the runs (median; \
                 at most {:.0} %).",
                usual * 100.0,
                most * 100.0
            ));
        }
    }

    /// Median and maximum of what other programs took.
    fn others(&self) -> Option<(f64, f64)> {
        let most = self.beside.iter().copied().reduce(f64::max)?;
        Some((median(&self.beside, |share| *share), most))
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let against = |target| self.find(row.point, &target).and_then(|it| row.ratio(it, rate));
            let medians = Sample {
                transactions_per_second: row.median(rate),
                processor_us: row.median(|it| it.processor_us),
                median_us: row.median(|it| it.median_us),
                p99_us: row.median(|it| it.p99_us),
                client_bytes: row.median(|it| it.client_bytes),
                idle_share: row.median(|it| it.idle_share),
            };
            json!({
                "point": row.point.to_string(),
                "target": row.target.to_string(),
                "rounds": row.samples.iter().map(Sample::json).collect::<Vec<_>>(),
                "median": medians.json(),
                "of_direct": against(Target::Direct),
                "of_pgbouncer": against(Target::PgBouncer),
            })
        });
        json!({ "rows": rows.collect::<Vec<_>>(), "others_share": self.beside })
    }

    /// # Errors
    /// The gateway misses a goal for which there is something to compare with.
    pub fn judge(&self) -> Result<()> {
        let missed: Vec<String> = self
            .rows
            .iter()
            .filter(|row| row.target == Target::Gateway(None))
            .flat_map(|row| self.missed(row))
            .collect();
        if !missed.is_empty() {
            bail!(
                "the gateway misses {} of its goals:\n  - {}",
                missed.len(),
                missed.join("\n  - ")
            );
        }
        Ok(())
    }

    fn missed(&self, gateway: &Row) -> Vec<String> {
        let point = gateway.point;
        let mut missed = Vec::new();
        match point.load {
            Load::Simple | Load::Prepared | Load::Connect => {
                let Some(other) = self.find(point, &Target::PgBouncer) else { return missed };
                let control = self.find(point, &Target::Control);
                let noise =
                    |figure| control.and_then(|it| it.noise(other, figure)).unwrap_or_default();
                let slack = noise(rate);
                let slower = |ratio: &f64| *ratio < 1.0 - slack;
                if let Some(ratio) = gateway.ratio(other, rate).filter(slower) {
                    missed.push(format!(
                        "{point}: {ratio:.3} of PgBouncer's transactions, with a noise of \
                         {slack:.3}"
                    ));
                }
                let cost: Figure = |it| it.processor_us;
                let slack = noise(cost);
                let dearer = |ratio: &f64| *ratio > 1.0 + slack;
                if let Some(ratio) = gateway.ratio(other, cost).filter(dearer) {
                    missed.push(format!(
                        "{point}: {ratio:.3} of PgBouncer's processor time for a transaction, with \
                         a noise of {slack:.3}"
                    ));
                }
            }
            Load::Latency => {
                let slow = |row: &Row| row.median(|it| it.p99_us);
                let direct = self.find(point, &Target::Direct).and_then(slow);
                let added = slow(gateway).zip(direct).map(|(own, direct)| own - direct);
                if let Some(added) = added.filter(|added| point.clients == 1 && *added >= ADDED_US)
                {
                    missed.push(format!(
                        "{point}: {added:.0} µs more than direct at the 99th of 100"
                    ));
                }
            }
            Load::Idle | Load::Queried => {
                let bytes = gateway.median(|it| it.client_bytes);
                if let Some(bytes) = bytes.filter(|bytes| *bytes >= CLIENT_BYTES) {
                    missed.push(format!("{point}: {:.1} kB for a client", bytes / 1000.0));
                }
            }
        }
        missed
    }
}

fn cell<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map(show).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Report, Row, Sample, rate};
    use crate::bench::gateway::options::Target;

    fn row(point: &str, target: Target, samples: Vec<Sample>) -> Row {
        Row { point: point.parse().expect("a point"), target, samples }
    }

    fn rates(target: Target, rates: &[f64], processor_us: f64) -> Row {
        let sample = |rate: &f64| Sample {
            transactions_per_second: Some(*rate),
            processor_us: Some(processor_us),
            ..Sample::default()
        };
        row("prepared:8", target, rates.iter().map(sample).collect())
    }

    fn judged(rows: Vec<Row>) -> Option<String> {
        Report { rows, beside: Vec::new() }.judge().err().map(|error| error.to_string())
    }

    #[test]
    fn a_ratio_compares_runs_of_the_same_round() {
        let slow_then_fast = rates(Target::Direct, &[100.0, 1000.0, 1000.0], 0.0);
        let half = rates(Target::PgBouncer, &[50.0, 500.0, 400.0], 0.0);
        assert_eq!(half.ratio(&slow_then_fast, rate), Some(0.5));
    }

    #[test]
    fn a_gateway_that_is_slower_or_dearer_than_pgbouncer_is_told() {
        let pgbouncer = || rates(Target::PgBouncer, &[100.0], 15.0);
        let gateway = |rate, cost| rates(Target::Gateway(None), &[rate], cost);
        assert_eq!(judged(vec![pgbouncer(), gateway(100.0, 15.0)]), None);
        let slower = judged(vec![pgbouncer(), gateway(99.0, 14.0)]).expect("it is slower");
        assert!(slower.contains("1 of its goals") && slower.contains("0.990"), "{slower}");
        let dearer = judged(vec![pgbouncer(), gateway(101.0, 16.0)]).expect("it is dearer");
        assert!(dearer.contains("1.067 of PgBouncer's processor time"), "{dearer}");
        assert_eq!(judged(vec![gateway(1.0, 99.0)]), None);
    }

    #[test]
    fn what_a_second_pgbouncer_shows_as_well_is_noise() {
        let rows = |gateway| {
            vec![
                rates(Target::PgBouncer, &[100.0; 4], 15.0),
                rates(Target::Control, &[90.0, 110.0, 90.0, 110.0], 15.0),
                rates(Target::Gateway(None), &[gateway; 4], 15.0),
            ]
        };
        assert_eq!(judged(rows(91.0)), None);
        let slower = judged(rows(89.0)).expect("it is slower");
        assert!(slower.contains("0.890") && slower.contains("noise of 0.100"), "{slower}");
    }

    #[test]
    fn added_latency_and_memory_have_a_limit() {
        let slowest = |target, p99_us| {
            let sample = Sample { p99_us: Some(p99_us), ..Sample::default() };
            row("latency:1", target, vec![sample])
        };
        let direct = || slowest(Target::Direct, 50.0);
        assert_eq!(judged(vec![direct(), slowest(Target::Gateway(None), 149.0)]), None);
        assert!(judged(vec![direct(), slowest(Target::Gateway(None), 150.0)]).is_some());
        let memory = |client_bytes| {
            let sample = Sample { client_bytes: Some(client_bytes), ..Sample::default() };
            vec![row("idle:1000", Target::Gateway(None), vec![sample])]
        };
        assert_eq!(judged(memory(9_999.0)), None);
        assert!(judged(memory(10_000.0)).is_some());
    }
}
