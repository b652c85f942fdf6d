//! Numbers with an owner: members, terms, timelines, positions in the WAL.
//!
//! Terms and timelines are owned by parity: the first partner takes only even ones, the second
//! only odd ones, so that no two promotions can ever bear the same number.

use core::fmt;

/// One of the two data servers of a session.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Partner {
    /// Owns the even terms and timelines.
    First,
    /// Owns the odd ones.
    Second,
}

impl Partner {
    #[must_use]
    pub fn other(self) -> Partner {
        match self {
            Partner::First => Partner::Second,
            Partner::Second => Partner::First,
        }
    }

    fn parity(self) -> u64 {
        match self {
            Partner::First => 0,
            Partner::Second => 1,
        }
    }
}

/// A witness, by a number derived from its name (`named`), so that all members agree on it.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WitnessId(pub u64);

impl WitnessId {
    /// The number of the witness called `name` (FNV-1a).
    pub fn named(name: &str) -> WitnessId {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        WitnessId(hash)
    }
}

/// Whoever has a vote in a session.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Member {
    Partner(Partner),
    Witness(WitnessId),
}

impl Member {
    pub const FIRST: Member = Member::Partner(Partner::First);
    pub const SECOND: Member = Member::Partner(Partner::Second);
}

/// Number of a role assignment; grows with every promotion.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term(pub u64);

impl Term {
    pub fn owner(self) -> Partner {
        if self.0.is_multiple_of(2) { Partner::First } else { Partner::Second }
    }

    /// The least term above this one that `partner` may take.
    #[must_use]
    pub fn next_owned_by(self, partner: Partner) -> Term {
        let next = self.0 + 1;
        Term(if next % 2 == partner.parity() { next } else { next + 1 })
    }
}

/// A PostgreSQL timeline id.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The timeline that `initdb` makes.
    pub const INITIAL: Timeline = Timeline(1);

    /// The least timeline above this one that `partner` may take.
    #[must_use]
    pub fn next_owned_by(self, partner: Partner) -> Timeline {
        let next = self.0 + 1;
        let owned = u64::from(next % 2) == partner.parity();
        Timeline(if owned { next } else { next + 1 })
    }
}

/// A position in the WAL, in bytes.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lsn(pub u64);

/// Where a copy of the data ends: a timeline and a position on it.
/// Not ordered: timelines bear no order in time. Compare positions of one timeline only.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    pub timeline: Timeline,
    pub lsn: Lsn,
}

/// A PostgreSQL transaction id, 64 bits with its epoch.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Xid(pub u64);

/// A member's state identity: made anew, at random, whenever its state is made anew.
#[cfg_attr(feature = "trace", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Lsn {
    /// PostgreSQL's own spelling, such as `0/3000060`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lsn, self.timeline)
    }
}

impl fmt::Display for Partner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Partner::First => "first",
            Partner::Second => "second",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_term_and_no_timeline_has_two_owners() {
        for number in 0..100 {
            let (first, second) = (
                Term(number).next_owned_by(Partner::First),
                Term(number).next_owned_by(Partner::Second),
            );
            assert_ne!(first, second);
            assert!(first > Term(number) && second > Term(number));
            assert_eq!((first.owner(), second.owner()), (Partner::First, Partner::Second));
            let timeline = Timeline(number as u32);
            assert_ne!(
                timeline.next_owned_by(Partner::First),
                timeline.next_owned_by(Partner::Second)
            );
        }
    }

    #[test]
    fn a_position_prints_as_postgresql_prints_it() {
        assert_eq!(
            alloc::format!("{}", Position { timeline: Timeline(3), lsn: Lsn(0x1_0300_0060) }),
            "1/3000060@3"
        );
    }
}
