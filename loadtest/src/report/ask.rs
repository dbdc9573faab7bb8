//! Rounds of requests at rest: reports over HTTP, and the same query on raw events.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use schemas::Month;
use serde::Serialize;

use super::ReportArgs;
use crate::figures::LatencyMs;
use crate::kafka::database::Database;
use crate::month::probe::report_path;
use crate::random::{SplitMix64, Zipf};
use crate::role;

/// Reports of the largest project, one after another.
const OF_LARGEST: usize = 50;
/// Reports over which SELECTs are counted, and how long the service's background SELECTs are counted before.
const COUNTED_REPORTS: usize = 100;
const IDLE: Duration = Duration::from_secs(10);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The side that was queried.
    pub side: &'static str,
    /// `first touch`, `warm`, or `largest project`.
    pub state: &'static str,
    /// Requests.
    pub count: u64,
    /// From the request to the last byte.
    pub latency_ms: Option<LatencyMs>,
    /// Requests a second.
    pub per_second: f64,
}

/// The queried side.
pub enum Side {
    /// The service on this port for whole reports, each of which is computed (`Cache-Control: no-cache`).
    Computed(u16),
    /// The same, with its cache.
    Cached(u16),
    /// ClickHouse, for the totals, the days and the hundred most viewed pages of the raw events, each with `uniq()`.
    Raw(Box<Database>),
}

impl Side {
    /// As the table has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Computed(_) => "report, computed",
            Self::Cached(_) => "report, cached or not",
            Self::Raw(_) => "uniq() over raw events",
        }
    }

    /// The views that the answer has.
    async fn views(&self, slug: &str, month: Month) -> anyhow::Result<u64> {
        let (port, headers) = match self {
            Self::Raw(database) => return raw(database, slug, month).await,
            Self::Computed(port) => (*port, "cache-control: no-cache\r\n"),
            Self::Cached(port) => (*port, ""),
        };
        let path = report_path(slug, month);
        let answer = role::answer(port, &path, headers).await?;
        let body = &answer.body;
        ensure!(
            answer.status == 200,
            "{path}: {}: {}",
            answer.status,
            String::from_utf8_lossy(&body[..body.len().min(300)])
        );
        let report: serde_json::Value = serde_json::from_slice(body)?;
        report["totals"]["views"].as_u64().context("a report has totals.views")
    }
}

/// The same query on the raw events: totals, days, and the hundred most viewed pages, each with `uniq()`. Returns the views.
async fn raw(database: &Database, slug: &str, month: Month) -> anyhow::Result<u64> {
    let (from, to) = (month.first_hour().unix_seconds(), month.end_hour().unix_seconds());
    let rows = format!(
        "FROM {}.raw_event WHERE project = '{slug}' AND ts >= toDateTime({from}, 'UTC') AND ts < toDateTime({to}, 'UTC')",
        database.name
    );
    let (totals, days, pages) = (
        format!("SELECT count() + 0 * uniq(visitor) {rows}"),
        format!(
            "SELECT count() + 0 * sum(visitors) FROM (SELECT toDate(ts) AS day, count() AS views, uniq(visitor) AS visitors {rows} GROUP BY day)"
        ),
        format!(
            "SELECT count() + 0 * sum(visitors) FROM (SELECT path, status, count() AS views, uniq(visitor) AS visitors {rows} \
             GROUP BY path, status ORDER BY views DESC LIMIT 100)"
        ),
    );
    let (views, _, _) = tokio::try_join!(database.number(&totals), database.number(&days), database.number(&pages))?;
    Ok(views)
}

/// The rounds of one side, with one question after another: each project once; then warm; then the largest project.
///
/// # Errors
/// When an answer fails, or has other views than there are.
pub async fn rounds(args: &ReportArgs, side: &Side, projects: &[(String, u64)]) -> anyhow::Result<Vec<Round>> {
    let drawn = drawn(args, projects);
    let mut seen = HashSet::new();
    let first: Vec<usize> = drawn.iter().copied().filter(|rank| seen.insert(*rank)).collect();
    let mut all = Vec::new();
    for (state, ranks) in [("first touch", first), ("warm", drawn), ("largest project", vec![0; OF_LARGEST])] {
        all.push(round(side, state, projects, args.month, ranks).await.context(state)?);
    }
    Ok(all)
}

/// The ranks of the projects whose reports a round requests.
fn drawn(args: &ReportArgs, projects: &[(String, u64)]) -> Vec<usize> {
    let (zipf, mut random) = (Zipf::new(projects.len(), 1.0), SplitMix64::new(args.seed ^ 0xa5ed));
    (0..args.reports).map(|_| zipf.sample(&mut random)).collect()
}

async fn round(
    side: &Side,
    state: &'static str,
    projects: &[(String, u64)],
    month: Month,
    ranks: Vec<usize>,
) -> anyhow::Result<Round> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).context("a histogram")?;
    let begun = Instant::now();
    for rank in ranks {
        let ((slug, expected), at) = (&projects[rank], Instant::now());
        let views = side.views(slug, month).await?;
        histogram.saturating_record(at.elapsed().as_micros() as u64);
        ensure!(views == *expected, "{slug}: the answer has {views} views, there are {expected}");
    }
    Ok(Round {
        side: side.name(),
        state,
        count: histogram.len(),
        latency_ms: LatencyMs::of(&histogram),
        per_second: histogram.len() as f64 / begun.elapsed().as_secs_f64(),
    })
}

/// Computed reports a second with two clients that each send one request after another, of projects drawn by their traffic. The service computes
/// two reports concurrently for one network.
///
/// # Errors
/// When an answer fails, or has other views than there are.
pub async fn saturation(args: &ReportArgs, port: u16, projects: &[(String, u64)]) -> anyhow::Result<f64> {
    let (drawn, next, begun) = (drawn(args, projects), AtomicUsize::new(0), Instant::now());
    let client = async || -> anyhow::Result<()> {
        while let Some(&rank) = drawn.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (slug, expected) = &projects[rank];
            let views = Side::Computed(port).views(slug, args.month).await?;
            ensure!(views == *expected, "{slug}: the answer has {views} views, there are {expected}");
        }
        Ok(())
    };
    tokio::try_join!(client(), client())?;
    Ok(drawn.len() as f64 / begun.elapsed().as_secs_f64())
}

/// SELECTs per computed report: those of a hundred reports, minus the service's background SELECTs in that time.
///
/// # Errors
/// When an answer fails.
pub async fn selects(database: &Database, port: u16, projects: &[(String, u64)], month: Month) -> anyhow::Result<f64> {
    let so_far = async || database.number("SELECT sum(value) FROM system.events WHERE event = 'SelectQuery'").await;
    let before = so_far().await?;
    tokio::time::sleep(IDLE).await;
    let (idle, begun) = (so_far().await?, Instant::now());
    for (slug, _) in projects.iter().take(COUNTED_REPORTS) {
        Side::Computed(port).views(slug, month).await?;
    }
    let by_itself = (idle - before) as f64 * begun.elapsed().as_secs_f64() / IDLE.as_secs_f64();
    Ok(((so_far().await? - idle) as f64 - by_itself) / COUNTED_REPORTS.min(projects.len()) as f64)
}
