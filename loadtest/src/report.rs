//! `headcount-loadtest report`: how fast `headcount serve` serves reports: at rest, compared with the same query on a table of raw events; while
//! beacons arrive; and while a backlog of the log is folded.
//!
//! [`fill`] (two months of [`month`](crate::month) folded into rows, and raw events, inserted directly into its ClickHouse) → [`ask`] (reports over
//! HTTP, and `uniq()` over the events) → [`load`] (reports in an open loop, while beacons arrive) → [`show`] (tables).

use schemas::Month;

use crate::shared_args::CommonArgs;

pub mod ask;
pub mod fill;
mod load;
mod raw;
mod report_command;
mod show;

pub(crate) use report_command::run;

/// Arguments of `headcount-loadtest report`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Projects, whose traffic falls off as one over their rank
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub projects: u32,
    /// Page views by people in the month that is requested
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000_000))]
    pub views: u64,
    /// The month, as YYYY-MM; the one before it is closed
    #[arg(long, value_name = "YYYY-MM", default_value = "2026-10")]
    pub month: Month,
    /// Reports in each round at rest, of projects drawn by their traffic; 0 for no rounds at rest
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub reports: u32,
    /// Beacons a second under load; the default is ten times the busiest hour of 250 million page views a month
    #[arg(long, value_name = "N", default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub beacons: u32,
    /// Uncached reports a second under load; above the saturation that the run prints, they wait for each other
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub report_rate: u32,
    /// Seconds under load, before the catch-up
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub load_seconds: u32,
    /// Records that the aggregator is behind in the catch-up; the default is half an hour of --beacons
    #[arg(long, value_name = "N", default_value_t = 2_700_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub backlog: u32,
    /// Decides every view
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Seconds that all of it may take
    #[arg(long, default_value_t = 7_200, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
}
