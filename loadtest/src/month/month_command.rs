//! `headcount-loadtest month`: its arguments, how it may end, and clean-up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use schemas::Month;

use super::plan::{Plan, Preset, Size};
use super::produce::Progress;
use super::project::Views;
use super::result::MonthResult;
use super::run::Run;
use super::state::State;
use super::text;
use crate::interrupt::Interrupts;
use crate::kafka::database::Database;
use crate::kafka::kafka_command::{Setting as Kafka, unique};
use crate::kafka::topic;
use crate::shared_args::{CommonArgs, ServerArgs};

/// How long comparing and closing may take, after sending and counting.
const AFTERWARDS: Duration = Duration::from_secs(3_600);

/// Arguments of `headcount-loadtest month`.
#[derive(Debug, Clone, clap::Args)]
pub struct MonthArgs {
    #[command(flatten)]
    pub servers: ServerArgs,
    /// How large the month is
    #[arg(long, value_enum, default_value_t = Preset::Small)]
    pub preset: Preset,
    /// Page views instead of the preset's, as in 50M
    #[arg(long, value_name = "N")]
    pub views: Option<Views>,
    /// Projects instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub projects: Option<u32>,
    /// The month the views are of, as YYYY-MM: one that has ended [default: the last one]
    #[arg(long, value_name = "YYYY-MM")]
    pub month: Option<Month>,
    /// Drive only its first days; visitors cannot be compared then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=31))]
    pub days: Option<u32>,
    /// Decides every record
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    pub partitions: i32,
    /// Processes of `headcount aggregate` in one group
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub aggregators: u32,
    /// Records after which a window of a partition ends, before the twelve hours of the month that end it anyway
    #[arg(long, value_name = "N", default_value_t = 4_194_304, value_parser = clap::value_parser!(u64).range(1..=4_194_304))]
    pub window_records: u64,
    /// Records that may wait for the aggregators: what bounds the backlog
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    pub ahead: u64,
    /// Seconds that sending and counting may take; what was sent until then is counted and reported
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Where a run that was interrupted, or failed, leaves its names: with the same arguments it goes on
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Read so many reports a second meanwhile [5 if no number is given], of projects drawn by their traffic, and tell how long each
    /// took from when it was due
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "5",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub report_probe: Option<u32>,
    /// Leave the month open
    #[arg(long)]
    pub no_close: bool,
    /// Say what a month of so many page views would take, as in 10G; repeatable
    #[arg(long, value_name = "VIEWS", value_delimiter = ',')]
    pub project: Vec<Views>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The month before the current one.
fn last_month() -> Month {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    schemas::Hour(u32::try_from(now.as_secs() / 3_600).unwrap_or(u32::MAX)).month().previous()
}

/// However the run ends, it reports its work until then. With `--state` it leaves what the next run needs to continue.
pub(crate) async fn run(args: MonthArgs) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let run = prepare(args)?;
    let mut result = MonthResult::default();
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(run.kafka.within + AFTERWARDS, run.all(&mut result)) => {
            outcome.unwrap_or_else(|_| Err(anyhow!("given up: comparing and closing took too long")))
        }
        () = interrupted(&run, &mut interrupts) => Err(anyhow!("interrupted twice")),
    };
    run.progress.stop.store(true, Ordering::Relaxed);
    result.ended = outcome.as_ref().err().map(|error| format!("{error:#}"));
    let told = if result.truth.records > 0 { tell(&run, &mut result) } else { Ok(()) };
    // Before the first record there is nothing to continue. Wrong figures remain for inspection.
    let begun = run.resumed || run.progress.sent.load(Ordering::Relaxed) > 0;
    let unfinished = begun && (!matches!(outcome, Ok(true)) || !result.wrong.is_empty());
    match &run.args.state {
        Some(path) if unfinished => {
            println!("topic {} and database {} are left behind", run.kafka.topic, run.database.name);
            println!("the same command continues from here (its state is in {})", path.display());
        }
        state => {
            run.database.remove().await;
            topic::remove(&run.kafka.bootstrap, &run.kafka.topic, &[run.state.group()]).await;
            if let Some(path) = state {
                let _ = std::fs::remove_file(path);
            }
        }
    }
    outcome?;
    told
}

/// The first interruption requests an early end; this returns at the second one.
async fn interrupted(run: &Run, interrupts: &mut Interrupts) {
    interrupts.next().await;
    run.interrupted.store(true, Ordering::Relaxed);
    run.progress.stop.store(true, Ordering::Relaxed);
    eprintln!("stopping: what was sent is counted and reported (again: stop immediately)");
    interrupts.next().await;
}

fn prepare(args: MonthArgs) -> anyhow::Result<Run> {
    let servers = args.servers.pids()?;
    let preset = args.preset.size();
    let size = Size {
        projects: args.projects.unwrap_or(preset.projects),
        views: args.views.map_or(preset.views, |views| views.0),
    };
    ensure!(size.views >= 1_000, "a month has at least a thousand page views here");
    let plan = Arc::new(Plan::new(args.seed, args.month.unwrap_or_else(last_month), size));
    let fresh = State {
        format: 3,
        month: plan.month().to_string(),
        seed: args.seed,
        size,
        partitions: args.partitions,
        window_records: args.window_records,
        name: format!("{:016x}", unique()),
    };
    let (state, resumed) = State::resume_or_begin(args.state.as_deref(), fresh)?;
    let binary = args.common.headcount()?;
    Ok(Run {
        kafka: Kafka {
            bootstrap: args.servers.kafka_bootstrap.clone(),
            topic: state.topic(),
            partitions: args.partitions,
            clickhouse_url: args.servers.clickhouse_url.clone(),
            binary,
            within: Duration::from_secs(u64::from(args.seconds)),
        },
        database: Database::new(&args.servers.clickhouse_url, state.database()),
        progress: Arc::new(Progress::default()),
        interrupted: AtomicBool::new(false),
        plan,
        args,
        state,
        resumed,
        servers,
    })
}

/// Shows the figures, and judges them.
fn tell(run: &Run, result: &mut MonthResult) -> anyhow::Result<()> {
    run.describe(result);
    print!("{}", text::render(result));
    run.args.common.json.write(result)?;
    ensure!(result.wrong.is_empty(), "{} of the figures are wrong; see above", result.wrong.len());
    let strayed = [result.open.as_ref(), result.closed.as_ref()].into_iter().flatten();
    let strayed = strayed.flat_map(|checked| &checked.accuracy).filter(|class| !class.holds).count();
    ensure!(strayed == 0, "estimates of visitors stray further than theory allows in {strayed} classes of projects");
    Ok(())
}
