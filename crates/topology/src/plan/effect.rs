//! What a change does to service, in words that the person who says yes understands.

use serde::Serialize;

/// What whoever uses a pool, or relies on it, notices of a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    NoInterruption,
    /// The two servers change sides once.
    ManualFailover,
    /// All data are copied to this server.
    FreshCopy {
        to: String,
        bytes: Option<u64>,
    },
    /// Commits are on one disk only until the copy is complete.
    ExposedMeanwhile,
    /// Commits are on one disk only from now on.
    UnprotectedFromNowOn,
    /// Nothing fails over by itself until the change is done.
    NoAutomaticFailoverMeanwhile,
    NoAutomaticFailoverFromNowOn,
    /// PostgreSQL takes it over when both servers have been restarted, the mirror first.
    AfterMirrorRestartAndFailover,
    /// As before, the principal first, since a mirror must not have the lower value.
    AfterFailoverAndMirrorRestart,
    /// PostgreSQL takes it over at its next start; the pool has one server.
    AfterRestart,
    /// The agents take it over when they start again; PostgreSQL goes on meanwhile.
    AfterAgentRestart {
        processes: Vec<String>,
    },
    /// Nobody serves the pool any more.
    EndsService,
    /// Client sessions through this Front End end.
    EndsClientSessions {
        front_end: String,
    },
}

impl Effect {
    /// Where all data are copied to.
    pub fn copies_to(&self) -> Option<&str> {
        if let Effect::FreshCopy { to, .. } = self { Some(to) } else { None }
    }

    pub fn words(&self) -> String {
        match self {
            Effect::NoInterruption => "no interruption".to_owned(),
            Effect::ManualFailover => "one manual failover (about 0.2 s)".to_owned(),
            Effect::FreshCopy { to, bytes: Some(bytes) } => {
                format!("fresh copy of {} to {to}", size_words(*bytes))
            }
            Effect::FreshCopy { to, bytes: None } => format!("fresh copy to {to}"),
            Effect::ExposedMeanwhile => "exposed while the copy runs".to_owned(),
            Effect::UnprotectedFromNowOn => {
                "no interruption; every commit is on one disk only from then on".to_owned()
            }
            Effect::NoAutomaticFailoverMeanwhile => {
                "no automatic failover until it is done".to_owned()
            }
            Effect::NoAutomaticFailoverFromNowOn => "no automatic failover from then on".to_owned(),
            Effect::AfterMirrorRestartAndFailover => {
                "no interruption now; in force after a restart of the mirror, then one manual \
                 failover (about 0.2 s)"
                    .to_owned()
            }
            Effect::AfterFailoverAndMirrorRestart => {
                "no interruption now; in force after one manual failover (about 0.2 s), then a \
                 restart of the mirror"
                    .to_owned()
            }
            Effect::AfterRestart => {
                "no interruption now; in force after a restart of PostgreSQL, which interrupts \
                 service for some seconds"
                    .to_owned()
            }
            Effect::AfterAgentRestart { processes } => format!(
                "no interruption; in force after a restart of {}, one by one (PostgreSQL goes on)",
                processes.join(", ")
            ),
            Effect::EndsService => "nobody serves it any more".to_owned(),
            Effect::EndsClientSessions { front_end } => {
                format!("client sessions through {front_end} end")
            }
        }
    }
}

/// A number of bytes as a person reads it.
pub fn size_words(bytes: u64) -> String {
    const STEP: u64 = 1024;
    let mut size = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 10 * STEP || unit == "GB" {
            return format!("{size} {unit}");
        }
        size = size.saturating_add(STEP / 2) / STEP;
    }
    format!("{size} GB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size_words(900), "900 B");
        assert_eq!(size_words(31 * 1024 * 1024), "31 MB");
        assert_eq!(size_words(12 * 1024 * 1024 * 1024), "12 GB");
        assert_eq!(size_words(u64::MAX), "17179869184 GB");
    }
}
