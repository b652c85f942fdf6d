//! From the session's types to what people see.

use session::{Lsn, Position, Promotion};

use super::status::{PositionShown, PromotionShown};
use super::{Mirroring, MirroringState, Protection, Role};

impl From<Position> for PositionShown {
    fn from(position: Position) -> PositionShown {
        let Position { timeline, lsn: Lsn(bytes) } = position;
        PositionShown { lsn: position.lsn.to_string(), bytes, timeline: timeline.0 }
    }
}

impl From<Promotion> for PromotionShown {
    fn from(promotion: Promotion) -> PromotionShown {
        PromotionShown {
            term: promotion.term.0,
            timeline: promotion.timeline.0,
            fork: promotion.fork.into(),
            established: promotion.established,
        }
    }
}

impl From<session::Role> for Role {
    fn from(role: session::Role) -> Role {
        match role {
            session::Role::Witness => Role::Witness,
            session::Role::Waiting => Role::Waiting,
            session::Role::Mirror => Role::Mirror,
            session::Role::Candidate => Role::Candidate,
            session::Role::Becoming => Role::Becoming,
            session::Role::Principal => Role::Principal,
            session::Role::Amnesiac => Role::Amnesiac,
            session::Role::Suspended => Role::Suspended,
        }
    }
}

impl From<session::MirroringState> for MirroringState {
    fn from(state: session::MirroringState) -> MirroringState {
        match state {
            session::MirroringState::Synchronizing => MirroringState::Synchronizing,
            session::MirroringState::Synchronized => MirroringState::Synchronized,
            session::MirroringState::Suspended => MirroringState::Suspended,
            session::MirroringState::Disconnected => MirroringState::Disconnected,
            session::MirroringState::Exposed => MirroringState::Exposed,
            session::MirroringState::NotMirrored => MirroringState::NotMirrored,
        }
    }
}

impl From<session::Protection> for Protection {
    fn from(protection: session::Protection) -> Protection {
        match protection {
            session::Protection::Mirrored => Protection::Mirrored,
            session::Protection::Exposed => Protection::Exposed,
        }
    }
}

impl From<session::Mirroring> for Mirroring {
    fn from(mirroring: session::Mirroring) -> Mirroring {
        match mirroring {
            session::Mirroring::Active => Mirroring::Active,
            session::Mirroring::Suspended => Mirroring::Suspended,
        }
    }
}

/// A wall-clock time in milliseconds since 1970 as RFC 3339 text, UTC.
pub fn at_text(ms: u64) -> String {
    let (days, in_day) = ((ms / 86_400_000) as i64, ms % 86_400_000);
    // Days to a date of the Gregorian calendar, counted in eras of 400 years from March 1st.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(at_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at_text(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at_text(1_767_225_599_999), "2025-12-31T23:59:59.999Z");
    }
}
