//! What is to be measured: how many sessions, on how many hosts, for how long.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};
use session::Timing;

pub const USAGE: &str = "\
usage: cargo xtask bench witness [OPTION VALUE] ...

  --sessions LIST     SESSIONS or SESSIONS:EACH, with EACH sessions on each pair of hosts
                      (100:1,1000:1,100,1000,10000)
  --per-host N        EACH where it is not said (50)
  --seconds N         length of the measurement without failovers (20)
  --elections N       failovers of single sessions, their principals silent from one moment on (200)
  --between MS        from one of them to the next (100)
  --phases KIND       together: all sessions of a host begin at once, as when it starts;
                      spread: at any moment of a heartbeat, as when they were added later (together)
  --profile NAME      fast, standard or tolerant (standard)
  --binary FILE       the backstay to measure; without it, a release build is made
  --json FILE         every figure";

const SESSIONS: &str = "100:1,1000:1,100,1000,10000";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    pub sessions: usize,
    /// Sessions of each pair of hosts; `None`: as many as the option says.
    each: Option<usize>,
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Point> {
        let number = |text: &str| {
            let number: usize = text.parse().with_context(|| format!("{text:?} is no number"))?;
            if number == 0 {
                bail!("without sessions there is nothing to measure: write, say, 1000:50");
            }
            Ok(number)
        };
        Ok(match text.split_once(':') {
            Some((sessions, each)) => {
                Point { sessions: number(sessions)?, each: Some(number(each)?) }
            }
            None => Point { sessions: number(text)?, each: None },
        })
    }
}

/// When the sessions of one host begin, and so when their heartbeats come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phases {
    Together,
    Spread,
}

impl Phases {
    pub fn name(self) -> &'static str {
        match self {
            Phases::Together => "together",
            Phases::Spread => "spread",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    pub name: &'static str,
    pub timing: Timing,
}

impl Profile {
    const ALL: [Profile; 3] = [
        Profile { name: "fast", timing: Timing::FAST },
        Profile { name: "standard", timing: Timing::STANDARD },
        Profile { name: "tolerant", timing: Timing::TOLERANT },
    ];
}

#[derive(Clone, Debug)]
pub struct Options {
    pub points: Vec<Point>,
    pub per_pair: usize,
    pub seconds: u64,
    pub elections: usize,
    pub between_ms: u64,
    pub phases: Phases,
    pub profile: Profile,
    pub binary: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[&str]) -> Result<Options> {
        let mut options = Options {
            points: points(SESSIONS)?,
            per_pair: 50,
            seconds: 20,
            elections: 200,
            between_ms: 100,
            phases: Phases::Together,
            profile: profile("standard")?,
            binary: None,
            json: None,
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if !rest.is_empty() {
            bail!("{USAGE}");
        }
        for [name, value] in pairs {
            let number = || value.parse::<u32>().with_context(|| format!("{name} {value}"));
            match *name {
                "--sessions" => options.points = points(value)?,
                "--per-host" => options.per_pair = number()?.max(1) as usize,
                "--seconds" => options.seconds = u64::from(number()?.max(1)),
                "--elections" => options.elections = number()? as usize,
                "--between" => options.between_ms = u64::from(number()?),
                "--phases" => options.phases = phases(value)?,
                "--profile" => options.profile = profile(value)?,
                "--binary" => options.binary = Some(PathBuf::from(value)),
                "--json" => options.json = Some(PathBuf::from(value)),
                _ => bail!("{USAGE}"),
            }
        }
        Ok(options)
    }

    pub fn each(&self, point: Point) -> usize {
        point.each.unwrap_or(self.per_pair).min(point.sessions)
    }
}

fn points(text: &str) -> Result<Vec<Point>> {
    text.split(',').map(str::parse).collect()
}

fn phases(text: &str) -> Result<Phases> {
    match text {
        "together" => Ok(Phases::Together),
        "spread" => Ok(Phases::Spread),
        _ => bail!("{text:?} are no phases: write together or spread"),
    }
}

fn profile(text: &str) -> Result<Profile> {
    let found = Profile::ALL.into_iter().find(|profile| profile.name == text);
    found.with_context(|| format!("{text:?} is no profile: write fast, standard or tolerant"))
}

#[cfg(test)]
mod tests {
    use super::{Options, Phases};

    #[test]
    fn points_say_how_many_sessions_a_pair_has() {
        let words = ["--sessions", "100:1,7,1000", "--per-host", "20", "--phases", "spread"];
        let options = Options::parse(&words).expect("they are right");
        let each: Vec<usize> = options.points.iter().map(|point| options.each(*point)).collect();
        assert_eq!(each, [1, 7, 20]);
        assert_eq!(options.phases, Phases::Spread);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for words in [
            ["--sessions", "0"],
            ["--sessions", "100:0"],
            ["--sessions", "many"],
            ["--profile", "slow"],
            ["--phases", "odd"],
            ["--hosts", "1"],
        ] {
            assert!(Options::parse(&words).is_err(), "{words:?}");
        }
    }
}
