//! `cargo xtask CHORE`: everything that is done to this repository rather than with Backstay.
//!
//! A chore is a thin typed script: it explains itself in a line or two as it goes, runs the same
//! programs a person would run, and leaves every decision about PostgreSQL to the product itself.
//! Continuous integration runs `ci` and nothing else, so what passes here passes there.

use std::process::ExitCode;

use xtask::{bench, ci, fuzz, model, output, postgres, prepare, tidy, versions};

const USAGE: &str = "\
usage: cargo xtask CHORE

  ci                 all that continuous integration runs (`make test`)
  tidy               crate edges, sizes, names, licences; no compiler needed
  prepare            make sure that PostgreSQL 14 or newer is here (`make demo` does it first)
  prepare tests      the same, and the real clients that the tests use (`make test` does it first)
  model              search the session core for a violated invariant, as `make test` does
  model --deep [N]   the same for N minutes (10), on all processors
  replay FILE        play the trace of a violation again, step by step
  fuzz wire          search for bytes that make a reader panic or hang; a minute, or
                     --minutes N, --seconds N, --seed S, --only READER; or
                     --replay FILE plays a case again
  fuzz protocol      the same for what Backstay's own processes say to each other
  test-versions      the tests against real PostgreSQL with 16 and 18
  bench mirroring    pgbench: plain synchronous replication against a mirrored pool
  bench gateway      pgbench: direct, PgBouncer and HAProxy against the gateway
  bench witness      one witness with up to 10,000 sessions, over TLS: CPU, memory, votes
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["prepare"] => postgres::prepare().map(drop),
        ["prepare", "tests"] => prepare::tests(),
        ["model"] => model::search(model::Depth::Bounded),
        ["model", "--deep"] => model::search(model::Depth::DEEP),
        ["model", "--deep", minutes] => match minutes.parse() {
            Ok(minutes) => model::search(model::Depth::Deep { minutes }),
            Err(_) => return usage(),
        },
        ["replay", file] => model::replay(file.as_ref()),
        ["fuzz", "wire", rest @ ..] => fuzz::wire(rest),
        ["fuzz", "protocol", rest @ ..] => fuzz::protocol(rest),
        ["test-versions"] => versions::run(),
        ["bench", "mirroring", rest @ ..] => bench::mirroring(rest),
        ["bench", "gateway", rest @ ..] => bench::forwarding(rest),
        ["bench", "witness", rest @ ..] => bench::witness(rest),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    output::say(USAGE);
    ExitCode::from(2)
}
