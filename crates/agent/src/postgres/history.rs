//! A timeline's history: from which timelines it descends, and where it left each of them.
//!
//! It is what decides whether a copy of the data has diverged: a position belongs to a timeline
//! if it lies on it, or on one of its ancestors before the point where the history left that one.

use session::{Lsn, Position, Timeline};

use super::replication::parse_lsn;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    timeline: Timeline,
    /// The ancestors in order, each with the position where the next timeline begins.
    ancestors: Vec<Position>,
}

impl History {
    /// The history of the timeline that `initdb` makes: there is nothing before it.
    pub fn initial() -> History {
        History { timeline: Timeline::INITIAL, ancestors: Vec::new() }
    }

    /// Reads the content of the file `NNNNNNNN.history` of `timeline`; `None` if it is damaged.
    pub fn parse(timeline: Timeline, content: &str) -> Option<History> {
        let lines = content.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let ancestors = lines
            .map(|line| {
                let mut fields = line.split_whitespace();
                let timeline = Timeline(fields.next()?.parse().ok()?);
                Some(Position { timeline, lsn: parse_lsn(fields.next()?)? })
            })
            .collect::<Option<Vec<Position>>>()?;
        let ordered = ancestors
            .windows(2)
            .all(|pair| pair[0].timeline < pair[1].timeline && pair[0].lsn <= pair[1].lsn);
        let before = ancestors.last().is_none_or(|last| last.timeline < timeline);
        (ordered && before).then_some(History { timeline, ancestors })
    }

    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// This timeline after its ancestors, oldest first.
    pub fn timelines(&self) -> Vec<Timeline> {
        self.ancestors.iter().map(|fork| fork.timeline).chain([self.timeline]).collect()
    }

    /// Whether `timeline` is this one or one of its ancestors.
    pub fn contains(&self, timeline: Timeline) -> bool {
        timeline == self.timeline || self.fork_of(timeline).is_some()
    }

    /// Where this history left `timeline`; `None` if it never was on it, or still is.
    pub fn fork_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|ancestor| ancestor.timeline == timeline).map(|a| a.lsn)
    }

    /// The fork at which this timeline itself begins.
    pub fn begin(&self) -> Option<Position> {
        self.ancestors.last().copied()
    }

    /// Up to where `other` is the same history, given that `other` ends at `end` on its timeline.
    pub fn common_with(&self, other: &History, end: Lsn) -> Position {
        let theirs = other.ancestors.iter().copied();
        let theirs = theirs.chain([Position { timeline: other.timeline, lsn: end }]);
        let mut common = Position { timeline: Timeline::INITIAL, lsn: Lsn(0) };
        for their in theirs {
            let until = match self.fork_of(their.timeline) {
                Some(fork) => fork.min(their.lsn),
                None if their.timeline == self.timeline => their.lsn,
                None => break,
            };
            common = Position { timeline: their.timeline, lsn: until };
            if until < their.lsn {
                break;
            }
        }
        common
    }

    /// Whether WAL that ends at `position` is wholly part of this history.
    pub fn holds(&self, position: Position) -> bool {
        position.timeline == self.timeline
            || self.fork_of(position.timeline).is_some_and(|fork| position.lsn <= fork)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: &str = "1\t0/3000000\tno recovery target specified\n\n\
                        2\t0/5000000\tno recovery target specified\n";

    #[test]
    fn a_history_holds_what_lies_before_its_forks() {
        let history = History::parse(Timeline(5), FIVE).unwrap();
        let at = |timeline, lsn| Position { timeline: Timeline(timeline), lsn: Lsn(lsn) };
        assert!(history.holds(at(1, 0x0300_0000)));
        assert!(!history.holds(at(1, 0x0300_0001)));
        assert!(history.holds(at(5, u64::MAX)));
        assert!(!history.holds(at(3, 0)));
        assert!(history.contains(Timeline(2)) && !history.contains(Timeline(4)));
        assert_eq!(history.begin(), Some(at(2, 0x0500_0000)));
    }

    #[test]
    fn two_histories_are_common_up_to_the_first_fork() {
        let five = History::parse(Timeline(5), FIVE).unwrap();
        let four = History::parse(Timeline(4), "1 0/3000000\n2 0/4000000\n").unwrap();
        let at = |timeline, lsn| Position { timeline: Timeline(timeline), lsn: Lsn(lsn) };
        assert_eq!(five.common_with(&four, Lsn(0x0600_0000)), at(2, 0x0400_0000));
        let first = History::initial();
        assert_eq!(five.common_with(&first, Lsn(0x0300_0060)), at(1, 0x0300_0000));
        assert_eq!(five.common_with(&first, Lsn(0x0200_0000)), at(1, 0x0200_0000));
        assert_eq!(five.common_with(&five, Lsn(0x0700_0000)), at(5, 0x0700_0000));
    }

    #[test]
    fn a_damaged_history_is_not_read() {
        assert_eq!(History::parse(Timeline(2), FIVE), None);
        assert_eq!(History::parse(Timeline(5), "one 0/30"), None);
        assert_eq!(History::parse(Timeline(5), "2 0/30\n1 0/40"), None);
    }
}
