//! `headcount-loadtest report`: how fast a report is read, beside the same question to a table of raw events.
//!
//! [`fill`] (two months of [`month`](crate::month) folded into rows, and raw events, straight into ClickHouse) → [`ask`] (reports over HTTP, and `uniq()` over the events) → [`show`] (a table).
//!
//! It measures reading, so it writes no beacons and fills no topic: the crate `aggregate` folds the views here.

use schemas::Month;

use crate::shared_args::CommonArgs;

pub mod ask;
mod command;
pub mod fill;
pub mod show;

pub(crate) use command::run;

/// Arguments of `headcount-loadtest report`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// ClickHouse on this machine, as in http://127.0.0.1:8123
    #[arg(long, value_name = "URL", env = "HEADCOUNT_CLICKHOUSE_URL", hide_env_values = true)]
    pub clickhouse_url: String,
    /// Projects, whose traffic falls off as one over their rank
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub projects: u32,
    /// Page views by people in the month that is asked for
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000_000))]
    pub views: u64,
    /// The month, as YYYY-MM; the one before it is closed
    #[arg(long, value_name = "YYYY-MM", default_value = "2026-10")]
    pub month: Month,
    /// Streams of the log, which is partitions of a topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub streams: u64,
    /// Reports asked for in each round, of projects drawn by their traffic
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub reports: u32,
    /// Clients at once in the second round
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub clients: u32,
    /// Decides every view
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Seconds that all of it may take
    #[arg(long, default_value_t = 7_200, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Leave the database behind, and say its name
    #[arg(long)]
    pub keep: bool,
    /// Ask a database that an earlier run left behind, filled with the same arguments
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
}
