//! `headcount loadtest`: a stranger to the system that posts beacons over HTTP and measures the answers, or fills a topic
//! and measures how it becomes rows ([`kafka`]).
//!
//! The order of the modules is the order of a measurement over HTTP:
//! [`target`] (who may be loaded) → [`scenario`] (which beacons, a pure function of the seed) → [`wire`] (bytes out,
//! status back) → [`drive`] (a closed loop over keep-alive connections) → [`figures`] (one run in numbers) →
//! [`table`] (several runs, and their ratio to a reference).
//!
//! A figure in requests per second says little on its own: client and server share the machine, and the machine
//! changes. So `--against noop` measures, alternately with the target, a server that does nothing on the same HTTP
//! shell ([`noop`]), in a process of its own. The ratio of the two is the figure that travels.

pub mod agents;
mod attack;
mod compare;
pub mod cpu;
pub mod drive;
pub mod figures;
mod goatcounter;
mod http_command;
pub mod interrupt;
pub mod kafka;
pub mod knee;
pub mod machine;
pub mod month;
pub mod noop;
pub mod random;
pub mod raw;
pub mod report;
pub mod role;
pub mod scenario;
pub mod service;
pub mod table;
pub mod target;
pub mod wire;

pub use attack::AttackArgs;
pub use compare::CompareArgs;
pub use http_command::{Against, HttpArgs};
pub use noop::NoopServerArgs;

/// Hours of a window of the log, as `window_hours` has them where no one says otherwise.
const WINDOW_HOURS: u32 = 12;

/// Arguments of `headcount loadtest`.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadtestArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LoadtestCommand,
}

/// What `headcount loadtest` can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum LoadtestCommand {
    /// Post beacons in a closed loop and report throughput and latency
    Http(HttpArgs),
    /// Fill a topic and compare how fast, and at what cost, it becomes rows in ClickHouse
    Kafka(kafka::KafkaArgs),
    /// Drive a month of a docs host through Kafka and ClickHouse, and compare all of it with the truth
    Month(Box<month::MonthArgs>),
    /// Flood a service of its own while readers read, and tell what becomes of the readers
    Attack(AttackArgs),
    /// The same beacons to a server that does nothing, to headcount and to GoatCounter, in turns
    Compare(CompareArgs),
    /// Make a month's records and fold them, without Kafka and ClickHouse, and tell what each step costs
    Fold(month::fold::FoldArgs),
    /// Fill projects and ask for their reports, beside the same question to a table of raw events
    Report(report::ReportArgs),
    /// Read a topic and do nothing (the reference of `kafka`)
    #[command(hide = true)]
    Drain(kafka::drain::DrainArgs),
    /// Answer every request with 202 and do nothing (the reference of `--against noop`)
    #[command(hide = true)]
    NoopServer(NoopServerArgs),
}

/// Runs the load test until its last run is reported, or the no-op server until its stdin closes. `folder` is whoever can fold
/// records: a stranger to the system cannot.
///
/// # Errors
/// When the target may not be loaded or cannot be reached, when a contender over Kafka fails or counts wrong, when the reference server does not start, when the JSON
/// file cannot be written, and (without `--allow-refusals`) when any beacon was answered with anything but 202.
pub async fn run(args: LoadtestArgs, folder: &mut dyn month::fold::Folder) -> anyhow::Result<()> {
    match args.command {
        LoadtestCommand::Http(args) => http_command::run(args).await,
        LoadtestCommand::Kafka(args) => kafka::run(args).await,
        LoadtestCommand::Month(args) => month::run(*args).await,
        LoadtestCommand::Attack(args) => attack::run(args).await,
        LoadtestCommand::Compare(args) => compare::run(args).await,
        LoadtestCommand::Fold(args) => tokio::task::block_in_place(|| month::fold::run(&args, folder)),
        LoadtestCommand::Report(args) => report::run(args).await,
        LoadtestCommand::Drain(args) => tokio::task::block_in_place(|| kafka::drain::drain(&args)),
        LoadtestCommand::NoopServer(args) => noop::serve(args).await,
    }
}
