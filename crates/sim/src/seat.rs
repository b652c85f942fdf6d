//! The members of a simulated session, by place: two partners and up to two witnesses.
//!
//! A seat is an index into the world's arrays and a name in traces and scenarios.

use core::fmt;
use core::str::FromStr;

use session::{Member, Partner, WitnessId};

/// How many members a world has room for.
pub const SEATS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seat {
    Be1,
    Be2,
    Wit1,
    Wit2,
}

impl Seat {
    pub const ALL: [Seat; SEATS] = [Seat::Be1, Seat::Be2, Seat::Wit1, Seat::Wit2];

    pub fn index(self) -> usize {
        self as usize
    }

    pub fn member(self) -> Member {
        match self {
            Seat::Be1 => Member::FIRST,
            Seat::Be2 => Member::SECOND,
            Seat::Wit1 => Member::Witness(WitnessId(1)),
            Seat::Wit2 => Member::Witness(WitnessId(2)),
        }
    }

    /// The seat of `member`; `None` for a witness that the world does not have.
    pub fn of(member: Member) -> Option<Seat> {
        match member {
            Member::Partner(partner) => Some(Seat::of_partner(partner)),
            Member::Witness(WitnessId(1)) => Some(Seat::Wit1),
            Member::Witness(WitnessId(2)) => Some(Seat::Wit2),
            Member::Witness(WitnessId(_)) => None,
        }
    }

    pub fn of_partner(partner: Partner) -> Seat {
        match partner {
            Partner::First => Seat::Be1,
            Partner::Second => Seat::Be2,
        }
    }

    pub fn partner(self) -> Option<Partner> {
        match self {
            Seat::Be1 => Some(Partner::First),
            Seat::Be2 => Some(Partner::Second),
            Seat::Wit1 | Seat::Wit2 => None,
        }
    }

    pub fn witness(self) -> Option<WitnessId> {
        match self {
            Seat::Be1 | Seat::Be2 => None,
            Seat::Wit1 => Some(WitnessId(1)),
            Seat::Wit2 => Some(WitnessId(2)),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Seat::Be1 => "be1",
            Seat::Be2 => "be2",
            Seat::Wit1 => "wit1",
            Seat::Wit2 => "wit2",
        }
    }
}

/// The place of a partner's server in the world's arrays.
pub fn side(partner: Partner) -> usize {
    Seat::of_partner(partner).index()
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Seat {
    type Err = String;

    fn from_str(text: &str) -> Result<Seat, String> {
        Seat::ALL
            .into_iter()
            .find(|seat| seat.name() == text)
            .ok_or_else(|| format!("no member is called {text:?}; use be1, be2, wit1 or wit2"))
    }
}
