//! Rounds of questions: reports over HTTP, and the same of raw events.

use crate::kafka::database::Database;
use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use schemas::Month;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::net::TcpStream;

/// How long the questions of a round took, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// Questions.
    pub count: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Questions a second.
    pub per_second: f64,
}

/// Who is asked.
#[derive(Clone)]
pub enum Asked {
    /// `headcount query` on this port, for whole reports.
    Reports(u16),
    /// ClickHouse, for the totals, the days and the hundred most viewed pages of the raw events, each with `uniq()`.
    Raw(Arc<Database>),
}

/// One client's way to who is asked.
enum Side {
    Reports(Client),
    Raw(Arc<Database>),
}

struct Client {
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to headcount query")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// The views that a whole report tells.
    async fn report(&mut self, slug: &str, month: Month) -> anyhow::Result<u64> {
        let path = format!("/v1/projects/{slug}/reports/{month}");
        let request = http::Request::get(&path).header("host", "127.0.0.1").body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 200, "{path}: {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        let report: HashMap<String, serde_json::Value> = serde_json::from_slice(&body)?;
        report.get("totals").and_then(|totals| totals["views"].as_u64()).context("a report has totals.views")
    }
}

/// The same question of the raw events: totals, days, and the hundred most viewed pages, each with `uniq()`. Returns the views.
pub(crate) async fn raw(database: &Database, slug: &str, month: Month) -> anyhow::Result<u64> {
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

/// Asks for the reports of `ranks` with so many clients at once.
///
/// # Errors
/// When an answer fails, or tells other views than there are.
pub async fn round(
    asked: &Asked,
    projects: &Arc<Vec<(String, u64)>>,
    month: Month,
    ranks: &[usize],
    clients: u32,
) -> anyhow::Result<Round> {
    let (next, ranks) = (Arc::new(AtomicUsize::new(0)), Arc::new(ranks.to_vec()));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (asked, projects, next, ranks) =
            (asked.clone(), Arc::clone(projects), Arc::clone(&next), Arc::clone(&ranks));
        tasks.spawn(async move {
            let mut side = match asked {
                Asked::Reports(port) => Side::Reports(Client::open(port).await?),
                Asked::Raw(database) => Side::Raw(database),
            };
            let mut took = Vec::new();
            while let Some(&rank) = ranks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (slug, expected) = &projects[rank];
                let at = Instant::now();
                let views = match &mut side {
                    Side::Raw(database) => raw(database, slug, month).await?,
                    Side::Reports(client) => client.report(slug, month).await?,
                };
                took.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
                ensure!(views == *expected, "{slug}: told {views} views, there are {expected}");
            }
            anyhow::Ok(took)
        });
    }
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).context("a histogram")?;
    while let Some(took) = tasks.join_next().await {
        for micros in took?? {
            histogram.saturating_record(micros);
        }
    }
    let milliseconds = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Round {
        count: histogram.len(),
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        max_ms: histogram.max() as f64 / 1_000.0,
        per_second: histogram.len() as f64 / begun.elapsed().as_secs_f64(),
    })
}
