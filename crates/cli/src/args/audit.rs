//! The arguments of `backstay audit`.

use clap::Args;

use super::Which;

#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    pub which: Which,
    /// Only what this member was asked; otherwise all of them, merged by time.
    #[arg(long, value_name = "NAME")]
    pub member: Option<String>,
    /// Only what is not older: a span such as 30m, 2h or 7d, or a time such as
    /// 2026-11-23T05:00:00Z.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// At most so many entries of each member, the newest.
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub limit: u32,
    /// Print JSON (see docs/json.md).
    #[arg(long)]
    pub json: bool,
}
