//! The order of a run, and what is cleared away afterwards.

use super::ReportArgs;
use super::ask::{Asked, round};
use super::fill::{Filler, prepare};
use super::show::{Line, Result, Stored, render};
use super::views::Crowd;
use crate::interrupt::bounded;
use crate::kafka::command::unique;
use crate::kafka::database::{Database, only_loopback};
use crate::machine::Machine;
use crate::random::SplitMix64;
use crate::role::Role;
use anyhow::{Context as _, ensure};
use clickhouse::Client;
use schemas::tables::ProjectRow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tables that a report is read from.
const SUMMARIES: [&str; 7] = [
    "site_hourly",
    "page_daily",
    "breakdown_daily",
    "not_found_daily",
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
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
            "there is no database {} that an earlier `loadtest report --keep` filled",
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
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&result)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

async fn measure(args: &ReportArgs, database: &Database) -> anyhow::Result<Result> {
    let crowd = Arc::new(Crowd::new(args.projects, args.views, args.seed));
    // Column names are checked by the statement; types would be asked for at every insert.
    let client = Client::default().with_url(&args.clickhouse_url).with_database(&database.name).with_validation(false);
    let mut fill_seconds = None;
    if args.database.is_none() {
        let begun = Instant::now();
        prepare(database, &client).await?;
        register(&client, &crowd).await?;
        let step = (crowd.views.len() / 10).max(1);
        let filler = Filler::new(client, &crowd, args.month, args.streams);
        filler
            .fill(|done| {
                if done % step == 0 {
                    eprintln!("{done} projects written");
                }
            })
            .await?;
        fill_seconds = Some(begun.elapsed().as_secs_f64());
        rest(database).await?;
    }
    let stored = stored(database).await?;

    let now = args.month.end_hour().start() + Duration::from_secs(36 * 3_600);
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().context("looking for this program")?,
    };
    // Every second of a client's is measured here, not how many there may be.
    let arguments = ["--clickhouse-database", &database.name, "--clock-start", &now.to_rfc3339(), "--report-rate", "0"];
    let mut lines = Vec::new();
    for (name, more) in [("report", [].as_slice()), ("report, no cache", &["--report-cache-bytes", "0"])] {
        let arguments: Vec<String> = arguments.iter().chain(more).map(|&argument| argument.to_owned()).collect();
        let mut role = Role::start(&binary, "query", &args.clickhouse_url, &arguments)?;
        let deadline = Instant::now() + PATIENCE;
        while !role.is_ready("").await {
            role.alive()?;
            ensure!(Instant::now() < deadline, "headcount query is not ready after {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let side = rounds(args, database, &crowd, name, &Asked::Reports(role.port)).await;
        role.stop().await?;
        lines.extend(side?);
    }
    let raw = Asked::Raw(Arc::new(database.clone()));
    lines.extend(rounds(args, database, &crowd, "uniq() over raw events", &raw).await?);
    Ok(Result {
        machine: Machine::this(),
        projects: args.projects,
        views: crowd.views.iter().sum(),
        fill_seconds,
        stored,
        lines,
    })
}

/// The rounds of one side: first touched, with ClickHouse's caches dropped before; then warm, alone and at once; then the largest project.
async fn rounds(
    args: &ReportArgs,
    database: &Database,
    crowd: &Arc<Crowd>,
    name: &'static str,
    asked: &Asked,
) -> anyhow::Result<Vec<Line>> {
    let drawn = draw(crowd, args.reports as usize, args.seed);
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
            round(asked, crowd, args.month, ranks, clients).await.with_context(|| format!("{name}, {state}"))?;
        lines.push(Line { asked: name, state, clients, round });
    }
    Ok(lines)
}

/// Projects by their traffic.
fn draw(crowd: &Crowd, count: usize, seed: u64) -> Vec<usize> {
    let mut below = Vec::with_capacity(crowd.views.len());
    let total = crowd.views.iter().fold(0u64, |sum, views| {
        below.push(sum + views);
        sum + views
    });
    let mut random = SplitMix64::new(seed ^ 0xa5ed);
    let drawn = (0..count).map(|_| {
        let view = random.below(total);
        below.partition_point(|sum| *sum <= view)
    });
    drawn.collect()
}

/// Registers the projects, so that anybody may read them.
async fn register(client: &Client, crowd: &Crowd) -> anyhow::Result<()> {
    let mut insert = client.insert::<ProjectRow>("project").await.context("registering the projects")?;
    for rank in 0..crowd.views.len() {
        let row = ProjectRow {
            slug: Crowd::slug(rank),
            hosts: vec![format!("{}.docs.example", Crowd::slug(rank))],
            removed: 0,
            mask: vec![],
            keep: vec![],
            query: vec![],
            time_zone: String::new(),
            public: 1,
            recipients: vec![],
            revision: 1,
            strip_trailing_slash: 0,
            strip_html: 0,
            ignore_networks: vec![],
        };
        insert.write(&row).await.context("registering the projects")?;
    }
    insert.end().await.context("registering the projects")
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
