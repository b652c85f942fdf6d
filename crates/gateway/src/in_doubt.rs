//! What became of a commit whose answer was never heard: rule G3 of the protocol.
//!
//! Asking the new principal is not enough: transaction ids that the former one handed out and lost
//! are handed out again, and PostgreSQL then calls a lost transaction committed. So every promotion
//! leaves a boundary behind, the first id that its server had not seen completed, and `judge` holds
//! a transaction against the boundaries of all promotions since its own term. Only what they leave
//! open is asked of PostgreSQL, and only of the serving principal.

use crate::route::Principal;

/// A transaction whose commit was sent, and not answered for certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// The whole id of the top transaction, from `pg_current_xact_id`.
    pub xid: u64,
    /// Of the principal that it ran on.
    pub term: u64,
    pub timeline: u32,
}

/// What the promotions say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// It was not committed, whatever PostgreSQL says.
    Lost,
    /// PostgreSQL tells the truth (`STATUS`).
    Ask,
    /// It ran on the principal that serves now. PostgreSQL tells the truth when the transaction is
    /// no longer in progress; the answer holds when a commit that began after that has been
    /// acknowledged (`BARRIER`).
    AskThenCommit,
    /// Nobody can tell.
    Unknown,
}

/// What the client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Committed,
    NotCommitted,
    Unknown,
}

/// What PostgreSQL's answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    Told(Outcome),
    /// It is certain once a commit that begins from now on has been acknowledged.
    AfterCommit(Outcome),
    /// Ask again: it has not ended.
    NotYet,
}

/// Asks for the status of the transaction that is the text `$1`. One row, one column: `committed`,
/// `aborted`, `in progress` or null. Anybody may ask.
pub const STATUS: &str = "SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)";

/// A commit of its own that waits for the mirror like any other, whatever the session has set. Any
/// role may run it, also while its transactions read only. (A transaction that only took an id
/// would not wait: it writes nothing before its commit.) Its answer counts only if it came without
/// the notice that the wait was cancelled.
pub const BARRIER: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true), \
     pg_catalog.set_config('client_min_messages', 'warning', true), \
     pg_catalog.pg_logical_emit_message(true, 'backstay', ''::pg_catalog.text)";

/// What is known of `x` before PostgreSQL is asked. `principal` serves: its term is established.
///
/// The timelines of its history are gone through in their order, which is that of the terms. Where
/// what is recorded does not fit together, the answer is unknown, never a guess.
pub fn judge(x: Doubt, principal: &Principal) -> Judgement {
    if x.term > principal.term {
        // This principal has been succeeded, or `x` is not of this pool: it has no say.
        return Judgement::Unknown;
    }
    let Some(own) = principal.timelines.iter().position(|timeline| *timeline == x.timeline) else {
        // A history that is not told, or a principal that ran on another timeline in one term.
        return match principal.timelines.is_empty() || x.term == principal.term {
            true => Judgement::Unknown,
            false => Judgement::Lost,
        };
    };
    let later = &principal.timelines[own + 1..];
    match (x.term == principal.term, later.is_empty()) {
        (true, true) => return Judgement::AskThenCommit,
        // Every term has a timeline of its own.
        (true, false) | (false, true) => return Judgement::Unknown,
        (false, false) => {}
    }
    match smallest_boundary(x.term, later, principal) {
        Some(boundary) if x.xid >= boundary => Judgement::Lost,
        Some(_) => Judgement::Ask,
        None => Judgement::Unknown,
    }
}

/// The smallest boundary of `timelines`, if each is known and was promoted after `term`.
fn smallest_boundary(term: u64, timelines: &[u32], principal: &Principal) -> Option<u64> {
    let mut smallest = u64::MAX;
    for timeline in timelines {
        let mut recorded = false;
        for promotion in principal.promotions.iter().filter(|it| it.timeline == *timeline) {
            if promotion.term <= term {
                return None;
            }
            smallest = smallest.min(promotion.boundary?);
            recorded = true;
        }
        if !recorded {
            return None;
        }
    }
    Some(smallest)
}

/// What the answer to `STATUS` means after `judgement`; `None`: it was null. An error of PostgreSQL
/// is `Outcome::Unknown`: it knows no such id.
pub fn read(judgement: Judgement, status: Option<&str>) -> Reading {
    let told = match status {
        Some("committed") => Outcome::Committed,
        Some("aborted") => Outcome::NotCommitted,
        Some("in progress") if judgement == Judgement::AskThenCommit => return Reading::NotYet,
        // In progress after a promotion: a prepared transaction, which its id alone cannot resolve.
        Some(_) | None => return Reading::Told(Outcome::Unknown),
    };
    match judgement {
        Judgement::Lost => Reading::Told(Outcome::NotCommitted),
        Judgement::Ask => Reading::Told(told),
        Judgement::AskThenCommit => Reading::AfterCommit(told),
        Judgement::Unknown => Reading::Told(Outcome::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use protocol::admin::RoutePromotion;

    use super::*;

    const OPEN: u64 = u64::MAX;

    /// The history of a pool that failed over three times: terms 2, 3, 4 and 7 on the timelines 2,
    /// 3, 6 and 7, after the timeline 1 that it was made with. Each promotion has (term, timeline,
    /// boundary).
    fn principal(timelines: &[u32], promotions: &[(u64, u32, u64)]) -> Principal {
        let promotions = promotions.iter().map(|&(term, timeline, boundary)| RoutePromotion {
            term,
            timeline,
            boundary: (boundary != OPEN).then_some(boundary),
            established: true,
        });
        Principal {
            member: "be2".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 5432,
            term: 7,
            timeline: 7,
            handing_over: false,
            timelines: timelines.to_vec(),
            promotions: promotions.collect(),
        }
    }

    const PROMOTIONS: [(u64, u32, u64); 5] =
        [(2, 2, 700), (3, 3, 800), (4, 6, 900), (5, 5, 850), (7, 7, 880)];

    fn whole() -> Principal {
        principal(&[1, 2, 3, 6, 7], &PROMOTIONS)
    }

    #[track_caller]
    fn check(of: &Principal, term: u64, timeline: u32, xid: u64, expected: Judgement) {
        assert_eq!(judge(Doubt { xid, term, timeline }, of), expected, "{xid} of {term}");
    }

    #[test]
    fn an_id_below_every_later_boundary_is_asked_for() {
        let of = whole();
        check(&of, 4, 6, 879, Judgement::Ask);
        check(&of, 3, 3, 879, Judgement::Ask);
        check(&of, 2, 2, 799, Judgement::Ask);
        check(&of, 3, 3, 0, Judgement::Ask);
    }

    #[test]
    fn an_id_at_or_above_a_later_boundary_is_lost() {
        let of = whole();
        check(&of, 4, 6, 880, Judgement::Lost);
        check(&of, 2, 2, 800, Judgement::Lost);
        check(&of, 2, 2, u64::MAX, Judgement::Lost);
    }

    #[test]
    fn the_smallest_of_the_later_boundaries_counts_not_the_first() {
        // Term 4 began at 900, but term 7 began at 880: it never saw what lies between.
        let of = whole();
        check(&of, 3, 3, 880, Judgement::Lost);
        check(&of, 3, 3, 899, Judgement::Lost);
    }

    #[test]
    fn boundaries_of_promotions_off_the_history_do_not_count() {
        // Term 5 was promoted to timeline 5 at 850, and left no trace.
        check(&whole(), 3, 3, 860, Judgement::Ask);
        check(&whole(), 4, 6, 879, Judgement::Ask);
    }

    #[test]
    fn boundaries_of_the_own_term_and_of_earlier_ones_do_not_count() {
        let of = principal(&[1, 2, 3, 6, 7], &[(2, 2, 5), (3, 3, 5), (4, 6, 900), (7, 7, 880)]);
        check(&of, 3, 3, 870, Judgement::Ask);
    }

    #[test]
    fn a_transaction_of_a_timeline_that_was_given_up_is_lost() {
        check(&whole(), 5, 5, 1, Judgement::Lost);
        check(&whole(), 6, 8, 851, Judgement::Lost);
    }

    #[test]
    fn an_unknown_boundary_on_the_way_makes_the_outcome_unknown() {
        let of =
            principal(&[1, 2, 3, 6, 7], &[(2, 2, 700), (3, 3, 800), (4, 6, OPEN), (7, 7, 880)]);
        check(&of, 3, 3, 10, Judgement::Unknown);
        check(&of, 3, 3, 950, Judgement::Unknown);
        // Those after it are known.
        check(&of, 4, 6, 10, Judgement::Ask);
        check(&of, 4, 6, 880, Judgement::Lost);
        // What was given up is lost all the same.
        check(&of, 5, 5, 10, Judgement::Lost);
    }

    #[test]
    fn a_timeline_without_a_recorded_promotion_makes_the_outcome_unknown() {
        let of = principal(&[1, 2, 3, 6, 7], &[(2, 2, 700), (3, 3, 800), (7, 7, 880)]);
        check(&of, 3, 3, 10, Judgement::Unknown);
        check(&of, 2, 2, 10, Judgement::Unknown);
        check(&of, 4, 6, 10, Judgement::Ask);
        let of = principal(&[1, 2, 3, 6, 7], &[]);
        check(&of, 4, 6, 10, Judgement::Unknown);
    }

    #[test]
    fn a_transaction_of_the_serving_term_is_asked_for_and_a_commit_awaited() {
        check(&whole(), 7, 7, 10, Judgement::AskThenCommit);
        check(&whole(), 7, 7, u64::MAX, Judgement::AskThenCommit);
    }

    #[test]
    fn what_does_not_fit_together_is_unknown() {
        let of = whole();
        // A term that this principal has not heard of; one term on two timelines; an earlier term
        // on the newest timeline; no history at all.
        check(&of, 8, 9, 10, Judgement::Unknown);
        check(&of, 8, 7, 10, Judgement::Unknown);
        check(&of, 7, 6, 10, Judgement::Unknown);
        check(&of, 7, 9, 10, Judgement::Unknown);
        check(&of, 4, 7, 10, Judgement::Unknown);
        check(&principal(&[], &PROMOTIONS), 4, 6, 10, Judgement::Unknown);
        // A later timeline whose promotion is of an earlier term.
        check(&principal(&[1, 3, 6, 7], &PROMOTIONS), 6, 3, 10, Judgement::Unknown);
        // Two promotions that bear one timeline: the smaller boundary binds.
        let twice = [(4, 6, 900), (7, 7, 880), (6, 7, 860)];
        check(&principal(&[1, 6, 7], &twice), 4, 6, 870, Judgement::Lost);
    }

    #[test]
    fn the_answer_of_postgresql_is_read_in_the_light_of_the_judgement() {
        use Judgement::{Ask, AskThenCommit, Lost, Unknown};
        let told = Reading::Told;
        for (judgement, status, expected) in [
            (Ask, Some("committed"), told(Outcome::Committed)),
            (Ask, Some("aborted"), told(Outcome::NotCommitted)),
            (Ask, Some("in progress"), told(Outcome::Unknown)),
            (Ask, None, told(Outcome::Unknown)),
            (Ask, Some("else"), told(Outcome::Unknown)),
            (AskThenCommit, Some("committed"), Reading::AfterCommit(Outcome::Committed)),
            (AskThenCommit, Some("aborted"), Reading::AfterCommit(Outcome::NotCommitted)),
            (AskThenCommit, Some("in progress"), Reading::NotYet),
            (AskThenCommit, None, told(Outcome::Unknown)),
            (Lost, Some("committed"), told(Outcome::NotCommitted)),
            (Unknown, Some("committed"), told(Outcome::Unknown)),
        ] {
            assert_eq!(read(judgement, status), expected, "{judgement:?} {status:?}");
        }
    }
}
