//! A certificate renews itself when two thirds of its time are over.
//!
//! It asks the authority over its own certificate, which must still be valid. As long as that does
//! not succeed, the log says how many days are left: daily at first, hourly in the last week.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trust::{Credentials, Place};

use super::{EnrolError, renew};
use crate::clock;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
/// How often a place is looked at that nobody else looks at.
const LOOK: Duration = Duration::from_mins(1);
const LAST_WEEK: Duration = Duration::from_hours(24 * 7);

/// Keeps the certificate in `place` renewed, for a process that has no loop for it. For ever.
pub async fn keep_renewed(place: Place) {
    let mut renewal = Renewal::new(place.clone());
    loop {
        if let Ok(credentials) = place.load() {
            renewal.look(&credentials).await;
        }
        sleep(LOOK).await;
    }
}

#[derive(Debug)]
pub(crate) struct Renewal {
    place: Place,
    next: Instant,
    complained: Option<Instant>,
}

impl Renewal {
    pub fn new(place: Place) -> Renewal {
        Renewal { place, next: Instant::now(), complained: None }
    }

    /// Renews the certificate if it is time to.
    pub async fn look(&mut self, credentials: &Credentials) {
        if Instant::now() < self.next || !credentials.own().renewal_is_due(clock::wall()) {
            return;
        }
        self.next = Instant::now() + HOUR;
        match renew(&self.place, credentials).await {
            Ok(certificate) => {
                let days_left = certificate.left(clock::wall()).as_secs() / DAY.as_secs();
                tracing::info!(days_left, "the certificate is renewed");
                self.complained = None;
            }
            Err(error) => self.complain(credentials.own().left(clock::wall()), &error),
        }
    }

    fn complain(&mut self, left: Duration, error: &EnrolError) {
        let pause = if left < LAST_WEEK { HOUR } else { DAY };
        let lately = |complained: Instant| complained.elapsed() + HOUR / 2 < pause;
        if self.complained.is_some_and(lately) {
            return;
        }
        self.complained = Some(Instant::now());
        let days_left = left.as_secs() / DAY.as_secs();
        if left < LAST_WEEK {
            tracing::error!(
                days_left,
                %error,
                "the certificate is not renewed; without it the others refuse this process: start \
                 the authority's service (backstay authority serve), or copy a new certificate"
            );
        } else {
            tracing::warn!(
                days_left,
                %error,
                "the certificate is not renewed yet; the authority's service is needed for it \
                 (backstay authority serve)"
            );
        }
    }
}
