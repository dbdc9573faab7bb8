//! `headcount-loadtest`: a client of the system that posts beacons over HTTP and measures the answers, or fills a topic
//! and measures how it becomes rows ([`kafka`]). It starts the program `headcount` where it needs a service.
//!
//! The order of the modules is the order of a measurement over HTTP: [`target`] (which servers may be loaded) → [`month::beacons`] (which beacons, a
//! pure function of the seed) → [`wire`] (bytes out, status back) → [`drive`] (loops over keep-alive connections) → [`figures`] (one run in numbers)
//! → [`table`] (several runs, and their ratio to a reference).
//!
//! A figure in requests per second means little alone: client and server share the machine, and the machine's speed varies. So `--against noop`
//! measures, alternately with the target, a server that does nothing on the same HTTP stack ([`noop`]), in a separate process. The ratio of the two
//! is comparable between machines.

mod access_log;
mod attack;
mod compare;
mod cpu;
mod drive;
mod figures;
mod goatcounter;
mod http_command;
mod interrupt;
mod kafka;
mod knee;
mod machine;
mod month;
mod noop;
mod random;
#[cfg(test)]
mod random_tests;
mod report;
mod role;
mod service;
mod shared_args;
mod table;
mod target;
mod wire;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

/// `headcount` has the same allocator, so the client's share of a machine stays comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hours of a window of the log: the service's default of `window_hours`.
const WINDOW_HOURS: u32 = 12;

/// Drives load at a headcount service and measures.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "headcount-loadtest", version)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The load tests.
#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Post beacons in a closed loop and report throughput and latency
    Http(http_command::HttpArgs),
    /// Fill a topic and compare how fast, and at what cost, it becomes rows in ClickHouse
    Kafka(kafka::KafkaArgs),
    /// Drive a month of a docs host through Kafka and ClickHouse, and compare all of it with the truth
    Month(Box<month::MonthArgs>),
    /// Flood a service that it starts while readers read, and report how the readers fare
    Attack(attack::AttackArgs),
    /// Post the same beacons in turns to a server that does nothing, to headcount and to GoatCounter
    Compare(compare::CompareArgs),
    /// Fill projects and request their reports, beside the same question to a table of raw events
    Report(report::ReportArgs),
    /// Write an invented month of access logs in four formats, with what an import must count of it
    Log(access_log::LogArgs),
    /// Read a topic and do nothing (the reference of `kafka`)
    #[command(hide = true)]
    Drain(kafka::drain::DrainArgs),
    /// Answer every request with 202 and do nothing (the reference of `--against noop`)
    #[command(hide = true)]
    NoopServer(noop::NoopServerArgs),
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Http(args) => http_command::run(args).await,
        Command::Kafka(args) => kafka::run(args).await,
        Command::Month(args) => month::run(*args).await,
        Command::Attack(args) => attack::run(args).await,
        Command::Compare(args) => compare::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Log(args) => access_log::run(&args),
        Command::Drain(args) => tokio::task::block_in_place(|| kafka::drain::drain(&args)),
        Command::NoopServer(args) => noop::serve(args).await,
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("cannot start the async runtime").and_then(|runtime| runtime.block_on(run(command)));
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // One line per cause: first the attempt, then why it failed.
    eprintln!("headcount-loadtest: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}
