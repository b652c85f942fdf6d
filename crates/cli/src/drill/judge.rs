//! What clients were told, compared with what is there.
//!
//! A row whose outcome was told as unknown may be there or not; that it is there half, or twice, is
//! wrong all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::crowd::Style;
use super::writer::{Acknowledged, Kept};

/// A client's rows as they are there: how often each number is.
pub type Found = BTreeMap<i64, i64>;

/// What one client was told.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Told {
    /// In the order of their answers.
    pub acknowledged: Vec<Acknowledged>,
    /// Numbers of transactions that failed: none of them may be there.
    pub failed: BTreeSet<i64>,
    /// Transactions that did not end well, by SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    pub connections_lost: u64,
    /// When a transaction did not end well.
    pub interruptions: Vec<Instant>,
    /// At the end it found the setting that it made at the start.
    pub setting_kept: bool,
}

/// What became of the rows; everything but `acknowledged` should be 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Judged {
    pub acknowledged: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Reported failed, and there all the same.
    pub present_though_failed: u64,
    /// Transactions of which one row is there and one is not.
    pub torn: u64,
}

impl Judged {
    pub fn of(told: &Told, found: &Found, style: Style) -> Judged {
        let there = |number: &i64| found.contains_key(number);
        let acknowledged = told.acknowledged.iter();
        let torn = match style {
            Style::Autocommit => 0,
            Style::Transactions => {
                let other = |number: i64| number ^ 1;
                found.keys().filter(|number| !there(&other(**number))).count()
            }
        };
        Judged {
            acknowledged: told.acknowledged.len() as u64,
            lost: acknowledged.filter(|row| !there(&row.number)).count() as u64,
            duplicated: found.values().filter(|count| **count > 1).count() as u64,
            present_though_failed: told.failed.iter().filter(|number| there(number)).count() as u64,
            torn: torn as u64,
        }
    }

    pub fn and(self, other: Judged) -> Judged {
        Judged {
            acknowledged: self.acknowledged + other.acknowledged,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            present_though_failed: self.present_though_failed + other.present_though_failed,
            torn: self.torn + other.torn,
        }
    }
}

/// All clients as if they were one, for the measure of the outage: in the order of the answers.
pub fn together(all: &[Told]) -> Kept {
    let mut kept = Kept::default();
    for told in all {
        kept.acknowledged.extend(&told.acknowledged);
        kept.interruptions.extend(&told.interruptions);
    }
    kept.acknowledged.sort_by_key(|row| row.at);
    kept.interruptions.sort();
    kept
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn told(acknowledged: &[i64], failed: &[i64]) -> Told {
        let at = clock::now();
        let acknowledged = acknowledged.iter().map(|number| Acknowledged { number: *number, at });
        Told {
            acknowledged: acknowledged.collect(),
            failed: failed.iter().copied().collect(),
            ..Told::default()
        }
    }

    fn once(numbers: &[i64]) -> Found {
        numbers.iter().map(|number| (*number, 1)).collect()
    }

    #[test]
    fn a_client_that_was_told_the_truth_finds_nothing_wrong() {
        // 4 and 5 are in doubt, and there.
        let judged = Judged::of(&told(&[0, 1], &[2, 3]), &once(&[0, 1, 4, 5]), Style::Transactions);
        assert_eq!(judged, Judged { acknowledged: 2, ..Judged::default() });
    }

    #[test]
    fn every_kind_of_lie_is_found() {
        let mut found = once(&[1, 3, 4]);
        found.insert(4, 2);
        let judged = Judged::of(&told(&[0, 1], &[2, 3]), &found, Style::Autocommit);
        let expected =
            Judged { acknowledged: 2, lost: 1, duplicated: 1, present_though_failed: 1, torn: 0 };
        assert_eq!(judged, expected);
        let judged = Judged::of(&told(&[], &[]), &once(&[0, 1, 2, 5]), Style::Transactions);
        assert_eq!(judged.torn, 2);
        assert_eq!(judged.and(expected).lost, 1);
    }

    #[test]
    fn answers_of_many_clients_are_put_in_order() {
        let (mut first, mut second) = (told(&[0, 1], &[]), told(&[0], &[]));
        let begun = first.acknowledged[0].at;
        first.acknowledged[1].at = begun + Duration::from_millis(9);
        second.acknowledged[0].at = begun + Duration::from_millis(5);
        second.interruptions = vec![begun];
        let kept = together(&[first, second]);
        let spans: Vec<_> =
            kept.acknowledged.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert_eq!(spans, [Duration::from_millis(5), Duration::from_millis(4)]);
        assert_eq!(kept.interruptions, [begun]);
    }
}
