//! `backstay join`: this machine, or this person, gets its certificate.

use std::io::Read as _;
use std::process::ExitCode;

use agent::enrol::{self, EnrolError};
use anyhow::Context as _;
use trust::{Identity, Place, Reason, Role, Token};

use crate::args::JoinArgs;
use crate::clock;
use crate::output::{self, hinted};
use crate::trust_place;

/// Longer input is no token.
const LONGEST: u64 = 4_096;

pub fn run(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let token = read(&args.token)?;
    let wanted = Identity::new(&token.deployment, token.role, &token.name)?;
    let place = place(args, &token)?;
    if place.exists() && !args.again && has_joined(&place, &wanted, &token)? {
        output::talk(&format!(
            "this is {wanted} already: nothing is to be done (join --again replaces its key)"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let joined = enrol::join(&token, args.authority.as_deref(), &place);
    let made = runtime.block_on(joined).map_err(explained)?;
    let days = made.left(clock::wall()).as_secs() / (24 * 60 * 60);
    output::talk(&format!(
        "this is {} now; its certificate is in {}, good for {days} days, and renews itself",
        made.identity,
        place.dir().display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn read(given: &str) -> anyhow::Result<Token> {
    if given != "-" {
        return Ok(given.parse()?);
    }
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text).context("read the token")?;
    Ok(text.parse()?)
}

fn place(args: &JoinArgs, token: &Token) -> anyhow::Result<Place> {
    match (&args.state_dir, token.role) {
        (Some(dir), _) => Ok(Place::new(dir.join("trust"))),
        (None, Role::Administrator | Role::ReadOnlyAdministrator) => {
            Ok(Place::new(trust_place::home(&token.deployment)?))
        }
        (None, Role::Server | Role::Witness | Role::FrontEnd | Role::Authority) => Err(hinted(
            format!("the token is for {} {}, which has a state directory", token.role, token.name),
            "name it as in the configuration of the process: --state-dir DIR",
        )),
    }
}

/// There is a good certificate of this very identity and authority.
fn has_joined(place: &Place, wanted: &Identity, token: &Token) -> anyhow::Result<bool> {
    let again = || format!("to replace it: backstay join --again ... ({})", place.dir().display());
    let credentials = place.load().map_err(|error| hinted(error.to_string(), again()))?;
    if credentials.identity() != wanted {
        return Err(hinted(
            format!(
                "{} holds the certificate of {}, but the token is for {wanted}",
                place.dir().display(),
                credentials.identity()
            ),
            again(),
        ));
    }
    let same = credentials.authority_fingerprint()? == token.fingerprint;
    Ok(same && !credentials.own().left(clock::wall()).is_zero())
}

fn explained(error: EnrolError) -> anyhow::Error {
    let hint = match &error {
        EnrolError::Unreached { .. } | EnrolError::Silent(_) => {
            "start it on the administrator's machine: backstay authority serve; and let this \
             machine reach its port"
        }
        EnrolError::Refused(refusal) => match refusal.reason {
            Reason::UnknownToken | Reason::Expired | Reason::Used | Reason::NameTaken => {
                "on the administrator's machine: backstay authority issue-token"
            }
            Reason::Revoked | Reason::NoCertificate | Reason::Unreadable | Reason::Failed => {
                "look at the log of backstay authority serve"
            }
        },
        EnrolError::Trust(_)
        | EnrolError::Broken { .. }
        | EnrolError::SomethingElse { .. }
        | EnrolError::NoAddress => return error.into(),
    };
    hinted(error.to_string(), hint)
}
