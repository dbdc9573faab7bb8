//! The order of a run, and what is cleared away afterwards.

use super::ReportArgs;
use super::ask::{Asked, round};
use super::fill::{fill, prepare, projects};
use super::show::{Line, Result, Stored, render};
use crate::interrupt::bounded;
use crate::kafka::command::unique;
use crate::kafka::database::{Database, only_loopback};
use crate::machine::Machine;
use crate::month::plan::{Plan, Size};
use crate::month::probe;
use crate::random::{SplitMix64, Zipf};
use crate::role::Role;
use anyhow::{Context as _, ensure};
use clickhouse::Client;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tables that a report is read from.
const SUMMARIES: [&str; 11] = [
    "site_hourly",
    "page_daily",
    "breakdown_daily",
    "not_found_daily",
    "robot_daily",
    "robot_page_daily",
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_robot",
    "month_closed_robot_page",
];
/// How long ClickHouse's merges are waited for.
const REST: Duration = Duration::from_secs(300);
/// How long the role may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: ReportArgs) -> anyhow::Result<()> {
    only_loopback(&args.clickhouse_url)?;
    let name = args.database.clone().unwrap_or_else(|| format!("headcount_report_{:016x}", unique()));
    let database = Database::new(&args.clickhouse_url, name);
    if args.database.is_some() {
        let there =
            format!("SELECT count() FROM system.tables WHERE database = '{}' AND name = 'raw_event'", database.name);
        ensure!(
            database.number(&there).await? > 0,
            "there is no database {} that an earlier `headcount-loadtest report --keep` filled",
            database.name
        );
    }
    let outcome = bounded(Duration::from_secs(args.seconds.into()), measure(&args, &database)).await;
    if args.keep || args.database.is_some() {
        eprintln!("the database {} is left behind", database.name);
    } else {
        database.remove().await;
    }
    let result = outcome?;
    print!("{}", render(&result));
    args.common.json.write(&result)
}

async fn measure(args: &ReportArgs, database: &Database) -> anyhow::Result<Result> {
    let plan = Plan::new(args.seed, args.month, Size { projects: args.projects, views: args.views });
    let projects = Arc::new(tokio::task::block_in_place(|| projects(&plan)));
    // Column names are checked by the statement; types would be asked for at every insert.
    let client = Client::default().with_url(&args.clickhouse_url).with_database(&database.name).with_validation(false);
    let mut fill_seconds = None;
    if args.database.is_none() {
        let begun = Instant::now();
        prepare(database, &client).await?;
        probe::register(&plan, database).await?;
        fill(&client, &plan, args.streams).await?;
        fill_seconds = Some(begun.elapsed().as_secs_f64());
        rest(database).await?;
    }
    let stored = stored(database).await?;

    let now = args.month.end_hour().start() + Duration::from_secs(36 * 3_600);
    let binary = args.common.headcount()?;
    // Every second of a client's is measured here, not how many there may be.
    let arguments = ["--clickhouse-database", &database.name, "--clock-start", &now.to_rfc3339(), "--report-rate", "0"];
    let mut lines = Vec::new();
    for (name, more) in [("report", [].as_slice()), ("report, no cache", &["--report-cache-bytes", "0"])] {
        let arguments: Vec<String> = arguments.iter().chain(more).map(|&argument| argument.to_owned()).collect();
        let mut role = Role::start(&binary, "query", &args.clickhouse_url, &arguments)?;
        role.until_ready("", PATIENCE).await?;
        let side = rounds(args, database, &projects, name, &Asked::Reports(role.port)).await;
        role.stop().await?;
        lines.extend(side?);
    }
    let raw = Asked::Raw(Arc::new(database.clone()));
    lines.extend(rounds(args, database, &projects, "uniq() over raw events", &raw).await?);
    Ok(Result {
        machine: Machine::this(),
        projects: args.projects,
        views: projects.iter().map(|(_, views)| views).sum(),
        fill_seconds,
        stored,
        lines,
    })
}

/// The rounds of one side: first touched, with ClickHouse's caches dropped before; then warm, alone and at once; then the largest project.
async fn rounds(
    args: &ReportArgs,
    database: &Database,
    projects: &Arc<Vec<(String, u64)>>,
    name: &'static str,
    asked: &Asked,
) -> anyhow::Result<Vec<Line>> {
    let drawn = draw(projects.len(), args.reports as usize, args.seed);
    let mut seen = HashSet::new();
    let first: Vec<usize> = drawn.iter().copied().filter(|rank| seen.insert(*rank)).collect();
    for cache in ["MARK CACHE", "UNCOMPRESSED CACHE", "PRIMARY INDEX CACHE"] {
        // Not every version has all of them.
        let _ = database.execute(&format!("SYSTEM DROP {cache}")).await;
    }
    let largest = vec![0; 50];
    let mut lines = Vec::new();
    for (state, ranks, clients) in [
        ("first touch", &first, 1),
        ("warm", &drawn, 1),
        ("warm", &drawn, args.clients),
        ("largest project", &largest, 1),
    ] {
        let round =
            round(asked, projects, args.month, ranks, clients).await.with_context(|| format!("{name}, {state}"))?;
        lines.push(Line { asked: name, state, clients, round });
    }
    Ok(lines)
}

/// Projects by their traffic: as one over their rank.
fn draw(projects: usize, count: usize, seed: u64) -> Vec<usize> {
    let (zipf, mut random) = (Zipf::new(projects, 1.0), SplitMix64::new(seed ^ 0xa5ed));
    (0..count).map(|_| zipf.sample(&mut random)).collect()
}

async fn rest(database: &Database) -> anyhow::Result<()> {
    let deadline = Instant::now() + REST;
    let mut quiet = 0;
    while quiet < 3 && Instant::now() < deadline {
        quiet = if database.merges().await? == 0 { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn stored(database: &Database) -> anyhow::Result<Stored> {
    let of = |tables: String, what: &str| {
        format!(
            "SELECT sum({what}) FROM system.parts WHERE active AND database = '{}' AND table IN ({tables})",
            database.name
        )
    };
    let summaries = SUMMARIES.map(|table| format!("'{table}'")).join(", ");
    Ok(Stored {
        summary_rows: database.number(&of(summaries.clone(), "rows")).await?,
        summary_bytes: database.number(&of(summaries, "bytes_on_disk")).await?,
        raw_rows: database.number(&of("'raw_event'".to_owned(), "rows")).await?,
        raw_bytes: database.number(&of("'raw_event'".to_owned(), "bytes_on_disk")).await?,
    })
}
