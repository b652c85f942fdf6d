//! One copy of the data: a history of WAL records on timelines.
//!
//! A record is one step of the position, so a position is the number of records before it.
//! A copy decides whether it can follow another by timeline ids alone, as PostgreSQL does; only
//! the ledger of the world knows what the records really are.

use session::{Lsn, Position, Timeline};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// `id` is the commit's place in the world's ledger.
    Commit {
        id: u8,
        xid: u16,
    },
    Barrier {
        term: u32,
    },
    /// The end-of-recovery record of a promotion.
    Promotion,
    ShutdownCheckpoint,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalRecord {
    pub timeline: Timeline,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DataCopy {
    pub wal: Vec<WalRecord>,
    /// How much of `wal` is on disk.
    pub flushed: u32,
    /// The timelines of `wal` and where each begins, oldest first.
    pub history: Vec<(Timeline, u32)>,
    /// The highest timeline of any history file.
    pub newest: Timeline,
    /// A rewind or a copy has begun and has not ended.
    pub unusable: bool,
    /// Consistent only from this position on (after a rewind or a copy).
    pub consistent_at: u32,
    /// The newest timeline on which a checkpoint is complete.
    pub checkpointed: Timeline,
    /// The commits in `wal`, by id.
    pub commits: u128,
}

/// The first transaction id after `initdb`.
const FIRST_XID: u16 = 700;

impl DataCopy {
    pub fn created() -> DataCopy {
        DataCopy {
            wal: Vec::new(),
            flushed: 0,
            history: vec![(Timeline::INITIAL, 0)],
            newest: Timeline::INITIAL,
            unusable: false,
            consistent_at: 0,
            checkpointed: Timeline::INITIAL,
            commits: 0,
        }
    }

    pub fn len(&self) -> u32 {
        self.wal.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.wal.is_empty()
    }

    pub fn timeline(&self) -> Timeline {
        self.history.last().map_or(Timeline::INITIAL, |(timeline, _)| *timeline)
    }

    /// Where the WAL on disk ends.
    pub fn position(&self) -> Position {
        Position { timeline: self.timeline(), lsn: Lsn(u64::from(self.flushed)) }
    }

    /// Where the WAL ends, flushed or not.
    pub fn inserted(&self) -> Position {
        Position { timeline: self.timeline(), lsn: Lsn(u64::from(self.len())) }
    }

    pub fn next_xid(&self) -> u16 {
        let highest = self.wal.iter().filter_map(|record| match record.what {
            What::Commit { xid, .. } => Some(xid),
            What::Barrier { .. } | What::Promotion | What::ShutdownCheckpoint => None,
        });
        highest.max().map_or(FIRST_XID, |xid| xid + 1)
    }

    /// Appends a record of its own.
    pub fn insert(&mut self, what: What) {
        self.append(WalRecord { timeline: self.timeline(), what });
    }

    fn append(&mut self, record: WalRecord) {
        if record.timeline != self.timeline() {
            self.history.push((record.timeline, self.len()));
            self.newest = self.newest.max(record.timeline);
        }
        if let What::Commit { id, .. } = record.what {
            self.commits |= 1 << id;
        }
        self.wal.push(record);
    }

    pub fn flush(&mut self) {
        self.flushed = self.len();
    }

    /// What a crash does to WAL that was not flushed.
    pub fn crash(&mut self) {
        self.truncate(self.flushed);
    }

    fn truncate(&mut self, length: u32) {
        self.wal.truncate(length as usize);
        self.flushed = self.flushed.min(length);
        self.history.retain(|(timeline, begin)| *timeline == Timeline::INITIAL || *begin < length);
        self.commits = 0;
        for record in &self.wal {
            if let What::Commit { id, .. } = record.what {
                self.commits |= 1 << id;
            }
        }
    }

    pub fn promote(&mut self, timeline: Timeline) {
        self.newest = self.newest.max(timeline);
        self.append(WalRecord { timeline, what: What::Promotion });
        self.flush();
    }

    /// Where `timeline` ends in this copy, if the copy has it.
    fn end_of(&self, timeline: Timeline) -> Option<u32> {
        let place = self.history.iter().position(|(own, _)| *own == timeline)?;
        Some(self.history.get(place + 1).map_or(self.len(), |(_, begin)| *begin))
    }

    /// Whether `upstream` would send WAL to this copy: this copy's timeline is in the upstream's
    /// history and had not ended there before this copy's end.
    pub fn can_follow(&self, upstream: &DataCopy) -> bool {
        upstream.end_of(self.timeline()).is_some_and(|end| self.flushed <= end)
    }

    /// Whether the two histories have grown apart, as `pg_rewind` sees it.
    pub fn common_with(&self, other: &DataCopy) -> u32 {
        let mut common = 0;
        for (own, theirs) in self.history.iter().zip(&other.history) {
            if own != theirs {
                break;
            }
            common = self.end_of(own.0).min(other.end_of(theirs.0)).unwrap_or(common);
        }
        common
    }

    /// Gets one record more from `upstream`, and flushes it.
    pub fn receive(&mut self, upstream: &DataCopy) {
        if let Some(record) = upstream.wal.get(self.wal.len()) {
            self.append(*record);
            self.flush();
        }
    }

    /// `pg_rewind`: back to the common point; what follows there comes by streaming. The history
    /// files become the source's.
    pub fn rewind(&mut self, source: &DataCopy) {
        self.truncate(self.common_with(source));
        self.newest = source.newest;
        self.consistent_at = source.flushed;
        self.unusable = false;
    }

    /// A fresh copy of `source`.
    pub fn copied_from(source: &DataCopy) -> DataCopy {
        let mut copy = source.clone();
        copy.crash();
        copy.consistent_at = copy.flushed;
        copy.unusable = false;
        copy
    }

    pub fn is_consistent(&self) -> bool {
        !self.unusable && self.flushed >= self.consistent_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(copy: &mut DataCopy, id: u8) {
        copy.insert(What::Commit { id, xid: copy.next_xid() });
        copy.flush();
    }

    #[test]
    fn a_diverged_copy_cannot_follow_until_it_is_rewound() {
        let mut old = DataCopy::created();
        old.promote(Timeline(2));
        commit(&mut old, 0);
        let mut new = DataCopy::copied_from(&old);
        assert!(old.can_follow(&new));
        commit(&mut old, 1);
        new.promote(Timeline(3));
        assert!(!old.can_follow(&new));
        old.rewind(&new);
        assert!(old.can_follow(&new) && !old.is_consistent());
        old.receive(&new);
        assert_eq!((old.timeline(), old.commits), (Timeline(3), 1));
        assert!(old.is_consistent());
    }

    #[test]
    fn one_timeline_id_for_two_promotions_hides_a_divergence() {
        let mut one = DataCopy::created();
        let mut other = one.clone();
        one.promote(Timeline(2));
        other.promote(Timeline(2));
        commit(&mut one, 0);
        assert!(other.can_follow(&one));
    }

    #[test]
    fn a_lost_transaction_id_is_handed_out_again() {
        let mut copy = DataCopy::created();
        copy.insert(What::Commit { id: 0, xid: copy.next_xid() });
        let lost = copy.next_xid();
        copy.crash();
        assert_eq!(copy.next_xid() + 1, lost);
    }
}
